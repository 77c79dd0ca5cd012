"""What stands in for a service manager: it hears what a daemon says of itself."""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PATIENCE_S = 40


class Heard:
    """Attributes: messages: all that were read, each by its fields."""

    def __init__(self, bound: socket.socket) -> None:
        self.messages: list[dict[str, str]] = []
        self._bound = bound

    def next(self) -> dict[str, str]:
        """Return the next message, once it has come."""
        text = self._bound.recv(4096).decode()
        self.messages.append(dict(line.split("=", 1) for line in text.splitlines()))
        return self.messages[-1]

    def until_silent(self, duration_s: float) -> None:
        """Return once nothing has come for so long. Real time: it is the process that is to be silent."""
        self._bound.settimeout(duration_s)
        with suppress(TimeoutError):
            while True:
                self.next()

    def wait_for(self, key: str) -> dict[str, str]:
        """Return the next message that says something of *key*."""
        while key not in (message := self.next()):
            pass
        return message


@contextmanager
def service_manager(path: Path) -> Iterator[Heard]:
    """For the block, listen at *path*."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(path))
        bound.settimeout(_PATIENCE_S)
        yield Heard(bound)
