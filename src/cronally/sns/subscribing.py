"""A subscription with all that a person forgets: what the target needs, what is there already, and the confirmation.

1. What the target needs comes before the subscription, so that no message is refused in between.
2. Nothing is changed that is right already; nothing is taken away that is not ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cronally.domain import topic_calls
from cronally.domain.aws_calls import command_line
from cronally.domain.aws_codes import plain_code
from cronally.domain.durations import format_duration
from cronally.domain.targets import how_to_confirm, is_raw
from cronally.domain.topic_policies import has_permission, merged_policy, queue_statement
from cronally.domain.topic_reports import Done, Step, Subscribed
from cronally.errors import AwsRefused
from cronally.sns.refusals import is_absent

if TYPE_CHECKING:
    from collections.abc import Callable

    from cronally.clock import Clock
    from cronally.domain.targets import Target
    from cronally.domain.topic import TopicArn
    from cronally.sns.aws import Caller

POLL_S: Final = 2.0  # a person clicks within minutes, a server answers within seconds
# What SNS lists in the place of an ARN; of one that was removed, for some days.
_PENDING: Final = "PendingConfirmation"
_DELETED: Final = "Deleted"


class Subscribing:
    """One subscription of *target* to *topic*. tell: hears each step as it is done.

    raw: True or False if somebody asked for it, else None: the default of ``is_raw`` for a new subscription, and no change of an old
    one, whose readers have got used to it. Errors: UsageError if the two do not go together; those of ``Caller.do``.
    """

    def __init__(
        self,
        aws: Caller,
        clock: Clock,
        topic: TopicArn,
        target: Target,
        *,
        raw: bool | None,
        tell: Callable[[Step], None],
    ) -> None:
        self._aws = aws
        self._clock = clock
        self._topic = topic
        self._target = target
        self._wish = raw
        self._is_raw = is_raw(topic, target, wish=raw)
        self._tell = tell

    async def run(self, *, wait_s: float) -> Subscribed:
        """Make it so. wait_s: how long to wait for a confirmation, 0 for not at all."""
        reply = await self._aws.do(topic_calls.get_topic(self._topic))
        await self._prepare(reply["Attributes"])
        present = await self._present()
        is_old = present not in (None, _PENDING)
        subscription = await self._bring_in_line(str(present)) if is_old else await self._subscribe(present)
        attributes = await self._attributes(subscription)
        if _is_pending(attributes) and wait_s > 0:
            attributes = await self._wait(subscription, attributes, wait_s)
        is_confirmed = not _is_pending(attributes)
        if is_confirmed and not is_old:
            self._say("confirmation", "done", "confirmed: messages are delivered from now on")
        if "RedrivePolicy" not in attributes:
            self._say("dead letters", "note", self._redrive_hint(subscription))
        return Subscribed(subscription, is_confirmed, attributes.get("RawMessageDelivery") == "true")

    # --- the target -------------------------------------------------------------------------------------------------

    async def _prepare(self, topic_attributes: dict[str, str]) -> None:
        if self._target.is_http:
            await self._sign_well(topic_attributes.get("SignatureVersion", "1"))
        elif self._target.protocol == "sqs":
            await self._let_into_queue()
        elif self._target.protocol == "lambda":
            await self._let_invoke()

    async def _sign_well(self, present: str) -> None:
        if present == topic_calls.SIGNATURE_VERSION:
            self._say("signature", "unchanged", "the topic signs with SHA-256 (SignatureVersion 2)")
            return
        await self._aws.do(topic_calls.sign_by_sha256(self._topic))
        self._say(
            "signature",
            "done",
            "the topic signs with SHA-256 from now on (SignatureVersion 2, for all its subscribers)",
        )

    async def _let_into_queue(self) -> None:
        queue = self._target
        url = str((await self._aws.do(topic_calls.get_queue_url(queue)))["QueueUrl"])
        attributes = (await self._aws.do(topic_calls.get_queue(queue, url))).get("Attributes", {})
        policy = merged_policy(attributes.get("Policy"), queue_statement(self._topic.text, queue.endpoint))
        if policy is None:
            self._say("queue policy", "unchanged", f"the queue {queue.name} takes messages of this topic")
        else:
            await self._aws.do(topic_calls.set_queue_policy(queue, url, policy))
            self._say(
                "queue policy",
                "done",
                f"the queue {queue.name} takes messages of this topic; its other statements stay",
            )
        if attributes.get("KmsMasterKeyId"):
            self._say("encryption", "note", _key_hint(attributes["KmsMasterKeyId"]))
        if not attributes.get("RedrivePolicy"):
            self._say(
                "queue",
                "note",
                "the queue has no dead-letter queue: a message that no worker can handle comes back until it is too old",
            )

    async def _let_invoke(self) -> None:
        function = self._target
        try:
            present = (await self._aws.do(topic_calls.get_function_policy(function)))["Policy"]
        except AwsRefused as exc:
            # Lambda says the same of a function that is not there; then the next call says so.
            if not is_absent(exc):
                raise
            present = None
        is_there = has_permission(present, self._topic.text)
        if not is_there:
            try:
                await self._aws.do(topic_calls.allow_invocation(self._topic, function))
            except AwsRefused as exc:
                if plain_code(exc.code) != "ResourceConflict":  # somebody ran this command just now
                    raise
                is_there = True
        self._say("permission", "unchanged" if is_there else "done", f"the topic may invoke {function.name}")

    # --- the subscription -------------------------------------------------------------------------------------------

    async def _subscribe(self, present: str | None) -> str:
        """Return the ARN of a new subscription, or of one that waits to be confirmed."""
        reply = await self._aws.do(topic_calls.subscribe(self._topic, self._target, is_raw=self._is_raw))
        subscription = str(reply["SubscriptionArn"])
        again = " again: SNS has asked for the confirmation once more" if present else ""
        form = self._form(is_raw=self._is_raw)
        self._say("subscription", "done", f"subscribed{again}{form}: {subscription}")
        return subscription

    async def _present(self) -> str | None:
        """Return the ARN of the subscription that is there, or PendingConfirmation, or None."""
        after: str | None = None
        while True:
            page = await self._aws.do(topic_calls.list_subscriptions(self._topic, after))
            for one in page.get("Subscriptions", []):
                is_ours = (one["Protocol"], one["Endpoint"]) == (self._target.protocol, self._target.endpoint)
                if is_ours and one["SubscriptionArn"] != _DELETED:
                    return str(one["SubscriptionArn"])
            after = page.get("NextToken")
            if not after:
                return None

    async def _bring_in_line(self, subscription: str) -> str:
        """Give the subscription that is there what was asked for; return it."""
        attributes = await self._attributes(subscription)
        was_raw = attributes.get("RawMessageDelivery") == "true"
        if was_raw != self._is_raw and self._wish is not None:
            await self._aws.do(topic_calls.set_raw(self._topic, subscription, is_raw=self._is_raw))
            self._say(
                "subscription", "done", f"changed, now {_raw_text(is_raw=self._is_raw)}: {subscription}"
            )
            return subscription
        form = self._form(is_raw=was_raw)
        self._say("subscription", "unchanged", f"subscribed already{form}: {subscription}")
        if was_raw != self._is_raw:
            flag = "--raw" if self._is_raw else "--no-raw"
            self._say(
                "raw delivery",
                "note",
                f"a new subscription would be {_raw_text(is_raw=self._is_raw)}; {flag} changes this one",
            )
        return subscription

    def _form(self, *, is_raw: bool) -> str:
        return (
            "" if self._target.protocol == "email" else f", {_raw_text(is_raw=is_raw)}"
        )  # a mail is neither

    def _say(self, what: str, outcome: Done, text: str) -> None:
        self._tell(Step(what, outcome, text))

    async def _attributes(self, subscription: str) -> dict[str, Any]:
        reply = await self._aws.do(topic_calls.get_subscription(self._topic, subscription))
        attributes: dict[str, Any] = reply["Attributes"]
        return attributes

    async def _wait(self, subscription: str, attributes: dict[str, Any], wait_s: float) -> dict[str, Any]:
        """Return the attributes once the subscription is confirmed, or the last ones when the time is over."""
        self._say(
            "confirmation",
            "waiting",
            f"{how_to_confirm(self._target)} (waiting up to {format_duration(round(wait_s) * 1000)})",
        )
        deadline = self._clock.mono() + wait_s
        while _is_pending(attributes):
            rest_s = deadline - self._clock.mono()
            if rest_s <= 0:
                break
            await self._clock.sleep(min(POLL_S, rest_s))
            attributes = await self._attributes(subscription)
        return attributes

    def _redrive_hint(self, subscription: str) -> str:
        call = topic_calls.set_redrive(self._topic, subscription)
        given_up = (
            "a minute"
            if self._target.is_http
            else "6 hours"
            if self._target.protocol == "email"
            else "23 days"
        )
        return f"what SNS cannot deliver within about {given_up} is lost; a dead-letter queue keeps it: {command_line(call)}"


def _is_pending(attributes: dict[str, Any]) -> bool:
    return bool(attributes.get("PendingConfirmation") == "true")


def _raw_text(*, is_raw: bool) -> str:
    return "raw" if is_raw else "in the JSON of SNS"


def _key_hint(key: str) -> str:
    if key.endswith("alias/aws/sqs"):
        return "the queue is encrypted with alias/aws/sqs, which SNS may not use: choose SSE-SQS, or a KMS key of your own"
    return f"the queue is encrypted with {key}: its key policy must allow sns.amazonaws.com kms:GenerateDataKey* and kms:Decrypt"
