"""The store of a simulation, which takes down for the checker what schedules were and when rows became final."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cronally.domain.model import State
from cronally.domain.spec import to_document
from support.memory_store import MemoryStore
from support.slot_lives import Life, Rest, Rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.domain.model import FireKey, JournalEntry
    from cronally.engine.records import Revised, ScheduleChange, TimetableRow
    from cronally.instants import UtcMs
    from support.fake_clock import FakeClock


class WitnessStore(MemoryStore):
    """Attributes: lives: by schedule id. written: when the final row of a fire was written."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.lives: dict[int, Life] = {}
        self.written: dict[FireKey, UtcMs] = {}
        self._clock = clock
        self._latest = clock.wall()

    @property
    def names(self) -> list[str]:
        """Names of the schedules there are, in a fixed order."""
        return list(self._names)

    @property
    def journal(self) -> list[JournalEntry]:
        return list(self._journal.values())

    def document(self, name: str) -> dict[str, object]:
        return dict(self.lives[self._names[name]].rules[-1].document)

    def id_of(self, name: str) -> int | None:
        return self._names.get(name)

    def is_paused(self, name: str) -> bool:
        return self._schedules[self._names[name]].pause is not None

    async def change(self, change: ScheduleChange, *, gone: list[JournalEntry] | None = None) -> Revised:
        revised = await super().change(change, gone=gone)
        self._note(revised.id)
        return revised

    async def flip(
        self,
        *,
        at: UtcMs,
        by: str,
        owner: str,
        unsettled: Sequence[JournalEntry],
        removed: Sequence[int] = (),
    ) -> list[TimetableRow]:
        rows = await super().flip(at=at, by=by, owner=owner, unsettled=unsettled, removed=removed)
        for id_ in [*(row.id for row in rows), *removed]:
            self._note(id_)
        return rows

    async def set_back(self, *, at: UtcMs, watermark: UtcMs, reached: UtcMs) -> None:
        await super().set_back(at=at, watermark=watermark, reached=reached)
        for id_, life in self.lives.items():
            if (
                id_ in self._schedules and self._names.get(life.name) != id_
            ):  # removed; that is so from now on
                life.removed_at = min(life.removed_at, at)

    def _write(self, entry: JournalEntry) -> JournalEntry | None:
        stored = super()._write(entry)
        if stored is not None and stored.state is not State.PENDING:
            self.written[stored.key] = self._clock.wall()
        return stored

    def _note(self, id_: int) -> None:
        schedule = self._schedules[id_]
        life = self.lives.setdefault(id_, Life(schedule.spec.name))
        rest = life.rests[-1] if life.rests else None
        if self._names.get(life.name) != id_:
            life.removed_at = schedule.changed_at
            if rest is not None:
                rest.resumed_at = min(rest.resumed_at, schedule.changed_at)
            return
        after, pause = schedule.effective_from, schedule.pause
        self._latest = max(self._latest, self._clock.wall())
        assert after <= self._latest, f"{life.name} is in effect from {after}, which is to come"
        # A clock that was set back makes a rule take effect earlier than its change said.
        life.rules = [rule._replace(after=min(rule.after, after)) for rule in life.rules]
        if not life.rules or life.rules[-1].revision_id != schedule.revision_id:
            life.rules.append(Rule(after, schedule.revision_id, to_document(schedule.spec)))
        if pause is None:
            if rest is not None and (rest.until is None or after < rest.until - 1):
                rest.resumed_at = min(rest.resumed_at, after)
        elif rest is None or rest.since != pause.since:
            if rest is not None:
                rest.resumed_at = min(rest.resumed_at, pause.since)
            life.rests.append(Rest(pause.since, pause.until))
        else:
            rest.until = pause.until
