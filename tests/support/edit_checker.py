"""A judge of what was changed while things went wrong: what was answered holds, what was not may have been done once, and nothing else was.

1. An edit that was answered with success holds at some instant between question and answer.
2. Whatever the audit log says was done comes of an edit, each edit does a thing once, and one that was not answered does it soon
   or never.
3. What is read afterwards is what was answered: at once at the machine that answered, and soon at every other one.

That slots follow what is on record, and messages the rule in force, is the slot checker's to say.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain import model
from cronally.domain.durations import parse_duration
from cronally.instants import MAX_UTC_MS
from support.process_checker import DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from cronally.domain.model import JournalEntry
    from support.slot_lives import Life, Rest

_LATEST_MS = 90_000
"""So late what was not answered may still be done: it waits 12 s for an owner and 15 s for its answer, and both may be frozen meanwhile."""
_LATEST_APPLY_MS = 400_000  # a part of an apply waits 300 s


class Kind(StrEnum):
    """What an edit asks for."""

    PUT = "put"
    RM = "rm"
    PAUSE = "pause"
    RESUME = "resume"
    RUN = "run"
    RETRY = "retry"


@dataclass
class Edit:
    """Something that was asked for at a machine. Instants are UTC milliseconds.

    Fields: via: the machine, none for what there was at first. answered: when success was told; None if it
        was not. expects: keys of the document. fires: ids that were promised, or asked for. is_command: it was typed, not called. was_refused:
        the answer was that it cannot be done. error: what was said instead of success.
    """

    name: str
    kind: Kind
    via: str
    began: int
    answered: int | None = None
    expects: dict[str, object] = field(default_factory=dict)
    fires: list[str] = field(default_factory=list)
    is_command: bool = False
    was_refused: bool = False
    is_apply: bool = False
    error: str = ""

    @property
    def latest(self) -> int:
        """Until when it may have been done."""
        if self.answered is not None:
            return self.answered
        return self.began + (_LATEST_APPLY_MS if self.is_apply else _LATEST_MS)


@dataclass
class Look:
    """What a machine said that is not what *edit* left, the last one of its schedule. is_at_once: it must know, whatever goes wrong."""

    edit: Edit
    via: str
    at: int
    said: str
    is_at_once: bool


class _Done(NamedTuple):
    at: int
    kind: Kind
    document: Mapping[str, object]


def edit_faults(
    lives: Iterable[Life], edits: Iterable[Edit], fires: Sequence[tuple[str, JournalEntry]], through: int
) -> list[str]:
    """Return what is wrong, a sentence each. fires: the journal, each row with its schedule's name. through: up to when it is complete."""
    lives_of: dict[str, list[Life]] = {}
    for life in lives:
        lives_of.setdefault(life.name, []).append(life)
    edits_of: dict[str, list[Edit]] = {}
    for edit in edits:
        if not edit.was_refused:
            edits_of.setdefault(edit.name, []).append(edit)
    wrong: list[str] = []
    for name in sorted(lives_of.keys() | edits_of.keys()):
        own, asked = lives_of.get(name, []), edits_of.get(name, [])
        wrong += [
            f"{edit.kind} of {name} by {edit.via} was answered at {edit.answered} and does not hold"
            for edit in asked
            if edit.answered is not None and not _holds(edit, own)
        ]
        wrong += _unasked(name, own, asked)
    return [*wrong, *_fire_faults(edits_of, fires, through)]


# --- what was answered ------------------------------------------------------------------------------------------------


def _holds(edit: Edit, lives: Sequence[Life]) -> bool:
    """Whether it is so at some instant from its question to its answer."""
    began, answered = edit.began, edit.answered or edit.began
    match edit.kind:
        case Kind.PUT:
            return any(
                since <= answered and until >= began and _has(document, edit.expects)
                for life in lives
                for since, until, document in _documents(life)
            )
        case Kind.RM:
            return all(life.removed_at <= answered or life.rules[0].after >= began for life in lives)
        case Kind.PAUSE:
            return any(rest.since <= answered and _end(rest) >= began for rest in _rests(lives))
        case Kind.RESUME:
            return not any(rest.since < began and _end(rest) > answered for rest in _rests(lives))
    return True


def _has(document: Mapping[str, object], expects: Mapping[str, object]) -> bool:
    return _plain(expects).items() <= _plain(DEFAULTS | {**document}).items()


def _plain(document: Mapping[str, object]) -> dict[str, object]:
    """Return *document* with its durations in milliseconds, however they are written."""
    plain = dict(document)
    for key in ("spread", "deadline"):
        if key in plain:
            plain[key] = parse_duration(str(plain[key]))
    return plain


def _documents(life: Life) -> Iterator[tuple[int, int, Mapping[str, object]]]:
    """Yield from when to when each document was in force."""
    ends = [*(rule.after for rule in life.rules[1:]), life.removed_at]
    for rule, end in zip(life.rules, ends, strict=True):
        yield rule.after, end, rule.document


def _rests(lives: Iterable[Life]) -> Iterator[Rest]:
    for life in lives:
        yield from life.rests


def _end(rest: Rest) -> int:
    return rest.resumed_at if rest.until is None else min(rest.resumed_at, rest.until)


# --- what was done ----------------------------------------------------------------------------------------------------


def _unasked(name: str, lives: Sequence[Life], edits: Sequence[Edit]) -> Iterator[str]:
    """Yield what was done that no edit asked for, or that one did twice."""
    left = sorted(edits, key=lambda edit: (edit.answered is None, edit.began))
    for done in sorted(_deeds(lives), key=lambda done: done.at):
        edit = next((edit for edit in left if _may_be(edit, done)), None)
        if edit is None:
            yield f"{done.kind} of {name} was done at {done.at}, and nobody had asked for it, or it was done already: {dict(done.document)}"
        else:
            left.remove(edit)


def _deeds(lives: Iterable[Life]) -> Iterator[_Done]:
    for life in lives:
        for rule in life.rules:
            yield _Done(rule.after, Kind.PUT, rule.document)
        if life.removed_at != MAX_UTC_MS:
            yield _Done(life.removed_at, Kind.RM, {})
        for rest in life.rests:
            yield _Done(rest.since, Kind.PAUSE, {})
            is_early = rest.resumed_at < (MAX_UTC_MS if rest.until is None else rest.until - 1)
            if is_early and rest.resumed_at != life.removed_at:
                yield _Done(rest.resumed_at, Kind.RESUME, {})


def _may_be(edit: Edit, done: _Done) -> bool:
    return (
        edit.kind is done.kind and edit.began <= done.at <= edit.latest and _has(done.document, edit.expects)
    )


def _fire_faults(
    edits_of: Mapping[str, Sequence[Edit]], fires: Sequence[tuple[str, JournalEntry]], through: int
) -> Iterator[str]:
    """Yield which fires nobody asked for, and which were promised and are not there."""
    asked_at = {}
    for name, row in fires:
        if row.kind is model.Kind.MANUAL:
            asked = [edit for edit in edits_of.get(name, ()) if edit.kind is Kind.RUN]
            if not any(edit.began <= row.fire_time <= edit.latest for edit in asked):
                yield f"a fire of {name} was made at {row.fire_time}, and nobody had asked for it"
        if row.asked_at is not None:
            asked_at[model.FireName(name, row.fire_time, row.kind)] = row.asked_at
    made: dict[str, int] = {}
    for name, row in fires:
        made[name] = made.get(name, 0) + (row.kind is model.Kind.MANUAL)
    for name, count in made.items():
        asked = [edit for edit in edits_of.get(name, ()) if edit.kind is Kind.RUN]
        if count > len(asked):
            yield f"{name} has {count} fires that were asked for, and there were {len(asked)} questions"
    for edits in edits_of.values():
        for edit in edits:
            for id_ in edit.fires if edit.kind is Kind.RETRY and edit.answered is not None else ():
                fire = model.parse_fire_id(id_)
                if fire.fire_time <= through and asked_at.get(fire, 0) < edit.began:
                    yield f"{id_} was to be retried, by {edit.via} at {edit.began}, and was not"


# --- how long it took -------------------------------------------------------------------------------------------------


def is_calm(began: int, ended: int, troubles: Iterable[tuple[int, int]]) -> bool:
    """Whether none of the *troubles* touches the time between."""
    return not any(a <= ended and began <= b for a, b in troubles)


def times(edits: Sequence[Edit], troubles: Sequence[tuple[int, int]]) -> list[str]:
    """Return how long answers took, in lines. troubles: from when to when, UTC milliseconds."""
    edits = [edit for edit in edits if edit.via]  # but for those that there were at first
    answered = [edit for edit in edits if edit.answered is not None]
    refused = sum(edit.was_refused for edit in edits)
    calm = [edit for edit in answered if is_calm(edit.began, edit.answered or 0, troubles)]
    lines = [f"edits {len(edits)}, answered {len(answered)}, refused {refused}"]
    lines[0] += f", not known to be done {len(edits) - len(answered) - refused}"
    for what, some in (
        ("away from faults, from question to answer", [edit for edit in calm if not edit.is_command]),
        ("the same, of commands with their start", [edit for edit in calm if edit.is_command]),
        ("among faults, what was answered", [edit for edit in answered if edit not in calm]),
    ):
        took = sorted((edit.answered or 0) - edit.began for edit in some)
        line = f"{what}, {len(took)} edits:"
        if took:
            line += f" p50 {took[len(took) // 2]} ms, p99 {took[int(len(took) * 0.99)]} ms, max {took[-1]} ms"
        lines.append(line)
    return lines
