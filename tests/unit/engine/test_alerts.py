"""People are told of schedules in trouble once, and once more when it is over."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from cronally.domain.model import JournalEntry, Kind, SkipReason, State
from cronally.engine.alert import Alert
from cronally.engine.alerts import EVERY_S, RETRY_S, Alerts
from cronally.engine.journalist import Journalist
from cronally.engine.records import Label
from cronally.engine.retention import Keep
from cronally.engine.troubles import Troubles
from cronally.errors import PublishError
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.memory_store import MemoryStore
from support.recording_publisher import PUBLISHED, REJECTED, THROTTLED
from support.rig import running_engine

NINE = parse_rfc3339("2026-11-23T09:00:00Z")
TOPIC = "arn:aws:sns:us-east-1:123456789012:x"


class Messenger:
    def __init__(self):
        self.sent = []
        self.refuses = False

    async def send(self, subject, text, *, kind):
        if self.refuses:
            raise PublishError("no topic")
        self.sent.append((subject, text, kind))


@asynccontextmanager
async def watched(script=lambda *_: PUBLISHED, *, store_of=lambda _: MemoryStore(), failing=()):
    """Run an engine whose alerts go to a messenger; yield both."""
    clock, messenger = FakeClock(), Messenger()
    store = store_of(clock)
    alerts = Alerts(messenger, store, clock)
    alerts.troubles = Troubles(failing)
    hooks = Journalist(clock, Keep(), alerts=alerts)
    async with running_engine(clock=clock, store=store, script=script, hooks=hooks) as rig:
        task = asyncio.create_task(alerts.run())
        yield rig, messenger, alerts
        task.cancel()


async def test_a_rejected_fire_is_told_once_and_so_is_the_end_of_the_trouble():
    bad = {"a@2026-11-23T09:00:00Z", "a@2026-11-23T09:01:00Z"}
    async with watched(lambda entry, _: REJECTED if entry.fire_id in bad else PUBLISHED) as (
        rig,
        messenger,
        _,
    ):
        await rig.add("a", "* * * * *")
        await rig.add("b", "* * * * *")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(3)
        [(subject, text, kind)] = messenger.sent
        assert (subject, kind) == ("Cronally: a fails", "failing")
        assert text.startswith(f"a fails: a@2026-11-23T09:00:00Z was rejected: {REJECTED.error}\n")
        await rig.clock.advance(90)
        assert len(messenger.sent) == 1
        await rig.clock.advance(60)
        [_, (subject, text, kind)] = messenger.sent
        assert (subject, kind) == ("Cronally: a has recovered", "recovered")
        assert text.startswith("a has recovered: a@2026-11-23T09:02:00Z left in time\n")
        await rig.clock.advance(300)
        assert len(messenger.sent) == 2


async def test_what_waits_a_minute_for_sns_is_told_and_what_waits_seconds_is_not():
    async with watched(lambda _, attempt: THROTTLED if attempt < 3 else PUBLISHED) as (rig, messenger, _):
        await rig.add("a", "0 9 * * *")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(300)
        assert messenger.sent == []
    async with watched(lambda *_: THROTTLED) as (rig, messenger, _):
        await rig.add("a", "0 9 * * *")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(55)
        assert messenger.sent == []
        await rig.clock.advance(15)
        [(subject, text, _)] = messenger.sent
        assert subject == "Cronally: a fails"
        assert "a@2026-11-23T09:00:00Z waits, 1m" in text
        assert THROTTLED.error in text


async def test_with_late_after_it_is_told_sooner():
    async with watched(lambda *_: THROTTLED) as (rig, messenger, _):
        await rig.add("a", "0 9 * * *", late_after="5s")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(4)
        assert messenger.sent == []
        await rig.clock.advance(10)
        assert [subject for subject, *_ in messenger.sent] == ["Cronally: a fails"]


async def test_a_thousand_in_trouble_at_once_are_one_message():
    async with watched(lambda *_: REJECTED) as (rig, messenger, _):
        await rig.apply(*({"name": f"s{n:04}", "when": "* * * * *", "topic": TOPIC} for n in range(1_000)))
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(10)
        [(subject, text, _)] = messenger.sent
        assert subject == "Cronally: 1,000 schedules in trouble"
        assert len(text.splitlines()) == 53
        assert "and 950 more" in text
        await rig.clock.advance(300)
        assert len(messenger.sent) == 1


async def test_there_is_at_most_one_message_a_minute():
    second = parse_rfc3339("2026-11-23T09:00:10Z")
    async with watched(lambda *_: REJECTED) as (rig, messenger, _):
        for number in range(4):
            await rig.add(f"s{number}", f"@at 2026-11-23T09:00:{10 * number:02}")
        await rig.clock.advance_to(second)
        await rig.clock.advance(EVERY_S - 15)
        assert [subject for subject, *_ in messenger.sent] == ["Cronally: s0 fails"]
        await rig.clock.advance(20)
        assert [subject for subject, *_ in messenger.sent][1:] == ["Cronally: 3 schedules in trouble"]


async def test_an_alert_that_cannot_be_sent_is_sent_later_with_what_came_since(caplog):
    async with watched(lambda *_: REJECTED) as (rig, messenger, _):
        messenger.refuses = True
        await rig.add("a", "0 9 * * *")
        await rig.add("b", "@at 2026-11-23T09:00:20")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(25)
        assert [record.action for record in caplog.records] == ["alerts.unsent"]
        messenger.refuses = False
        await rig.clock.advance(RETRY_S)
        [(subject, text, _)] = messenger.sent
        assert subject == "Cronally: 2 schedules in trouble"
        assert text.splitlines()[0].startswith("a fails")


async def test_what_was_not_told_is_told_at_the_end_if_it_can_be_at_once():
    async with watched(lambda *_: REJECTED) as (rig, messenger, alerts):
        messenger.refuses = True
        await rig.add("a", "0 9 * * *")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(5)
        messenger.refuses = False
        await alerts.finish()
        assert [subject for subject, *_ in messenger.sent] == ["Cronally: a fails"]
        await alerts.finish()
        assert len(messenger.sent) == 1


async def test_a_messenger_that_hangs_does_not_hold_up_the_end():
    async with watched(lambda *_: REJECTED) as (rig, messenger, alerts):
        messenger.refuses = True
        await rig.add("a", "0 9 * * *")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(5)
        messenger.send = lambda *_, **__: asyncio.Event().wait()
        ending = asyncio.create_task(alerts.finish())
        await rig.clock.advance(4)
        assert ending.done()


async def test_the_next_daemon_tells_that_it_is_over():
    async with watched(failing=[1]) as (rig, messenger, _):
        await rig.add("a", "0 9 * * *")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(5)
        assert [subject for subject, *_ in messenger.sent] == ["Cronally: a has recovered"]


async def test_a_store_that_cannot_be_read_delays_it():
    async with watched(lambda *_: REJECTED, store_of=FaultyStore) as (rig, messenger, _):
        await rig.add("a", "0 9 * * *")
        rig.store.fail("labels")
        await rig.clock.advance_to(NINE)
        await rig.clock.advance(5)
        assert messenger.sent == []
        rig.store.fail()
        await rig.clock.advance(10)
        assert [subject for subject, *_ in messenger.sent] == ["Cronally: a fails"]


# --- entry by entry -------------------------------------------------------------------------------------------------


def entry(state, *, late_ms=0, id_=1, **keys):
    return JournalEntry(id_, NINE, 1, NINE, state, lateness_us=late_ms * 1000, **keys)


def told(*entries, late_after=None, troubled=()):
    troubles = Troubles(troubled)
    for one in entries:
        if troubles.expect(one):
            troubles.hear(one, Label("a", TOPIC, "UTC", late_after), NINE)
    return troubles.take()


@pytest.mark.parametrize(
    ("late_after", "late_ms", "is_told"),
    [
        (None, 3_600_000, False),
        (5_000, 5_000, False),
        (5_000, 5_001, True),
        (1_000, 1_000, False),
        (1_000, 1_001, True),
    ],
)
def test_a_fire_is_late_beyond_late_after_only(late_after, late_ms, is_told):
    alert = told(entry(State.PUBLISHED, late_ms=late_ms), late_after=late_after)
    assert bool(alert.failing) is is_told
    if is_told:
        assert "a@2026-11-23T09:00:00Z left" in alert.failing["a"]
        assert "late, more than" in alert.failing["a"]


def test_a_late_fire_does_not_end_trouble_and_one_in_time_does():
    late, in_time = entry(State.PUBLISHED, late_ms=9_000), entry(State.PUBLISHED)
    assert told(late, late_after=5_000, troubled=[1]) == Alert({}, {})
    assert told(in_time, late_after=5_000, troubled=[1]).recovered == {
        "a": "a@2026-11-23T09:00:00Z left in time"
    }


def test_trouble_that_begins_and_ends_between_two_messages_is_told_whole():
    alert = told(entry(State.EXPIRED), entry(State.PUBLISHED))
    assert (list(alert.failing), list(alert.recovered), alert.kind) == (["a"], ["a"], "failing")
    assert alert.subject == "Cronally: 1 schedule in trouble, 1 schedule recovered"


def test_slots_that_expired_together_are_counted():
    alert = told(entry(State.EXPIRED, last_fire_time=NINE + 60_000, count=2))
    assert alert.failing["a"] == "a@2026-11-23T09:00:00Z has expired (2 of them up to 2026-11-23T09:01:00Z)"


@pytest.mark.parametrize(
    "harmless",
    [
        entry(State.PUBLISHED),
        entry(State.PENDING),
        entry(State.SKIPPED, reason=SkipReason.PAUSED),
        entry(State.SKIPPED, reason=SkipReason.SUPERSEDED),
        entry(State.PUBLISHED, kind=Kind.MANUAL),
    ],
)
def test_what_is_no_trouble_does_not_matter(harmless):
    assert not Troubles().expect(harmless)


def test_a_subject_is_short_ascii_and_a_reason_cannot_steer_a_terminal():
    alert = told(entry(State.REJECTED, last_error="\x1b[2J" + "x" * 5_000))
    assert alert.subject.isascii()
    assert len(alert.failing["a"]) < 400
    assert alert.text.replace("\n", "").isprintable()
    name = "n" * 80
    assert len(Alert({}, {name: ""}).subject) == 100
