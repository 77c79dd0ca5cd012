"""The slot checker on several machines: their terms are what the table says of them, and a repeat has to be a take-over's.

1. A *term* is one incarnation of a machine, from its heartbeat's first version until it left or was retired.
2. Nobody repeats what a machine has sent before that one is retired, and only what it had sent since its last commit.
3. What a retired machine wrote to its log beyond what its heartbeat names is on no record.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cronally.clock import SystemClock
from cronally.domain.model import fire_id
from cronally.instants import UtcMs, format_utc
from cronally.store.committing import LOG, sequence_in
from cronally.store.dynamodb_table import DynamodbTable
from cronally.store.shared_items import MACHINES
from cronally.store.shared_log import Amended, Backfilled, Committed, decode
from support.edit_checker import Edit, Look, edit_faults, is_calm, times
from support.process_checker import SLACK_MS, Incarnation, Judge, Record, Verdict, read_journal, read_lives
from support.recording_publisher import TIMED_OUT
from support.slot_checker import Stop
from support.table_servers import TableClient

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cronally.domain.model import JournalEntry
    from support.process_checker import Received
    from support.recording_publisher import Answer
    from support.slot_checker import Life, Sent

_LATE_MS = 10_000  # design §4: what is later was missed
_SETTLED_MS = 15_000  # after it was retired: what a machine had is taken, doubted, and sent
_CALM_MS = 6_000  # after a machine came or went: shards are shared out anew
_COMMIT_MS = 2_500  # a busy server of a table takes a commit, and a look at it, within that


@dataclass
class ClusterRecord(Record):
    """What was done to several machines, and seen. Instants are UTC milliseconds.

    Fields: lease_ms. hosts: the address that each machine's connections come from, by its name. ends: when a machine was killed or
        said that its lease is lost, by name. hurried: when a machine that was stopping was told to hurry. taken: when shards were taken.
        late: spans in which what a machine sent was on its way, by name. served: of fires that a machine called published, when.
        looks: those that saw what they should not have seen, of looked in all.
    """

    lease_ms: int = 0
    hosts: dict[str, str] = field(default_factory=dict)
    ends: dict[str, list[int]] = field(default_factory=dict)
    hurried: dict[str, list[int]] = field(default_factory=dict)
    taken: list[int] = field(default_factory=list)
    late: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    served: dict[str, str] = field(default_factory=dict)
    edits: list[Edit] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    looked: int = 0


@dataclass
class Table:
    """What is in a table. terms: by when they began. written: published rows in commits that count; stale: in those that do not."""

    terms: list[Term]
    written: set[tuple[object, ...]]
    stale: set[tuple[object, ...]]


@dataclass
class Term(Incarnation):
    """A machine's incarnation. ended_at: when it left or was retired. was_crash: it was retired by another."""

    machine: str = ""


async def read_table(url: str, name: str) -> Table:
    """Read the table *name* of the server at *url*, whose machines have all stopped."""
    client = TableClient(url)
    table = DynamodbTable(name, client, SystemClock())
    read = Table([], set(), set())
    now = SystemClock().wall()
    try:
        for item in await table.all_of(MACHINES):
            started = item["started_at"]
            ended = (
                item["retired_at"] if item["retired"] else now
            )  # stopped in a hurry, and nobody was left to retire it
            read.terms.append(
                Term(started, started, ended, ended, was_crash=not item["has_left"], machine=item["host"])
            )
            parts: dict[int, list[bytes]] = defaultdict(list)
            whole: dict[int, int] = {}
            for part in await table.all_of(f"{LOG}/{item['sk']}"):
                parts[sequence_in(part["sk"])].append(part["held"])
                whole[sequence_in(part["sk"])] = part["parts"]
            for sequence, held in parts.items():
                if len(held) == whole[sequence]:
                    rows = read.written if sequence <= item["sequence"] else read.stale
                    rows |= {_mark(row) for row in _rows(held) if row.published_at is not None}
    finally:
        await client.close()
    read.terms.sort(key=lambda term: (term.ended_at, term.spawned_at))
    read.stale -= read.written
    return read


def _rows(held: Sequence[bytes]) -> Iterator[JournalEntry]:
    for _, deed in decode(held):
        if isinstance(deed, Committed | Backfilled | Amended):
            yield from deed.entries


def _mark(row: JournalEntry) -> tuple[object, ...]:
    return (*row.key, row.published_at, row.lateness_us)


async def judge_cluster(
    journal: Path, record: ClusterRecord, received: Sequence[Received], table: Table
) -> Verdict:
    """Judge a run that is over. journal: what a machine that came last has read of the table, which no daemon holds any more."""
    record.incarnations = [*table.terms]
    rows = [row for row in await read_journal(journal) if row.due_time <= record.through]
    judge = ClusterJudge(read_lives(journal), rows, record, received)
    verdict = judge.verdict()
    verdict.wrong += [
        f"{row.key} is on record as a machine wrote it that was retired"
        for row in rows
        if _mark(row) in table.stale
    ]
    verdict.wrong += judge.changed_later()
    fires = [(judge.lives[row.schedule_id].name, row) for row in rows]
    verdict.wrong += edit_faults(judge.lives.values(), record.edits, fires, record.through)
    troubles = judge.edit_troubles()
    verdict.wrong += [
        f"{look.edit.kind} of {look.edit.name} was answered by {look.edit.via} at {look.edit.answered}, and {look.via} says at {look.at}: {look.said}"
        for look in record.looks
        if look.is_at_once or is_calm(look.edit.began, look.at, troubles)
    ]
    verdict.told += times(record.edits, troubles)
    verdict.told.append(
        f"looks at what an answered edit has left {record.looked}, behind {len(record.looks)}"
    )
    return verdict


class ClusterJudge(Judge):
    """Judges several machines."""

    record: ClusterRecord

    def __init__(
        self,
        lives: Mapping[int, Life],
        journal: Sequence[JournalEntry],
        record: ClusterRecord,
        received: Sequence[Received],
    ) -> None:
        """record: its incarnations are terms."""
        super().__init__(lives, journal, record, received)
        self._terms = [term for term in record.incarnations if isinstance(term, Term)]
        self._machine_at = {address: machine for machine, address in record.hosts.items()}
        self._window_ms = record.lease_ms * 4 // 3 + _COMMIT_MS

    # --- what was received ------------------------------------------------------------------------------------------

    def _sent(self, got: Received, wrong: list[str]) -> Sent | None:
        sent = super()._sent(got, wrong)
        spans = self.record.late.get(self._machine_at[got.peer], ())
        left = [began for began, ended in spans if ended <= got.arrived_us // 1000 <= ended + SLACK_MS]
        if sent is None or not left:
            return sent
        arrival: Any = sent.arrival  # what came late may have been written when that began, or any time after
        least_us = max(left[-1], arrival.entry.fire.due_time) * 1000
        return sent._replace(arrival=arrival._replace(released_us=least_us, answer=TIMED_OUT))

    def _in_order(self, sent: Iterable[Sent]) -> list[Sent]:
        return sorted(sent, key=lambda each: each.arrival.released_us)

    def _incarnation(self, got: Received) -> int:
        machine = self._machine_at[got.peer]
        own = [number for number, term in enumerate(self._terms) if term.machine == machine]
        began = [number for number in own if self._terms[number].spawned_at * 1000 <= got.connected_us]
        return max(began or own[:1], key=lambda number: self._terms[number].spawned_at)

    def _answer(self, got: Received) -> Answer:
        if any(
            began <= got.arrived_us // 1000 <= ended and (got.answered_us or 0) // 1000 >= began - SLACK_MS
            for began, ended in self._cuts(self._machine_at[got.peer])
        ):
            return TIMED_OUT
        return super()._answer(got)

    def _cuts(self, machine: str) -> list[tuple[int, int]]:
        kinds = {f"sns of {machine}", f"freeze of {machine}"}
        return [
            (each.began - SLACK_MS, each.ended) for each in self.record.disturbances if each.kind in kinds
        ]

    def _stops(self) -> list[Stop]:
        return [
            Stop(self._settled_by(term), term.was_crash, leaves_doubt=term.was_crash) for term in self._terms
        ]

    def _settled_by(self, term: Term) -> UtcMs:
        hurried = [at for at in self.record.hurried.get(term.machine, ()) if self._is_in(at, term)]
        return UtcMs(min(hurried) - SLACK_MS if hurried else term.ended_at)

    @staticmethod
    def _is_in(at: int, term: Term) -> bool:
        return term.spawned_at <= at <= term.ended_at

    def _stale_repeats(self, sent: Iterable[Sent]) -> Iterator[str]:
        """A take-over comes after the machine is retired, and repeats what that one sent since its last commit."""
        for before, each, answered in self._answered_repeats(sent):
            id_ = each.arrival.entry.fire_id
            term = self._terms[before.incarnation]
            end = self._end(term)
            by = self._terms[each.incarnation].machine
            if each.arrival.released_us < term.ended_at * 1000:
                yield (
                    f"{id_} was sent again by {by} {term.ended_at - each.arrival.released_us // 1000} ms before {term.machine}, "
                    f"which had sent it, was retired"
                )
            elif term.was_crash and end - self.frozen_ms(answered, end) - answered > self._window_ms:
                yield f"{id_} was sent again by {by}, and {term.machine} had sent it {end - answered} ms before its end"

    def _end(self, term: Term) -> int:
        """Return when a term's machine had its last chance to send."""
        ends = [at for at in self.record.ends.get(term.machine, ()) if self._is_in(at, term)]
        kind = f"freeze of {term.machine}"
        freezes = [each.began for each in self.record.disturbances if each.kind == kind]
        stood_still = [at for at in freezes if self._is_in(at, term)]
        return min(ends) if ends else max(stood_still, default=term.ended_at)

    def _absences(self) -> list[tuple[int, int]]:
        return [
            (self._end(term) - self._window_ms, term.ended_at + _SETTLED_MS)
            for term in self._terms
            if term.was_crash
        ]

    def edit_troubles(self) -> list[tuple[int, int]]:
        """Return from when to when a change may have to wait: machines come, go, stand still, or do not reach the table."""
        kinds = ("freeze of", "table of")
        found = [
            (each.began - SLACK_MS, each.ended + _CALM_MS)
            for each in self.record.disturbances
            if each.kind.startswith(kinds)
        ]
        found += [(term.spawned_at - SLACK_MS, term.spawned_at + _CALM_MS) for term in self._terms]
        return found + [(self._end(term) - SLACK_MS, term.ended_at + _CALM_MS) for term in self._terms]

    # --- what is on record ------------------------------------------------------------------------------------------

    def _was_missed(self, row: JournalEntry) -> bool:
        due = (row.last_fire_time or row.fire_time) + row.due_time - row.fire_time
        return super()._was_missed(row) or any(due + _LATE_MS < at + SLACK_MS for at in self.record.taken)

    def changed_later(self) -> Iterator[str]:
        """Yield which fires a machine said to be published, when the record says otherwise now."""
        known = {
            fire_id(self.lives[row.schedule_id].name, row.fire_time, row.kind): row for row in self.journal
        }
        for id_, published_at in self.record.served.items():
            row = known.get(id_)
            if row is None or row.published_at is None or format_utc(row.published_at) != published_at:
                yield f"{id_} was said to be published at {published_at}, and is on record as {row}"
