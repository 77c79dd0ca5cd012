"""Since when each shard has been driven by nobody, looked at once a second as this machine sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cronally.domain.shards import SHARDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cronally.clock import Clock
    from cronally.engine.membership import Sharing

_EVERY_S: Final = 1.0


class ShardWatch:
    """Looks at what *sharing* gives, for ever; None, or nothing read yet: nothing is known."""

    def __init__(self, clock: Clock, sharing: Callable[[], Sharing | None]) -> None:
        self._clock = clock
        self._sharing = sharing
        self._since: dict[int, float] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await self._clock.sleep(_EVERY_S)

    def look(self) -> float:
        """Return for how long nobody has driven the shard of which that is true longest; 0 if each is driven."""
        sharing, now = self._sharing(), self._clock.boot()
        numbers = set() if sharing is None else undriven(sharing)
        self._since = {number: self._since.get(number, now) for number in numbers}
        return now - min(self._since.values(), default=now)


def undriven(sharing: Sharing) -> set[int]:
    """Return the shards that neither this machine fires nor another one that lives has; none while nothing is known of the others."""
    if not sharing.machines:
        return set()
    return set(range(SHARDS)) - set(sharing.driven) - driven_elsewhere(sharing)


def driven_elsewhere(sharing: Sharing) -> set[int]:
    """Return the shards that other machines have, which live."""
    others = [one for one in sharing.machines if not (one.is_self or one.is_retired)]
    return {number for one in others for number in one.shards} - set(sharing.driven)
