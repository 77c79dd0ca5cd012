"""A change is made to its end or not at all, whoever goes away meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

_T = TypeVar("_T")


async def to_its_end(change: Coroutine[Any, Any, _T]) -> _T:
    """Await *change* to its end, also when cancelled: halfway, nobody would know what is in force."""
    task = asyncio.ensure_future(change)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        task.exception()  # nobody is left to hear of it
        raise
