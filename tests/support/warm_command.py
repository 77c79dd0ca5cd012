"""The ``cronally`` command without what its start costs: a process that has imported all of it forks for each call.

What a page has its reader type is the subject of such a test, not how Python starts; other tests start the installed command.
"""

from __future__ import annotations

import gc
import io
import marshal
import os
import signal
import socket
import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_MOST_BYTES = 1 << 20
_BROKEN = 70
_CALLER = """\
#!{python} -IS
import marshal, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
    s.connect({socket!r})
    socket.send_fds(s, [marshal.dumps((sys.argv[1:], os.getcwd(), dict(os.environ)))], [0, 1, 2])
    code = s.recv(16)
sys.exit(int(code or {broken}))
"""


class WarmCommand:
    """A process that waits for calls. Attributes: script: what is typed runs this instead of the installed command."""

    def __init__(self, directory: Path) -> None:
        """directory: an empty one with a short path."""
        path = directory / "s"
        self.script = directory / "cronally"
        self.script.write_text(_CALLER.format(python=sys.executable, socket=str(path), broken=_BROKEN))
        self.script.chmod(0o755)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.warm_command", str(path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def close(self) -> None:
        """Take no more calls."""
        self._process.kill()
        self._process.communicate()


def _wait_for_calls(path: str) -> None:
    commands = import_module("cronally.cli.main").COMMANDS
    for module, _ in commands.values():
        import_module(f"cronally.cli.{module}")
    for name in ("aiobotocore.session", "cronally.admin.client", "cronally.app.daemon"):
        import_module(name)
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            call, _ = listener.accept()
            with call:
                data, streams, _, _ = socket.recv_fds(call, _MOST_BYTES, 3)
                if os.fork() == 0:
                    listener.close()
                    _carry_out(call, data, streams)
                for stream in streams:
                    os.close(stream)


def _carry_out(call: socket.socket, data: bytes, streams: list[int]) -> None:
    """Be the command, and end."""
    code = _BROKEN
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        arguments, directory, environment = marshal.loads(data)  # from the script above
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(environment)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(
                io.BufferedWriter(io.FileIO(number, "w", closefd=False)),
                encoding="utf-8",
                line_buffering=number == 2 or os.isatty(number),
            )
            for number in (1, 2)
        )
        sys.argv = ["cronally", *arguments]
        code = import_module("cronally.cli.main").main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        call.send(str(code).encode())
        os._exit(code)


if __name__ == "__main__":
    _wait_for_calls(sys.argv[1])
