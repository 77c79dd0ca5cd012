"""Order within a FIFO topic's message group (design §6).

1. A group has at most one fire on its way: its head. The head stays the head until it is published, rejected, expired or
   skipped; a retry, a hold and an unknown outcome keep the group busy.
2. Fires that come due in a busy group wait in the order (due time, fire time, name). Each waiting fire has a pending row,
   so memory holds only the first ``MAX_WAITING`` of a group; ``has_more`` says that the store has others.
3. A pending fire that is not due yet (its schedule has a spread and was edited) keeps no group busy: the group opens for
   it when it is due.
4. The groups of a topic that is *shut*, because SNS refuses everything, are not kept: all that is due there has a pending
   row and nothing goes, but for the one group that is let in to try. When it is opened again, the store says which are busy.
5. While the row of a fire that may come first is being written, its group is *held*: it gets no other head, and what comes due waits.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from cronally.domain.model import Fire, FireKey, Kind
    from cronally.instants import UtcMs

MAX_WAITING = 100


class GroupKey(NamedTuple):
    """A message group of a topic."""

    topic: str
    group: str


class Place(NamedTuple):
    """A fire's place in its group. Compared in this order; no two fires of a group share the first four."""

    due_time: UtcMs
    fire_time: UtcMs
    name: str
    kind: str
    fire: Fire


def place_of(fire: Fire, name: str) -> Place:
    return Place(fire.due_time, fire.fire_time, name, str(fire.kind), fire)


@dataclass(slots=True)
class _Group:
    head: Place | None = None
    waiting: list[Place] = field(default_factory=list)
    has_more: bool = False


class FifoGroups:
    """The busy groups; a group that is not here is free."""

    def __init__(self) -> None:
        self._groups: dict[GroupKey, _Group] = {}
        self._heads: dict[FireKey, GroupKey] = {}
        self._retries: list[tuple[UtcMs, FireKey]] = []
        self._opening: list[tuple[UtcMs, GroupKey]] = []
        self._shut: dict[
            str, set[GroupKey] | None
        ] = {}  # with what came up since they are about to be opened
        self._held: set[GroupKey] = set()

    def __len__(self) -> int:
        return len(self._groups)

    def enter(self, key: GroupKey, place: Place) -> bool:
        """Let a fire that is due take its place; True if it is the head and may go now.

        False: it waits, and needs a pending row. It may not be kept in memory (see ``is_waiting``).
        """
        self._open(place.due_time)
        group = self._groups.get(key)
        if group is None:
            if self._keep_out(key):
                return False
            if key not in self._held:
                self._groups[key] = _Group(head=place)
                self._heads[place.fire.key] = key
                return True
            group = self._groups[key] = _Group()
        self._wait(group, place)
        return False

    def mark_busy(self, key: GroupKey) -> None:
        """Say that the store may have pending fires of this group, at any place: the next head comes from there."""
        if key not in self._groups and self._keep_out(key):
            return
        group = self._groups.setdefault(key, _Group())
        group.has_more = True
        group.waiting.clear()

    def open_at(self, key: GroupKey, at: UtcMs) -> None:
        """The store has a pending fire of this group that is due at *at*, not before."""
        heapq.heappush(self._opening, (at, key))

    def wanting(self, now: UtcMs) -> list[GroupKey]:
        """Return the groups without a head that must be refilled from the store."""
        self._open(now)
        return [key for key, group in self._groups.items() if group.head is None and key not in self._held]

    def hold(self, key: GroupKey) -> None:
        """Let the group have no new head before ``end_hold`` (rule 5)."""
        self._held.add(key)

    def end_hold(self, key: GroupKey) -> None:
        """What was written may take its place now; then the group, if it wants one, gets a head (see ``wanting``)."""
        self._held.discard(key)

    def begin_refill(self, key: GroupKey) -> None:
        """The outcomes are about to be committed and the store read for *key*; fires that enter now are kept here."""
        if key in self._groups:
            self._groups[key].has_more = False

    def latest_waiting(self, key: GroupKey) -> UtcMs | None:
        """Return when the last of those that wait here is due: whatever is due before that comes before it."""
        group = self._groups.get(key)
        return max((place.due_time for place in group.waiting), default=None) if group else None

    def refill(self, key: GroupKey, places: Sequence[Place], *, is_all: bool) -> Fire | None:
        """Give a group without a head its first pending fires; return the new head, None if the group is free again.

        is_all: the store had no others. The caller sends the head when it is due.
        """
        group = self._groups.get(key)
        if group is None or group.head is not None:  # shut meanwhile; or shut and let in again
            return None
        known = {place[:4] for place in group.waiting}
        group.waiting += [place for place in places if place[:4] not in known]
        if not is_all:
            last = max(places)
            group.waiting = [place for place in group.waiting if place <= last]
            group.has_more = True
        heapq.heapify(group.waiting)
        return self._promote(key, group)

    def head_of(self, fire: Fire) -> GroupKey | None:
        """Return the group that *fire* is the head of, or None."""
        return self._heads.get(fire.key)

    def is_waiting(self, key: GroupKey, place: Place) -> bool:
        """Whether a fire waits in memory."""
        group = self._groups.get(key)
        return group is not None and any(other[:4] == place[:4] for other in group.waiting)

    def retry_head(self, fire: Fire, at: UtcMs) -> None:
        """The head *fire* goes at *at*, not now."""
        heapq.heappush(self._retries, (at, fire.key))

    def replace_head(self, fire: Fire, retry_at: UtcMs) -> None:
        """The head's attempt failed for now: it stays, as *fire* (one attempt more), and goes again at *retry_at*."""
        key = self._heads[fire.key]
        if key.topic in self._shut:
            self.give_up_head(fire)
            return
        group = self._groups[key]
        assert group.head is not None
        group.head = group.head._replace(fire=fire)
        self.retry_head(fire, retry_at)

    def finish(self, fire: Fire) -> Fire | None:
        """The head is settled for good: return the next head to send, or None (the group is free or wants a refill)."""
        key = self._heads.pop(fire.key)
        group = self._groups[key]
        group.head = None
        if key.topic in self._shut:
            self._go_on_from_store(key)
            return None
        return self._promote(key, group)

    def give_up_head(self, fire: Fire) -> None:
        """If *fire* is a head, it is one no more: the store says what comes next."""
        key = self._heads.pop(fire.key, None)
        if key is not None:
            self._groups[key].head = None
            self._go_on_from_store(key)

    def restart(self, in_flight: Container[FireKey]) -> None:
        """Keep the heads that are *in_flight* and forget all else, instants too: the store says what follows."""
        kept = {key: group_key for key, group_key in self._heads.items() if key in in_flight}
        self._groups = {
            group_key: _Group(head=self._groups[group_key].head, has_more=True) for group_key in kept.values()
        }
        self._heads = kept
        self._retries.clear()
        self._opening.clear()

    def next_retry(self) -> UtcMs | None:
        """Return when a head is to be tried again or a group opens, or None."""
        return min((heap[0][0] for heap in (self._retries, self._opening) if heap), default=None)

    def retries_due(self, now: UtcMs) -> list[Fire]:
        """Return the heads whose retry is due; each is returned once."""
        due = []
        while self._retries and self._retries[0][0] <= now:
            key = self._heads.get(heapq.heappop(self._retries)[1])
            head = None if key is None else self._groups[key].head
            if head is not None:
                due.append(head.fire)
        return due

    def forget(self, schedule_id: int, kept: Container[tuple[UtcMs, Kind]]) -> None:
        """Take the fires of a schedule out, but those in *kept*, (fire time, kind): the store knows what follows."""
        for key in list(self._heads):
            if key.schedule_id == schedule_id and (key.fire_time, key.kind) not in kept:
                self._groups[self._heads[key]].head = None
                self._go_on_from_store(self._heads.pop(key))
        for group_key, group in self._groups.items():
            if any(place.fire.schedule_id == schedule_id for place in group.waiting):
                self.mark_busy(group_key)

    def keys(self) -> list[GroupKey]:
        """Return the groups of which anything is known."""
        came_up = (key for keys in self._shut.values() for key in keys or ())
        return list({*self._groups, *(key for _, key in self._opening), *came_up})

    def drop(self, keys: set[GroupKey]) -> None:
        """Forget some groups, with all that stands in them: they are another machine's."""
        for key in keys:
            group = self._groups.pop(key, None)
            if group is not None and group.head is not None:
                del self._heads[group.head.fire.key]
        self._opening = [(at, key) for at, key in self._opening if key not in keys]
        heapq.heapify(self._opening)
        for came_up in self._shut.values():
            if came_up is not None:
                came_up.difference_update(keys)

    # --- topics that refuse everything ------------------------------------------------------------------------------

    def shut(self, topic: str) -> list[Fire]:
        """Let nothing more of *topic* go (rule 4); return what waited here. Heads that are on their way stay until answered."""
        self._shut[topic] = None
        waiting: list[Fire] = []
        for key in [key for key in self._groups if key.topic == topic]:
            group = self._groups[key]
            waiting += [place.fire for place in group.waiting]
            group.waiting.clear()
            group.has_more = True
            if group.head is None:
                del self._groups[key]
        return waiting

    def is_shut(self, topic: str) -> bool:
        return topic in self._shut

    def let_in(self, key: GroupKey) -> bool:
        """Let one group of a topic that is shut be read from the store and try; False if its head is on its way."""
        if key in self._groups:
            return False
        self._groups[key] = _Group(has_more=True)
        return True

    def begin_open(self, topic: str) -> None:
        """The store is about to be asked for the groups of *topic*; those that come up meanwhile are kept here."""
        self._shut[topic] = set()

    def let_go_on(self, keys: Iterable[GroupKey]) -> None:
        """Let some groups of a topic that is about to be opened go on from the store."""
        for key in keys:
            self._groups.setdefault(key, _Group()).has_more = True

    def end_open(self, topic: str) -> None:
        """All groups that the store had may go on: let those that came up meanwhile do so, and open the others."""
        self.let_go_on(self._shut.pop(topic, None) or ())

    def heads_of(self, schedule_ids: Container[int]) -> list[FireKey]:
        """Return the heads that are fires of some schedules."""
        return [key for key in self._heads if key.schedule_id in schedule_ids]

    def _open(self, now: UtcMs) -> None:
        """Let the groups be busy that have pending fires due by *now*, before anything else enters them."""
        while self._opening and self._opening[0][0] <= now:
            self.mark_busy(heapq.heappop(self._opening)[1])

    def _keep_out(self, key: GroupKey) -> bool:
        if key.topic not in self._shut:
            return False
        came_up = self._shut[key.topic]
        if came_up is not None:
            came_up.add(key)
        return True

    def _go_on_from_store(self, key: GroupKey) -> None:
        """A group has lost its head, and the store says what comes next."""
        if key.topic in self._shut:
            del self._groups[key]
            self._keep_out(key)
        else:
            self.mark_busy(key)

    def _wait(self, group: _Group, place: Place) -> None:
        if group.has_more and (not group.waiting or place > max(group.waiting)):
            return
        if any(other[:4] == place[:4] for other in group.waiting):  # it has been read from the store
            return
        heapq.heappush(group.waiting, place)
        if len(group.waiting) > MAX_WAITING:
            group.waiting.remove(max(group.waiting))
            heapq.heapify(group.waiting)
            group.has_more = True

    def _promote(self, key: GroupKey, group: _Group) -> Fire | None:
        if key in self._held:
            return None
        if group.waiting:
            group.head = heapq.heappop(group.waiting)
            self._heads[group.head.fire.key] = key
            return group.head.fire
        if not group.has_more or key.topic in self._shut:
            del self._groups[key]
            self._keep_out(key)
        return None
