"""What a machine knows of the shards that it has taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cronally.store.shared_items import ShardItem


@dataclass(frozen=True, slots=True)
class TakenShards:
    """Fields, by number: items: as they are in the table. last_ids: the greatest ids of a schedule and of a revision.

    recovering: the next commit of the watermark says that they are recovered. doubted: were not given cleanly, which is on record.
    """

    items: dict[int, ShardItem] = field(default_factory=dict)
    last_ids: dict[int, tuple[int, int]] = field(default_factory=dict)
    recovering: set[int] = field(default_factory=set)
    doubted: set[int] = field(default_factory=set)

    def gave(self, number: int) -> None:
        """A shard was given."""
        self.items.pop(number, None)
        self.last_ids.pop(number, None)
        self.recovering.discard(number)
        self.doubted.discard(number)
