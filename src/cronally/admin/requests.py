"""What a request of the admin socket says: its parameters, headers and body, or why they cannot be accepted."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from aiohttp import web

from cronally.admin import wire
from cronally.admin.limits import (
    APPLY_AHEAD_BYTES,
    APPLY_PACE_S,
    APPLY_STALL_S,
    MAX_APPLY_BYTES,
    MAX_APPLY_LINES,
    MAX_LINE_LOOKED_AT_BYTES,
    READ_AHEAD_BYTES,
)
from cronally.domain.documents import load_json
from cronally.domain.instant_text import read_absolute, read_instant
from cronally.domain.model import Kind
from cronally.domain.spec import parse_note
from cronally.errors import FieldError, UsageError
from cronally.instants import UtcMs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from cronally.domain.zones import Zone
    from cronally.engine.records import AuditPlace

AN_INSTANT: Final = "2026-12-24T18:00:00Z, or 2026-12-24T18:00 for the local time in the schedule's zone"
"""The form of an instant, for who has written something else."""

BODY: Final = web.RequestKey("body", bytes)
"""Where a request has its body, once it has been read whole."""

_BACKUP_SUFFIXES: Final = (".db", ".sqlite", ".backup")
_MAX_PATH_CHARS: Final = 4_095  # PATH_MAX of Linux, without its final NUL


def query_of(request: web.Request, *known: str) -> dict[str, str]:
    """Return the query's parameters; one that is not *known* is refused, and so is one given twice."""
    for key in request.query:
        if key not in known:
            there_are = f"there are {', '.join(known)}" if known else "this path takes none"
            raise UsageError(f"no such parameter: {key[:100]}; {there_are}")
        if len(request.query.getall(key)) > 1:
            raise UsageError(
                f"the parameter {key} is there twice; give it once, several words with commas between"
            )
    return dict(request.query)


def whole_number(query: dict[str, str], key: str, *, default: int, least: int, most: int) -> int:
    text = query.get(key)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= most:
        raise FieldError(key, f"must be a whole number from {least} to {most}, not {text[:50]!r}")
    return int(text)


def flag(query: dict[str, str], key: str) -> bool:
    text = query.get(key, "false")
    if text not in ("true", "false"):
        raise FieldError(key, f"must be true or false, not {text[:50]!r}")
    return text == "true"


def words(query: dict[str, str], key: str, known: Iterable[str]) -> list[str]:
    words = [word.strip() for word in query.get(key, "").split(",") if word.strip()]
    for word in words:
        if word not in tuple(known):
            raise FieldError(key, f"must be among {', '.join(known)}, not {word[:50]!r}")
    return words


def cursor(text: str) -> tuple[UtcMs, int, str]:
    match = re.fullmatch(r"(-?\d{1,18})\.(\d{1,18})\.([a-z]+)", text, re.ASCII)
    if match is None or match[3] not in tuple(Kind):
        raise FieldError("before", "must be the text that the page before gave as next")
    return UtcMs(int(match[1])), int(match[2]), match[3]


def audit_cursor(text: str) -> AuditPlace:
    match = re.fullmatch(r"(-?\d{1,18})\.([01])\.(\d{1,18})", text, re.ASCII)
    if match is None:
        raise FieldError("before", "must be the text that the page before gave as next")
    return UtcMs(int(match[1])), int(match[2]), int(match[3])


def if_match(request: web.Request) -> int | None:
    text = request.headers.get("If-Match")
    if text is None:
        return None
    match = re.fullmatch(r'"?(\d{1,18})"?', text.strip(), re.ASCII)
    if match is None:
        raise UsageError(f'If-Match is a revision number such as "3", not {text[:50]!r}')
    return int(match[1])


def idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None:
        wire.check_key(key)
    return key


async def read_object(request: web.Request) -> dict[str, Any]:
    """Return the body, a JSON object; an empty body is an empty one. Errors: UsageError."""
    body = request.get(BODY, b"")
    if not body.strip():
        return {}
    try:
        value = load_json(body)
    except ValueError as exc:
        raise UsageError(f"the request is not JSON that can be accepted: {exc}") from None
    if not isinstance(value, dict):
        raise UsageError('the request must be a JSON object such as {"when": "0 9 * * *", …}')
    return value


def refuse_unknown(wish: Mapping[str, object], *known: str) -> None:
    """Refuse a request with a key that is not *known*. Errors: FieldError."""
    unknown = set(wish) - set(known)
    if unknown:
        raise FieldError(min(unknown)[:100], f"no such key; the keys are {', '.join(known)}")


def switch(wish: Mapping[str, object], key: str) -> bool:
    """Return a true or false of a request; false if it is not there. Errors: FieldError."""
    value = wish.get(key, False)
    if not isinstance(value, bool):
        raise FieldError(key, "must be true or false")
    return value


def text(wish: Mapping[str, object], key: str, example: str) -> str:
    """Return a text that a request must have. Errors: FieldError."""
    value = wish.get(key)
    if not isinstance(value, str):
        what = "is missing" if value is None else "must be a text"
        raise FieldError(key, f"{what}; write {example}")
    return value


def most_fires(wish: Mapping[str, object]) -> int | None:
    """Return how many fires a backfill may make, None if the request does not say. Errors: FieldError."""
    value = wish.get("max")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= wire.MAX_BACKFILL:
        raise FieldError(
            "max", f"must be a whole number from 1 to {wire.MAX_BACKFILL}, not {str(value)[:50]!r}"
        )
    return value


def fire_ids(wish: Mapping[str, object]) -> list[str]:
    """Return the fire ids that a request names. Errors: FieldError."""
    value = wish.get("fires")
    if not isinstance(value, list) or not value or not all(isinstance(id_, str) for id_ in value):
        raise FieldError(
            "fires", 'must be a list of fire ids such as ["nightly-report@2026-11-23T09:00:00Z"]'
        )
    return value


class ManyWish(NamedTuple):
    """A change of many schedules. until, note: of a pause."""

    action: Literal["remove", "pause", "resume"]
    names: list[str]
    until: str | None = None
    note: str | None = None
    drop_pending: bool = False

    def of(self, names: list[str]) -> bytes:
        """Return the body of a request that wishes it for *names*."""
        wish: dict[str, object] = {"action": self.action, "names": names}
        if self.action == "pause":
            wish |= {"until": self.until, "note": self.note}
        if self.action != "resume":
            wish["drop_pending"] = self.drop_pending
        return json.dumps(wish).encode()


_KEYS_OF_MANY: Final = {
    "remove": ("drop_pending",),
    "pause": ("until", "note", "drop_pending"),
    "resume": (),
}


def many_wish(wish: Mapping[str, object]) -> ManyWish:
    """Return the change of many schedules that a request wishes. Errors: FieldError."""
    refuse_unknown(wish, "action", "names", "until", "note", "drop_pending")
    action, names = wish.get("action"), wish.get("names")
    if action not in ("remove", "pause", "resume"):
        raise FieldError("action", "must be remove, pause or resume")
    for key in sorted(wish.keys() - {"action", "names", *_KEYS_OF_MANY[action]}):
        raise FieldError(key, f"is not for {action}; leave it out")
    if (
        not isinstance(names, list)
        or not 0 < len(names) <= wire.MAX_AT_ONCE
        or not all(isinstance(name, str) for name in names)
    ):
        raise FieldError("names", f"must be a list of 1 to {wire.MAX_AT_ONCE} names of schedules")
    note = wish.get("note")
    return ManyWish(
        action,
        names,
        None if wish.get("until") is None else text(wish, "until", AN_INSTANT),
        None if note is None else parse_note(note),
        switch(wish, "drop_pending"),
    )


class ApplyBody:
    """The body of an apply, as it comes. Other changes wait while it is read, but not for its first megabytes."""

    def __init__(self, content: Any) -> None:
        self._content = content
        self._ahead = bytearray()
        self._is_ahead = True
        self._size = 0
        self._due_size = 0
        self._due_at = 0.0

    async def read_ahead(self) -> None:
        """Read all of a body of the usual size, or the beginning of a large one. Errors: HTTPRequestTimeout if it stalls."""
        while len(self._ahead) < APPLY_AHEAD_BYTES and (chunk := await self._next()):
            self._ahead += chunk
        self._is_ahead = False

    async def readany(self) -> bytes:
        """Return what comes next, nothing at the end. Errors: HTTPRequestTimeout if too little comes, UsageError if too much."""
        if self._ahead:
            chunk = bytes(self._ahead[:READ_AHEAD_BYTES])
            del self._ahead[:READ_AHEAD_BYTES]
            return chunk
        return await self._next()

    async def _next(self) -> bytes:
        loop = asyncio.get_running_loop()
        if self._size >= self._due_size:
            self._due_size = self._size + (1 if self._is_ahead else READ_AHEAD_BYTES)
            self._due_at = loop.time() + (APPLY_STALL_S if self._is_ahead else APPLY_PACE_S)
        try:
            async with asyncio.timeout_at(self._due_at):
                chunk: bytes = await self._content.readany()
        except TimeoutError:
            raise web.HTTPRequestTimeout(
                text="nothing was applied: the next lines did not come in time; write them to a file first and apply that"
            ) from None
        self._size += len(chunk)
        if self._size > MAX_APPLY_BYTES:
            raise UsageError(
                f"nothing was applied: there are more than {MAX_APPLY_BYTES:,} bytes; apply several smaller files"
            )
        return chunk


async def read_lines(content: Any) -> AsyncIterator[bytes]:
    """Yield the lines of a body, empty ones too, so that they can be counted.

    A line that is too long is yielded cut, still too long, for its reader to refuse; no more than that is kept.
    Errors: UsageError if there are too many, or one that hardly ends.
    """
    rest, most = bytearray(), wire.MAX_BODY_BYTES + 1
    number, length = 0, 0
    mark = b"\xef\xbb\xbf"  # some editors begin a file with it
    while chunk := await content.readany():
        *whole, tail = chunk.split(b"\n")
        for line in whole:
            number += 1
            if number > MAX_APPLY_LINES:
                raise UsageError(
                    f"nothing was applied: there are more than {MAX_APPLY_LINES:,} lines; apply several smaller files"
                )
            yield (bytes(rest) + line)[:most].removeprefix(mark)
            rest.clear()
            mark, length = b"", 0
        rest += tail[: most - len(rest)]
        length += len(tail)
        if length > MAX_LINE_LOOKED_AT_BYTES:
            raise UsageError(
                f"nothing was applied: line {number + 1} has more than {MAX_LINE_LOOKED_AT_BYTES:,} bytes; write one "
                "schedule a line"
            )
    if rest.removeprefix(mark):
        yield bytes(rest.removeprefix(mark))


def backup_wish(body: dict[str, Any], *, is_own: bool) -> tuple[str, bool]:
    """Return where a backup shall be written, and whether an earlier one may be there. Errors: FieldError.

    is_own: the daemon's own user asks, or root. Anybody else could have a file made that means something to a program by its name
    (``authorized_keys``, say) and has lines of theirs in it, from a schedule's message; so the name must be one of a database.
    """
    refuse_unknown(body, "file", "force")
    file, force = body.get("file"), switch(body, "force")
    if not isinstance(file, str) or not file.startswith("/") or len(file) > _MAX_PATH_CHARS:
        raise FieldError("file", f"must be an absolute path of at most {_MAX_PATH_CHARS} characters")
    if not file.isprintable():
        raise FieldError("file", "has characters that cannot be printed; name another file")
    if file.rstrip("/") != file or file.rpartition("/")[2] in (".", ".."):
        raise FieldError("file", f"{file[:100]!r} names a directory; name a file in it")
    if not is_own and not file.endswith(_BACKUP_SUFFIXES):
        raise FieldError(
            "file",
            f"for users other than the daemon's and root the name must end in {' or '.join(_BACKUP_SUFFIXES)}",
        )
    return file, force


def instant(key: str, text: str, *, now: UtcMs) -> UtcMs:
    """Read an instant, or a duration before now. Errors: FieldError."""
    at = read_absolute(text, now=now, direction=-1)
    if at is None:
        raise FieldError(
            key,
            f"{text[:50]!r} is neither an instant such as 2026-12-24T18:00:00Z nor a duration such as 90s, 2h or 1d",
        )
    return at


def to_come(key: str, given: str, zone: Zone, *, now: UtcMs) -> UtcMs:
    """Return the instant, or the time from *now*, that is *given*, local in *zone* unless it has an offset. Errors: FieldError."""
    try:
        return read_instant(given, zone, now=now, direction=1).at
    except UsageError as exc:
        raise FieldError(key, str(exc)) from None
