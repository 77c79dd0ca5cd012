"""The fires the engine answers for: from the moment they are planned until their outcome is committed.

While a scheduled one without a row is among them, the watermark stays before its due time.
"""

from __future__ import annotations

import heapq
from enum import Enum
from typing import TYPE_CHECKING

from cronally.domain.model import Fire, FireKey, JournalEntry, Kind, State
from cronally.domain.shards import SHARDS
from cronally.engine.fifo import FifoGroups
from cronally.engine.here import Here
from cronally.engine.relived import Relived
from cronally.instants import MIN_UTC_MS

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from cronally.domain.message import Entry
    from cronally.instants import UtcMs


class Phase(Enum):
    """Where a held fire is."""

    PLANNED = "planned"
    IN_FLIGHT = "in flight"
    WAITING = "waiting"  # in a busy FIFO group
    WITHHELD = "withheld"  # planned, until it is known whether it is dropped
    SETTLED = "settled"  # its outcome is known and not yet committed


_SCHEDULED = Kind.SCHEDULED  # to look it up in the enum takes ten times as long

_Key = tuple[int, "UtcMs", Kind]
"""A ``FireKey`` in the form that is made fastest."""


class Held:
    """A fire and where it is. A burst has a hundred thousand of them."""

    __slots__ = ("fire", "has_row", "phase")

    def __init__(self, fire: Fire, phase: Phase, has_row: bool) -> None:  # noqa: FBT001 - by name it takes longer
        self.fire = fire
        self.phase = phase
        self.has_row = has_row


class Holding:
    """Held fires by key, with their place on the way out, and the FIFO groups they stand in.

    Attributes: here. groups. next_pending: when the earliest pending row may be tried, None if none is expected.
        relived: what is settled of the time to come, after the clock was set back. pruned_through: slots due at or before it
        are settled, although their rows may be gone; raised once that is durable.
    """

    def __init__(self) -> None:
        self.here = Here()
        self.groups = FifoGroups()
        self.relived = Relived()
        self.pruned_through = MIN_UTC_MS
        self.next_pending: UtcMs | None = None
        self._held: dict[_Key, Held] = {}
        self._in_flight_count = 0
        self._unsettled_dues: dict[UtcMs, int] = {}
        self._due_heap: list[UtcMs] = []
        self._row_first: set[_Key] = set()  # those of whom a pending row is on the way and not the last word
        self._resending: set[_Key] = (
            set()
        )  # those held that have a pending row which is not about to be replaced
        self._dropping: set[int] = set()

    def hold(self, fire: Fire, *, has_row: bool = False) -> bool:
        """Hold a fire that is about to be sent. has_row: its slot has a pending row.

        False if it is held already, if its slot was settled before the clock was set back, if it is pending and its
        schedule's pending fires are being dropped, or if its shard is not here.
        """
        key = (fire.schedule_id, fire.fire_time, fire.kind)
        if not self.here.has(fire.schedule_id):
            return False
        if key in self._held or (has_row and fire.schedule_id in self._dropping):
            return False
        if not has_row and self._is_relived(fire):
            return False
        self._held[key] = Held(fire, Phase.PLANNED, has_row)
        if has_row:
            self._resending.add(key)
        elif fire.kind is _SCHEDULED:
            due = fire.due_time
            if due not in self._unsettled_dues:
                heapq.heappush(self._due_heap, due)
                self._unsettled_dues[due] = 1
            else:
                self._unsettled_dues[due] += 1
        return True

    def hold_new(self, fires: Sequence[Fire]) -> list[Fire]:
        """Hold scheduled fires that share one due time and have no rows; return those that were not held or settled already."""
        if self.relived.is_on:
            fires = [fire for fire in fires if not self._is_relived(fire)]
        held, planned = self._held, Phase.PLANNED
        new = []
        for fire in fires:
            key = (fire.schedule_id, fire.fire_time, fire.kind)
            if key not in held:
                held[key] = Held(fire, planned, False)
                new.append(fire)
        if new:
            due = new[0].due_time
            if due not in self._unsettled_dues:
                heapq.heappush(self._due_heap, due)
            self._unsettled_dues[due] = self._unsettled_dues.get(due, 0) + len(new)
        return new

    def held_of(self, schedule_ids: Container[int]) -> list[Held]:
        """Return what is held of some schedules."""
        return [held for key, held in self._held.items() if key[0] in schedule_ids]

    def may_release(self, fire: Fire) -> bool:
        """Whether *fire* is still planned (since it was armed a change may have withdrawn it, and `retry` asked again)."""
        held = self._held.get((fire.schedule_id, fire.fire_time, fire.kind))
        if held is None or held.phase is not Phase.PLANNED or held.fire.revision_id != fire.revision_id:
            return False
        if self.here.is_leaving(fire.schedule_id):
            return False
        return not held.has_row or _is_same_attempt(held.fire, fire)

    def launch(self, entries: Iterable[Entry], now: UtcMs) -> bool:
        """Mark the fires of *entries* in flight if all of them may go *now*; else change nothing and return False."""
        launched = []
        get, planned = self._held.get, Phase.PLANNED
        is_any_leaving = bool(self.here.leaving)
        for entry in entries:
            fire = entry.fire
            if is_any_leaving and self.here.is_leaving(fire.schedule_id):
                return False
            held = get((fire.schedule_id, fire.fire_time, fire.kind))
            if held is None or held.phase is not planned or held.fire.revision_id != fire.revision_id:
                return False
            if held.has_row and not _is_same_attempt(held.fire, fire):
                return False
            if now > fire.deadline_at:
                return False
            launched.append(held)
        for held in launched:
            held.phase = Phase.IN_FLIGHT
        self._in_flight_count += len(launched)
        return True

    def mark_waiting(self, fire: Fire, *, has_row: bool = False) -> None:
        """The fire waits in its FIFO group. has_row: its pending row is in the store already, not on the way there."""
        self._held[fire.key].phase = Phase.WAITING
        if not has_row:
            self._row_first.add(fire.key)
        self._resending.add(fire.key)
        self._count_settled(self._held[fire.key])

    def mark_planned(self, fire: Fire) -> bool:
        """A waiting or failed fire is about to be sent again; False if it is being dropped, or is on its way."""
        held = self._held.get(fire.key)
        if held is None:
            return self.hold(fire, has_row=True)
        if held.phase is Phase.IN_FLIGHT:
            return False
        held.phase, held.fire = Phase.PLANNED, fire
        if held.has_row:
            self._resending.add(fire.key)
        return True

    def let_go(self, fire: Fire) -> None:
        """A pending fire is not sent after all: who looks for it finds its row."""
        self._release_hold(fire)

    def forget_waiting(self, fires: Iterable[Fire]) -> None:
        """*fires* wait in no group any more: the store has them."""
        for fire in fires:
            held = self._held.get(fire.key)
            if held is not None and held.phase is Phase.WAITING:
                self._release_hold(fire)

    def begin_manual(self, fire: Fire) -> None:
        """The row of a manual fire is being written: nobody but the writer sends it, however early he sees it."""
        self.hold(fire, has_row=True)
        self._held[fire.key].phase = Phase.WITHHELD

    def end_manual(self, fire: Fire, *, is_done: bool) -> bool:
        """The row is written, or could not be; return whether the fire is to be sent (its FIFO group may have done so)."""
        held = self._held.get(fire.key)
        if held is None or held.phase is not Phase.WITHHELD:
            return False
        if not is_done:
            self._release_hold(fire)
        held.phase = Phase.PLANNED
        return is_done

    def is_held(self, key: FireKey) -> bool:
        return key in self._held

    def is_in_flight(self, fire: Fire) -> bool:
        held = self._held.get(fire.key)
        return held is not None and held.phase is Phase.IN_FLIGHT

    def mark_settled(self, fires: Iterable[Fire]) -> None:
        """The outcomes are known; their rows go into the next commit."""
        all_held, dues = self._held, self._unsettled_dues
        in_flight, settled = Phase.IN_FLIGHT, Phase.SETTLED
        resending = self._resending
        for fire in fires:
            key = (fire.schedule_id, fire.fire_time, fire.kind)
            held = all_held[key]
            if resending:
                resending.discard(key)
            if held.phase is in_flight:
                self._in_flight_count -= 1
            held.phase = settled
            if not held.has_row and fire.kind is _SCHEDULED:  # as _count_settled, in which a burst is slower
                held.has_row = True
                due = held.fire.due_time
                left = dues[due] - 1
                if left:
                    dues[due] = left
                else:
                    del dues[due]

    def mark_committed(self, entries: Iterable[JournalEntry]) -> None:
        """*entries* are durable: let go of the settled fires among them and remember when to retry the pending ones."""
        all_held, settled, pending = self._held, Phase.SETTLED, State.PENDING
        is_relived = self.relived.is_on
        row_first = self._row_first
        for entry in entries:
            if is_relived:
                self.relived.note(entry)
            key = (entry.schedule_id, entry.fire_time, entry.kind)
            held = all_held.get(key)
            is_first = bool(row_first) and key in row_first
            if is_first:
                row_first.discard(key)
            if held is None:
                continue
            held.has_row = True
            if (
                held.phase is settled and not is_first
            ):  # else what has become of it since comes with a later entry
                del all_held[key]
                if entry.state is pending and entry.next_attempt_at is not None:
                    self.expect_pending(entry.next_attempt_at)

    def note_row(self, fire: Fire) -> bool:
        """A change wrote a pending row for *fire*; return whether the core holds it and so sends it."""
        held = self._held.get(fire.key)
        if held is not None:
            self._count_settled(held)
            if held.phase is not Phase.SETTLED:
                self._resending.add(fire.key)
        return held is not None

    def has_row(self, fire: Fire) -> bool:
        """Whether a fire is held and has a pending row."""
        held = self._held.get(fire.key)
        return held is not None and held.has_row

    def resent_of(self, schedule_ids: Container[int]) -> list[FireKey]:
        """Return the fires of some schedules that have a pending row and may be on their way: it is theirs to replace."""
        keys = [FireKey(*key) for key in self._resending if key[0] in schedule_ids]
        return keys + self.groups.heads_of(schedule_ids)

    def expect_pending(self, at: UtcMs) -> None:
        """A pending row may be tried at *at*."""
        if self.next_pending is None or at < self.next_pending:
            self.next_pending = at

    def in_flight_count(self) -> int:
        return self._in_flight_count

    def begin_drop(self, schedule_id: int) -> frozenset[tuple[UtcMs, Kind]]:
        """Withhold what is planned or pending of a schedule; return (fire time, kind) of what stays: it has been sent."""
        self._dropping.add(schedule_id)
        kept = set()
        for held in self.held_of((schedule_id,)):
            fire = held.fire
            if held.phase in (Phase.IN_FLIGHT, Phase.SETTLED):
                kept.add((fire.fire_time, fire.kind))
            elif held.has_row:  # should the change fail, it is found by its row again
                self._release_hold(fire)
            else:
                held.phase = Phase.WITHHELD
        self.groups.forget(schedule_id, kept)
        return frozenset(kept)

    def end_drop(self, schedule_id: int, *, is_done: bool) -> list[Fire]:
        """End what ``begin_drop`` began; return the fires to send after all, because the change failed."""
        self._dropping.discard(schedule_id)
        withheld = [held for held in self.held_of((schedule_id,)) if held.phase is Phase.WITHHELD]
        for held in withheld:
            if is_done:
                self._release_hold(held.fire)
            else:
                held.phase = Phase.PLANNED
        return [] if is_done else [held.fire for held in withheld]

    # --- shards that leave --------------------------------------------------------------------------------------------

    def keys(self) -> list[_Key]:
        """Return the keys of all that is held, to look through in slices."""
        return list(self._held)

    def held_at(self, keys: Iterable[_Key]) -> list[Held]:
        """Return what is held at some keys."""
        return [held for key in keys if (held := self._held.get(key)) is not None]

    def let_go_unsent(self, keys: Iterable[_Key]) -> list[Fire]:
        """Let go of what is held at *keys* and not on its way; return it."""
        sent = (Phase.IN_FLIGHT, Phase.SETTLED)
        fires = [held.fire for held in self.held_at(keys) if held.phase not in sent]
        for fire in fires:
            self._release_hold(fire)
        return fires

    def resume_shard(self, number: int) -> tuple[list[Fire], list[Fire]]:
        """A shard stays: return its planned fires that were not sent meanwhile; and those pending, now let go: the store has them."""
        keys = [key for key in self._held if key[0] % SHARDS == number]
        planned = [held for held in self.held_at(keys) if held.phase is Phase.PLANNED]
        pending = [held.fire for held in planned if held.has_row]
        for fire in pending:
            self._release_hold(fire)
            self.groups.give_up_head(fire)
        return [held.fire for held in planned if not held.has_row], pending

    def held_slots(self) -> dict[int, list[tuple[UtcMs, UtcMs]]]:
        """Return per schedule the scheduled slots the core still answers for, sorted, as (slot, slot)."""
        slots: dict[int, list[tuple[UtcMs, UtcMs]]] = {}
        for schedule_id, fire_time, _ in sorted(key for key in self._held if key[2] is Kind.SCHEDULED):
            slots.setdefault(schedule_id, []).append((fire_time, fire_time))
        return slots

    def earliest_unsettled_due(self) -> UtcMs | None:
        """Return the due time of the earliest held slot that has no row, or None."""
        while self._due_heap and self._due_heap[0] not in self._unsettled_dues:
            heapq.heappop(self._due_heap)
        return self._due_heap[0] if self._due_heap else None

    def held_beyond(self, schedule_id: int, at: UtcMs) -> list[tuple[UtcMs, UtcMs]]:
        """Return the scheduled slots later than *at* that were sent before the clock was set back, as (slot, slot)."""
        sent = (Phase.IN_FLIGHT, Phase.SETTLED)
        return [
            (held.fire.fire_time, held.fire.fire_time)
            for held in self.held_of((schedule_id,))
            if held.phase in sent and held.fire.kind is _SCHEDULED and held.fire.fire_time > at
        ]

    def let_all_go(self) -> None:
        """Hold only what is on its way or whose outcome is known: the store or the timetable gives the others again."""
        kept = (Phase.IN_FLIGHT, Phase.SETTLED, Phase.WITHHELD)
        for held in [held for held in self._held.values() if held.phase not in kept]:
            self._release_hold(held.fire)
        in_flight = [held.fire.key for held in self._held.values() if held.phase is Phase.IN_FLIGHT]
        self.groups.restart(frozenset(in_flight))

    def _is_relived(self, fire: Fire) -> bool:
        relived = self.relived
        if not relived.is_on or fire.kind is not _SCHEDULED:
            return False
        return fire.due_time <= self.pruned_through or relived.has(fire.schedule_id, fire.fire_time)

    def _release_hold(self, fire: Fire) -> None:
        self._count_settled(self._held.pop(fire.key))
        self._resending.discard(fire.key)

    def _count_settled(self, held: Held) -> None:
        if held.has_row or held.fire.kind is not Kind.SCHEDULED:
            return
        held.has_row = True
        due = held.fire.due_time
        left = self._unsettled_dues[due] - 1
        if left:
            self._unsettled_dues[due] = left
        else:
            del self._unsettled_dues[due]


def _is_same_attempt(held: Fire, fire: Fire) -> bool:
    """Whether *fire* is what is held: not one that was armed twice and has gone once, or that was asked for again since."""
    return held.attempts == fire.attempts and held.asked_at == fire.asked_at
