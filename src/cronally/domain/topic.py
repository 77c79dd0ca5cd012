"""The ARN of an SNS topic: where it lies and whether it keeps order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import NamedTuple

# Name: 1-256 of A-Za-z0-9_-, FIFO names end in .fifo (SNS API Reference, CreateTopic).
_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]{0,20}):sns:(?P<region>[a-z0-9-]{3,40}):(?P<account>\d{12})"
    r":(?P<name>[A-Za-z0-9_-]{1,256}(?:\.fifo)?)",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class TopicArn:
    """A topic's ARN in parts. ``is_fifo``: SNS keeps order within a group and drops repeats for 5 minutes."""

    text: str
    partition: str
    region: str
    account: str
    name: str

    @property
    def is_fifo(self) -> bool:
        return is_fifo_topic(self.text)


def is_fifo_topic(arn: str) -> bool:
    """Whether SNS keeps order in the topic of an ARN that was checked: its name says so."""
    return arn.endswith(".fifo")


@lru_cache(maxsize=4096)
def parse_topic_arn(text: str) -> TopicArn:
    """Return the parts of a topic's ARN. Errors: ValueError that shows the right form."""
    match = _ARN.fullmatch(text)
    if match is None or len(match["name"]) > 256:
        raise ValueError(
            f"{text[:120]!r} is not the ARN of an SNS topic; "
            "write it as arn:aws:sns:REGION:ACCOUNT:NAME, for example arn:aws:sns:us-east-1:123456789012:reports"
        )
    return TopicArn(text, match["partition"], match["region"], match["account"], match["name"])


class Way(NamedTuple):
    """What shares a quota of SNS: the messages of one way are sent in one order, those of two independently."""

    region: str
    is_fifo: bool


@cache
def way_of(topic: str) -> Way:
    """Return the way of messages to *topic*, an ARN."""
    return Way(topic.split(":")[3], is_fifo_topic(topic))
