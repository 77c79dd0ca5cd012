"""A client of DynamoDB whose calls go wrong as a test wants it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from cronally.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from support.table_servers import TableClient


class FaultyTable:
    """Passes calls on to the client that *inner* gives; to be given to a ``DynamodbStore`` in its place.

    Attributes: before, after: called with each call's method and parameters; what they return is awaited, what they raise is what
        became of the call: before it is made, or when its answer is lost. calls: how many of each method were made.
    """

    def __init__(self, inner: TableClient) -> None:
        self.before: Callable[[str, dict[str, Any]], Awaitable[None] | None] = lambda _name, _parameters: None
        self.after: Callable[[str, dict[str, Any]], Awaitable[None] | None] = lambda _name, _parameters: None
        self.calls: Counter[str] = Counter()
        self._inner = inner

    async def __call__(self) -> FaultyTable:
        return self

    def heal(self) -> None:
        """Let calls go well again."""
        self.before = self.after = lambda _name, _parameters: None

    def cut(self) -> None:
        """Let no call come through."""

        def refuse(_name: str, _parameters: dict[str, Any]) -> None:
            raise unreachable()

        self.before = refuse

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def call(**parameters: Any) -> Any:
            self.calls[name] += 1
            waiting = self.before(name, parameters)
            if waiting is not None:
                await waiting
            reply = await getattr(await self._inner(), name)(**parameters)
            waiting = self.after(name, parameters)
            if waiting is not None:
                await waiting
            return reply

        return call


def unreachable() -> Exception:
    error: Exception = EndpointConnectionError(endpoint_url="http://table")
    return error


def cut_off() -> Exception:
    """Return what a call raises whose answer is lost."""
    error: Exception = ConnectionClosedError(endpoint_url="http://table")
    return error


def refused(code: str, message: str = "") -> Exception:
    """Return what a call raises that AWS refuses with *code*."""
    error: Exception = ClientError({"Error": {"Code": code, "Message": message}}, "x")
    return error


class LeapingClock(SystemClock):
    """The clocks of this machine, which a test lets leap."""

    def __init__(self) -> None:
        self.leapt_s = 0.0

    def boot(self) -> float:
        return super().boot() + self.leapt_s
