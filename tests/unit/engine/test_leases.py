"""Who drives which shard: each decision of one machine, and what comes of those of many."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronally.domain.shards import SHARDS
from cronally.engine.leases import Actions, Hands, Leases, expected_takers, shares
from cronally.engine.records import Machine, Shard
from cronally.instants import UtcMs

LEASE_MS = 8_000


def machine(id_, version=1, **fields):
    return Machine(
        **{
            "id": id_,
            "host": id_,
            "version": version,
            "sequence": 0,
            "watermark": None,
            "behind": {},
            "lease_ms": LEASE_MS,
            "hand_overs": 0,
            "started_at": UtcMs(0),
            **fields,
        }
    )


def shards_of(*owners):
    """All shards, the first ones owned as given, the others by nobody."""
    return [
        Shard(number, owners[number] if number < len(owners) else None, 1, None) for number in range(SHARDS)
    ]


def heard(me, machines, now=0.0, **kwargs):
    leases = Leases(me, **kwargs)
    leases.hear(machines, now)
    return leases


# --- silence ---


def test_a_machine_is_retired_after_its_whole_lease_of_silence_as_we_saw_it():
    machines = [machine("a"), machine("b", lease_ms=20_000), machine("me")]
    leases = heard("me", machines, 100.0)
    assert leases.next_silence(machines) == 108.0
    leases.hear(machines, 107.9)
    assert leases.silent(machines, 107.9) == ()
    assert [each.machine.id for each in leases.silent(machines, 108.0)] == ["a"]
    assert [each.machine.id for each in leases.silent(machines, 120.0)] == ["a", "b"]


def test_each_new_version_begins_a_new_lease_and_an_older_one_does_not():
    leases = heard("me", [machine("a", 5)], 100.0)
    leases.hear([machine("a", 6)], 107.9)
    assert leases.silent([machine("a", 6)], 115.8) == ()
    leases.hear([machine("a", 5)], 115.0)  # a read that is not consistent
    leases.hear([machine("a", 6)], 115.5)
    assert [each.machine.version for each in leases.silent([machine("a", 6)], 115.9)] == [6]


def test_what_was_heard_before_we_slept_is_no_silence_once_something_new_is_read():
    leases = heard("me", [machine("a", 5)], 100.0)
    leases.hear([machine("a", 90)], 4_000.0)
    assert leases.silent([machine("a", 90)], 4_000.0) == ()


def test_nobody_retires_himself_or_a_retired_one():
    machines = [machine("me"), machine("a", is_retired=True)]
    leases = heard("me", machines)
    assert leases.silent(machines, 3_600.0) == ()
    assert leases.next_silence(machines) is None


def test_an_earlier_incarnation_of_this_process_is_not_waited_for():
    machines = [machine("me"), machine("old")]
    leases = heard("me", machines, 5.0, former=["old"])
    assert [each.machine.id for each in leases.silent(machines, 5.0)] == ["old"]


# --- taking ---


def test_a_machine_alone_takes_all():
    machines = [machine("me")]
    actions = heard("me", machines).next_actions(machines, shards_of(), Hands(), 0.0)
    assert len(actions.take) == SHARDS
    assert {take.owner for take in actions.take} == {None}
    assert actions.give == ()


def test_shards_of_a_retired_machine_are_taken_and_those_of_a_living_or_unknown_one_are_not():
    machines = [machine("me"), machine("a", is_retired=True), machine("b")]
    shards = shards_of(*["a"] * 12, *["b"] * 32, *["stranger"] * 20)
    actions = heard("me", machines).next_actions(machines, shards, Hands(), 0.0)
    assert [take.shard.number for take in actions.take] == [*range(12)]
    assert all(take.owner is machines[1] for take in actions.take)


def test_a_silent_machine_that_is_not_yet_retired_keeps_its_shards():
    machines = [machine("me"), machine("a")]
    shards = shards_of(*["a"] * 64)
    actions = heard("me", machines).next_actions(machines, shards, Hands(), 60.0)
    assert actions == Actions(retire=actions.retire)
    assert [each.machine.id for each in actions.retire] == ["a"]


@pytest.mark.parametrize("count", [2, 3, 5, 20, 63, 64, 100])
def test_several_takers_each_take_their_share_and_no_two_the_same(count):
    machines = [machine(f"m{number}") for number in range(count)]
    taken = Counter()
    for each in machines:
        actions = heard(each.id, machines).next_actions(machines, shards_of(), Hands(), 0.0)
        taken.update(take.shard.number for take in actions.take)
        assert len(actions.take) in (SHARDS // count, -(-SHARDS // count))
    assert taken == dict.fromkeys(range(SHARDS), 1)


def test_one_that_has_its_share_leaves_what_others_can_take():
    machines = [machine("me"), machine("a")]
    shards = shards_of(*["me"] * 32)
    hands = Hands(driven=range(32))
    assert heard("me", machines).next_actions(machines, shards, hands, 0.0) == Actions()


def test_nothing_is_left_lying_when_who_should_take_it_does_not():
    machines = [machine("me"), machine("a")]
    leases = heard("me", machines)
    shards = shards_of(*["me"] * 32)
    hands = Hands(driven=range(32))
    took = []
    for tenth in range(40):
        now = tenth / 10
        machines = [machine("me", tenth), machine("a", tenth)]  # it lives
        leases.hear(machines, now)
        took.append(len(leases.next_actions(machines, shards, hands, now).take))
    assert took[:15] == [0] * 15
    assert took[16:] == [32] * 24  # 1.5 s


def test_one_that_takes_slowly_is_waited_for():
    leases = Leases("me")
    hands = Hands(driven=range(32))
    for second in range(20):
        machines = [machine("me", second), machine("a", second, hand_overs=second)]
        leases.hear(machines, float(second))
        shards = shards_of(*["me"] * 32, *["a"] * second)
        assert leases.next_actions(machines, shards, hands, float(second)).take == ()


def test_a_machine_that_took_nothing_is_given_something_again_after_a_minute_or_when_it_takes():
    for takes_at, gives_from in ((None, 61), (10, 10)):
        leases = Leases("me")
        gives = []
        for second in range(70):
            is_taking = takes_at is not None and second >= takes_at
            machines = [machine("me", second), machine("a", second, hand_overs=int(is_taking))]
            leases.hear(machines, float(second))
            is_free = second < 5
            driven = range(40 if is_free else 64)
            hands = Hands(driven=driven)
            shards = shards_of(*["me"] * len(driven))
            if leases.next_actions(machines, shards, hands, float(second)).give and not is_free:
                gives.append(second)
        assert abs(gives[0] - gives_from) <= 3


def test_suspects_and_those_who_leave_are_not_counted_on():
    for other in (machine("a"), machine("a", is_leaving=True)):
        leases = heard("me", [machine("me"), other])
        now = 0.0 if other.is_leaving else 5.0
        shards = shards_of(*["a"] * 30)
        actions = leases.next_actions([machine("me"), other], shards, Hands(), now)
        assert len(actions.take) == 34


def test_what_is_being_taken_is_not_taken_twice_and_counts_as_taken():
    machines = [machine("me"), machine("a")]
    leases = heard("me", machines)
    hands = Hands(taking=range(20))
    actions = leases.next_actions(machines, shards_of(), hands, 0.0)
    assert len(actions.take) <= 12
    assert not {take.shard.number for take in actions.take} & {*range(20)}


def test_a_take_that_failed_halfway_is_taken_up_again():
    machines = [machine("me"), machine("a")]
    shards = shards_of(*["me"] * 32, *["a"] * 32)
    actions = heard("me", machines).next_actions(machines, shards, Hands(driven=range(31)), 0.0)
    assert [(take.shard.number, take.owner) for take in actions.take] == [(31, machines[0])]


# --- giving ---


def test_who_has_more_than_its_share_gives_one_and_waits_until_it_is_taken():
    machines = [machine("me"), machine("a")]
    leases = heard("me", machines)
    driven = set(range(64))
    shards = shards_of(*["me"] * 64)
    [give] = leases.next_actions(machines, shards, Hands(driven=driven), 0.0).give
    number = give.shard.number
    hands = Hands(driven=driven - {number}, giving={number})
    assert leases.next_actions(machines, shards, hands, 0.0) == Actions()
    shards[number] = Shard(number, None, 1, None)
    assert leases.next_actions(machines, shards, hands, 0.0) == Actions()
    shards[number] = Shard(number, "a", 2, None)
    [another] = leases.next_actions(machines, shards, hands, 0.0).give
    assert another != give


def test_what_is_balanced_stays():
    ids = ["a", "b", "c", "d", "e"]
    owners = [ids[number % 5] for number in range(SHARDS)]
    machines = [machine(id_) for id_ in ids]
    for id_ in ids:
        driven = {number for number in range(SHARDS) if owners[number] == id_}
        actions = heard(id_, machines).next_actions(machines, shards_of(*owners), Hands(driven=driven), 0.0)
        assert actions == Actions()


def test_who_leaves_gives_all_and_takes_nothing():
    machines = [machine("me", is_leaving=True), machine("a")]
    shards = shards_of(*["me"] * 32)
    hands = Hands(driven=range(32), giving={3})
    actions = heard("me", machines).next_actions(machines, shards, hands, 0.0)
    assert actions.take == ()
    assert {give.shard.number for give in actions.give} == {*range(32)} - {3}


def test_a_retired_machine_does_nothing():
    machines = [machine("me", is_retired=True), machine("a")]
    shards = shards_of(*["me"] * 64)
    assert heard("me", machines).next_actions(machines, shards, Hands(driven=range(64)), 0.0) == Actions()


# --- many ---


@given(st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 64), min_size=1))
def test_shares_add_up_and_differ_by_one_at_most(owned):
    found = shares(owned)
    assert sum(found.values()) == SHARDS
    assert max(found.values()) - min(found.values()) <= 1


@given(st.integers(0, 2**32))
def test_from_any_beginning_all_shards_are_shared_fairly_with_as_few_moves_as_can_be(seed):
    draw = random.Random(seed)
    ids = [f"m{number}" for number in range(draw.randint(1, 9))]
    gone = machine("gone", is_retired=True)
    machines = [*(machine(id_) for id_ in ids), gone]
    weights = [draw.random() ** 3 for _ in range(len(ids) + 2)]
    owners = draw.choices([*ids, "gone", None], weights, k=SHARDS)
    shards = shards_of(*owners)
    before = Counter(owner for owner in owners if owner in ids)
    fair = shares({id_: before[id_] for id_ in ids})
    fewest = sum(max(0, before[id_] - fair[id_]) for id_ in ids)
    gives = 0
    all_leases = {id_: heard(id_, machines) for id_ in ids}
    for _ in range(1_000):
        is_still = True
        for id_ in draw.sample(ids, len(ids)):
            driven = {shard.number for shard in shards if shard.owner == id_}
            actions = all_leases[id_].next_actions(machines, shards, Hands(driven=driven), 0.0)
            for take in actions.take:
                shards[take.shard.number] = take.shard._replace(owner=id_, epoch=take.shard.epoch + 1)
            for give in actions.give:
                shards[give.shard.number] = give.shard._replace(owner=None)
                gives += 1
            is_still &= actions == Actions()
        if is_still:
            break
    owned = Counter(shard.owner for shard in shards)
    assert {id_: owned[id_] for id_ in ids} == fair or sorted(owned.values()) == sorted(
        share for share in fair.values() if share
    )
    assert gives == fewest


@given(st.integers(0, 2**32))
def test_for_every_free_shard_there_is_a_taker_within_its_share(seed):
    draw = random.Random(seed)
    ids = [f"m{number}" for number in range(draw.randint(1, 9))]
    owners = draw.choices([*ids, None], k=SHARDS)
    owned = {id_: owners.count(id_) for id_ in ids}
    free = [shard for shard in shards_of(*owners) if shard.owner is None]
    takers = expected_takers(free, owned)
    assert takers.keys() == {shard.number for shard in free}
    for id_, count in Counter(takers.values()).items():
        assert owned[id_] + count <= shares(owned)[id_]
