"""The installed command as processes of their own, each set in an empty home."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = Path(sys.executable).with_name("cronally")
_START_TIMEOUT_S = 40


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Installation:
    """An empty home directory, and the daemon that lives in it."""

    home: Path
    port: int = field(default_factory=free_port)
    daemon: subprocess.Popen[str] | None = None
    log: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        keep = {key: os.environ[key] for key in ("PATH", "LANG", "SYSTEMROOT") if key in os.environ}
        return {**keep, "HOME": str(self.home), "COVERAGE_PROCESS_START": ""}

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        return self.home / ".local/state/cronally/cronally.sock"

    def start(self, *arguments: str, command: Sequence[str | Path] = (COMMAND,)) -> None:
        """Start ``cronally serve --local`` and return once it is ready. command: what runs it, if not what is installed."""
        self.daemon = subprocess.Popen(
            [*command, "serve", "--local", "--local-port", str(self.port), *arguments],
            env=self.environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        stderr = self.daemon.stderr
        assert stderr is not None
        for line in stderr:
            self.log.append(line)
            if "ready" in line:
                return
        raise AssertionError(f"the daemon did not start: {''.join(self.log)}")

    def kill(self) -> None:
        """End the daemon as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Stop the daemon in order; return its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        daemon, self.daemon = self.daemon, None
        assert daemon is not None
        daemon.send_signal(number)
        assert daemon.stderr is not None
        self.log += daemon.stderr.readlines()
        daemon.stderr.close()
        return daemon.wait(_START_TIMEOUT_S)

    def run(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever its exit code."""
        return subprocess.run(
            [COMMAND, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=60,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """Run a command that must succeed and return the JSON it prints."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def clear(self) -> None:
        """End the daemon and the stand-in it left behind."""
        if self.daemon is not None:
            self.kill()
        for process in stand_ins(self.port):
            os.kill(process, signal.SIGKILL)


def stand_ins(port: int) -> list[int]:
    """Return the process ids of the stand-ins started on *port*."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"cronally.sns.moto_server" in arguments and str(port).encode() in arguments:
                found.append(int(entry.name))
    return found
