"""The watermark never passes a slot that has no row, whatever is done to the core, in whatever order."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from cronally.domain.model import Kind
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.memory_store import MemoryStore
from support.recording_publisher import PUBLISHED, THROTTLED, TIMED_OUT
from support.rig import FIFO_TOPIC, TOPIC, running_engine
from support.slot_checker import slots_of


class WatchfulStore(MemoryStore):
    """Checks at every commit that all slots due by the watermark have a row; the schedules never change."""

    def __init__(self, clock):
        super().__init__()
        self.clock = clock
        self.checked = 0

    async def commit(self, entries, *, watermark, **further):
        superseded = await super().commit(entries, watermark=watermark, **further)
        if watermark is None:
            return superseded
        assert watermark <= self.clock.wall()
        rows = {}
        for entry in self._journal.values():
            if entry.kind is Kind.SCHEDULED:
                rows.setdefault(entry.schedule_id, []).append(
                    (entry.fire_time, entry.last_fire_time or entry.fire_time)
                )
        for schedule in self._schedules.values():
            from cronally.domain.spec import to_document

            offset = schedule.spec.offset_ms()
            for slot in slots_of(to_document(schedule.spec), schedule.effective_from, watermark - offset):
                covered = any(first <= slot <= last for first, last in rows.get(schedule.id, ()))
                assert covered, (schedule.spec.name, slot, watermark)
                self.checked += 1
        return superseded


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**9))
def test_the_watermark_never_passes_an_unsettled_slot(seed):
    chosen = random.Random(seed)

    async def story():
        clock = FakeClock("2026-11-23T08:59:30.250Z")
        inner = WatchfulStore(clock)
        store = FaultyStore(clock, inner)
        for crash in (True, False):

            def script(_entry, _attempt):
                answer = chosen.choice((PUBLISHED, PUBLISHED, THROTTLED, TIMED_OUT))
                return answer._replace(delay_s=chosen.choice((0, 0.03, 1.7)))

            async with running_engine(clock=clock, store=store, script=script, crash=crash) as rig:
                if crash:
                    for number in range(4):
                        when = chosen.choice(("@every 1s", "@every 3s", "* * * * *"))
                        topic = chosen.choice((TOPIC, FIFO_TOPIC))
                        spread = chosen.choice(("0", "5s"))
                        await rig.add(f"job-{number}", when, topic=topic, spread=spread, catch_up="all")
                    await rig.add("once", "@at 2026-11-23T08:59:41Z")
                for _ in range(8):
                    store.fails = lambda name: (
                        name in ("commit", "specs", "at_between") and chosen.random() < 0.2
                    )
                    store.before_s["commit"] = chosen.choice((0, 0, 0.4))
                    await clock.advance(chosen.choice((0.01, 0.7, 2)))
                    if chosen.random() < 0.2:
                        await clock.suspend(chosen.choice((2, 30)))
                store.fail()
                store.before_s.clear()
                await clock.advance(3)
            await clock.advance(chosen.choice((0, 3, 30)))
        assert inner.checked > 0

    asyncio.run(story())
