"""What the machines of a simulated cluster share: who drives which shard, since when, and what it has left to the next one.

One machine at a time drives a shard: that is a *tenure*. It ends in order, by the hand-over of the shard, or with the machine,
and then the next one goes by what the store of the dead machine has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cronally.domain.shards import SHARDS, shard_of
from cronally.domain.spec import from_canonical
from cronally.errors import Conflict
from cronally.instants import MAX_UTC_MS, UtcMs
from simulation.mortal import Incarnation
from simulation.witness import WitnessStore
from support.shard_store import Numbers, Records, ShardStore
from support.slot_lives import Sent, Stop, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.domain.message import Entry
    from cronally.domain.model import FireKey, JournalEntry
    from cronally.engine.records import ScheduleChange, StoredSchedule, TimetableRow
    from support.recording_publisher import Answer, Arrival
    from support.slot_lives import Life
    from support.virtual_time import JumpingClock


_TAIL_MS = 3_000  # so long the consequences of a hand-over last for the shard


class Shared:
    """What the stores of all machines have in common.

    Attributes: lives, written, latest: as of a ``WitnessStore``. living: ids by name.
    """

    def __init__(self) -> None:
        self.numbers = Numbers()
        self.lives: dict[int, Life] = {}
        self.written: dict[FireKey, UtcMs] = {}
        self.living: dict[str, int] = {}
        self.latest = UtcMs(0)


class MachineStore(ShardStore, WitnessStore):
    """The store of one machine; a name is one schedule's in all of them, and a schedule stays in its shard."""

    def __init__(self, clock: JumpingClock, shared: Shared) -> None:
        self._shared = shared
        WitnessStore.__init__(self, clock)
        self.numbers = shared.numbers
        self.lives, self.written = shared.lives, shared.written

    @property
    def _latest(self) -> UtcMs:
        return self._shared.latest

    @_latest.setter
    def _latest(self, value: UtcMs) -> None:
        self._shared.latest = UtcMs(max(value, self._shared.latest))

    def watermark(self) -> UtcMs | None:
        return self._watermark

    def _checked(self, change: ScheduleChange) -> StoredSchedule | None:
        old = super()._checked(change)
        if change.new_spec is not None and not change.is_removal:
            self._check(change.new_spec.name, change.id, shard_of(change.new_spec))
        return old

    def _check(self, name: str, id_: int | None, shard: int) -> None:
        if self._shared.living.get(name, id_) != id_:
            raise Conflict(f"there is a schedule named {name!r} on another machine")
        if id_ is not None and id_ % SHARDS != shard:
            raise Conflict(f"{name!r} would come to another shard; remove it and add it anew")

    async def flip(
        self,
        *,
        at: UtcMs,
        by: str,
        owner: str,
        unsettled: Sequence[JournalEntry],
        removed: Sequence[int] = (),
    ) -> list[TimetableRow]:
        for change in await self.staged_changes():
            shard = shard_of(from_canonical(change.name, change.document))
            self._check(change.name, change.id, shard)
        return await super().flip(at=at, by=by, owner=owner, unsettled=unsettled, removed=removed)

    def _note(self, id_: int) -> None:
        super()._note(id_)
        name, living = self._schedules[id_].spec.name, self._shared.living
        if self._names.get(name) == id_:
            living[name] = id_
        elif living.get(name) == id_:
            del living[name]


@dataclass(eq=False)
class Machine:
    """One of several.

    Fields: behind: the watermarks of shards that it has taken and not brought in line yet. is_started: it may take shards.
    """

    number: int
    daemon: Incarnation
    records: MachineStore
    behind: dict[int, UtcMs | None] = field(default_factory=dict)
    is_started: bool = False
    is_buried: bool = False
    is_leaving: bool = False

    def watermark_of(self, shard: int) -> UtcMs | None:
        return self.behind[shard] if shard in self.behind else self.records.watermark()

    @property
    def is_alive(self) -> bool:
        return not self.daemon.life.is_dead


@dataclass
class Left:
    """What the last machine has left of a shard."""

    records: Records = field(default_factory=lambda: Records([], [], [], {}, []))
    watermark: UtcMs | None = None
    was_clean: bool = True
    reached: UtcMs | None = None


@dataclass
class Shard:
    """A shard, and what was seen of it.

    Fields: machine: None while nobody drives it. moving_since: when somebody began to take or give it, and is not done.
        stops: how each tenure ended. moves: times at which it was on the way.
    """

    number: int
    machine: Machine | None = None
    left: Left | None = field(default_factory=Left)
    moving_since: UtcMs | None = None
    sent: list[Sent] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    moves: list[Trouble] = field(default_factory=list)

    def begin(self, machine: Machine) -> None:
        """A tenure begins."""
        self.machine = machine
        self.stops.append(Stop(MAX_UTC_MS, was_crash=False, leaves_doubt=False))

    def end(self, at: UtcMs, *, was_crash: bool, leaves_doubt: bool = False) -> None:
        """The tenure ends."""
        self.machine = None
        stop = self.stops[-1]
        stop.at, stop.was_crash, stop.leaves_doubt = at, was_crash, was_crash or leaves_doubt

    def begin_move(self, at: UtcMs) -> None:
        """From now on it may be that nothing of it is sent."""
        self.moving_since = at if self.moving_since is None else UtcMs(min(at, self.moving_since))

    def end_move(self, at: UtcMs) -> None:
        """It is driven again."""
        assert self.moving_since is not None
        self.moves.append(
            Trouble("move", UtcMs(min(self.moving_since, at)), UtcMs(max(self.moving_since, at) + _TAIL_MS))
        )
        self.moving_since = None

    def recovered(self, at: UtcMs) -> None:
        """What was due since earlier tenures is decided."""
        for stop in self.stops[:-1]:
            stop.recovered_at = min(stop.recovered_at, at)


class Cluster:
    """Attributes: shards, machines (dead ones, too)."""

    def __init__(self, clock: JumpingClock) -> None:
        self.shared = Shared()
        self.shards = [Shard(number) for number in range(SHARDS)]
        self.machines: list[Machine] = []
        self.strays: list[str] = []
        self._clock = clock

    @property
    def alive(self) -> list[Machine]:
        """The machines that have started and live, and are not about to leave."""
        return [
            machine
            for machine in self.machines
            if machine.is_started and machine.is_alive and not machine.is_leaving
        ]

    def add(self, script: Callable[[Entry, int], Answer], **keys: Any) -> Machine:
        """Return a new machine, which is to be started."""
        records = MachineStore(self._clock, self.shared)
        daemon = Incarnation(self._clock, records, script, is_one_of_several=True, **keys)
        machine = Machine(len(self.machines), daemon, records)
        self.machines.append(machine)
        daemon.publisher.on_sent = lambda arrivals: self._note_sent(machine, arrivals)
        return machine

    def _note_sent(self, machine: Machine, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            shard = self.shards[arrival.entry.fire.schedule_id % SHARDS]
            if shard.machine is not machine:
                self.strays.append(
                    f"{arrival.entry.fire_id} was sent by machine {machine.number}, which has not its shard"
                )
            shard.sent.append(Sent(len(shard.stops) - 1, arrival))

    def journal_of(self, shard: Shard) -> list[JournalEntry]:
        assert shard.machine is not None
        return shard.machine.records.copy(shard.number).journal
