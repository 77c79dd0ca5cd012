"""Pending fires, sent when their time has come.

Those of standard topics that have failed by themselves go by their next attempt, those in line as their turn comes
(``draining``), those of FIFO topics as their group's does.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.model import MISSED_AFTER_MS, CatchUp, Kind, SkipReason, State
from cronally.engine.draining import Draining
from cronally.engine.fifo import GroupKey, place_of
from cronally.engine.pulse import RETRY
from cronally.engine.settle import unsent_entry
from cronally.errors import StoreError
from cronally.instants import UtcMs

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterable, Iterator, Sequence

    from cronally.clock import Clock
    from cronally.domain.model import Fire
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.arming import Arming
    from cronally.engine.attempts import Attempts
    from cronally.engine.core import Core
    from cronally.engine.halt import Halt
    from cronally.engine.hooks import Hooks
    from cronally.engine.ports import Store
    from cronally.engine.pulse import Pulse
    from cronally.engine.recovery import Recovery
    from cronally.engine.settle import Settler

_PAGE = 500  # pending fires sent together
_MARKED = 2_000  # groups found busy between two turns of the event loop
_GROUPS = 200  # read one by one before their heads are sent
_STORE_RETRY_S = 0.2


class _Pass(NamedTuple):
    """A pass through what is pending and due at or before *through*; after: the last row it has seen."""

    through: UtcMs
    after: tuple[UtcMs, int, UtcMs, str] | None


class Retrying:
    """Sends what is pending."""

    def __init__(
        self,
        core: Core,
        store: Store,
        arming: Arming,
        attempts: Attempts,
        settler: Settler,
        recovery: Recovery,
        halt: Halt,
        pulse: Pulse,
        clock: Clock,
        hooks: Hooks,
        *,
        wants_plan: asyncio.Event,
    ) -> None:
        self._core = core
        self._store = store
        self._arming = arming
        self._attempts = attempts
        self._settler = settler
        self._recovery = recovery
        self._halt = halt
        self._pulse = pulse
        self._clock = clock
        self._hooks = hooks
        self._wants_plan = wants_plan
        self._draining = Draining(
            core, store, arming, attempts, settler, clock, send=self._attempt, refill=self._refill
        )
        self._wants_groups = False
        self._wants_lines = True  # of what an earlier daemon left
        self._pass: _Pass | None = None
        self._now = UtcMs(0)  # when the present round began: all that was due by then is planned
        self._is_stopping = False

    async def run(self) -> None:
        """Retry what is pending, until ``stop``."""
        core, clock, attempts = self._core, self._clock, self._attempts
        while not self._is_stopping:
            self._pulse.beat(RETRY)
            now = self._now = clock.wall()
            if self._halt.is_on():
                self._wants_plan.set()
                await clock.wait(None, attempts.wants_retry)
                continue
            try:
                if self._wants_groups:
                    self._wants_groups = False  # first: it may be said again meanwhile
                    await self._find_groups()
                if self._wants_lines:
                    self._wants_lines = False
                    await self._find_lines()
                for topic in sorted(attempts.reopening):
                    await self._reopen(topic)
                is_waiting_for_plan = core.is_fifo_overdue(now)
                if not is_waiting_for_plan:
                    await self._retry_groups(now)
                    await self._draining.probe()
                await self._retry_pending()
                await self._draining.drain()
            except StoreError as exc:
                self._hooks.store_failed(exc)
                self._pass = None
                core.expect_pending(now)
                await clock.sleep(_STORE_RETRY_S)
                continue
            # In the middle of a pass there is no room for more; when there is again, ``wants_retry`` is set.
            next_pending = core.next_pending if self._pass is None else None
            if is_waiting_for_plan:
                self._wants_plan.set()
                await clock.wait(next_pending, attempts.wants_retry)
            elif not attempts.ready:
                instants = (next_pending, core.groups.next_retry(), self._draining.look_again_at())
                await clock.wait(
                    min((at for at in instants if at is not None), default=None), attempts.wants_retry
                )

    def stop(self) -> None:
        """Retry nothing more."""
        self._is_stopping = True
        self._attempts.wants_retry.set()

    # --- what others call -------------------------------------------------------------------------------------------

    def look_for_pending(self) -> None:
        """Pending rows were written, or let go of: find those that nobody holds."""
        self._wants_groups = True
        self._core.expect_pending(self._clock.wall())
        self._attempts.wants_retry.set()

    def look_for_taken(self) -> None:
        """Records came into the store: find their pending fires. Their groups are marked busy already."""
        self._wants_lines = True
        self._core.expect_pending(self._clock.wall())
        self._attempts.wants_retry.set()

    def look_for_lines(self) -> None:
        """Fires in line were let go of: find those that nobody holds."""
        self._wants_lines = True
        self.look_for_pending()

    def forget_instants(self) -> None:
        """The clock was set back, and nothing is held but what is on its way: what is pending is looked for anew."""
        now = self._clock.wall()
        self._pass = None
        self._arming.room_at = now
        self._attempts.circuits.forget_instants(now)
        self.look_for_lines()

    @contextmanager
    def holding_group(self, spec: ScheduleSpec) -> Iterator[None]:
        """For making a fire that is due now: what comes due meanwhile in its group waits until it has its place there."""
        if not spec.is_fifo:
            yield
            return
        key = GroupKey(spec.topic, spec.group_id or "")
        self._core.groups.hold(key)
        try:
            yield
        finally:
            self._core.groups.end_hold(key)
            self._attempts.wants_retry.set()

    @asynccontextmanager
    async def sending_now(self, fire: Fire, spec: ScheduleSpec) -> AsyncIterator[None]:
        """For writing the pending row of a manual fire: once it is durable the fire is sent, or waits in its group, held before."""
        self._core.begin_manual(fire)
        is_done = False
        try:
            yield
            is_done = True
        finally:
            if self._core.end_manual(fire, is_done=is_done):
                if not spec.is_fifo or self._takes_its_place(fire, spec):
                    self._attempts.ready.append(fire)
                else:
                    self._core.mark_waiting(fire, has_row=True)
                self._attempts.circuits.hurry(spec.topic, self._clock.wall())
                self._attempts.wants_retry.set()

    def _takes_its_place(self, fire: Fire, spec: ScheduleSpec) -> bool:
        """Let a manual fire into its group; whether it is the head."""
        key = GroupKey(spec.topic, spec.group_id or "")
        self._core.groups.end_hold(key)
        # While slots are due that are not planned yet, it is not known what comes first in the group.
        if self._halt.is_on() or self._core.is_fifo_overdue(self._clock.wall()):
            self._core.groups.mark_busy(key)
            return False
        return self._core.groups.enter(key, place_of(fire, spec.name))

    def expect_in_group(self, fires: Iterable[Fire], spec: ScheduleSpec) -> None:
        """*fires* of a FIFO schedule are pending and nobody holds them: their group takes them when they are due."""
        groups, now = self._core.groups, self._clock.wall()
        for fire in fires:
            key = GroupKey(spec.topic, spec.group_id or "")
            if fire.due_time <= now:
                groups.mark_busy(key)
            else:
                groups.open_at(key, fire.due_time)
        self._attempts.circuits.feed(spec.topic, now)
        self._attempts.wants_retry.set()

    def expect_unheld(self, fires: Iterable[Fire]) -> None:
        """*fires* of an old revision have pending rows now: those that nobody holds are sent from there."""
        held = [self._core.note_row(fire) for fire in fires]
        if not all(held):
            self.look_for_pending()

    def expect_asked(self, topics: Iterable[str]) -> None:
        """Pending rows of fires of *topics* that somebody asked for were written, and nobody holds them."""
        now = self._clock.wall()
        self._core.expect_pending(now)
        for topic in topics:
            self._attempts.circuits.hurry(topic, now)
        self._attempts.wants_retry.set()

    # --- one pass ---------------------------------------------------------------------------------------------------

    async def _find_groups(self) -> None:
        try:
            await self._recovery.find_groups()
        except StoreError:
            self._wants_groups = True
            raise

    async def _find_lines(self) -> None:
        try:
            self._attempts.backlog.restart(await self._store.lines())
        except StoreError:
            self._wants_lines = True
            raise

    async def _reopen(self, topic: str) -> None:
        """SNS takes messages for a FIFO topic again: let its groups go on, those first that have waited."""
        groups = self._core.groups
        groups.begin_open(topic)
        await self._settler.flush()
        busy = await self._store.pending_groups(topic)
        for start in range(0, len(busy), _MARKED):
            if topic not in self._attempts.reopening:  # it refuses again
                return
            groups.let_go_on(GroupKey(*pair) for pair in busy[start : start + _MARKED])
            await self._clock.sleep(0)
        if topic in self._attempts.reopening:
            self._attempts.reopening.discard(topic)
            groups.end_open(topic)

    async def _retry_groups(self, now: UtcMs) -> None:
        groups = self._core.groups
        all_wanting = groups.wanting(now)
        wanting = all_wanting[: min(_GROUPS, self._attempts.room())]
        if len(wanting) < len(all_wanting) and wanting:  # the others in a moment
            self._attempts.wants_retry.set()
        for key in wanting:
            groups.begin_refill(key)
        try:
            if wanting:
                await self._settler.flush()
            while wanting:
                head = await self._refill(wanting[-1])
                if head is not None:
                    groups.retry_head(*head)
                wanting.pop()
        except StoreError:
            for key in wanting:
                groups.mark_busy(key)
            raise
        fires = []
        for fire in self._attempts.ready + groups.retries_due(now):
            if self._core.mark_planned(fire):
                fires.append(fire)
            elif not self._core.is_in_flight(fire):
                groups.give_up_head(fire)
        self._attempts.ready = []
        await self._attempt(fires)

    async def _refill(self, key: GroupKey) -> tuple[Fire, UtcMs] | None:
        """Read the first pending fires of a group; return its new head and when that may go."""
        groups, now = self._core.groups, self._now
        async with self._settler.committing:
            page = await self._store.group_pending(key.topic, key.group, limit=_PAGE)
            specs = await self._store.specs([pending.fire.revision_id for pending in page])
            page = [
                p for p in page if p.fire.revision_id in specs
            ]  # less a shard that has just left the store
            # What has entered meanwhile was due, and all that is due before it has been planned.
            through = max(now, groups.latest_waiting(key) or now)
            due = [pending for pending in page if pending.fire.due_time <= through]
            if len(due) < len(page):
                groups.open_at(key, page[len(due)].fire.due_time)
            places = [place_of(p.fire, specs[p.fire.revision_id].name) for p in due]
            head = groups.refill(key, places, is_all=len(due) < _PAGE)
        if head is None:
            return None
        own_times = {p.fire.key: p.next_attempt_at for p in due if not p.is_in_line}
        return head, own_times.get(head.key, now)

    async def _retry_pending(self) -> None:
        """Send what is pending and due, page by page; when too many are on their way, the rest of the pass comes later."""
        core, now = self._core, self._now
        if self._pass is None:
            if core.next_pending is None or core.next_pending > now:
                return
            core.next_pending = None
            self._pass = _Pass(now, None)
        while self._attempts.room() >= _PAGE:
            through, after = self._pass
            # During a commit a fire may seem to be pending that is settled.
            async with self._settler.committing:
                page = await self._store.pending_due(through, after=after, limit=_PAGE)
                fires = [p.fire for p in page if core.hold(p.fire, has_row=True)]
            await self._attempt(fires)
            if len(page) < _PAGE:
                self._pass = None
                following = await self._store.next_pending(through)
                if following is not None:
                    core.expect_pending(following)
                return
            last, fire = page[-1], page[-1].fire
            self._pass = _Pass(
                through, (last.next_attempt_at, fire.schedule_id, fire.fire_time, str(fire.kind))
            )

    async def _attempt(self, fires: Sequence[Fire]) -> None:
        """Send pending fires that are held, less those that are too old or that a newer slot makes needless."""
        if not fires:
            return
        self._pulse.beat(RETRY)
        specs = await self._arming.load_specs(fires)
        assert specs is not None
        now = self._clock.wall()
        going = []
        for fire in fires:
            if not self._core.may_release(fire):  # dropped meanwhile
                continue
            spec = specs[fire.revision_id]
            deadline_at = UtcMs(fire.counted_from + spec.deadline)
            if now > deadline_at:
                self._attempts.conclude(fire, unsent_entry(fire, State.EXPIRED))
            elif spec.is_fifo and self._core.groups.head_of(fire) is None:
                # Its deadline has come, and at this very instant its group may still send it.
                self._core.let_go(fire)
                self._core.expect_pending(UtcMs(deadline_at + 1))
            elif self._is_superseded(fire, spec, now):
                row = unsent_entry(fire, State.SKIPPED, reason=SkipReason.SUPERSEDED)
                self._attempts.conclude(fire, row)
            else:
                going.append(fire)
        self._attempts.retrying.update(fire.key for fire in going)
        if going:
            await self._make_durable()
            await self._arming.send(going, specs)

    async def _make_durable(self) -> None:
        """Where heads of groups were settled without having been sent, nothing overtakes them before that is on record."""
        while self._attempts.are_heads_unsent:
            self._attempts.are_heads_unsent = False
            try:
                await self._settler.flush()
            except StoreError:
                self._attempts.are_heads_unsent = True
                self._pulse.excuse()
                await self._clock.sleep(_STORE_RETRY_S)

    def _is_superseded(self, fire: Fire, spec: ScheduleSpec, now: UtcMs) -> bool:
        """Design §4, ``latest``: a slot over 10 s late goes no more once a newer one is due, unless it was asked for."""
        if (
            spec.catch_up is not CatchUp.LATEST
            or fire.kind is not Kind.SCHEDULED
            or fire.asked_at is not None
        ):
            return False
        if now - fire.due_time <= MISSED_AFTER_MS:
            return False
        newest = self._core.newest_due_slot(fire.schedule_id, now)
        return newest is not None and newest > fire.fire_time
