"""A reader's terminal: one bash for a whole page, and commands that go on beside it."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from support.pages import is_as_shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_BASH = ("bash", "-euo", "pipefail")
_DONE = "--- done ---"
_PATIENCE_S = 20


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)


class Shell:
    """Stops at the first command that fails, as a careful reader does. Nothing is typed to the commands themselves."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._environment = dict(environment)
        self._beside: dict[str, subprocess.Popen[str]] = {}
        script, self._script = os.pipe()
        self._bash = self._start((*_BASH, f"/dev/fd/{script}"), pass_fds=(script,))
        os.close(script)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._script)
        for process in (self._bash, *self._beside.values()):
            _end(process)
            process.communicate()

    def run(self, commands: str) -> str:
        """Run *commands* and return what they print. Errors: AssertionError with that if one of them fails."""
        os.write(self._script, f"{commands}\nprintf '\\n%s\\n' '{_DONE}'\n".encode())
        printed = ""
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            if line.strip() == _DONE:
                return printed.removesuffix("\n")
            printed += line
        raise AssertionError(f"exit code {self._bash.wait()}\n{printed}")

    def begin(self, commands: str) -> None:
        """Start *commands* in another terminal."""
        self._beside[commands] = self._start((*_BASH, "-c", commands), pass_fds=())

    def wait_for(self, shown: str, *, by: str) -> str:
        """Return what the commands *by*, begun before, have printed, once it is as *shown*.

        If they end before that, or take too long and are ended, it is not as shown.
        """
        process = self._beside[by]
        assert process.stdout is not None
        give_up = threading.Timer(_PATIENCE_S, _end, (process,))
        give_up.start()
        printed = ""
        try:
            for line in process.stdout:
                printed += line
                if is_as_shown(shown, printed):
                    break
        finally:
            give_up.cancel()
        return printed

    def _start(self, command: tuple[str, ...], *, pass_fds: tuple[int, ...]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
            text=True,
        )
