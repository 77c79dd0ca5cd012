"""What is published for a fire: the message, its attributes and identifiers (design §6)."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.model import Fire, Kind, fire_id
from cronally.domain.spec import Attribute
from cronally.errors import FieldError
from cronally.instants import UtcMs, format_utc

if TYPE_CHECKING:
    from cronally.domain.spec import ScheduleSpec

MAX_MESSAGE_BYTES = 262_144  # SNS API Reference, Publish: message and attributes together; also a whole batch

# The longest fire id takes 115 bytes and the shortest placeholder that becomes one 18 characters; UTF-8 takes up to 4.
_MOST_BYTES_PER_CHAR = 8
_new = tuple.__new__  # what _make calls, and twice as fast as by name
_SCHEDULED = Kind.SCHEDULED  # to look it up in the enum takes ten times as long
_OUR_ATTRIBUTES_BYTES = 1_000
_OUR_NAMES_BYTES = sum(
    len(name) + len("String") for name in ("cronally.schedule", "cronally.fire_time", "cronally.fire_id")
)
# SQS API Reference, SendMessage: what XML 1.0 has no place for is refused or delivered as U+FFFD.
_UNCARRIED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_LONGEST_FIRE_TIME = UtcMs(1_795_510_800_001)  # any instant with milliseconds: the longest way to write one


class Entry(NamedTuple):
    """One message, ready to be packed into a batch: a fire, and the revision that says what it publishes.

    What it says is put together when somebody asks: a burst has a hundred thousand of these, and most parts are the
    revision's.

    Fields: size_bytes: what SNS counts: the message and each attribute's name, type and value, UTF-8.
    """

    fire: Fire
    spec: ScheduleSpec
    fire_id: str
    size_bytes: int

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def topic(self) -> str:
        return self.spec.topic

    @property
    def priority(self) -> int:
        return self.spec.priority

    @property
    def subject(self) -> str | None:
        return self.spec.subject

    @property
    def message_structure(self) -> str | None:
        return self.spec.message_structure

    @property
    def group(self) -> str | None:
        """MessageGroupId."""
        return self.spec.group_id

    @property
    def deduplication(self) -> str | None:
        """MessageDeduplicationId: the fire id on FIFO topics."""
        return self.fire_id if self.spec.is_fifo else None

    @property
    def message(self) -> str:
        return _message(self.spec, format_utc(self.fire.fire_time), self.fire_id)

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Ours, then the user's; never more than ten."""
        return _attributes(self.spec, self.fire, format_utc(self.fire.fire_time), self.fire_id)


def compose(spec: ScheduleSpec, fire: Fire) -> Entry:
    """Return the entry that publishes *fire* as *spec*, the revision it belongs to, says; its fire has its deadline."""
    # Written out, because a burst passes here: what is said in functions elsewhere, less their calls.
    schedule_id, revision_id, fire_time, due_time, kind, attempts, maybe_published, _, asked_at = fire
    name, template = spec.name, spec.message
    time = format_utc(fire_time)
    is_scheduled = kind is _SCHEDULED
    id_ = f"{name}@{time}" if is_scheduled else fire_id(name, fire_time, kind)
    message = _message(spec, time, id_) if template is None or "<" in template else template
    size_bytes = len(message) if message.isascii() else len(message.encode())
    size_bytes += _OUR_NAMES_BYTES + len(name) + len(time) + len(id_)
    if not is_scheduled:
        size_bytes += _attribute_bytes(_kind(fire))
    if spec.attributes:
        constant = _constant_bytes(spec.attributes)
        size_bytes += (
            sum(_attribute_bytes(a) for a in _users(spec, time, id_)) if constant is None else constant
        )
    deadline_at = (due_time if asked_at is None else max(due_time, asked_at)) + spec.deadline
    whose = (schedule_id, revision_id, fire_time, due_time)
    dated = _new(Fire, (*whose, kind, attempts, maybe_published, deadline_at, asked_at))
    return _new(Entry, (dated, spec, id_, size_bytes))


def _message(spec: ScheduleSpec, time: str, id_: str) -> str:
    if spec.message is not None:
        return filled(spec.message, spec.name, time, id_)
    # Neither a name nor an instant holds anything that JSON would escape.
    return f'{{"schedule": "{spec.name}", "fire_time": "{time}", "fire_id": "{id_}"}}'


def _attributes(spec: ScheduleSpec, fire: Fire, time: str, id_: str) -> tuple[Attribute, ...]:
    ours: tuple[Attribute, ...] = (
        Attribute("cronally.schedule", spec.name),
        Attribute("cronally.fire_time", time),
        Attribute("cronally.fire_id", id_),
    )
    if fire.kind is not Kind.SCHEDULED:
        ours += (_kind(fire),)
    return ours + _users(spec, time, id_)


def _kind(fire: Fire) -> Attribute:
    return Attribute("cronally.kind", str(fire.kind))


def _users(spec: ScheduleSpec, time: str, id_: str) -> tuple[Attribute, ...]:
    return tuple(a._replace(value=filled(a.value, spec.name, time, id_)) for a in spec.attributes)


@lru_cache(maxsize=256)
def _constant_bytes(attributes: tuple[Attribute, ...]) -> int | None:
    """Return what SNS counts for *attributes* of the user; None if a placeholder makes it another for each fire."""
    if any(_has_placeholder(a.value) for a in attributes):
        return None
    return sum(map(_attribute_bytes, attributes))


def check_message(spec: ScheduleSpec) -> None:
    """Refuse a message that would not arrive as it is, at its longest too. Errors: FieldError with place or byte count."""
    if spec.message == "":
        raise FieldError(
            "message", "SNS refuses an empty message; leave it out for the default, or write one"
        )
    _check_characters("message", spec.message or "")
    for attribute in spec.attributes:
        _check_characters("attributes", attribute.value, f"{attribute.name}: ")
    if spec.message_structure == "json":
        _check_structure(spec)
    if _is_small(spec):
        return
    entry = compose(spec, Fire(0, 0, _LONGEST_FIRE_TIME, _LONGEST_FIRE_TIME, Kind.BACKFILL))
    if entry.size_bytes > MAX_MESSAGE_BYTES:
        raise FieldError(
            "message",
            f"with its attributes it takes {entry.size_bytes:,} bytes and SNS takes {MAX_MESSAGE_BYTES:,}; "
            "store it elsewhere (S3, say) and send where it is",
        )


def _is_small(spec: ScheduleSpec) -> bool:
    """Whether the message fits without a doubt, however its placeholders are filled."""
    chars = len(spec.message or "") + sum(len(a.value) + len(a.name) + len(a.type) for a in spec.attributes)
    return chars * _MOST_BYTES_PER_CHAR + _OUR_ATTRIBUTES_BYTES < MAX_MESSAGE_BYTES


def _check_characters(field: str, text: str, whose: str = "") -> None:
    found = _UNCARRIED.search(text)
    if found is not None:
        raise FieldError(
            field,
            f"{whose}character {found.start() + 1} is U+{ord(found[0]):04X}, which SQS does not deliver as it is; "
            "escape it, as JSON and base64 do",
        )


def _check_structure(spec: ScheduleSpec) -> None:
    try:
        structure = json.loads(spec.message or "")
    except (ValueError, RecursionError):
        structure = None
    if not isinstance(structure, dict) or not isinstance(structure.get("default"), str):
        raise FieldError(
            "message",
            'with message_structure json it must be a JSON object with a "default" text, as SNS asks',
        )
    if "<cronally.fire-id>" not in (spec.message or ""):
        raise FieldError(
            "message",
            "with message_structure json SNS delivers no attributes, so it must contain <cronally.fire-id>, "
            "by which the receiver knows a repeated message",
        )


def filled(text: str, name: str, time: str, id_: str) -> str:
    """Return *text* with its placeholders replaced (design §6). time: the fire time, written. id_: the fire id."""
    if not _has_placeholder(text):
        return text
    return (
        text.replace("<cronally.schedule>", name)
        .replace("<cronally.fire-time>", time)
        .replace("<cronally.fire-id>", id_)
        .replace("<cronally.fire-time-utc>", f"{time[:10]} {time[11:-1]} UTC")
        .replace("<aws.scheduler.scheduled-time>", time)
    )


def _has_placeholder(text: str) -> bool:
    return "<cronally." in text or "<aws." in text


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _attribute_bytes(attribute: Attribute) -> int:
    return _utf8_bytes(attribute.value) + len(attribute.name) + len(attribute.type)
