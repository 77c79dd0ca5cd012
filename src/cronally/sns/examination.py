"""What ``doctor`` says about AWS: credentials, endpoints with their clocks, and whether the topics can be published to.

1. Nothing is sent to a topic, and nothing is changed.
2. Each part has its time; what is not answered by then is a finding of its own, and holds up no other.
"""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from botocore.exceptions import ClientError

from cronally.domain import topic_calls
from cronally.domain.findings import (
    Finding,
    credentials_finding,
    failed,
    offset_finding,
    ok,
    principal_of,
    simulated,
    topic_finding,
    warning,
)
from cronally.domain.topic import way_of
from cronally.domain.topic_reports import TopicState
from cronally.errors import AwsRefused, AwsUnreachable, CredentialsInvalid, CronallyError
from cronally.instants import from_datetime
from cronally.sns.clients import UNANSWERED, Clients, unanswered_text
from cronally.sns.credentials import Credentials
from cronally.sns.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.sns.aws import Caller

_T = TypeVar("_T")

CREDENTIALS_S: Final = 3.0  # where there is no metadata service, the chain gives up after 1 to 2 s
PART_S: Final = 3.0
MOST_TOPICS: Final = 50  # SNS takes 30 questions a second in small regions
MOST_REGIONS: Final = 5
_NOWHERE: Final = "look at the network, at AWS_ENDPOINT_URL and at the proxy settings"
_SOURCES: Final = {
    "env": "the environment",
    "shared-credentials-file": "the credentials file",
    "config-file": "the config file",
    "iam-role": "the role of this machine",
    "container-role": "the role of this container",
    "assume-role": "a role that the profile assumes",
    "assume-role-with-web-identity": "a role by web identity",
    "sso": "SSO",
    "login": "'aws login'",
    "custom-process": "the credential process of the profile",
}


class InUse(NamedTuple):
    """A topic to look at. refused: what SNS says to the daemon while it refuses everything for it, else None."""

    topic: str
    refused: str | None = None

    @property
    def region(self) -> str:
        return way_of(self.topic).region


async def examine_credentials(credentials: Credentials, clock: Clock) -> Finding:
    """Resolve *credentials*, and say what was found."""
    try:
        async with asyncio.timeout(CREDENTIALS_S):
            await credentials.start()
    except TimeoutError:
        return failed(
            "credentials",
            f"the chain of AWS did not answer within {CREDENTIALS_S:g} s",
            "see what takes so long with 'aws sts get-caller-identity --debug'",
        )
    except CredentialsInvalid as exc:
        text, _, fix = str(exc).partition("; ")
        return failed("credentials", text, fix or "set AWS_PROFILE")
    frozen = credentials.frozen
    assert frozen is not None
    source = credentials.source or ""
    return credentials_finding(
        key=frozen.access_key,
        source=_SOURCES.get(source, source),
        is_temporary=frozen.token is not None,
        is_renewed=credentials.is_renewed,
        expires_at=credentials.expires_at,
        now=clock.wall(),
    )


async def examine_endpoint(region: str, clock: Clock, *, endpoint_url: str | None = None) -> Finding:
    """Say whether the SNS of *region* answers, and how its clock and ours agree. Asks as nobody, whom SNS refuses."""
    check = f"endpoint {region}"
    # The chain may have no credentials, and is not asked for any.
    clients = Clients(Credentials.fixed(clock, "none", "none"), endpoint_url=endpoint_url)
    url = "SNS"
    try:
        async with asyncio.timeout(PART_S):
            client = await clients.get(region)
            url = client.meta.endpoint_url
            before, begun = clock.wall(), clock.mono()
            headers = await _headers(client)
            trip_s = clock.mono() - begun
    except TimeoutError:
        return failed(check, f"{url} did not answer within {PART_S:g} s", _NOWHERE)
    except UNANSWERED as exc:
        return failed(check, f"{url} does not answer: {unanswered_text(exc)}", _NOWHERE)
    finally:
        await clients.close()
    try:
        theirs = from_datetime(parsedate_to_datetime(headers["date"]))
    except (KeyError, ValueError):
        return warning(check, f"{url} answers, but does not say what time it is", "see what answers there")
    offset_s = (theirs + 500 - before) / 1000 - trip_s / 2  # a Date header is cut to the second
    return offset_finding(region, url, offset_s=offset_s, trip_s=trip_s)


async def _headers(client: Any) -> Mapping[str, str]:
    try:
        reply = await client.list_topics()
    except ClientError as exc:  # as AWS does
        reply = exc.response
    headers: Mapping[str, str] = reply["ResponseMetadata"]["HTTPHeaders"]
    return headers


async def examine_topics(aws: Caller, topics: Sequence[InUse], region: str) -> list[Finding]:
    """Say who the caller is; then of each of some topics whether it may publish there, as far as that can be known without sending."""
    some = sorted(topics, key=lambda one: one.refused is None)[:MOST_TOPICS]
    (identity, decisions, who), states = await asyncio.gather(
        _identity(aws, some, region), _states(aws, some)
    )
    findings = [
        topic_finding(one.topic, state=state, decision=decisions.get(one.topic), who=who, refused=one.refused)
        for one, state in zip(some, states, strict=True)
    ]
    if len(topics) > len(some):
        text = f"{len(topics) - len(some):,} more were not looked at"
        findings.append(warning("topics", text, "'cronally topics ls --check' looks at all of them"))
    return [identity, *findings]


async def _identity(aws: Caller, topics: Sequence[InUse], region: str) -> tuple[Finding, dict[str, str], str]:
    """Return a finding about the caller, what IAM says of each topic (as far as it does), and a name for the caller."""
    nobody = "the daemon's user or role"
    try:
        reply = await _within(aws.do(topic_calls.who_am_i(region)))
    except AwsRefused as exc:
        return (
            failed("identity", str(exc), "renew the credentials, or name others with AWS_PROFILE"),
            {},
            nobody,
        )
    except (CronallyError, TimeoutError) as exc:
        return warning("identity", f"STS does not say: {_said(exc)}", _NOWHERE), {}, nobody
    arn = str(reply["Arn"])
    finding = ok("identity", f"{arn} (of this shell; the daemon has its own environment)")
    principal = principal_of(arn)
    if principal is None or not topics:
        return finding, {}, arn
    try:
        answer = await _within(
            aws.do(topic_calls.may_publish(principal, [one.topic for one in topics], region))
        )
    except (CronallyError, TimeoutError):
        return finding, {}, principal  # each topic says that it was not tested
    return finding, simulated(answer), principal


async def _states(aws: Caller, topics: Sequence[InUse]) -> list[TopicState]:
    try:
        return await _within(Topics(aws).states([one.topic for one in topics]))
    except TimeoutError:
        return [TopicState(one.topic, problem=f"SNS did not answer within {PART_S:g} s") for one in topics]


async def _within(asked: Awaitable[_T]) -> _T:
    async with asyncio.timeout(PART_S):
        return await asked


def _said(exc: Exception) -> str:
    if isinstance(exc, AwsUnreachable):
        return exc.reason
    return f"no answer within {PART_S:g} s" if isinstance(exc, TimeoutError) else str(exc)
