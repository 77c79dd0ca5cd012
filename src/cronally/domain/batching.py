"""Entries packed into PublishBatch requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cronally.domain.message import MAX_MESSAGE_BYTES, Entry
from cronally.domain.topic import is_fifo_topic

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BATCH_ENTRIES = 10  # SNS API Reference, PublishBatch


@dataclass(frozen=True, slots=True)
class Batch:
    """One PublishBatch request: 1 to 10 entries of one topic and priority, at most 256 KiB together.

    On a FIFO topic at most one entry of a message group (design §6).
    """

    topic: str
    entries: tuple[Entry, ...]

    @property
    def priority(self) -> int:
        return self.entries[0].spec.priority


def pack(
    entries: Iterable[Entry], *, max_entries: int = MAX_BATCH_ENTRIES, max_bytes: int = MAX_MESSAGE_BYTES
) -> list[Batch]:
    """Return *entries* in batches, each topic's and priority's in the order given, first fit to the last open batch.

    An entry larger than *max_bytes* gets a batch of its own: SNS will say why it refuses it.
    """
    batches: list[Batch] = []
    for (topic, _), alike in _by_topic_and_priority(entries).items():
        is_fifo = is_fifo_topic(topic)
        taken: list[Entry] = []
        groups: set[str | None] = set()
        size_bytes = 0
        for entry in alike:
            if taken and (
                len(taken) == max_entries
                or size_bytes + entry.size_bytes > max_bytes
                or (is_fifo and entry.group in groups)
            ):
                batches.append(Batch(topic, tuple(taken)))
                taken, groups, size_bytes = [], set(), 0
            taken.append(entry)
            if is_fifo:
                groups.add(entry.group)
            size_bytes += entry.size_bytes
        batches.append(Batch(topic, tuple(taken)))
    return batches


def _by_topic_and_priority(entries: Iterable[Entry]) -> dict[tuple[str, int], list[Entry]]:
    found: dict[tuple[str, int], list[Entry]] = {}
    alike: list[Entry] = []
    topic, priority = "", -1
    for entry in entries:
        spec = entry.spec
        if (
            spec.topic is not topic or spec.priority != priority
        ):  # those of a crowd share their topic's very text
            topic, priority = spec.topic, spec.priority
            alike = found.setdefault((topic, priority), [])
        alike.append(entry)
    return found
