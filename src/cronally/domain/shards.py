"""Which shard a schedule belongs to: the part of all schedules that one machine drives at a time (design §12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cronally.domain.crontab import name_hash

if TYPE_CHECKING:
    from cronally.domain.spec import ScheduleSpec

SHARDS: Final = 64
"""How many there are; part of the format of a shared store."""


def shard_of_group(topic: str, group: str) -> int:
    """Return the shard of all schedules of a FIFO topic's message group."""
    return name_hash(f"{topic} {group}") % SHARDS


def shard_of(spec: ScheduleSpec) -> int:
    """Return the shard of a schedule, 0 to 63: by its name's hash, or that of its FIFO topic and group, whose order one machine keeps."""
    group = spec.fifo_group
    return name_hash(spec.name) % SHARDS if group is None else shard_of_group(*group)
