"""The judge of the process test finds each broken promise, and nothing in a run that kept them all."""

from __future__ import annotations

import pytest

from cronally.domain.model import JournalEntry, SkipReason, State
from cronally.domain.spec import from_document
from cronally.engine.records import ScheduleChange
from cronally.instants import UtcMs, format_utc, parse_rfc3339
from cronally.store.sqlite import SqliteStore
from support.process_checker import Change, Disturbance, Incarnation, Received, Record, judge

MADE = parse_rfc3339("2026-11-24T09:00:00.500Z")
FIRST = UtcMs(MADE + 500)
COUNT = 20
THROUGH = UtcMs(FIRST + (COUNT - 1) * 1_000)
DOCUMENT = {
    "when": "@every 1s",
    "topic": "arn:aws:sns:us-east-1:123456789012:a",
    "message": "at <cronally.fire-time>",
    "catch_up": "all",
}


class Story:
    """A run of one schedule in which all went well, to be spoilt."""

    def __init__(self, path):
        self.path = path
        self.rows = [
            JournalEntry(1, slot, 1, slot, State.PUBLISHED, attempts=1, published_at=UtcMs(slot + 3))
            for slot in range(FIRST, THROUGH + 1, 1_000)
        ]
        self.received = [self.got(row.fire_time) for row in self.rows]
        self.record = Record(
            changes=[Change("job", "add", MADE - 5, MADE + 5, {"when": "@every 1s", "priority": 5})],
            incarnations=[Incarnation(MADE - 2_000, MADE - 1_000, THROUGH + 500, THROUGH + 600)],
            through=THROUGH,
        )

    def got(self, slot, *, after_ms=2, answered=True, **other):
        id_ = f"job@{format_utc(slot)}"
        arrived_us = (slot + after_ms) * 1_000
        got = Received(
            fire_id=id_,
            arrived_us=arrived_us,
            connected_us=arrived_us - 1_000,
            answered_us=arrived_us + 100 if answered else None,
            topic=DOCUMENT["topic"],
            message=f"at {format_utc(slot)}",
            attributes={
                "cronally.schedule": "job",
                "cronally.fire_time": format_utc(slot),
                "cronally.fire_id": id_,
            },
            group=None,
            deduplication=None,
        )
        return got._replace(**other)

    def replace(self, number, **fields):
        self.rows[number] = self.rows[number]._replace(**fields)

    def crash(self, after_number):
        """End the daemon shortly after a slot, and let another one follow."""
        at = FIRST + after_number * 1_000 + 100
        last = self.record.incarnations[0]
        self.record.incarnations = [
            Incarnation(last.spawned_at, last.ready_at, at, at, was_crash=True),
            Incarnation(at + 100, at + 300, last.stopping_at, last.ended_at),
        ]
        return at + 400

    async def judged(self):
        store = SqliteStore(self.path)
        await store.open()
        spec = from_document("job", DOCUMENT)
        await store.change(
            ScheduleChange(at=MADE, by="t", action="add", name="job", new_spec=spec, effective_from=MADE)
        )
        await store.commit(self.rows, watermark=THROUGH)
        await store.close(watermark=THROUGH)
        return await judge(self.path, self.record, self.received)


@pytest.fixture
def story(tmp_path):
    return Story(tmp_path / "cronally.db")


async def test_a_run_in_which_all_went_well_is_right(story):
    verdict = await story.judged()
    assert verdict.wrong == []
    assert (verdict.slots, verdict.received, verdict.duplicates) == (COUNT, COUNT, 0)
    assert verdict.states == {"published": COUNT}
    assert set(verdict.lateness_us) == {2_000}


async def test_what_fires_while_the_end_is_waited_for_is_right(story):
    later = UtcMs(THROUGH + 1_000)
    story.rows.append(
        JournalEntry(1, later, 1, later, State.PUBLISHED, attempts=1, published_at=UtcMs(later + 3))
    )
    story.received.append(story.got(later))
    story.record.incarnations = [Incarnation(MADE - 2_000, MADE - 1_000, THROUGH + 1_500, THROUGH + 1_600)]
    assert (await story.judged()).wrong == []


def lose_a_row(story):
    del story.rows[3]


def lose_a_slot(story):
    del story.rows[3], story.received[3]


def lose_a_message(story):
    del story.received[4]


def send_early(story):
    story.received[5] = story.got(story.rows[5].fire_time, after_ms=-1)


def send_twice(story):
    story.received.append(story.got(story.rows[6].fire_time, after_ms=900))


def send_twice_long_before_a_crash(story):
    again = story.crash(10)
    story.received.append(story.got(story.rows[2].fire_time, after_ms=again - story.rows[2].fire_time))


def send_what_is_no_slot(story):
    story.received.append(story.got(UtcMs(FIRST + 1)))


def send_for_a_stranger(story):
    story.received.append(story.got(FIRST, fire_id="other@2026-11-24T09:00:01Z"))


def send_another_text(story):
    story.received[7] = story.received[7]._replace(message="something else")


def send_other_attributes(story):
    story.received[7] = story.received[7]._replace(attributes={})


def send_elsewhere(story):
    story.received[7] = story.received[7]._replace(topic="arn:aws:sns:us-east-1:123456789012:b")


def skip_against_the_policy(story):
    del story.received[8]
    story.replace(8, state=State.SKIPPED, reason=SkipReason.CATCH_UP, published_at=None)


def expire_before_the_deadline(story):
    del story.received[8]
    story.replace(8, state=State.EXPIRED, published_at=None)


def reject_what_is_accepted(story):
    del story.received[8]
    story.replace(8, state=State.REJECTED, published_at=None)


def drop_what_nobody_wants_dropped(story):
    del story.received[8]
    story.replace(8, state=State.SKIPPED, reason=SkipReason.DROPPED, published_at=None)


def doubt_without_a_fault(story):
    story.replace(9, maybe_published=True)


def leave_one_pending(story):
    story.replace(9, state=State.PENDING, published_at=None, next_attempt_at=THROUGH)


def forget_a_change(story):
    story.record.changes.append(Change("job", "set", MADE + 100, MADE + 200, {"when": "@every 2s"}))


def forget_a_manual_fire(story):
    story.record.runs.append(f"job@{format_utc(UtcMs(FIRST + 55))}+manual")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lose_a_row, "was missed"),
        (lose_a_row, "has no entry"),
        (lose_a_slot, "was missed"),
        (lose_a_message, "nobody got it"),
        (send_early, " left at "),
        (send_twice, "was sent again"),
        (send_twice_long_before_a_crash, "before the crash"),
        (send_what_is_no_slot, "is no slot"),
        (send_for_a_stranger, "no such schedule"),
        (send_another_text, "something else"),
        (send_other_attributes, "has the attributes"),
        (send_elsewhere, "went to"),
        (skip_against_the_policy, "its policy is 'all'"),
        (expire_before_the_deadline, "still to come"),
        (reject_what_is_accepted, "the receiver accepts it"),
        (drop_what_nobody_wants_dropped, "nobody wanted that"),
        (doubt_without_a_fault, "there was no fault"),
        (leave_one_pending, "pending at the end"),
        (forget_a_change, "not on record"),
        (forget_a_manual_fire, "was promised"),
    ],
)
async def test_a_broken_promise_is_found(story, spoil, words):
    spoil(story)
    wrong = (await story.judged()).wrong
    assert any(words in text for text in wrong), wrong


async def test_a_crash_explains_the_repeat_of_what_was_sent_just_before_it(story):
    again = story.crash(10)
    story.received.insert(11, story.got(story.rows[10].fire_time, after_ms=again - story.rows[10].fire_time))
    verdict = await story.judged()
    assert verdict.wrong == []
    assert verdict.duplicates == 1


@pytest.mark.parametrize("kind", ["freeze", "outage"])
async def test_a_fault_explains_the_repeat_of_what_it_met_on_its_way(story, kind):
    at = story.rows[10].fire_time
    story.record.disturbances = [Disturbance(kind, at, at + 500)]
    story.received.insert(11, story.got(at, after_ms=700))
    assert (await story.judged()).wrong == []


async def test_a_lost_answer_explains_a_repeat(story):
    at = story.rows[10].fire_time
    story.received[10] = story.got(at, answered=False)
    story.received.insert(11, story.got(at, after_ms=700))
    assert (await story.judged()).wrong == []
