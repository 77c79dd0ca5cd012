"""Fires that somebody asks for: failed ones again, those of the past."""

from __future__ import annotations

import pytest

from cronally.domain.model import Kind, SkipReason, State, fire_id
from cronally.engine.orders import MOST_RETRIED
from cronally.engine.records import JournalFilter
from cronally.errors import Conflict, FireNotFound, StoreBusy, UsageError
from cronally.instants import format_utc, parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.memory_store import MemoryStore
from support.recording_publisher import PUBLISHED, REJECTED, THROTTLED, TIMED_OUT, TOPIC_GONE
from support.rig import FIFO_TOPIC, running_engine

NINE = "job@2026-11-23T09:00:00Z"
HOUR = 3_600_000
DAY = 24 * HOUR


def at(time):
    return parse_rfc3339(f"2026-11-23T{time}Z")


async def retry(rig, *ids, **keys):
    done = await rig.service.retry(ids, by="t", **keys)
    await rig.clock.settle()
    return done


async def backfill(rig, first, last, name="job", **keys):
    _, done = await rig.service.backfill(name, first=first, last=last, by="t", **keys)
    await rig.clock.settle()
    return done


def refusing(*ids):
    """Refuse the first attempt of the fires *ids*, for good."""
    return lambda entry, attempt: REJECTED if entry.fire_id in ids and attempt == 1 else PUBLISHED


async def rows(rig, name="job"):
    """Return (first, last, state, count) of each scheduled row, oldest first; times without the date."""

    def time(instant):
        return format_utc(instant)[11:-1]

    found = [row.entry for row in await rig.service.history(JournalFilter(schedule=name, limit=1000))]
    return [
        (time(e.fire_time), time(e.last_fire_time or e.fire_time), str(e.state), e.count)
        for e in reversed(found)
    ]


# --- retry --------------------------------------------------------------------------------------------------------


async def test_a_rejected_fire_goes_again_with_its_id_in_its_row():
    async with running_engine(script=refusing(NINE)) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("12:00:00"))
        assert await rig.states() == {NINE: State.REJECTED}
        done = await retry(rig, NINE)
        assert [(row.name, row.entry.state) for row in done.rows] == [("job", State.REJECTED)]
        await rig.clock.advance(1)
        assert rig.sent == [NINE, NINE]
        [(id_, entry)] = (await rig.journal()).items()
        assert (id_, entry.state, entry.kind, entry.attempts) == (NINE, State.PUBLISHED, Kind.SCHEDULED, 2)
        assert (entry.due_time, entry.asked_at) == (at("09:00:00"), at("12:00:00"))
        why = await rig.service.why("job", "2026-11-23T09:00:00Z")
        assert "asked for it again at 2026-11-23T12:00:00Z" in why.text


async def test_a_retried_fire_goes_at_once():
    async with running_engine(script=refusing(NINE)) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("12:00:00"))
        await retry(rig, NINE)
        assert rig.publisher.arrivals[-1].released_us == at("12:00:00") * 1000


async def test_a_fire_that_failed_just_now_can_be_retried():
    async with running_engine(script=refusing(NINE)) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("09:00:00"))  # its row is not committed yet
        await retry(rig, NINE)
        await rig.clock.advance(1)
        assert rig.accepted == [NINE]


async def test_the_deadline_of_a_retried_fire_counts_from_the_command():
    async with running_engine(script=lambda _e, _n: TOPIC_GONE) as rig:
        await rig.add("job", "0 9 * * *", deadline="10m")
        await rig.clock.advance_to(at("12:00:00"))
        assert await rig.states() == {NINE: State.EXPIRED}
        attempts = len(rig.sent)
        await retry(rig, NINE)
        await rig.clock.advance_to(at("12:09:59"))
        assert await rig.states() == {NINE: State.PENDING}
        await rig.clock.advance_to(at("12:11:00"))
        assert [arrival.released_us // 1000 for arrival in rig.publisher.arrivals[attempts:]] == [
            at("12:00:00"), at("12:05:00"), at("12:10:00"),
        ]  # fmt: skip
        entry = (await rig.journal())[NINE]
        assert (entry.state, entry.attempts, entry.asked_at) == (
            State.EXPIRED,
            attempts + 3,
            at("12:00:00"),
        )


async def test_what_is_known_of_earlier_attempts_stays_with_a_retried_fire():
    script = [TIMED_OUT, REJECTED, THROTTLED, PUBLISHED]
    async with running_engine(script=lambda _e, n: script[n - 1]) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("09:30:00"))
        before = (await rig.journal())[NINE]
        assert (before.state, before.attempts, before.maybe_published) == (State.REJECTED, 2, True)
        await retry(rig, NINE)
        await rig.clock.advance(0.06)
        entry = (await rig.journal())[NINE]
        assert (entry.state, entry.attempts, entry.maybe_published) == (State.PENDING, 3, True)


async def test_a_retried_fire_that_waits_in_line_is_still_one_that_was_asked_for():
    async with running_engine(script=refusing(NINE)) as rig:
        await rig.add("job", "0 9 * * *", deadline="1h")
        await rig.clock.advance_to(at("12:00:00"))
        rig.publisher.room = 0
        await retry(rig, NINE)
        await rig.clock.advance(12)
        entry = (await rig.journal())[NINE]
        assert (entry.state, entry.is_in_line, entry.asked_at) == (State.PENDING, True, at("12:00:00"))
        rig.publisher.room = None
        rig.publisher.on_room()
        await rig.clock.advance(600)
        assert rig.accepted == [NINE]


async def test_a_retried_fire_of_a_latest_schedule_is_not_superseded_by_a_newer_slot():
    async with running_engine(script=refusing(NINE)) as rig:
        await rig.add("job", "*/5 9 * * *")
        await rig.clock.advance_to(at("09:59:00"))
        await retry(rig, NINE)
        await rig.clock.advance(1)
        assert rig.accepted[-1] == NINE


async def test_a_superseded_fire_can_be_retried():
    gone = True
    async with running_engine(script=lambda _e, _n: TOPIC_GONE if gone else PUBLISHED) as rig:
        await rig.add("job", "*/5 9 * * *")
        await rig.clock.advance_to(at("09:06:00"))
        entry = (await rig.journal())[NINE]
        assert (entry.state, entry.reason) == (State.SKIPPED, SkipReason.SUPERSEDED)
        gone = False
        await retry(rig, NINE)
        await rig.clock.advance(1)
        entry = (await rig.journal())[NINE]
        assert (entry.state, entry.reason) == (State.PUBLISHED, None)


async def asleep_until(time, **keys):
    """Return the store of a schedule every minute from nine on, whose daemon slept from 08:59:30 until *time*."""
    store = MemoryStore()
    async with running_engine(store=store) as rig:
        await rig.add("job", "* 9 * * *", **keys)
    return FakeClock(at(time)), store


@pytest.mark.parametrize(
    ("minutes", "left"),
    [
        ([0], [("09:01:00", "09:08:00", "skipped", 8)]),
        ([8], [("09:00:00", "09:07:00", "skipped", 8)]),
        ([3], [("09:00:00", "09:02:00", "skipped", 3), ("09:04:00", "09:08:00", "skipped", 5)]),
        ([7, 1], [("09:00:00", "09:00:00", "skipped", 1), ("09:02:00", "09:06:00", "skipped", 5), ("09:08:00", "09:08:00", "skipped", 1)]),
        ([4, 5], [("09:00:00", "09:03:00", "skipped", 4), ("09:06:00", "09:08:00", "skipped", 3)]),
        (list(range(9)), []),
    ],
)  # fmt: skip
async def test_a_slot_inside_a_range_row_is_taken_out_of_it_exactly(minutes, left):
    clock, store = await asleep_until("09:09:30")
    async with running_engine(clock=clock, store=store) as rig:
        await rig.clock.advance(1)
        assert await rows(rig) == [
            ("09:00:00", "09:08:00", "skipped", 9), ("09:09:00", "09:09:00", "published", 1),
        ]  # fmt: skip
        ids = [f"job@2026-11-23T09:0{minute}:00Z" for minute in minutes]
        done = await retry(rig, *ids)
        assert sorted(row.entry.fire_time for row in done.rows) == sorted(map(parse, ids))
        assert {(row.entry.count, row.entry.last_fire_time) for row in done.rows} == {(1, None)}
        await rig.clock.advance(1)
        assert rig.accepted[1:] == sorted(ids)
        found = await rows(rig)
        assert [row for row in found if row[2] == "skipped"] == left
        assert sum(row[3] for row in found) == 10


def parse(id_):
    return parse_rfc3339(id_.partition("@")[2])


async def test_what_is_left_of_a_range_can_be_retried_too():
    clock, store = await asleep_until("09:09:30", spread="2m")
    async with running_engine(clock=clock, store=store) as rig:
        for minute in (4, 2, 6, 0):
            await retry(rig, f"job@2026-11-23T09:0{minute}:00Z")
        await rig.clock.advance_to(at("10:30:00"))
        journal = await rig.journal()
        assert {entry.due_time - entry.fire_time for entry in journal.values()} == {
            next(iter(journal.values())).due_time - at("09:00:00")
        }
        assert sum(entry.count for entry in journal.values()) == 60


async def test_a_range_that_the_rule_gives_no_more_is_left_alone(monkeypatch):
    clock, store = await asleep_until("09:09:30")
    async with running_engine(clock=clock, store=store) as rig:
        [whole] = [e for e in (await rig.journal()).values() if e.count > 1]
        store._journal[whole.key] = whole._replace(count=8)
        with pytest.raises(Conflict, match="cronally backfill job"):
            await retry(rig, "job@2026-11-23T09:04:00Z")
        assert len(await rig.journal()) == 2


async def test_a_published_fire_is_refused_and_nothing_is_retried():
    other = "other@2026-11-23T09:00:00Z"
    async with running_engine(script=refusing(other)) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.add("other", "0 9 * * *")
        await rig.clock.advance_to(at("09:01:00"))
        with pytest.raises(Conflict, match=NINE):
            await retry(rig, other, NINE)
        await rig.clock.advance(1)
        assert await rig.states() == {NINE: State.PUBLISHED, other: State.REJECTED}
        assert len(rig.sent) == 2


async def test_a_pending_fire_is_named_and_left_alone():
    async with running_engine(script=lambda _e, _n: TOPIC_GONE) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("09:01:00"))
        assert await retry(rig, NINE) == ((), (NINE,))
        await rig.clock.advance(1)
        assert len(rig.sent) == 1


async def test_two_retries_of_one_fire_send_it_once():
    async with running_engine(script=refusing(NINE)) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("09:01:00"))
        rig.publisher.room = 0
        first, second = [rig.start(rig.service.retry([NINE, NINE], by="t")) for _ in range(2)]
        await rig.clock.settle()
        assert (len(first.result().rows), second.result().rows, second.result().pending) == (1, (), (NINE,))
        rig.publisher.room = None
        rig.publisher.on_room()
        await rig.clock.advance(1)
        assert rig.accepted == [NINE]
        with pytest.raises(Conflict, match="published"):
            await retry(rig, NINE)


@pytest.mark.parametrize(
    ("id_", "hint"),
    [
        ("job@2026-11-23T08:00:00Z", "cronally history job"),
        (f"{NINE}+manual", "cronally history job"),
        ("jbo@2026-11-23T09:00:00Z", "is its schedule 'job'?"),
        ("job@2026-11-24T09:00:00Z", "cronally history job"),
        ("zzz@2026-11-24T09:00:00Z", "cronally history zzz"),
    ],
)
async def test_an_unknown_fire_is_not_found_and_nothing_is_retried(id_, hint):
    async with running_engine(script=refusing(NINE)) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("09:01:00"))
        with pytest.raises(FireNotFound, match=hint.replace("?", r"\?")):
            await retry(rig, NINE, id_)
        assert await rig.states() == {NINE: State.REJECTED}


@pytest.mark.parametrize(
    "text", ["", "job", "job@", "@2026-11-23T09:00:00Z", "job@nine", f"{NINE}+x", f"{NINE}Z"]
)
async def test_what_is_no_fire_id_is_refused(text):
    async with running_engine() as rig:
        with pytest.raises(UsageError, match="no fire id"):
            await retry(rig, text)


async def test_too_many_fires_are_refused():
    async with running_engine() as rig:
        ids = [fire_id("job", at("09:00:00") + n * 1000) for n in range(MOST_RETRIED + 1)]
        with pytest.raises(UsageError, match="1,001"):
            await retry(rig, *ids)


async def test_a_dry_run_says_what_it_would_do_and_does_nothing():
    async with running_engine(script=refusing(NINE)) as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("09:01:00"))
        assert len((await retry(rig, NINE, is_dry_run=True)).rows) == 1
        await rig.clock.advance(1)
        assert await rig.states() == {NINE: State.REJECTED}


async def test_a_slot_of_a_pause_that_goes_on_waits_for_its_end():
    async with running_engine() as rig:
        await rig.add("job", "* 9 * * *")
        await rig.service.pause("job", by="t")
        await rig.clock.advance_to(at("09:05:30"))
        for id_ in (NINE, "job@2026-11-23T09:03:00Z"):
            with pytest.raises(Conflict, match="cronally resume job"):
                await retry(rig, id_)
        with pytest.raises(FireNotFound):
            await retry(rig, "job@2026-11-23T09:06:00Z")
        await rig.service.resume("job", by="t")
        await retry(rig, NINE, "job@2026-11-23T09:03:00Z")
        await rig.clock.advance(1)
        assert rig.accepted == [NINE, "job@2026-11-23T09:03:00Z"]
        assert [row[2:] for row in await rows(rig)] == [
            ("published", 1), ("skipped", 2), ("published", 1), ("skipped", 2),
        ]  # fmt: skip


async def test_the_last_slot_of_a_pause_that_has_ended_by_itself_can_be_retried_at_once():
    async with running_engine() as rig:
        await rig.add("job", "* 9 * * *")
        await rig.service.pause("job", by="t", until=at("09:05:00"))
        await rig.clock.advance_to(at("09:05:00"))
        await retry(rig, "job@2026-11-23T09:04:00Z")
        await rig.clock.advance(1)
        assert sorted(rig.accepted) == ["job@2026-11-23T09:04:00Z", "job@2026-11-23T09:05:00Z"]


async def test_a_fire_of_a_removed_schedule_says_what_it_said_then():
    async with running_engine(script=refusing(NINE)) as rig:
        await rig.add("job", "0 9 * * *", message="old")
        await rig.clock.advance_to(at("09:01:00"))
        await rig.service.remove("job", by="t")
        await rig.add("job", "0 10 * * *", message="new")
        await retry(rig, NINE)
        await rig.clock.advance(1)
        assert [(a.entry.fire_id, a.entry.message) for a in rig.publisher.accepted] == [(NINE, "old")]


async def test_a_manual_fire_can_be_retried():
    async with running_engine(script=lambda _e, n: REJECTED if n == 1 else PUBLISHED) as rig:
        await rig.add("job", "0 9 * * *")
        id_ = await rig.service.run("job", by="t")
        await rig.clock.advance(1)
        await retry(rig, id_)
        await rig.clock.advance(1)
        assert await rig.states() == {id_: State.PUBLISHED}
        assert rig.sent == [id_, id_]


async def test_a_dropped_fire_is_never_sent_before_its_time():
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *", spread="1h")
        due = at("09:00:00") + (await rig.store.schedule("job")).spec.offset_ms()
        assert due > at("09:00:10")
        await rig.clock.advance_to(at("09:00:05"))
        await rig.service.pause("job", by="t", drop_pending=True)
        assert (await rig.journal())[NINE].reason is SkipReason.DROPPED
        await retry(rig, NINE)
        assert (await rig.journal())[NINE].next_attempt_at == due
        await rig.clock.advance(3700)
        assert [arrival.released_us // 1000 for arrival in rig.publisher.arrivals] == [due]


async def test_a_retried_fire_does_not_count_as_late():
    async with running_engine(script=refusing("other@2026-11-23T09:00:00Z")) as rig:
        clock, store = await asleep_until("09:09:30")
    async with running_engine(clock=clock, store=store) as rig:
        await rig.clock.advance(1)
        before = (await rig.reporting.status()).lateness_us
        await retry(rig, NINE)
        await rig.clock.advance(1)
        assert rig.accepted[-1] == NINE
        assert (await rig.reporting.status()).lateness_us == before


async def test_a_crash_between_the_command_and_the_publish_loses_nothing():
    store, clock = MemoryStore(), FakeClock()
    async with running_engine(store=store, clock=clock, script=lambda _e, _n: REJECTED) as rig:
        await rig.add("job", "0 9 * * *", deadline="1h")
        await rig.clock.advance_to(at("11:00:00"))
    async with running_engine(store=store, clock=clock, crash=True) as rig:
        rig.publisher.room = 0
        await retry(rig, NINE)
    async with running_engine(store=store, clock=clock) as rig:
        await rig.clock.advance(1)
        assert rig.accepted == [NINE]
        entry = (await rig.journal())[NINE]
        assert (entry.state, entry.asked_at, entry.attempts) == (State.PUBLISHED, at("11:00:00"), 2)


@pytest.mark.parametrize("method", ["retry", "rows", "covering", "specs", "bearers"])
async def test_a_retry_that_the_store_refuses_changes_nothing(method):
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store, script=refusing(NINE)) as rig:
        await rig.add("job", "* 9 * * *")
        await rig.clock.advance_to(at("09:01:30"))
        await rig.service.pause("job", by="t", until=at("09:04:00"))
        await rig.clock.advance_to(at("09:04:30"))
        ids = [NINE, "job@2026-11-23T09:03:00Z"]
        store.fail(method)
        with pytest.raises(StoreBusy):
            await retry(rig, *ids)
        store.fail()
        await rig.clock.advance(1)
        assert NINE not in rig.accepted
        await retry(rig, *ids)
        await rig.clock.advance(1)
        assert rig.accepted[-2:] == ids


async def test_a_retry_waits_for_the_last_outcome_to_be_on_record():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store, script=refusing(NINE)) as rig:
        await rig.add("job", "0 9 * * *")
        store.fail("commit")
        await rig.clock.advance_to(at("09:00:01"))
        with pytest.raises(StoreBusy):
            await retry(rig, NINE)
        # The store had done it, and did not say so: to write it again must not undo the retry.
        [entry] = rig.engine.settler._queue
        await store.inner.commit([entry], watermark=None)
        with pytest.raises(StoreBusy):
            await retry(rig, NINE)
        store.fail()
        await retry(rig, NINE)
        await rig.clock.advance(1)
        assert rig.accepted == [NINE]


# --- retry in FIFO groups -----------------------------------------------------------------------------------------


async def test_a_retried_fire_takes_its_place_in_its_group():
    stuck = "b@2026-11-23T09:01:00Z"
    blocked = True

    def script(entry, attempt):
        if entry.fire_id == "a@2026-11-23T09:00:00Z" and attempt == 1:
            return REJECTED
        return TOPIC_GONE if blocked and entry.fire_id == stuck else PUBLISHED

    async with running_engine(script=script) as rig:
        await rig.add("a", "0 9 * * *", topic=FIFO_TOPIC, group="g")
        for minute in (1, 2, 3):
            await rig.add("bcd"[minute - 1], f"{minute} 9 * * *", topic=FIFO_TOPIC, group="g")
        await rig.clock.advance_to(at("09:04:00"))
        assert rig.accepted == []
        blocked = False
        await retry(rig, "a@2026-11-23T09:00:00Z")
        await rig.clock.advance_to(at("09:10:00"))
        assert rig.accepted == [
            "a@2026-11-23T09:00:00Z", stuck, "c@2026-11-23T09:02:00Z", "d@2026-11-23T09:03:00Z",
        ]  # fmt: skip


async def test_no_later_slot_slips_into_a_group_while_a_retry_is_written():
    clock = FakeClock()
    store = FaultyStore(clock)
    first = "job@2026-11-23T09:00:00Z"
    async with running_engine(clock=clock, store=store, script=refusing(first)) as rig:
        await rig.add("job", "* 9 * * *", topic=FIFO_TOPIC)
        await rig.clock.advance_to(at("09:00:59.9"))
        store.after_s["retry"] = 0.3
        writing = rig.start(rig.service.retry([first], by="t"))
        await rig.clock.advance(2)
        assert writing.done()
        assert rig.accepted == [first, "job@2026-11-23T09:01:00Z"]


async def test_a_group_goes_on_after_a_retry_that_failed():
    clock = FakeClock()
    store = FaultyStore(clock)
    first = "job@2026-11-23T09:00:00Z"
    async with running_engine(clock=clock, store=store, script=refusing(first)) as rig:
        await rig.add("job", "* 9 * * *", topic=FIFO_TOPIC)
        await rig.clock.advance_to(at("09:00:30"))
        store.fail("retry")
        with pytest.raises(StoreBusy):
            await retry(rig, first)
        store.fail()
        await rig.clock.advance_to(at("09:01:01"))
        assert rig.accepted == ["job@2026-11-23T09:01:00Z"]


# --- backfill -----------------------------------------------------------------------------------------------------


async def test_a_backfill_of_last_month_goes_out_while_the_schedule_fires_on_time():
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *")
        await rig.clock.advance_to(at("08:59:59.5"))
        done = await backfill(rig, "2026-10-01T00:00:00Z", "2026-10-31T23:59:59Z")
        ids = [
            fire_id("job", parse_rfc3339("2026-10-01T09:00:00Z") + day * DAY, Kind.BACKFILL)
            for day in range(31)
        ]
        assert (done.slots, done.made, done.already, done.fires) == (31, 31, 0, tuple(ids[:10]))
        assert (format_utc(done.first), format_utc(done.last)) == (
            "2026-10-01T09:00:00Z",
            "2026-10-31T09:00:00Z",
        )
        await rig.clock.advance(1)
        assert rig.accepted == [*ids, NINE]
        journal = await rig.journal()
        assert {entry.state for entry in journal.values()} == {State.PUBLISHED}
        assert {journal[id_].due_time for id_ in ids} == {at("08:59:59.5")}
        assert journal[NINE].lateness_us == 0


async def test_a_backfill_is_durable_before_it_returns_and_goes_on_after_a_crash():
    store, clock = MemoryStore(), FakeClock()
    async with running_engine(store=store, clock=clock, crash=True) as rig:
        await rig.add("job", "* * * * *")
        rig.publisher.room = 0
        await rig.service.backfill("job", first="2026-11-22T00:00:00Z", last="2026-11-22T11:59:00Z", by="t")
        assert len(await rig.states()) == 720
    async with running_engine(store=store, clock=clock) as rig:
        await rig.clock.advance(5)
        sent = [id_ for id_ in rig.accepted if id_.endswith("+backfill")]
        assert sent == sorted(set(sent))
        assert len(sent) == 720


async def test_a_second_backfill_makes_only_what_the_first_did_not():
    async with running_engine() as rig:
        await rig.add("job", "0 * * * *")
        assert (await backfill(rig, "2026-11-22T05:00:00Z", "2026-11-22T08:00:00Z")).made == 4
        await rig.clock.advance(1)
        done = await backfill(rig, "2026-11-22T03:00:00Z", "2026-11-22T08:00:00Z")
        assert (done.slots, done.made, done.already) == (6, 2, 4)
        assert done.fires == ("job@2026-11-22T03:00:00Z+backfill", "job@2026-11-22T04:00:00Z+backfill")
        await rig.clock.advance(1)
        assert len(rig.accepted) == len(set(rig.accepted)) == 6


async def test_a_key_gives_the_same_answer_again_and_makes_nothing():
    async with running_engine() as rig:
        await rig.add("job", "0 * * * *")
        span = ("2026-11-22T05:00:00Z", "2026-11-22T08:00:00Z")
        run = await rig.service.run("job", by="t", idempotency_key="k")
        first = await backfill(rig, *span, idempotency_key="k")
        assert first.made == 4
        assert await backfill(rig, *span, idempotency_key="k") == first
        assert (await backfill(rig, *span, idempotency_key="l")).already == 4
        assert await rig.service.run("job", by="t", idempotency_key="k") == run
        await rig.clock.advance(1)
        assert len(rig.accepted) == 5


async def test_more_slots_than_the_cap_are_refused_with_their_number():
    async with running_engine() as rig:
        await rig.add("job", "* * * * *")
        span = ("2026-11-01T00:00:00Z", "2026-11-01T16:40:00Z")
        with pytest.raises(UsageError, match=r"1,001 slots there.*--max 1001"):
            await backfill(rig, *span)
        with pytest.raises(UsageError, match="up to 1,000"):
            await backfill(rig, *span, most=1000)
        assert await rig.states() == {}
        assert (await backfill(rig, *span, most=1001)).made == 1001


async def test_slots_that_are_still_to_come_are_refused():
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *")
        with pytest.raises(UsageError, match=r"2026-11-23T09:00:00Z.*2026-11-23T08:59:30Z"):
            await backfill(rig, "2026-11-22T00:00:00Z", "2026-11-23T09:00:00Z")
        assert (await backfill(rig, "2026-11-22T00:00:00Z", "2026-11-23T08:59:59Z")).made == 1


async def test_a_backfill_reaches_before_the_schedule_was_made_but_not_beyond_its_bounds():
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *", starts="2026-11-19T00:00:00Z", ends="2026-11-21T09:00:00Z")
        done = await backfill(rig, "2026-11-01T00:00:00Z", "2026-11-23T00:00:00Z")
        assert [id_[12:14] for id_ in done.fires] == ["19", "20", "21"]


async def test_both_ends_of_a_backfill_count_and_are_local_without_an_offset():
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *", tz="Asia/Tokyo")
        done = await backfill(rig, "2026-11-20T09:00", "2026-11-21 09:00:00")
        assert done.fires == ("job@2026-11-20T00:00:00Z+backfill", "job@2026-11-21T00:00:00Z+backfill")


async def test_a_paused_schedule_can_be_backfilled():
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *")
        await rig.service.pause("job", by="t")
        await backfill(rig, "2026-11-22T00:00:00Z", "2026-11-22T23:00:00Z")
        await rig.clock.advance(1)
        assert rig.accepted == ["job@2026-11-22T09:00:00Z+backfill"]


async def test_a_dry_run_of_a_backfill_makes_nothing():
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *")
        done = await backfill(
            rig, "2026-11-20T00:00:00Z", "2026-11-22T23:00:00Z", is_dry_run=True, idempotency_key="k"
        )
        assert (done.made, len(done.fires)) == (3, 3)
        assert await rig.states() == {}
        assert (
            await backfill(rig, "2026-11-20T00:00:00Z", "2026-11-22T23:00:00Z", idempotency_key="k")
        ).made == 3


@pytest.mark.parametrize(
    ("span", "part"),
    [
        (("2026-11-22T00:00:00Z", "2026-11-21T00:00:00Z"), "ends before it begins"),
        (("soon", "2026-11-21T00:00:00Z"), "no instant"),
        (("2026-11-20T00:00:00Z", "2026-02-30T00:00:00Z"), "no instant"),
    ],
)
async def test_a_span_that_is_none_is_refused(span, part):
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *")
        with pytest.raises(UsageError, match=part):
            await backfill(rig, *span)


async def test_a_span_without_slots_makes_nothing():
    async with running_engine() as rig:
        await rig.add("job", "0 9 * * *")
        assert await backfill(rig, "2026-11-22T10:00:00Z", "2026-11-22T11:00:00Z") == (
            0,
            0,
            0,
            None,
            None,
            (),
        )


async def test_a_backfill_broken_off_can_be_run_again():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("job", "* * * * *")
        store.fails = lambda name: name == "add_backfill" and store.calls[name] == 2
        span = ("2026-11-22T00:00:00Z", "2026-11-22T15:59:00Z")
        with pytest.raises(StoreBusy):
            await backfill(rig, *span)
        done = await backfill(rig, *span)
        assert (done.slots, done.made, done.already) == (960, 710, 250)
        await rig.clock.advance(10)
        sent = [id_ for id_ in rig.accepted if id_.endswith("+backfill")]
        assert len(sent) == len(set(sent)) == 960


async def test_a_backfill_keeps_to_the_quota_and_to_its_order_and_stays_small():
    async with running_engine(quota=100, room=50) as rig:
        await rig.add("job", "* * * * *")
        done = await backfill(rig, "2026-11-20T00:00:00Z", "2026-11-22T23:59:00Z", most=100_000)
        assert done.made == 4320
        most = 0
        for _ in range(200):
            await rig.clock.advance(1)
            most = max(most, len(rig.engine.core._held))
        assert most <= 2_600
        sent = [id_ for id_ in rig.accepted if id_.endswith("+backfill")]
        assert len(sent) == len(set(sent)) == 4320
        states = await rig.states()
        assert {state for id_, state in states.items() if id_.endswith("+backfill")} == {State.PUBLISHED}


async def test_a_backfill_that_finds_no_room_waits_and_lets_everything_else_go_on():
    async with running_engine() as rig:
        await rig.add("job", "* * * * *")
        rig.publisher.room = 0
        await backfill(rig, "2026-11-21T00:00:00Z", "2026-11-22T23:59:00Z", most=10_000)
        await rig.clock.advance(3)
        await backfill(rig, "2026-11-20T00:00:00Z", "2026-11-20T23:59:00Z", most=10_000)
        await rig.clock.advance(3)
        assert (rig.sent, len(await rig.states())) == ([], 4320)
        rig.publisher.room = None
        rig.publisher.on_room()
        await rig.clock.advance(20)
        assert len(rig.sent) == len(set(rig.sent)) == 4320


async def test_a_backfill_of_a_fifo_schedule_goes_out_one_by_one_oldest_first():
    async with running_engine() as rig:
        await rig.add("job", "* * * * *", topic=FIFO_TOPIC)
        done = await backfill(rig, "2026-11-22T00:00:00Z", "2026-11-22T09:59:00Z")
        await rig.clock.advance(29)
        assert len(rig.accepted) == done.made == 600
        assert rig.accepted == sorted(rig.accepted)


async def test_a_backfilled_fire_is_not_superseded_and_its_deadline_counts_from_the_command():
    blocked = True
    async with running_engine(script=lambda _e, _n: THROTTLED if blocked else PUBLISHED) as rig:
        await rig.add("job", "0 9 * * *", deadline="30m")
        await backfill(rig, "2026-11-20T00:00:00Z", "2026-11-20T23:00:00Z")
        await rig.clock.advance_to(at("09:20:00"))
        blocked = False
        await rig.clock.advance(60)
        assert (await rig.states())["job@2026-11-20T09:00:00Z+backfill"] is State.PUBLISHED
