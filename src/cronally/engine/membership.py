"""One machine among several: it renews its lease, watches the others, and takes and gives shards as ``leases`` decides.

1. Renewing waits for nothing else: taking a large shard, or a slow look at the others, does not cost the lease.
2. A shard is driven from when the engine has taken it in until it has given it up; in between the store's lease says that it is this
   machine's. So it is given up in the engine before it is given in the store; and before that the store is told to keep its
   watermark apart, for that of the machine goes on without it.
3. Whatever fails is tried again until the lease has ended. Then ``run`` raises LeaseLost: the incarnation is over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

from cronally.clock import within
from cronally.domain.shards import SHARDS
from cronally.engine.leases import Hands, Leases, renewal_due
from cronally.errors import LeaseLost, NotReady, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Container, Coroutine, Iterable, Sequence

    from cronally.clock import Clock
    from cronally.engine.hooks import Hooks
    from cronally.engine.leases import Take
    from cronally.engine.ports import SharedStore
    from cronally.engine.records import GivenUp, Machine, Shard, TakenIn
    from cronally.instants import UtcMs

_T = TypeVar("_T")

LOOK_S: Final = 0.5
"""How often the heartbeats are looked at."""

_QUICK_LOOK_S: Final = 0.1  # while shards change hands: nobody drives one that was given and is not yet taken
_QUICK_FOR_S: Final = 1.0
_LEAST_LOOK_S: Final = 0.01  # before a lease that ends just now
_RETRY_S: Final = 0.3
_LEAST_RENEWAL_S: Final = 0.1
_WATCH_S: Final = 1.0  # a machine that slept notices within this that its lease has ended
_TAKES_AT_ONCE: Final = 16  # their schedules are in memory twice
_LAST_ANSWERS_S: Final = 1.0
_LAST_COMMIT_S: Final = 1.0
_TOGETHER: Final = 2_000  # schedules taken in together: meanwhile nothing is planned


class Driver(Protocol):
    """The engine, as far as it takes and gives shards (``HandOver``). Either may be called for several shards at once.

    Each may raise StoreError or NotReady; then it is called again.
    """

    async def take_in(self, taken: Sequence[TakenIn]) -> None:
        """Fire the schedules of these shards, from now on; if it fails, of none of them."""
        ...

    async def give_up(self, number: int) -> GivenUp:
        """Let go of a shard: its slots are settled, and on record."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Send nothing more, and put on record what is answered within *timeout_s*."""
        ...


class MachineState(NamedTuple):
    """A machine as this one sees it.

    Fields: shards: those it owns. heartbeat_age_s: for how long its heartbeat has not changed. lag_ms: how far the oldest watermark of its
        shards is behind the wall clock; None without one.
    """

    id: str
    host: str
    shards: tuple[int, ...]
    heartbeat_age_s: float
    lease_ms: int
    lag_ms: int | None
    started_at: UtcMs
    is_self: bool
    is_leaving: bool
    is_retired: bool


class Sharing(NamedTuple):
    """What this machine knows of the machines and shards.

    Fields: machines: by host and id. free: shards that nobody drives now; all before they were read. driven: those that this machine fires. trusted_for_s: for how
        long it may send if it cannot renew its lease; negative: it may not. error: what the table says, None while it answers.
        has_history: whether all of the journal can be read here.
    """

    machines: tuple[MachineState, ...]
    free: int
    driven: tuple[int, ...]
    trusted_for_s: float
    error: str | None
    has_history: bool = True


class Membership:
    """Drives the shards that are this machine's. One per incarnation, over a store that is open."""

    def __init__(
        self, store: SharedStore, driver: Driver, clock: Clock, hooks: Hooks, *, former: Iterable[str] = ()
    ) -> None:
        """former: ids of earlier incarnations of this process, whose engines have stopped: their shards are taken without waiting."""
        self._store = store
        self._driver = driver
        self._clock = clock
        self._hooks = hooks
        self._leases = Leases(store.machine, former)
        self._machines: Sequence[Machine] = ()
        self._shards: Sequence[Shard] = ()
        self._read_at: object = None  # the hand-overs that the shards were read after
        self._must_read = True
        self._followed_at = -LOOK_S
        self._changed_at = 0.0
        self._driven: dict[int, Shard] = {}
        self._taking: set[int] = set()
        self._giving: set[int] = set()
        self._moves: set[asyncio.Task[None]] = set()
        self._room = asyncio.Semaphore(_TAKES_AT_ONCE)
        self._arrived: deque[tuple[TakenIn, asyncio.Future[None]]] = deque()
        self._is_taking_in = False
        self._failing: dict[str, StoreError] = {}
        self._failing_since = 0.0
        self._tasks: asyncio.TaskGroup | None = None
        self._is_leaving = False
        self._has_left = asyncio.Event()

    async def run(self) -> None:
        """Take part until ``leave`` has ended. Errors: LeaseLost."""
        lost: LeaseLost | None = None
        try:
            async with asyncio.TaskGroup() as self._tasks:
                loops = (self._renew_for_ever(), self._look_for_ever(), self._watch_trust())
                running = [self._tasks.create_task(loop) for loop in loops]
                await self._has_left.wait()
                for task in running:
                    task.cancel()
        except* LeaseLost as group:
            lost = _first(group)
        finally:
            self._tasks = None
        if lost is not None:
            self._hooks.lease_lost(lost.reason)
            raise lost

    async def leave(self, *, within_s: float = 10.0) -> None:
        """Give all shards and leave, while ``run`` is running; it ends then.

        within_s: so long is waited for what is in flight; the shards that are not given by then are taken by others as those of a
        machine that crashed, but at once. Errors: LeaseLost; StoreError: it has not left, and the others will notice that.
        """
        self._is_leaving = True
        until = self._clock.mono() + within_s
        await self._within(until, self._until_done("leave", self._store.begin_leave))
        while self._tasks is not None and self._clock.mono() < until:
            for number in self._driven.keys() - self._giving:
                self._start_giving(number)
            if not self._moves:
                break
            await self._within(until, asyncio.wait({*self._moves}, return_when=asyncio.FIRST_COMPLETED))
        if self._tasks is None:
            raise LeaseLost("it ended while this machine was about to leave")
        for move in self._moves:
            move.cancel()
        # Of what could not be given, others would send again what is answered after the last commit.
        drain = partial(self._driver.drain, _LAST_ANSWERS_S)
        await self._within(
            self._clock.mono() + _LAST_ANSWERS_S + _LAST_COMMIT_S, self._is_done("leave", drain)
        )
        await self._store.leave()
        self._has_left.set()

    @property
    def is_busy(self) -> bool:
        """Whether shards are about to change hands."""
        return bool(self._moves or self._taking)

    def sharing(self) -> Sharing:
        """Return what is known now."""
        now, wall = self._clock.boot(), self._clock.wall()
        owned: dict[str, list[int]] = {machine.id: [] for machine in self._machines}
        for shard in self._shards:
            if shard.owner in owned:
                owned[shard.owner].append(shard.number)
        states = []
        for machine in sorted(self._machines, key=lambda each: (each.host, each.started_at, each.id)):
            marks = [machine.watermark_of(number) for number in owned[machine.id]]
            known = [mark for mark in marks if mark is not None]
            states.append(
                MachineState(
                    id=machine.id,
                    host=machine.host,
                    shards=tuple(owned[machine.id]),
                    heartbeat_age_s=self._leases.age_s(machine.id, now),
                    lease_ms=machine.lease_ms,
                    lag_ms=max(0, wall - min(known)) if known else None,
                    started_at=machine.started_at,
                    is_self=machine.id == self._store.machine,
                    is_leaving=machine.is_leaving,
                    is_retired=machine.is_retired,
                )
            )
        living = {machine.id for machine in self._machines if not machine.is_retired}
        return Sharing(
            tuple(states),
            sum(shard.owner not in living for shard in self._shards) if self._shards else SHARDS,
            tuple(sorted(self._driven)),
            self._store.trusted_until - now,
            next((str(error) for error in self._failing.values()), None),
            self._store.has_history,
        )

    def owner_of(self, number: int) -> str | None:
        """Return the machine that drives a shard now; None if nobody is known to, or it is about to change hands."""
        if number in self._driven:
            return None if number in self._giving else self._store.machine
        owner = self._shards[number].owner if self._shards else None
        living = {machine.id for machine in self._machines if not machine.is_retired}
        return owner if owner in living and owner != self._store.machine else None

    def is_there(self, machine: str) -> bool:
        """Whether a machine is not known to be over."""
        return any(each.id == machine and not each.is_retired for each in self._machines)

    def watermark_of(self, number: int) -> UtcMs | None:
        """Return how far a shard is settled, as far as its owner's heartbeat says."""
        owner = self._shards[number].owner if self._shards else None
        found = [machine.watermark_of(number) for machine in self._machines if machine.id == owner]
        return found[0] if found else None

    # --- the lease --------------------------------------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        while True:
            due_in_s = renewal_due(self._store.trusted_until, self._store.lease_ms) - self._clock.boot()
            if due_in_s > 0:  # a commit renews it, too
                await self._clock.sleep(max(due_in_s, _LEAST_RENEWAL_S))
            elif await self._is_done("renew", self._store.renew):
                await self._clock.sleep(_LEAST_RENEWAL_S)
            else:
                await self._clock.sleep(_RETRY_S)

    async def _watch_trust(self) -> None:
        while not self._has_left.is_set():
            left_s = self._store.trusted_until - self._clock.boot()
            if left_s <= 0:
                error = self._failing.get("renew")
                raise LeaseLost(
                    "this machine slept, or could not renew it in time"
                    if error is None
                    else f"it could not be renewed in time ({error})"
                )
            await self._clock.sleep(min(max(left_s, 0.001), _WATCH_S))

    # --- the others -------------------------------------------------------------------------------------------------

    async def _look_for_ever(self) -> None:
        while True:
            began_at = self._clock.mono()
            await self._is_done("look", self._look)
            took_s = self._clock.mono() - began_at
            await self._clock.sleep(max(self._next_look_s() - took_s, _LEAST_LOOK_S))

    def _next_look_s(self) -> float:
        now = self._clock.boot()
        if self._failing:
            return LOOK_S
        usual_s = _QUICK_LOOK_S if now - self._changed_at < _QUICK_FOR_S else LOOK_S
        silence = self._leases.next_silence(self._machines)
        return usual_s if silence is None else min(usual_s, silence - now)

    async def _look(self) -> None:
        store = self._store
        machines = await store.machines()
        self._leases.hear(machines, self._clock.boot())
        self._tell(machines)
        self._machines = machines
        hand_overs = {each.id: (each.hand_overs, each.is_retired, each.is_leaving) for each in machines}
        if hand_overs != self._read_at:
            self._changed_at = self._clock.boot()
        if self._must_read or hand_overs != self._read_at:
            self._must_read = False
            try:
                self._shards = await store.shards()
            except StoreError:
                self._must_read = True
                raise
            self._read_at = hand_overs
            self._giving -= {
                shard.number for shard in self._shards if shard.owner not in (None, store.machine)
            }
        if self._store.trusted_until <= self._clock.boot():
            return  # it has slept, and has no right to call others silent
        if await self._retire():
            self._changed_at = self._clock.boot()
        if not self._is_leaving:
            self._hand_over()
        if not self._taking:
            self._note("take", None)  # somebody else has what could not be taken
        if self._clock.mono() - self._followed_at >= LOOK_S:
            self._followed_at = self._clock.mono()
            await self._is_done("follow", store.follow)  # which goes by what was just read

    def _tell(self, machines: Sequence[Machine]) -> None:
        """Tell who has come and gone since the last look. Errors: LeaseLost if it is this machine."""
        before = {machine.id: machine for machine in self._machines}
        for machine in machines:
            was = before.get(machine.id)
            if machine.is_retired and machine.id == self._store.machine and not self._is_leaving:
                raise LeaseLost("another machine has retired this one")
            if was is None and not machine.is_retired:
                self._hooks.machine_joined(machine)
            if was is not None and not was.is_retired and machine.is_retired:
                self._hooks.machine_gone(machine)
        there = {machine.id for machine in machines}
        for was in self._machines:
            if was.id not in there and not was.is_retired:
                self._hooks.machine_gone(was._replace(is_retired=True, has_left=True))

    async def _retire(self) -> bool:
        """Retire who is silent; return whether somebody was."""
        silent = self._leases.silent(self._machines, self._clock.boot())
        retired = await asyncio.gather(*(self._store.retire(each.machine) for each in silent))
        by_id = {machine.id: machine for machine in retired if machine is not None}
        for machine in by_id.values():
            self._hooks.machine_gone(machine)
        self._machines = [by_id.get(machine.id, machine) for machine in self._machines]
        return bool(by_id)

    # --- shards -----------------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        hands = Hands(self._driven.keys(), self._taking, self._giving)
        actions = self._leases.next_actions(self._machines, self._shards, hands, self._clock.boot())
        if actions.take:
            self._taking |= {take.shard.number for take in actions.take}
            self._giving -= self._taking
            self._start(self._take_all(actions.take))
        for give in actions.give:
            self._start_giving(give.shard.number)

    def _start_giving(self, number: int) -> None:
        self._giving.add(number)
        self._start(self._give(number))

    def _start(self, move: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None
        task = self._tasks.create_task(move)
        self._moves.add(task)
        task.add_done_callback(self._moves.discard)

    async def _take_all(self, takes: Sequence[Take]) -> None:
        taken: list[Take] = []

        async def take(one: Take) -> None:
            async with self._room:
                if await self._take(one):
                    taken.append(one)

        async with asyncio.TaskGroup() as tasks:
            for one in takes:
                tasks.create_task(take(one))
        owners = {None if one.owner is None else one.owner.id: one.owner for one in taken}
        for id_, owner in owners.items():
            self._hooks.shards_taken(
                sorted(one.shard.number for one in taken if one.shard.owner == id_), owner
            )

    async def _take(self, take: Take) -> bool:
        number, owner = take.shard.number, take.shard.owner
        try:
            taken = None if self._is_leaving else await self._store.take(take.shard, take.owner)
            if taken is None:
                return False
            self._note("take", None)
            await self._take_in(taken)
            await self._until_done("take", partial(self._store.recovered, number))
            epoch = take.shard.epoch + (owner != self._store.machine)
            self._driven[number] = take.shard._replace(owner=self._store.machine, epoch=epoch)
        except LeaseLost:
            raise
        except StoreError as exc:
            self._note("take", exc)
            return False
        finally:
            self._taking.discard(number)
            self._must_read = True
        return True

    async def _take_in(self, taken: TakenIn) -> None:
        """Have the engine take a shard in, with those that arrive while it is about others."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrived.append((taken, done))
        if not self._is_taking_in:
            self._is_taking_in = True
            self._start(self._take_in_all())
        await done

    async def _take_in_all(self) -> None:
        await self._clock.sleep(0)  # what arrived with the first
        alone: set[int] = set()  # failed with others
        while self._arrived:
            batch = self._next_batch(alone)
            try:
                await self._driver.take_in([one for one, _ in batch])
            except LeaseLost:
                raise
            except NotReady:  # the engine has said why
                if self._is_leaving:  # others can take them
                    for _, done in batch:
                        done.cancel()
                    continue
                self._arrived.extendleft(reversed(batch))
                await self._clock.sleep(_RETRY_S)
            except StoreError as exc:  # one of them may be to blame, and the others need not wait for it
                self._note("take", exc)
                alone.update(one.number for one, _ in batch)
                self._arrived.extend(batch)
                await self._clock.sleep(_RETRY_S)
            else:
                alone.difference_update(one.number for one, _ in batch)
                if not alone:
                    self._note("take", None)
                for _, done in batch:
                    if not done.done():
                        done.set_result(None)
        self._is_taking_in = False

    def _next_batch(self, alone: Container[int]) -> list[tuple[TakenIn, asyncio.Future[None]]]:
        """Return those to be taken in next, as many as fit: one of *alone* by itself."""
        batch = [self._arrived.popleft()]
        count = len(batch[0][0].rows)
        if batch[0][0].number in alone:
            return batch
        while self._arrived and self._arrived[0][0].number not in alone:
            count += len(self._arrived[0][0].rows)
            if count > _TOGETHER:
                break
            batch.append(self._arrived.popleft())
        return batch

    async def _give(self, number: int) -> None:
        await self._until_done("give", partial(self._store.begin_give, number))
        given = await self._until_done("give", partial(self._driver.give_up, number))
        shard = self._driven.pop(number)
        await self._until_done("give", partial(self._store.give, shard, given))
        self._must_read = True
        self._hooks.shard_given(number)

    # --- what fails ---------------------------------------------------------------------------------------------------

    async def _is_done(self, what: str, call: Callable[[], Awaitable[object]]) -> bool:
        """Make one *call*, which may fail. Errors: LeaseLost."""
        try:
            await call()
        except LeaseLost:
            raise
        except StoreError as exc:
            self._note(what, exc)
            return False
        self._note(what, None)
        return True

    async def _until_done(self, what: str, call: Callable[[], Awaitable[_T]]) -> _T:
        """Make *call* until it succeeds. Errors: LeaseLost."""
        while True:
            try:
                answer = await call()
            except LeaseLost:
                raise
            except NotReady:  # the engine has said why
                await self._clock.sleep(_RETRY_S)
            except StoreError as exc:
                self._note(what, exc)
                await self._clock.sleep(_RETRY_S)
            else:
                self._note(what, None)
                return answer

    def _note(self, what: str, error: StoreError | None) -> None:
        """Say once that something begins to fail, and once that nothing does any more."""
        if error is not None:
            if not self._failing:
                self._failing_since = self._clock.mono()
                self._hooks.table_failed(error)
            self._failing[what] = error
        elif self._failing.pop(what, None) is not None and not self._failing:
            self._hooks.table_answers(self._clock.mono() - self._failing_since)

    async def _within(self, until: float, work: Coroutine[Any, Any, object]) -> None:
        """Do *work*, but no longer than *until* on the monotonic clock."""
        task = await within(self._clock, until - self._clock.mono(), work)
        if task.done():
            task.result()


def _first(group: BaseExceptionGroup[LeaseLost]) -> LeaseLost:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
