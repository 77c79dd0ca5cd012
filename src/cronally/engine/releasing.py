"""The instant itself: wait for it, and write what is armed, as fast as there is room.

Between the instant and the wire there is no query, no encoding and no turn of the event loop; only a look whether every fire
of a batch is still to go.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cronally.domain.batching import pack
from cronally.domain.model import MISSED_AFTER_MS, State
from cronally.engine.arming import PATIENCE_MS
from cronally.engine.fifo import GroupKey, place_of
from cronally.engine.pulse import RELEASE
from cronally.engine.settle import unsent_entry
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.clock import Clock
    from cronally.domain.message import Entry
    from cronally.engine.arming import Arming
    from cronally.engine.attempts import Attempts
    from cronally.engine.core import Core
    from cronally.engine.departures import Departure, Departures
    from cronally.engine.halt import Halt
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import Publisher
    from cronally.engine.pulse import Pulse
    from cronally.engine.settle import Settler

_LOOK_EVERY = 4  # batches written between two looks at the clock
_FIRST_SLICE_S = (
    0.0005  # when nothing was in flight: what the first answers took says how many connections are of use
)
_LOOK_AGAIN_S = 1.0  # for what has waited too long
_PUT_OFF = 50  # batches put off between two turns of the event loop: 2 ms
_SLICE_S = 0.004  # batches are written for so long before the event loop gets a turn


class Releasing:
    """Sends what is armed. Attributes: wants_release: set when something was armed, or may leave again."""

    def __init__(
        self,
        core: Core,
        publisher: Publisher,
        departures: Departures,
        arming: Arming,
        attempts: Attempts,
        settler: Settler,
        halt: Halt,
        pulse: Pulse,
        clock: Clock,
        hooks: Hooks,
        *,
        wants_plan: asyncio.Event,
    ) -> None:
        self._core = core
        self._publisher = publisher
        self._departures = departures
        self._arming = arming
        self._attempts = attempts
        self._settler = settler
        self._halt = halt
        self._pulse = pulse
        self._clock = clock
        self._hooks = hooks
        self._wants_plan = wants_plan
        self._tasks: asyncio.TaskGroup | None = None
        self._is_stopping = False
        self._is_pumping_soon = False
        self._look_again_s = 0.0
        self.wants_release = arming.has_armed
        publisher.on_room = self._pump

    async def run(self) -> None:
        """Release everything at its instant, until ``stop``."""
        clock, departures = self._clock, self._departures
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                while not self._is_stopping:
                    self._pulse.beat(RELEASE)
                    if self._halt.is_on():
                        await clock.wait(None, self.wants_release)
                        continue
                    await clock.wait(departures.next_instant(), self.wants_release, precise=True)
                    self._release_due(clock.wall())
            finally:
                self._tasks = None  # nothing more is armed anew, whoever still says that there is room

    def _release_due(self, now: UtcMs) -> None:
        departures = self._departures
        instant = departures.next_instant()
        if instant is not None and now - instant > MISSED_AFTER_MS:
            self._halt.reason = self._halt.reason or "stall"
        if self._halt.is_on():
            self._wants_plan.set()
            return
        departures.advance(now)
        self._admit(departures.take_unadmitted(self._core.earliest_unplanned_fifo()), now)
        self._pump()
        mono_s = self._clock.mono()
        if mono_s >= self._look_again_s:
            self._look_again_s = mono_s + _LOOK_AGAIN_S
            self._put_off(now)

    def stop(self) -> None:
        """Release nothing more."""
        self._is_stopping = True
        self.wants_release.set()

    def _pump(self) -> None:
        """Release what is due as far as there is room; the rest when there is room again."""
        self._is_pumping_soon = False
        ways = self._departures.due()
        if not ways or self._tasks is None or self._is_stopping or self._halt.is_on():
            return
        publisher, departures = self._publisher, self._departures
        circuits = self._attempts.circuits
        now = self._clock.wall()
        is_first = self._core.in_flight_count() == 0
        until = self._clock.mono() + (_FIRST_SLICE_S if is_first else _SLICE_S)
        released = 0
        for turns in ways:
            while queue := turns.queue():
                first = queue[0]
                batch = first.armed.batch
                if first.instant > now:  # a clock that was set back makes what was due early again
                    break
                if circuits.open and circuits.is_barred(batch.topic, batch.entries[0].fire.key):
                    self._arming.defer(departures.pop(turns).armed.batch)
                elif publisher.has_room(batch.topic, len(batch.entries)):
                    self._release(departures.pop(turns), now)
                else:
                    break
                released += 1
                if released % _LOOK_EVERY == 0 and self._clock.mono() > until:
                    self._arming.note_left()
                    self._pump_soon()
                    return
        self._arming.note_left()

    def _pump_soon(self) -> None:
        if not self._is_pumping_soon:
            self._is_pumping_soon = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _release(self, departure: Departure, now: UtcMs) -> None:
        armed = departure.armed
        entries = armed.batch.entries
        if not self._core.launch(entries, now):
            self._rearm([entry for entry in entries if self._may_go(entry, now)], now)
            return
        batch = armed.batch
        self._publisher.release((armed,), self._attempts.settle_for(batch.topic, batch.priority))
        self._hooks.released(batch, self._clock.wall_us() - departure.instant * 1000)

    def _admit(self, departures: Sequence[Departure], now: UtcMs) -> None:
        """Let the entries of FIFO batches that have come due into their groups, in the order that groups keep (design §6)."""
        entries = [entry for departure in departures for entry in departure.armed.batch.entries]
        entries.sort(key=_group_order)
        admitted = {entry.fire.key for entry in entries if self._may_go(entry, now)}
        for departure in departures:
            batch = departure.armed.batch
            going = [entry for entry in batch.entries if entry.fire.key in admitted]
            if len(going) == len(batch.entries):
                self._departures.put(departure)
            else:
                self._rearm(going, now)

    def _rearm(self, entries: Sequence[Entry], now: UtcMs) -> None:
        if entries and self._tasks is not None:
            self._tasks.create_task(self._arming.arm(pack(entries), now), name="rearm")

    def _may_go(self, entry: Entry, now: UtcMs) -> bool:
        """Check a fire at the last moment; False if it does not go now, and then it is seen to otherwise."""
        fire = entry.fire
        if not self._core.may_release(fire):
            self._attempts.note_dropped(fire)
            return False
        if now > fire.deadline_at:
            self._attempts.conclude(fire, unsent_entry(fire, State.EXPIRED))
            return False
        if entry.deduplication is None or self._core.groups.head_of(fire) is not None:
            return True
        key, place = GroupKey(entry.topic, entry.group or ""), place_of(fire, entry.name)
        if self._core.groups.enter(key, place):
            return True
        if self._core.groups.is_shut(entry.topic):
            self._attempts.stand_in_line(entry, now)
            return False
        if self._core.groups.is_waiting(key, place):
            self._core.mark_waiting(fire)
        else:
            self._core.mark_settled((fire,))
        row = unsent_entry(fire, State.PENDING, next_attempt_at=fire.deadline_at, is_in_line=True)
        self._settler.add([row])
        self._attempts.note_dropped(fire)
        return False

    def _put_off(self, now: UtcMs) -> None:
        """What has waited for its turn too long waits in the store."""
        departures = self._departures.overstayed(UtcMs(now - PATIENCE_MS), _PUT_OFF)
        for departure in departures:
            self._arming.defer(departure.armed.batch)
        if departures:
            self._arming.note_left()
        if len(departures) == _PUT_OFF:  # there may be more; after a turn of the event loop
            self._look_again_s = 0.0
            self.wants_release.set()


def _group_order(entry: Entry) -> tuple[UtcMs, UtcMs, str]:
    return (entry.fire.due_time, entry.fire.fire_time, entry.name)
