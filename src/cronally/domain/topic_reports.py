"""What the commands about topics have found and done, for whoever shows it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Done = Literal["done", "unchanged", "waiting", "note"]


class TopicState(NamedTuple):
    """How a topic is at SNS. confirmed, pending: subscriptions. problem: why it cannot be told, or None; then the rest says nothing."""

    topic: str
    exists: bool = False
    is_fifo: bool = False
    confirmed: int = 0
    pending: int = 0
    signature_version: str = "1"
    problem: str | None = None


class Step(NamedTuple):
    """One thing that a subscription takes. outcome: ``note`` is for the person to decide."""

    what: str
    outcome: Done
    text: str


class Subscribed(NamedTuple):
    """What came of a subscription: its ARN, and how it is now."""

    subscription: str
    is_confirmed: bool
    is_raw: bool
