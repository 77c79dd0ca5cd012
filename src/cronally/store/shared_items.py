"""The items of machines and shards in the table of a shared store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cronally.domain.shards import SHARDS
from cronally.engine.records import Machine, Shard, ZoneRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from cronally.instants import UtcMs
    from cronally.store.attribute_values import Item, Key

MACHINES: Final = "machine"
SHARDS_KEY: Final = "shard"
ZONES: Final = "zone"
PAST: Final = "past"
"""Machines whose heartbeats are gone: where the log of each ends, for those who read its history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a heartbeat says beside who it is.

    Fields: stamp: of the last commit. It is greater than that of any commit that was made before of one of the machine's shards; near the
        wall clock, in milliseconds. The others as in ``records.Machine`` and ``records.Opened``.
    """

    sequence: int = 0
    stamp: int = 0
    watermark: UtcMs | None = None
    behind: Mapping[int, UtcMs | None] = field(default_factory=dict)
    hand_overs: int = 0
    pruned_through: UtcMs | None = None
    reached: UtcMs | None = None
    set_back_at: UtcMs | None = None
    is_leaving: bool = False

    def watermark_of(self, shard: int) -> UtcMs | None:
        """Return the watermark of one of the machine's shards."""
        return self.behind.get(shard, self.watermark)

    def without(self, numbers: Collection[int], hand_overs: int = 0) -> Said:
        """Return it without the watermarks of shards that are not the machine's, after so many hand-overs more."""
        behind = {shard: at for shard, at in self.behind.items() if shard not in numbers}
        return replace(self, behind=behind, hand_overs=self.hand_overs + hand_overs)

    def written(self) -> Item:
        """Return it as attributes of the item; few, because each has its name in every item."""
        return {
            "sequence": self.sequence,
            "said": _packed(
                [
                    self.watermark,
                    _written_behind(self.behind),
                    self.hand_overs,
                    self.pruned_through,
                    self.reached,
                    self.set_back_at,
                    int(self.is_leaving),
                    self.stamp,
                ]
            ),
        }


def later(one: UtcMs | None, other: UtcMs | None) -> UtcMs | None:
    """Return the later one of two instants, of which each may be unknown."""
    return max((at for at in (one, other) if at is not None), default=None)


FORMAT: Final = 1
"""Of everything in a table. A machine that knows less does not join; a change that such a machine would misread raises it."""

FORMAT_KEY: Final[Key] = ("format", "format")


def expires_s(now: UtcMs, days: int) -> int:
    """Return what an item says in ``expires`` that may go after so many days."""
    return now // 1000 + days * 86_400


def past_item(machine: str, *, through: int, stamp: int, expires: int) -> Item:
    """Return the item that is left of a machine: *through* is its last commit, and *stamp* of that."""
    return {"pk": PAST, "sk": machine, "through": through, "stamp": stamp, "expires": expires}


def zone_item(row: ZoneRecord) -> Item:
    """Return the item of a zone."""
    starts, offsets = json.dumps(row.starts), json.dumps(row.offsets)
    return {"pk": ZONES, "sk": row.name, "tzdata": row.tzdata, "starts": starts, "offsets": offsets}


def zone_in(item: Item) -> ZoneRecord:
    """Return the zone that an item is about."""
    starts, offsets = tuple(json.loads(item["starts"])), tuple(json.loads(item["offsets"]))
    return ZoneRecord(item["sk"], item["tzdata"], starts, offsets)


def machine_key(machine: str) -> Key:
    return MACHINES, machine


def said_in(item: Item) -> Said:
    """Return what a machine's item says."""
    watermark, behind, hand_overs, pruned_through, reached, set_back_at, leaving, stamp = json.loads(
        item["said"]
    )
    return Said(
        sequence=item["sequence"],
        stamp=stamp,
        watermark=watermark,
        behind=_read_behind(behind),
        hand_overs=hand_overs,
        pruned_through=pruned_through,
        reached=reached,
        set_back_at=set_back_at,
        is_leaving=bool(leaving),
    )


def machine_in(item: Item) -> Machine:
    """Return the machine that an item is about."""
    said = said_in(item)
    return Machine(
        id=item["sk"],
        host=item["host"],
        version=item["version"],
        sequence=said.sequence,
        watermark=said.watermark,
        behind=said.behind,
        lease_ms=item["lease_ms"],
        hand_overs=said.hand_overs,
        started_at=item["started_at"],
        is_retired=item["retired"],
        is_leaving=said.is_leaving,
        has_left=item["has_left"],
    )


def _written_behind(behind: Mapping[int, UtcMs | None]) -> list[tuple[UtcMs | None, str]]:
    """Return watermarks and the shards that have each, as bits: 64 of them take no more than one."""
    masks: dict[UtcMs | None, int] = {}
    for shard, watermark in behind.items():
        masks[watermark] = masks.get(watermark, 0) | 1 << shard
    return [(watermark, f"{mask:x}") for watermark, mask in masks.items()]


def _read_behind(written: list[tuple[UtcMs | None, str]]) -> dict[int, UtcMs | None]:
    return {
        shard: watermark
        for watermark, mask in written
        for shard in range(SHARDS)
        if int(mask, 16) >> shard & 1
    }


def _packed(values: list[Any]) -> str:
    return json.dumps(values, separators=(",", ":"))


# --- shards -------------------------------------------------------------------------------------------------------


class Stretch(NamedTuple):
    """Part of a shard's log: what *machine* committed from one sequence through another. through: None while it has the shard."""

    machine: str
    first: int
    through: int | None


class SnapshotRef(NamedTuple):
    """Where a snapshot lies: it is of one epoch and sequence, has so many parts and takes so many bytes."""

    epoch: int
    sequence: int
    parts: int
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardItem:
    """A shard's item.

    Fields: version: another one with each write. chain: its log since *snapshot*, in order. stamp: of the last
        commit that a machine before its owner made. log_bytes, since: of the closed part of its log, how much it is and when it began. The rest as in ``records.Shard`` and ``records.Opened``.
    """

    number: int
    version: int = 0
    owner: str | None = None
    epoch: int = 0
    watermark: UtcMs | None = None
    was_clean: bool = True
    chain: tuple[Stretch, ...] = ()
    stamp: int = 0
    log_bytes: int = 0
    since: UtcMs | None = None
    snapshot: SnapshotRef | None = None
    pruned_through: UtcMs | None = None
    reached: UtcMs | None = None
    set_back_at: UtcMs | None = None

    @property
    def shard(self) -> Shard:
        return Shard(self.number, self.owner, self.epoch, self.watermark, self.was_clean)

    def closed(self, through: int | None) -> tuple[Stretch, ...]:
        """Return the chain with its open end, if it has one, at *through*; stretches without a commit are left out."""
        ended = (
            one._replace(through=through) if one.through is None and through is not None else one
            for one in self.chain
        )
        return tuple(one for one in ended if one.through is None or one.through >= one.first)

    def written(self) -> Item:
        """Return it as an item."""
        return {
            "pk": SHARDS_KEY,
            "sk": f"{self.number:02d}",
            "version": self.version,
            "owner": self.owner,
            "epoch": self.epoch,
            "rest": _packed([getattr(self, name) for name in _REST]),
        }


_REST: Final = (
    *("watermark", "was_clean", "chain", "stamp", "log_bytes", "since", "snapshot"),
    *("pruned_through", "reached", "set_back_at"),
)


def shard_key(number: int) -> Key:
    return SHARDS_KEY, f"{number:02d}"


def shard_item_in(item: Item) -> ShardItem:
    """Return a shard as its item has it."""
    rest = dict(zip(_REST, json.loads(item["rest"]), strict=True))
    chain, snapshot = rest.pop("chain"), rest.pop("snapshot")
    return ShardItem(
        number=int(item["sk"]),
        version=item["version"],
        owner=item["owner"],
        epoch=item["epoch"],
        chain=tuple(Stretch(*one) for one in chain),
        snapshot=None if snapshot is None else SnapshotRef(*snapshot),
        **rest,
    )
