"""A publisher that stands in front of another one and does something of its own on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.domain.batching import Batch
    from cronally.engine.ports import Armed, Outcome, Publisher
    from cronally.instants import UtcMs


class PublisherAround:
    """A ``Publisher`` that passes everything on to *inner*; what it does itself is for who derives from it to say."""

    def __init__(self, inner: Publisher) -> None:
        self._inner = inner

    @property
    def on_room(self) -> Callable[[], None]:
        return self._inner.on_room

    @on_room.setter
    def on_room(self, notify: Callable[[], None]) -> None:
        self._inner.on_room = notify

    async def arm(self, batches: Sequence[Batch], at: UtcMs) -> list[Armed]:
        return await self._inner.arm(batches, at)

    def has_room(self, topic: str, messages: int) -> bool:
        return self._inner.has_room(topic, messages)

    def wait_s(self, topic: str, messages: int) -> float:
        return self._inner.wait_s(topic, messages)

    def release(self, armed: Sequence[Armed], settle: Callable[[Sequence[Outcome]], None]) -> None:
        self._inner.release(armed, settle)

    def drop_connections(self) -> None:
        self._inner.drop_connections()

    async def close(self) -> None:
        await self._inner.close()
