"""From fires to armed requests: their messages are read, composed, packed and armed, as far as memory and quota go.

A fire that would wait for its region's quota longer than ``PATIENCE_MS``, or whose topic refuses everything, becomes a
pending row instead of a request (design §4): it is durable, costs no memory, and comes back when its turn has come. Not before
it is due: until then a change may still withdraw it. So it is put by (``later``).
"""

from __future__ import annotations

import asyncio
import heapq
from typing import TYPE_CHECKING

from cronally.domain.batching import pack
from cronally.domain.message import compose
from cronally.domain.model import MISSED_AFTER_MS
from cronally.domain.topic import is_fifo_topic
from cronally.errors import StoreError
from cronally.instants import MAX_UTC_MS, UtcMs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.domain.batching import Batch
    from cronally.domain.message import Entry
    from cronally.domain.model import Fire
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.attempts import Attempts
    from cronally.engine.backlog import Line
    from cronally.engine.core import Core
    from cronally.engine.departures import Departures
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import Publisher, Store
    from cronally.engine.pulse import Pulse

SLICE = 500  # fires read, composed and armed together; no step of that takes longer than 2 ms
PATIENCE_MS = 10_000  # design §4: a longer wait for quota is spent in the store
_PUT_BY = 100  # fires written down between two turns of the event loop: 2 ms
_FULL_MS = 5_000  # what has been due for so long and finds no memory will not leave within PATIENCE_MS
_ENOUGH = 0.5  # of the budget: below this, planning goes on
_LOOKAHEAD_S = (
    1.0  # of quota: so much of what is pending is armed, so that a new slot waits behind no more than that
)
_LOOK_AGAIN_MS = 250  # for room; a quota keeps a second of what is not used
_MOST_LOOK_AGAIN_MS = 5_000  # a rate that had fallen may have risen again
_MOST_WAITING = 50  # batches that find no room: then nothing that is pending is armed beside them
_MOST_LATER = 20_000  # fires put by, 350 bytes each
_STORE_RETRY_S = 0.2
_BEFORE_INSTANT_MS = 8  # so close to an instant no slice is begun
DEFAULT_BUDGET_BYTES = 32 << 20
_MOST_BUDGET_BYTES = 160 << 20
_FIRST_GUESS_BYTES = 1_500  # a request's share of one message; four attributes make 1.3 kB


def armed_budget(available_bytes: int | None) -> int:
    """Return how much memory armed requests may take: a quarter of what is available, 32 to 160 MiB (design §6)."""
    if available_bytes is None:
        return DEFAULT_BUDGET_BYTES
    return min(max(available_bytes // 4, DEFAULT_BUDGET_BYTES), _MOST_BUDGET_BYTES)


class Arming:
    """Makes fires ready. note_memory: called when there is memory again, after there was none."""

    def __init__(
        self,
        core: Core,
        store: Store,
        publisher: Publisher,
        departures: Departures,
        attempts: Attempts,
        pulse: Pulse,
        clock: Clock,
        hooks: Hooks,
        *,
        budget_bytes: int,
        note_memory: Callable[[], None],
    ) -> None:
        self._core = core
        self._store = store
        self._publisher = publisher
        self._departures = departures
        self._attempts = attempts
        self._pulse = pulse
        self._clock = clock
        self._hooks = hooks
        self._budget_bytes = budget_bytes
        self._note_memory = note_memory
        self._is_full = False
        self._bytes_per_fire = float(_FIRST_GUESS_BYTES)
        self._later: list[tuple[UtcMs, Fire]] = []
        self.room_at = MAX_UTC_MS
        """When there may be room for pending fires, after there was none."""
        self.has_armed = asyncio.Event()
        """Set when something was armed."""

    def room(self, first_due: UtcMs | None, now: UtcMs) -> int:
        """Return how many fires may be armed now: up to ``SLICE``, 0 while memory is used up.

        first_due: when the first of them is due. If that has come and nothing stands before it, it is armed in any case:
        what takes up the memory is for later.
        """
        if first_due is not None and first_due <= now and not self._departures.has_due():
            return SLICE
        left = self._budget_bytes - self._departures.size_bytes
        if left <= 0 or len(self._later) > _MOST_LATER:
            self._is_full = True
            return 0
        return max(1, min(SLICE, int(left / self._bytes_per_fire)))

    def note_left(self) -> None:
        """Some of what was armed has left."""
        if self._is_full and self._departures.size_bytes < self._budget_bytes * _ENOUGH:
            self._is_full = False
            self._note_memory()

    def is_hopeless(self, due: UtcMs | None, now: UtcMs) -> bool:
        """Whether what has been due since *due* shall not wait for memory any longer; ``send`` writes it down instead."""
        return due is not None and now - due > _FULL_MS

    async def send_planned(self, fires: Sequence[Fire]) -> bool:
        """Read what *fires* publish, and ``send`` them; False if the store does not say until they count as missed."""
        first = min(fire.due_time for fire in fires)
        specs = await self.load_specs(fires, UtcMs(max(self._clock.wall(), first + MISSED_AFTER_MS)))
        if specs is not None:
            await self.send(fires, specs, is_planned=True)
        return specs is not None

    async def send(
        self, fires: Sequence[Fire], specs: Mapping[int, ScheduleSpec], *, is_planned: bool = False
    ) -> None:
        """Compose, pack and arm *fires*, each for its due time; what is due already takes its turn at once.

        is_planned: they have no row yet, and may get one instead if memory is used up.
        """
        by_instant: dict[UtcMs, list[Entry]] = {}
        now = self._clock.wall()
        circuits = self._attempts.circuits
        barred: list[tuple[Entry, UtcMs]] = []
        for fire in fires:
            spec = specs.get(fire.revision_id)
            if spec is None:  # its shard has left since it was planned, and with it the schedule
                self._attempts.note_dropped(fire)
                continue
            entry = compose(spec, fire)
            due = fire.due_time
            instant = max(now, due)
            if circuits.open and self._is_barred(entry, is_planned=is_planned):
                barred.append((entry, instant))
                continue
            entries = by_instant.get(instant)
            if entries is None:
                by_instant[instant] = [entry]
            else:
                entries.append(entry)
        for number, (entry, instant) in enumerate(barred, start=1):
            self._put_by(entry, instant, self._clock.wall())
            if number % _PUT_BY == 0:
                await self._clock.sleep(0)
        for instant in sorted(by_instant):
            batches = self._patient(pack(by_instant[instant]), instant, is_planned=is_planned)
            await self.arm(batches, instant)

    def _patient(self, batches: Sequence[Batch], instant: UtcMs, *, is_planned: bool) -> list[Batch]:
        """Return the batches that need not wait too long; the fires of the others become pending, or are put by until due."""
        now = self._clock.wall()
        is_full = is_planned and self._departures.size_bytes >= self._budget_bytes
        patient: list[Batch] = []
        alike: dict[tuple[str, int], list[Batch]] = {}
        for batch in batches:
            if is_fifo_topic(batch.topic):  # its order is its group's, not the queue's
                patient.append(batch)
            else:
                alike.setdefault((batch.topic, batch.priority), []).append(batch)
        for (topic, priority), some in alike.items():
            ahead = self._departures.ahead(topic, priority)
            count = sum(len(batch.entries) for batch in some)
            if not is_full and self._leaves_at(topic, ahead + count, now) <= instant + PATIENCE_MS:
                patient += some
                continue
            for batch in some:
                ahead += len(batch.entries)
                leaves_at = self._leaves_at(topic, ahead, now)
                is_hopeless = is_full and self.is_hopeless(batch.entries[0].fire.due_time, now)
                if leaves_at <= instant + PATIENCE_MS and not is_hopeless:
                    patient.append(batch)
                else:
                    for entry in batch.entries:
                        self._put_by(entry, instant, now)
        return patient

    def _is_barred(self, entry: Entry, *, is_planned: bool) -> bool:
        """Whether the topic of a fire refuses everything. Planned FIFO fires have to take their place in time all the same."""
        if is_planned and entry.deduplication is not None and not self._core.has_row(entry.fire):
            return False
        return self._attempts.circuits.is_barred(entry.topic, entry.fire.key)

    def _put_by(self, entry: Entry, instant: UtcMs, now: UtcMs) -> None:
        """Have a fire that may leave at *instant* wait in the store, once it is due."""
        if instant > now:
            heapq.heappush(self._later, (instant, entry.fire))
        else:
            self._attempts.stand_in_line(entry, now)

    def _leaves_at(self, topic: str, messages: int, now: UtcMs) -> UtcMs:
        """Return when the last of so many *messages* to *topic* will have left, by its quota."""
        return UtcMs(now + int(1000 * self._publisher.wait_s(topic, messages)))

    def next_later(self) -> UtcMs | None:
        """Return when the first of the fires that were put by is due, or None."""
        return self._later[0][0] if self._later else None

    def take_later(self, now: UtcMs, most: int) -> list[Fire]:
        """Return fires that were put by and are due."""
        fires: list[Fire] = []
        while self._later and self._later[0][0] <= now and len(fires) < most:
            fires.append(heapq.heappop(self._later)[1])
        if fires:
            self.note_left()
        return fires

    def clear_later(self) -> list[Fire]:
        """Return all fires that were put by, and forget them."""
        later, self._later = self._later, []
        return [fire for _, fire in later]

    def defer(self, batch: Batch) -> None:
        """Have the fires of *batch*, which are due, wait in the store until their turn."""
        now = self._clock.wall()
        for entry in batch.entries:
            self._attempts.stand_in_line(entry, now)

    def room_for_pending(self, line: Line) -> int:
        """Return how many more fires of a *line* in the store may be armed, up to ``SLICE``."""
        departures, publisher = self._departures, self._publisher
        topic, priority = line.topic, line.priority
        now = self._clock.wall()
        most = min(self._attempts.room(), self.room(now, now))
        if not most or departures.is_waiting(topic, _MOST_WAITING):
            self._look_for_room_in(0.0)
            return 0
        before = departures.before(topic, priority)
        all_s = publisher.wait_s(topic, before + most)
        if all_s <= _LOOKAHEAD_S:
            return most
        none_s = publisher.wait_s(topic, before)
        each_s = (all_s - none_s) / most
        some = int(max(0.0, _LOOKAHEAD_S - none_s) / each_s)
        if not some:
            self._look_for_room_in(none_s + each_s - _LOOKAHEAD_S)
        return some

    def _look_for_room_in(self, wait_s: float) -> None:
        wait_ms = min(max(int(wait_s * 1000), _LOOK_AGAIN_MS), _MOST_LOOK_AGAIN_MS)
        self.room_at = UtcMs(min(self.room_at, self._clock.wall() + wait_ms))

    async def arm(self, batches: Sequence[Batch], instant: UtcMs) -> None:
        """Arm *batches* to leave at *instant*. An entry that is withdrawn meanwhile is missed when they leave."""
        if not batches:
            return
        await self._keep_clear(instant)
        for armed in await self._publisher.arm(batches, instant):
            self._departures.add(armed, instant)
            share = armed.size_bytes / len(armed.batch.entries)
            self._bytes_per_fire += (share - self._bytes_per_fire) / 16
        self.has_armed.set()

    async def _keep_clear(self, instant: UtcMs) -> None:
        """Before something for *instant* is armed, let an earlier one pass that is about to come."""
        sooner = self._departures.next_instant()
        if sooner is not None and sooner < instant:
            left_ms = sooner - self._clock.wall()
            if 0 <= left_ms <= _BEFORE_INSTANT_MS:
                await self._clock.sleep((left_ms + 1) / 1000)

    async def load_specs(
        self, fires: Sequence[Fire], until: UtcMs = MAX_UTC_MS
    ) -> dict[int, ScheduleSpec] | None:
        """Return the specs of *fires*; None if the store did not give them by *until*."""
        wanted = list({fire.revision_id for fire in fires})
        while True:
            try:
                return await self._store.specs(wanted)
            except StoreError as exc:
                self._hooks.store_failed(exc)
                self._pulse.excuse()
                if self._clock.wall() > until:
                    return None
                await self._clock.sleep(_STORE_RETRY_S)
