"""Entries and batches for tests of the publishing side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cronally.domain.batching import Batch
from cronally.domain.message import Entry, compose
from cronally.domain.model import Fire
from cronally.domain.spec import ScheduleSpec
from cronally.instants import MAX_UTC_MS, UtcMs

if TYPE_CHECKING:
    from cronally.engine.core import Core
    from cronally.engine.ports import Outcome

TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
FIFO_TOPIC = "arn:aws:sns:us-east-1:123456789012:orders.fifo"
NINE = UtcMs(1_795_424_400_000)  # 2026-11-23T09:00:00Z


def entry(number: int = 0, *, topic: str = TOPIC, fire_time: UtcMs = NINE, **spec: Any) -> Entry:
    """Return the entry of schedule ``job-NUMBER`` at *fire_time*, without a deadline; *spec*: other fields of its ScheduleSpec."""
    fields = {"name": f"job-{number}", "when": "0 9 * * *", "topic": topic, **spec}
    composed = compose(ScheduleSpec(**fields), Fire(number, number, fire_time, fire_time))
    return composed._replace(fire=composed.fire._replace(deadline_at=MAX_UTC_MS))


def sized_entry(number: int, size_bytes: int, **spec: Any) -> Entry:
    """Return the entry of schedule ``job-NUMBER``, said to be *size_bytes* long."""
    return entry(number, **spec)._replace(size_bytes=size_bytes)


def batch(count: int = 1, *, first: int = 0, topic: str = TOPIC, **spec: Any) -> Batch:
    """Return a batch of *count* entries, of the schedules ``job-FIRST`` and on."""
    return Batch(topic, tuple(entry(n, topic=topic, **spec) for n in range(first, first + count)))


def launch(core: Core, *fires: Fire) -> None:
    """Mark *fires*, which the core holds, in flight."""
    spec = ScheduleSpec(name="job", when="0 9 * * *", topic=TOPIC)
    assert core.launch([compose(spec, fire) for fire in fires], fires[0].due_time)


def numbers(outcomes: list[Outcome]) -> list[int]:
    """Return the schedule numbers of *outcomes*, sorted."""
    return sorted(outcome.fire.schedule_id for outcome in outcomes)
