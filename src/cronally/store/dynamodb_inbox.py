"""What machines ask of each other, as items of the table that they share.

1. A request lies with the machine that is asked until it has answered; an incarnation that is over leaves what it was asked unanswered.
2. What is too large for an item lies beside it in parts, written before it, so that whoever finds the item finds them.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from cronally.engine.records import Asked
from cronally.errors import NotReady, StoreBusy
from cronally.store.dynamodb_table import MOST_ITEM_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from cronally.clock import Clock
    from cronally.store.dynamodb_table import DynamodbTable

_POLL_S: Final = 0.1  # a read of an eighth of a millionth of a dollar
_MOST_POLL_S: Final = 0.5
_KEEP_S: Final = 3_600  # whoever asked has long given up
_PUT_ATTEMPTS: Final = 3
_REPLIES: Final = "reply"


class DynamodbInbox:
    """The ``Inbox`` of the machine that *machine* names at the moment."""

    def __init__(self, table: DynamodbTable, machine: Callable[[], str], clock: Clock) -> None:
        self._table = table
        self._machine = machine
        self._clock = clock

    async def ask(self, machine: str, request: bytes, *, timeout_s: float) -> bytes:
        id_ = f"{self._clock.wall():014d}-{secrets.token_hex(8)}"  # in the order in which they are asked
        until_s = self._clock.mono() + timeout_s
        await self._send(_inbox(machine), id_, _parcel(id_), request)
        pause_s = _POLL_S
        while self._clock.mono() < until_s:
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 1.2, _MOST_POLL_S)
            found = await self._table.get((_REPLIES, id_))
            if found is not None:
                reply = await self._whole(found["parts"], _reply(id_)) if found["parts"] else found["body"]
                await self._forget((_REPLIES, id_), found["parts"], _reply(id_))
                return bytes(reply)
        raise NotReady(
            f"the machine that drives it, {machine}, has not answered within {timeout_s:g} s; whether it did it is not known: look "
            "before you try again"
        )

    async def asked(self, but: Container[str] = ()) -> list[Asked]:
        found = []
        for item in await self._table.all_of(_inbox(self._machine()), is_consistent=False):
            id_ = item["sk"]
            if id_ in but:
                continue
            body = await self._whole(item["parts"], _parcel(id_)) if item["parts"] else item["body"]
            found.append(Asked(id_, bytes(body), item["parts"]))
        return found

    async def answer(self, asked: Asked, reply: bytes) -> None:
        await self._send(_REPLIES, asked.id, _reply(asked.id), reply)
        await self._forget((_inbox(self._machine()), asked.id), asked.parts, _parcel(asked.id))

    async def _send(self, pk: str, sk: str, beside: str, body: bytes) -> None:
        expires = self._clock.wall() // 1000 + _KEEP_S
        parts = [body[start : start + MOST_ITEM_BYTES] for start in range(0, len(body), MOST_ITEM_BYTES)]
        item: dict[str, object] = {"pk": pk, "sk": sk, "expires": expires, "parts": 0, "body": body}
        if len(parts) > 1:
            for number, part in enumerate(parts):  # a batch takes 16 MB: one by one there is no limit
                one = {"pk": beside, "sk": f"{number:04d}", "expires": expires, "body": part}
                await self._put(one)
            item |= {"parts": len(parts), "body": b""}
        await self._put(item)

    async def _put(self, item: Mapping[str, object]) -> None:
        """Put an item until it is known to be there; who is asked twice under one id does it once."""
        for _ in range(_PUT_ATTEMPTS - 1):
            try:
                await self._table.put(item)
            except StoreBusy:
                await self._clock.sleep(_POLL_S)
            else:
                return
        await self._table.put(item)

    async def _whole(self, parts: int, beside: str) -> bytes:
        found = [item["body"] async for page in self._table.query(beside) for item in page]
        if len(found) != parts:
            raise StoreBusy(
                f"a request of another machine is not whole yet: {len(found)} of {parts} parts are there"
            )
        return b"".join(found)

    async def _forget(self, key: tuple[str, str], parts: int, beside: str) -> None:
        beside_keys = [(beside, f"{number:04d}") for number in range(parts)]
        await self._table.write_all([], deletes=[key, *beside_keys])


def _inbox(machine: str) -> str:
    return f"inbox#{machine}"


def _parcel(id_: str) -> str:
    return f"parcel#{id_}"


def _reply(id_: str) -> str:
    return f"reply#{id_}"
