"""An ``Inbox`` of machines that are all in one event loop. What lies in it is looked for when it has changed, not after a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cronally.engine.records import Asked
from cronally.errors import NotReady
from cronally.instants import MonoS
from support.fake_clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Container


class Post:
    """What all machines have written to each other. Attributes: requests: by machine. silent: those that do not answer."""

    def __init__(self) -> None:
        self.requests: dict[str, list[Asked]] = {}
        self.replies: dict[str, asyncio.Future[bytes]] = {}
        self.silent: set[str] = set()
        self.changed = asyncio.Condition()

    async def note(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class MemoryInbox:
    """The inbox of *machine* in *post*."""

    def __init__(self, post: Post, machine: str) -> None:
        self._post = post
        self._machine = machine

    async def ask(self, machine: str, request: bytes, *, timeout_s: float) -> bytes:
        if machine in self._post.silent:
            raise NotReady(f"{machine} has not answered within {timeout_s:g} s")
        asked = Asked(str(len(self._post.replies)), request)
        self._post.replies[asked.id] = asyncio.get_running_loop().create_future()
        self._post.requests.setdefault(machine, []).append(asked)
        await self._post.note()
        return await self._post.replies[asked.id]

    async def asked(self, but: Container[str] = ()) -> list[Asked]:
        return [one for one in self._post.requests.get(self._machine, ()) if one.id not in but]

    async def answer(self, asked: Asked, reply: bytes) -> None:
        self._post.requests[self._machine].remove(asked)
        self._post.replies[asked.id].set_result(reply)


class PostClock(FakeClock):
    """A clock for who looks into the inbox again and again: it waits until there is something new."""

    def __init__(self, post: Post) -> None:
        super().__init__()
        self._post = post

    def mono(self) -> MonoS:
        return MonoS(0.0)

    async def sleep(self, duration_s: float) -> None:
        async with self._post.changed:
            await self._post.changed.wait()
