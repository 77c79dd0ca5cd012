"""What ``engine.ports.Store`` promises, asked of every store."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cronally.domain.durations import DAY_MS
from cronally.domain.model import Fire, FireKey, Kind, Pause, SkipReason, State
from cronally.domain.shards import SHARDS
from cronally.domain.spec import canonical_document, from_document, rule_document
from cronally.engine.records import (
    AuditFilter,
    AuditRow,
    JournalFilter,
    Label,
    Newer,
    Order,
    PendingFire,
    Pruned,
    Reopened,
    Revised,
    StagedChange,
    StagedRow,
    StoredSchedule,
    TopicUse,
    ZoneRecord,
)
from cronally.errors import Conflict, RevisionConflict, ScheduleNotFound
from cronally.instants import MAX_UTC_MS
from support.stores import (
    FIFO,
    MINUTE,
    TOPIC,
    T,
    creation,
    edit,
    entries,
    entry,
    near,
    pause_row,
    pending,
    spec,
)


async def timetable(store):
    return [row async for rows in store.timetable() for row in rows]


# --- opening and closing ----------------------------------------------------------------------------------------


async def test_a_new_store_knows_nothing_and_is_clean(house):
    opened = await house.open()
    assert (opened.watermark, opened.was_clean, opened.pruned_through) == (None, True, None)
    assert opened.failing == frozenset()


async def test_a_clean_stop_is_remembered_once_with_its_watermark(house):
    await house.open()
    await house.store.close(watermark=T)
    opened = await house.open()
    assert (opened.watermark, opened.was_clean) == (T, True)
    await house.store.close(watermark=None)
    opened = await house.open()
    assert (opened.watermark, opened.was_clean) == (T, False)


async def test_a_crash_loses_nothing_that_was_committed(house, store):
    revised = await store.change(creation(spec()))
    await store.commit([entry(revised), pending(revised, T + MINUTE)], watermark=T + MINUTE)
    opened = await house.crash()
    assert (opened.watermark, opened.was_clean) == (T + MINUTE, False)
    stored = await house.store.schedule("nightly")
    assert (stored.revision_id, stored.pending) == (revised.revision_id, 1)
    found = await entries(house.store)
    # Where machines take over from one another, the store itself says that what was pending may have been sent.
    assert [one._replace(maybe_published=False) for one in found] == [
        pending(revised, T + MINUTE),
        entry(revised),
    ]


async def test_opening_names_the_schedules_that_have_an_error(house, store):
    failing = await store.change(creation(spec("failing")))
    removed = await store.change(creation(spec("removed")))
    await store.change(creation(spec("well")))
    await store.commit([], watermark=None, errors=[(failing.id, "NotFound"), (removed.id, "NotFound")])
    await store.change(edit(removed, action="rm", is_removal=True))
    assert (await house.crash()).failing == {failing.id}


# --- schedules --------------------------------------------------------------------------------------------------

FULL = {
    "tz": "Europe/London",
    "message": 'Grüße 🎉 "<cronally.fire-id>" \\ \u2028 \x7f end',
    "subject": "Nightly – report",
    "attributes": {"level": {"type": "Number", "value": "5"}, "team": "böse"},
    "catch_up": "all",
    "deadline": "2h",
    "late_after": "5m",
    "on_gap": "skip",
    "on_repeat": "both",
    "spread": "5m",
    "priority": 9,
    "starts": "2026-01-01T00:00:00Z",
    "ends": "2027-01-01T00:00:00.001Z",
    "tags": ["a", "b"],
    "note": "the note",
}


async def test_a_schedule_is_read_back_as_it_was_made(store):
    made = spec(**FULL)
    revised = await store.change(creation(made, owner="ops"))
    assert await store.schedule("nightly") == StoredSchedule(
        id=revised.id,
        spec=made,
        revision=1,
        revision_id=revised.revision_id,
        effective_from=T,
        created_at=T,
        changed_at=T,
        owner="ops",
    )
    assert revised == Revised(revised.id, 1, revised.revision_id, 0)
    assert await store.schedule("Nightly") is None


async def test_a_name_is_unique_among_the_living(store):
    first = await store.change(creation(spec("a")))
    second = await store.change(creation(spec("b")))
    with pytest.raises(Conflict, match="'a'"):
        await store.change(creation(spec("a")))
    with pytest.raises(Conflict, match="'a'"):
        await store.change(edit(second, new_spec=spec("a")))
    assert [s.spec.name for s in await store.schedules()] == ["a", "b"]
    await store.change(edit(first, action="rm", is_removal=True))
    again = await store.change(creation(spec("a")))
    assert again.id not in (first.id, second.id)
    assert again.revision == 1


async def test_ids_are_never_used_again(house, store):
    seen = set()
    for _ in range(3):
        revised = await house.store.change(creation(spec()))
        await house.store.change(edit(revised, action="rm", is_removal=True))
        assert revised.id not in seen
        assert revised.revision_id not in seen
        seen |= {revised.id, revised.revision_id}
        await house.crash()


async def test_an_edit_makes_the_next_revision_and_keeps_the_old_one(store):
    first = await store.change(creation(spec()))
    second = await store.change(edit(first, new_spec=spec(when="5 9 * * *"), effective_from=T + 1000))
    assert second == Revised(first.id, 2, second.revision_id, 0)
    assert second.revision_id != first.revision_id
    stored = await store.schedule("nightly")
    assert (stored.spec.when, stored.revision, stored.revision_id) == ("5 9 * * *", 2, second.revision_id)
    assert (stored.created_at, stored.changed_at, stored.effective_from) == (T, T + 1000, T + 1000)
    found = await store.specs([second.revision_id, first.revision_id, 999])
    assert found == {first.revision_id: spec(), second.revision_id: spec(when="5 9 * * *")}


async def test_revisions_are_counted_per_schedule(store):
    await store.change(creation(spec("a")))
    first = await store.change(creation(spec("b")))
    assert first.revision == 1
    assert (await store.change(edit(first, new_spec=spec("b", note="x")))).revision == 2


async def test_an_edit_of_another_revision_than_the_current_changes_nothing(store):
    first = await store.change(creation(spec()))
    second = await store.change(edit(first, new_spec=spec(note="2")))
    with pytest.raises(RevisionConflict) as caught:
        await store.change(edit(first, new_spec=spec(note="3"), unsettled=(pending(first),)))
    assert (caught.value.name, caught.value.expected, caught.value.found) == ("nightly", 1, 2)
    assert (await store.schedule("nightly")).revision_id == second.revision_id
    assert await entries(store) == []


async def test_a_change_of_what_is_not_there_says_so(store):
    revised = await store.change(creation(spec()))
    await store.change(edit(revised, action="rm", is_removal=True))
    with pytest.raises(ScheduleNotFound, match="nightly"):
        await store.change(edit(revised, new_spec=spec(note="x")))
    with pytest.raises(ScheduleNotFound):
        await store.change(edit(Revised(77, 1, 1, 0), new_spec=spec("other")))
    assert await store.schedules() == []


async def test_a_pause_keeps_the_revision(store):
    first = await store.change(creation(spec(), owner="ops"))
    pause = Pause(since=T + 1000, until=T + DAY_MS, note="Ferien 🎉", by="uid 1000")
    assert await store.change(edit(first, action="pause", pause=pause)) == first
    stored = await store.schedule("nightly")
    assert (stored.pause, stored.effective_from, stored.owner) == (pause, T, "ops")
    assert stored.changed_at == T + 1000
    await store.change(edit(first, action="resume", effective_from=T + 2000))
    stored = await store.schedule("nightly")
    assert (stored.pause, stored.effective_from) == (None, T + 2000)


async def test_a_removed_schedule_is_gone_but_for_its_history_and_its_specs(store):
    revised = await store.change(creation(spec()))
    await store.commit([entry(revised)], watermark=None)
    assert await store.change(edit(revised, action="rm", is_removal=True)) == revised
    assert await store.schedule("nightly") is None
    assert await store.schedules() == []
    assert await timetable(store) == []
    assert await store.specs([revised.revision_id]) == {revised.revision_id: spec()}
    assert await entries(store, schedule="nightly") == [entry(revised)]
    assert (await store.counts()).schedules == 0


async def test_schedules_are_listed_by_name_in_pages(store):
    for name in ("b", "B", "a.1", "a-1", "a", "1"):
        await store.change(creation(spec(name)))
    assert [s.spec.name for s in await store.schedules()] == ["1", "B", "a", "a-1", "a.1", "b"]
    assert [s.spec.name for s in await store.schedules(after="B", limit=2)] == ["a", "a-1"]
    assert [s.spec.name for s in await store.schedules(after="a-1", limit=2)] == ["a.1", "b"]
    assert await store.schedules(after="b") == []


async def test_the_timetable_comes_in_the_order_of_ids(store):
    b = await store.change(creation(spec("b")))
    a = await store.change(creation(spec("a", when="@at 2027-01-01T00:00"), at=T + 5))
    b = await store.change(edit(b, new_spec=spec("b", note="new"), pause=Pause(since=T + 1, until=T + 9)))
    rows = await timetable(store)
    assert [row.id for row in rows] == sorted([b.id, a.id])
    rows.sort(key=lambda row: row.id == a.id)
    assert rows[0] == (
        b.id,
        b.revision_id,
        "b",
        rule_document(canonical_document(spec("b", note="new"))),
        T,
        T + 1,
        T + 9,
        None,
    )
    assert rows[1][4:] == (T + 5, None, None, 1_798_761_600_000)


async def test_the_timetable_has_the_rule_and_not_the_message(store):
    """Whatever a document holds: its rule as text, to the letter that of another schedule with the same rule."""
    rich = {
        "when": "H 9 * * mon",
        "tz": "Europe/Zurich",
        "dialect": "unix",
        "spread": "1m30s",
        "priority": 7,
        "on_gap": "skip",
        "on_repeat": "both",
        "starts": "2026-01-01T00:00:00Z",
        "ends": "2027-01-01T00:00:00Z",
    }
    rest = {
        "message": 'say "grüezi", "tz": 1 \u2028 \U0001f600 <cronally.fire-id>',
        "subject": "s",
        "attributes": {"when": "x", "message": "y"},
        "catch_up": "all",
        "deadline": "1h",
        "late_after": "10s",
        "tags": ["a", "b"],
        "note": "n",
    }
    for name, document in (("a", rich | rest), ("b", rich), ("c", {"when": "0 9 * * *", "note": "only"})):
        await store.change(creation(from_document(name, {"topic": TOPIC, **document})))
    a, b, c = sorted(await timetable(store), key=lambda row: row.name)
    assert a.rule == b.rule != c.rule
    assert json.loads(a.rule) == {key: value for key, value in rich.items() if key != "dialect"} | {
        "topic": TOPIC
    }
    assert json.loads(c.rule) == {"when": "0 9 * * *", "topic": TOPIC}


async def test_long_lists_come_whole(store):
    """More rows than a slice holds, and more bytes."""
    message = "x" * 200_000
    rows = [StagedRow(f"s{i:04d}", canonical_document(spec(f"s{i:04d}", note=str(i)))) for i in range(2300)]
    rows += [
        StagedRow(f"t{i:04d}", canonical_document(spec(f"t{i:04d}", message=message, note=str(i))))
        for i in range(45)
    ]
    await store.stage_begin()
    await store.stage(rows[:2000])
    await store.stage(rows[2000:])
    assert [change.name for change in await store.staged_changes()] == [row.name for row in rows]
    flipped = await store.flip(at=T, by="uid 0", owner="default", unsettled=[])
    assert [(row.name, row.rule) for row in flipped] == [
        (row.name, rule_document(row.document)) for row in rows
    ]
    assert await timetable(store) == sorted(flipped)
    listed = await store.schedules(limit=10_000)
    assert [s.spec.name for s in listed] == [row.name for row in rows]
    assert await store.specs([s.revision_id for s in listed]) == {s.revision_id: s.spec for s in listed}
    made = [
        entry(Revised(s.id, 1, s.revision_id, 0), T + i % 7, State.PENDING, next_attempt_at=T + i % 5)
        for i, s in enumerate(listed)
    ]
    await store.commit(made, watermark=None)
    assert len(await store.history(JournalFilter(limit=10_000))) == len(made)
    assert len(await store.settled_between(T - 1, MAX_UTC_MS)) == len(made)
    assert len(await store.pending_due(T + 9, limit=10_000)) == len(made)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("nightly-reprot", "nightly-report"),
        ("Nightly-Report", "nightly-report"),
        ("ightly-report", "nightly-report"),
        ("nightly-report2", "nightly-report"),
        ("bakcup", "backup"),
        ("obsolet", None),
        ("zzz", None),
        ("", None),
    ],
)
async def test_the_nearest_name_is_one_that_exists(store, typed, meant):
    for name in ("nightly-report", "backup", "hourly"):
        await store.change(creation(spec(name)))
    removed = await store.change(creation(spec("obsolete")))
    await store.change(edit(removed, action="rm", is_removal=True))
    assert await store.nearest_name(typed) == meant


# --- what a change does to the journal --------------------------------------------------------------------------


async def test_a_change_leaves_unsettled_slots_pending_with_their_revision(store):
    first = await store.change(creation(spec()))
    await store.commit([entry(first, T)], watermark=None)
    late = [pending(first, T), pending(first, T + MINUTE)]
    second = await store.change(edit(first, new_spec=spec("renamed", note="new"), unsettled=tuple(late)))
    assert second.pending == 1
    rows = await store.history(JournalFilter())
    assert [(row.name, row.entry) for row in rows] == [("nightly", late[1]), ("nightly", entry(first, T))]
    assert (await store.schedule("renamed")).pending == 1


async def test_a_pause_opens_a_row_and_its_end_closes_it(store):
    revised = await store.change(creation(spec()))
    opened = pause_row(revised, T, T, 0, is_open=True)
    await store.change(edit(revised, action="pause", pause=Pause(since=T - 1), opened=(opened,)))
    assert await entries(store) == [opened]
    assert (await store.counts()).journal.get(State.SKIPPED, 0) == 0
    assert await store.settled_between(T - 1, MAX_UTC_MS) == {}
    closed = pause_row(revised, T, T + 9 * DAY_MS, 10)
    await store.change(edit(revised, action="resume", closed=(closed,)))
    assert await entries(store) == [closed]
    assert (await store.counts()).journal[State.SKIPPED] == 10
    shorter = pause_row(revised, T, T + 2 * DAY_MS, 3)
    await store.change(edit(revised, action="resume", closed=(shorter,)))  # the clock was set back
    assert await entries(store) == [shorter]


async def test_a_pause_that_skipped_nothing_leaves_no_row(store):
    revised = await store.change(creation(spec()))
    opened = pause_row(revised, T, T, 0, is_open=True)
    await store.change(edit(revised, action="pause", pause=Pause(since=T - 1), opened=(opened,)))
    await store.change(edit(revised, action="resume", closed=(opened._replace(is_open=False),)))
    assert await entries(store) == []


async def test_an_edit_of_a_paused_schedule_closes_one_row_and_opens_the_next(store):
    first = await store.change(creation(spec()))
    opened = pause_row(first, T, T, 0, is_open=True)
    await store.change(edit(first, action="pause", pause=Pause(since=T - 1), opened=(opened,)))
    unknown = Revised(first.id, 2, 0, 0)  # the engine cannot know the revision that the change makes
    second = await store.change(
        edit(
            first,
            new_spec=spec(note="new"),
            pause=Pause(since=T),
            closed=(opened._replace(is_open=False),),
            opened=(pause_row(unknown, T, T, 0, is_open=True),),
        )
    )
    assert await entries(store) == [pause_row(second, T, T, 0, is_open=True)]


async def test_a_schedule_can_be_created_paused(store):
    unknown = Revised(0, 1, 0, 0)
    opened = (pause_row(unknown, T, T, 0, is_open=True),)
    revised = await store.change(creation(spec(), pause=Pause(since=T - 1), opened=opened))
    assert await entries(store, schedule="nightly") == [pause_row(revised, T, T, 0, is_open=True)]


async def test_many_changes_are_made_in_one_transaction_as_each_alone(store):
    first, second, third = [await store.change(creation(spec(name))) for name in "abc"]
    await store.commit([pending(first), pending(first, T + 1), pending(third)], watermark=None)
    pause = Pause(since=T, until=None, note="rest", by="uid 0")
    told = []
    made = await store.change_many(
        [
            edit(first, action="rm", is_removal=True, drop_pending=True),
            edit(second, action="pause", pause=pause, opened=(pause_row(second, T, T, 0, is_open=True),)),
            edit(third, action="rm", is_removal=True),
        ],
        gone=told,
    )
    assert [(one.id, one.pending, one.dropped) for one in made] == [
        (first.id, 0, ((Kind.SCHEDULED, 2),)),
        (second.id, 0, ()),
        (third.id, 1, ()),
    ]
    assert sorted(row.fire_time for row in told) == [T, T + 1]
    assert {row.reason for row in told} == {SkipReason.DROPPED}
    [left] = await store.schedules()
    assert (left.spec.name, left.pause) == ("b", pause)
    assert await store.schedule("a") is None
    assert [row.is_open for row in await entries(store, schedule="b")] == [True]


async def test_many_changes_are_all_made_or_none(store):
    first = await store.change(creation(spec("a")))
    second = await store.change(creation(spec("b")))
    newer = await store.change(edit(second, new_spec=spec("b", note="x")))
    removals = [edit(one, action="rm", is_removal=True) for one in (first, second)]
    with pytest.raises(RevisionConflict):
        await store.change_many(removals)
    assert [one.spec.name for one in await store.schedules()] == ["a", "b"]
    await store.change_many([removals[0], edit(newer, action="rm", is_removal=True)])
    assert await store.schedules() == []


async def test_pending_fires_can_be_dropped_but_those_in_flight(store):
    other = await store.change(creation(spec("other")))
    revised = await store.change(creation(spec()))
    manual = pending(revised, T, kind=Kind.MANUAL, attempts=3, last_error="Throttling", maybe_published=True)
    await store.commit(
        [pending(other), pending(revised), manual, pending(revised, T + MINUTE), entry(revised, T + 2)],
        watermark=None,
    )
    change = edit(
        revised,
        action="rm",
        is_removal=True,
        drop_pending=True,
        kept=frozenset({(T + MINUTE, Kind.SCHEDULED)}),
        unsettled=(pending(revised, T + 2 * MINUTE),),
    )
    told = []
    assert (await store.change(change, gone=told)).pending == 1
    dropped = {"state": State.SKIPPED, "reason": SkipReason.DROPPED, "next_attempt_at": None}
    found = await entries(store, schedule="nightly")
    assert {one.key: one for one in told} == {
        one.key: one for one in found if one.reason is SkipReason.DROPPED
    }
    assert found == [
        pending(revised, T + 2 * MINUTE)._replace(**dropped),
        pending(revised, T + MINUTE),
        entry(revised, T + 2),
        pending(revised)._replace(**dropped),
        manual._replace(**dropped),
    ]
    assert await entries(store, schedule="other") == [pending(other)]
    assert len(await store.pending_due(T + DAY_MS)) == 2


# --- single instants --------------------------------------------------------------------------------------------


async def test_single_instants_are_found_by_due_time(store):
    at = spec("at", when="@at 2026-11-23T09:05:00")
    late = spec("late", when="@at 2026-11-23T09:00:00", spread="10m")
    offset = late.offset_ms()
    assert 0 < offset != 5 * MINUTE
    await store.change(creation(spec("crontab")))
    first = await store.change(creation(at, at=T - 1))
    second = await store.change(creation(late, at=T - 1))
    both = [
        Fire(first.id, first.revision_id, T + 5 * MINUTE, T + 5 * MINUTE),
        Fire(second.id, second.revision_id, T, T + offset),
    ]
    both.sort(key=lambda fire: fire.due_time)
    assert await store.at_between(T - 1, T + DAY_MS) == both
    dues = [fire.due_time for fire in both]
    assert await store.at_between(dues[0], dues[1]) == both[1:]
    assert await store.at_between(dues[0] - 1, dues[1] - 1) == both[:1]
    assert await store.at_between(T - 1, T + DAY_MS, limit=1) == both[:1]
    assert await store.at_between(T - 1, T + DAY_MS, limit=5) == both
    assert [await store.next_at(after) for after in (T - 1, dues[0] - 1, dues[0], dues[1])] == [
        dues[0],
        dues[0],
        dues[1],
        None,
    ]


@pytest.mark.parametrize("fault", ["paused", "removed", "effective", "edited", "starts", "ends"])
async def test_a_single_instant_that_does_not_come_is_not_found(store, fault):
    when = "@at 2026-11-23T09:00:00"
    bounds = {"starts": "2026-11-23T09:00:00.001Z", "ends": "2026-11-23T08:59:59.999Z"}
    document = {fault: bounds[fault]} if fault in bounds else {}
    revised = await store.change(
        creation(spec(when=when, **document), at=T if fault == "effective" else T - 1)
    )
    match fault:
        case "paused":
            await store.change(edit(revised, pause=Pause(since=T - 1)))
        case "removed":
            await store.change(edit(revised, is_removal=True))
        case "edited":
            await store.change(edit(revised, new_spec=spec()))
    assert await store.at_between(T - DAY_MS, T + DAY_MS) == []
    assert await store.next_at(T - DAY_MS) is None


async def test_a_resumed_or_moved_single_instant_is_found_again(store):
    revised = await store.change(creation(spec(when="@at 2026-11-23T09:00:00"), at=T - 9))
    await store.change(edit(revised, pause=Pause(since=T - 8)))
    await store.change(edit(revised, effective_from=T - 7))
    assert [fire.fire_time for fire in await store.at_between(T - 1, T)] == [T]
    moved = await store.change(edit(revised, new_spec=spec(when="@at 2026-11-23T09:01:00")))
    assert await store.at_between(0, T + DAY_MS) == [
        Fire(moved.id, moved.revision_id, T + MINUTE, T + MINUTE)
    ]


# --- journal ----------------------------------------------------------------------------------------------------

WHOLE = {
    "attempts": 3,
    "released_at": T + 1,
    "published_at": T + 31,
    "lateness_us": 812,
    "maybe_published": True,
    "last_error": 'Throttling: "Grüße" 🎉',
    "due_time": T + 30_000,
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("kind", list(Kind))
async def test_an_entry_is_read_back_as_it_was_written(store, state, kind):
    revised = await store.change(creation(spec()))
    reason = SkipReason.CATCH_UP if state is State.SKIPPED else None
    next_attempt_at = T + 500 if state is State.PENDING else None
    written = [
        entry(revised, T, state, kind=kind, reason=reason, next_attempt_at=next_attempt_at, **WHOLE),
        entry(
            revised, T + 7, state, kind=kind, next_attempt_at=next_attempt_at, last_fire_time=T + 99, count=4
        ),
        entry(revised, T + 9, state, kind=kind, next_attempt_at=next_attempt_at),
    ]
    await store.commit(written, watermark=None)
    assert await entries(store) == written[::-1]


async def test_an_entry_replaces_a_pending_one_and_no_other(store):
    revised = await store.change(creation(spec()))
    await store.commit([pending(revised, attempts=1)], watermark=None)
    await store.commit([pending(revised, attempts=2, next_attempt_at=T + 900)], watermark=None)
    assert await entries(store) == [pending(revised, attempts=2, next_attempt_at=T + 900)]
    assert await store.next_pending(0) == T + 900
    settled = entry(revised, state=State.REJECTED, attempts=3, last_error="InvalidParameter")
    await store.commit([settled], watermark=None)
    for late in (entry(revised), pending(revised), settled._replace(attempts=9)):
        await store.commit([late], watermark=None)
        assert await entries(store) == [settled]
    assert await store.next_pending(0) is None


async def test_entries_of_one_commit_count_in_order(store):
    revised = await store.change(creation(spec()))
    await store.commit(
        [
            pending(revised, attempts=1),
            pending(revised, attempts=2),
            entry(revised, attempts=3),
            pending(revised),
        ],
        watermark=None,
    )
    assert await entries(store) == [entry(revised, attempts=3)]


@pytest.mark.parametrize("count", [1, 2, 3, 64, 511, 512, 513, 1025])
async def test_a_commit_writes_every_entry(store, count):
    revised = await store.change(creation(spec()))
    made = [pending(revised, T + place, attempts=place) for place in range(count)]
    await store.commit(made, watermark=None)
    assert await entries(store, limit=2000) == made[::-1]


async def test_the_kinds_of_one_instant_are_different_fires(store):
    revised = await store.change(creation(spec()))
    made = [entry(revised, kind=kind) for kind in (Kind.SCHEDULED, Kind.MANUAL, Kind.BACKFILL)]
    await store.commit(made, watermark=None)
    assert await entries(store) == made


async def test_the_watermark_never_goes_back(house, store):
    await store.commit([], watermark=T)
    await store.commit([], watermark=T - 1)
    await store.commit([], watermark=None)
    assert (await house.crash()).watermark == T
    await house.store.commit([], watermark=T + 1)
    await house.store.close(watermark=T)
    assert (await house.open()).watermark == T + 1


async def test_what_sns_says_against_a_schedule_is_kept_until_it_says_otherwise(store):
    a = await store.change(creation(spec("a")))
    b = await store.change(creation(spec("b")))
    await store.commit(
        [], watermark=None, errors=[(a.id, "old"), (b.id, "AuthorizationError: »no«"), (a.id, "new")]
    )
    assert [s.error for s in await store.schedules()] == ["new", "AuthorizationError: »no«"]
    await store.change(edit(b, pause=Pause(since=T)))
    await store.commit([], watermark=None, errors=iter([(a.id, None), (999, "nobody")]))
    assert [s.error for s in await store.schedules()] == [None, "AuthorizationError: »no«"]
    assert (await store.counts()).failing == 1


async def test_settled_slots_are_those_whose_last_one_is_due_after_the_watermark(store):
    a = await store.change(creation(spec("a")))
    b = await store.change(creation(spec("b")))
    skipped = {"state": State.SKIPPED, "reason": SkipReason.CATCH_UP, "attempts": 0}
    await store.commit(
        [
            entry(b, T + 3),
            entry(a, T),
            entry(a, T - 5, due_time=T + 1),  # spread
            entry(a, T - 6, due_time=T),
            pending(a, T + 2),
            entry(a, T - 100, last_fire_time=T - 50, count=3, due_time=T - 49, **skipped),  # due at T + 1
            entry(a, T - 200, last_fire_time=T - 120, count=3, due_time=T - 80, **skipped),  # due at T
            entry(a, T + 4, kind=Kind.MANUAL),
            entry(a, T + 5, last_fire_time=T + 9, count=2, **skipped),
            entry(b, T + 10, last_fire_time=T + 10, count=0, is_open=True, **skipped),
        ],
        watermark=None,
    )
    assert await store.settled_between(T, MAX_UTC_MS) == {
        a.id: [(T - 100, T - 50), (T - 5, T - 5), (T + 2, T + 2), (T + 5, T + 9)],
        b.id: [(T + 3, T + 3)],
    }
    assert await store.settled_between(T + 99, MAX_UTC_MS) == {}


# --- pending ----------------------------------------------------------------------------------------------------


async def test_pending_fires_come_by_next_attempt(store):
    a = await store.change(creation(spec("a")))
    b = await store.change(creation(spec("b")))
    made = [
        pending(a, T, next_attempt_at=T + 300, attempts=2, maybe_published=True, due_time=T + 5),
        pending(a, T + 1, next_attempt_at=T + 100),
        pending(b, T, next_attempt_at=T + 300),
        pending(a, T + 2, next_attempt_at=T + 300),
        pending(a, T, next_attempt_at=T + 300, kind=Kind.MANUAL),
        pending(b, T + 1, next_attempt_at=T + 301),
        entry(b, T + 2),
    ]
    await store.commit(made, watermark=None)
    due = await store.pending_due(T + 300)
    assert [(d.next_attempt_at, d.fire.schedule_id, d.fire.fire_time, d.fire.kind) for d in due] == [
        (T + 100, a.id, T + 1, Kind.SCHEDULED),
        (T + 300, a.id, T, Kind.MANUAL),
        (T + 300, a.id, T, Kind.SCHEDULED),
        (T + 300, a.id, T + 2, Kind.SCHEDULED),
        (T + 300, b.id, T, Kind.SCHEDULED),
    ]
    fire = Fire(a.id, a.revision_id, T, T + 5, Kind.SCHEDULED, attempts=2, maybe_published=True)
    assert due[2] == PendingFire(fire, T + 300)
    assert type(due[2].fire.kind) is Kind
    assert await store.pending_due(T + 99) == []


async def test_pending_fires_come_in_slices(store):
    a = await store.change(creation(spec("a")))
    made = [
        pending(a, T + n // 2, next_attempt_at=T + n % 3, kind=kind)
        for n in range(0, 20, 2)
        for kind in (Kind.MANUAL, Kind.SCHEDULED)
    ]
    await store.commit(made, watermark=None)
    whole = await store.pending_due(T + 1)
    slices, after = [], None
    while found := await store.pending_due(T + 1, after=after, limit=3):
        slices += found
        after = (found[-1].next_attempt_at, *found[-1].fire.key)
    assert slices == whole
    assert len(whole) == sum(one.next_attempt_at <= T + 1 for one in made)


async def test_a_pending_fire_without_a_next_attempt_is_due_when_its_slot_is(store):
    revised = await store.change(creation(spec()))
    await store.commit([entry(revised, T, State.PENDING, due_time=T + 7)], watermark=None)
    assert [found.next_attempt_at for found in await store.pending_due(T + 7)] == [T + 7]


async def test_the_next_pending_attempt_is_the_earliest_after_an_instant(store):
    revised = await store.change(creation(spec()))
    fifo = await store.change(creation(spec("fifo", topic=FIFO)))
    assert await store.next_pending(0) is None
    await store.commit(
        [
            pending(revised, T, next_attempt_at=T + 9),
            pending(revised, T + 1, next_attempt_at=T + 4),
            pending(fifo, next_attempt_at=T + 1),
            entry(revised, T + 2),
        ],
        watermark=None,
    )
    assert [await store.next_pending(after) for after in (0, T + 3, T + 4, T + 9)] == [
        T + 4,
        T + 4,
        T + 9,
        None,
    ]


async def test_fifo_groups_are_apart_and_in_order(store):
    standard = await store.change(creation(spec("standard")))
    b = await store.change(creation(spec("b", topic=FIFO, group="shared")))
    a = await store.change(creation(spec("a", topic=FIFO, group="shared")))
    own = await store.change(creation(spec("own", topic=FIFO)))
    await store.commit(
        [
            pending(standard),
            pending(b, T + 1, next_attempt_at=T),
            pending(b, T),
            pending(a, T, next_attempt_at=T + 900),
            pending(a, T - 5, due_time=T + 3),
            pending(a, T + 2, due_time=T + 3),
            pending(own, T, attempts=4),
            entry(own, T + 1),
        ],
        watermark=None,
    )
    assert sorted(await store.pending_groups()) == [(FIFO, "own"), (FIFO, "shared")]
    shared = await store.group_pending(FIFO, "shared")
    assert [(found.fire.schedule_id, found.fire.fire_time) for found in shared] == [
        (a.id, T),
        (b.id, T),
        (b.id, T + 1),
        (a.id, T - 5),
        (a.id, T + 2),
    ]
    assert await store.group_pending(FIFO, "shared", limit=2) == shared[:2]
    assert await store.group_pending(FIFO, "own") == [
        PendingFire(Fire(own.id, own.revision_id, T, T, attempts=4), T + 200)
    ]
    assert await store.group_pending(FIFO, "none") == []
    assert [found.fire.schedule_id for found in await store.pending_due(T + DAY_MS)] == [standard.id]
    await store.commit([entry(own)], watermark=None)
    assert await store.pending_groups() == [(FIFO, "shared")]


def in_line(revised, fire_time=T, **fields):
    return pending(revised, fire_time, **{"next_attempt_at": fire_time + DAY_MS, "is_in_line": True} | fields)


def keys(found):
    return [(one.fire.schedule_id, one.fire.fire_time) for one in found]


async def test_lines_are_by_topic_and_priority_and_in_the_order_of_due_times(store):
    a = await store.change(creation(spec("a")))
    b = await store.change(creation(spec("b")))
    urgent = await store.change(creation(spec("urgent", priority=9)))
    other = await store.change(creation(spec("other", topic=TOPIC + "-2", priority=0)))
    fifo = await store.change(creation(spec("fifo", topic=FIFO)))
    await store.commit(
        [
            in_line(b, T),
            in_line(a, T + 1),
            in_line(a, T, due_time=T + 5),
            in_line(b, T + 2, attempts=3),
            pending(a, T + 3),
            in_line(urgent, T + 9),
            in_line(other),
            in_line(fifo),
        ],
        watermark=None,
    )
    assert sorted(await store.lines()) == [(TOPIC, 5), (TOPIC, 9), (TOPIC + "-2", 0)]
    whole = await store.in_line(TOPIC, 5)
    assert keys(whole) == [(b.id, T), (a.id, T + 1), (b.id, T + 2), (a.id, T)]
    fire = Fire(b.id, b.revision_id, T + 2, T + 2, attempts=3)
    assert whole[2] == PendingFire(fire, T + 2 + DAY_MS, is_in_line=True)
    after = (whole[0].fire.due_time, *whole[0].fire.key)
    assert await store.in_line(TOPIC, 5, after=after, limit=2) == whole[1:3]
    assert keys(await store.in_line(TOPIC, 9)) == [(urgent.id, T + 9)]
    assert await store.in_line(TOPIC, 4) == []
    assert await store.pending_counts([TOPIC, FIFO, "none"]) == {TOPIC: 5, FIFO: 1, "none": 0}


async def test_the_topics_in_use_are_counted(store):
    a = await store.change(creation(spec("a")))
    b = await store.change(creation(spec("b")))
    fifo = await store.change(creation(spec("fifo", topic=FIFO)))
    gone = await store.change(creation(spec("gone", topic=TOPIC + "-gone")))
    quiet = await store.change(creation(spec("quiet", topic=TOPIC + "-quiet")))
    await store.commit(
        [pending(a, T), in_line(b, T), in_line(b, T + 1), in_line(fifo), pending(gone, T), entry(quiet, T)],
        watermark=None,
        errors=[(a.id, "NotFound: no"), (b.id, None)],
    )
    await store.change(edit(a, new_spec=spec("a", topic=TOPIC + "-quiet"), action="edit"))
    await store.change(edit(gone, is_removal=True))
    found = await store.topics()
    assert found == [
        TopicUse(FIFO, schedules=1, failing=0, pending=1, error=None),
        TopicUse(TOPIC, schedules=1, failing=0, pending=3, error=None),
        TopicUse(TOPIC + "-gone", schedules=0, failing=0, pending=1, error=None),
        TopicUse(TOPIC + "-quiet", schedules=2, failing=1, pending=0, error="NotFound: no"),
    ]
    assert await store.topics(after=TOPIC, limit=1) == found[2:3]
    assert await store.topics(after=TOPIC + "-quiet") == []


async def test_a_fire_leaves_its_line_when_it_is_settled_or_gets_a_time_of_its_own(store):
    revised = await store.change(creation(spec()))
    await store.commit([in_line(revised, T + n) for n in range(4)], watermark=None)
    await store.commit([entry(revised, T), pending(revised, T + 1), in_line(revised, T + 4)], watermark=None)
    assert keys(await store.in_line(TOPIC, 5)) == [(revised.id, T + n) for n in (2, 3, 4)]
    done = await store.change(
        edit(revised, is_removal=True, drop_pending=True, kept=frozenset({(T + 3, Kind.SCHEDULED)}))
    )
    assert done.dropped == ((Kind.SCHEDULED, 3),)
    assert keys(await store.in_line(TOPIC, 5)) == [(revised.id, T + 3)]
    await store.commit([in_line(revised, T + 3)._replace(state=State.EXPIRED)], watermark=None)
    assert await store.lines() == []


async def test_a_fifo_fire_in_line_is_found_at_its_deadline(store):
    fifo = await store.change(creation(spec("fifo", topic=FIFO)))
    await store.commit(
        [in_line(fifo, T, next_attempt_at=T + 9), pending(fifo, T + 1, next_attempt_at=T + 5)], watermark=None
    )
    assert await store.next_pending(0) == T + 9
    assert keys(await store.pending_due(T + 9)) == [(fifo.id, T)]
    assert [found.is_in_line for found in await store.group_pending(FIFO, "fifo")] == [True, False]


async def test_groups_follow_one_another_by_name(store):
    other = FIFO.replace(".fifo", "2.fifo")
    for number, (name, topic) in enumerate((("b", FIFO), ("a", FIFO), ("c", other), ("z~", FIFO))):
        made = await store.change(creation(spec(f"job-{number}", topic=topic, group=name)))
        await store.commit([pending(made)], watermark=None)
    found, after = [], ""
    while (after := await store.next_group(FIFO, after)) is not None:
        found.append(after)
    assert found == ["a", "b", "z~"]
    assert sorted(await store.pending_groups(FIFO)) == [(FIFO, group) for group in found]


async def test_an_entry_without_an_attempt_keeps_what_the_row_says_of_the_last_one(store):
    revised = await store.change(creation(spec()))
    tried = {"released_at": T + 1, "lateness_us": 1_000, "last_error": "NotFound: Topic does not exist"}
    await store.commit([pending(revised, T + n, **tried) for n in range(3)], watermark=None)
    await store.commit(
        [
            entry(revised, T, State.EXPIRED),
            in_line(revised, T + 1),
            entry(revised, T + 2, released_at=T + 8, lateness_us=7),
        ],
        watermark=None,
    )
    assert await entries(store) == [
        entry(revised, T + 2, released_at=T + 8, lateness_us=7),
        in_line(revised, T + 1, **tried),
        entry(revised, T, State.EXPIRED, **tried),
    ]


async def test_a_newer_slot_supersedes_what_is_pending_of_latest_schedules(store):
    revised = await store.change(creation(spec()))
    bystander = await store.change(creation(spec("bystander")))
    fifo = await store.change(creation(spec("fifo", topic=FIFO)))
    older = await store.change(creation(spec("older", catch_up="all")))
    latest = await store.change(edit(older, new_spec=spec("older")))
    await store.commit(
        [
            in_line(revised, T, last_error="NotFound", maybe_published=True),
            pending(revised, T + 1),
            pending(revised, T + 2, due_time=T + 500),
            pending(revised, T + 3, kind=Kind.MANUAL),
            pending(revised, T + 4),
            pending(revised, T + 10),
            pending(bystander, T),
            in_line(fifo, T),
            pending(older, T),
            pending(latest, T + 1),
            entry(bystander, T + 1),
        ],
        watermark=None,
    )
    newer = [Newer(made.id, T + 10, T + 400) for made in (revised, fifo, latest)]
    kept = [FireKey(revised.id, T + 4, Kind.SCHEDULED)]
    told = []
    superseded = await store.commit([pending(fifo, T + 1)], watermark=None, newer=newer, kept=kept, gone=told)
    gone = await entries(store, states=frozenset({State.SKIPPED}))
    assert {(one.schedule_id, one.fire_time) for one in gone} == {
        (revised.id, T),
        (revised.id, T + 1),
        (fifo.id, T),
        (fifo.id, T + 1),
        (latest.id, T + 1),
    }
    assert {one.reason for one in gone} == {SkipReason.SUPERSEDED}
    assert superseded == len(gone) == 5
    assert {one.key: one for one in told} == {one.key: one for one in gone}
    first = next(one for one in gone if one.schedule_id == revised.id and one.fire_time == T)
    assert (first.last_error, first.maybe_published, first.next_attempt_at) == ("NotFound", True, None)
    assert await store.lines() == []
    assert await store.pending_groups() == []
    assert await store.commit([pending(fifo, T + 2)], watermark=None) == 0


async def test_a_pending_fire_stays_in_the_group_of_its_revision(store):
    # Where machines share a store, a schedule cannot go to any other group.
    first, other = near("nightly"), near("nightly", after=near("nightly"))
    made = await store.change(creation(spec()))
    old = await store.change(edit(made, new_spec=spec(topic=FIFO, group=first)))
    new = await store.change(
        edit(old, new_spec=spec(topic=FIFO, group=other), unsettled=(pending(old), pending(old, T + 1)))
    )
    standard = await store.change(edit(new, new_spec=spec(), unsettled=(pending(new, T + 2),)))
    assert sorted(await store.pending_groups()) == sorted([(FIFO, first), (FIFO, other)])
    await store.change(
        edit(standard, is_removal=True, drop_pending=True, kept=frozenset({(T, Kind.SCHEDULED)}))
    )
    assert await store.pending_groups() == [(FIFO, first)]


async def test_after_a_crash_every_pending_fire_may_be_published(store):
    revised = await store.change(creation(spec()))
    await store.commit([pending(revised), entry(revised, T + 1)], watermark=None)
    await store.mark_unclean()
    assert await entries(store) == [entry(revised, T + 1), pending(revised, maybe_published=True)]
    assert [found.fire.maybe_published for found in await store.pending_due(T + DAY_MS)] == [True]


async def test_after_a_crash_of_the_machine_that_drove_it_every_pending_fire_of_a_shard_may_be_published(
    store,
):
    ids = [(await store.change(creation(spec(f"job-{number}")))) for number in range(3)]
    await store.commit([pending(revised) for revised in ids], watermark=None)
    await store.mark_unclean(ids[1].id % SHARDS)
    doubted = {
        found.fire.schedule_id: found.fire.maybe_published for found in await store.pending_due(T + DAY_MS)
    }
    assert doubted == {ids[0].id: False, ids[1].id: True, ids[2].id: False}


# --- manual fires -----------------------------------------------------------------------------------------------


def manual(revised, at):
    return pending(revised, at, kind=Kind.MANUAL, attempts=0, next_attempt_at=at)


async def test_a_manual_fire_is_pending_at_once(store):
    revised = await store.change(creation(spec()))
    await store.add_manual(manual(revised, T + 5), by="uid 1000", fire_id="x", idempotency_key=None)
    assert [found.fire.fire_time for found in await store.pending_due(T + 5)] == [T + 5]
    assert await store.fire_times(revised.id, Kind.MANUAL, T + 5, T + DAY_MS) == {T + 5}


async def test_fire_times_are_those_of_a_schedule_and_a_kind_between_two_instants(store):
    revised = await store.change(creation(spec()))
    other = await store.change(creation(spec("other")))
    for time in (T, T + 1, T + 2):
        await store.add_manual(manual(revised, time), by="uid 1000", fire_id="x", idempotency_key=None)
    await store.add_manual(manual(other, T + 3), by="uid 1000", fire_id="x", idempotency_key=None)
    await store.commit([entry(revised, T + 4), entry(revised, T + 2, kind=Kind.MANUAL)], watermark=None)
    assert await store.fire_times(revised.id, Kind.MANUAL, T + 1, T + DAY_MS) == {T + 1, T + 2}
    assert await store.fire_times(revised.id, Kind.MANUAL, T, T + 1) == {T, T + 1}
    assert await store.fire_times(revised.id, Kind.MANUAL, T + 3, T + DAY_MS) == set()
    assert await store.fire_times(revised.id, Kind.SCHEDULED, T, T + DAY_MS) == {T + 4}


async def test_a_manual_fire_never_takes_the_place_of_another(store):
    revised = await store.change(creation(spec()))
    await store.add_manual(manual(revised, T), by="uid 1000", fire_id="first", idempotency_key="key")
    with pytest.raises(Conflict):
        await store.add_manual(manual(revised, T), by="uid 1000", fire_id="second", idempotency_key="other")
    with pytest.raises(Conflict):
        await store.add_manual(manual(revised, T + 1), by="uid 1000", fire_id="second", idempotency_key="key")
    assert len(await entries(store)) == 1
    assert await store.remembered_run("other") is None


async def test_a_run_is_remembered_by_its_key_for_a_day(house, store):
    revised = await store.change(creation(spec()))
    assert await store.remembered_run("key") is None
    await store.add_manual(manual(revised, T), by="uid 1000", fire_id="nightly@x", idempotency_key="key")
    await house.crash()
    store = house.store
    await store.add_manual(manual(revised, T + DAY_MS - 1), by="uid 1000", fire_id="y", idempotency_key=None)
    assert await store.remembered_run("key") == "nightly@x"
    await store.add_manual(manual(revised, T + DAY_MS), by="uid 1000", fire_id="z", idempotency_key="key")
    assert await store.remembered_run("key") == "z"


async def test_an_answer_is_remembered_by_its_key_for_a_day(house, store):
    await store.remember_run("key", "first", at=T)
    await house.crash()
    store = house.store
    await store.remember_run("other", "x", at=T + DAY_MS - 1)
    assert await store.remembered_run("key") == "first"
    await store.remember_run("third", "y", at=T + DAY_MS)
    assert await store.remembered_run("key") is None
    await store.remember_run("third", "z", at=T + DAY_MS)
    assert (await store.remembered_run("other"), await store.remembered_run("third")) == ("x", "z")


# --- backfill and retry -----------------------------------------------------------------------------------------


def order(revised, fires=1):
    return Order(revised.id, revised.revision_id, fires, "first", "last")


def backfill(revised, fire_time):
    return pending(revised, fire_time, kind=Kind.BACKFILL, attempts=0, due_time=T, next_attempt_at=T)


async def test_backfill_fires_are_pending_at_once_and_never_take_the_place_of_another(store):
    revised = await store.change(creation(spec()))
    rows = [backfill(revised, T - number * MINUTE) for number in range(1000)]
    await store.add_backfill(rows, at=T, by="uid 1000", order=order(revised, 1000))
    with pytest.raises(Conflict):
        await store.add_backfill(
            [backfill(revised, T + 1), rows[500]], at=T + 1, by="uid 1000", order=order(revised, 2)
        )
    found = await store.pending_due(T)
    assert [p.fire.fire_time for p in found] == [row.fire_time for row in reversed(rows)]
    assert {p.fire.due_time for p in found} == {T}


async def test_a_retried_row_is_pending_again_in_its_place_with_all_that_is_known_of_it(house, store):
    revised = await store.change(creation(spec()))
    known = {"attempts": 3, "maybe_published": True, "last_error": "no"}
    old = [entry(revised, T + n, State.REJECTED, **known) for n in range(1000)]
    await store.commit([*old, entry(revised, T - 1)], watermark=T + 1000)
    new = [
        row._replace(state=State.PENDING, next_attempt_at=T + MINUTE, asked_at=T + MINUTE) for row in old[1:]
    ]
    await store.retry(
        [Reopened(*pair) for pair in zip(old[1:], [(row,) for row in new], strict=True)],
        at=T + MINUTE,
        by="uid 1000",
        orders=[order(revised, 999)],
    )
    await house.crash()
    assert await entries(house.store, limit=2000) == [*reversed(new), old[0], entry(revised, T - 1)]
    fire = Fire(
        revised.id, revised.revision_id, T + 1, T + 1, attempts=3, maybe_published=True, asked_at=T + MINUTE
    )
    assert (await house.store.pending_due(T + MINUTE))[0] == PendingFire(fire, T + MINUTE)
    assert await house.store.pending_due(T + MINUTE - 1) == []


async def test_when_it_was_asked_for_stays_with_a_fire_to_its_end(store):
    revised = await store.change(creation(spec()))
    for state in (State.PENDING, State.PUBLISHED):
        row = entry(revised, T, state, asked_at=T + 5, next_attempt_at=T + 5)
        await store.commit([row], watermark=None)
        [kept] = await entries(store)
        assert kept.asked_at == T + 5


async def test_a_slot_is_taken_out_of_a_range_with_what_is_left_of_it(store):
    revised = await store.change(creation(spec()))
    skipped = {"reason": SkipReason.CATCH_UP, "attempts": 0}
    whole = entry(revised, T, State.SKIPPED, last_fire_time=T + 4, count=5, **skipped)
    await store.commit([whole], watermark=T + 10)
    left = whole._replace(last_fire_time=T + 1, count=2)
    middle = pending(revised, T + 2, attempts=0, asked_at=T + MINUTE)
    right = whole._replace(fire_time=T + 3, due_time=T + 3, count=2)
    await store.retry(
        [Reopened(whole, (left, middle, right))], at=T + MINUTE, by="uid 1000", orders=[order(revised)]
    )
    assert await entries(store) == [right, middle, left]
    assert (await store.counts()).journal == {State.SKIPPED: 4, State.PENDING: 1}


async def test_a_retried_fire_of_a_fifo_topic_stands_in_its_revisions_group(store):
    revised = await store.change(creation(spec(topic=FIFO, group="g")))
    old = entry(revised, T, State.EXPIRED)
    await store.commit([old], watermark=T)
    assert await store.pending_groups() == []
    new = old._replace(state=State.PENDING, next_attempt_at=T, asked_at=T)
    await store.retry([Reopened(old, (new,))], at=T, by="uid 1000", orders=[order(revised)])
    assert [p.fire.fire_time for p in await store.group_pending(FIFO, "g")] == [T]
    assert await store.pending_groups() == [(FIFO, "g")]


async def test_a_retry_of_rows_that_have_changed_meanwhile_changes_nothing(store):
    revised = await store.change(creation(spec()))
    rows = [entry(revised, T + n, State.REJECTED) for n in range(3)]
    await store.commit(rows, watermark=T + 3)

    async def retry(*old):
        again = [
            Reopened(row, (row._replace(state=State.PENDING, next_attempt_at=T, asked_at=T),)) for row in old
        ]
        await store.retry(again, at=T, by="uid 1000", orders=[order(revised)])

    await retry(rows[1])
    before = await entries(store)
    for stranger in (rows[1], rows[0]._replace(count=2), rows[0]._replace(fire_time=T + 9)):
        with pytest.raises(Conflict):
            await retry(rows[2], stranger)
    assert await entries(store) == before


async def test_rows_are_found_by_their_keys(store):
    revised = await store.change(creation(spec()))
    other = await store.change(creation(spec("other")))
    rows = [entry(revised, T + n) for n in range(1500)]
    manual_row = entry(other, T, kind=Kind.MANUAL)
    await store.commit([*rows, manual_row], watermark=None)
    keys = [row.key for row in rows[::2]]
    found = await store.rows(
        [*keys, manual_row.key, FireKey(other.id, T, Kind.SCHEDULED), FireKey(9, T, Kind.MANUAL)]
    )
    assert sorted(row.entry.key for row in found) == sorted([*keys, manual_row.key])
    assert {row.name for row in found if row.entry.kind is Kind.MANUAL} == {"other"}
    assert await store.rows([]) == []


async def test_who_bears_or_bore_a_name_is_known(store):
    first = await store.change(creation(spec("a")))
    moved = await store.change(edit(first, new_spec=spec("b")))
    second = await store.change(creation(spec("a")))
    await store.change(edit(second, action="rm", is_removal=True))
    third = await store.change(creation(spec("a")))
    assert await store.bearers("a") == [third.id, second.id, first.id]
    assert await store.bearers("b") == [moved.id]
    assert await store.bearers("c") == []


# --- listings ---------------------------------------------------------------------------------------------------


async def test_history_comes_newest_first_in_pages(store):
    a = await store.change(creation(spec("a")))
    b = await store.change(creation(spec("b")))
    made = [entry(whose, T + n, kind=kind) for n in range(3) for whose in (a, b) for kind in Kind]
    await store.commit(made, watermark=None)
    whole = await store.history(JournalFilter())
    assert [(row.entry.fire_time, row.entry.schedule_id, str(row.entry.kind)) for row in whole] == sorted(
        ((one.fire_time, one.schedule_id, str(one.kind)) for one in made), reverse=True
    )
    for name, size in ((None, 5), ("a", 2)):
        pages, before = [], None
        while page := await store.history(JournalFilter(schedule=name, before=before, limit=size)):
            assert len(page) <= size
            pages += page
            last = page[-1].entry
            before = (last.fire_time, last.schedule_id, str(last.kind))
        assert pages == [row for row in whole if name in (None, row.name)]


@pytest.mark.parametrize(
    "narrowed",
    [{}, {"since": T}, {"until": T}, {"states": frozenset({State.EXPIRED})}, {"since": T, "limit": 3}],
    ids=["all", "since", "until", "state", "limit"],
)
async def test_history_of_a_name_that_nobody_had_is_empty(store, narrowed):
    await store.commit([entry(await store.change(creation(spec("a"))), T)], watermark=None)
    assert await store.history(JournalFilter(schedule="b", **narrowed)) == []


async def test_history_can_be_narrowed(store):
    a = await store.change(creation(spec("a")))
    b = await store.change(creation(spec("b")))
    skipped = [entry(a, T + n, State.SKIPPED, reason=reason) for n, reason in enumerate(SkipReason, start=10)]
    made = [entry(a, T), entry(b, T + 1), pending(b, T + 2), entry(b, T + 3, State.REJECTED)]
    await store.commit([*made, *skipped], watermark=None)
    assert await entries(store, schedule="b") == made[:0:-1]
    assert await entries(store, states=frozenset({State.PUBLISHED})) == made[1::-1]
    assert await entries(store, states=frozenset({State.REJECTED, State.PENDING})) == made[:1:-1]
    assert await entries(store, states=frozenset({State.REJECTED, State.PUBLISHED})) == [
        made[3],
        *made[1::-1],
    ]
    assert await entries(store, reasons=frozenset({SkipReason.DROPPED})) == [skipped[3]]
    assert await entries(store, since=T + 1, until=T + 3) == [made[2], made[1]]
    assert (
        await entries(store, schedule="a", states=frozenset({State.SKIPPED}), until=T + 12) == skipped[1::-1]
    )
    assert await entries(store, schedule="nobody") == []


async def test_history_has_the_rows_that_reach_into_the_time_asked_for(store):
    a = await store.change(creation(spec("a")))
    b = await store.change(creation(spec("b")))
    skipped = {"state": State.SKIPPED, "attempts": 0}
    missed = {"reason": SkipReason.CATCH_UP, **skipped}
    paused = {"reason": SkipReason.PAUSED, "is_open": True, "count": 0, **skipped}
    before = entry(b, T - 9 * MINUTE, last_fire_time=T - 1, count=3, **missed)
    across = entry(a, T - 8 * MINUTE, last_fire_time=T, count=9, **missed)
    opened = entry(b, T - 7 * MINUTE, last_fire_time=T - 7 * MINUTE, **paused)
    plain = [entry(a, T - 6 * MINUTE), entry(a, T), entry(a, T + MINUTE)]
    inside = entry(a, T + 2 * MINUTE, last_fire_time=T + 3 * MINUTE, count=2, **missed)
    after = entry(a, T + 5 * MINUTE, **paused)
    await store.commit([before, across, opened, *plain, inside, after], watermark=None)
    window = {"since": T, "until": T + 5 * MINUTE}
    assert await entries(store, **window) == [inside, plain[2], plain[1], opened, across]
    assert await entries(store, since=T) == [after, inside, plain[2], plain[1], opened, across]
    assert await entries(store, **window, schedule="a") == [inside, plain[2], plain[1], across]
    assert await entries(store, **window, schedule="b") == [opened]
    assert await entries(store, **window, reasons=frozenset({SkipReason.PAUSED})) == [opened]
    assert await entries(store, **window, states=frozenset({State.PUBLISHED})) == [plain[2], plain[1]]
    both = frozenset({State.PUBLISHED, State.SKIPPED})
    assert await entries(store, **window, states=both, limit=4) == [inside, plain[2], plain[1], opened]
    for size in (1, 2, 3, 4):
        pages, last = [], None
        while page := await entries(store, **window, before=last, limit=size):
            pages += page
            last = (page[-1].fire_time, page[-1].schedule_id, str(page[-1].kind))
        assert pages == [inside, plain[2], plain[1], opened, across]


async def test_a_reason_that_no_state_asked_for_can_have_lists_nothing(store):
    a = await store.change(creation(spec("a")))
    await store.commit([entry(a), entry(a, T + 1, State.SKIPPED, reason=SkipReason.DROPPED)], watermark=None)
    dropped = frozenset({SkipReason.DROPPED})
    assert await entries(store, states=frozenset({State.PUBLISHED, State.PENDING}), reasons=dropped) == []
    assert len(await entries(store, states=frozenset(State), reasons=dropped)) == 1


async def test_history_answers_to_every_name_a_schedule_had(store):
    first = await store.change(creation(spec("first")))
    await store.commit([entry(first, T)], watermark=None)
    second = await store.change(edit(first, new_spec=spec("second")))
    await store.commit([entry(second, T + 1)], watermark=None)
    third = await store.change(edit(second, new_spec=spec("first", note="back")))
    await store.change(edit(third, is_removal=True))
    heir = await store.change(creation(spec("second")))
    await store.commit([entry(heir, T + 2)], watermark=None)
    rows = await store.history(JournalFilter(schedule="second"))
    assert [(row.name, row.entry) for row in rows] == [
        ("second", entry(heir, T + 2)),
        ("second", entry(second, T + 1)),
        ("first", entry(first, T)),
    ]
    assert await entries(store, schedule="first") == [entry(second, T + 1), entry(first, T)]
    assert await entries(store, schedule="second", limit=2) == [entry(heir, T + 2), entry(second, T + 1)]


async def test_the_rows_that_cover_a_fire_time_are_its_own_and_the_range_around_it(store):
    made, other = await store.change(creation(spec())), await store.change(creation(spec("other")))
    skipped = {"reason": SkipReason.CATCH_UP, "attempts": 0}
    ranged = entry(made, T + MINUTE, State.SKIPPED, last_fire_time=T + 4 * MINUTE, count=4, **skipped)
    opened = entry(
        made, T + 7 * MINUTE, State.SKIPPED, is_open=True, count=0, reason=SkipReason.PAUSED, attempts=0
    )
    rows = [
        entry(made, T),
        ranged,
        entry(made, T + 2 * MINUTE, kind=Kind.MANUAL),
        entry(made, T + 5 * MINUTE),
        opened,
        entry(other, T + 3 * MINUTE),
    ]
    await store.commit(rows, watermark=None)

    async def covering(minutes):
        found = await store.covering(made.id, T + minutes * MINUTE)
        assert {row.name for row in found} <= {"nightly"}
        return [(row.entry.fire_time - T) // MINUTE for row in found]

    assert [await covering(minutes) for minutes in (-1, 0, 0.5, 1, 3, 4)] == [[], [0], [], [1], [1], [1]]
    assert [await covering(minutes) for minutes in (4.5, 5, 6, 7, 8)] == [[], [5], [], [7], [7]]
    both = await store.covering(made.id, T + 2 * MINUTE)
    assert [row.entry.kind for row in both] == [Kind.SCHEDULED, Kind.MANUAL]
    assert both[0].entry == ranged
    assert await store.covering(999, T) == []


async def test_a_removed_schedule_and_an_old_revision_still_have_their_rows(store):
    made = await store.change(creation(spec()))
    await store.commit([entry(made)], watermark=None)
    renamed = await store.change(edit(made, new_spec=spec("daily")))
    await store.change(edit(renamed, is_removal=True))
    assert [(row.name, row.entry.revision_id) for row in await store.covering(made.id, T)] == [
        ("nightly", made.revision_id)
    ]


async def test_labels_are_what_a_list_shows_of_a_revision(store):
    first = await store.change(creation(spec("a", tz="Europe/London", message="x" * 9_000, late_after="90s")))
    fifo = spec("b", topic=f"{TOPIC}.fifo", group=near("a", f"{TOPIC}.fifo"))
    second = await store.change(edit(first, new_spec=fifo))
    await store.change(edit(second, is_removal=True))
    assert await store.labels([second.revision_id, first.revision_id, 99, first.revision_id]) == {
        first.revision_id: Label("a", TOPIC, "Europe/London", 90_000),
        second.revision_id: Label("b", f"{TOPIC}.fifo", "UTC"),
    }
    assert await store.labels([]) == {}


async def test_counts_say_how_much_there_is(store):
    empty = await store.counts()
    assert await store.counts(with_final=False) == empty
    assert (empty.schedules, empty.paused, empty.failing, empty.oldest_pending_due) == (0, 0, 0, None)
    assert empty.journal == {}
    a = await store.change(creation(spec("a")))
    b = await store.change(creation(spec("b")))
    removed = await store.change(creation(spec("c"), pause=Pause(since=T)))
    await store.commit([pending(removed, T + 8)], watermark=None, errors=[(b.id, "x"), (removed.id, "x")])
    await store.change(edit(removed, pause=Pause(since=T), is_removal=True))
    await store.change(edit(a, pause=Pause(since=T)))
    skipped = entry(a, T, State.SKIPPED, last_fire_time=T + 5, count=3, reason=SkipReason.CATCH_UP)
    await store.commit(
        [skipped, entry(b), entry(b, T + 1), pending(b, T + 2, due_time=T + 9, next_attempt_at=T + 3)],
        watermark=None,
    )
    counts = await store.counts()
    assert (counts.schedules, counts.paused, counts.failing) == (2, 1, 1)
    assert counts.journal == {State.SKIPPED: 3, State.PUBLISHED: 2, State.PENDING: 2}
    assert counts.oldest_pending_due == T + 8
    assert await store.counts(with_final=False) == replace(counts, journal={State.PENDING: 2})
    assert [s.pending for s in await store.schedules()] == [0, 1]


# --- pruning ----------------------------------------------------------------------------------------------------


async def test_old_entries_are_pruned_and_their_slots_count_as_settled(house, store):
    a, b = await store.change(creation(spec("a"))), await store.change(creation(spec("b")))
    kept = [entry(b, T + 1), entry(a, T + 2)]
    await store.commit([entry(a, T - 1), entry(b, T - 1), entry(a, T), *kept], watermark=T + MINUTE)
    assert await store.prune(T) == Pruned(3, T, (T, a.id, "scheduled"), is_end=True)
    assert await entries(store) == kept[::-1]
    assert await store.prune(T) == Pruned(0, T, None, is_end=True)
    assert (await house.crash()).pruned_through == T


async def test_pruning_goes_on_where_the_step_before_ended(store):
    made = [await store.change(creation(spec(name))) for name in "ab"]
    rows = [entry(one, T + n, kind=kind) for n in range(4) for one in made for kind in Kind]
    await store.commit(rows, watermark=T + 3)
    after, left = None, len(rows)
    while left:
        step = await store.prune(T + 3, after=after, limit=5)
        assert step.rows == min(5, left)
        left -= step.rows
        found = await entries(store)
        assert len(found) == left
        assert all((one.fire_time, one.schedule_id, str(one.kind)) > step.after for one in found)
        after = step.after
    assert await store.prune(T + 3, after=after, limit=5) == Pruned(0, T + 3, after, is_end=True)


async def test_only_what_is_over_by_the_bound_is_pruned(store):
    made = await store.change(creation(spec()))
    skipped = {"state": State.SKIPPED, "reason": SkipReason.CATCH_UP, "attempts": 0}
    gone = [
        entry(made, T - 5, due_time=T),
        entry(made, T - 20, last_fire_time=T - 10, due_time=T - 10, count=2, **skipped),  # due at T
        entry(made, T - 4, kind=Kind.MANUAL, released_at=T, published_at=T + 9),
        entry(made, T - 3, State.REJECTED),
    ]
    kept = [
        entry(made, T - 2, due_time=T + 1),  # spread
        entry(made, T - 40, last_fire_time=T - 30, due_time=T - 29, count=2, **skipped),  # due at T - 19
        entry(made, T - 60, last_fire_time=T - 60, is_open=True, count=0, **skipped),
        entry(made, T - 70, last_fire_time=T + 1, count=2, **skipped),
        pending(made, T - 50),
        entry(made, T - 99 * DAY_MS, kind=Kind.BACKFILL, due_time=T + 1),
        entry(made, T - 98 * DAY_MS, released_at=T + 1),  # retried
        entry(made, T + 1),
    ]
    gone.append(kept.pop(1))
    await store.commit([*gone, *kept], watermark=T + MINUTE)
    step = await store.prune(T)
    assert (step.rows, step.through) == (len(gone), T)
    assert await entries(store) == sorted(kept, key=lambda one: one.fire_time, reverse=True)
    assert (await store.prune(T + 1)).rows == 5
    assert {one.state for one in await entries(store)} == {State.SKIPPED, State.PENDING}


async def test_nothing_after_the_watermark_is_pruned(store):
    made = await store.change(creation(spec()))
    await store.commit([entry(made, T), entry(made, T + MINUTE)], watermark=None)
    assert await store.prune(T + DAY_MS) == Pruned(0, None, None, is_end=True)
    await store.commit([], watermark=T)
    assert await store.prune(T + DAY_MS) == Pruned(1, T, (T, made.id, "scheduled"), is_end=True)
    assert await entries(store) == [entry(made, T + MINUTE)]


async def test_pruned_through_never_goes_back(store):
    made = await store.change(creation(spec()))
    await store.commit([entry(made, T)], watermark=T)
    assert (await store.prune(T)).through == T
    await store.commit([entry(made, T - DAY_MS)], watermark=T)
    assert (await store.prune(T - 1))[:2] == (1, T)


async def test_pruning_gives_back_space(store):
    made = await store.change(creation(spec()))
    before = await store.size_bytes()
    await store.commit([entry(made, T + n) for n in range(2_000)], watermark=T + 2_000)
    full = await store.size_bytes()
    assert full > before + 100_000
    assert (await store.prune(T + 2_000, limit=2_000)).rows == 2_000
    assert await store.size_bytes() < before + 50_000


# --- next fires under a version of tzdata ------------------------------------------------------------------------


# --- the audit log ----------------------------------------------------------------------------------------------


async def changes(store, **wanted):
    """Return what the audit log has, read in pages of two."""
    rows, before = [], None
    while True:
        page = await store.audit(AuditFilter(before=before, limit=2, **wanted))
        rows += page.rows
        if page.next is None:
            return rows
        before = page.next


async def deeds(store, **wanted):
    return [
        (row.at - T, row.by, row.action, row.name, row.revision) for row in await changes(store, **wanted)
    ]


async def test_every_change_is_on_record_with_what_was_before_and_after(house, store):
    made = await store.change(creation(spec(), at=T))
    changed = await store.change(edit(made, at=T + 1, new_spec=spec(note="x")))
    moved = await store.change(edit(changed, at=T + 2, action="mv", new_spec=spec("weekly", note="x")))
    await store.change(edit(moved, at=T + 3, action="rm", is_removal=True, drop_pending=True))
    await house.crash()
    rm, mv, set_, add = await changes(house.store)
    assert add == AuditRow(at=T, by="uid 1000", action="add", name="nightly", revision=1, after=spec())
    assert (set_.before, set_.after, set_.revision) == (spec(), spec(note="x"), 2)
    assert (mv.action, mv.name, mv.before, mv.after) == (
        "mv", "weekly", spec(note="x"), spec("weekly", note="x")
    )  # fmt: skip
    assert (rm.action, rm.name, rm.revision, rm.before, rm.after) == (
        "rm", "weekly", 3, spec("weekly", note="x"), None
    )  # fmt: skip
    assert (rm.detail, mv.detail, set_.detail) == ({"drop_pending": True}, {}, {})


async def test_a_pause_is_on_record_with_the_one_before(store):
    made = await store.change(creation(spec()))
    first = Pause(since=T + 1, until=T + MINUTE, note="a", by="uid 1000")
    second = Pause(since=T + 1, note="b", by="uid 1000")
    await store.change(edit(made, at=T + 1, action="pause", pause=first))
    await store.change(edit(made, at=T + 2, action="pause", pause=second))
    kept = replace(second, since=T + 3)
    changed = await store.change(edit(made, at=T + 3, new_spec=spec(note="x"), pause=kept))
    both = await store.change(edit(changed, at=T + 4, new_spec=spec(note="y")))
    await store.change(edit(both, at=T + 5, action="resume"))
    resume, set_both, set_, again, pause, _ = await changes(store)
    was = {"since": T + 1, "until": T + MINUTE, "note": "a"}
    assert pause.detail == {**was, "was": None}
    assert again.detail == {"since": T + 1, "note": "b", "was": was}
    assert set_.detail == {}  # the pause goes on
    assert set_both.detail == {"was": {"since": T + 3, "note": "b"}}
    assert resume.detail == {"was": None}
    assert [row.before for row in (pause, again, resume)] == [None] * 3


async def test_fires_that_somebody_asks_for_are_on_record(store):
    made = await store.change(creation(spec()))
    manual = pending(made, T + 1, kind=Kind.MANUAL)
    await store.add_manual(manual, by="uid 1001", fire_id="nightly@x", idempotency_key=None)
    old = entry(made, T, State.REJECTED)
    await store.commit([old], watermark=None)
    new = old._replace(state=State.PENDING, asked_at=T + 2)
    order = Order(made.id, made.revision_id, 1, "nightly@y", "nightly@y")
    await store.retry([Reopened(old, (new,))], at=T + 2, by="uid 1001", orders=[order])
    for number, (first, last) in enumerate((("a", "b"), ("c", "d"))):
        rows = [pending(made, T + 2 * number + slot, kind=Kind.BACKFILL) for slot in (0, 1)]
        order = Order(made.id, made.revision_id, 2, first, last)
        await store.add_backfill(rows, at=T + 3, by="uid 1001", order=order)
    rows = await changes(store, actions=frozenset({"run", "retry", "backfill"}))
    assert [(row.at - T, row.action, row.revision, row.detail) for row in rows] == [
        (3, "backfill", 1, {"fires": 4, "first": "a", "last": "d"}),  # in slices, and yet one command
        (2, "retry", 1, {"fires": 1, "first": "nightly@y", "last": "nightly@y"}),
        (1, "run", 1, {"fire_id": "nightly@x"}),
    ]


async def test_what_an_apply_does_is_on_record_with_its_owner(store):
    await store.change(creation(spec("same"), owner="web"))
    gone = await store.change(creation(spec("gone"), owner="ops"))
    await store.change(creation(spec("changed")))
    await store.change(creation(spec("mine"), owner="ops"))
    await store.stage_begin()
    new = [spec("same"), spec("mine"), spec("changed", note="x"), spec("new")]
    await store.stage([staged(one) for one in new])
    await store.flip(at=T + 1, by="uid 7", owner="ops", unsettled=[], removed=[gone.id])
    await store.own(["mine", "changed"], owner="other", at=T + 2, by="uid 8")
    rows = await changes(store, since=T + 1)
    told = {(row.at - T, row.by, row.action, row.name, row.revision): row for row in rows}
    assert {key: row.detail for key, row in told.items()} == {
        (2, "uid 8", "apply", "changed", 2): {"owner": "other", "owner_was": "ops"},
        (2, "uid 8", "apply", "mine", 1): {"owner": "other", "owner_was": "ops"},
        (1, "uid 7", "apply", "gone", 1): {"owner": "ops"},
        (1, "uid 7", "apply", "same", 1): {"owner": "ops", "owner_was": "web"},
        (1, "uid 7", "apply", "changed", 2): {"owner": "ops", "owner_was": None},
        (1, "uid 7", "apply", "new", 1): {"owner": "ops"},
    }
    assert {key[3]: (row.before, row.after) for key, row in told.items() if key[0] == 1} == {
        "gone": (spec("gone"), None),
        "same": (None, None),
        "changed": (spec("changed"), spec("changed", note="x")),
        "new": (None, spec("new")),
    }


async def test_one_schedule_that_an_apply_makes_or_removes_names_its_owner(store):
    made = await store.change(replace(creation(spec(), owner="ops"), action="apply"))
    await store.change(edit(made, action="apply", owner="ops", is_removal=True))
    gone, new = await changes(store)
    assert (gone.action, gone.before, gone.after, gone.detail) == ("apply", spec(), None, {"owner": "ops"})
    assert (new.action, new.before, new.after, new.detail) == ("apply", None, spec(), {"owner": "ops"})


async def test_the_audit_log_can_be_narrowed(store):
    made = await store.change(replace(creation(spec()), by="uid 10 (anna)"))
    pause = Pause(since=T, by="x")
    await store.change(replace(edit(made, at=T + 1, action="pause", pause=pause), by="uid 100 (ann)"))
    await store.change(replace(edit(made, at=T + 2, action="resume"), by="cronally"))
    await store.change(replace(creation(spec("other"), at=T + 2), by="uid 100"))
    every = [
        (2, "cronally", "resume", "nightly", 1),
        (2, "uid 100", "add", "other", 1),
        (1, "uid 100 (ann)", "pause", "nightly", 1),
        (0, "uid 10 (anna)", "add", "nightly", 1),
    ]
    assert await deeds(store) == every
    assert await deeds(store, since=T + 1) == every[:3]
    assert await deeds(store, until=T + 1) == every[3:]
    assert await deeds(store, since=T + 1, until=T + 2) == every[2:3]
    assert await deeds(store, actions=frozenset({"add", "rm"})) == [every[1], every[3]]
    for who, found in {
        "anna": every[3:], "10": every[3:], "uid 10": every[3:], "uid 10 (anna)": every[3:],
        "100": every[1:3], "uid 100": every[1:3], "ann": every[2:3], "cronally": every[:1],
        "nobody": [], "uid": [], "%": [], "1": [],
    }.items():  # fmt: skip
        assert await deeds(store, by=who) == found, who
    assert await deeds(store, by="ann", actions=frozenset({"add"})) == []


async def test_the_audit_log_answers_to_every_name_a_schedule_had(store):
    made = await store.change(creation(spec("old")))
    moved = await store.change(edit(made, at=T + 1, action="mv", new_spec=spec("new")))
    await store.change(edit(moved, at=T + 2, action="rm", is_removal=True))
    await store.change(creation(spec("new"), at=T + 3))
    await store.change(creation(spec("other"), at=T + 4))
    assert [at for at, *_ in await deeds(store, schedule="old")] == [2, 1, 0]
    assert [at for at, *_ in await deeds(store, schedule="new")] == [3, 2, 1, 0]
    assert await deeds(store, schedule="none") == []


async def test_a_name_that_many_schedules_had_has_all_of_their_changes(store):
    for number in range(120):
        made = await store.change(creation(spec(), at=T + 2 * number))
        await store.change(edit(made, at=T + 2 * number + 1, action="rm", is_removal=True))
    assert [at for at, *_ in await deeds(store, schedule="nightly")] == [*range(239, -1, -1)]


async def test_a_revision_that_was_made_before_its_predecessor_is_still_compared_with_it(store):
    """The clock was set back in between."""
    made = await store.change(creation(spec(), at=T + MINUTE))
    await store.change(edit(made, at=T, new_spec=spec(note="x")))
    add, set_ = await changes(store)
    assert (set_.action, set_.before, set_.after) == ("set", spec(), spec(note="x"))
    assert add.before is None


async def test_zones_are_kept_by_name_and_version(house, store):
    london = ZoneRecord("Europe/London", "2026a", (-(1 << 60), T // 1000), (0, 3600))
    tokyo = ZoneRecord("Asia/Tokyo", "2026a", (-(1 << 60),), (32_400,))
    assert await store.zone_records([london.name]) == {}
    await store.keep_zone_records([london, tokyo])
    assert await store.zone_records([london.name, "unknown"]) == {london.name: london}
    later = london._replace(tzdata="2026b", offsets=(0, 7200))
    await store.keep_zone_records([later])
    await house.crash()
    assert await house.store.zone_records([tokyo.name, london.name]) == {
        london.name: later,
        tokyo.name: tokyo,
    }


async def test_zones_of_another_version_are_forgotten(store):
    rows = [
        ZoneRecord(f"Z/{number}", f"2026{letter}", (0,), (number,)) for number, letter in enumerate("aba")
    ]
    await store.keep_zone_records(rows)
    await store.forget_zone_records(but="2026a")
    assert await store.zone_records([row.name for row in rows]) == {row.name: row for row in rows[::2]}


# --- apply ------------------------------------------------------------------------------------------------------


def staged(of):
    slot = of.recurrence().at_ms
    return StagedRow(of.name, canonical_document(of), None if slot is None else slot + of.offset_ms())


async def test_staged_lines_are_compared_with_what_there_is(store):
    same = await store.change(creation(spec("same")))
    old = await store.change(creation(spec("changed")))
    gone = await store.change(creation(spec("gone")))
    await store.change(edit(gone, is_removal=True))
    await store.stage_begin()
    await store.stage([staged(spec("same")), staged(spec("new"))])
    await store.stage([staged(spec("changed", note="x")), staged(spec("gone"))])
    assert await store.staged_changes() == [
        StagedChange("changed", old.id, old.revision_id, canonical_document(spec("changed", note="x"))),
        StagedChange("gone", None, None, canonical_document(spec("gone"))),
        StagedChange("new", None, None, canonical_document(spec("new"))),
    ]
    assert (await store.schedule("same")).revision_id == same.revision_id
    await store.unstage(["new", "nobody"])
    assert [change.name for change in await store.staged_changes()] == ["changed", "gone"]
    await store.stage_begin()
    assert await store.staged_changes() == []


async def test_a_staged_line_of_the_same_length_is_a_change(store):
    old = await store.change(creation(spec(note="old")))
    await store.stage_begin()
    await store.stage([staged(spec(note="new"))])
    assert [change.id for change in await store.staged_changes()] == [old.id]
    [row] = await store.flip(at=T, by="uid 1000", owner="default", unsettled=[])
    assert row.rule == rule_document(canonical_document(spec()))


async def test_a_name_cannot_be_staged_twice(store):
    await store.stage_begin()
    await store.stage([staged(spec("a"))])
    with pytest.raises(Conflict):
        await store.stage([staged(spec("b")), staged(spec("a"))])
    with pytest.raises(Conflict):
        await store.stage([staged(spec("c")), staged(spec("c"))])
    assert [change.name for change in await store.staged_changes()] == ["a"]


async def test_a_flip_makes_every_staged_change(store):
    same = await store.change(creation(spec("same"), owner="somebody"))
    old = await store.change(creation(spec("changed"), owner="somebody"))
    await store.commit([entry(old, T)], watermark=None, errors=[(old.id, "NotFound")])
    other = await store.change(creation(spec("other"), owner="somebody"))
    changed, new = spec("changed", topic=FIFO, note="x", group=near("changed")), spec("new")
    await store.stage_begin()
    await store.stage([staged(spec("same")), staged(new), staged(changed)])
    rows = await store.flip(
        at=T + 1000, by="uid 1000", owner="ops", unsettled=[pending(old, T), pending(old, T + 1)]
    )
    stored = {s.spec.name: s for s in await store.schedules()}
    assert {row.name for row in rows} == {"changed", "new"}
    for row in rows:
        now = stored[row.name]
        assert row == (
            now.id,
            now.revision_id,
            now.spec.name,
            rule_document(canonical_document(now.spec)),
            T + 1000,
            None,
            None,
            None,
        )
        assert now.spec == {"changed": changed, "new": new}[row.name]
        assert (now.changed_at, now.owner) == (T + 1000, "ops")
    assert (stored["changed"].id, stored["changed"].revision, stored["new"].revision) == (old.id, 2, 1)
    assert (stored["changed"].created_at, stored["changed"].error) == (T, "NotFound")
    assert (stored["new"].created_at, stored["new"].error) == (T + 1000, None)
    assert (stored["same"].revision_id, stored["same"].effective_from) == (same.revision_id, T)
    assert (stored["same"].owner, stored["other"].owner) == ("ops", "somebody")
    assert stored["other"].revision_id == other.revision_id
    assert await entries(store) == [pending(old, T + 1), entry(old, T)]
    assert stored["changed"].pending == 1
    assert await store.staged_changes() == []
    now = Revised(old.id, 2, stored["changed"].revision_id, 0)
    await store.commit([pending(now, T + 2)], watermark=None)
    assert await store.pending_groups() == [(FIFO, near("changed"))]


async def test_a_flip_removes_schedules_with_its_changes(house, store):
    gone = await store.change(creation(spec("gone"), owner="ops"))
    await store.change(creation(spec("by-hand")))
    await store.change(creation(spec("kept"), owner="ops"))
    assert [one.name for one in await store.owned("ops")] == ["gone", "kept"]
    assert await store.owned("nobody") == []
    await store.own(["by-hand", "none"], owner="other", at=T, by="uid 1000")
    assert [one.name for one in await store.owned("other")] == ["by-hand"]
    await store.stage_begin()
    await store.stage([staged(spec("new"))])
    rows = await store.flip(
        at=T + 1000, by="uid 1000", owner="ops", unsettled=[pending(gone, T)], removed=[gone.id]
    )
    assert [row.name for row in rows] == ["new"]
    assert [s.spec.name for s in await store.schedules()] == ["by-hand", "kept", "new"]
    assert [one.name for one in await store.owned("ops")] == ["kept", "new"]
    assert await entries(store, schedule="gone") == [pending(gone, T)]
    assert (await store.change(creation(spec("gone")))).id != gone.id


async def test_a_flip_that_changes_nothing_returns_nothing(store):
    await store.change(creation(spec()))
    await store.stage_begin()
    await store.stage([staged(spec())])
    assert await store.flip(at=T, by="uid 1000", owner="default", unsettled=[]) == []


async def test_a_flip_keeps_single_instants(store):
    plain, spread = (
        spec("a", when="@at 2026-11-23T09:05"),
        spec("b", when="@at 2026-11-23T09:00", spread="1h"),
    )
    moved = await store.change(creation(spec("a", when="@at 2027-01-01T00:00"), at=T - 1))
    was = await store.change(creation(spec("c", when="@at 2026-11-23T09:00"), at=T - 1))
    await store.stage_begin()
    await store.stage([staged(plain), staged(spread), staged(spec("c"))])
    rows = {row.name: row for row in await store.flip(at=T - 1, by="x", owner="default", unsettled=[])}
    assert (rows["a"].id, rows["c"].id) == (moved.id, was.id)
    offset = spread.offset_ms()
    assert offset
    found = await store.at_between(0, T + 365 * DAY_MS)
    assert sorted(found) == sorted(
        [
            Fire(moved.id, rows["a"].revision_id, T + 5 * MINUTE, T + 5 * MINUTE),
            Fire(rows["b"].id, rows["b"].revision_id, T, T + offset),
        ]
    )


async def test_the_slot_of_a_single_instant_can_be_moved(store):
    once = spec("once", "@at 2027-01-01T00:00:00", tz="Europe/London", spread="10m")
    made = await store.change(creation(once))
    [row] = await timetable(store)
    assert row.slot_time is not None
    [before] = await store.at_between(row.slot_time - 1, row.slot_time + DAY_MS)
    await store.move_single_slots([(made.id, row.slot_time + 3_600_000)])
    [moved] = await timetable(store)
    assert moved.slot_time == row.slot_time + 3_600_000
    [after] = await store.at_between(row.slot_time + 3_600_000 - 1, row.slot_time + DAY_MS)
    assert after.due_time - after.fire_time == before.due_time - before.fire_time > 0
    assert after.fire_time == moved.slot_time
