"""One HTTP/1.1 connection: it writes a request that is ready and reads the answer, one at a time.

1. Every request that was handed to ``send`` ends in exactly one call of ``on_reply`` or ``on_end``.
2. Whatever is odd (bytes nobody asked for, a malformed head, a reply without an end) ends the connection.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import httptools

from cronally.sns.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REPLY_BYTES = 1_048_576  # a reply of ten members takes 2 KB


class Connection(asyncio.Protocol):
    """A connection. Attributes: request: the one that is not answered, an object of the owner's, or None.

    written_at, idle_since: the owner's notes, seconds of its clock. is_slow: the peer was slow to take its request.
    """

    __slots__ = (
        "_body",
        "_date",
        "_is_bounded",
        "_is_complete",
        "_is_headed",
        "_is_reusable",
        "_on_end",
        "_on_reply",
        "_parser",
        "_received",
        "_status",
        "_transport",
        "idle_since",
        "is_slow",
        "request",
        "written_at",
    )

    def __init__(
        self,
        on_reply: Callable[[Connection, Any, Reply], None],
        on_end: Callable[[Connection, Any, str], None],
    ) -> None:
        """on_reply: with the request and its answer. on_end: the connection is gone; with the request it takes along, or None."""
        self.request: Any = None
        self.is_slow = False
        self.written_at = self.idle_since = 0.0
        self._on_reply = on_reply
        self._on_end = on_end
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpResponseParser(self)
        self._forget_reply()
        self._is_reusable = True

    @property
    def is_lost(self) -> bool:
        """Whether nothing is left of it."""
        return self._transport is None

    @property
    def is_open(self) -> bool:
        """Whether a request may be written."""
        return self._is_reusable and self._transport is not None and not self._transport.is_closing()

    def send(self, request: Any, data: bytes) -> None:
        """Write *data*, all of a request that the owner calls *request*; there must be no other and ``is_open``."""
        assert self._transport is not None
        self.request = request
        self.is_slow = False
        self._transport.write(data)

    def abort(self, why: str) -> None:
        """End the connection at once, and with it the request it has, if any."""
        self._is_reusable = False
        if self._transport is not None:
            self._transport.abort()
        request, self.request = self.request, None
        if request is not None:
            self._on_end(self, request, why)

    # --- asyncio.Protocol -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's has the methods, not the class

    def pause_writing(self) -> None:
        self.is_slow = True

    def data_received(self, data: bytes) -> None:
        if self.request is None:
            self.abort("")
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            if not self._is_complete:
                self.abort(f"BadReplyError: the answer is not one of HTTP: {exc}")
                return
            self._is_reusable = False
        if self._is_complete:
            self._answer()
        elif self._received > MAX_REPLY_BYTES:
            self.abort("BadReplyError: the answer is too long")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._is_reusable = False
        if self.request is not None and self._is_headed and not self._is_bounded and exc is None:
            self._answer()  # the end of the stream is the end of such a reply
        request, self.request = self.request, None
        why = "ConnectionClosedError: the connection was closed before the answer came"
        if exc is not None:
            why = f"{type(exc).__name__}: the connection broke before the answer came: {exc}"
        self._parser = None  # it holds our methods, and so us
        self._on_end(self, request, why)

    def _answer(self) -> None:
        request, self.request = self.request, None
        reply = Reply(self._status, self._body, self._date)
        self._forget_reply()
        if not self._is_reusable and self._transport is not None:
            self._transport.close()
        self._on_reply(self, request, reply)

    def _forget_reply(self) -> None:
        self._status = 0
        self._body = b""
        self._date: str | None = None
        self._received = 0
        self._is_headed = self._is_bounded = self._is_complete = False

    # --- what httptools calls -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_complete:  # a second answer to one request
            self._is_reusable = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_complete:
            return
        size = len(name)
        if size == 4 and name.lower() == b"date":
            self._date = value.decode("latin-1")
        elif size in (14, 17) and name.lower() in (b"content-length", b"transfer-encoding"):
            self._is_bounded = True

    def on_headers_complete(self) -> None:
        if not self._is_complete:
            self._status = self._parser.get_status_code()
            self._is_headed = True

    def on_body(self, body: bytes) -> None:
        if not self._is_complete:
            self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        if self._is_complete:
            return
        if self._status < 200:  # "100 Continue": the answer is still to come
            self._is_headed = self._is_bounded = False
            return
        self._is_complete = True
        if not self._parser.should_keep_alive():
            self._is_reusable = False
