"""Who drives which shard: what one machine does next, by what the shared store says and what it remembers (design §12).

1. A machine is silent once the version of its heartbeat has not changed for its whole lease, on the clock of who looks. A
   version counts from when it was *read*: it may have been written up to that moment, so its owner trusts itself no longer.
2. A shard is free if nobody owns it, or a machine that is retired. Only such a one is taken.
3. Of n machines that take part each has its share, 64 / n rounded down or up. Who has more gives one, and the next one once that one
   is taken. Shares add up to all shards and go first to who has them, so nothing moves where nothing is out of balance.
4. Every machine computes for each free shard the same taker. Those who see something else for a moment ask for the same shard;
   the store lets one of them have it.
5. Nothing free is left lying: who is expected to take, and does not, takes part no more, and the others have larger shares.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.domain.shards import SHARDS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from cronally.engine.records import Machine, Shard

TRUST_MARGIN_S: Final = 1.0
"""How much sooner than others may retire it a machine stops sending: for clocks that do not run alike, and a process that stops between its last look and the write."""

RENEWALS_PER_LEASE: Final = 3
_SUSPECT_AFTER_S: Final = 1.5  # beyond when a heartbeat should have come: a look of ours, and a slow table
_PATIENCE_S: Final = 1.5  # with one who is to take a shard: three looks of his
_PASSIVE_FOR_S: Final = 60.0


def trusted_until(renewal_began_at: float, lease_ms: int) -> float:
    """Return until when, on ``Clock.boot``, a machine may send whose last successful renewal *began* then, not when it ended."""
    return renewal_began_at + lease_ms / 1000 - TRUST_MARGIN_S


def renewal_due(trusted_until: float, lease_ms: int) -> float:
    """Return when, on ``Clock.boot``, a lease that is trusted until then is to be renewed: a third of it after the last time."""
    return trusted_until + TRUST_MARGIN_S - lease_ms / 1000 * (1 - 1 / RENEWALS_PER_LEASE)


class Retire(NamedTuple):
    """A machine has been silent for its whole lease."""

    machine: Machine


class Take(NamedTuple):
    """Take a free shard. owner: the retired machine that has it; None if nobody has."""

    shard: Shard
    owner: Machine | None


class Give(NamedTuple):
    """Let somebody else have a shard of this machine's."""

    shard: Shard


class Actions(NamedTuple):
    """What to do next, all of it at once."""

    retire: tuple[Retire, ...] = ()
    take: tuple[Take, ...] = ()
    give: tuple[Give, ...] = ()


class Hands(NamedTuple):
    """The shards that a machine has in its hands.

    Fields: driven: those that its engine fires. taking: those it is about to drive. giving: those it is giving, or has given as long as
        nobody else has taken them, as far as it knows; an old one does no harm.
    """

    driven: Collection[int] = ()
    taking: Collection[int] = ()
    giving: Collection[int] = ()


class _Heard(NamedTuple):
    version: int
    at: float


class _Idle(NamedTuple):
    """A machine has taken nothing since *since*, although it should: it has still given or taken *hand_overs* shards."""

    hand_overs: int
    since: float


class Leases:
    """What one machine, *me*, remembers of the others, and decides. Instants are seconds of its ``Clock.boot``.

    former: ids of earlier incarnations of this very process, of which nothing is sent any more: they need not be waited for.
    """

    def __init__(self, me: str, former: Iterable[str] = ()) -> None:
        self._me = me
        self._former = frozenset(former)
        self._heard: dict[str, _Heard] = {}
        self._expected: dict[str, _Idle] = {}
        self._passive: dict[str, _Idle] = {}  # of whom nothing is expected any more

    def hear(self, machines: Sequence[Machine], now: float) -> None:
        """Note the heartbeats, as they were read; *now* is when they had been."""
        by_id = {machine.id: machine for machine in machines}
        for machine in machines:
            heard = self._heard.get(machine.id)
            # A read that is not consistent may show an older version: that is not a sign of life.
            if heard is None or machine.version > heard.version:
                self._heard[machine.id] = _Heard(machine.version, now)
        for gone in self._heard.keys() - by_id.keys():
            del self._heard[gone]
        for memory in (self._expected, self._passive):
            for id_, idle in [*memory.items()]:
                if id_ not in by_id or by_id[id_].hand_overs != idle.hand_overs:
                    del memory[id_]
        for id_, idle in [*self._passive.items()]:
            if now - idle.since >= _PASSIVE_FOR_S:
                del self._passive[id_]

    def age_s(self, machine: str, now: float) -> float:
        """Return for how long a heartbeat has not changed, as far as this machine knows."""
        heard = self._heard.get(machine)
        return 0.0 if heard is None else now - heard.at

    def next_silence(self, machines: Iterable[Machine]) -> float | None:
        """Return when the first machine is silent for its whole lease if nothing is heard of it, or None."""
        return min((self._silent_at(each) for each in machines if self._is_watched(each)), default=None)

    def silent(self, machines: Iterable[Machine], now: float) -> tuple[Retire, ...]:
        """Return whom to retire."""
        return tuple(
            Retire(each) for each in machines if self._is_watched(each) and now >= self._silent_at(each)
        )

    def next_actions(
        self, machines: Sequence[Machine], shards: Sequence[Shard], hands: Hands, now: float
    ) -> Actions:
        """Decide by what was read of the store; each hand-over may fail there, and is then decided anew."""
        retire = self.silent(machines, now)
        by_id = {machine.id: machine for machine in machines}
        own = by_id.get(self._me)
        if own is None or own.is_retired:
            return Actions(retire)
        busy = {*hands.taking, *hands.giving}
        mine = [shard for shard in shards if shard.owner == self._me and shard.number not in busy]
        if own.is_leaving:
            return Actions(retire, give=tuple(Give(shard) for shard in mine if shard.number in hands.driven))
        held = {*hands.driven, *hands.taking}  # what was read may be older
        free = [shard for shard in shards if shard.number not in held and is_free(shard, by_id)]
        owned = self._owned(by_id, shards, hands, now)
        takers = expected_takers(free, owned)
        self._expect({*takers.values()}, by_id, now)
        take = [
            Take(shard, None if shard.owner is None else by_id[shard.owner])
            for shard in free
            if takers[shard.number] == self._me
        ]
        # A take that failed after the store had let this machine have the shard is taken up again.
        take += [Take(shard, own) for shard in mine if shard.number not in hands.driven]
        give = min(
            (shard for shard in mine if shard.number in hands.driven),
            key=lambda shard: preference(self._me, shard.number),
            default=None,
        )
        is_over = owned[self._me] > shares(owned)[self._me]
        is_giving = any(
            shard.number in hands.giving and (shard.owner == self._me or is_free(shard, by_id))
            for shard in shards
        )
        if give is None or not is_over or is_giving:
            return Actions(retire, tuple(take))
        return Actions(retire, tuple(take), (Give(give),))

    # --- who takes part ---------------------------------------------------------------------------------------------

    def _is_watched(self, machine: Machine) -> bool:
        return not machine.is_retired and machine.id != self._me and machine.id in self._heard

    def _silent_at(self, machine: Machine) -> float:
        heard_at = self._heard[machine.id].at
        return heard_at if machine.id in self._former else heard_at + machine.lease_ms / 1000

    def _owned(
        self, by_id: Mapping[str, Machine], shards: Iterable[Shard], hands: Hands, now: float
    ) -> dict[str, int]:
        """Return how many shards each machine has that takes part in sharing them."""
        owned = {id_: 0 for id_, machine in by_id.items() if self._takes_part(machine, now)}
        for shard in shards:
            is_taking = shard.number in hands.taking and is_free(shard, by_id)
            owner = self._me if is_taking or shard.number in hands.driven else shard.owner
            if owner in owned:
                owned[owner] += 1
        return owned

    def _takes_part(self, machine: Machine, now: float) -> bool:
        if machine.id == self._me:
            return True
        most_s = machine.lease_ms / 1000 / RENEWALS_PER_LEASE + _SUSPECT_AFTER_S
        is_suspect = self.age_s(machine.id, now) > most_s or machine.id in self._former
        return not (machine.is_retired or machine.is_leaving or is_suspect or machine.id in self._passive)

    def _expect(self, takers: Collection[str], by_id: Mapping[str, Machine], now: float) -> None:
        """Note who is to take something now, and of whom that has been true for too long."""
        for gone in self._expected.keys() - takers:
            del self._expected[gone]
        for taker in takers:
            idle = self._expected.setdefault(taker, _Idle(by_id[taker].hand_overs, now))
            if now - idle.since >= _PATIENCE_S and taker != self._me:
                self._passive[taker] = idle._replace(since=now)


def shares(owned: Mapping[str, int]) -> dict[str, int]:
    """Return how many shards each machine shall have, by how many it has now: who has most has what cannot be divided."""
    least, more = divmod(SHARDS, len(owned))
    order = sorted(owned, key=lambda machine: (-owned[machine], machine))
    return {machine: least + (place < more) for place, machine in enumerate(order)}


def expected_takers(free: Iterable[Shard], owned: Mapping[str, int]) -> dict[int, str]:
    """Return for each free shard who takes it: of those with room in their share, the one that prefers it most."""
    room = {machine: share - owned[machine] for machine, share in shares(owned).items()}
    takers: dict[int, str] = {}
    for shard in free:
        having_room = [machine for machine, left in room.items() if left > 0]
        taker = max(having_room, key=lambda machine: preference(machine, shard.number))
        takers[shard.number] = taker
        room[taker] -= 1
    return takers


def preference(machine: str, number: int) -> bytes:
    """Return how much a machine prefers a shard; each has an order of its own, so that several take different ones."""
    return blake2b(f"{machine} {number}".encode(), digest_size=8).digest()


def is_free(shard: Shard, by_id: Mapping[str, Machine]) -> bool:
    """Whether nobody drives a shard, and nobody will unless he takes it. by_id: the machines by their ids."""
    owner = None if shard.owner is None else by_id.get(shard.owner)
    return shard.owner is None or (owner is not None and owner.is_retired)
