"""From options to the document of a schedule."""

from __future__ import annotations

import sys
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cronally.admin.answer_types import keys_of
from cronally.admin.wire import MAX_BODY_BYTES, STATE_KEYS
from cronally.errors import FieldError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import BinaryIO

    from cronally.admin.wire import Schedule

UNSETTABLE: Final = (
    "tz",
    "dialect",
    "message",
    "message_structure",
    "subject",
    "attributes",
    "group",
    "catch_up",
    "deadline",
    "late_after",
    "on_gap",
    "on_repeat",
    "spread",
    "priority",
    "starts",
    "ends",
    "tags",
    "note",
)
"""The keys that have a default to go back to."""


def document_from_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document that the given options state; those not given (None) are left out.

    options: by key; ``attributes`` a list of NAME=VALUE, ``message`` as on the command line, ``paused`` a flag.
    Errors: UsageError.
    """
    document = {key: value for key, value in options.items() if value is not None and value is not False}
    if "message" in document:
        document["message"] = read_message(document["message"])
    if "attributes" in document:
        document["attributes"] = parse_attributes(document["attributes"])
    return document


def read_bounds(document: dict[str, Any], tz: str) -> None:
    """Put instants in the place of ``starts`` and ``ends`` as people write them. tz: of local ones. Errors: UsageError."""
    for key in ("starts", "ends"):
        text = document.get(key)
        if text:
            from cronally.cli.instants import instant
            from cronally.instants import format_utc

            document[key] = format_utc(instant(f"--{key}", text, tz=lambda: tz, direction=1))


def merged(present: Schedule, wanted: Mapping[str, Any], unset: Sequence[str]) -> dict[str, Any]:
    """Return the whole document of *present* with what is *wanted* changed and what is *unset* at its default.

    An empty text unsets too, except a message, a rule or a topic. Attributes are merged by name, and one that is empty
    is taken away; tags are replaced. The pause stays unless ``paused`` is wanted. Errors: UsageError.
    """
    keys = [key for key in keys_of(type(present)) if key not in STATE_KEYS]
    document = {key: getattr(present, key) for key in keys}
    for key, value in wanted.items():
        if key == "attributes":
            together = document["attributes"] | value
            document[key] = {name: given for name, given in together.items() if given not in ("", None)}
        elif key == "tags":
            document[key] = [tag for tag in value if tag]
        elif value == "" and key not in ("message", "when", "topic"):
            document[key] = None
        elif value == "" and key == "message":
            raise FieldError(
                "message", "SNS refuses an empty message; --unset message goes back to the default one"
            )
        else:
            document[key] = value
    for key in unset:
        document[_unsettable(key)] = None
    return {key: value for key, value in document.items() if value is not None}


def _unsettable(key: str) -> str:
    name = key.strip().removeprefix("--").replace("-", "_")
    name = {"tag": "tags", "attribute": "attributes"}.get(name, name)
    if name not in UNSETTABLE:
        near = get_close_matches(name, UNSETTABLE, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"those are {', '.join(UNSETTABLE)}"
        raise UsageError(f"--unset {key[:50]!r}: there is no such key with a default to go back to; {fix}")
    return name


def parse_attributes(given: Sequence[str]) -> dict[str, Any]:
    """Read NAME=VALUE and NAME:TYPE=VALUE. Errors: UsageError."""
    attributes: dict[str, Any] = {}
    for text in given:
        left, equals, value = text.partition("=")
        name, colon, type_ = left.partition(":")
        if not equals or not name or (colon and not type_):
            raise UsageError(
                f"--attribute {text[:100]!r}: write it as NAME=VALUE, or with a type as NAME:Number=5"
            )
        if name in attributes:
            raise UsageError(f"--attribute {name[:100]!r} is there twice; give each name once")
        is_typed = bool(colon) and type_ != "String" and value != ""
        attributes[name] = {"type": type_, "value": value} if is_typed else value
    return attributes


def read_message(text: str) -> str:
    """Return the message that ``--message`` means: TEXT, @FILE, ``-`` (standard input); ``@@`` begins with one @.

    Nothing is taken off or added. Errors: UsageError.
    """
    if text == "-":
        return _decoded("standard input", sys.stdin.buffer)
    if text.startswith("@@") or not text.startswith("@"):
        return text.removeprefix("@")
    name = text[1:]
    if not name:
        raise UsageError("--message @ names no file; write @FILE, or @@ for a message that begins with @")
    try:
        with Path(name).open("rb") as file:
            return _decoded(name, file)
    except OSError as exc:
        raise UsageError(
            f"--message: the file {name} cannot be read: {(exc.strerror or str(exc)).lower()}; "
            "for a message that begins with @ write @@"
        ) from None


def _decoded(place: str, file: BinaryIO) -> str:
    data = file.read(MAX_BODY_BYTES + 1)
    if len(data) > MAX_BODY_BYTES:
        raise UsageError(
            f"--message: {place} has over {MAX_BODY_BYTES:,} bytes and SNS takes messages of at most 262,144; "
            "store it elsewhere (S3, say) and send where it is"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        raise UsageError(
            f"--message: {place} is not UTF-8 (byte {exc.start + 1:,}); convert it, with iconv for example"
        ) from None
