"""Topics: making one, looking at it, trying it."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Any

from cronally.domain import topic_calls
from cronally.domain.topic import parse_topic_arn
from cronally.domain.topic_reports import TopicState
from cronally.errors import AwsRefused, CronallyError, PublishError
from cronally.sns.refusals import is_absent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.sns.aws import Caller

_AT_ONCE = 10  # calls; in small regions SNS takes 30 a second of this kind (facts: quotas)


class Topics:
    """The topics of whoever *aws* calls for. Errors of all methods: those of ``Caller.do``."""

    def __init__(self, aws: Caller) -> None:
        self._aws = aws

    async def create(self, name: str, region: str, *, is_fifo: bool) -> str:
        """Create the topic, or leave it as it is if it exists; return its ARN."""
        reply = await self._aws.do(topic_calls.create_topic(name, region, is_fifo=is_fifo))
        return str(reply["TopicArn"])

    async def publish_marked(self, arn: str) -> str:
        """Publish one message that says it is a test; return its message id."""
        unique = secrets.token_hex(8)
        reply = await self._aws.do(topic_calls.marked_message(parse_topic_arn(arn), unique=unique))
        return str(reply["MessageId"])

    async def state(self, arn: str) -> TopicState:
        """Return how a topic is; what is wrong stands in ``problem``, and is no error."""
        try:
            reply = await self._aws.do(topic_calls.get_topic(parse_topic_arn(arn)))
        except AwsRefused as exc:
            return TopicState(arn) if is_absent(exc) else TopicState(arn, problem=str(exc))
        except CronallyError as exc:
            return TopicState(arn, problem=str(exc))
        attributes = reply["Attributes"]
        return TopicState(
            arn,
            exists=True,
            is_fifo=attributes.get("FifoTopic") == "true",
            confirmed=int(attributes.get("SubscriptionsConfirmed", 0)),
            pending=int(attributes.get("SubscriptionsPending", 0)),
            signature_version=attributes.get("SignatureVersion", "1"),
        )

    async def states(self, arns: Sequence[str]) -> list[TopicState]:
        """Return the states of topics, in their order."""
        turn = asyncio.Semaphore(_AT_ONCE)

        async def state(arn: str) -> TopicState:
            async with turn:
                return await self.state(arn)

        return list(await asyncio.gather(*map(state, arns)))


class AlertTopic:
    """A ``Messenger`` whose messages go to a topic."""

    def __init__(self, aws: Caller, arn: str) -> None:
        self._aws = aws
        self._topic = parse_topic_arn(arn)

    async def send(self, subject: str, text: str, *, kind: str) -> None:
        unique = secrets.token_hex(8)
        await self._aws.do(
            topic_calls.alert(self._topic, subject=subject, text=text, kind=kind, unique=unique)
        )


async def create_topic(client: Any, arn: str) -> None:
    """Create the topic *arn* with the SNS *client* of its region; one that exists is left as it is.

    Errors: botocore's; PublishError if the client's account or partition is not the ARN's.
    """
    topic = parse_topic_arn(arn)
    attributes = {"FifoTopic": "true"} if topic.is_fifo else {}
    reply = await client.create_topic(Name=topic.name, Attributes=attributes)
    if reply["TopicArn"] != arn:
        raise PublishError(f"the topic that exists now is {reply['TopicArn']}, not {arn}; correct the ARN")
