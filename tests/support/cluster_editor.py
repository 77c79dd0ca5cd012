"""Users who change schedules at several machines while things go wrong, and look at each machine at what came of it."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from cronally.admin.client import Client
from cronally.admin.wire import error_from_plain
from cronally.errors import AdminError, CronallyError, ScheduleNotFound
from support.edit_checker import Edit, Kind, Look
from support.editor import Editor, document_of
from support.process_checker import Change

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cronally.admin.wire import Schedule
    from support.cluster_campaign import Machine
    from support.cluster_checker import ClusterRecord

_SOON_S = 4.5  # docs/machines.md: 2.7 s and half a second, and both on a busy machine
_COMMAND_S = 8.0
_NO_ANSWER = (1, 3)  # exit codes: failed, no daemon
_STALE_S = 10.0  # so long after an edit can be done no more, each machine that answers knows whether it was
_APPLIED = 6
_LOOKED_AT = ("when", "topic", "message", "catch_up", "group")


class Doors:
    """What an ``Editor`` takes for an installation: whatever it does, it does at a machine that chance chooses. Attributes: machines. last: which it was. is_command: whether it was typed."""

    def __init__(self, machines: Sequence[Machine], chance: random.Random) -> None:
        self.machines = machines
        self._chance = chance
        self.last = ""
        self.is_command = False

    def _one(self) -> Machine:
        ready = [machine for machine in self.machines if machine.is_ready]
        is_careful = ready and self._chance.random() < 0.9
        machine = self._chance.choice(ready if is_careful else self.machines)
        self.last = machine.name
        return machine

    def client(self) -> Client:
        self.is_command = False
        path = str(self._one().installation.socket)
        return Client(path, answer_s=self._chance.choice((2.0, 4.0, 4.0, 8.0)))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Errors: AdminError if it takes long."""
        self.is_command = True
        try:
            return self._one().installation.run(*arguments, within_s=_COMMAND_S)
        except subprocess.TimeoutExpired:
            raise AdminError(f"{arguments} took over {_COMMAND_S} s") from None


class _Later(NamedTuple):
    """A look that is to be taken at a machine other than the one that has answered. touched: how often its schedule had been edited."""

    at_s: float
    edit: Edit
    touched: int


class ClusterEditor(Editor):
    """One of several, each with schedules of its own. What was not answered leaves its schedule in doubt until it can be done no more.

    Args: number: of this editor, from 0. home: where its files go.
    """

    def __init__(
        self,
        doors: Doors,
        record: ClusterRecord,
        given: dict[str, dict[str, object]],
        chance: random.Random,
        pause_s: tuple[float, float],
        quiet: threading.Event,
        *,
        number: int,
        home: Path,
    ) -> None:
        super().__init__(doors, record, given, chance, pause_s, quiet)  # type: ignore[arg-type]
        self._doors = doors
        self._cluster = record
        self._number = (number + 1) * 100_000
        self._owner = f"editor-{number}"
        self._prefix = f"applied{number}-"
        self._file = home / f"{self._owner}.jsonl"
        self._doubtful: dict[str, int] = {}
        self._touched: dict[str, int] = {}
        self._last = {edit.name: edit for edit in record.edits}
        self._removed: dict[str, dict[str, object]] = {}
        self._later: deque[_Later] = deque()

    def _actions(self) -> list[Callable[[], None]]:
        looks = [self._look_elsewhere, self._look_elsewhere, self._look_elsewhere]
        return [*super()._actions(), self._retry, self._apply, self._resume, *looks, self._end_doubt]

    # --- edits --------------------------------------------------------------------------------------------------------

    def _change(self, name: str, action: str, make: Callable[[], object], **expects: object) -> bool:
        kind = {"add": Kind.PUT, "set": Kind.PUT}.get(action) or Kind(action)
        edit = self._edit(name, kind, make, **expects)
        if edit.answered is None:
            return False
        self._record.changes.append(Change(name, action, edit.began, edit.answered, dict(expects)))
        return True

    def _edit(self, name: str, kind: Kind, make: Callable[[], object], **expects: object) -> Edit:
        edit = Edit(name, kind, "", _now_ms(), expects=dict(expects))
        self._ask([edit], make)
        return edit

    def _ask(self, edits: Sequence[Edit], make: Callable[[], object]) -> None:
        """Do it, and note of *edits*, of a schedule each, what came of it."""
        self._cluster.edits += edits
        for edit in edits:
            self._touched[edit.name] = self._touched.get(edit.name, 0) + 1
        try:
            make()
        except CronallyError as exc:
            for edit in edits:
                edit.error = str(exc)[:300]
            if exc.exit_code in _NO_ANSWER:
                for edit in edits:
                    self._doubtful[edit.name] = max(self._doubtful.get(edit.name, 0), edit.latest)
            else:
                for edit in edits:
                    edit.was_refused = True
                self._refused(edits[0], exc)
        else:
            for edit in edits:
                edit.answered = _now_ms()
                self._last[edit.name] = edit
        finally:
            for edit in edits:
                edit.via, edit.is_command = self._doors.last, self._doors.is_command
        for edit in edits:
            self._look_after(edit)

    def _refused(self, edit: Edit, exc: CronallyError) -> None:
        """A command reads before it changes, maybe where the edit before is not known yet; a change finds its machine."""
        last = self._last.get(edit.name)
        if exc.exit_code not in (4, 5):
            raise exc
        if last is not None and edit.name not in self._doubtful:
            said = f"refuses {edit.kind}: {exc}"
            self._cluster.looks.append(
                Look(last, self._doors.last, edit.began, said, is_at_once=not self._doors.is_command)
            )

    def _command(self, *arguments: str) -> str:
        done = self._doors.run(*arguments)
        if done.returncode != 0:
            raise error_from_plain({"exit_code": done.returncode, "message": f"{arguments}: {done.stderr}"})
        return done.stdout

    def _add(self) -> None:
        again = sorted(self._removed.keys() - self._doubtful.keys())
        if not again or self._chance.random() < 0.6:
            super()._add()
            return
        name = self._chance.choice(again)
        document = self._removed.pop(name) | {"message": f"plain {self._chance.randrange(10**9)} again"}
        self._paused.discard(name)
        if self._change(name, "add", lambda: self._put(name, document), **document):
            self._documents[name] = document

    def _pause(self) -> None:
        if self._documents.keys() - self._paused:
            super()._pause()

    def _resume(self) -> None:
        paused = sorted(self._documents.keys() & self._paused)
        if not paused:
            return
        name = self._chance.choice(paused)

        def resume() -> None:
            with self._installation.client() as client:
                client.resume(name)

        is_command = self._chance.random() < 0.2
        make = (lambda: self._command("resume", name)) if is_command else resume
        if self._edit(name, Kind.RESUME, make).answered is not None:
            self._paused.remove(name)

    def _remove(self) -> None:
        before = dict(self._documents)
        super()._remove()
        for name in before.keys() - self._documents.keys():
            self._removed[name] = before[name]

    def _run(self) -> None:
        """Ask for a fire with an idempotency key, at one machine after the other."""
        name = self._some()
        key = f"run-{self._chance.randrange(10**12)}"
        promised: list[str] = []
        edit = Edit(name, Kind.RUN, "", _now_ms())
        self._cluster.edits.append(edit)

        def run() -> None:
            with self._installation.client() as client:
                promised.append(client.run(name, idempotency_key=key))

        for _ in range(self._chance.choice((1, 1, 2, 5))):
            try:
                run()
            except CronallyError as exc:
                edit.error = str(exc)[:300]
                if exc.exit_code not in _NO_ANSWER:
                    self._refused(edit, exc)
                    break
            else:
                edit.answered = edit.answered or _now_ms()
            edit.via = edit.via or self._doors.last
        assert len(set(promised)) <= 1, f"one key, and several fires: {promised}"
        self._record.runs += promised[:1]
        edit.fires = promised[:1]

    def _retry(self) -> None:
        """Fires of a standard topic, where no other one waits for them."""
        state = self._chance.choice(("skipped", "skipped", "expired"))
        try:
            with self._installation.client() as client:
                fires = client.fires(state=state, limit="100").fires
        except CronallyError:
            return
        mine = [
            fire
            for fire in fires
            if not str(self._documents.get(fire.schedule, {}).get("topic", ".fifo")).endswith(".fifo")
            and fire.schedule not in self._doubtful
            and fire.reason != "paused"
        ]
        if not mine:
            return
        chosen = self._chance.sample(mine, min(len(mine), 3))
        edits = []
        for name in {fire.schedule for fire in chosen}:
            ids = [fire.fire_id for fire in chosen if fire.schedule == name]
            edits.append(Edit(name, Kind.RETRY, "", _now_ms(), fires=ids))

        def retry() -> None:
            with self._installation.client() as client:
                client.retry([fire.fire_id for fire in chosen])

        self._cluster.edits += edits
        try:
            retry()
        except CronallyError as exc:
            if exc.exit_code not in (
                *_NO_ANSWER,
                5,
            ):  # 5: retried meanwhile, by an edit that was not answered
                raise
        else:
            for edit in edits:
                edit.answered = _now_ms()
        for edit in edits:
            edit.via = self._doors.last

    def _apply(self) -> None:
        """A file that grows and shrinks, of schedules that only files speak of; so they are on all machines."""
        names = [f"{self._prefix}{number}" for number in range(_APPLIED)]
        named = {
            name: document_of(random.Random(name), number)
            | {"message": f"of a file, {self._chance.randrange(10**9)}"}
            for number, name in enumerate(names)
            if self._chance.random() < 0.8 or number == 0  # an empty file is refused
        }
        self._file.write_text(
            "".join(json.dumps({"name": name, **keys}) + "\n" for name, keys in named.items())
        )
        now = _now_ms()
        edits = [
            Edit(name, Kind.PUT, "", now, expects=dict(keys), is_apply=True) for name, keys in named.items()
        ]
        edits += [Edit(name, Kind.RM, "", now, is_apply=True) for name in names if name not in named]
        arguments = ("apply", "-f", str(self._file), "--owner", self._owner, "--prune", "--yes")
        self._ask(edits, lambda: self._command(*arguments))

    # --- looks --------------------------------------------------------------------------------------------------------

    def _look_after(self, edit: Edit) -> None:
        """Look at once where it was answered, and later elsewhere."""
        if edit.answered is None or edit.name in self._doubtful:
            return
        if len(self._later) < 20:
            self._later.append(_Later(time.monotonic() + _SOON_S, edit, self._touched[edit.name]))
        if self._chance.random() < 0.5:
            machine = next(one for one in self._doors.machines if one.name == edit.via)
            self._look(edit, machine, is_at_once=True)

    def _look_elsewhere(self) -> None:
        while self._later and self._later[0].at_s <= time.monotonic():
            _, edit, touched = self._later.popleft()
            if self._touched[edit.name] == touched:
                others = [one for one in self._doors.machines if one.name != edit.via and one.is_up]
                if others:
                    self._look(edit, self._chance.choice(others), is_at_once=False)
                    return

    def _look(self, edit: Edit, machine: Machine, *, is_at_once: bool) -> None:
        at = _now_ms()
        try:
            with Client(str(machine.installation.socket), answer_s=2.0) as client:
                seen: Schedule | None = client.schedule(edit.name)
        except ScheduleNotFound:
            seen = None
        except CronallyError:
            return
        said = _differs(edit, seen)
        self._cluster.looked += 1
        if said:
            self._cluster.looks.append(Look(edit, machine.name, at, said, is_at_once))

    def _end_doubt(self) -> None:
        """Take what a machine says of a schedule for what it is, when nothing that was not answered can be done any more."""
        now = _now_ms()
        name = next((name for name, latest in self._doubtful.items() if latest + _STALE_S * 1000 < now), None)
        if name is None:
            return
        try:
            with self._installation.client() as client:
                seen = client.schedule(name)
        except ScheduleNotFound:
            self._documents.pop(name, None)
            del self._doubtful[name]
        except CronallyError:
            pass
        else:
            del self._doubtful[name]
            self._last.pop(name, None)
            if not name.startswith(self._prefix):
                wanted = {"when": seen.when, "message": seen.message}
                known = self._documents.get(name) or self._removed.pop(name, None)
                if known is not None:
                    self._documents[name] = known | {
                        key: value for key, value in wanted.items() if value is not None
                    }
                self._paused.discard(name)
                if seen.paused:
                    self._paused.add(name)

    def _some(self) -> str:
        sure = sorted(self._documents.keys() - self._doubtful.keys())
        return self._chance.choice(sure) if sure and self._chance.random() < 0.8 else super()._some()


def _differs(edit: Edit, seen: Schedule | None) -> str:
    """Return what is wrong with *seen*, nothing if it is what *edit* has left."""
    if edit.kind is Kind.RM:
        return "" if seen is None else f"it is there, in revision {seen.revision}"
    if seen is None:
        return "it is not there"
    plain: dict[str, Any] = {key: getattr(seen, key) for key in edit.expects if key in _LOOKED_AT}
    wrong = {key: value for key, value in plain.items() if value != edit.expects[key]}
    if wrong:
        return f"it says {wrong}"
    if edit.kind is Kind.RESUME and seen.paused:
        return f"it is paused: {seen.paused}"
    return ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
