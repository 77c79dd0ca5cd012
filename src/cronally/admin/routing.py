"""Where a change is carried out: by the machine that drives the schedule's shard, whichever machine was asked.

1. What is asked of another machine goes through the inbox as the request it is, and its answer comes back as it is; so a
   change means the same on each machine, and is exact: its owner makes it.
2. A shard that changes hands meanwhile is waited for, as long as its request has not been given to anybody.
3. What concerns schedules of several machines (apply, retry, many) is done in parts, one of each machine (``parts``).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from aiohttp import web

from cronally.admin import wire
from cronally.admin.parcels import CARRIED, ELSEWHERE, FORWARDED_BY, Parcel, Reply, packed, unpacked
from cronally.admin.requests import BODY
from cronally.domain.documents import load_json
from cronally.domain.shards import SHARDS, shard_of
from cronally.domain.spec import from_document
from cronally.errors import CronallyError, NotReady, ShardElsewhere

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from typing import Any

    from cronally.clock import Clock
    from cronally.engine.ports import Inbox, Store

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PATIENCE_S: Final = 12.0  # a take-over takes ten seconds at most (docs/adr/0014-shared-store.md)
LOOK_AGAIN_S: Final = 0.1
_ANSWERED_WITHIN_S: Final = 15.0
_LOOK_FOR_IT_S: Final = 1.0
_APPLIED_WITHIN_S: Final = 300.0  # a hundred thousand lines


class Owners(Protocol):
    """Who drives what, as far as this machine knows. machine: its own id. host: what people call it."""

    @property
    def machine(self) -> str: ...

    @property
    def host(self) -> str: ...

    def is_there(self, machine: str) -> bool:
        """Whether a machine is not known to be over."""
        ...

    def owner_of(self, shard: int) -> str | None:
        """Return the machine that drives a shard; None while nobody is known to."""
        ...


class Routing:
    """Finds the machine for each change, and has it carried out there.

    Args: everything: what there is in all shards. catch_up: reads all that is done by now.
    """

    def __init__(
        self,
        owners: Owners,
        inbox: Inbox,
        everything: Store,
        clock: Clock,
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._owners = owners
        self._inbox = inbox
        self._everything = everything
        self._clock = clock
        self._catch_up = catch_up

    async def change(self, request: web.Request, by: str, handler: Handler) -> web.StreamResponse:
        """Answer a request that changes the schedule its path names."""
        shard = await self._shard_of_request(request)
        if shard is None:  # there is no such thing: the handler says so
            return await handler(request)
        if FORWARDED_BY in request.headers:
            return await self._carry_out(request, shard, handler)
        until_s = self._clock.mono() + PATIENCE_S
        while True:
            owner = self._owners.owner_of(shard)
            if owner == self._owners.machine:
                with suppress(ShardElsewhere):  # it was given up meanwhile
                    return await handler(request)
            elif owner is not None:
                reply = await self._ask(owner, self._parcel(request, by, request.get(BODY, b"")))
                if reply is not None:
                    return answer_of(reply)
            await self._wait(until_s)

    async def _carry_out(self, request: web.Request, shard: int, handler: Handler) -> web.StreamResponse:
        """Answer a request that another machine has passed on to us."""
        if self._owners.owner_of(shard) == self._owners.machine:
            with suppress(ShardElsewhere):  # it was given up meanwhile
                return await handler(request)
        return not_here()

    async def groups(self, shards: Iterable[int]) -> dict[str, set[int]]:
        """Return the machines that drive *shards*, each with which. Errors: NotReady if one is driven by nobody for long."""
        until_s = self._clock.mono() + PATIENCE_S
        wanted = set(shards)
        owners: dict[int, str] = {}
        while True:
            # One after the other: while a machine joins, there is always some shard on its way.
            for shard in wanted - owners.keys():
                if (owner := self._owners.owner_of(shard)) is not None:
                    owners[shard] = owner
            if owners.keys() == wanted:
                break
            await self._wait(until_s)
        found: dict[str, set[int]] = {}
        for shard, owner in owners.items():
            found.setdefault(owner, set()).add(shard)
        return found

    async def owners_of(self, names: Iterable[str]) -> dict[str, str]:
        """Return for each of *names* the machine that drives the schedule, or drove the last one of that name; this one if there is none.

        Errors: NotReady if a shard is driven by nobody for long.
        """
        wanted = dict.fromkeys(names)
        shards = await self._living_shards(wanted)
        if len(shards) < len(wanted):  # one may have been made elsewhere a moment ago
            await self._catch_up()
            shards |= await self._living_shards(name for name in wanted if name not in shards)
        for name in wanted.keys() - shards.keys():
            if ids := await self._everything.bearers(name):
                shards[name] = ids[0] % SHARDS
        groups = await self.groups(shards.values())
        owners = {shard: owner for owner, some in groups.items() for shard in some}
        return {name: owners[shards[name]] if name in shards else self.machine for name in wanted}

    async def _living_shards(self, names: Iterable[str]) -> dict[str, int]:
        found = {name: await self._everything.schedule(name) for name in names}
        return {name: stored.id % SHARDS for name, stored in found.items() if stored is not None}

    async def living_shards(self) -> dict[str, int]:
        """Return the shard of each schedule that is not removed, by name."""
        await self._catch_up()
        return {row.name: row.id % SHARDS async for rows in self._everything.timetable() for row in rows}

    async def elsewhere(self, owner: str, parcel: Parcel) -> dict[str, Any] | None:
        """Return what *owner* answers to a part of a change, read; None if it does not drive all of it any more, and has done nothing.

        Errors: NotReady; the error that it answers.
        """
        reply = await self._ask(owner, parcel)
        if reply is None:
            return None
        if reply.status >= 400 and reply.status != 422:
            raise wire.error_from_plain(json.loads(reply.body)["error"])
        value: dict[str, Any] = json.loads(reply.body)
        return value

    @property
    def machine(self) -> str:
        """The id of this machine."""
        return self._owners.machine

    async def _ask(self, owner: str, parcel: Parcel) -> Reply | None:
        """Return the answer of *owner*; None if it does not drive the shard any more and has done nothing."""
        timeout_s = _APPLIED_WITHIN_S if parcel.target.startswith("/v1/apply") else _ANSWERED_WITHIN_S
        parcel = parcel._replace(by=f"{parcel.by} on {self._owners.host}")
        reply = await unpacked(Reply.unpack, await self._answered(owner, parcel, timeout_s))
        if reply.is_elsewhere:
            return None
        await self._catch_up()  # who asks for it next, here, finds it done
        return reply

    async def _answered(self, owner: str, parcel: Parcel, timeout_s: float) -> bytes:
        """Return what *owner* answers. Errors: NotReady if it does not, or is over before."""
        request = await packed(parcel)
        asking = asyncio.ensure_future(self._inbox.ask(owner, request, timeout_s=timeout_s))
        try:
            is_there = True
            while is_there:
                is_there = self._owners.is_there(
                    owner
                )  # once more after it is over: its last answer may lie there
                looking = asyncio.ensure_future(self._clock.sleep(_LOOK_FOR_IT_S))
                await asyncio.wait((asking, looking), return_when=asyncio.FIRST_COMPLETED)
                looking.cancel()
                if asking.done():
                    return asking.result()
        finally:
            asking.cancel()
        raise NotReady(
            f"the machine that was to do it, {owner}, is over; whether it did it is not known: look before you try again"
        )

    async def _shard_of_request(self, request: web.Request) -> int | None:
        name = request.match_info["name"]
        stored = await self._everything.schedule(name)
        if stored is None:  # it may have been made elsewhere a moment ago
            await self._catch_up()
            stored = await self._everything.schedule(name)
        if stored is not None:
            return stored.id % SHARDS
        if request.method != "PUT":
            return None
        try:
            document = load_json(request.get(BODY, b""))
            return shard_of(from_document(name, document)) if isinstance(document, dict) else None
        except (CronallyError, ValueError):  # the handler says what is wrong
            return None

    @staticmethod
    def _parcel(request: web.Request, by: str, body: bytes) -> Parcel:
        headers = {key: request.headers[key] for key in CARRIED if key in request.headers}
        return Parcel(request.method, request.raw_path, headers, body, by)

    async def _wait(self, until_s: float) -> None:
        if self._clock.mono() >= until_s:
            raise NotReady(
                "no machine drives the shard of this schedule now; see 'cronally status', and try again"
            )
        await self._clock.sleep(LOOK_AGAIN_S)


def not_here() -> web.Response:
    """Return the answer that nothing was done, for another machine drives the shard."""
    return web.Response(status=503, headers={ELSEWHERE: "1"}, text="{}")


def answer_of(reply: Reply) -> web.Response:
    """Return what another machine has answered, for our client."""
    headers: Mapping[str, str] = {} if reply.etag is None else {"ETag": reply.etag}
    return web.Response(
        body=reply.body,
        status=reply.status,
        headers=headers,
        content_type="application/json",
        charset="utf-8",
    )
