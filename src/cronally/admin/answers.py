"""From what the service returns to what travels: plain JSON values in the shapes of ``wire``."""

from __future__ import annotations

import json
from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from cronally.admin import wire
from cronally.domain.durations import format_duration
from cronally.domain.model import State, fire_id
from cronally.domain.spec import DOCUMENT_KEYS, to_document
from cronally.instants import UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import Callable

    from cronally.domain.instant_text import Asked
    from cronally.domain.matching import Match
    from cronally.domain.model import Pause
    from cronally.engine.applying import ApplyResult, Difference, ScheduleState
    from cronally.engine.copies import Contents
    from cronally.engine.forecast import Forecast
    from cronally.engine.membership import MachineState, Sharing
    from cronally.engine.orders import Backfilled, Retried
    from cronally.engine.records import AuditRow, JournalRow, StoredSchedule, TopicUse
    from cronally.engine.views import Overview, Refusing, ScheduleView, Status
    from cronally.engine.why import Why
    from cronally.engine.zone_watch import ZoneChange

dumps: Final = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make one per row
_SHOWN: Final = 20  # fires that a preview has with all that is known of them
_DEFAULTS: Final = dict.fromkeys(key for key in DOCUMENT_KEYS if key != "paused") | {
    "tz": "UTC",
    "dialect": "unix",
    "attributes": {},
    "catch_up": "latest",
    "deadline": "1d",
    "on_gap": "run",
    "on_repeat": "first",
    "spread": "0s",
    "priority": 5,
    "tags": [],
}


def schedule_answer(view: ScheduleView) -> dict[str, Any]:
    """Return a schedule as ``wire.Schedule`` has it: the whole document, defaults written out, and its state."""
    stored = view.stored
    fires = [format_utc(slot) for slot in view.next_fires]
    document = _DEFAULTS | to_document(stored.spec)
    return {
        "name": stored.spec.name,
        "when": document.pop("when"),
        "tz": document.pop("tz"),
        "topic": document.pop("topic"),
        "paused": _paused(stored.pause),
        "next_fire": fires[0] if fires else None,
        "error": stored.error,
        **document,
        "revision": stored.revision,
        "pending": stored.pending,
        "offset": format_duration(stored.spec.offset_ms()),
        "owner": stored.owner,
        "effective_from": format_utc(stored.effective_from),
        "created_at": format_utc(stored.created_at),
        "changed_at": format_utc(stored.changed_at),
        "warnings": list(view.warnings),
        "next_fires": fires,
    }


def fire_answer(row: JournalRow) -> dict[str, Any]:
    """Return a journal row as ``wire.Fire`` has it."""
    entry = row.entry
    return {
        "fire_id": fire_id(row.name, entry.fire_time, entry.kind),
        "schedule": row.name,
        "fire_time": format_utc(entry.fire_time),
        "kind": str(entry.kind),
        "state": str(entry.state),
        "reason": None if entry.reason is None else str(entry.reason),
        "attempts": entry.attempts,
        "released_at": _instant(entry.released_at),
        "published_at": _instant(entry.published_at),
        "lateness_us": entry.lateness_us,
        "maybe_published": entry.maybe_published,
        "last_error": entry.last_error,
        "last_fire_time": format_utc(entry.last_slot),
        "count": entry.count,
    }


def change_answer(row: AuditRow) -> dict[str, Any]:
    """Return a line of the audit log as ``wire.Change`` has it."""
    before = None if row.before is None else to_document(row.before)
    after = None if row.after is None else to_document(row.after)
    if row.before is not None and row.after is not None and row.before.name != row.after.name:
        before, after = {"name": row.before.name, **(before or {})}, {"name": row.after.name, **(after or {})}
    told = dict(row.detail)
    if "was" in told or "since" in told:
        kept = {key: told.pop(key, None) for key in ("since", "until", "note")}
        was = told.pop("was", None)
        if row.after is None or row.before is not None:  # or it was made at rest
            before = {**(before or {}), "paused": _pause_told(was)}
        after = {**(after or {}), "paused": _pause_told(kept)}
    if "owner_was" in told:
        before = {**(before or {}), "owner": told.pop("owner_was")}
        after = {**(after or {}), "owner": told["owner"]}
    return {
        "at": format_utc(row.at),
        "by": row.by,
        "action": row.action,
        "schedule": row.name,
        "revision": row.revision,
        "before": before,
        "after": after,
        "detail": told,
    }


def _pause_told(told: Any) -> dict[str, str | None] | bool:
    """Return a pause of the audit log as it travels."""
    if told is None or told.get("since") is None:
        return False
    return {
        "since": format_utc(told["since"]),
        "until": _instant(told.get("until")),
        "note": told.get("note"),
    }


def retry_answer(done: Retried, *, with_fires: bool) -> wire.RetryReply:
    """Return what a retry did as it travels."""
    return wire.RetryReply(
        retried=[fire_id(row.name, row.entry.fire_time, row.entry.kind) for row in done.rows],
        pending=list(done.pending),
        fires=[wire.Fire(**fire_answer(row)) for row in done.rows[:_SHOWN]] if with_fires else [],
    )


def backfill_answer(stored: StoredSchedule, done: Backfilled) -> wire.BackfillReply:
    """Return what a backfill did as it travels."""
    return wire.BackfillReply(
        name=stored.spec.name,
        tz=stored.spec.tz,
        slots=done.slots,
        backfilled=done.made,
        already=done.already,
        first=_instant(done.first),
        last=_instant(done.last),
        fires=list(done.fires),
    )


def status_answer(status: Status) -> wire.Status:
    """Return the daemon's state as it travels."""
    return wire.Status(
        version=status.version,
        tzdata=status.tzdata,
        started_at=format_utc(status.started_at),
        now=format_utc(status.now),
        is_ready=status.is_ready,
        not_ready_because=status.not_ready_because,
        store=status.store,
        schedules=status.schedules,
        paused=status.paused,
        failing=status.failing,
        pending=status.journal.get(State.PENDING, 0),
        journal={str(state): status.journal.get(state, 0) for state in State},
        watermark=_instant(status.watermark),
        next_fire=_instant(status.next_fire),
        in_flight=status.in_flight,
        lateness_us=status.lateness_us,
        lateness_histogram=[{"le_us": bound, "count": count} for bound, count in status.lateness_histogram],
        stand_in=status.stand_in,
        zone_change=None if status.zone_change is None else _zone_change(status.zone_change),
        pruned_through=_instant(status.pruned_through),
        size_bytes=status.size_bytes,
        journal_keep=format_duration(status.keep.keep_ms),
        journal_max_bytes=status.keep.max_bytes,
        store_warning=status.store_warning,
        refusing=[_refusing(one) for one in status.refusing],
        refusing_count=status.refusing_count,
        **({} if status.sharing is None else _sharing(status.sharing)),
    )


def _sharing(sharing: Sharing) -> dict[str, Any]:
    return {
        "machines": [_machine(one) for one in sharing.machines],
        "free_shards": sharing.free,
        "trusted_for_ms": round(sharing.trusted_for_s * 1000),
        "has_history": sharing.has_history,
        "table_error": sharing.error,
    }


def _machine(machine: MachineState) -> dict[str, Any]:
    return {
        "id": machine.id,
        "host": machine.host,
        "is_self": machine.is_self,
        "state": "gone" if machine.is_retired else "leaving" if machine.is_leaving else "alive",
        "shards": len(machine.shards),
        "heartbeat_age_ms": round(machine.heartbeat_age_s * 1000),
        "lease_ms": machine.lease_ms,
        "lag_ms": machine.lag_ms,
        "started_at": format_utc(machine.started_at),
    }


def overview_answer(overview: Overview) -> wire.Overview:
    """Return what a live view shows as it travels."""
    return wire.Overview(
        version=overview.version,
        started_at=format_utc(overview.started_at),
        now=format_utc(overview.now),
        not_ready_because=overview.not_ready_because,
        schedules=overview.schedules,
        paused=overview.paused,
        failing=overview.failing,
        pending=overview.pending,
        oldest_pending_due=_instant(overview.oldest_pending_due),
        in_flight=overview.in_flight,
        watermark=format_utc(overview.watermark),
        ended={str(state): overview.ended.get(state, 0) for state in State if state is not State.PENDING},
        lateness_us=overview.lateness_us,
        refusing=[_refusing(one) for one in overview.refusing],
        refusing_count=overview.refusing_count,
        coming=[
            wire.Coming(
                schedule=one.label.name,
                fire_time=format_utc(one.fire_time),
                due=format_utc(one.due_time),
                tz=one.label.tz,
                topic=one.label.topic,
            )
            for one in overview.coming
        ],
    )


def topic_answer(use: TopicUse, refusing: Refusing | None) -> wire.Topic:
    """Return a topic in use as it travels."""
    shown = None
    if refusing is not None:
        plain = _refusing(refusing)
        shown = {key: plain[key] for key in ("since", "error", "next_probe")}
    return wire.Topic(**use._asdict(), refusing=shown)


def _refusing(one: Refusing) -> dict[str, Any]:
    since, next_probe = format_utc(one.since), format_utc(one.next_probe)
    return {**one._asdict(), "since": since, "next_probe": next_probe}


def _zone_change(change: ZoneChange) -> dict[str, Any]:
    return {"old": change.old, "new": change.new, "names": list(change.names), "count": change.count}


def why_answer(why: Why) -> wire.Why:
    """Return why there is a fire or none as it travels."""
    match, asked = why.match, why.asked
    days = None
    if match.needs_both is not None:
        days = "a day must match both day fields" if match.needs_both else "a day may match either day field"
    return wire.Why(
        name=why.stored.spec.name,
        at=format_utc(asked.at),
        local=_local_text(match),
        tz=why.stored.spec.tz,
        when=why.stored.spec.when,
        fate=why.fate,
        text=why.text,
        is_slot=match.is_slot,
        reason=match.reason,
        asked_as=_asked_text(asked),
        fields=[
            wire.FieldMatch(field=one.name, written=one.written, value=one.value, is_match=one.is_match)
            for one in match.fields
        ],
        days=days,
        dst=match.dst,
        bounds=list(why.bounds),
        due=format_utc(why.due),
        previous=_instant(match.previous),
        following=_instant(match.following),
        fires=[wire.Fire(**fire_answer(row)) for row in why.rows],
    )


def _local_text(match: Match) -> str:
    offset = timezone(timedelta(seconds=match.offset_s))
    return match.local.replace(tzinfo=offset).isoformat()


def _asked_text(asked: Asked) -> str | None:
    if asked.local is None or asked.kind == "once":
        return None
    local = asked.local.isoformat(" ")
    if asked.kind == "gap":
        return f"{local} does not exist there; this is the first instant after the gap"
    return f"{local} comes twice there; this is the first, and the second can be named with its UTC offset"


def apply_answer(result: ApplyResult, *, is_dry_run: bool) -> wire.ApplyReply:
    """Return the result of an apply as it travels, without its differences."""
    return wire.ApplyReply(
        created=result.created,
        changed=result.changed,
        removed=result.removed,
        unchanged=result.unchanged,
        is_dry_run=is_dry_run,
        problems=[wire.Problem(line=p.line, name=p.name, reason=p.reason) for p in result.problems],
        problem_count=result.problem_count,
    )


def forecast_answer(forecast: Forecast, quota_per_s: Callable[[str, bool], float]) -> wire.Forecast:
    """Return a forecast as it travels. quota_per_s: of a region, for FIFO topics or the others."""
    return wire.Forecast(
        starts_at=format_utc(forecast.starts_at),
        loads=[
            wire.Load(
                region=way.region,
                is_fifo=way.is_fifo,
                quota_per_s=quota_per_s(way.region, way.is_fifo),
                minutes=list(minutes),
            )
            for way, minutes in sorted(forecast.minutes.items())
        ],
    )


def difference_answer(difference: Difference) -> wire.Difference:
    """Return what an apply would do to a schedule as it travels."""
    before, after = difference.before, difference.after
    return wire.Difference(
        action="create" if before is None else "remove" if after is None else "change",
        name=difference.name,
        before=_state_answer(before),
        after=_state_answer(after),
        next_before=[format_utc(slot) for slot in before.next_fires] if before else [],
        next_after=[format_utc(slot) for slot in after.next_fires] if after else [],
    )


def _state_answer(state: ScheduleState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    pause = _paused(state.pause)
    return to_document(state.spec) | ({"paused": pause} if pause else {})


def copy_answer(contents: Contents) -> wire.Copy:
    """Return what a backup holds as it travels."""
    return wire.Copy(
        file=contents.path,
        size_bytes=contents.size_bytes,
        schedules=contents.schedules,
        journal=contents.journal,
        pending=contents.pending,
        watermark=_instant(contents.watermark),
        schema=contents.schema,
    )


def _instant(instant: UtcMs | None) -> str | None:
    return None if instant is None else format_utc(instant)


def _paused(pause: Pause | None) -> dict[str, str | None] | bool:
    if pause is None:
        return False
    return {
        "since": format_utc(pause.since),
        "until": _instant(pause.until),
        "note": pause.note,
        "by": pause.by,
    }
