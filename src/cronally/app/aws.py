"""What is asked of AWS by a command, without a daemon."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, TypeVar

from cronally.clock import SystemClock
from cronally.config import load_config
from cronally.doctor import Doctor
from cronally.errors import UsageError
from cronally.logs import silent_logs
from cronally.sns.aws import Aws
from cronally.sns.credentials import Credentials
from cronally.sns.local import local_credentials
from cronally.sns.subscribing import Subscribing
from cronally.sns.topics import Topics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from cronally.domain.findings import Finding
    from cronally.domain.targets import Target
    from cronally.domain.topic import TopicArn
    from cronally.domain.topic_reports import Step, Subscribed, TopicState

_T = TypeVar("_T")


def create_topic(name: str, region: str | None, *, is_fifo: bool) -> str:
    """Create a topic, in *region* or the session's; return its ARN. One that exists is left as it is.

    Errors: UsageError if no region is known; CredentialsInvalid, AwsRefused, AwsUnreachable.
    """

    async def create(aws: Aws) -> str:
        place = region or aws.region
        if place is None:
            raise UsageError("in which region? name it with --region, or set AWS_REGION")
        return await Topics(aws).create(name, place, is_fifo=is_fifo)

    return _with_aws(create)


def subscribe_topic(
    topic: TopicArn, target: Target, *, raw: bool | None, wait_s: float, tell: Callable[[Step], None]
) -> Subscribed:
    """Subscribe *target* to *topic* with all that it needs. Arguments and errors: as ``sns.subscribing.Subscribing`` has them."""

    async def subscribe(aws: Aws) -> Subscribed:
        subscribing = Subscribing(aws, SystemClock(), topic, target, raw=raw, tell=tell)
        return await subscribing.run(wait_s=wait_s)

    return _with_aws(subscribe)


def check_topic(arn: str) -> str:
    """Publish a test message; return its message id. Errors: as ``create_topic``."""
    return _with_aws(lambda aws: Topics(aws).publish_marked(arn))


def topic_states(arns: Sequence[str], *, stand_in: str | None) -> list[TopicState]:
    """Return how topics are at SNS, or at the *stand_in* (URL) that a daemon publishes to. Errors: CredentialsInvalid."""
    return _with_aws(lambda aws: Topics(aws).states(arns), stand_in=stand_in)


def examine(
    socket: str, flags: Mapping[str, object], topics: Sequence[str], *, config_file: str | None = None
) -> list[Finding]:
    """Look at all that a daemon needs; see ``doctor``. topics: ARNs to look at beside those in use. Errors: ConfigError."""
    config = load_config(os.environ, flags, config_file=config_file)

    async def look() -> list[Finding]:
        clock = SystemClock()
        credentials = Credentials(clock)
        aws = Aws(credentials)
        try:
            asked = [*topics, *([config.alerts_topic] if config.alerts_topic else [])]
            return await Doctor(config, credentials, aws, clock, socket=socket, topics=asked).examine()
        finally:
            await aws.close()

    with silent_logs():
        return asyncio.run(look())


def _with_aws(work: Callable[[Aws], Awaitable[_T]], *, stand_in: str | None = None) -> _T:
    """Run *work* with somebody who calls AWS for this user, or the *stand_in* at that URL."""

    async def main() -> _T:
        clock = SystemClock()
        if stand_in is None:
            credentials = Credentials(clock)
            await credentials.start()
            aws = Aws(credentials)
        else:
            aws = Aws(local_credentials(clock), endpoint_url=stand_in, is_stand_in=True)
        try:
            return await work(aws)
        finally:
            await aws.close()

    with silent_logs():  # what went wrong is raised, and said once
        return asyncio.run(main())
