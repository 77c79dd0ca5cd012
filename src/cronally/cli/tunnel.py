"""The way to a daemon on another machine: the system's ssh, which carries a socket of this one to the daemon's.

1. What ssh is given is words of letters, digits and a few signs; none of them can be taken for an option.
2. The socket lies in a directory that is this user's alone. ssh and directory go with the block, whatever ends it but SIGKILL.
"""

import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from cronally.admin.client import Client
from cronally.admin.paths import MAX_PATH_BYTES, SYSTEM_SOCKET
from cronally.errors import AdminError, HostUnreachable, UsageError

_LOOK_EVERY_S: Final = 0.05  # ssh does not say when the socket is there
_LEAVE_S: Final = 2.0  # to end when it is asked to
_SSH: Final = (
    "ssh", "-N", "-T",
    "-S", "none",  # a master of the user's would keep the way open when we have gone
    "-o", "ExitOnForwardFailure=no", "-o", "ClearAllForwardings=no",  # of others that its configuration has, or ours
)  # fmt: skip

# No sign that ssh gives a meaning: a colon ends a path of -L; % and $ are replaced in it.
_PATH: Final = r"(?:/[A-Za-z0-9._+@=,~-]+)+"
_URL: Final = re.compile(
    rf"""
    ssh://
    (?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._+-]*)@)?
    (?:(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]*)|\[(?P<v6>[0-9A-Fa-f:.]+)\])
    (?::(?P<port>[0-9]{{1,5}}))?
    (?P<path>{_PATH})?/?
    """,
    re.ASCII | re.VERBOSE,
)


class Place(NamedTuple):
    """A daemon on another machine. user, port: None for what ssh's configuration says. socket: its path there."""

    host: str
    user: str | None
    port: int | None
    socket: str

    @classmethod
    def read(cls, text: str) -> "Place":
        """Read ``ssh://[user@]host[:port][/path/of/socket]``. Errors: UsageError."""
        match = _URL.fullmatch(text)
        port = int(match["port"]) if match and match["port"] else None
        if match is None or (port is not None and not 1 <= port <= 65_535):
            raise UsageError(
                f"{text[:100]!r} names no host; write ssh://HOST or ssh://USER@HOST, with :PORT and the path of the daemon's socket behind "
                "it if need be, such as ssh://anna@vm:2222/run/cronally/cronally.sock"
            )
        socket = match["path"] or SYSTEM_SOCKET
        if len(socket) > MAX_PATH_BYTES:
            raise UsageError(
                f"the socket path in {text[:200]} has {len(socket)} bytes and a Unix socket takes at most {MAX_PATH_BYTES}"
            )
        return cls(match["name"] or match["v6"], match["user"], port, socket)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{f'{self.user}@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}{self.socket}"

    def command(self, local: str) -> list[str]:
        """Return what makes *local*, a socket of this machine, lead there."""
        words = [*_SSH, "-L", f"{local}:{self.socket}"]
        words += [] if self.port is None else ["-p", str(self.port)]
        words += [] if self.user is None else ["-l", self.user]
        return [*words, "--", self.host]


@contextmanager
def client_through_ssh(url: str, *, answer_s: float, trace: Callable[[str], None]) -> Iterator[Client]:
    """For the block, have a way to the daemon at *url*. Errors: UsageError; HostUnreachable if ssh ends before there is one."""
    place = Place.read(url)
    with _ending_in_order(), _directory() as directory:
        local, said = f"{directory}/s", Path(directory) / "said"
        command = place.command(local)
        trace(shlex.join(command))
        with said.open("wb") as log, _running(place, command, log) as ssh:
            client = _TunnelClient(place, local, ssh, said, answer_s=answer_s, trace=trace)
            with client:
                client.wait()
                trace("ssh has made the way")
                yield client


class _TunnelClient(Client):
    def __init__(
        self, place: Place, local: str, ssh: "subprocess.Popen[bytes]", said: Path, **settings: Any
    ) -> None:
        super().__init__(local, place=str(place), **settings)
        self._host = place
        self._ssh = ssh
        self._said = said

    def wait(self) -> None:
        """Return once there is a way; however long it takes: somebody may be typing a password. Errors: HostUnreachable."""
        while True:
            try:
                self._connection.connect()
            except OSError:
                pass
            else:
                return
            try:
                self._ssh.wait(_LOOK_EVERY_S)
            except subprocess.TimeoutExpired:
                continue
            raise self._ended()

    def _gone(self, how: str) -> AdminError:
        lines = self._lines()
        refused = next((line for line in reversed(lines) if "open failed" in line), None)
        if refused is not None:  # by the other machine, when the first bytes were to go through
            return HostUnreachable(
                str(self._host),
                f"its sshd does not get to {self._host.socket} ({refused})",
                fix="see that a daemon runs there, that this user may use its socket, and name another behind the host: ssh://HOST/PATH",
            )
        if self._ssh.poll() is not None:
            return self._ended()
        return super()._gone(how)

    def _ended(self) -> HostUnreachable:
        lines = self._lines()
        said = lines[-1] if lines else "it does not say why"
        user = f"{self._host.user}@" if self._host.user else ""
        port = f"-p {self._host.port} " if self._host.port else ""
        return HostUnreachable(
            str(self._host),
            f"ssh ended with status {self._ssh.returncode}: {said.rstrip('.')}",
            fix=f"see that 'ssh {port}{user}{self._host.host}' works",
        )

    def _lines(self) -> list[str]:
        """Return what ssh has said, line by line."""
        text = self._said.read_bytes().decode(errors="replace")
        return [line.strip() for line in text.splitlines() if line.strip()]


@contextmanager
def _directory() -> Iterator[str]:
    """Have a directory of this user's alone, with a path that ssh can be given."""
    made = tempfile.mkdtemp(prefix="cronally-")
    if not re.fullmatch(_PATH, made) or len(made) > MAX_PATH_BYTES - 2:
        Path(made).rmdir()
        made = tempfile.mkdtemp(prefix="cronally-", dir="/tmp")
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _running(place: Place, command: list[str], log: Any) -> "Iterator[subprocess.Popen[bytes]]":
    try:
        # In our process group and on our terminal, where it asks for a password; stdin may hold a file for 'apply'.
        ssh = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)  # noqa: S603 - see Place
    except OSError as exc:
        raise HostUnreachable(
            str(place),
            f"ssh cannot be run ({(exc.strerror or str(exc)).lower()})",
            fix="install OpenSSH's client",
        ) from None
    try:
        yield ssh
    finally:
        ssh.terminate()
        try:
            ssh.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            ssh.kill()
            ssh.wait()


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """For the block, let what would end this process at once end the block first."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    kept: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                kept[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for ended_by, handler in kept.items():
            signal.signal(ended_by, handler)
