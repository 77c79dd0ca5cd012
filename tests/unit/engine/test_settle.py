"""Outcomes become rows, many at a time."""

from __future__ import annotations

import asyncio

import pytest

from cronally.domain.model import Fire, State
from cronally.engine.core import Core
from cronally.engine.hooks import Hooks
from cronally.engine.ports import Outcome, OutcomeClass
from cronally.engine.settle import Settler, published_entry
from cronally.errors import StoreError
from support.entries import launch
from support.fake_clock import FakeClock

DUE = 1_795_424_400_000
MANY = 12_000


class Store:
    """Remembers commits; the one with the number *fails_at*, from 0, fails."""

    def __init__(self):
        self.commits = []
        self.fails_at = None

    async def commit(self, entries, *, watermark, errors, **_):
        if len(self.commits) == self.fails_at:
            self.fails_at = None
            raise StoreError("no")
        self.commits.append((list(entries), watermark, list(errors)))
        return 0


@pytest.fixture
def clock():
    return FakeClock(DUE + 5_000)


@pytest.fixture
def settled(clock):
    """Return a settler with MANY outcomes to commit, its core and its store."""
    core, store = Core(), Store()
    core.planned_through = DUE + 60_000
    settler = Settler(core, store, clock, Hooks(), on_committed=lambda: None)
    fires = core.hold_new([Fire(number, number, DUE, DUE) for number in range(1, MANY + 1)])
    launch(core, *fires)
    core.mark_settled(fires)
    settler.add(
        [published_entry(Outcome(fire, OutcomeClass.PUBLISHED, DUE * 1000 + 300, DUE + 20)) for fire in fires]
    )
    return settler, core, store


async def test_many_rows_are_committed_in_parts_and_the_watermark_with_the_last(settled):
    settler, core, store = settled
    await settler.flush()
    assert [len(entries) for entries, _, _ in store.commits] == [5_000, 5_000, 2_000]
    assert [watermark for _, watermark, _ in store.commits] == [None, None, DUE + 5_000]
    assert core.held_of(range(MANY + 1)) == []
    ids = [entry.schedule_id for entries, _, _ in store.commits for entry in entries]
    assert ids == list(range(1, MANY + 1))


async def test_what_could_not_be_committed_stays_and_the_watermark_waits_for_it(settled):
    settler, core, store = settled
    store.fails_at = 1
    with pytest.raises(StoreError):
        await settler.flush()
    assert [watermark for _, watermark, _ in store.commits] == [None]
    assert len(core.held_of(range(MANY + 1))) == MANY - 5_000
    await settler.flush()
    ids = [entry.schedule_id for entries, _, _ in store.commits for entry in entries]
    assert ids == list(range(1, MANY + 1))
    assert store.commits[-1][1] == DUE + 5_000


async def test_what_is_settled_during_a_commit_is_not_covered_by_its_watermark(settled):
    settler, core, store = settled
    late = Fire(MANY + 1, 1, DUE + 1_000, DUE + 1_000)
    core.hold(late)
    launch(core, late)
    commit = store.commit

    async def settle_meanwhile(entries, **keys):
        await commit(entries, **keys)
        if len(store.commits) == 1:
            core.mark_settled([late])
            settler.add([published_entry(Outcome(late, OutcomeClass.PUBLISHED, 0, DUE))])

    store.commit = settle_meanwhile
    await settler.flush()
    assert store.commits[-1][1] == DUE + 999
    await settler.flush()
    assert store.commits[-1][1] == DUE + 5_000


async def test_nothing_to_commit_is_no_commit(clock):
    store = Store()
    await Settler(Core(), store, clock, Hooks(), on_committed=pytest.fail).flush()
    assert store.commits == []


def test_a_published_row_says_when_it_left_and_how_late():
    fire = Fire(7, 8, DUE - 60_000, DUE, attempts=2, maybe_published=True)
    entry = published_entry(Outcome(fire, OutcomeClass.PUBLISHED, DUE * 1000 + 1_234, DUE + 20))
    assert entry == entry._replace(
        schedule_id=7,
        revision_id=8,
        fire_time=DUE - 60_000,
        due_time=DUE,
        state=State.PUBLISHED,
        attempts=3,
        released_at=DUE + 1,
        published_at=DUE + 20,
        lateness_us=1_234,
        maybe_published=False,
        last_error=None,
        count=1,
        is_open=False,
    )
    assert entry.asked_at is None
    again = Outcome(fire._replace(asked_at=DUE + 9), OutcomeClass.PUBLISHED, DUE * 1000 + 1_234, DUE + 20)
    assert published_entry(again) == entry._replace(asked_at=DUE + 9)
    early = Outcome(fire, OutcomeClass.PUBLISHED, DUE * 1000 - 5, DUE)
    assert published_entry(early).lateness_us == 0


class Patient(Store):
    """A store of several machines: each commit costs."""

    commit_interval_s = 2.5


@pytest.fixture
async def patient(clock):
    """Return a settler that runs, and its store."""
    store = Patient()
    settler = Settler(Core(), store, clock, Hooks(), on_committed=lambda: None)
    running = asyncio.create_task(settler.run())
    yield settler, store
    running.cancel()


def sent(number, state=State.PUBLISHED):
    fire = Fire(number, number, DUE, DUE)
    entry = published_entry(Outcome(fire, OutcomeClass.PUBLISHED, DUE * 1000, DUE))
    return entry._replace(state=state)


async def test_what_was_published_waits_for_the_interval_of_its_store(clock, patient):
    settler, store = patient
    settler.add([sent(1)])
    await clock.advance(2.4)
    settler.add([sent(2)])
    assert store.commits == []
    await clock.advance(0.2)
    [(entries, _, _)] = store.commits
    assert [entry.schedule_id for entry in entries] == [1, 2]
    settler.add([sent(3)])
    await clock.advance(2.4)
    assert len(store.commits) == 1


@pytest.mark.parametrize("state", [State.PENDING, State.REJECTED, State.SKIPPED, State.EXPIRED])
async def test_anything_else_takes_what_waits_with_it_at_once(clock, patient, state):
    settler, store = patient
    settler.add([sent(1)])
    await clock.advance(1)
    settler.add([sent(2, state)])
    await clock.advance(0.06)
    [(entries, _, _)] = store.commits
    assert [entry.schedule_id for entry in entries] == [1, 2]


async def test_a_great_many_do_not_wait(clock, patient):
    settler, store = patient
    for number in range(1, 5_001):
        settler.add([sent(number)])
    await clock.advance(0.11)
    assert [len(entries) for entries, _, _ in store.commits] == [5_000]
