"""What is published for a fire: the message, its attributes and identifiers (design §6)."""

from __future__ import annotations

import json
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
_OUR_ATTRIBUTES_BYTES = 1_000
_LONGEST_FIRE_TIME = UtcMs(1_795_510_800_001)  # any instant with milliseconds: the longest way to write one


class Entry(NamedTuple):
    """One message, ready to be packed into a batch.

    Fields: attributes: ours, then the user's; never more than ten. group: MessageGroupId or None.
        deduplication: MessageDeduplicationId, the fire id on FIFO topics, else None.
        size_bytes: what SNS counts: the message and each attribute's name, type and value, UTF-8.
    """

    fire: Fire
    name: str
    fire_id: str
    topic: str
    message: str
    attributes: tuple[Attribute, ...]
    size_bytes: int
    subject: str | None = None
    message_structure: str | None = None
    group: str | None = None
    deduplication: str | None = None
    priority: int = 5


def compose(spec: ScheduleSpec, fire: Fire) -> Entry:
    """Return the entry that publishes *fire* as *spec*, the revision it belongs to, says."""
    time = format_utc(fire.fire_time)
    id_ = fire_id(spec.name, fire.fire_time, fire.kind)
    if spec.message is None:
        message = json.dumps({"schedule": spec.name, "fire_time": time, "fire_id": id_})
    else:
        message = _filled(spec.message, spec.name, time, id_)
    attributes = [
        Attribute("cronally.schedule", spec.name),
        Attribute("cronally.fire_time", time),
        Attribute("cronally.fire_id", id_),
    ]
    if fire.kind is not Kind.SCHEDULED:
        attributes.append(Attribute("cronally.kind", str(fire.kind)))
    attributes += [a._replace(value=_filled(a.value, spec.name, time, id_)) for a in spec.attributes]
    return Entry(
        fire=fire,
        name=spec.name,
        fire_id=id_,
        topic=spec.topic,
        message=message,
        attributes=tuple(attributes),
        size_bytes=_utf8_bytes(message) + sum(_attribute_bytes(a) for a in attributes),
        subject=spec.subject,
        message_structure=spec.message_structure,
        group=spec.group_id,
        deduplication=id_ if spec.is_fifo else None,
        priority=spec.priority,
    )


def check_message(spec: ScheduleSpec) -> None:
    """Refuse a message that SNS would refuse, at its longest. Errors: FieldError with the byte count."""
    if spec.message == "":
        raise FieldError(
            "message", "SNS refuses an empty message; leave it out for the default, or write one"
        )
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


def _filled(text: str, name: str, time: str, id_: str) -> str:
    if "<cronally." not in text and "<aws." not in text:
        return text
    return (
        text.replace("<cronally.schedule>", name)
        .replace("<cronally.fire-time>", time)
        .replace("<cronally.fire-id>", id_)
        .replace("<cronally.fire-time-utc>", f"{time[:10]} {time[11:-1]} UTC")
        .replace("<aws.scheduler.scheduled-time>", time)
    )


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _attribute_bytes(attribute: Attribute) -> int:
    return _utf8_bytes(attribute.value) + len(attribute.name) + len(attribute.type)
