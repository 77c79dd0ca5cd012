"""Answers of the admin socket as responses of aiohttp; long ones are written a few at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from cronally.admin import wire
from cronally.admin.answers import dumps

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from cronally.clock import Clock

_AT_ONCE: Final = 50  # rows between two yields to the event loop: about 2 ms
_AT_ONCE_BYTES: Final = 524_288


async def rendered(clock: Clock, values: Iterable[object]) -> AsyncIterator[str]:
    """Yield each of *values* as JSON; the event loop has a turn now and then."""
    size = 0
    for number, value in enumerate(values, start=1):
        text = dumps(value)
        yield text
        size += len(text)
        if number % _AT_ONCE == 0 or size > _AT_ONCE_BYTES:
            size = 0
            await clock.sleep(0)


def text_answer(body: str, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return the answer that *body*, JSON, is."""
    return web.Response(text=body + "\n", status=status, headers=headers, content_type="application/json")


def json_answer(value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return *value*, plain, as an answer."""
    return text_answer(dumps(value), status=status, headers=headers)


def wire_answer(value: wire.Answer, *, status: int = 200) -> web.Response:
    """Return *value*, of a wire type, as an answer."""
    return json_answer(wire.to_plain(value), status=status)
