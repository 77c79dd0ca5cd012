"""What a request of the admin socket says: its parameters, headers and body, or why they cannot be accepted."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from cronally.admin import wire
from cronally.domain.documents import load_json
from cronally.domain.durations import parse_duration
from cronally.domain.model import Kind
from cronally.errors import CronallyError, FieldError, UsageError
from cronally.instants import UtcMs, parse_rfc3339

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from aiohttp import web

_STALL_S: Final = 60.0  # an apply whose lines stop coming this long is given up: it holds back other changes


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
    body = await request.read()
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


async def read_lines(content: Any) -> AsyncIterator[bytes]:
    """Yield the lines of a body, empty ones too, so that they can be counted.

    A line that is too long is yielded cut, still too long, for its reader to refuse; no more than that is kept.
    """
    rest, most = b"", wire.MAX_BODY_BYTES + 1
    mark = b"\xef\xbb\xbf"  # some editors begin a file with it
    while True:
        try:
            async with asyncio.timeout(_STALL_S):
                chunk: bytes = await content.readany()
        except TimeoutError:
            raise CronallyError(
                f"nothing was applied: the next line did not come within {_STALL_S:.0f} s; "
                "write the lines to a file first and apply that"
            ) from None
        if not chunk:
            break
        *whole, tail = chunk.split(b"\n")
        for line in whole:
            yield (rest + line)[:most].removeprefix(mark)
            rest, mark = b"", b""
        rest = (rest + tail)[:most]
    if rest.removeprefix(mark):
        yield rest.removeprefix(mark)


def instant(key: str, value: object, *, now: UtcMs, sign: int) -> UtcMs:
    """Read an instant, or a duration from now: forward (sign 1) or back (sign -1)."""
    if isinstance(value, str):
        with suppress(ValueError):
            return parse_rfc3339(value)
        with suppress(ValueError):
            return UtcMs(now + sign * parse_duration(value))
    raise FieldError(
        key,
        f"{str(value)[:50]!r} is neither an instant such as 2026-12-24T18:00:00Z nor a duration such as 90s, 2h or 1d",
    )
