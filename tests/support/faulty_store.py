"""A store that is slow or refuses, as a test wants it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cronally.errors import StoreBusy, StoreError
from support.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from cronally.clock import Clock
    from cronally.engine.records import TimetableRow


class FaultyStore:
    """Passes every call on to *inner*, a ``MemoryStore`` that survives it.

    Attributes: fails: called with a method's name; True makes it raise *error*, by default StoreBusy, with nothing done, an error
        that very one. before_s, after_s: seconds of the clock that a method takes before and after its effect, by its name.
        calls: how often each was called.
    """

    def __init__(self, clock: Clock, inner: MemoryStore | None = None) -> None:
        self.inner = inner or MemoryStore()
        self.error: Callable[[str], StoreError] = StoreBusy
        self.fails: Callable[[str], StoreError | bool] = lambda _name: False
        self.before_s: dict[str, float] = {}
        self.after_s: dict[str, float] = {}
        self.calls: Counter[str] = Counter()
        self._clock = clock

    def fail(self, *names: str) -> None:
        """Let the methods *names* fail, and no others; without names, none."""
        self.fails = lambda name: name in names

    @property
    def commit_interval_s(self) -> float:
        return self.inner.commit_interval_s

    def timetable(self) -> AsyncIterator[Sequence[TimetableRow]]:
        return self.inner.timetable()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(*args: object, **keys: object) -> object:
            self.calls[name] += 1
            if name in self.before_s:
                await self._clock.sleep(self.before_s[name])
            failure = self.fails(name)
            if failure:
                raise (
                    failure
                    if isinstance(failure, StoreError)
                    else self.error(f"{name} fails, as the test wants")
                )
            result = await getattr(self.inner, name)(*args, **keys)
            if name in self.after_s:
                await self._clock.sleep(self.after_s[name])
            return result

        return call
