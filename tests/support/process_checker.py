"""The slot checker on a daemon that is a process: what its store and the receiver say, turned into what the checker takes.

1. What each schedule was and when comes from the audit log of the store, which is held against the changes that were
   acknowledged: none of those may be missing.
2. What the receiver got is told apart by daemon through the instant its connection was made, for what a daemon wrote may
   be read after its death.
3. Beyond the slots, it holds what was received against the rules in force: body, attributes, reasons, and which
   fault explains a repeat or a ``maybe_published``.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from bisect import bisect_right
from collections import defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cronally.domain.durations import parse_duration
from cronally.domain.model import Fire, Kind, SkipReason, State, fire_id
from cronally.engine.records import JournalFilter
from cronally.instants import UtcMs, format_utc, parse_rfc3339
from cronally.store.sqlite import SqliteStore
from support import slot_checker
from support.recording_publisher import PUBLISHED, TIMED_OUT
from support.slot_checker import Life, Rest, Rule, Sent, Stop
from support.slot_lives import spread_offset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cronally.domain.model import JournalEntry
    from support.recording_publisher import Answer, Arrival

SLACK_MS = (
    1_000  # an answer written so shortly before a fault may not have been read; a busy receiver reads so late
)
_STARTED_MS = 500  # no start takes less
_COMMITTED_MS = 3_000  # outcomes are committed every 50 ms; so long a lag is no lag
DEFAULTS = {"catch_up": "latest", "priority": 5}  # design §4; a document on record leaves them out
_SETTLED_MS = 15_000  # after a fault: what is due then is on time again


class Received(NamedTuple):
    """An entry that the receiver accepted. answered_us: when it wrote an answer that says so, None if it did not. peer: from which address."""

    fire_id: str
    arrived_us: int
    connected_us: int
    answered_us: int | None
    topic: str
    message: str
    attributes: dict[str, str]
    group: str | None
    deduplication: str | None
    peer: str = ""

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Received:
        """Take it from what ``Receiver.take`` returns."""
        attributes = {name: value for name, (_, value) in plain["attributes"].items()}
        given = {**plain, "attributes": attributes}
        return cls(**{name: given[name] for name in cls._fields})

    @property
    def fire_time(self) -> UtcMs:
        return parse_rfc3339(self.fire_id.partition("@")[2].partition("+")[0])

    @property
    def kind(self) -> Kind:
        return Kind(self.fire_id.partition("+")[2] or Kind.SCHEDULED)


@dataclass
class Change:
    """A change that was acknowledged, begun and ended at UTC milliseconds. expects: keys of its document or detail."""

    name: str
    action: str
    began: int
    ended: int
    expects: dict[str, object] = field(default_factory=dict)


@dataclass
class Incarnation:
    """A daemon. All in UTC milliseconds; ready_at: None if it never was. stopping_at: when it was told to end."""

    spawned_at: int
    ready_at: int | None = None
    stopping_at: int = 0
    ended_at: int = 0
    was_crash: bool = False
    is_hurried: bool = False


@dataclass
class Disturbance:
    """A fault from outside, UTC milliseconds. kind: freeze, outage, reject, or the name of a receiver's fault."""

    kind: str
    began: int
    ended: int


@dataclass
class Record:
    """What was done to a daemon and its schedules, and seen. runs: the fire ids that ``run`` printed."""

    changes: list[Change] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    incarnations: list[Incarnation] = field(default_factory=list)
    disturbances: list[Disturbance] = field(default_factory=list)
    through: int = 0

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Record:
        plain = json.loads(text)
        return cls(
            [Change(**each) for each in plain["changes"]],
            plain["runs"],
            [Incarnation(**each) for each in plain["incarnations"]],
            [Disturbance(**each) for each in plain["disturbances"]],
            plain["through"],
        )


@dataclass
class Verdict:
    """What the checker found. wrong: a sentence each; none if all promises were kept. lateness_us: of slots due away from faults, sorted. told: more figures, in lines."""

    wrong: list[str]
    slots: int
    received: int
    duplicates: int
    states: dict[str, int]
    lateness_us: list[int]
    told: list[str] = field(default_factory=list)

    @property
    def missed(self) -> int:
        return sum(text.endswith("was missed") for text in self.wrong)

    @property
    def early(self) -> int:
        return sum(" left at " in text for text in self.wrong)

    @property
    def unexplained(self) -> int:
        """Repeats that no fault explains."""
        return sum(" was sent again" in text for text in self.wrong)


class _Got(NamedTuple):
    """What the checker asks of an ``Entry``."""

    fire: Fire
    fire_id: str
    topic: str
    group: str | None
    deduplication: str | None


class _Arrived(NamedTuple):
    """What the checker asks of an ``Arrival``. released_us: it was there, so it had left by then."""

    entry: _Got
    released_us: int
    answer: Answer
    is_accepted: bool = True


async def judge(store: Path, record: Record, received: Sequence[Received]) -> Verdict:
    """Judge a run that is over. store: the file, which no daemon holds any more."""
    lives = read_lives(store)
    journal = [row for row in await read_journal(store) if row.due_time <= record.through]
    return Judge(lives, journal, record, received).verdict()


def read_lives(store: Path) -> dict[int, Life]:
    """Return what the audit log says of each schedule, by id."""
    lives: dict[int, Life] = {}
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        for id_, name, removed_at in db.execute("SELECT id, name, removed_at FROM schedule"):
            lives[id_] = Life(name)
            if removed_at is not None:
                lives[id_].removed_at = removed_at
        for id_, revision_id, made_at, document in db.execute(
            "SELECT schedule_id, id, made_at, document FROM revision ORDER BY id"
        ):
            lives[id_].rules.append(Rule(made_at, revision_id, json.loads(document)))
        for id_, done_at, action, detail in db.execute(
            "SELECT schedule_id, done_at, action, detail FROM action ORDER BY id"
        ):
            _rest(lives[id_], done_at, action, json.loads(detail) if detail else {})
    return lives


def _rest(life: Life, at: UtcMs, action: str, detail: Mapping[str, Any]) -> None:
    last = life.rests[-1] if life.rests else None
    if action == "pause" and last is not None and last.since == detail["since"]:
        last.until = detail.get("until")
        return
    if action in {"pause", "resume", "rm"} and last is not None:
        last.resumed_at = min(last.resumed_at, at)
    if action == "pause":
        life.rests.append(Rest(detail["since"], detail.get("until")))


async def read_journal(path: Path) -> list[JournalEntry]:
    """Return all rows of a store that no daemon holds."""
    store = SqliteStore(path)
    opened = await store.open()
    entries: list[JournalEntry] = []
    before = None
    try:
        while True:
            rows = await store.history(JournalFilter(before=before, limit=10_000))
            entries += [row.entry for row in rows]
            if len(rows) < 10_000:
                return entries
            before = (entries[-1].fire_time, entries[-1].schedule_id, str(entries[-1].kind))
    finally:
        await store.close(watermark=opened.watermark if opened.was_clean else None)


class Judge:
    def __init__(
        self,
        lives: Mapping[int, Life],
        journal: Sequence[JournalEntry],
        record: Record,
        received: Sequence[Received],
    ) -> None:
        self.lives = lives
        self.journal = journal
        self.record = record
        self.received = received
        self.through = UtcMs(record.through)
        end = UtcMs(
            record.incarnations[-1].ended_at
        )  # it fires on while what is due by *through* is being settled
        self.expected = {id_: life.expected(end) for id_, life in lives.items()}
        self.rows: dict[tuple[int, Kind], list[JournalEntry]] = defaultdict(list)
        for row in sorted(journal, key=lambda row: row.fire_time):
            self.rows[row.schedule_id, row.kind].append(row)
        self.by_name: dict[str, list[int]] = defaultdict(list)
        for id_, life in lives.items():
            self.by_name[life.name].append(id_)
        # Halfway through its start: it has no connection before, and what the one before it wrote has been read, also by a
        # receiver that was busy for a moment. One that was killed may have been ready and nobody had seen it yet.
        self._began_us = [
            (each.spawned_at + (each.ready_at or min(each.ended_at, each.spawned_at + _STARTED_MS))) * 500
            for each in record.incarnations
        ]

    def verdict(self) -> Verdict:
        wrong: list[str] = []
        taken = map(self._sent, self.received, itertools.repeat(wrong))
        # What fired while all that was due by then was being settled has its rows beyond the journal that is judged.
        sent = self._in_order(
            each for each in taken if each is not None and each.arrival.entry.fire.due_time <= self.through
        )
        wrong += slot_checker.faults(
            self.lives, self.journal, sent, self._stops(), self.through, seen_late_ms=SLACK_MS
        )
        wrong += self._stale_repeats(sent)
        wrong += self._changes()
        for row in self.journal:
            wrong += self._row_faults(row)
        ids = {each.fire_id for each in self.received}
        states: dict[str, int] = defaultdict(int)
        for row in self.journal:
            states[str(row.reason or row.state)] += row.count
        return Verdict(
            wrong=wrong,
            slots=sum(len(life.expected(self.through)) for life in self.lives.values()),
            received=len(self.received),
            duplicates=len(self.received) - len(ids),
            states=dict(sorted(states.items())),
            lateness_us=sorted(self._lateness(sent)),
        )

    # --- what was received ------------------------------------------------------------------------------------------

    def _sent(self, got: Received, wrong: list[str]) -> Sent | None:
        """Return *got* as the checker takes it, or None, and add to *wrong* what cannot be."""
        name, fire_time = got.fire_id.partition("@")[0], got.fire_time
        id_ = next((id_ for id_ in self.by_name[name] if self._lived(id_, fire_time)), None)
        if id_ is None:
            wrong.append(f"{got.fire_id} was received and there was no such schedule then")
            return None
        row = self._row(id_, got.kind, fire_time)
        if got.kind is Kind.SCHEDULED:
            rule = self.expected[id_].get(fire_time)
            if rule is None:
                wrong.append(f"{got.fire_id} was received and is no slot")
                return None
            due = fire_time + spread_offset(name, rule.document)
        elif row is None:
            wrong.append(f"{got.fire_id} was received and has no entry")
            return None
        else:
            due = row.due_time
            rule = next(rule for rule in self.lives[id_].rules if rule.revision_id == row.revision_id)
        if row is None and due <= self.through:
            wrong.append(f"{got.fire_id} was received and has no entry")
        if row is not None and row.count > 1 and not row.maybe_published:
            wrong.append(
                f"{got.fire_id} was received and lies in a range of {row.count} that were {row.reason}"
            )
        wrong += _content_faults(got, name, rule.document)
        fire = Fire(id_, rule.revision_id, fire_time, UtcMs(due), got.kind)
        entry = _Got(fire, got.fire_id, got.topic, got.group, got.deduplication)
        return Sent(
            self._incarnation(got), cast("Arrival", _Arrived(entry, got.arrived_us, self._answer(got)))
        )

    def _in_order(self, sent: Iterable[Sent]) -> list[Sent]:
        return [*sent]

    def _incarnation(self, got: Received) -> int:
        return max(0, bisect_right(self._began_us, got.connected_us) - 1)

    def _lived(self, id_: int, fire_time: UtcMs) -> bool:
        life = self.lives[id_]
        return life.rules[0].after < fire_time <= life.removed_at

    def _row(self, id_: int, kind: Kind, fire_time: UtcMs) -> JournalEntry | None:
        rows = self.rows[id_, kind]
        at = bisect_right(rows, fire_time, key=lambda row: row.fire_time)
        if at == 0:
            return None
        row = rows[at - 1]
        last = row.fire_time if row.last_fire_time is None else row.last_fire_time
        return row if row.is_open or fire_time <= last else None

    def _answer(self, got: Received) -> Answer:
        """Return what the daemon learnt of it: nothing if no answer was written, or one that it may not have read."""
        if got.answered_us is None:
            return TIMED_OUT
        arrived, answered = got.arrived_us // 1000, got.answered_us // 1000
        for each in self.record.disturbances:
            if (
                each.kind in {"freeze", "outage"}
                and arrived <= each.ended
                and answered >= each.began - SLACK_MS
            ):
                return TIMED_OUT
        return PUBLISHED._replace(delay_s=(got.answered_us - got.arrived_us) / 1e6)

    def _stops(self) -> list[Stop]:
        return [
            Stop(
                UtcMs(each.stopping_at - SLACK_MS if each.is_hurried else each.ended_at),
                each.was_crash,
                leaves_doubt=each.was_crash,
            )
            for each in self.record.incarnations
        ]

    def _stale_repeats(self, sent: Iterable[Sent]) -> Iterator[str]:
        """A crash explains the repeat only of what was answered shortly before it."""
        for before, each, answered in self._answered_repeats(sent):
            id_ = each.arrival.entry.fire_id
            stop = self.record.incarnations[before.incarnation]
            if (
                stop.was_crash
                and stop.ended_at - self.frozen_ms(answered, stop.ended_at) - answered > _COMMITTED_MS
            ):
                yield f"{id_} was sent again, and had been answered {stop.ended_at - answered} ms before the crash"

    @staticmethod
    def _answered_repeats(sent: Iterable[Sent]) -> Iterator[tuple[Sent, Sent, int]]:
        """Yield what was sent again by another incarnation although it was answered: as it was before, again, and when it was answered."""
        last: dict[str, Sent] = {}
        for each in sent:
            id_ = each.arrival.entry.fire_id
            before = last.get(id_)
            last[id_] = each
            if before is None or before.incarnation == each.incarnation or before.arrival.answer.is_unknown:
                continue
            yield (
                before,
                each,
                (before.arrival.released_us + round(before.arrival.answer.delay_s * 1e6)) // 1000,
            )

    def frozen_ms(self, since: int, until: int) -> int:
        """Return for how many of these milliseconds the daemon stood still."""
        spans = (
            (max(since, d.began), min(until, d.ended)) for d in self.record.disturbances if d.kind == "freeze"
        )
        return sum(max(0, end - begin) for begin, end in spans)

    def _lateness(self, sent: Iterable[Sent]) -> Iterator[int]:
        troubles = [(each.began, each.ended + _SETTLED_MS) for each in self.record.disturbances]
        troubles += [(gone, back + _SETTLED_MS) for gone, back in self._absences()]
        seen = {
            fire_id(self.lives[row.schedule_id].name, row.fire_time, row.kind)
            for row in self.journal
            if row.asked_at is not None
        }
        for each in sent:
            entry, due = each.arrival.entry, each.arrival.entry.fire.due_time
            is_first = entry.fire_id not in seen
            seen.add(entry.fire_id)
            if (
                is_first
                and entry.deduplication is None
                and not any(a - 2_000 <= due <= b for a, b in troubles)
            ):
                yield each.arrival.released_us - due * 1000

    def _absences(self) -> list[tuple[int, int]]:
        """Return from when to when no daemon was there: one that starts does not know when the one before it died."""
        return [
            (earlier.stopping_at, later.ready_at or later.ended_at)
            for earlier, later in itertools.pairwise(self.record.incarnations)
        ]

    # --- what is on record ------------------------------------------------------------------------------------------

    def _changes(self) -> Iterator[str]:
        """Every change that was acknowledged is in the audit log, made between the question and the answer."""
        for change in self.record.changes:
            if not any(
                change.began <= at <= change.ended and change.expects.items() <= (DEFAULTS | {**said}).items()
                for id_ in self.by_name[change.name]
                for at, said in self._done(self.lives[id_], change.action)
            ):
                yield f"{change.action} of {change.name} ({change.expects}) was acknowledged and is not on record"
        fires = {row.key for row in self.journal}
        for id_text in self.record.runs:
            name, _, time = id_text.removesuffix("+manual").partition("@")
            keys = {(id_, parse_rfc3339(time), Kind.MANUAL) for id_ in self.by_name[name]}
            if not keys & fires and parse_rfc3339(time) <= self.through:
                yield f"{id_text} was promised and has no entry"

    def _done(self, life: Life, action: str) -> Iterator[tuple[int, Mapping[str, object]]]:
        match action:
            case "pause":
                yield from ((rest.since, {}) for rest in life.rests)
            case "resume":
                yield from ((rest.resumed_at, {}) for rest in life.rests)
            case "rm":
                yield life.removed_at, {}
            case _:
                yield from ((rule.after, rule.document) for rule in life.rules)

    def _row_faults(self, row: JournalEntry) -> Iterator[str]:
        life = self.lives[row.schedule_id]
        here = f"{life.name}@{format_utc(row.fire_time)} ({row.state}, {row.reason})"
        document = next(rule.document for rule in life.rules if rule.revision_id == row.revision_id)
        policy = document.get("catch_up", "latest")
        match row.reason:
            case SkipReason.CATCH_UP if policy == "all":
                yield f"{here} was skipped, and its policy is 'all'"
            case SkipReason.CATCH_UP if not self._was_missed(row):
                yield f"{here} was skipped, and nothing kept it from firing in time"
            case SkipReason.SUPERSEDED if policy != "latest":
                yield f"{here} was superseded, and its policy is {policy!r}"
            case SkipReason.DROPPED:
                yield f"{here} was dropped, and nobody wanted that"
        if row.state is State.EXPIRED:
            deadline = parse_duration(str(document.get("deadline", "1d")))
            if row.due_time + deadline > self.record.incarnations[-1].ended_at:
                yield f"{here} expired, and its deadline is still to come"
        if row.state is State.REJECTED and not self._is_near(
            row.released_at or 0, row.released_at or 0, {"reject"}
        ):
            yield f"{here} was rejected, and the receiver accepts it"
        if row.maybe_published:
            end = row.published_at or self.record.incarnations[-1].ended_at
            if not self._is_near(row.due_time, end, None):
                yield f"{here} is called maybe_published, and there was no fault"

    def _was_missed(self, row: JournalEntry) -> bool:
        """Whether the last slot of *row* was over 10 s late when a daemon could fire again."""
        offset = row.due_time - row.fire_time
        due = (row.last_fire_time or row.fire_time) + offset
        back = [each.ready_at for each in self.record.incarnations if each.ready_at is not None]
        back += [each.ended for each in self.record.disturbances if each.kind == "freeze"]
        return any(due + 10_000 < at + SLACK_MS for at in back)

    def _is_near(self, begin: int, end: int, kinds: set[str] | None) -> bool:
        """Whether there was a fault (of *kinds*; None: any, a daemon's end too) from shortly before *begin* to *end*."""
        faults = [each for each in self.record.disturbances if kinds is None or each.kind in kinds]
        spans = [(each.began, each.ended) for each in faults]
        if kinds is None:
            spans += self._absences()
        return any(a <= end + SLACK_MS and b >= begin - SLACK_MS for a, b in spans)


def _content_faults(got: Received, name: str, document: Mapping[str, Any]) -> Iterator[str]:
    """What is received is what the rule in force says, its placeholders replaced."""
    time = format_utc(got.fire_time)

    def filled(text: str) -> str:
        for placeholder, value in (("schedule", name), ("fire-time", time), ("fire-id", got.fire_id)):
            text = text.replace(f"<cronally.{placeholder}>", value)
        return text

    standard = f'{{"schedule": "{name}", "fire_time": "{time}", "fire_id": "{got.fire_id}"}}'
    body = filled(document["message"]) if "message" in document else standard
    if got.message != body:
        yield f"{got.fire_id} says {got.message!r} and its rule {body!r}"
    attributes = {"cronally.schedule": name, "cronally.fire_time": time, "cronally.fire_id": got.fire_id}
    if got.kind is not Kind.SCHEDULED:
        attributes["cronally.kind"] = str(got.kind)
    attributes |= {key: filled(value) for key, value in document.get("attributes", {}).items()}
    if got.attributes != attributes:
        yield f"{got.fire_id} has the attributes {got.attributes}, not {attributes}"
    if got.topic != document["topic"]:
        yield f"{got.fire_id} went to {got.topic}"
    is_fifo = got.topic.endswith(".fifo")
    identity = (document.get("group", name), got.fire_id) if is_fifo else (None, None)
    if (got.group, got.deduplication) != identity:
        yield f"{got.fire_id} has the group {got.group} and the deduplication id {got.deduplication}"
