"""What waits in the store until its turn comes: lines are read as far as there is room, and open circuits are probed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cronally.domain.topic import is_fifo_topic
from cronally.engine.backlog import line_place
from cronally.engine.circuits import FORGOTTEN_AFTER_MS
from cronally.engine.fifo import GroupKey
from cronally.errors import StoreError
from cronally.instants import MAX_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import Fire
    from cronally.engine.arming import Arming
    from cronally.engine.attempts import Attempts
    from cronally.engine.circuits import Circuit
    from cronally.engine.core import Core
    from cronally.engine.ports import Store
    from cronally.engine.records import LinePlace
    from cronally.engine.settle import Settler

_NO_ROOM_MS = 1_000
_MOST_TRIED = 10  # groups, or fires in line, that are looked at for one probe


class Draining:
    """Reads lines and finds probes.

    Args: send: sends pending fires that are held, or settles them otherwise. refill: reads a FIFO group and returns its head.
    """

    def __init__(
        self,
        core: Core,
        store: Store,
        arming: Arming,
        attempts: Attempts,
        settler: Settler,
        clock: Clock,
        *,
        send: Callable[[Sequence[Fire]], Awaitable[None]],
        refill: Callable[[GroupKey], Awaitable[tuple[Fire, UtcMs] | None]],
    ) -> None:
        self._core = core
        self._store = store
        self._arming = arming
        self._attempts = attempts
        self._settler = settler
        self._clock = clock
        self._send = send
        self._refill = refill

    def look_again_at(self) -> UtcMs | None:
        """Return when there may be room for more, or a probe may go; None if nothing waits for either."""
        instants = [self._attempts.circuits.next_probe()]
        if self._attempts.backlog:
            instants.append(self._arming.room_at)
        return min((at for at in instants if at is not None), default=None)

    # --- lines ------------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Send what stands in line, as much as there is room for. Errors: StoreError."""
        backlog = self._attempts.backlog
        self._arming.room_at = MAX_UTC_MS
        while (turn := backlog.next_line(self._arming.room_for_pending)) is not None:
            line, most = turn
            if line.is_fresh:
                line.is_fresh = False
                try:
                    await self._settler.flush()
                except StoreError:
                    line.is_fresh = True
                    raise
            async with self._settler.committing:
                page = await self._store.in_line(line.topic, line.priority, after=line.after, limit=most)
                fires = [p.fire for p in page if self._core.hold(p.fire, has_row=True)]
                backlog.note_read(line, page, is_last=len(page) < most)
            await self._send(fires)

    # --- probes -----------------------------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Send the probes that are due. Errors: StoreError."""
        circuits = self._attempts.circuits
        tried: Counter[str] = Counter()
        while (circuit := circuits.take_due(self._clock.wall())) is not None:
            try:
                await self._settler.flush()
                is_fifo = is_fifo_topic(circuit.topic)
                fire = await (self._first_of_group(circuit) if is_fifo else self._first_in_line(circuit))
            except StoreError:
                circuits.lose_probe(circuit)
                raise
            if circuit.opened_at is None:  # it has closed meanwhile: the fire goes as others do
                await self._send([fire] if fire else [])
            elif fire is None:
                self._starve(circuit)
            else:
                circuits.begin_probe(circuit, fire.key)
                await self._send([fire])
                if fire.key in self._attempts.retrying:
                    continue
                if circuit.probe == fire.key:
                    circuits.lose_probe(circuit)  # it has expired, say: the next one
                tried[circuit.topic] += 1
                if tried[circuit.topic] >= _MOST_TRIED:  # there may be no room for any, by the quota
                    circuits.postpone(circuit, UtcMs(self._clock.wall() + _NO_ROOM_MS))

    def _starve(self, circuit: Circuit) -> None:
        now = self._clock.wall()
        if now - circuit.fed_at > FORGOTTEN_AFTER_MS:
            self._attempts.forget(circuit)
        else:
            self._attempts.circuits.starve(circuit, now)

    async def _first_in_line(self, circuit: Circuit) -> Fire | None:
        """Hold and return the fire in line that comes after the last probe, or else the first of all.

        One that is not due yet, since the clock was set back, is no probe: it would keep the circuit open until then.
        """
        last, circuit.probed = circuit.probed, None
        now = self._clock.wall()
        lines = self._attempts.backlog.lines_of(circuit.topic)
        starts: list[tuple[int, LinePlace | None]] = [(priority, None) for _, priority in lines]
        if last is not None:
            later = [(last[0], last[1]), *((priority, None) for _, priority in lines if priority < last[0])]
            starts = [*later, *starts]
        for priority, after in starts:
            found = await self._first_that_may_go(circuit.topic, priority, after, now)
            if found is not None:
                circuit.probed = (priority, line_place(found))
                return found
        return None

    async def _first_that_may_go(
        self, topic: str, priority: int, after: LinePlace | None, now: UtcMs
    ) -> Fire | None:
        while True:
            async with self._settler.committing:
                page = await self._store.in_line(topic, priority, after=after, limit=_MOST_TRIED)
                here = [p.fire for p in page if self._core.here.has(p.fire.schedule_id)]
                for fire in here:
                    if fire.due_time <= now and self._core.hold(fire, has_row=True):
                        return fire
            if len(page) < _MOST_TRIED or here:
                return None
            after = line_place(page[-1].fire)

    async def _first_of_group(self, circuit: Circuit) -> Fire | None:
        """Let the group in that comes after the last one; hold and return its head."""
        groups = self._core.groups
        for _ in range(_MOST_TRIED):
            last = circuit.probed_group
            name = await self._store.next_group(circuit.topic, "" if last is None else last.group)
            if name is None and last is not None:
                name = await self._store.next_group(circuit.topic)
            if name is None:
                return None
            key = circuit.probed_group = GroupKey(circuit.topic, name)
            found = await self._refill(key) if groups.let_in(key) else None
            if found is None:
                continue
            head, _ = found
            if self._core.mark_planned(head):
                return head
            groups.give_up_head(head)
        return None
