"""Where a topic's messages may go: what a person writes for it, and which target goes with which topic."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

from cronally.errors import UsageError

if TYPE_CHECKING:
    from cronally.domain.topic import TopicArn

Protocol = Literal["https", "http", "sqs", "lambda", "email"]

# SQS API Reference, CreateQueue: a queue's name; Lambda API Reference, FunctionName: function and qualifier.
_QUEUE: Final = re.compile(
    r"arn:(aws[a-z-]{0,20}):sqs:([a-z0-9-]{3,40}):(\d{12}):((?=.{1,80}$)[A-Za-z0-9_-]+(?:\.fifo)?)", re.ASCII
)
_FUNCTION: Final = re.compile(
    r"arn:(aws[a-z-]{0,20}):lambda:([a-z0-9-]{3,40}):(\d{12}):function:([A-Za-z0-9_-]{1,140}(?::[A-Za-z0-9$_-]{1,128})?)",
    re.ASCII,
)
_QUEUE_URL: Final = re.compile(
    r"https?://(?:sqs\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?|([a-z0-9-]+)\.queue\.amazonaws\.com)/(\d{12})/([\w-]{1,80}(?:\.fifo)?)",
    re.ASCII,
)
_EMAIL: Final = re.compile(r"[^@\s,;<>\"]{1,64}@[^@\s,;<>\"]{1,255}")
_FORMS: Final = (
    "write https://HOST/PATH, arn:aws:sqs:REGION:ACCOUNT:QUEUE, arn:aws:lambda:REGION:ACCOUNT:function:NAME, or an "
    "e-mail address"
)
_RAW: Final = frozenset({"sqs", "http", "https"})  # SNS Developer Guide, raw message delivery (and Firehose)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is subscribed. endpoint: as SNS takes it. partition, region, account, name: of a queue or function, else empty."""

    protocol: Protocol
    endpoint: str
    partition: str = ""
    region: str = ""
    account: str = ""
    name: str = ""

    @property
    def is_http(self) -> bool:
        return self.protocol in ("http", "https")


def parse_target(text: str) -> Target:
    """Return the target that *text* names. Errors: UsageError that shows the forms."""
    if text.startswith("arn:"):
        return _of_arn(text)
    scheme = text.partition("://")[0].lower()
    if scheme in ("http", "https"):
        return _of_url(text, "https" if scheme == "https" else "http")
    if _EMAIL.fullmatch(text) and "://" not in text and "." in text.rpartition("@")[2]:
        return Target(protocol="email", endpoint=text)
    raise UsageError(f"{text[:200]!r} is nothing that a topic can deliver to; {_FORMS}")


def _of_arn(text: str) -> Target:
    for pattern in (_QUEUE, _FUNCTION):
        match = pattern.fullmatch(text)
        if match is not None:
            partition, region, account, name = match.groups()
            return Target(
                protocol="sqs" if pattern is _QUEUE else "lambda",
                endpoint=text,
                partition=partition,
                region=region,
                account=account,
                name=name,
            )
    raise UsageError(f"{text[:200]!r} is not the ARN of an SQS queue or a Lambda function; {_FORMS}")


def _of_url(text: str, scheme: Literal["http", "https"]) -> Target:
    queue = _QUEUE_URL.fullmatch(text)
    if queue is not None:
        region, old_region, account, name = queue.groups()
        arn = f"arn:aws:sqs:{region or old_region}:{account}:{name}"
        raise UsageError(f"{text} is the URL of an SQS queue; name the queue by its ARN: {arn}")
    try:
        parts = urlsplit(text)
        is_good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or not text.isascii() or not text.isprintable() or " " in text or parts.fragment:
        raise UsageError(
            f"{text[:200]!r} is not a URL that SNS can post to; write https://HOST/PATH, in ASCII and without a fragment"
        )
    return Target(protocol=scheme, endpoint=text)


def is_raw(topic: TopicArn, target: Target, *, wish: bool | None) -> bool:
    """Return whether *topic* shall deliver to *target* raw: the message alone, without the JSON of SNS around it.

    wish: True or False if somebody said so, else None: raw to SQS, where the attributes go with it; not to HTTP(S), where a raw
    message has neither attributes nor signature. Errors: UsageError if the two do not go together.
    """
    _check_together(topic, target)
    if wish and target.protocol not in _RAW:
        raise UsageError(
            f"--raw is for SQS and HTTP(S) targets; SNS delivers to {_NOUNS[target.protocol]} in its own form only"
        )
    return target.protocol == "sqs" if wish is None else wish


def how_to_confirm(target: Target) -> str:
    """Return what has to happen before SNS delivers to a target that must agree."""
    if target.is_http:
        return f"{target.endpoint} must fetch the SubscribeURL of the SubscriptionConfirmation that SNS posts to it"
    if target.protocol == "email":
        return f"the owner of {target.endpoint} must follow the link in the mail that SNS sends"
    return f"the account {target.account} must confirm it"


def warnings_of(target: Target, *, raw: bool) -> list[str]:
    """Return what a person should know of *target* before messages go there. raw: they go without the JSON of SNS."""
    found = []
    if target.protocol == "http":
        found.append("HTTP is not encrypted: whoever is on the way can read the messages; https:// is safe")
    if target.is_http and raw:
        found.append(
            "a raw HTTP(S) message has no attributes and no signature: the receiver cannot tell who sent it"
        )
    return found


_NOUNS: Final = {"lambda": "a Lambda function", "email": "an e-mail address"}


def _check_together(topic: TopicArn, target: Target) -> None:
    if topic.is_fifo and target.protocol != "sqs":
        way = {
            "lambda": "subscribe a queue, and let the function read from that",
            "email": "use a standard topic for e-mail",
        }.get(target.protocol, "use a standard topic for HTTP(S)")
        raise UsageError(f"the FIFO topic {topic.name} delivers to SQS queues only; {way}")
    if target.protocol == "sqs" and target.name.endswith(".fifo") and not topic.is_fifo:
        raise UsageError(
            f"the FIFO queue {target.name} takes messages of FIFO topics only, and {topic.name} is a standard topic; "
            "subscribe a standard queue, or use a topic whose name ends in .fifo"
        )
    if target.partition and target.partition != topic.partition:
        raise UsageError(
            f"{target.endpoint} lies in the partition {target.partition} and the topic in {topic.partition}; SNS does not "
            "deliver from one to the other"
        )
