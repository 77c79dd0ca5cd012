"""A schedule as the core needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.model import Pause
from cronally.domain.policy import Window, slot_window
from cronally.domain.spec import from_canonical
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from cronally.domain.slots import Slots
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.records import TimetableRow


class Member(NamedTuple):
    """A schedule as the core needs it."""

    id: int
    revision_id: int
    effective_from: UtcMs
    recurrence: Slots
    offset_ms: int
    topic: str
    priority: int
    starts: UtcMs | None
    ends: UtcMs | None
    paused_since: UtcMs | None = None
    paused_until: UtcMs | None = None

    @property
    def window(self) -> Window:
        return slot_window(self.effective_from, self.starts, self.ends)


def member_of(
    id_: int, revision_id: int, spec: ScheduleSpec, effective_from: UtcMs, pause: Pause | None
) -> Member:
    """Return the member that a stored schedule makes. Errors: WhenError, ZoneError (tzdata lost a zone)."""
    return Member(
        id=id_,
        revision_id=revision_id,
        effective_from=effective_from,
        recurrence=spec.recurrence().slots,
        offset_ms=spec.offset_ms(),
        topic=spec.topic,
        priority=spec.priority,
        starts=spec.starts,
        ends=spec.ends,
        paused_since=pause.since if pause else None,
        paused_until=pause.until if pause else None,
    )


def member_of_row(row: TimetableRow) -> Member:
    """Return the member that a row of the store's timetable makes. Errors: WhenError, ZoneError (tzdata lost a zone)."""
    pause = None if row.paused_since is None else Pause(since=row.paused_since, until=row.paused_until)
    return member_of(row.id, row.revision_id, from_canonical(row.name, row.rule), row.effective_from, pause)


def awakened(member: Member) -> Member:
    """Return a paused member as it is once its pause has ended by itself: the slot at the end instant fires."""
    assert member.paused_until is not None
    return member._replace(
        effective_from=UtcMs(max(member.paused_until - 1, member.effective_from)),
        paused_since=None,
        paused_until=None,
    )
