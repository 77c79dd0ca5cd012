"""Reading the SQS queues of a stand-in with the AWS SDK, as a worker does."""

from __future__ import annotations

from typing import Any, NamedTuple

import boto3

TOPIC_PREFIX = "arn:aws:sns:us-east-1:123456789012:"


class Message(NamedTuple):
    """A message of a queue. sent_at: SQS's SentTimestamp, UTC milliseconds."""

    body: str
    attributes: dict[str, str]
    sent_at: int

    @property
    def fire_id(self) -> str:
        return self.attributes["cronally.fire_id"]


class Queue:
    """The queue that the stand-in at *endpoint_url* made for a topic."""

    def __init__(self, endpoint_url: str, topic: str) -> None:
        self._sqs: Any = boto3.client(
            "sqs",
            endpoint_url=endpoint_url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self._url = f"{endpoint_url}/123456789012/{topic}"

    def receive(self, count: int, *, polls: int = 60) -> list[Message]:
        """Return the next *count* messages; fewer if so many polls of a second do not bring them."""
        messages: list[Message] = []
        while len(messages) < count and polls > 0:
            batch = self._receive_some(wait_s=1)
            polls -= not batch
            messages += batch
        return messages

    def drain(self) -> list[Message]:
        """Return what lies in the queue now."""
        messages: list[Message] = []
        while batch := self._receive_some(wait_s=0):
            messages += batch
        return messages

    def close(self) -> None:
        self._sqs.close()

    def _receive_some(self, *, wait_s: int) -> list[Message]:
        reply = self._sqs.receive_message(
            QueueUrl=self._url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=wait_s,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["SentTimestamp"],
        )
        found = reply.get("Messages", [])
        if found:
            entries = [{"Id": str(i), "ReceiptHandle": m["ReceiptHandle"]} for i, m in enumerate(found)]
            self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
        return [
            Message(
                m["Body"],
                {name: value["StringValue"] for name, value in m.get("MessageAttributes", {}).items()},
                int(m["Attributes"]["SentTimestamp"]),
            )
            for m in found
        ]
