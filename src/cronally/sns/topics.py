"""Topics: do they exist, and making one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from cronally.domain.topic import parse_topic_arn
from cronally.errors import PublishError
from cronally.sns.clients import Clients

if TYPE_CHECKING:
    from cronally.sns.credentials import Credentials


class Topics:
    """The topic calls of SNS that Cronally makes, each in the region its ARN names."""

    def __init__(self, credentials: Credentials, *, endpoint_url: str | None = None) -> None:
        self._clients = Clients(credentials, endpoint_url=endpoint_url)

    async def exists(self, arn: str) -> bool:
        """Return whether there is such a topic. Errors: PublishError if SNS does not say (access denied, no answer)."""
        try:
            client = await self._clients.get(parse_topic_arn(arn).region)
            await client.get_topic_attributes(TopicArn=arn)
        except ClientError as exc:
            if _code(exc).startswith("NotFound"):
                return False
            raise PublishError(f"SNS does not tell about {arn}: {exc}") from exc
        except (BotoCoreError, OSError) as exc:
            raise PublishError(f"SNS does not tell about {arn}: {exc}") from exc
        return True

    async def ensure(self, arn: str) -> None:
        """Create the topic unless it exists. Errors: PublishError, also if it would lie in another account."""
        try:
            client = await self._clients.get(parse_topic_arn(arn).region)
            await create_topic(client, arn)
        except (ClientError, BotoCoreError, OSError) as exc:
            raise PublishError(f"{arn} could not be created: {exc}") from exc

    async def close(self) -> None:
        await self._clients.close()


async def create_topic(client: Any, arn: str) -> None:
    """Create the topic *arn* with the SNS *client* of its region; one that exists is left as it is.

    Errors: botocore's; PublishError if the client's account or partition is not the ARN's.
    """
    topic = parse_topic_arn(arn)
    attributes = {"FifoTopic": "true"} if topic.is_fifo else {}
    reply = await client.create_topic(Name=topic.name, Attributes=attributes)
    if reply["TopicArn"] != arn:
        raise PublishError(f"the topic that exists now is {reply['TopicArn']}, not {arn}; correct the ARN")


def _code(exc: ClientError) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))
