"""A command on a terminal of its own, read and typed to from outside."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT_S = 20
# As a shell on a terminal starts a command: what runs the tests may ignore signals, which is inherited.
_ON_TERMINAL = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "[signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)]; "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class PseudoTerminal:
    """Runs a command for the block, in a session that has the terminal. Attributes: output: all that was written so far."""

    def __init__(
        self, command: Sequence[str], environment: dict[str, str], *, columns: int, rows: int
    ) -> None:
        self.output = ""
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._mode = termios.tcgetattr(self._slave)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ON_TERMINAL, *command],
            env={"TERM": "xterm-256color"} | environment,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(_TIMEOUT_S)
        os.close(self._master)
        os.close(self._slave)

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal's modes are what they were before the command."""
        return termios.tcgetattr(self._slave) == self._mode

    def read_until(self, text: str) -> str:
        """Return what is written up to *text*, from where the last call ended."""
        found = ""
        while text not in found:
            ready, _, _ = select.select([self._master], [], [], _TIMEOUT_S)
            assert ready, f"{text!r} did not come: {found!r}"
            found += os.read(self._master, 65_536).decode()
        self.output += found
        return found

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait_until_stopped(self) -> None:
        """Return when a signal has stopped the command."""
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def end(self) -> int:
        """Return the exit code once the command has ended by itself, with the rest of what it wrote in ``output``."""
        code = self._process.wait(_TIMEOUT_S)
        with suppress(OSError):
            while select.select([self._master], [], [], 0)[0]:
                self.output += os.read(self._master, 65_536).decode()
        return code
