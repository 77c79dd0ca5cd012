"""What a commit of a shared store holds, and how it becomes the bytes of log items and what it was again.

1. A *deed* is a write of the port ``Store`` as far as it is about one shard, with the ids that were chosen: whoever repeats the deeds of a
   shard in order has what its owner has.
2. A record is lines of JSON, one for each deed, compressed together and cut into parts. What was published, nearly all of it, is in
   columns: a fire takes some 15 bytes.
"""

from __future__ import annotations

import json
import zlib
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cronally.domain.model import JournalEntry, Kind, Pause, SkipReason, State
from cronally.domain.spec import canonical_document, from_canonical
from cronally.engine.records import LogPlace, Order, Reopened, ScheduleChange, StagedRow
from cronally.errors import StoreError
from cronally.store.dynamodb_table import MOST_ITEM_BYTES
from cronally.store.sqlite import ChosenIds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cronally.instants import UtcMs

_FORMAT: Final = b"\x01"  # of a record; another one is refused
_OPENED_AT_ONCE_BYTES: Final = 64 << 10
_MOST_TOGETHER: Final = 5_000  # entries
_LEVEL: Final = 6  # 5,000 fires take 10 ms in a thread


class Committed(NamedTuple):
    """entries: what became of pending ones that newer slots made needless is among them."""

    entries: Sequence[JournalEntry]
    errors: Sequence[tuple[int, str | None]] = ()


class Changed(NamedTuple):
    """dropped: the pending entries that the change gave up, as they were then."""

    change: ScheduleChange
    ids: ChosenIds
    dropped: Sequence[JournalEntry] = ()


class Flipped(NamedTuple):
    at: UtcMs
    by: str
    owner: str
    staged: Sequence[StagedRow]
    ids: Sequence[ChosenIds]
    unsettled: Sequence[JournalEntry]
    removed: Sequence[int]


class TakenOver(NamedTuple):
    names: Sequence[str]
    owner: str
    at: UtcMs
    by: str


class SlotsMoved(NamedTuple):
    moved: Sequence[tuple[int, UtcMs]]


class Doubted(NamedTuple):
    """Every pending fire may have been published."""


class Asked(NamedTuple):
    entry: JournalEntry
    by: str
    fire_id: str
    key: str | None


class Backfilled(NamedTuple):
    entries: Sequence[JournalEntry]
    at: UtcMs
    by: str
    order: Order


class Retried(NamedTuple):
    rows: Sequence[Reopened]
    at: UtcMs
    by: str
    orders: Sequence[Order]


class Amended(NamedTuple):
    entries: Sequence[JournalEntry]


class BroughtForward(NamedTuple):
    """The clock was set back to *at*: what is pending may be tried."""

    at: UtcMs


class Remembered(NamedTuple):
    key: str
    answer: str
    at: UtcMs


class Taken(NamedTuple):
    """The machine took the shard: what others committed of it, up to these places, comes before what follows."""

    after: Sequence[LogPlace]


Deed = (
    Committed
    | Changed
    | Flipped
    | TakenOver
    | SlotsMoved
    | Doubted
    | Asked
    | Backfilled
    | Retried
    | Amended
    | BroughtForward
    | Remembered
    | Taken
)


class Logged(NamedTuple):
    """A deed and the shard that it is about."""

    shard: int
    deed: Deed


class Record(NamedTuple):
    """What is written of a commit. parts: of at most 390 KB. size_of: the bytes that each shard has of it. is_plain: all of it says what was published."""

    parts: list[bytes]
    size_of: dict[int, int]
    is_plain: bool


def encode(logged: Sequence[Logged]) -> Record:
    """Return the record of a commit."""
    squeezing = zlib.compressobj(_LEVEL)
    squeezed = [_FORMAT]
    plain_of: dict[int, int] = {}
    for shard, deed in logged:
        tag, write = _WRITERS[type(deed)]
        line = json.dumps([tag, shard, write(deed)], ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "replace"
        )
        squeezed += [squeezing.compress(line), squeezing.compress(b"\n")]
        plain_of[shard] = plain_of.get(shard, 0) + len(line)
    squeezed.append(squeezing.flush())
    whole = b"".join(squeezed)
    parts = [whole[start : start + MOST_ITEM_BYTES] for start in range(0, len(whole), MOST_ITEM_BYTES)]
    total = sum(plain_of.values())
    size_of = {shard: size * len(whole) // total for shard, size in plain_of.items()}
    return Record(parts, size_of, is_plain=all(_says_what_was_published(deed) for _, deed in logged))


def _says_what_was_published(deed: Deed) -> bool:
    return (
        isinstance(deed, Committed)
        and not deed.errors
        and all(entry.state is State.PUBLISHED for entry in deed.entries)
    )


def decode(parts: Sequence[bytes], *, shards: frozenset[int] | None = None) -> Iterator[Logged]:
    """Yield what a record holds, of *shards* (None: of all). Errors: StoreError.

    Each deed is read when it is asked for: a record of 100,000 new schedules takes 0.3 s in all, and 5 ms a deed.
    """
    whole = b"".join(parts)
    if whole[:1] != _FORMAT:
        raise StoreError(
            "the log of the shared store was written by a newer cronally; start that one on this machine, too"
        )
    for line in _lines(whole[1:]):
        tag, shard, written = json.loads(line)
        if shards is None or shard in shards:
            yield Logged(shard, _READERS[tag](written))


def together(deeds: Iterable[Logged]) -> Iterator[Logged]:
    """Yield *deeds*, in order, but commits that follow each other as one: to repeat one of a row takes as long as one of a hundred.

    They may be of several shards, as the rows of one have nothing to do with those of another.
    """
    shard, entries, errors = 0, list[JournalEntry](), list[tuple[int, str | None]]()
    for logged in deeds:
        deed = logged.deed
        is_full = not isinstance(deed, Committed) or len(entries) >= _MOST_TOGETHER
        if (entries or errors) and is_full:
            yield Logged(shard, Committed(entries, errors))
            entries, errors = [], []
        if isinstance(deed, Committed):
            shard = logged.shard
            entries += deed.entries
            errors += deed.errors
        else:
            yield logged
    if entries or errors:
        yield Logged(shard, Committed(entries, errors))


def _lines(squeezed: bytes) -> Iterator[bytes]:
    opening = zlib.decompressobj()
    begun: list[bytes] = []
    while squeezed:
        opened = opening.decompress(squeezed, _OPENED_AT_ONCE_BYTES)
        squeezed = opening.unconsumed_tail
        first, *others = opened.split(b"\n")
        begun.append(first)
        for other in others:
            yield b"".join(begun)
            begun = [other]
    if not opening.eof:
        raise StoreError("a record in the log of the shared store is cut off")


# --- journal entries ----------------------------------------------------------------------------------------------

_DEFAULTS: Final = JournalEntry._field_defaults
_FIELDS: Final = JournalEntry._fields
_PLAIN_ALIKE: Final = tuple(
    (name, _DEFAULTS[name])
    for name in _FIELDS
    if name in _DEFAULTS and name not in ("kind", "attempts", "released_at", "published_at", "lateness_us")
)


def _is_plain(entry: JournalEntry) -> bool:
    return (
        entry.state is State.PUBLISHED
        and entry.kind is Kind.SCHEDULED
        and None not in (entry.released_at, entry.published_at, entry.lateness_us)
        and all(getattr(entry, name) == default for name, default in _PLAIN_ALIKE)
    )


def _written_entries(entries: Sequence[JournalEntry]) -> list[Any]:
    """Return stretches of *entries*, in order: columns of plain ones, and lists of the fields of others."""
    written: list[Any] = []
    for is_plain, alike in groupby(entries, _is_plain):
        if is_plain:
            rows = [_plain(entry) for entry in alike]
            start = rows[0][1]
            columns = [list(column) for column in zip(*rows, strict=True)]
            columns[1] = [fire_time - start for fire_time in columns[1]]
            written.append([start, columns])
        else:
            written.append([_trimmed(entry) for entry in alike])
    return written


def _plain(entry: JournalEntry) -> tuple[int, ...]:
    released_at, published_at, lateness_us = entry.released_at, entry.published_at, entry.lateness_us
    assert released_at is not None
    assert published_at is not None
    assert lateness_us is not None
    return (
        entry.schedule_id,
        entry.fire_time,
        entry.revision_id,
        entry.due_time - entry.fire_time,
        entry.attempts,
        released_at - entry.due_time,
        published_at - released_at,
        lateness_us - 1000 * (released_at - entry.due_time),
    )


def _trimmed(entry: JournalEntry) -> list[Any]:
    """Return the fields of *entry* without the last ones that have their defaults."""
    values: list[Any] = [*entry]
    while (
        values[-1] == _DEFAULTS.get(_FIELDS[len(values) - 1], values) and len(values) > 5
    ):  # the five have none
        values.pop()
    return values


def _read_entries(written: list[Any]) -> list[JournalEntry]:
    found: list[JournalEntry] = []
    for stretch in written:
        if isinstance(stretch[0], list):
            found += map(_read_entry, stretch)
            continue
        start, columns = stretch
        for id_, after, revision_id, wait, attempts, late, took, rest in zip(*columns, strict=True):
            fire_time = start + after
            due_time = fire_time + wait
            found.append(
                JournalEntry(
                    id_,
                    fire_time,
                    revision_id,
                    due_time,
                    State.PUBLISHED,
                    attempts=attempts,
                    released_at=due_time + late,
                    published_at=due_time + late + took,
                    lateness_us=1000 * late + rest,
                )
            )
    return found


def _read_entry(values: list[Any]) -> JournalEntry:
    entry = JournalEntry(*values)
    return entry._replace(
        state=State(entry.state),
        kind=Kind(entry.kind),
        reason=None if entry.reason is None else SkipReason(entry.reason),
    )


# --- deeds --------------------------------------------------------------------------------------------------------


def _written_commit(deed: Committed) -> list[Any]:
    return [_written_entries(deed.entries), deed.errors]


def _read_commit(written: list[Any]) -> Committed:
    entries, errors = written
    return Committed(_read_entries(entries), [(id_, error) for id_, error in errors])


_OF_CHANGE: Final = (
    *("at", "by", "action", "id", "expected_revision_id", "name", "effective_from", "owner"),
    *("is_removal", "drop_pending"),
)


def _written_change(deed: Changed) -> list[Any]:
    change, spec, pause = deed.change, deed.change.new_spec, deed.change.pause
    return [
        [getattr(change, name) for name in _OF_CHANGE],
        None if spec is None else [spec.name, canonical_document(spec)],
        None if pause is None else [pause.since, pause.until, pause.note, pause.by],
        [
            _written_entries(entries)
            for entries in (change.unsettled, change.closed, change.opened, deed.dropped)
        ],
        sorted(change.kept),
        deed.ids,
    ]


def _read_change(written: list[Any]) -> Changed:
    plain, spec, pause, entries, kept, ids = written
    unsettled, closed, opened, dropped = (tuple(_read_entries(some)) for some in entries)
    change = ScheduleChange(
        **dict(zip(_OF_CHANGE, plain, strict=True)),
        new_spec=None if spec is None else from_canonical(*spec),
        pause=None if pause is None else _read_pause(*pause),
        unsettled=unsettled,
        closed=closed,
        opened=opened,
        kept=frozenset((fire_time, Kind(kind)) for fire_time, kind in kept),
    )
    return Changed(change, ChosenIds(*ids), dropped)


def _read_pause(since: UtcMs, until: UtcMs | None, note: str | None, by: str | None) -> Pause:
    return Pause(since=since, until=until, note=note, by=by)


def _written_flip(deed: Flipped) -> list[Any]:
    return [*deed[:5], _written_entries(deed.unsettled), deed.removed]


def _read_flip(written: list[Any]) -> Flipped:
    at, by, owner, staged, ids, unsettled, removed = written
    return Flipped(
        at,
        by,
        owner,
        [StagedRow(*row) for row in staged],
        [ChosenIds(*of_row) for of_row in ids],
        _read_entries(unsettled),
        removed,
    )


def _written_retry(deed: Retried) -> list[Any]:
    rows = [[_trimmed(row.old), *map(_trimmed, row.new)] for row in deed.rows]
    return [rows, deed.at, deed.by, deed.orders]


def _read_retry(written: list[Any]) -> Retried:
    rows, at, by, orders = written
    read = [[_read_entry(entry) for entry in row] for row in rows]
    return Retried(
        [Reopened(old, tuple(new)) for old, *new in read], at, by, [Order(*order) for order in orders]
    )


def _read_asked(written: list[Any]) -> Asked:
    entry, by, fire_id, key = written
    return Asked(_read_entry(entry), by, fire_id, key)


def _read_backfill(written: list[Any]) -> Backfilled:
    entries, at, by, order = written
    return Backfilled(_read_entries(entries), at, by, Order(*order))


_FORMS: Final[tuple[tuple[str, type[Any], Callable[[Any], Any], Callable[[Any], Deed]], ...]] = (
    ("j", Committed, _written_commit, _read_commit),
    ("c", Changed, _written_change, _read_change),
    ("f", Flipped, _written_flip, _read_flip),
    ("o", TakenOver, list, lambda written: TakenOver(*written)),
    ("s", SlotsMoved, list, lambda written: SlotsMoved([(id_, at) for id_, at in written[0]])),
    ("d", Doubted, list, lambda _: Doubted()),
    ("r", Asked, lambda deed: [_trimmed(deed.entry), *deed[1:]], _read_asked),
    ("b", Backfilled, lambda deed: [_written_entries(deed.entries), *deed[1:]], _read_backfill),
    ("y", Retried, _written_retry, _read_retry),
    (
        "a",
        Amended,
        lambda deed: _written_entries(deed.entries),
        lambda written: Amended(_read_entries(written)),
    ),
    ("w", BroughtForward, list, lambda written: BroughtForward(*written)),
    ("k", Remembered, list, lambda written: Remembered(*written)),
    ("t", Taken, list, lambda written: Taken([LogPlace(*place) for place in written[0]])),
)
"""Of each deed: its tag in a record, its type, and how it is written and read."""

_WRITERS: Final = {type_: (tag, write) for tag, type_, write, _ in _FORMS}
_READERS: Final = {tag: read for tag, _, _, read in _FORMS}
