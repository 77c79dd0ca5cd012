"""What every store derives from a spec or an entry, so that all of them derive the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cronally.domain.model import State, is_same_pause
from cronally.domain.spec import from_canonical
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from cronally.domain.model import JournalEntry, Pause
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.records import ScheduleChange, StagedRow


class SingleSlot(NamedTuple):
    """The one slot of an ``@at`` rule, and when it is due."""

    fire_time: UtcMs
    due_time: UtcMs


def single_slot(spec: ScheduleSpec) -> SingleSlot | None:
    """Return the slot of an ``@at`` rule; None for every other rule, and if it lies outside ``starts`` and ``ends``."""
    at_ms = spec.recurrence().at_ms
    if at_ms is None or (spec.starts is not None and at_ms < spec.starts):
        return None
    if spec.ends is not None and at_ms > spec.ends:
        return None
    return SingleSlot(at_ms, UtcMs(at_ms + spec.offset_ms()))


def staged_slot(row: StagedRow) -> SingleSlot | None:
    """Return the slot of a staged line, which says itself whether it is an ``@at`` rule, without parsing its rule."""
    if row.at_due is None:
        return None
    offset_ms = from_canonical(row.name, row.document).offset_ms() if '"spread":' in row.document else 0
    return SingleSlot(UtcMs(row.at_due - offset_ms), row.at_due)


def as_stored(entry: JournalEntry) -> JournalEntry:
    """Return *entry* as a store keeps it: a next attempt if, and only if, it is pending (at its due time by default)."""
    if entry.state is not State.PENDING:
        return entry._replace(next_attempt_at=None, is_in_line=False)
    return entry if entry.next_attempt_at is not None else entry._replace(next_attempt_at=entry.due_time)


def change_detail(change: ScheduleChange, pause: Pause | None, owner: str | None) -> dict[str, Any]:
    """Return what the audit log says of *change* beside its revisions (``AuditRow.detail``). pause, owner: as they were before."""
    detail: dict[str, Any] = {}
    if not change.is_removal and (change.new_spec is None or not is_same_pause(pause, change.pause)):
        detail |= _pause_said(change.pause) or {}
        detail["was"] = _pause_said(pause)
    if change.owner is not None:
        detail |= owner_detail(change.owner, None if change.id is None else owner, is_new=change.id is None)
    if change.drop_pending:
        detail["drop_pending"] = True
    if change.is_removal and change.action != "rm":
        detail["removed"] = True  # else its action says so
    return detail


def owner_detail(owner: str, was: str | None, *, is_new: bool) -> dict[str, Any]:
    """Return what the audit log says of the owner of an apply. was: the schedule's before it."""
    return {"owner": owner} if is_new or was == owner else {"owner": owner, "owner_was": was}


def _pause_said(pause: Pause | None) -> dict[str, Any] | None:
    if pause is None:
        return None
    said = {"since": pause.since, "until": pause.until, "note": pause.note}
    return {key: value for key, value in said.items() if value is not None}
