"""What other machines ask of this one: carried out through its own socket, as if somebody here had asked.

So it passes all that a request passes, and there is one way of doing each thing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import aiohttp

from cronally.actions import about
from cronally.admin.parcels import ELSEWHERE, FORWARDED_BY, Parcel, Reply, packed, unpacked
from cronally.errors import StoreError

if TYPE_CHECKING:
    from cronally.clock import Clock
    from cronally.engine.ports import Inbox
    from cronally.engine.records import Asked

log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.5  # with what the answer takes back, within the 2 s that a command may take
_AWAY_S: Final = 2.0
_MOST_S: Final = 600.0  # an apply of a hundred thousand lines takes some
_SEEN_AGAIN_S: Final = 600.0  # a read that is not the latest may show what was answered already


class Errands:
    """Answers what is in *inbox*, by way of the socket at *socket_path*."""

    def __init__(self, inbox: Inbox, clock: Clock, *, socket_path: str) -> None:
        self._inbox = inbox
        self._clock = clock
        self._socket_path = socket_path
        self._begun: dict[str, float] = {}

    async def run(self) -> None:
        """Look and answer, for ever."""
        connector = aiohttp.UnixConnector(self._socket_path)
        async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
            while True:
                try:
                    asked = await self._inbox.asked(but=self._begun)
                except StoreError:  # who keeps the lease says so
                    await self._clock.sleep(_AWAY_S)
                    continue
                now_s = self._clock.mono()
                for one in asked:
                    self._begun[one.id] = now_s
                    tasks.create_task(self._answer(one, session))
                for id_ in [id_ for id_, begun_s in self._begun.items() if now_s - begun_s > _SEEN_AGAIN_S]:
                    del self._begun[id_]
                await self._clock.sleep(_LOOK_EVERY_S)

    async def _answer(self, asked: Asked, session: aiohttp.ClientSession) -> None:
        try:
            reply = await self._carry_out(await unpacked(Parcel.unpack, asked.request), session)
            await self._inbox.answer(asked, await packed(reply))
        except (aiohttp.ClientError, TimeoutError, StoreError, ValueError) as exc:
            log.warning(
                "what another machine asked for is not answered: %s",
                exc,
                extra=about("inbox.failed", error=str(exc)),
            )

    async def _carry_out(self, parcel: Parcel, session: aiohttp.ClientSession) -> Reply:
        async with session.request(
            parcel.method,
            f"http://daemon{parcel.target}",
            headers=parcel.headers | {FORWARDED_BY: parcel.by},
            data=parcel.body or None,
            timeout=aiohttp.ClientTimeout(total=_MOST_S),
        ) as answer:
            return Reply(
                answer.status,
                answer.headers.get("ETag"),
                await answer.read(),
                is_elsewhere=ELSEWHERE in answer.headers,
            )
