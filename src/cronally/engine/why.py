"""Why a schedule has a fire at an instant, or has none: the rule, the bounds around it, and the journal's word.

Pure: what the store holds is an argument. The journal is believed before the present rule, for the rule may have been
another one then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from cronally.domain.matching import Match, match_at
from cronally.domain.model import Kind, State
from cronally.instants import MIN_UTC_MS, UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.domain.instant_text import Asked
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.records import JournalRow, StoredSchedule
    from cronally.engine.retention import Keep

Fate = Literal[
    "published",
    "pending",
    "skipped",
    "expired",
    "rejected",
    "upcoming",
    "unsettled",
    "pruned",
    "unknown",
    "none",
]
_STATES: Final[dict[State, Fate]] = {
    State.PUBLISHED: "published",
    State.PENDING: "pending",
    State.SKIPPED: "skipped",
    State.EXPIRED: "expired",
    State.REJECTED: "rejected",
}
_REASONS: Final = {
    "catch_up": "it was missed, and catch_up chose others or none",
    "superseded": "a newer slot was due before it could be sent (catch_up: latest)",
    "paused": "the schedule was paused",
    "dropped": "its pending fires were dropped by a command",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """The answer.

    Attributes: stored: the schedule as it is. asked: the instant. match: what the present rule makes of it. due: the
        fire time plus the spread. bounds: sentences on what keeps the rule from firing there: starts, ends, effective
        from, a pause. rows: the journal rows that cover it, of every kind. fate: what became of the scheduled slot;
        ``upcoming``: to come; ``unsettled``: due, its outcome not on record yet; ``pruned``: so old that its row is gone;
        ``unknown``: there should be a row and is none; ``none``: there is no slot. text: the fate in one sentence.
    """

    stored: StoredSchedule
    asked: Asked
    match: Match
    due: UtcMs
    bounds: tuple[str, ...]
    rows: tuple[JournalRow, ...]
    fate: Fate
    text: str


def why(
    stored: StoredSchedule,
    asked: Asked,
    rows: Sequence[JournalRow],
    specs: dict[int, ScheduleSpec],
    *,
    now: UtcMs,
    watermark: UtcMs | None,
    pruned_through: UtcMs | None,
    keep: Keep,
) -> Why:
    """Return why *stored* has a fire at the instant *asked* or has none.

    Args: rows: those that ``Store.covering`` gave. specs: of the revisions of *rows*. watermark: every slot due at or
        before it is journalled. pruned_through: the rows of slots due at or before it may be gone; None: of none. keep:
        how much of the journal is kept.
    Errors: WhenError, ZoneError if the schedule's rule cannot be read any more.
    """
    at = asked.at
    match = match_at(stored.spec.recurrence(), at)
    due = UtcMs(at + stored.spec.offset_ms())
    bounds = tuple(_bounds(stored, at))
    told = tuple(row for row in rows if _is_of(row, at, specs))
    scheduled = next((row for row in told if row.entry.kind is Kind.SCHEDULED), None)
    is_pruned = pruned_through is not None and due <= pruned_through
    fate: Fate
    if scheduled is not None:
        fate, text = _STATES[scheduled.entry.state], _journalled(scheduled, at, stored, specs)
    elif not match.is_slot:
        fate, text = "none", f"there is no slot: {match.reason}"
    elif bounds:
        fate, text = "none", f"the rule matches, but there is no fire: {'; '.join(bounds)}"
    elif due > now:
        spread = "" if due == at else f" (its spread puts it at {format_utc(due)})"
        fate, text = "upcoming", f"it is still to come{spread}"
    elif is_pruned:
        fate, text = "pruned", f"it was settled, and its entry is pruned: {_kept(pruned_through, keep)}"
    elif watermark is None or due > watermark:
        fate, text = "unsettled", "it is due, and its outcome is not on record yet; ask again in a moment"
    else:
        fate, text = "unknown", "nothing is on record for it, although the journal goes back so far"
    if fate == "none" and is_pruned and stored.created_at < at <= stored.effective_from:
        text += f"; what came of another rule then is pruned: {_kept(pruned_through, keep)}"
    return Why(
        stored=stored,
        asked=asked,
        match=match,
        due=due,
        bounds=bounds,
        rows=told,
        fate=fate,
        text=text,
    )


def _kept(pruned_through: UtcMs | None, keep: Keep) -> str:
    through = format_utc(pruned_through or MIN_UTC_MS)
    return f"the journal keeps {keep}, and has let go of slots due up to {through}"


def _bounds(stored: StoredSchedule, at: UtcMs) -> list[str]:
    spec, pause = stored.spec, stored.pause
    bounds = []
    if at <= stored.effective_from:
        bounds.append(
            f"this rule is in effect since {format_utc(stored.effective_from)} and has no slots before"
        )
    if spec.starts is not None and at < spec.starts:
        bounds.append(f"the schedule starts at {format_utc(spec.starts)}")
    if spec.ends is not None and at > spec.ends:
        bounds.append(f"the schedule ended with {format_utc(spec.ends)}")
    if pause is not None and at > pause.since and (pause.until is None or at < pause.until):
        until = "until it is resumed" if pause.until is None else f"until {format_utc(pause.until)}"
        bounds.append(f"the schedule is paused since {format_utc(pause.since)}, {until}")
    return bounds


def _is_of(row: JournalRow, at: UtcMs, specs: dict[int, ScheduleSpec]) -> bool:
    """Whether *row* speaks of the instant itself: a range also covers the time between its slots."""
    entry = row.entry
    if entry.fire_time == at:
        return entry.count > 0
    if entry.last_fire_time is None or at > entry.last_fire_time:  # of an open row: it is still to come
        return False
    spec = specs.get(row.entry.revision_id)
    return spec is not None and spec.recurrence().latest_ms(UtcMs(at + 1)) == at


def _journalled(row: JournalRow, at: UtcMs, stored: StoredSchedule, specs: dict[int, ScheduleSpec]) -> str:
    entry = row.entry
    if entry.state is State.PUBLISHED:
        when = "" if entry.published_at is None else f" at {format_utc(entry.published_at)}"
        text = f"SNS accepted it{when}"
    elif entry.state is State.PENDING:
        when = "" if entry.next_attempt_at is None else f", next at {format_utc(entry.next_attempt_at)}"
        text = f"it is still to be published (attempts so far: {entry.attempts}{when})"
    elif entry.state is State.SKIPPED:
        text = f"it was skipped: {_REASONS.get(str(entry.reason), str(entry.reason))}"
    elif entry.state is State.EXPIRED:
        text = "it was not published before its deadline"
    else:
        text = "SNS refuses it for good"
    if entry.asked_at is not None:
        text += f"; 'cronally retry' asked for it again at {format_utc(entry.asked_at)}"
    if entry.last_error and entry.state is not State.PUBLISHED:
        text += f"; SNS said: {entry.last_error}"
    if entry.maybe_published and entry.state is not State.PUBLISHED:
        text += "; yet an attempt ended without an answer, so it may have been published"
    if entry.fire_time != at or entry.count > 1 or entry.is_open:
        text += f"; one row says so of the slots from {format_utc(entry.fire_time)} to {format_utc(entry.last_slot)}"
    spec = specs.get(entry.revision_id)
    if spec is not None and entry.revision_id != stored.revision_id and spec.when != stored.spec.when:
        text += f"; the rule was {spec.when!r} then"
    return text
