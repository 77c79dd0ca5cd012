"""The fake SNS as a process of its own, which outlives the daemons that publish to it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_S = 60.0


@dataclass
class Receiver:
    """A running one. Start it with ``start_receiver``."""

    process: subprocess.Popen[str]
    port: int
    control_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set_faults(self, **faults: object) -> None:
        """Set fields of ``fake_sns.Faults``."""
        self._call("POST", "faults", faults)

    def be_down(self, for_s: float) -> None:
        """Cut all connections, and refuse new ones for *for_s* seconds."""
        self._call("POST", "down", {"for_s": for_s})

    def wait_for_messages(self, count: int, *, within_s: float = _TIMEOUT_S) -> None:
        """Return once *count* entries have been accepted, ever. Errors: TimeoutError."""
        self._call("GET", f"wait?messages={count}", timeout_s=within_s)

    def take(self) -> list[dict[str, Any]]:
        """Return what came since the last call: ``Message.as_json`` and ``answered_us``, None if no answer said so."""
        messages: list[dict[str, Any]] = self._call("POST", "take")["messages"]
        return messages

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = self._call("GET", "stats")
        return stats

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _call(self, method: str, path: str, body: object = None, *, timeout_s: float = _TIMEOUT_S) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.control_port, timeout=timeout_s)
        try:
            connection.request(method, f"/_control/{path}", None if body is None else json.dumps(body))
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise ValueError(f"the receiver refuses {path}: {text.decode()}")
        return json.loads(text)


def start_receiver(environment: Mapping[str, str]) -> Receiver:
    """Start a receiver and return once it answers. environment: all of it, a clock that is faked, say."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.fake_sns"],
        env=dict(environment),
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    started = json.loads(process.stdout.readline())
    return Receiver(process, started["port"], started["control_port"])
