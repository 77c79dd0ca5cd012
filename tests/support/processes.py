"""The installed command as processes of their own, each set in an empty home.

``TESTED_COMMAND`` names another command to be run instead, such as the single executable (deploy/binary).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cronally.admin.client import Client
from cronally.errors import AdminError, NotReady
from support.fake_sns import ACCESS_KEY, SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.admin.wire import Fire

INSTALLED = Path(sys.executable).with_name("cronally")
COMMAND = Path(os.environ.get("TESTED_COMMAND") or INSTALLED)
_START_TIMEOUT_S = 40


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Installation:
    """An empty home directory, and the daemon that lives in it.

    receiver_url: what stands in for SNS; None for the local stand-in, which is started on *port*. extra: variables of the
    environment. log: what its daemons have said so far, by line.
    """

    home: Path
    port: int = field(default_factory=free_port)
    receiver_url: str | None = None
    extra: dict[str, str] = field(default_factory=dict)
    daemon: subprocess.Popen[str] | None = None
    log: list[str] = field(default_factory=list)
    _reader: threading.Thread | None = None
    _said: threading.Condition = field(default_factory=threading.Condition)
    _is_silent: bool = True

    @property
    def environment(self) -> dict[str, str]:
        keep = {
            key: os.environ[key] for key in ("PATH", "LANG", "SYSTEMROOT", "PYTHONPATH") if key in os.environ
        }
        keep |= {"HOME": str(self.home), "COVERAGE_PROCESS_START": ""}
        if COMMAND != INSTALLED:
            keep["TMPDIR"] = str(self.home)  # where it unpacks itself: what a kill leaves goes with the home
        if self.receiver_url is not None:
            keep |= {
                "AWS_ENDPOINT_URL_SNS": self.receiver_url,
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            }
        return keep | self.extra

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        return self.home / ".local/state/cronally/cronally.sock"

    @property
    def store(self) -> Path:
        return self.home / ".local/state/cronally/cronally.db"

    def start(self, *arguments: str, command: Sequence[str | Path] = (COMMAND,)) -> None:
        """Start ``cronally serve`` and return once it is ready. command: what runs it, if not what is installed."""
        said = len(self.log)
        self.begin(*arguments, command=command)
        self.wait_for("ready", since=said)

    def begin(
        self,
        *arguments: str,
        command: Sequence[str | Path] = (COMMAND,),
        stderr: int | None = None,
        before: Callable[[], None] | None = None,
    ) -> None:
        """Start ``cronally serve`` and return at once.

        stderr: where its log goes; None: to ``log``. before: called in the new process before the command.
        """
        local = ["--local", "--local-port", str(self.port)] if self.receiver_url is None else []
        self.daemon = subprocess.Popen(
            [*command, "serve", *local, *arguments],
            env=self.environment,
            stderr=subprocess.PIPE if stderr is None else stderr,
            stdout=subprocess.DEVNULL,
            preexec_fn=before,  # noqa: PLW1509 - no thread of ours holds a lock that it takes
            text=True,
        )
        if stderr is not None:
            return
        self._is_silent = False
        self._reader = threading.Thread(target=self._read, args=(self.daemon,), name="log", daemon=True)
        self._reader.start()

    def wait_for(self, words: str, *, since: int = 0) -> str:
        """Return the first line of the log, from number *since* on, that has *words* in it, once it is there.

        Errors: AssertionError when the daemon ends before, or takes longer than any start does.
        """
        with self._said:
            self._said.wait_for(
                lambda: self._is_silent or any(words in line for line in self.log[since:]), _START_TIMEOUT_S
            )
            for line in self.log[since:]:
                if words in line:
                    return line
        raise AssertionError(f"the daemon did not say {words!r}: {''.join(self.log[since:])}")

    def _read(self, daemon: subprocess.Popen[str]) -> None:
        assert daemon.stderr is not None
        for line in daemon.stderr:
            with self._said:
                self.log.append(line)
                self._said.notify_all()
        with self._said:
            self._is_silent = True
            self._said.notify_all()

    def kill(self) -> None:
        """End the daemon as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Stop the daemon in order; return its exit code."""
        return self._end(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Send the daemon a signal. What none can pass on goes to the daemon proper, where it has unpacked itself."""
        assert self.daemon is not None
        if number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT) and COMMAND != INSTALLED:
            process = self.daemon.pid
            children = []
            with suppress(FileNotFoundError):  # it has ended
                children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
            with suppress(ProcessLookupError):
                os.kill(int(children[0]) if children else process, number)
        else:
            self.daemon.send_signal(number)

    def _end(self, number: int) -> int:
        self.signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the daemon's exit code once it has ended."""
        daemon, self.daemon = self.daemon, None
        assert daemon is not None
        code = daemon.wait(_START_TIMEOUT_S)
        if daemon.stderr is not None:
            assert self._reader is not None
            self._reader.join(_START_TIMEOUT_S)
            daemon.stderr.close()
        return code

    def fires(self) -> list[Fire]:
        """Return the whole journal, as the running daemon tells it."""
        with self.client() as client:
            return [fire for fires in client.fire_pages() for fire in fires]

    def wait_until_ready(self, within_s: float = _START_TIMEOUT_S) -> None:
        """Return once the daemon is ready, by its socket: by asking again and again, where it can write no log."""
        give_up = time.monotonic() + within_s
        while True:
            with suppress(AdminError, NotReady), self.client() as client:
                if client.status().is_ready:
                    return
            assert time.monotonic() < give_up, "the daemon is not ready"
            time.sleep(0.05)

    def wait_until_settled(self) -> None:
        """Return once all that is due has been published or given up: by asking again and again."""
        give_up = time.monotonic() + _START_TIMEOUT_S
        with self.client() as client:
            while (status := client.status()).pending or status.in_flight:
                assert time.monotonic() < give_up, "something is still to be published"
                time.sleep(0.01)

    def wait_until_decided(self, instant: str) -> None:
        """Return once every slot that was due at or before *instant* is in the journal: by asking again and again."""
        give_up = time.monotonic() + _START_TIMEOUT_S
        with self.client() as client:
            while (client.status().watermark or "") < instant:
                assert time.monotonic() < give_up, f"not all that was due by {instant} is in the journal"
                time.sleep(0.05)

    def client(self) -> Client:
        return Client(str(self.socket))

    def run(
        self, *arguments: str, stdin: str | None = None, within_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, whatever its exit code. Errors: TimeoutExpired, and it is killed."""
        return subprocess.run(
            [COMMAND, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=within_s,
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
