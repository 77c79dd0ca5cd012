"""What a user writes for a schedule, checked, and written back in the same shape.

The *document* of a schedule is the mapping that ``apply`` files hold, the admin socket carries and the store keeps:
the keys of ``DOCUMENT_KEYS``, durations as ``90s``, instants as RFC 3339 UTC, a key left out when it has its default.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from datetime import datetime
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from cronally.domain.crontab import name_hash, name_shares
from cronally.domain.dialects import written_fields
from cronally.domain.documents import read_string
from cronally.domain.durations import DAY_MS, format_duration, parse_duration
from cronally.domain.model import CatchUp
from cronally.domain.recurrence import Recurrence
from cronally.domain.topic import is_fifo_topic, parse_topic_arn
from cronally.domain.when import MAX_LENGTH
from cronally.errors import FieldError
from cronally.instants import UtcMs, format_utc, parse_rfc3339, to_datetime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cronally.domain.zones import OnGap, OnRepeat

DEFAULT_DEADLINE_MS = DAY_MS
MAX_DEADLINE_MS = 366 * DAY_MS
MAX_SPREAD_MS = DAY_MS
MAX_USER_ATTRIBUTES = 6  # design §6: with our four, raw SQS delivery takes ten (facts/aws: 11+ is discarded)
MAX_TAGS = 50
MAX_BRACKETS = 10_000  # in the text of a String.Array
MAX_ATTRIBUTE_CHARS = 262_144  # SNS's limit of a message with its attributes, in bytes
MAX_NOTE_CHARS = 500

# A crontab field with an item such as H, H(0-29) or H/15: then the rule depends on the schedule's name.
_HASHED = re.compile(r"(?:^|[\s,])h(?:$|[\s,(/])", re.ASCII | re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)
# SNS Developer Guide, message attributes: name 1-256 of these, no leading, trailing or doubled dot, no AWS prefix.
_ATTRIBUTE_NAME = re.compile(r"(?!(?i:aws|amazon)\.)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/=-]{0,79}", re.ASCII)
# SNS API Reference, Publish: MessageGroupId, up to 128 of alphanumerics and ASCII punctuation.
_GROUP = re.compile(r"[!-~]{1,128}", re.ASCII)
_SUBJECT = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,100}")


class AttributeType:
    """The data types of an SNS message attribute that Cronally sends."""

    ALL = ("String", "Number", "String.Array", "Binary")


class Attribute(NamedTuple):
    """One message attribute of the user's. value: text; base64 for Binary."""

    name: str
    value: str
    type: str = "String"


class ScheduleSpec(NamedTuple):
    """A schedule's rule, message and policies: what a revision holds. Build it with ``from_document``.

    A tuple, not a dataclass: a burst reads a hundred thousand of them. Name the fields you give.
    """

    name: str
    when: str
    topic: str
    tz: str = "UTC"
    dialect: str = "unix"
    message: str | None = None
    message_structure: str | None = None
    subject: str | None = None
    attributes: tuple[Attribute, ...] = ()
    group: str | None = None
    catch_up: CatchUp = CatchUp.LATEST
    deadline: int = DEFAULT_DEADLINE_MS
    late_after: int | None = None
    on_gap: OnGap = "run"
    on_repeat: OnRepeat = "first"
    spread: int = 0
    priority: int = 5
    starts: UtcMs | None = None
    ends: UtcMs | None = None
    tags: tuple[str, ...] = ()
    note: str | None = None

    @property
    def is_fifo(self) -> bool:
        return is_fifo_topic(self.topic)

    @property
    def group_id(self) -> str | None:
        """The MessageGroupId: the user's; on a FIFO topic, by default, the schedule's name."""
        return self.group or (self.name if self.is_fifo else None)

    @property
    def fifo_group(self) -> tuple[str, str] | None:
        """The (topic, group) whose order its fires keep; None for a standard topic."""
        return (self.topic, self.group or self.name) if self.is_fifo else None

    def name_shares(self) -> tuple[tuple[int, int], ...]:
        """Return what its name decides of when it is due, by ``H`` or spread, as (shift, divisor).

        Schedules that differ in nothing but their names are due together if ``name_hash(name) >> shift`` modulo divisor is
        the same for each of these.
        """
        shares = [(0, self.spread // 1000)] if self.spread >= 1000 else []
        if _HASHED.search(self.when) is not None:
            fields = written_fields(self.when, self.dialect)
            hashed = [share for field, text in fields for share in name_shares(text, field)]
            shares += hashed or [(0, 1 << 64)]
        return tuple(shares)

    def recurrence(self) -> Recurrence:
        """Return the compiled rule, shared by all schedules with the same text. Errors: WhenError, ZoneError."""
        return compile_recurrence(self)

    def offset_ms(self) -> int:
        """Return the spread offset: due time − fire time, whole seconds, in [0, spread)."""
        return spread_offset_ms(self.name, self.spread)


def spread_offset_ms(name: str, window_ms: int) -> int:
    """Return where in the spread window *name* falls: a whole second in [0, window), as milliseconds."""
    return name_hash(name) % (window_ms // 1000) * 1000 if window_ms >= 1000 else 0


@lru_cache(maxsize=16_384)
def _compile(
    when: str,
    tz: str,
    dialect: str,
    name: str | None,
    on_gap: OnGap,
    on_repeat: OnRepeat,
    starts: UtcMs | None,
) -> Recurrence:
    anchor: datetime | None = None if starts is None else to_datetime(starts)
    return Recurrence.parse(
        when, tz=tz, dialect=dialect, name=name, on_gap=on_gap, on_repeat=on_repeat, starts=anchor
    )


def compile_recurrence(spec: ScheduleSpec) -> Recurrence:
    """Return *spec*'s recurrence from a cache: equal texts share one object.

    ``starts`` is the anchor of an interval and so part of its rule; for every other rule it only bounds the slots,
    which the engine does per schedule, so that rules stay shared.
    """
    # One that is too long will be refused by its length: it need not be searched for that.
    name = spec.name if _HASHED.search(spec.when, 0, MAX_LENGTH) else None
    is_interval = spec.when.lstrip().startswith(("@every", "rate"))
    return _compile(
        spec.when,
        spec.tz,
        spec.dialect,
        name,
        spec.on_gap,
        spec.on_repeat,
        spec.starts if is_interval else None,
    )


# --- documents -------------------------------------------------------------------------------------------------


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise FieldError(key, f"must be text, not {_json_type(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise FieldError(key, "holds half of a surrogate pair, which is not valid UTF-8") from None
    return value


def _json_type(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return names.get(type(value), "empty" if value is None else type(value).__name__)


def _choice(key: str, value: object, choices: tuple[str, ...]) -> str:
    text = _text(key, value)
    if text not in choices:
        raise FieldError(key, f"must be one of {', '.join(choices)}, not {text[:50]!r}")
    return text


def _duration(key: str, value: object, *, most_ms: int, least_ms: int = 0) -> int:
    try:
        duration_ms = parse_duration(_text(key, value))
    except ValueError as exc:
        raise FieldError(key, str(exc)) from None
    if not least_ms <= duration_ms <= most_ms:
        raise FieldError(
            key, f"must be {format_duration(least_ms)} to {format_duration(most_ms)}, not {value}"
        )
    return duration_ms


def _instant(key: str, value: object) -> UtcMs:
    if isinstance(value, datetime):  # YAML reads an unquoted instant as one
        value = value.isoformat()
    try:
        return parse_rfc3339(_text(key, value))
    except ValueError as exc:
        raise FieldError(key, str(exc)) from None


def parse_name(value: object) -> str:
    """Return *value* if it can name a schedule. Errors: FieldError."""
    name = _text("name", value)
    if not _NAME.fullmatch(name):
        raise FieldError(
            "name",
            f"{name[:100]!r} is not a schedule name; use 1 to 80 letters, digits, dots, dashes or underscores, "
            "beginning with a letter or digit",
        )
    return name


def _attributes(value: object) -> tuple[Attribute, ...]:
    if not isinstance(value, dict):
        raise FieldError("attributes", f"must be a mapping of names to values, not {_json_type(value)}")
    if len(value) > MAX_USER_ATTRIBUTES:
        raise FieldError(
            "attributes",
            f"at most {MAX_USER_ATTRIBUTES} fit beside the four Cronally sends (SQS drops a raw message with more "
            f"than ten); there are {len(value)}",
        )
    return tuple(
        _attribute(name, given) for name, given in sorted(value.items(), key=lambda item: str(item[0]))
    )


def _attribute(name: object, given: object) -> Attribute:
    if not isinstance(name, str) or len(name) > 256 or not _ATTRIBUTE_NAME.fullmatch(name):
        raise FieldError(
            "attributes",
            f"{str(name)[:100]!r} is not an attribute name; use letters, digits, - _ and single dots inside, "
            "not beginning with AWS. or Amazon.",
        )
    if name.startswith("cronally."):
        raise FieldError("attributes", f"{name!r} is one that Cronally itself sends; choose another name")
    type_, value = "String", given
    if isinstance(given, dict):
        if set(given) != {"type", "value"}:
            raise FieldError("attributes", f'{name}: write text, or {{type: Number, value: "5"}}')
        type_, value = given["type"], given["value"]
    elif isinstance(given, int | float) and not isinstance(given, bool):
        type_, value = "Number", json.dumps(given)
    if type_ not in AttributeType.ALL:
        raise FieldError("attributes", f"{name}: type must be one of {', '.join(AttributeType.ALL)}")
    text = _text("attributes", value)
    if not text:
        raise FieldError("attributes", f"{name}: SNS refuses an empty value; leave the attribute out")
    _check_typed(name, type_, text)
    return Attribute(name, text, type_)


def _check_typed(name: str, type_: str, text: str) -> None:
    if type_ == "Number" and not re.fullmatch(r"-?\d{1,38}(\.\d{1,38})?([eE][+-]?\d{1,3})?", text, re.ASCII):
        raise FieldError("attributes", f"{name}: {text[:50]!r} is not a number")
    if type_ == "String.Array":
        # Elements of an array are texts, numbers, true, false or null; a crowd of brackets would take long to read.
        is_flat = text.count("[") + text.count("{") <= MAX_BRACKETS and len(text) <= MAX_ATTRIBUTE_CHARS
        try:
            is_array = is_flat and isinstance(json.loads(text), list)
        except (ValueError, RecursionError):
            is_array = False
        if not is_array:
            raise FieldError("attributes", f'{name}: a String.Array is a JSON list such as ["a", "b"]')
    if type_ == "Binary":
        try:
            base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise FieldError("attributes", f"{name}: a Binary value is base64") from None


def _tags(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and len(value) > MAX_TAGS:
        raise FieldError("tags", f"at most {MAX_TAGS}; there are {len(value)}")
    if not isinstance(value, list) or not all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in value):
        raise FieldError("tags", "must be a list of words of letters, digits and . _ : / = -")
    return tuple(sorted(set(value)))


def parse_note(value: object) -> str:
    """Return a note of 1 to 500 characters. Errors: FieldError."""
    note = _text("note", value)
    if not 1 <= len(note) <= MAX_NOTE_CHARS:
        raise FieldError("note", f"must have 1 to {MAX_NOTE_CHARS} characters, not {len(note)}")
    return note


def _priority(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 9:
        raise FieldError(
            "priority", f"must be a whole number from 0 to 9 (9 goes first), not {str(value)[:50]!r}"
        )
    return value


def _topic(value: object) -> str:
    try:
        return parse_topic_arn(_text("topic", value)).text
    except ValueError as exc:
        raise FieldError("topic", str(exc)) from None


def _subject(value: object) -> str:
    subject = _text("subject", value)
    if not _SUBJECT.fullmatch(subject):
        raise FieldError("subject", "SNS takes 1 to 100 characters without line breaks or control characters")
    return subject


def _group(value: object) -> str:
    group = _text("group", value)
    if not _GROUP.fullmatch(group):
        raise FieldError("group", "SNS takes 1 to 128 letters, digits and punctuation without blanks")
    return group


_READERS: dict[str, Any] = {
    "when": lambda v: _text("when", v),
    "tz": lambda v: _text("tz", v),
    "dialect": lambda v: _choice("dialect", v, ("unix", "quartz", "eventbridge")),
    "topic": _topic,
    "message": lambda v: _text("message", v),
    "message_structure": lambda v: _choice("message_structure", v, ("json",)),
    "subject": _subject,
    "attributes": _attributes,
    "group": _group,
    "catch_up": lambda v: CatchUp(_choice("catch_up", v, tuple(CatchUp))),
    "deadline": lambda v: _duration("deadline", v, least_ms=1000, most_ms=MAX_DEADLINE_MS),
    "late_after": lambda v: _duration("late_after", v, least_ms=1000, most_ms=MAX_DEADLINE_MS),
    "on_gap": lambda v: _choice("on_gap", v, ("run", "skip")),
    "on_repeat": lambda v: _choice("on_repeat", v, ("first", "both")),
    "spread": lambda v: _duration("spread", v, most_ms=MAX_SPREAD_MS),
    "priority": _priority,
    "starts": lambda v: _instant("starts", v),
    "ends": lambda v: _instant("ends", v),
    "tags": _tags,
    "note": parse_note,
}

DOCUMENT_KEYS = (*_READERS, "paused")
"""The keys a document may have. ``paused`` is not part of the spec; ``parse_paused`` reads it."""

RULE_KEYS = ("when", "tz", "dialect", "topic", "on_gap", "on_repeat", "spread", "priority", "starts", "ends")
"""What of a document says when a schedule is due, and in which crowd."""

MESSAGE_KEYS = tuple(key for key in _READERS if key not in RULE_KEYS)
"""The other keys: without them, a document is that of thousands of schedules."""

_DEFAULTS = ScheduleSpec._field_defaults | dict.fromkeys(("when", "topic"))


def from_document(name: object, document: Mapping[str, object]) -> ScheduleSpec:
    """Return the spec that *document* states for the schedule *name*; a key with the value None has its default.

    Checks everything that can be checked without the world: names, types, sizes, ARN, rule, zone, message.
    Errors: FieldError, WhenError, ZoneError.
    """
    from cronally.domain.message import check_message  # noqa: PLC0415 - message reads specs

    unknown = [key for key in document if key not in DOCUMENT_KEYS and key != "name"]
    if unknown:
        near = get_close_matches(str(unknown[0])[:100], DOCUMENT_KEYS, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(DOCUMENT_KEYS)}"
        raise FieldError(str(unknown[0])[:100], f"no such key; {fix}")
    checked_name = parse_name(name)
    for key in ("when", "topic"):
        if document.get(key) is None:
            raise FieldError(key, "is missing; every schedule needs one")
    values = {
        key: _READERS[key](value)
        for key, value in document.items()
        if value is not None and key not in ("paused", "name")
    }
    spec = ScheduleSpec(name=checked_name, **values)
    compile_recurrence(spec)
    if spec.starts is not None and spec.ends is not None and spec.starts > spec.ends:
        raise FieldError("ends", f"{format_utc(spec.ends)} is before starts, {format_utc(spec.starts)}")
    if spec.group is not None and spec.is_fifo is False and spec.message_structure == "json":
        raise FieldError("group", "a message with message_structure json on a standard topic takes no group")
    check_message(spec)
    return spec


def to_document(spec: ScheduleSpec) -> dict[str, object]:
    """Return *spec*'s document, without its name and without the keys that have their defaults, in the order of the keys."""
    document: dict[str, object] = {}
    for key in _READERS:
        value = getattr(spec, key)
        if value != _DEFAULTS[key]:
            document[key] = _written(key, value)
    return document


def _written(key: str, value: Any) -> object:
    if key in ("deadline", "late_after", "spread"):
        return format_duration(value)
    if key in ("starts", "ends"):
        return format_utc(value)
    if key == "attributes":
        return {a.name: a.value if a.type == "String" else {"type": a.type, "value": a.value} for a in value}
    if key == "tags":
        return list(value)
    return str(value) if isinstance(value, CatchUp) else value


def canonical_document(spec: ScheduleSpec) -> str:
    """Return the document as JSON text, the same for equal specs: what the store keeps and compares."""
    return json.dumps(to_document(spec), ensure_ascii=False, separators=(",", ":"))


def rule_document(text: str) -> str:
    """Return what ``canonical_document`` wrote without the keys of MESSAGE_KEYS; ``from_canonical`` reads it, too."""
    document = json.loads(text)
    rule = {key: value for key, value in document.items() if key not in MESSAGE_KEYS}
    return json.dumps(rule, ensure_ascii=False, separators=(",", ":"))


def from_canonical(name: str, text: str) -> ScheduleSpec:
    """Return the spec of a text that ``canonical_document`` wrote; it is trusted, not checked again.

    Schedules mostly differ in name and message, so what remains of the text is read once for all that share it.
    """
    begin = text.find(_MESSAGE_KEY)
    # An attribute may have that name, too; attributes come after the message.
    if begin < 0 or text.find(_ATTRIBUTES_KEY, 0, begin) >= 0:
        shared = _shared(text) if len(text) <= _MOST_SHARED_CHARS else _nameless(text)
        return ScheduleSpec._make((name, *shared))
    message, end = read_string(text, begin + len(_MESSAGE_KEY))
    rest = text[:begin] + text[end:]
    shared = _shared(rest) if len(rest) <= _MOST_SHARED_CHARS else _nameless(rest)
    return _new_spec(ScheduleSpec, (name, *shared[:_BEFORE_MESSAGE], message, *shared[_BEFORE_MESSAGE + 1 :]))


def _nameless(text: str) -> tuple[Any, ...]:
    """Return the fields of the spec that *text* states, but for its name."""
    values = json.loads(text)
    for key in _CONVERTED & values.keys():
        values[key] = _CONVERTERS[key](values[key])
    return ScheduleSpec(name="", **values)[1:]


_shared = lru_cache(maxsize=1_024)(_nameless)
_new_spec = tuple.__new__  # what _make calls
_MOST_SHARED_CHARS = (
    2_048  # schedules that say the same are small; so many large ones would be kept for nothing
)
# Not to be found in any value: there a quotation mark has a backslash before it.
_MESSAGE_KEY = ',"message":"'
_ATTRIBUTES_KEY = ',"attributes":{'
_BEFORE_MESSAGE = ScheduleSpec._fields.index("message") - 1  # fields of ``shared`` before the message's


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "deadline": parse_duration,
    "late_after": parse_duration,
    "spread": parse_duration,
    "starts": parse_rfc3339,
    "ends": parse_rfc3339,
    "tags": tuple,
    "catch_up": CatchUp,
    "attributes": lambda given: tuple(
        Attribute(name, value) if isinstance(value, str) else Attribute(name, value["value"], value["type"])
        for name, value in given.items()
    ),
}
_CONVERTED = frozenset(_CONVERTERS)


class PauseWish(NamedTuple):
    """What a document says of a pause: is_paused None means *leave it as it is*."""

    is_paused: bool | None
    until: UtcMs | None = None
    note: str | None = None


def parse_paused(value: object) -> PauseWish:
    """Read the key ``paused``: absent (None), true, false, or ``{until, note}``. Errors: FieldError."""
    if value is None or isinstance(value, bool):
        return PauseWish(value)
    if not isinstance(value, dict) or not value or set(value) - {"until", "note"}:
        raise FieldError("paused", "must be true, false, or {until: INSTANT, note: TEXT}")
    until, note = value.get("until"), value.get("note")
    return PauseWish(
        True,
        None if until is None else _instant("paused", until),
        None if note is None else parse_note(note),
    )
