"""How the daemon is, for machines: ``/metrics``, ``/healthz``, ``/readyz``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from cronally.admin.answers import dumps
from cronally.admin.exposition import CONTENT_TYPES, exposed

if TYPE_CHECKING:
    from cronally.clock import Clock
    from cronally.engine.reporting import Reporting

_FRESH_S: Final = 1.0  # nobody scrapes more often
_OPENMETRICS: Final = "application/openmetrics-text"


class Health:
    """Answers whether a daemon lives and is ready."""

    def __init__(self, reporting: Reporting) -> None:
        self._reporting = reporting

    async def healthz(self, _: web.Request) -> web.Response:
        """Say that the daemon answers.

        Answer: `{"ok": true}`.
        """
        return _json({"ok": True})

    async def readyz(self, _: web.Request) -> web.Response:
        """Say whether the daemon fires schedules, and if not, why.

        Answer: `{"ready": true, "because": null}`; 503 if it is not ready.
        """
        because = self._reporting.not_ready_because
        return _json({"ready": because is None, "because": because}, status=503 if because else 200)


class Metrics:
    """Answers with the daemon's figures, made at most once a second, however many ask."""

    def __init__(self, reporting: Reporting, clock: Clock) -> None:
        self._reporting = reporting
        self._clock = clock
        self._making = asyncio.Lock()
        self._made: dict[bool, tuple[float, bytes]] = {}

    async def answer(self, request: web.Request) -> web.Response:
        """Say what the daemon measures.

        Answer: the text format of Prometheus, or that of OpenMetrics where `Accept` takes it.
        """
        is_openmetrics = _OPENMETRICS in request.headers.get("Accept", "")
        async with self._making:
            made_s, body = self._made.get(is_openmetrics, (None, b""))
            if made_s is None or self._clock.mono() - made_s >= _FRESH_S:
                body = await self._text(is_openmetrics=is_openmetrics)
                self._made[is_openmetrics] = (self._clock.mono(), body)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPES[is_openmetrics]})

    async def _text(self, *, is_openmetrics: bool) -> bytes:
        parts = []
        for part in exposed(await self._reporting.figures(), is_openmetrics=is_openmetrics):
            parts.append(part)
            await self._clock.sleep(0)
        return b"".join(parts)


def _json(value: object, *, status: int = 200) -> web.Response:
    return web.Response(text=dumps(value) + "\n", status=status, content_type="application/json")
