"""What a start makes of the schedules in the store, whatever they are and however many share a rule."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from cronally.domain.model import Pause
from cronally.domain.spec import canonical_document, from_document, rule_document
from cronally.engine.core import Core
from cronally.engine.hooks import Hooks
from cronally.engine.member import member_of
from cronally.engine.records import ScheduleChange, TimetableRow
from cronally.engine.recovery import Recovery
from support.fake_clock import FakeClock
from support.memory_store import MemoryStore
from support.work import count_calls

NOW = FakeClock().wall()
TOPICS = [f"arn:aws:sns:us-east-1:123456789012:{name}" for name in ("a", "b")]
INSTANTS = ["2020-01-01T00:00:00Z", "2026-11-23T08:00:00Z", "2027-06-01T00:00:00Z"]

documents = st.fixed_dictionaries(
    {
        "when": st.sampled_from(
            [
                "0 9 * * *",
                "00 9 * * *",
                "H 9 * * *",
                "H/30 H(8-9) * * *",
                "H(0-1),7 * H/20 * *",
                "h 0 * * H,mon",
                "@every 90s",
                "@every 1h",
                "@at 2027-01-01T00:00",
                "0 0 L * ?",
            ]
        ),
        "topic": st.sampled_from(TOPICS),
    },
    optional={
        "tz": st.sampled_from(["UTC", "Europe/London"]),
        "on_repeat": st.just("both"),
        "spread": st.sampled_from(["10s", "1h"]),
        "priority": st.sampled_from([1, 5]),
        "starts": st.sampled_from(INSTANTS[:2]),
        "ends": st.just(INSTANTS[2]),
        "message": st.sampled_from(["x", "y"]),
        "tags": st.just(["t"]),
    },
)
pauses = st.sampled_from([None, None, None, Pause(since=NOW - 5), Pause(since=NOW - 5, until=NOW + 60_000)])


async def load(store, clock):
    core = Core()
    await Recovery(core, store, None, clock, Hooks()).load()
    for _ in core.restart(clock.wall(), clock.wall()):
        pass
    return core


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(documents, pauses, st.sampled_from([-3, -2, -1])), max_size=20))
def test_every_schedule_is_loaded_as_its_document_says(schedules):
    async def check():
        store, clock, expected = MemoryStore(), FakeClock(), []
        for number, (document, pause, effective_from) in enumerate(schedules):
            spec = from_document(f"job-{number}", document)
            at = NOW + effective_from
            change = ScheduleChange(
                at=at, by="t", action="add", name=spec.name, new_spec=spec, effective_from=at, pause=pause
            )
            revised = await store.change(change)
            expected.append(member_of(revised.id, revised.revision_id, spec, at, pause))
        core = await load(store, clock)
        seated = []
        for member in expected:
            found = core.member(member.id)
            if member.paused_since is not None:
                assert found == member
            elif member.recurrence.at_ms is not None:
                assert found is None
            else:
                assert found.window == member.window
                assert found == member._replace(effective_from=member.window.after, starts=None)
                seated.append(member)
        assert len(core.timetable) == len(seated)
        entries = {(m.recurrence, m.offset_ms, m.topic, m.priority) for m in seated}
        assert len(list(core.timetable.entries())) == len(entries)
        dues = [
            slot + m.offset_ms
            for m in seated
            if (slot := m.recurrence.next_ms(NOW - m.offset_ms)) is not None
        ]
        assert core.timetable.next_due() == min(dues, default=None)

    asyncio.run(check())


class Listed(MemoryStore):
    """A store whose timetable costs nothing to read."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows

    async def timetable(self):
        yield self.rows


def test_a_rule_is_read_once_for_all_that_share_it():
    def calls(schedules):
        rules = [
            rule_document(
                canonical_document(from_document("x", {"when": f"{n} 9 * * *", "topic": TOPICS[0]}))
            )
            for n in range(20)
        ]
        rules[0] = rules[0].replace('"0 9', '"H 9')
        rules[1] = rules[1].replace('"topic"', '"spread":"1m","topic"')
        rows = [
            TimetableRow(n, n, f"job-{n}", rules[n % 20], NOW, None, None) for n in range(1, schedules + 1)
        ]
        return count_calls(lambda: asyncio.run(load(Listed(rows), FakeClock())))

    assert calls(20_000) - calls(10_000) < 10_000 * 6
