"""What the daemon's log says of the engine's events."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from cronally.actions import about
from cronally.domain.allowed import NOT_ALLOWED
from cronally.domain.durations import HOUR_MS, format_duration
from cronally.domain.sizes import format_size
from cronally.domain.zones import tzdata_version
from cronally.engine.live import Live
from cronally.engine.measures import Measures
from cronally.instants import UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.clock import Clock
    from cronally.domain.model import JournalEntry
    from cronally.engine.alerts import Alerts
    from cronally.engine.clock_watch import Jump
    from cronally.engine.records import Machine
    from cronally.engine.retention import Keep
    from cronally.engine.zone_watch import ZoneChange
    from cronally.errors import StoreError

_MOST_NAMES: Final = 20  # schedules that a log line names
_TELL_AGAIN_S: Final = 60.0
_SAY_PRUNED_EVERY_MS = HOUR_MS  # of what is pruned for its size

_log = logging.getLogger("cronally")


class Journalist(Measures, Live):
    """Measures, tells whoever listens, and says in the log what an operator wants to know. A store that keeps failing the same way is told once a minute. Attributes: keep."""

    def __init__(self, clock: Clock, keep: Keep, *, alerts: Alerts | None = None) -> None:
        """clock: says when a minute is over. keep: how much of the journal is kept. alerts: hear what is committed, too."""
        super().__init__()
        self._alerts = alerts
        self._clock = clock
        self.keep = keep
        self._said_pruned: UtcMs | None = None
        self._failure: str | None = None
        self._told_at = 0.0

    def recovered(self, reason: str, after: UtcMs, through: UtcMs, fires: int, skipped: int) -> None:
        if fires or skipped:
            _log.info(
                "%s: of the slots due from %s to %s, %d are sent late and %d skipped",
                reason,
                format_utc(after),
                format_utc(through),
                fires,
                skipped,
                extra=about(
                    "recovery.done",
                    reason=reason,
                    after=format_utc(after),
                    through=format_utc(through),
                    late=fires,
                    skipped=skipped,
                ),
            )

    def store_failed(self, error: StoreError) -> None:
        now, text = self._clock.mono(), str(error)
        if text != self._failure or now - self._told_at >= _TELL_AGAIN_S:
            self._failure, self._told_at = text, now
            _log.warning(
                "the store refuses: %s; trying again", text, extra=about("store.refused", error=text)
            )

    def committed(self, entries: Sequence[JournalEntry]) -> None:
        super().committed(entries)
        if self._alerts is not None:
            self._alerts.heard(entries)
        if self._failure is not None:
            self._failure = None
            _log.warning("the store takes commits again", extra=about("store.recovered"))

    def pruned(self, rows: int, through: UtcMs, *, for_size: bool) -> None:
        said = self._said_pruned
        if not for_size or (said is not None and through < said + _SAY_PRUNED_EVERY_MS):
            return
        self._said_pruned = through
        _log.warning(
            "the store is larger than journal.max_size (%s): %d journal entries, of slots due up to %s, are pruned before "
            "they are %s old; allow it more, or have fewer fires",
            format_size(self.keep.max_bytes),
            rows,
            format_utc(through),
            format_duration(self.keep.keep_ms),
            extra=about("journal.pruned", entries=rows, through=format_utc(through)),
        )

    def circuit_opened(self, topic: str, error: str | None) -> None:
        if error == NOT_ALLOWED:
            _log.warning(
                "%s is not among the topics of sns.topics: what is due there waits until it is, or expires",
                topic,
                extra=about("topic.not_allowed", topic=topic),
            )
            return
        _log.warning(
            "SNS refuses everything for %s (%s): what is due there waits, and one message at a time is tried",
            topic,
            error,
            extra=about("topic.refusing", topic=topic, error=error),
        )

    def circuit_closed(self, topic: str, opened_at: UtcMs) -> None:
        _log.warning(
            "SNS takes messages for %s again, for the first time since %s; what waited goes now",
            topic,
            format_utc(opened_at),
            extra=about("topic.recovered", topic=topic, since=format_utc(opened_at)),
        )

    def instants_moved(self, names: Sequence[str]) -> None:
        first = ", ".join(names[:_MOST_NAMES])
        _log.warning(
            "new time zone data (tzdata %s) moved the instant of %d schedules: %s%s",
            tzdata_version(),
            len(names),
            first,
            ", …" if len(names) > _MOST_NAMES else "",
            extra=about(
                "zones.instants_moved",
                tzdata=tzdata_version(),
                count=len(names),
                schedules=list(names[:_MOST_NAMES]),
            ),
        )

    def zones_changed(self, change: ZoneChange) -> None:
        _log.warning(
            "tzdata %s has become %s, which moved next fires (schedules: %d): %s; 'cronally next NAME' shows them",
            change.old,
            change.new,
            change.count,
            ", ".join(change.names) + (", …" if change.count > len(change.names) else ""),
            extra=about(
                "zones.changed",
                old=change.old,
                new=change.new,
                count=change.count,
                schedules=list(change.names),
            ),
        )

    def clock_jumped(self, jump: Jump) -> None:
        expected, now = format_utc(jump.expected), format_utc(jump.now)
        if jump.is_resume:
            _log.warning(
                "the machine was suspended for %.1f s; it is %s",
                jump.slept_ms / 1000,
                now,
                extra=about("clock.suspended", slept_s=jump.slept_ms / 1000, now=now),
            )
        elif jump.is_back:
            _log.warning(
                "the clock was set back from %s to %s; what has fired does not fire again",
                expected,
                now,
                extra=about("clock.set_back", expected=expected, now=now),
            )
        else:
            _log.warning(
                "the clock was set forward from %s to %s",
                expected,
                now,
                extra=about("clock.set_forward", expected=expected, now=now),
            )

    def clock_doubted(self, doubt: str) -> None:
        _log.warning(
            "the clock is not believed: %s; nothing fires until it is set right (--trust-clock believes it)",
            doubt,
            extra=about("clock.doubted", doubt=doubt),
        )

    # several machines over one store

    def machine_joined(self, machine: Machine) -> None:
        _log.info(
            "the machine %s has joined (%s)",
            machine.host,
            machine.id,
            extra=about("machine.joined", machine=machine.id, host=machine.host),
        )

    def machine_gone(self, machine: Machine) -> None:
        if machine.has_left:
            _log.info(
                "the machine %s has left (%s)",
                machine.host,
                machine.id,
                extra=about("machine.left", machine=machine.id, host=machine.host),
            )
            return
        _log.warning(
            "the machine %s was silent for %s, its whole lease, and is retired (%s): the others take its shards",
            machine.host,
            format_duration(machine.lease_ms),
            machine.id,
            extra=about("machine.retired", machine=machine.id, host=machine.host),
        )

    def shards_taken(self, numbers: Sequence[int], owner: Machine | None) -> None:
        super().shards_taken(numbers, owner)
        _log.info(
            "this machine drives %s %s from now on%s",
            "shard" if len(numbers) == 1 else "shards",
            ", ".join(map(str, numbers)),
            "" if owner is None else f"; {owner.host} had them",
            extra=about("shard.taken", shards=list(numbers), of=None if owner is None else owner.host),
        )

    def shard_given(self, number: int) -> None:
        super().shard_given(number)
        _log.info(
            "this machine lets another one have shard %d", number, extra=about("shard.given", shard=number)
        )

    def lease_lost(self, reason: str) -> None:
        _log.error(
            "this machine's lease is lost: %s; it sends nothing, and joins anew as soon as the table answers",
            reason,
            extra=about("lease.lost", reason=reason),
        )

    def table_failed(self, error: StoreError) -> None:
        _log.warning(
            "the shared table does not do what it is asked: %s; trying again, and firing to the end of the lease",
            error,
            extra=about("table.unreachable", error=str(error)),
        )

    def table_answers(self, failed_s: float) -> None:
        _log.warning(
            "the shared table answers again, after %.1f s",
            failed_s,
            extra=about("table.answers", failed_s=round(failed_s, 1)),
        )
