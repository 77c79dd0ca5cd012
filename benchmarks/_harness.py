"""The processes of a benchmark: the installed daemon as a user runs it, and the receiver it publishes to."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks._ledger import ACCESS_KEY, SECRET_KEY
from cronally.admin.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ROOT = Path(__file__).parent.parent
COMMAND = Path(sys.executable).with_name("cronally")
TOPIC = "arn:aws:sns:us-east-1:123456789012:bench"
NAMES = "bench-{:06d}"
UNPACED = "[sns.quota]\ndefault = 0\n"
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_START_TIMEOUT_S = 120.0


class BenchmarkError(Exception):
    """The measurement could not be made."""


def say(text: str) -> None:
    """Tell on stderr how far it is."""
    print(f"  {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield a directory that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="cronally-bench-") as directory:
        yield Path(directory)


def until(is_done: Callable[[], bool], deadline: float, *, every_s: float = 0.05) -> bool:
    """Wait until *is_done* or the wall clock shows *deadline*; whether it is done."""
    while not is_done():
        if time.time() > deadline:
            return False
        time.sleep(every_s)
    return True


class Receiver:
    """The receiver as a process. Attributes: url. certificate: the file that a client has to trust, None without TLS."""

    def __init__(
        self, *, tls: Path | None = None, latency_ms: float = 0.0, quota: float | None = None
    ) -> None:
        """tls: a directory to make a certificate in."""
        arguments = [sys.executable, "-m", "benchmarks._receiver", "--latency-ms", str(latency_ms)]
        self.certificate = None if tls is None else make_certificate(tls)
        if self.certificate is not None:
            arguments += ["--tls", str(self.certificate)]
        if quota is not None:
            arguments += ["--quota", str(quota)]
        self._process = subprocess.Popen(
            arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._answer()['port']}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def message_count(self) -> int:
        """Return how many messages came since the last ``collect``."""
        count: int = self._ask({"do": "stats"})["messages"]
        return count

    def collect(
        self, count: int, *, names: str = NAMES, between_s: tuple[float, float] | None = None
    ) -> dict[str, Any]:
        """Return the ledger's summary of what came. count: schedules expected at every fire time, one of *between_s*."""
        summary: dict[str, Any] = self._ask(
            {"do": "collect", "names": [names, count], "between_s": between_s}
        )
        return summary

    def arrivals(self) -> list[tuple[str, int]]:
        """Return fire id and microseconds of each message that came since the last call; ``collect`` knows nothing of them."""
        return [(fire_id, arrived_us) for fire_id, arrived_us in self._ask({"do": "arrivals"})]

    def _ask(self, command: Mapping[str, object]) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchmarkError("the receiver has ended; what it said is above")
        return json.loads(line)


class Daemon:
    """``cronally serve`` in a home of its own. Attributes: start_s: from exec to "ready". process_id."""

    def __init__(
        self,
        home: Path,
        receiver: Receiver,
        *,
        config: str | None = UNPACED,
        timeout_s: float = _START_TIMEOUT_S,
        command: Path = COMMAND,
        store: str | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        """home: keeps the store, so that a second daemon in it goes on. config: TOML. command: what is measured. store: another than in
        *home*. extra: variables of its environment.
        """
        self.home = home
        self.command = command
        self.socket = str(home / "cronally.sock")
        self.store = home / "cronally.db"
        self._log = home / "daemon.log"
        keep = {key: os.environ[key] for key in ("PATH", "LANG", "PYTHONPATH") if key in os.environ}
        self.environment = keep | {
            "HOME": str(home),
            "CRONALLY_SOCKET": self.socket,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL_SNS": receiver.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.environment |= extra or {}
        if receiver.certificate is not None:
            self.environment["AWS_CA_BUNDLE"] = str(receiver.certificate)
        arguments = ["serve", "--store", store or f"sqlite:{self.store}", "--socket", self.socket]
        if config is not None:
            (home / "cronally.toml").write_text(config)
            arguments += ["--config", str(home / "cronally.toml")]
        with self._log.open("w") as log:
            began = time.monotonic()
            self._process = subprocess.Popen(
                [command, *arguments], env=self.environment, stdout=subprocess.DEVNULL, stderr=log
            )
        while "ready" not in self._log.read_text():
            if self._process.poll() is not None or time.monotonic() > began + timeout_s:
                self.end(signal.SIGKILL)
                raise BenchmarkError(f"the daemon did not start: {self._log.read_text().strip()}")
            time.sleep(0.002)
        self.start_s = time.monotonic() - began
        self.process_id = self._process.pid
        self.client = Client(self.socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.close()
        # A result is there, or there will be none: what is still in flight need not be waited for.
        self.end(signal.SIGTERM if exc[0] is None else signal.SIGKILL)

    def end(self, number: signal.Signals) -> None:
        """Send it a signal that ends it, unless it has ended, and wait for that."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def run(self, *arguments: str) -> str:
        """Run a command that must succeed and return what it prints."""
        done = subprocess.run(
            [self.command, *arguments], env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BenchmarkError(f"cronally {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, lines: Iterable[str]) -> float:
        """Apply schedules given as JSON Lines with ``cronally apply``; return how long that took, in seconds."""
        file = self.home / "schedules.jsonl"
        with file.open("w") as out:
            out.writelines(lines)
        began = time.monotonic()
        self.run("apply", "-f", str(file))
        file.unlink()
        return time.monotonic() - began

    def settled_count(self) -> int:
        """Return how many slots are on record with a fate."""
        journal = self.client.status().journal
        return sum(count for state, count in journal.items() if state != "pending")

    def cpu_s(self) -> float:
        """Return the processor time of all its threads so far, user and system (proc(5), stat: utime, stime)."""
        fields = Path(f"/proc/{self.process_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * _TICK_S

    def cpu_per_second(self, over_s: float) -> float:
        """Return the processor time it takes per second as things are, measured over *over_s*.

        By the scheduler's nanoseconds: the ticks of ``cpu_s``, of 10 ms, are too coarse for a daemon at rest.
        """
        before, began = scheduled_ns(self.process_id), time.monotonic()
        time.sleep(over_s)
        return (scheduled_ns(self.process_id) - before) / 1e9 / (time.monotonic() - began)

    def memory_mb(self, field: str = "VmRSS") -> float:
        """Return a size in /proc/PID/status in megabytes of 10^6; VmHWM is the most that was resident."""
        for line in Path(f"/proc/{self.process_id}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise BenchmarkError(f"/proc has no {field}")


def scheduled_ns(process_id: int) -> int:
    """Return the processor time of all threads of a process so far, in nanoseconds."""
    tasks = Path(f"/proc/{process_id}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def message(number: int) -> str:
    """Return what the schedule *number* publishes: small, and its own."""
    text = {"job": NAMES.format(number), "report": "nightly", "page": number * 7919 % 1_000_003}
    return json.dumps(text)


def line(number: int, when: str, *, names: str = NAMES, **keys: object) -> str:
    """Return the JSON line of one schedule. On the wire it has four attributes: one of its own beside the daemon's."""
    name = names.format(number)
    document = {"name": name, "when": when, "topic": TOPIC, "attributes": {"team": "reports"}, **keys}
    document.setdefault("message", message(number).replace(NAMES.format(number), name))
    return json.dumps(document) + "\n"


def make_certificate(directory: Path) -> Path:
    """Write a self-signed certificate for 127.0.0.1, with its key before it, and return the file."""
    from cryptography import x509  # noqa: PLC0415 - takes a while, and most runs have no TLS
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)  # as AWS's
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cronally benchmark")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "receiver.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def fresh_home(parent: Path) -> Path:
    """Return an empty directory in *parent*; its path is short, since a socket's has at most 107 bytes."""
    home = parent / "home"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    return home
