"""A client of the admin socket that sends bytes as a test says, right or wrong."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

_ANSWER_S = 20.0


@dataclass(frozen=True)
class Reply:
    """An answer: its status, headers (in lower case) and JSON."""

    status: int
    headers: dict[str, str]
    plain: Any

    @property
    def reason(self) -> str:
        """The sentence that says why not."""
        text: str = self.plain["error"]["message"]
        return text


class RawClient:
    """A connection. Every wait for an answer is bounded, so that one that hangs is a failure."""

    def __init__(self, path: str, *sent: bytes) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)  # before there is a timeout, so that it waits its turn
        self.sock.settimeout(_ANSWER_S)
        self._left = b""
        self.send_all(sent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_all(self, chunks: Iterable[bytes]) -> int:
        """Send until the daemon takes no more; return how many bytes it took."""
        taken = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            for chunk in chunks:
                self.sock.sendall(chunk)
                taken += len(chunk)
        return taken

    def reply(self) -> Reply | None:
        """Return the next answer, None if the connection was closed before one began."""
        head = self._until(b"\r\n\r\n")
        if not head:
            return None
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        version, status = first.split(" ")[:2]
        assert version in {"HTTP/1.1", "HTTP/1.0", "HTTP/0.9"}, first
        if status == "100":
            return self.reply()
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        body = self._exactly(int(headers.get("content-length", "0")))
        return Reply(int(status), headers, json.loads(body) if body else None)

    def is_closed(self) -> bool:
        """Wait for the daemon to close the connection; False if it sends something."""
        try:
            return not self._left and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._left:
            if not self._more():
                assert not self._left, self._left
                return b""
        head, _, self._left = self._left.partition(mark)
        return head + mark

    def _exactly(self, size: int) -> bytes:
        while len(self._left) < size:
            assert self._more(), "the answer is cut"
        body, self._left = self._left[:size], self._left[size:]
        return body

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65_536)
        except ConnectionResetError:
            data = b""
        self._left += data
        return bool(data)


def request(method: str, path: str, body: bytes = b"", *headers: str, host: str = "x") -> bytes:
    """Write a request. headers: whole lines; a Content-Length is added unless they say how long the body is."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body and not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body
