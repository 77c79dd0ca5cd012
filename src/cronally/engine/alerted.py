"""Lets those who tell of trouble know which shards come to this machine and which go."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.engine.alerts import Alerts
    from cronally.engine.membership import Driver
    from cronally.engine.records import GivenUp, TakenIn


class AlertedDriver:
    """A ``Driver`` that is *inner*, and has *alerts* hear of it."""

    def __init__(self, inner: Driver, alerts: Alerts) -> None:
        self._inner = inner
        self._alerts = alerts

    async def take_in(self, taken: Sequence[TakenIn]) -> None:
        for one in taken:
            self._alerts.take_in(one)  # first: what is decided as it comes is heard
        await self._inner.take_in(taken)

    async def drain(self, timeout_s: float) -> None:
        await self._inner.drain(timeout_s)

    async def give_up(self, number: int) -> GivenUp:
        given = await self._inner.give_up(number)
        await self._alerts.give_up(number)
        return given
