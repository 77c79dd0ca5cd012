"""What is counted since the start: how late fires leave, what becomes of them, how long SNS and the store take.

Late are scheduled fires that went out at the first attempt: how late a retry is says more of SNS than of us.
"""

from __future__ import annotations

from collections import Counter, deque
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.domain.model import Kind, State
from cronally.engine.histogram import Histogram, from_ms
from cronally.engine.hooks import Hooks
from cronally.engine.ports import OutcomeClass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.domain.model import JournalEntry, SkipReason
    from cronally.engine.ports import Outcome
    from cronally.engine.records import Machine
    from cronally.errors import StoreError

_RECENT = 10_000

BOUNDS_US: Final = from_ms(
    *(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
)
"""Upper bounds of the buckets of lateness, inclusive, microseconds; the last bucket has none."""
_ANSWER_BOUNDS_US: Final = from_ms(5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
_COMMIT_BOUNDS_US: Final = from_ms(1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
_LAG_BOUNDS_US: Final = from_ms(1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)

THROTTLED: Final = "throttled"
UNKNOWN: Final = "unknown"
ATTEMPT_ENDS: Final = (*(str(one.value) for one in OutcomeClass), THROTTLED, UNKNOWN)
"""What the attempt to send a message comes to: the class of its outcome, but for those that have a word of their own."""


class HandOverWay(StrEnum):
    """How a shard changed hands: taken from nobody, for the machine before had given it; taken over from one that is retired; given."""

    TAKEN = "taken"
    TAKEN_OVER = "taken_over"
    GIVEN = "given"


class FateKey(NamedTuple):
    """What slots are counted by."""

    state: State
    reason: SkipReason | None
    kind: Kind


_PUBLISHED = State.PUBLISHED  # to look it up in the enum takes ten times as long
_SCHEDULED = Kind.SCHEDULED
_USUAL = FateKey(_PUBLISHED, None, _SCHEDULED)
_ANSWERED = str(OutcomeClass.PUBLISHED.value)


class Measures(Hooks):
    """Keeps the lateness of the last 10,000 fires, and counts since the start.

    Attributes: fates: slots by the final state that they came to; those of a pause when it is over. attempts: messages by
        what an attempt came to, ``ATTEMPT_ENDS``.
        retries: attempts that were not a fire's first. commit_failures, store_failures: what the store refused; the former are
        among the latter. lateness. answer: how long SNS took to answer a request of which it took something; to the
        millisecond. commit: how long a commit of the journal took. lag: how much later the event loop woke than it was to.
        hand_overs: shards that this machine has taken or given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fates: Counter[FateKey] = Counter()
        self.attempts: Counter[str] = Counter()
        self.retries = 0
        self.commit_failures = 0
        self.store_failures = 0
        self.lateness = Histogram(BOUNDS_US)
        self.answer = Histogram(_ANSWER_BOUNDS_US)
        self.commit = Histogram(_COMMIT_BOUNDS_US)
        self.lag = Histogram(_LAG_BOUNDS_US)
        self.hand_overs: Counter[HandOverWay] = Counter()
        self._recent_us: deque[int] = deque(maxlen=_RECENT)

    @property
    def ended(self) -> Counter[State]:
        """The slots by state alone."""
        ended: Counter[State] = Counter()
        for key, count in self.fates.items():
            ended[key.state] += count
        return ended

    def answered(self, outcomes: Sequence[Outcome], published: int) -> None:
        if published:
            self.attempts[_ANSWERED] += published
            first = outcomes[0]
            self.answer.add(max(0, first.finished_at * 1000 - first.released_us))
        if published < len(outcomes):
            self.attempts.update(
                _end(outcome) for outcome in outcomes if outcome.outcome is not OutcomeClass.PUBLISHED
            )

    def committed(self, entries: Sequence[JournalEntry]) -> None:
        usual = [entry for entry in entries if entry.state is _PUBLISHED and entry.kind is _SCHEDULED]
        late_us = [
            entry.lateness_us
            for entry in usual
            if entry.attempts == 1 and entry.asked_at is None and entry.lateness_us is not None
        ]
        self.fates[_USUAL] += len(usual)
        self._recent_us.extend(late_us)
        self.lateness.extend(late_us)
        if len(usual) < len(entries):
            for entry in entries:
                if entry.state is not _PUBLISHED or entry.kind is not _SCHEDULED:
                    self._count(entry)
        if len(late_us) < len(entries):
            self.retries += sum(entry.attempts > 1 and entry.released_at is not None for entry in entries)

    def _count(self, entry: JournalEntry) -> None:
        if entry.state is not State.PENDING:
            self.fates[FateKey(entry.state, entry.reason, entry.kind)] += entry.count

    def put_aside(
        self, reason: SkipReason, kind: Kind, slots: int, rows: Sequence[JournalEntry] = ()
    ) -> None:
        super().put_aside(reason, kind, slots, rows)
        self.fates[FateKey(State.SKIPPED, reason, kind)] += slots

    def commit_ended(self, took_s: float, *, is_done: bool) -> None:
        if is_done:
            self.commit.add(round(took_s * 1e6))
        else:
            self.commit_failures += 1

    def store_failed(self, error: StoreError) -> None:
        super().store_failed(error)
        self.store_failures += 1

    def loop_lagged(self, lag_s: float) -> None:
        super().loop_lagged(lag_s)
        self.lag.add(max(0, round(lag_s * 1e6)))

    def shards_taken(self, numbers: Sequence[int], owner: Machine | None) -> None:
        super().shards_taken(numbers, owner)
        way = HandOverWay.TAKEN_OVER if owner is not None and owner.is_retired else HandOverWay.TAKEN
        self.hand_overs[way] += len(numbers)

    def shard_given(self, number: int) -> None:
        super().shard_given(number)
        self.hand_overs[HandOverWay.GIVEN] += 1

    def lateness_us(self) -> dict[str, int] | None:
        """Return ``p50``, ``p99`` and ``max`` of the recent fires in microseconds, and ``count``; None before the first."""
        if not self._recent_us:
            return None
        ordered = sorted(self._recent_us)
        last = len(ordered) - 1
        return {
            "p50": ordered[last // 2],
            "p99": ordered[min(last, (last * 99 + 99) // 100)],
            "max": ordered[last],
            "count": len(ordered),
        }

    def lateness_histogram(self) -> list[tuple[int | None, int]]:
        """Return (upper bound in microseconds or None, fires since the start) for each bucket, by bound."""
        return self.lateness.counts()


def _end(outcome: Outcome) -> str:
    if outcome.is_throttled:
        return THROTTLED
    return UNKNOWN if outcome.is_unknown else str(outcome.outcome.value)
