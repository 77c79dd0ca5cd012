"""What ``engine.ports.Store`` promises of a clock that is set back, asked of every store."""

from __future__ import annotations

from cronally.domain.durations import DAY_MS
from cronally.domain.model import Kind, Pause, SkipReason, State
from cronally.engine.records import OWN_NAME
from cronally.instants import MAX_UTC_MS
from support.stores import (
    FIFO,
    MINUTE,
    T,
    creation,
    edit,
    entries,
    entry,
    pause_row,
    pending,
    spec,
)


def skipped(revised, first, last, count, **fields):
    return entry(
        revised,
        first,
        State.SKIPPED,
        **{"reason": SkipReason.CATCH_UP, "attempts": 0, "last_fire_time": last, "count": count} | fields,
    )


def expired(revised, fire_time, **fields):
    return entry(revised, fire_time, State.EXPIRED, **{"attempts": 0} | fields)


async def test_settled_slots_are_read_by_when_the_last_of_a_row_is_due(store):
    revised = await store.change(creation(spec()))
    spread = entry(revised, T + 1, due_time=T + MINUTE)
    rows = [entry(revised, T), spread, skipped(revised, T + 2, T + 30, 3), pending(revised, T + 40)]
    await store.commit(rows, watermark=None)
    assert await store.settled_between(T - 1, T) == {revised.id: [(T, T)]}
    assert await store.settled_between(T, T + 39) == {revised.id: [(T + 2, T + 30)]}
    assert await store.settled_between(T + 30, T + MINUTE) == {revised.id: [(T + 1, T + 1), (T + 40, T + 40)]}
    assert await store.settled_between(T + MINUTE, MAX_UTC_MS) == {}


async def test_settled_slots_are_read_by_the_last_slot_of_a_row_whenever_it_is_due(store):
    revised = await store.change(creation(spec()))
    spread = entry(revised, T + 1, due_time=T + MINUTE)
    rows = [entry(revised, T), spread, skipped(revised, T + 2, T + 30, 3), pending(revised, T + 40)]
    await store.commit(rows, watermark=None)
    assert await store.settled_slots(T - 1, T) == {revised.id: [(T, T)]}
    assert await store.settled_slots(T, T + 29) == {revised.id: [(T + 1, T + 1)]}
    assert await store.settled_slots(T + 1, T + 40) == {revised.id: [(T + 2, T + 30), (T + 40, T + 40)]}
    assert await store.settled_slots(T + 40, MAX_UTC_MS) == {}


async def test_the_newest_settled_slot_is_final_and_scheduled(store):
    revised = await store.change(creation(spec()))
    assert await store.newest_settled(T - DAY_MS) is None
    await store.commit(
        [
            entry(revised, T),
            pending(revised, T + DAY_MS),
            entry(revised, T + DAY_MS, kind=Kind.MANUAL),
        ],
        watermark=None,
    )
    opened = pause_row(revised, T + 2 * DAY_MS, T + 2 * DAY_MS, 0, is_open=True)
    await store.change(edit(revised, action="pause", pause=Pause(since=T), opened=(opened,)))
    assert await store.newest_settled(T - 1) == T
    assert await store.newest_settled(T) is None
    await store.commit(
        [skipped(revised, T + 1, T + MINUTE, 2), entry(revised, T + 7, due_time=T + 99)], watermark=None
    )
    assert await store.newest_settled(T) == T + MINUTE
    late = {"due_time": T + DAY_MS, "attempts": 0}
    dropped = entry(revised, T + 8, State.SKIPPED, reason=SkipReason.DROPPED, **late)
    await store.commit(
        [dropped, pause_row(revised, T + 9, T + 2 * MINUTE, 2)._replace(**late)], watermark=None
    )
    assert await store.newest_settled(T) == T + 2 * MINUTE


async def test_what_recovery_decided_beyond_an_instant_is_found_in_slices_and_taken_back(store):
    revised = await store.change(creation(spec()))
    tried = expired(revised, T + 7 * MINUTE, attempts=1)
    paused = pause_row(revised, T + 8 * MINUTE, T + 9 * MINUTE, 2)
    late = expired(revised, T + 4 * MINUTE, due_time=T + 5 * MINUTE)
    long = skipped(revised, T - MINUTE, T + 3 * MINUTE, 5)
    single = skipped(revised, T + 6 * MINUTE, None, 1)
    early = skipped(revised, T - 9 * MINUTE, T - 2 * MINUTE, 8)
    await store.commit(
        [tried, paused, late, long, single, early, entry(revised, T + 10 * MINUTE)], watermark=None
    )
    assert await store.decided_beyond(T) == [long, late, single, paused]
    assert await store.decided_beyond(T, limit=1) == [long]
    assert await store.decided_beyond(T, after=(T + 3 * MINUTE, revised.id, T - MINUTE), limit=1) == [late]
    cut = long._replace(last_fire_time=T, count=2)
    await store.amend(
        [
            cut,
            late._replace(count=0),
            tried._replace(count=0),
            entry(revised, T + 10 * MINUTE)._replace(count=0),
        ]
    )
    left = {each.fire_time: each for each in await entries(store)}
    assert left[T - MINUTE] == cut
    assert T + 4 * MINUTE not in left
    assert left[T + 7 * MINUTE] == tried  # it was attempted
    assert T + 10 * MINUTE in left
    assert await store.decided_beyond(T) == [single, paused]


async def test_the_entries_of_one_schedule_beyond_an_instant(store):
    revised = await store.change(creation(spec()))
    other = await store.change(creation(spec("other")))
    long = skipped(revised, T - MINUTE, T + 3 * MINUTE, 5)
    rows = [entry(revised, T - 5), long, pending(revised, T + 4 * MINUTE), entry(revised, T + 5 * MINUTE)]
    await store.commit([*rows, entry(other, T + 1), entry(revised, T + 1, kind=Kind.MANUAL)], watermark=None)
    assert await store.entries_beyond(revised.id, T) == rows[1:]


async def test_schedules_changed_beyond_an_instant_and_whether_their_pause_ended_by_itself(store):
    await store.change(creation(spec("old"), at=T))
    await store.change(creation(spec("made"), at=T + DAY_MS))
    paused = await store.change(creation(spec("paused"), at=T))
    await store.change(edit(paused, at=T + DAY_MS, action="pause", pause=Pause(since=T + DAY_MS)))
    rested = await store.change(creation(spec("rested"), at=T))
    await store.change(edit(rested, action="pause", pause=Pause(since=T, until=T + DAY_MS)))
    end = edit(rested, at=T + DAY_MS - 1, action="resume", effective_from=T + DAY_MS - 1)
    await store.change(end.__class__(**{**_fields(end), "by": OWN_NAME}))
    removed = await store.change(creation(spec("removed"), at=T + DAY_MS))
    await store.change(edit(removed, action="rm", is_removal=True))
    found = [(each.spec.name, is_rested) for each, is_rested in await store.changed_beyond(T)]
    assert found == [("made", False), ("paused", False), ("rested", True)]
    assert [each.spec.name for each, _ in await store.changed_beyond(T, limit=1)] == ["made"]
    assert [each.spec.name for each, _ in await store.changed_beyond(T, after="made")] == ["paused", "rested"]
    assert await store.changed_beyond(T + DAY_MS) == []


def _fields(change):
    return {name: getattr(change, name) for name in change.__dataclass_fields__}


async def test_setting_back_takes_the_watermark_back_and_what_is_pending_forward(house, store):
    revised = await store.change(creation(spec()))
    fifo = await store.change(creation(spec("fifo", topic=FIFO)))
    due = pending(revised, T - MINUTE, next_attempt_at=T + DAY_MS)
    to_come = pending(revised, T + MINUTE, next_attempt_at=T + DAY_MS)
    manual = pending(revised, T + 2 * MINUTE, kind=Kind.MANUAL, next_attempt_at=T + DAY_MS)
    soon = pending(revised, T - 2 * MINUTE, next_attempt_at=T - 1)
    in_group = pending(fifo, T + MINUTE, next_attempt_at=T + DAY_MS)
    await store.commit([due, to_come, manual, soon, in_group], watermark=T + DAY_MS)
    await store.set_back(at=T, watermark=T - 5, reached=T + DAY_MS)
    found = {(each.fire.fire_time, each.fire.kind): each for each in await store.pending_due(MAX_UTC_MS)}
    assert {key: each.next_attempt_at for key, each in found.items()} == {
        (T - MINUTE, Kind.SCHEDULED): T,
        (T + MINUTE, Kind.SCHEDULED): T + MINUTE,
        (T + 2 * MINUTE, Kind.MANUAL): T,
        (T - 2 * MINUTE, Kind.SCHEDULED): T - 1,
    }
    assert found[T + 2 * MINUTE, Kind.MANUAL].fire.due_time == T
    [head] = await store.group_pending(FIFO, "fifo")
    assert head.next_attempt_at == T + MINUTE
    opened = await house.crash()
    assert (opened.watermark, opened.reached, opened.set_back_at) == (T - 5, T + DAY_MS, T)
    await house.store.end_set_back()
    assert (await house.crash()).set_back_at is None
    await house.store.set_back(at=T, watermark=T - 6, reached=T)
    opened = await house.crash()
    assert (opened.watermark, opened.reached) == (T - 6, T + DAY_MS)
