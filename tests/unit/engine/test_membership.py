"""One machine among several: joining, sharing, taking over, leaving, and what a table that does not answer comes to."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from cronally.domain.shards import SHARDS
from cronally.engine import membership
from cronally.errors import LeaseLost, NotReady, StoreBusy
from support.fake_clock import FakeClock
from support.fleet import Fleet

LEASE_S = 8.0


@pytest.fixture
async def fleet():
    fleet = Fleet(FakeClock())
    yield fleet
    await fleet.end()
    assert fleet.doubled == set()


async def two(fleet, **keys):
    a, b = await fleet.add("a", **keys), await fleet.add("b", **keys)
    await fleet.advance(20)
    assert fleet.counts == [32, 32]
    return a, b


# --- joining ---


async def test_a_machine_alone_takes_all_at_once(fleet):
    node = await fleet.add("a")
    assert await fleet.until_whole(0.2) <= 0.2
    assert node.owned == {*range(SHARDS)}
    await fleet.advance(0.5)
    assert node.said == ["joined a", "took 64 of nobody"]


async def test_a_new_machine_has_its_share_soon_one_shard_after_another(fleet):
    a = await fleet.add("a")
    assert await fleet.until_whole(1) <= 1
    fleet.longest_idle.clear()
    b = await fleet.add("b", latency_s=0.01)
    a.store.faults.latency_s = 0.01
    began_at = fleet.clock.mono()
    missing = 0
    while len(b.driver.fires) < 32:
        await fleet.advance(0.05)
        missing = max(missing, SHARDS - sum(fleet.counts))
        assert fleet.clock.mono() - began_at < 20
    assert missing == 1
    assert max(fleet.longest_idle.values()) <= 0.3  # s that a shard is on its way
    await fleet.advance(30)
    assert fleet.counts == [32, 32]
    assert a.said.count("gave") == 32


@pytest.mark.parametrize("count", [3, 7, 20, 65])
async def test_machines_that_start_together_have_fair_shares(fleet, count):
    for _ in range(count):
        await fleet.add(latency_s=0.01)
    await fleet.advance(35)
    assert fleet.is_whole
    assert {*fleet.counts} <= {SHARDS // count, -(-SHARDS // count)}


async def test_what_is_in_balance_does_not_move_and_an_idle_look_is_one_read(fleet):
    for _ in range(5):
        await fleet.add()
    await fleet.advance(20)
    takes = len(fleet.table.takes)
    calls = sum(node.store.calls for node in fleet.nodes)
    await fleet.advance(600, step_s=0.5)
    assert len(fleet.table.takes) == takes
    # Each half second it follows and looks, each 2.7 s it renews.
    per_s = (sum(node.store.calls for node in fleet.nodes) - calls) / 600 / 5
    assert per_s < 2 * 2 + 1 / 2.6 + 0.1


async def test_what_others_have_done_is_followed_by_what_a_look_has_just_read(fleet, monkeypatch):
    """A store that follows without it reads the machines once more."""
    node = await fleet.add()
    await fleet.advance(20)
    done = []
    machines, follow = node.store.machines, node.store.follow
    monkeypatch.setattr(node.store, "machines", lambda: done.append("look") or machines())
    monkeypatch.setattr(node.store, "follow", lambda: done.append("follow") or follow())
    await fleet.advance(5)
    assert done[:2] == ["look", "follow"]
    assert done.count("follow") >= 9


# --- a machine that is gone ---


@pytest.mark.parametrize("after_s", [0.0, 0.7, 1.3, 2.0, 2.6])
async def test_what_a_crashed_machine_had_is_fired_again_within_ten_seconds(fleet, after_s):
    _, b = await two(fleet, latency_s=0.04)
    await fleet.advance(after_s)
    await b.end()
    assert LEASE_S - 2.7 < await fleet.until_whole(10.0) <= 10.0
    assert fleet.counts == [SHARDS]
    await fleet.advance(0.1)
    assert "retired b" in fleet.nodes[0].said
    assert "took 32 of b" in fleet.nodes[0].said


async def test_the_end_of_a_silent_lease_is_not_overslept(fleet):
    took_s = []
    a = await fleet.add("a")
    for tenth in range(0, 27, 3):
        b = await fleet.add("b", lease_ms=8_200)  # no multiple of the time between two looks
        await fleet.advance(20 + tenth / 10)
        await b.end()
        took_s.append(await fleet.until_whole(10))
    assert a.owned == {*range(SHARDS)}
    # A whole lease from when a heartbeat was seen, which was half a second after it was written at most.
    assert max(took_s) <= 8.2 + 0.5 + 0.05


async def test_of_several_machines_that_are_left_each_takes_some(fleet):
    for _ in range(4):
        await fleet.add(latency_s=0.04)
    await fleet.advance(20)
    await fleet.nodes[0].end()
    assert await fleet.until_whole(10.0) <= 10.0
    assert sorted(fleet.counts) == [21, 21, 22]
    await fleet.advance(0.5)
    for node in fleet.nodes[1:]:
        assert node.said.count("retired m0") == 1
    said = [each.split() for node in fleet.nodes[1:] for each in node.said if each.endswith("of m0")]
    assert sum(int(count) for _, count, *_ in said) == 16


async def test_two_that_crash_together_are_both_replaced_in_time(fleet):
    for _ in range(4):
        await fleet.add(latency_s=0.04)
    await fleet.advance(20)
    await fleet.nodes[0].end()
    await fleet.advance(0.9)
    await fleet.nodes[1].end()
    assert await fleet.until_whole(10.0) <= 10.0
    assert fleet.counts == [32, 32]


async def test_a_chain_of_crashes_hands_the_oldest_watermark_on(fleet):
    a = await fleet.add("a")
    assert await fleet.until_whole(1) <= 1
    await a.store.commit([], watermark=fleet.clock.wall())
    mark = fleet.clock.wall()
    await a.end()
    b = await fleet.add("b", error=StoreBusy("not now"))  # it takes, and brings nothing of it in line
    await fleet.advance(12)
    assert len(b.owned) > 0
    await b.store.commit([], watermark=fleet.clock.wall())
    await b.end()
    c = await fleet.add("c")
    assert await fleet.until_whole(10) <= 10
    assert {taken.watermark for taken in c.driver.taken} == {mark}
    assert not any(taken.was_clean for taken in c.driver.taken)


async def test_a_machine_that_is_cut_off_sends_nothing_by_when_others_do_and_ends(fleet):
    _, b = await two(fleet)
    b.store.faults.is_cut = True
    await fleet.advance(LEASE_S + 3)
    assert fleet.counts == [SHARDS]
    with pytest.raises(LeaseLost, match="does not answer"):
        await b.running


@pytest.mark.parametrize("frozen_s", [9.0, 60.0])
async def test_a_machine_that_freezes_for_longer_than_its_lease_sends_nothing_and_ends(fleet, frozen_s):
    a, b = await two(fleet, latency_s=0.01)
    b.clock.freeze()
    await fleet.advance(frozen_s)
    assert b.sends == set()
    b.clock.thaw()
    await fleet.advance(1.5)
    assert b.sends == set()
    with pytest.raises(LeaseLost):
        await b.running
    b.store.faults.latency_s = 0
    with pytest.raises(LeaseLost):
        await b.store.commit([], watermark=fleet.clock.wall())
    assert fleet.table.refused == [b.store.machine]
    assert a.owned == {*range(SHARDS)}


async def test_a_machine_that_was_retired_learns_it_from_its_next_look(fleet):
    a, b = await two(fleet)
    await fleet.advance(0.4)
    fleet.table.machines[b.store.machine] = fleet.table.machines[b.store.machine]._replace(is_retired=True)
    await fleet.advance(0.55)
    with pytest.raises(LeaseLost, match="has retired this one"):
        await b.running
    await fleet.advance(0.5)
    assert a.sends == {*range(SHARDS)}


async def test_a_machine_that_freezes_for_less_goes_on(fleet):
    _, b = await two(fleet, latency_s=0.01)
    b.clock.freeze()
    await fleet.advance(5)
    b.clock.thaw()
    await fleet.advance(10)
    assert fleet.counts == [32, 32]
    assert b.said[-1].startswith("took")


async def test_all_machines_sleep_and_each_notices_when_it_wakes(fleet):
    a, b = await two(fleet)
    await fleet.clock.suspend(60)
    await fleet.advance(1)
    for node in (a, b):
        with pytest.raises(LeaseLost, match="slept"):
            await node.running
        assert node.sends == set()


# --- stopping in order ---


async def test_a_clean_stop_costs_its_shards_less_than_a_second(fleet):
    a, b = await two(fleet, latency_s=0.02)
    fleet.longest_idle.clear()
    leaving = asyncio.create_task(b.membership.leave())
    assert await fleet.until_whole(1.0) <= 1.0
    await fleet.advance(1)
    await leaving
    await b.running  # it ends, and raises nothing
    assert max(fleet.longest_idle.values()) < 0.8
    assert all(taken.was_clean for taken in a.driver.taken)
    assert b.said.count("gave") == 32
    assert "left b" in a.said
    assert not any("retired" in said for said in a.said)


async def test_what_is_in_flight_does_not_hold_up_the_other_shards(fleet):
    a, b = await two(fleet)
    slow = min(b.driver.fires)
    give_up = b.driver.give_up

    async def with_one_in_flight(number):
        if number == slow:
            await fleet.clock.sleep(5)
        return await give_up(number)

    b.driver.give_up = with_one_in_flight
    leaving = asyncio.create_task(b.membership.leave())
    await fleet.advance(1.0)
    assert len(a.sends) == SHARDS - 1
    await fleet.advance(5.0)
    assert a.sends == {*range(SHARDS)}
    await leaving


async def test_a_machine_leaves_without_waiting_for_an_engine_that_takes_nothing_in(fleet):
    """Its clock is not believed, say."""
    a = await fleet.add("a", error=NotReady("the clock is not believed"))
    await fleet.advance(1.0)
    assert a.membership.is_busy
    leaving = asyncio.create_task(a.membership.leave(within_s=60))
    await fleet.advance(1.0)
    await leaving
    await a.running
    b = await fleet.add("b")
    await fleet.advance(1.0)
    assert b.sends == {*range(SHARDS)}


async def test_what_cannot_be_given_in_time_is_taken_at_once_after_the_machine_has_left(fleet):
    a, b = await two(fleet)
    b.driver.give_s = 3_600.0
    began_at, leave, known = fleet.clock.mono(), b.store.leave, []

    async def leave_with_what_is_known():
        known.append(b.driver.drained_at)  # else who takes them sends again what it sent last
        await leave()

    b.store.leave = leave_with_what_is_known
    leaving = asyncio.create_task(b.membership.leave(within_s=2))
    await fleet.advance(2.0)
    assert len(a.sends) == 32
    await fleet.advance(1.0)
    await leaving
    await b.running
    assert a.sends == {*range(SHARDS)}
    assert b.sends == set()
    assert known == [pytest.approx(began_at + 2, abs=0.1)]


async def test_the_last_machine_leaves_and_the_next_one_finds_all_clean(fleet):
    a = await fleet.add("a")
    assert await fleet.until_whole(1) <= 1
    leaving = asyncio.create_task(a.membership.leave())
    await fleet.advance(0.2)
    await leaving
    await fleet.advance(3_600, step_s=60)
    b = await fleet.add("b")
    assert await fleet.until_whole(0.2) <= 0.2
    assert all(taken.was_clean and taken.watermark is not None for taken in b.driver.taken)


async def test_shards_that_arrive_while_the_engine_takes_others_in_are_taken_in_together(fleet):
    a = await fleet.add("a", latency_s=0.01)
    a.driver.take_s = 0.5
    await fleet.advance(6)
    assert a.driver.fires == {*range(SHARDS)}
    assert sum(a.driver.batches) == SHARDS
    assert len(a.driver.batches) <= 9


async def test_large_shards_are_taken_in_one_by_one(fleet, monkeypatch):
    """So that the engine plans what it has already in between."""
    monkeypatch.setattr(membership, "_TOGETHER", -1)  # whatever has any
    a = await fleet.add("a", latency_s=0.01)
    a.driver.take_s = 0.01
    await fleet.advance(4)
    assert a.driver.batches == [1] * SHARDS


async def test_one_that_leaves_while_it_takes_gives_that_too(fleet):
    a = await fleet.add("a", latency_s=0.2)
    a.driver.take_s = 1.0
    await fleet.advance(1.0)
    leaving = asyncio.create_task(a.membership.leave())
    await fleet.advance(8)
    await leaving
    assert fleet.table.owners == {}
    assert a.driver.fires == set()


async def test_what_is_committed_while_a_shard_is_given_says_nothing_of_that_shard(fleet):
    a, b = await two(fleet)
    # Its shards are in line, and all of them settled up to here.
    await b.store.commit([], watermark=fleet.clock.wall())
    mark = fleet.clock.wall()
    b.driver.give_s = 3_600.0
    leaving = asyncio.create_task(b.membership.leave())
    await fleet.advance(1)
    await b.store.commit([], watermark=fleet.clock.wall())
    leaving.cancel()
    await b.end()
    taken = len(a.driver.taken)
    await fleet.advance(9)
    assert {each.watermark for each in a.driver.taken[taken:]} == {mark}


# --- a table that does not answer ---


@pytest.mark.parametrize("cut_s", [1.0, 3.0, 4.0])
async def test_a_table_that_is_away_for_less_than_a_lease_costs_nothing(fleet, cut_s):
    a, b = await two(fleet)
    takes = len(fleet.table.takes)
    for node in (a, b):
        node.store.faults.is_cut = True
    for _ in range(round(cut_s / 0.05)):
        await fleet.advance(0.05)
        assert fleet.counts == [32, 32]
    for node in (a, b):
        node.store.faults.is_cut = False
    await fleet.advance(60)
    assert fleet.counts == [32, 32]
    assert len(fleet.table.takes) == takes
    for node in (a, b):
        assert node.said[-2:] == ["table fails", "table answers"]


async def test_a_table_that_is_away_for_longer_ends_every_machine_when_its_lease_does(fleet):
    a, b = await two(fleet)
    for node in (a, b):
        node.store.faults.is_cut = True
    began_at = fleet.clock.boot()
    while any(fleet.counts):
        await fleet.advance(0.05)
    assert fleet.clock.boot() - began_at <= LEASE_S - 1 + 0.05
    await fleet.advance(0.1)
    for node in (a, b):
        with pytest.raises(LeaseLost, match="does not answer"):
            await node.running
        assert node.said.count("table fails") == 1
    # Each joins anew as soon as it answers: neither waits for what it was itself, and each for the other.
    news = [await fleet.add(node.host, former=[node.store.machine]) for node in (a, b)]
    assert await fleet.until_whole(1.0) <= 1.0
    assert {len(node.driver.fires) for node in news} == {32}


async def test_a_renewal_whose_answer_is_lost_counts_for_the_others_alone(fleet):
    a, _ = await two(fleet)
    until = a.store.trusted_until
    version = fleet.table.machines[a.store.machine].version
    a.store.faults.lost_answers = 100
    await fleet.advance(4)
    assert fleet.table.machines[a.store.machine].version > version
    assert a.store.trusted_until <= until + LEASE_S / 3
    a.store.faults.lost_answers = 0
    await fleet.advance(30)
    assert fleet.counts == [32, 32]


@pytest.mark.parametrize("lost", range(1, 12))
async def test_answers_that_are_lost_while_shards_change_hands_leave_no_shard_behind(fleet, lost):
    a, b = await two(fleet)
    await b.end()
    await fleet.advance(7.5)
    a.store.faults.lost_answers = lost
    await fleet.advance(10)
    if not a.is_running:  # nothing of it came in time: it begins anew
        await fleet.add("a", former=[a.store.machine])
        await fleet.advance(2)
    assert sum(fleet.counts) == SHARDS
    assert fleet.is_whole


async def test_a_take_whose_answer_is_lost_is_taken_up_again(fleet):
    a, b = await two(fleet)
    take, calls = a.store.take, 0

    async def take_unheard(*args):
        nonlocal calls
        calls += 1
        a.store.faults.lost_answers = int(calls <= 5)
        return await take(*args)

    a.store.take = take_unheard
    takes = len(fleet.table.takes)
    await b.end()
    await fleet.advance(LEASE_S + 3)
    assert calls > 32
    assert a.sends == {*range(SHARDS)}
    assert len(fleet.table.takes) == takes + 32


async def test_a_shard_that_the_engine_cannot_take_in_holds_up_no_other(fleet):
    a = await fleet.add("a", latency_s=0.01)
    take_in = a.driver.take_in

    async def but_one(taken):
        if any(each.number == 13 for each in taken):
            raise StoreBusy("it cannot be read")
        await take_in(taken)

    a.driver.take_in = but_one
    await fleet.advance(30)
    assert a.driver.fires == {*range(SHARDS)} - {13}
    a.driver.take_in = take_in
    await fleet.advance(2)
    assert a.driver.fires == {*range(SHARDS)}


@pytest.mark.parametrize("error", [StoreBusy("the disk is full"), NotReady("the clock is not believed")])
async def test_a_shard_that_the_engine_cannot_take_in_is_tried_until_it_can(fleet, error):
    a = await fleet.add("a", error=error)
    await fleet.advance(5)
    assert a.driver.fires == set()
    a.driver.error = None
    assert await fleet.until_whole(0.5) <= 0.5


async def test_what_a_machine_cannot_take_goes_to_others_after_a_while(fleet):
    a = await fleet.add("a")
    assert await fleet.until_whole(1) <= 1

    async def refuse(*_):
        raise StoreBusy("the disk is full")

    b = await fleet.add("b")
    b.store.take = refuse
    await fleet.advance(10)
    assert a.driver.fires == {*range(SHARDS)}
    given = a.said.count("gave")
    assert given <= 2
    await fleet.advance(50, step_s=0.5)
    assert a.said.count("gave") == given
    assert b.said.count("table fails") <= 3
    del b.store.take
    await fleet.advance(80, step_s=0.5)
    assert fleet.counts == [32, 32]
    leaving = asyncio.create_task(a.membership.leave())
    await fleet.advance(1)
    await leaving
    assert fleet.counts == [SHARDS]


# --- fights ---


async def test_two_that_retire_the_same_machine_take_each_shard_once(fleet):
    for _ in range(3):
        await fleet.add(latency_s=0.3)
    await fleet.advance(40)
    gone, *left = fleet.nodes
    await gone.end()
    assert await fleet.until_whole(12.0) <= 12.0
    assert sorted(len(node.sends) for node in left) == [32, 32]
    epochs = Counter()
    for number, epoch, _ in fleet.table.takes:
        assert epoch == epochs[number] + 1
        epochs[number] = epoch


# --- what is asked of it ---


async def test_before_the_shards_are_read_none_is_known_to_be_driven(fleet):
    """Else a start would be over that has not taken anything yet."""
    a = await fleet.add("a", latency_s=0.2)
    while not (state := a.membership.sharing()).machines:
        await fleet.advance(0.05)
    assert not a.membership.is_busy
    assert (state.free, state.driven) == (SHARDS, ())


async def test_it_says_who_drives_a_shard_unless_it_is_about_to_change_hands(fleet):
    a, b = await two(fleet)
    mine, theirs = min(a.owned), min(b.owned)
    assert a.membership.owner_of(mine) == a.store.machine
    assert a.membership.owner_of(theirs) == b.store.machine
    assert b.membership.owner_of(mine) == a.store.machine
    await b.store.commit([], watermark=fleet.clock.wall())
    await fleet.advance(1)
    assert a.membership.watermark_of(theirs) == fleet.clock.wall() - 1_000
    assert not a.membership.is_busy
    a.driver.give_s = 5.0
    leaving = asyncio.create_task(a.membership.leave())
    await fleet.advance(1)
    assert a.membership.is_busy
    assert a.membership.owner_of(mine) is None
    leaving.cancel()
    await b.end()
    await fleet.advance(9)
    assert a.membership.owner_of(theirs) is None


async def test_it_tells_of_machines_shards_leases_and_lag(fleet):
    a, b = await two(fleet)
    await b.store.commit([], watermark=fleet.clock.wall() - 1_500)
    await b.end()
    await fleet.advance(4, step_s=0.5)
    sharing = a.membership.sharing()
    assert [(state.host, state.is_self, len(state.shards)) for state in sharing.machines] == [
        ("a", True, 32),
        ("b", False, 32),
    ]
    ours, theirs = sharing.machines
    assert ours.heartbeat_age_s < 3.3
    assert 3.0 <= theirs.heartbeat_age_s <= 7.0
    assert theirs.lag_ms == 5_500
    assert sharing.free == 0
    assert len(sharing.driven) == 32
    assert 4.0 < sharing.trusted_for_s <= 7.0
    assert sharing.error is None
    a.store.faults.is_cut = True
    await fleet.advance(2)
    assert "does not answer" in a.membership.sharing().error
