"""Requests of the admin socket and their answers as bytes, for another machine to carry out (docs/adr/0014-shared-store.md)."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_T = TypeVar("_T")

FORWARDED_BY: Final = "Cronally-Forwarded-By"
"""The header in which a daemon tells itself who has asked, at which other machine."""

ELSEWHERE: Final = "Cronally-Elsewhere"
"""The header of an answer that says: the shard is not this machine's any more, and nothing was done."""

CARRIED: Final = ("If-Match", "If-None-Match", "Idempotency-Key")
"""The headers of a request that mean something to a change."""

_SMALL_BYTES: Final = 64 << 10  # 2 ms


class Parcel(NamedTuple):
    """A request. target: path and query. by: who asks, as the audit log has it."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    by: str

    def pack(self) -> bytes:
        head = {"method": self.method, "target": self.target, "headers": self.headers, "by": self.by}
        return _pack(head, self.body)

    @classmethod
    def unpack(cls, data: bytes) -> Parcel:
        """Errors: ValueError if another version has written it."""
        return _unpack(cls, data)


class Reply(NamedTuple):
    """An answer. etag: of the schedule, if it has one. is_elsewhere: nothing was done, for the shard is another machine's."""

    status: int
    etag: str | None
    body: bytes
    is_elsewhere: bool = False

    def pack(self) -> bytes:
        head = {"status": self.status, "etag": self.etag, "is_elsewhere": self.is_elsewhere}
        return _pack(head, self.body)

    @classmethod
    def unpack(cls, data: bytes) -> Reply:
        """Errors: ValueError if another version has written it."""
        return _unpack(cls, data)


async def packed(what: Parcel | Reply) -> bytes:
    """Return what ``pack`` does; what is large is packed beside the event loop: 10 MB take a third of a second."""
    return what.pack() if len(what.body) <= _SMALL_BYTES else await asyncio.to_thread(what.pack)


async def unpacked(unpack: Callable[[bytes], _T], data: bytes) -> _T:
    """Return what ``Parcel.unpack`` or ``Reply.unpack`` does, in the same way. Errors: ValueError."""
    return unpack(data) if len(data) <= _SMALL_BYTES else await asyncio.to_thread(unpack, data)


def _pack(head: Mapping[str, object], body: bytes) -> bytes:
    return zlib.compress(json.dumps(head).encode() + b"\n" + body)


def _unpack(kind: Callable[..., _T], data: bytes) -> _T:
    try:
        head, _, body = zlib.decompress(data).partition(b"\n")
        return kind(body=body, **json.loads(head))
    except (zlib.error, ValueError, TypeError) as exc:
        raise ValueError("another machine has written it in a way that this version does not know") from exc
