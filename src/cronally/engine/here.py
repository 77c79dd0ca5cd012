"""Which shards this machine has, if it is one of several; one that is alone has all of them.

1. Of a shard that is *absent* the engine holds nothing and takes nothing in, whatever its store may still have of it, or have
   already.
2. Of one that is *leaving* nothing is sent any more; otherwise all goes on, and it may yet stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cronally.domain.shards import SHARDS, shard_of
from cronally.errors import ShardElsewhere

if TYPE_CHECKING:
    from cronally.domain.spec import ScheduleSpec


class Here:
    """Attributes: absent, leaving: numbers of shards."""

    def __init__(self) -> None:
        self.absent: set[int] = set()
        self.leaving: set[int] = set()

    def has(self, schedule_id: int) -> bool:
        """Whether the shard of a schedule is here."""
        return not self.absent or schedule_id % SHARDS not in self.absent

    def is_leaving(self, schedule_id: int) -> bool:
        """Whether nothing of a schedule may be sent because its shard is leaving."""
        return bool(self.leaving) and schedule_id % SHARDS in self.leaving

    def check(self, schedule_id: int) -> None:
        """Before a change of a schedule, or an order. Errors: ShardElsewhere."""
        if not self.has(schedule_id):
            raise ShardElsewhere(schedule_id % SHARDS)

    def check_new(self, spec: ScheduleSpec) -> None:
        """Before a schedule is made. Errors: ShardElsewhere."""
        if self.absent and shard_of(spec) in self.absent:
            raise ShardElsewhere(shard_of(spec))
