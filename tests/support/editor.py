"""Schedules that a seed makes up, and a user who changes them through the commands and the client while things go wrong."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from cronally.errors import AdminError, CronallyError
from support.process_checker import Change

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable

    from support.process_checker import Record
    from support.processes import Installation

_PREFIX = "arn:aws:sns:us-east-1:123456789012:"
_PERIODS = ("1s", "1s", "2s", "2s", "3s", "4s", "5s", "5s")
_REFUSED = (1, 3)  # exit codes: failed, no daemon


def documents(chance: random.Random, count: int) -> dict[str, dict[str, object]]:
    """Return *count* schedules by name: 1 to 5 s apart mostly, of all policies, on seven topics."""
    found = {}
    for number in range(count):
        spread = chance.choice(("3s", "7s", "90s")) if chance.random() < 0.15 else ""
        name = f"job-{number}-{spread}" if spread else f"job-{number}"
        found[name] = document_of(chance, number, spread)
    return found


def document_of(chance: random.Random, number: int, spread: str = "") -> dict[str, object]:
    """Return one of them."""
    share = chance.random()
    topic = chance.choice(("a", "b", "c", "d")) if share < 0.7 else chance.choice(("x.fifo", "y.fifo"))
    if share > 0.94:
        topic = chance.choice(("lost", "lost.fifo"))
    document: dict[str, object] = {
        "when": f"@every {chance.choice(_PERIODS)}",
        "topic": _PREFIX + topic,
        "catch_up": chance.choice(("latest", "all", "skip")),
    }
    if number % 40 == 7:
        document["when"] = chance.choice(("* * * * *", "*/2 * * * *", "0-59/3 * * * *"))
    if chance.random() < 0.7:
        word = chance.choice(("beat", "risky", "plain", "plain", "plain"))
        document["message"] = f"{word} {number} <cronally.fire-id> at <cronally.fire-time>"
    if chance.random() < 0.2:
        document["deadline"] = chance.choice(("3s", "12s", "40s"))
    if spread:
        document["spread"] = spread
    if chance.random() < 0.2:
        document["attributes"] = {"team": "ops", "of": "<cronally.schedule>"}
    if chance.random() < 0.2:
        document["priority"] = chance.randrange(10)
    if topic.endswith(".fifo") and chance.random() < 0.3:
        document["group"] = "shared"
    return document


class Editor:
    """Makes a change, rests, makes another, until *quiet*. Attributes: failure: what it could not account for.

    Args: given: the schedules there are. pause_s: the least and most seconds between two changes.
    """

    def __init__(
        self,
        installation: Installation,
        record: Record,
        given: dict[str, dict[str, object]],
        chance: random.Random,
        pause_s: tuple[float, float],
        quiet: threading.Event,
    ) -> None:
        """Nothing happens before ``run``."""
        self.failure: BaseException | None = None
        self._installation = installation
        self._record = record
        self._documents = dict(given)
        self._paused: set[str] = set()
        self._chance = chance
        self._pause_s = pause_s
        self._quiet = quiet
        self._number = len(given)

    def run(self) -> None:
        actions = self._actions()
        try:
            while not self._quiet.wait(self._chance.uniform(*self._pause_s)):
                self._chance.choice(actions)()
        except BaseException as exc:  # noqa: BLE001 - raised again by the campaign
            self.failure = exc

    def _actions(self) -> list[Callable[[], None]]:
        """Return what it may do."""
        return [
            self._add,
            self._set,
            self._set,
            self._pause,
            self._resume,
            self._remove,
            self._run,
            self._run,
        ]

    def _change(self, name: str, action: str, make: Callable[[], object], **expects: object) -> bool:
        """Make a change; note it and return True if it was acknowledged. If not, it may have been made all the same."""
        began = _now_ms()
        if not self._try(make):
            return False
        self._record.changes.append(Change(name, action, began, _now_ms(), dict(expects)))
        return True

    def _command(self, *arguments: str) -> str:
        """Run a command; return what it prints. Errors: as the client raises them."""
        done = self._installation.run(*arguments)
        if done.returncode in _REFUSED:
            raise AdminError(done.stderr)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def _add(self) -> None:
        self._number += 1
        name = f"job-{self._number}"
        document = document_of(self._chance, self._number)
        if self._chance.random() < 0.5:
            document = {"when": document["when"], "topic": document["topic"], "message": f"added {name}"}
            arguments = ("--topic", str(document["topic"]), "--message", str(document["message"]))
            done = self._change(
                name, "add", lambda: self._command("add", name, str(document["when"]), *arguments), **document
            )
        else:
            done = self._change(name, "add", lambda: self._put(name, document), **document)
        if done:
            self._documents[name] = document

    def _set(self) -> None:
        name = self._some()
        document = {
            **self._documents[name],
            "message": f"plain {self._chance.randrange(10**6)} <cronally.fire-id>",
        }
        if self._chance.random() < 0.5:
            document["when"] = f"@every {self._chance.choice(_PERIODS)}"
        message, when = str(document["message"]), str(document["when"])
        if self._chance.random() < 0.4:
            done = self._change(
                name, "set", lambda: self._command("set", name, "--message", message, "--when", when),
                message=message, when=when,
            )  # fmt: skip
        else:
            done = self._change(name, "set", lambda: self._put(name, document), message=message, when=when)
        if done:
            self._documents[name] = document

    def _put(self, name: str, document: dict[str, object]) -> None:
        with self._installation.client() as client:
            client.put(name, document)

    def _pause(self) -> None:
        name = self._chance.choice(sorted(self._documents.keys() - self._paused))
        until = self._chance.choice((None, "7s", "20s"))

        def pause() -> None:
            with self._installation.client() as client:
                client.pause(name, until=until)

        self._paused.add(name)  # if it is one already, its pause does not begin anew
        self._change(name, "pause", pause)

    def _resume(self) -> None:
        paused = sorted(self._documents.keys() & self._paused)
        if paused:
            name = self._chance.choice(paused)
            # Not noted: a pause that has ended by itself needs no resume, and leaves none on record.
            if self._try(lambda: self._command("resume", name)):
                self._paused.remove(name)

    def _remove(self) -> None:
        name = self._some()
        del self._documents[name]  # whatever comes of it: it is not touched again
        if self._chance.random() < 0.5:
            self._change(name, "rm", lambda: self._command("rm", name))
        else:

            def remove() -> None:
                with self._installation.client() as client:
                    client.remove(name)

            self._change(name, "rm", remove)

    def _run(self) -> None:
        name = self._some()
        if self._chance.random() < 0.5:
            self._try(
                lambda: self._record.runs.append(json.loads(self._command("run", name, "--json"))["fire_id"])
            )
        else:

            def run() -> None:
                with self._installation.client() as client:
                    self._record.runs.append(client.run(name))

            self._try(run)

    def _try(self, make: Callable[[], object]) -> bool:
        """Do it, unless the daemon is away or does not take it now. Return whether it was acknowledged."""
        try:
            make()
        except CronallyError as exc:
            if exc.exit_code not in _REFUSED:
                raise
            return False
        return True

    def _some(self) -> str:
        return self._chance.choice(sorted(self._documents))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
