"""A whole file of schedules, all or nothing (design §10, ``apply``).

Lines are checked and staged as they come, in slices, so that fires go out on time meanwhile; then one short transaction
makes the differences effective. Lines that speak of a pause, and schedules at rest, are changed one by one after it:
their range rows open and close with exact counts.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.documents import DuplicateKey, load_json
from cronally.domain.model import is_same_pause
from cronally.domain.shards import SHARDS
from cronally.domain.spec import canonical_document, from_document, parse_paused
from cronally.engine.records import StagedRow
from cronally.engine.views import fires_to_come, wished_pause
from cronally.errors import FieldError, UsageError, printable
from cronally.instants import UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.domain.allowed import AllowedTopics
    from cronally.domain.model import Pause
    from cronally.domain.spec import ScheduleSpec
    from cronally.engine.core import Core
    from cronally.engine.edits import Edits
    from cronally.engine.ports import Store
    from cronally.engine.records import Owned, StagedChange

MAX_LINE_BYTES = 1_048_576
MAX_PROBLEMS = 1_000  # reported; the others are counted
_MAX_SHOWN_CHARS = 100  # of a name in a problem
_CHECKED_AT_ONCE = 50  # lines between two yields to the event loop, about 3 ms; a long one counts as several
_COUNTS_AS_ONE_BYTES = 8_192
_CHECKED_FOR_S = 0.003  # or they end it: a name looked for among all zones takes as long as fifty good lines
_STAGED_AT_ONCE = 1_000
_STAGED_AT_ONCE_BYTES = 1_048_576
_LISTED_AT_ONCE = 5_000  # changes between two turns of the event loop: 2 ms
_MOST_SHOWN_BYTES = 8_388_608  # of the differences of a preview; the others are counted
_STATE_BYTES = 1_000  # without its message
_SHOWN_FIRES = 3  # before and after, of each schedule that would change


class LineProblem(NamedTuple):
    """What is wrong with one line of an apply. line: 1-based. name: the schedule's, if it could be read."""

    line: int
    name: str | None
    reason: str


class ScheduleState(NamedTuple):
    """A schedule as it is, or as it would be. next_fires: its next slots; none while it is paused for good."""

    spec: ScheduleSpec
    pause: Pause | None
    next_fires: tuple[UtcMs, ...]


class Difference(NamedTuple):
    """What an apply would do to one schedule. before is None if it would be created, after if it would be removed."""

    name: str
    before: ScheduleState | None
    after: ScheduleState | None

    @property
    def size_bytes(self) -> int:
        """About how much of an answer it takes."""
        states = [state for state in (self.before, self.after) if state is not None]
        return sum(_STATE_BYTES + len((state.spec.message or "").encode()) for state in states)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyResult:
    """What an apply did; with problems, nothing. differences: of a preview, the first ones by name. shards: those that were here, None: all."""

    created: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0
    differences: tuple[Difference, ...] = ()
    shards: frozenset[int] | None = None
    problems: tuple[LineProblem, ...] = ()
    problem_count: int = 0


class Applying:
    """One apply; the caller holds the lock of *edits*.

    Args: put: changes one schedule by its document and returns ``created``, ``changed`` or ``unchanged``.
        remove: removes one.
    """

    def __init__(
        self,
        store: Store,
        edits: Edits,
        core: Core,
        clock: Clock,
        allowed: AllowedTopics,
        put: Callable[[str, Mapping[str, object]], Awaitable[str]],
        remove: Callable[[str], Awaitable[object]],
    ) -> None:
        self._store = store
        self._edits = edits
        self._core = core
        self._clock = clock
        self._allowed = allowed
        self._put = put
        self._remove = remove
        self.topics: set[str] = set()
        self._shards: frozenset[int] | None = None
        self._line_of: dict[str, int] = {}
        self._singly: dict[str, Mapping[str, object]] = {}
        self._past: dict[str, ScheduleSpec] = {}
        self._problems: list[LineProblem] = []
        self._problem_count = 0

    async def run(
        self,
        lines: AsyncIterator[bytes],
        *,
        owner: str,
        by: str,
        is_pruning: bool = False,
        shards: Mapping[int, int] | None = None,
    ) -> ApplyResult:
        """Apply *lines*, JSON documents with their ``name``.

        is_pruning: schedules that an earlier apply of the same owner made, and that *lines* do not name, are removed.
        shards: what *lines* are of: first so many of the first one, and so on. Those that are not here are left out, with what they
            have, and nothing of another one is removed.
        """
        if shards is not None:
            self._shards = frozenset(shards) - self._core.here.absent
            lines = _of_shards(lines, shards, self._shards)
        return await self._compared(
            lines,
            owner if is_pruning else None,
            lambda changes, obsolete: self._make(changes, obsolete, owner=owner, by=by),
        )

    async def preview(
        self, lines: AsyncIterator[bytes], *, owner: str, is_pruning: bool = False, most: int
    ) -> ApplyResult:
        """Say what ``run`` would do, with the first *most* differences (fewer if they are large), and do nothing."""
        return await self._compared(
            lines,
            owner if is_pruning else None,
            lambda changes, obsolete: self._preview(changes, obsolete, most),
        )

    async def _compared(
        self,
        lines: AsyncIterator[bytes],
        pruned_owner: str | None,
        act: Callable[[Sequence[StagedChange], Sequence[Owned]], Awaitable[ApplyResult]],
    ) -> ApplyResult:
        """Stage *lines* and, if all are well, *act* on what differs and on what *pruned_owner* has that they do not name."""
        await self._store.stage_begin()
        try:
            await self._stage(lines)
            changes = await self._store.staged_changes()
            await self._check_past(changes)
            if self._problem_count:
                return ApplyResult(problems=tuple(self._problems), problem_count=self._problem_count)
            owned = [] if pruned_owner is None else await self._store.owned(pruned_owner)
            return await act(changes, [one for one in owned if self._is_obsolete(one)])
        finally:
            await self._store.stage_begin()

    def _is_obsolete(self, one: Owned) -> bool:
        return one.name not in self._line_of and (self._shards is None or one.id % SHARDS in self._shards)

    async def _make(
        self, changes: Sequence[StagedChange], obsolete: Sequence[Owned], *, owner: str, by: str
    ) -> ApplyResult:
        outcomes: Counter[str] = Counter()
        await self._edits.pauses.finish()
        at_rest = [change for change in changes if self._core.is_at_rest(change.id)]
        await self._store.unstage([change.name for change in at_rest])
        together = [change for change in changes if not self._core.is_at_rest(change.id)]
        removed = [one for one in obsolete if not self._core.is_at_rest(one.id)]
        removed_singly = [one for one in obsolete if self._core.is_at_rest(one.id)]
        is_flipped = bool(together or removed)
        if is_flipped:
            await self._edits.flip(together, by=by, owner=owner, removed=removed)
        outcomes["created"] = sum(change.id is None for change in together)
        outcomes["changed"] = len(together) - outcomes["created"]
        self._singly |= {change.name: json.loads(change.document) for change in at_rest}
        for name, document in self._singly.items():
            outcomes[await self._put(name, document)] += 1
        for one in removed_singly:
            await self._remove(one.name)
        # A flip has recorded it for what it was told of: a line names the owner also if it changes nothing.
        rest = [*self._singly, *(() if is_flipped else self._line_of)]
        if rest:
            await self._store.own(rest, owner=owner, at=self._clock.wall(), by=by)
        return self._result(outcomes["created"], outcomes["changed"], len(obsolete))

    def _result(
        self, created: int, changed: int, removed: int, differences: Iterable[Difference] = ()
    ) -> ApplyResult:
        return ApplyResult(
            created=created,
            changed=changed,
            removed=removed,
            unchanged=len(self._line_of) - created - changed,
            shards=self._shards,
            differences=tuple(differences),
        )

    # --- previewing ---------------------------------------------------------------------------------------------------

    async def _preview(
        self, changes: Sequence[StagedChange], obsolete: Sequence[Owned], most: int
    ) -> ApplyResult:
        documents: dict[str, Mapping[str, object] | str] = {}  # a text is read when it is shown
        is_new: dict[str, bool] = {}
        for number, change in enumerate(changes, start=1):
            documents[change.name], is_new[change.name] = change.document, change.id is None
            if number % _LISTED_AT_ONCE == 0:
                await self._clock.sleep(0)
        for name, wish in self._singly.items():
            stored = await self._store.schedule(name)
            spec = from_document(name, wish)
            pause = wished_pause(parse_paused(wish.get("paused")), stored, self._clock.wall())
            if stored is None or stored.spec != spec or not is_same_pause(stored.pause, pause):
                documents[name], is_new[name] = wish, stored is None
        names = sorted([*documents, *(one.name for one in obsolete)])[:most]
        differences: list[Difference] = []
        size_bytes = 0
        for name in names:
            if size_bytes > _MOST_SHOWN_BYTES:
                break
            document = documents.get(name)
            wanted = json.loads(document) if isinstance(document, str) else document
            differences.append(await self._difference(name, wanted))
            size_bytes += differences[-1].size_bytes
        created = sum(is_new.values())
        return self._result(created, len(is_new) - created, len(obsolete), differences)

    async def _difference(self, name: str, document: Mapping[str, object] | None) -> Difference:
        """Return what becomes of the schedule *name*. document: as it would be; None if it would be removed."""
        await self._clock.sleep(0)
        now = self._clock.wall()
        stored = await self._store.schedule(name)
        before = None if stored is None else _state(stored.spec, stored.pause, now)
        if document is None:
            return Difference(name, before, None)
        pause = wished_pause(parse_paused(document.get("paused")), stored, now)
        return Difference(name, before, _state(from_document(name, document), pause, now))

    # --- checking -----------------------------------------------------------------------------------------------------

    async def _stage(self, lines: AsyncIterator[bytes]) -> None:
        rows: list[StagedRow] = []
        number = weight = size_bytes = 0
        begun = self._clock.mono()
        async for line in lines:
            number += 1
            weight += 1 + len(line) // _COUNTS_AS_ONE_BYTES
            if line.strip():
                row = self._checked(number, line)
                if row is not None:
                    rows.append(row)
                    size_bytes += len(line)
            if weight >= _CHECKED_AT_ONCE or self._clock.mono() - begun > _CHECKED_FOR_S:
                await self._clock.sleep(0)
                weight, begun = 0, self._clock.mono()
            if len(rows) >= _STAGED_AT_ONCE or size_bytes >= _STAGED_AT_ONCE_BYTES:
                await self._store.stage(rows)
                rows, size_bytes = [], 0
        if rows:
            await self._store.stage(rows)

    def _checked(self, number: int, line: bytes) -> StagedRow | None:
        """Return the row to stage, or None if the line has a problem or is to be changed singly."""
        name: str | None = None
        try:
            document = _parse(line)
            given = document.pop("name", None)
            name = given if isinstance(given, str) else None
            spec = from_document(given, document)
            self._allowed.check(spec.topic)
            if spec.name in self._line_of:
                raise FieldError("name", f"line {self._line_of[spec.name]} has the same one")
            self._line_of[spec.name] = number
            self.topics.add(spec.topic)
            wish = parse_paused(document.get("paused"))
        except UsageError as exc:
            self._add_problem(number, name, str(exc))
            return None
        at = spec.recurrence().at_ms
        if at is not None and at <= self._clock.wall():
            self._past[spec.name] = spec
        if wish.is_paused is not None:
            self._singly[spec.name] = document
            return None
        is_in_bounds = at is not None and (spec.starts or at) <= at <= (spec.ends or at)
        due = UtcMs(at + spec.offset_ms()) if at is not None and is_in_bounds else None
        return StagedRow(spec.name, canonical_document(spec), due)

    async def _check_past(self, changes: Sequence[StagedChange]) -> None:
        """Refuse an instant that is past, unless it stands there already: then it has fired."""
        changing = {change.name for change in changes}
        for name, spec in self._past.items():
            if name in self._singly:
                stored = await self._store.schedule(name)
                is_changing = stored is None or stored.spec != spec
            else:
                is_changing = name in changing
            at = spec.recurrence().at_ms
            if is_changing and at is not None:
                reason = f"when: {spec.when!r} is {format_utc(at)}, which is past; name an instant to come"
                self._add_problem(self._line_of[name], name, reason)

    def _add_problem(self, line: int, name: str | None, reason: str) -> None:
        self._problem_count += 1
        if len(self._problems) < MAX_PROBLEMS:
            shown = None if name is None else printable(name[:_MAX_SHOWN_CHARS])
            self._problems.append(LineProblem(line, shown, reason))


async def _of_shards(
    lines: AsyncIterator[bytes], counts: Mapping[int, int], wanted: Collection[int]
) -> AsyncIterator[bytes]:
    """Yield those of *lines* that are of *wanted* shards. counts: how many there are of each, in order."""
    order = [shard for shard, count in counts.items() for _ in range(count)]
    number = 0
    async for line in lines:
        if order[number] in wanted:
            yield line
        number += 1


def _state(spec: ScheduleSpec, pause: Pause | None, now: UtcMs) -> ScheduleState:
    return ScheduleState(spec, pause, fires_to_come(spec, pause, now, _SHOWN_FIRES))


def _parse(line: bytes) -> dict[str, object]:
    if len(line) > MAX_LINE_BYTES:
        raise FieldError("line", f"has {len(line):,} bytes; a schedule takes at most {MAX_LINE_BYTES:,}")
    try:
        document = load_json(line)
    except DuplicateKey as exc:
        raise FieldError(exc.key, "is there twice; leave one out") from None
    except ValueError as exc:
        raise FieldError("line", f"is not JSON ({exc}); write one object a line") from None
    if not isinstance(document, dict):
        raise FieldError("line", 'must be a JSON object such as {"name": "nightly", "when": "0 9 * * *", …}')
    return document
