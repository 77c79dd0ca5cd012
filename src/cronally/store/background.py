"""What a shared store does beside its calls."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from cronally.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Background:
    """Tasks that nobody waits for. tasks: those that are not over."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, what: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something in the background; if it fails, its lease is lost or it is tried again with the next occasion."""

        async def run() -> None:
            try:
                with suppress(StoreError):
                    await what
            finally:
                self.tasks.discard(task)

        task = asyncio.create_task(run())
        self.tasks.add(task)
        return task

    async def until(self, is_done: Callable[[], bool]) -> None:
        """Return when *is_done*, or when no task is left that could bring it about."""
        while not is_done() and self.tasks:
            await asyncio.wait(self.tasks, return_when=asyncio.FIRST_COMPLETED)
