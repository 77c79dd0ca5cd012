"""What a store of several machines promises beyond any store's: over real servers, with calls that go wrong."""

from __future__ import annotations

import asyncio
import random
import sqlite3

import pytest

from cronally.domain.crontab import name_hash
from cronally.domain.model import Kind, Pause, SkipReason, State
from cronally.domain.shards import SHARDS, shard_of
from cronally.domain.spec import canonical_document
from cronally.engine.records import GivenUp, Newer, Order, Reopened, StagedRow
from cronally.errors import Conflict, LeaseLost, SchemaMismatch, ShardElsewhere, StoreError
from cronally.store import grown_shards, replica
from cronally.store.dynamodb import DynamodbStore
from cronally.store.shared_items import FORMAT, FORMAT_KEY
from support.faulty_table import FaultyTable, LeapingClock, cut_off, refused, unreachable
from support.stores import FIFO, MINUTE, T, creation, edit, entries, entry, pause_row, pending, spec
from support.table_servers import TableClient, new_table_name


class Cluster:
    """Machines over one table, each with a client of its own."""

    def __init__(self, directory, url):
        self._directory = directory
        self._url = url
        self._table = new_table_name()
        self._clients = []
        self.stores = []

    async def machine(self, *, name=None):
        """Return a store that has joined, with its ``faulty`` client and its ``clock``."""
        client = TableClient(self._url)
        self._clients.append(client)
        directory = self._directory / str(len(self.stores))
        directory.mkdir()
        faulty, clock = FaultyTable(client), LeapingClock()
        store = DynamodbStore(
            name or self._table, faulty, clock, directory=str(directory), host=f"m{len(self.stores)}"
        )
        store.faulty, store.clock = faulty, clock
        if not self.stores:
            await store.table.create()
        self.stores.append(store)
        await store.open()
        return store

    async def close(self):
        for store in self.stores:
            store.faulty.heal()
            await store.close(watermark=None)
        for client in self._clients:
            await client.close()


pytestmark = pytest.mark.long


@pytest.fixture(params=["moto", "dynalite"])
async def cluster(request, tmp_path, table_url):
    cluster = Cluster(tmp_path, table_url(request.param))
    yield cluster
    await cluster.close()


async def take(store, *numbers, owner=None):
    """Take shards, by default all, from *owner*, which is retired, or from nobody."""
    shards = await store.shards()
    wanted = [shards[number] for number in numbers or range(SHARDS)]
    taken = await asyncio.gather(*(store.take(shard, owner) for shard in wanted))
    for shard in wanted:
        await store.recovered(shard.number)
    return dict(zip((shard.number for shard in wanted), taken, strict=True))


async def retired(store, other):
    """Have *store* retire the machine of *other*; return it frozen."""
    [machine] = [machine for machine in await store.machines() if machine.id == other.machine]
    return await store.retire(machine)


async def taken_over(store, other, *numbers):
    """Have *store* take shards of *other*, which is retired first."""
    return await take(store, *numbers, owner=await retired(store, other))


def home(name):
    return name_hash(name) % SHARDS


async def seen(store):
    await store.follow()
    return [s.spec.name for s in await store.everything.schedules()]


TABLES = {
    "schedule": "id",
    "revision": "id",
    "former_name": "name, schedule_id",
    "action": "schedule_id, done_at, action, detail",
    "run": "key",
    "journal": "schedule_id, fire_time, kind",
}


def differing(one, other):
    """Return what only one of two dumps has."""
    return {
        table: (
            [row for row in one[table] if row not in other[table]],
            [row for row in other[table] if row not in one[table]],
        )
        for table in one
        if one[table] != other[table]
    }


def dump(replica):
    """Return all that a replica holds, but for the ids of actions, which are its own."""
    with sqlite3.connect(replica.path) as connection:
        connection.row_factory = sqlite3.Row
        found = {}
        for table, order in TABLES.items():
            rows = [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY {order}")]
            for row in rows:
                if table == "action":
                    del row["id"]
            found[table] = rows
    connection.close()
    return found


# --- fencing ------------------------------------------------------------------------------------------------------


async def test_what_was_done_a_moment_ago_is_read_though_the_machines_were_looked_at_before_it(cluster):
    one, other = await cluster.machine(), await cluster.machine()
    await take(other)
    await one.machines()
    await other.change(creation(spec("new")))
    await one.catch_up()
    assert [s.spec.name for s in await one.everything.schedules()] == ["new"]


async def test_a_retired_machine_commits_no_more_and_nobody_sees_what_it_tries(cluster):
    first, second = await cluster.machine(), await cluster.machine()
    await take(first)
    made = await first.change(creation(spec("a")))
    taken = await taken_over(second, first)
    assert [row.name for row in taken[home("a")].rows] == ["a"]
    with pytest.raises(LeaseLost):
        await first.commit([entry(made)], watermark=T + MINUTE)
    for tried in (first.change(creation(spec("b"))), first.renew(), first.mark_unclean()):
        with pytest.raises(LeaseLost):
            await tried
    assert first.trusted_until <= first.clock.boot()
    assert await seen(second) == ["a"]
    assert await entries(second) == await entries(second.everything) == []
    assert (await second.shards())[0].owner == second.machine


async def test_a_table_that_a_newer_version_has_written_is_refused_with_both_versions(cluster):
    first = await cluster.machine()
    assert await first.table.get(FORMAT_KEY) == {"pk": "format", "sk": "format", "version": FORMAT}
    await first.table.put({"pk": "format", "sk": "format", "version": FORMAT + 1})
    with pytest.raises(SchemaMismatch, match=rf"schema version {FORMAT + 1} .* up to {FORMAT};"):
        await cluster.machine()
    assert [each.id for each in await first.machines()] == [first.machine]


async def test_it_is_counted_what_is_refused_and_measured_how_old_what_others_did_is(cluster):
    first, second = await cluster.machine(), await cluster.machine()
    shards = await first.shards()
    both = (first.take(shards[3], None), second.take(shards[3], None))
    assert sorted(taken is None for taken in await asyncio.gather(*both)) == [False, True]
    counts = [store._counts.refused for store in (first, second)]
    assert sorted(count["shard"] for count in counts) == [0, 1]
    assert all(store._counts.renewed for store in (first, second))
    while await retired(second, first) is None:  # it is about to say that it has taken the shard
        pass
    with pytest.raises(LeaseLost):
        await first.begin_leave()
    assert (first._counts.refused["heartbeat"], first._counts.failed) == (1, 0)
    await second.follow()
    second.clock.leapt_s += 5
    second.faulty.cut()
    with pytest.raises(StoreError):
        await second.follow()
    assert second.following_age_s >= 5
    second.faulty.heal()
    await second.follow()
    assert second.following_age_s < 5


async def test_a_machine_that_is_not_silent_cannot_be_retired(cluster):
    first, second = await cluster.machine(), await cluster.machine()
    [before] = [machine for machine in await second.machines() if machine.id == first.machine]
    first.clock.leapt_s += 3
    await first.renew()
    assert await second.retire(before) is None
    await take(first, 1)
    assert (await second.shards())[1].owner == first.machine


async def test_a_shard_is_taken_once(cluster):
    first, second = await cluster.machine(), await cluster.machine()
    shards = await first.shards()
    assert [(s.owner, s.epoch, s.watermark, s.was_clean) for s in shards] == [(None, 0, None, True)] * SHARDS
    both = await asyncio.gather(first.take(shards[5], None), second.take(shards[5], None))
    assert sorted(one is None for one in both) == [False, True]
    [shard] = [shard for shard in await first.shards() if shard.owner is not None]
    assert (shard.number, shard.epoch) == (5, 1)
    loser = first if both[0] is None else second
    with pytest.raises(ShardElsewhere):
        await loser.commit([], watermark=None, errors=[(64 + 5, "x")])
    [machine] = [machine for machine in await first.machines() if machine.id == loser.machine]
    assert machine.behind == {}


async def test_the_watermark_is_handed_over_with_a_chain_of_crashes_that_commit_nothing(cluster):
    one, two, three = [await cluster.machine() for _ in range(3)]
    await take(one)
    await one.commit([], watermark=T)
    shards = await two.shards()
    await two.commit([], watermark=T + MINUTE)  # of no shard at all
    frozen = await retired(two, one)
    await two.take(shards[7], frozen)  # and never recovered
    await two.commit([], watermark=T + 2 * MINUTE)
    taken = await taken_over(three, two, 7)
    assert (taken[7].watermark, taken[7].was_clean) == (T, False)
    await three.commit([], watermark=T + 3 * MINUTE)
    four = await cluster.machine()
    assert (await taken_over(four, three, 7))[7].watermark == T + 3 * MINUTE


async def test_a_shard_that_is_given_goes_with_its_watermark_and_is_clean(cluster):
    first, second = await cluster.machine(), await cluster.machine()
    await take(first)
    made = await first.change(creation(spec("a")))
    await first.commit([pending(made)], watermark=T)
    shard = (await first.shards())[home("a")]
    before = [machine.hand_overs for machine in await second.machines() if machine.id == first.machine]
    assert await first.give(shard, GivenUp(T + MINUTE, was_clean=True))
    assert not await first.give(shard, GivenUp(T + MINUTE, was_clean=True))
    after = [machine.hand_overs for machine in await second.machines() if machine.id == first.machine]
    assert after[0] == before[0] + 1
    assert await first.schedules() == []
    assert await seen(first) == ["a"]
    taken = (await take(second, home("a")))[home("a")]
    assert (taken.watermark, taken.was_clean, [row.name for row in taken.rows]) == (T + MINUTE, True, ["a"])
    assert await entries(second) == [pending(made)]
    changed = await second.change(edit(made, new_spec=spec("a", note="x")))
    assert await seen(first) == ["a"]
    assert (await first.everything.schedule("a")).revision_id == changed.revision_id


async def test_a_doubt_goes_with_a_shard_that_is_given_until_a_machine_gives_it_without(cluster):
    first, second = await cluster.machine(), await cluster.machine()
    await take(first)
    await first.set_back(at=T, watermark=T, reached=T + MINUTE)
    await first.end_set_back()
    assert await first.give((await first.shards())[7], GivenUp(T, was_clean=False))
    taken = (await take(second, 7))[7]
    assert (taken.watermark, taken.was_clean, taken.reached) == (T, False, T + MINUTE)
    assert await second.give((await second.shards())[7], GivenUp(T + 2 * MINUTE, was_clean=True))
    assert (await take(first, 7))[7].was_clean


async def test_the_watermark_of_a_shard_stays_where_it_was_from_when_the_engine_is_about_to_let_go_of_it(
    cluster,
):
    first, second = await cluster.machine(), await cluster.machine()
    await take(first)
    await first.commit([], watermark=T)
    await first.recovered(7)  # said with the next commit, which comes too late
    going = asyncio.create_task(first.begin_give(7))
    await first.commit([], watermark=T + MINUTE)
    await going
    await first.commit([], watermark=T + 2 * MINUTE)
    [machine] = [each for each in await second.machines() if each.id == first.machine]
    assert machine.watermark_of(7) in (T, T + MINUTE)
    assert machine.watermark_of(8) == T + 2 * MINUTE
    taken = await taken_over(second, first, 7)
    assert taken[7].watermark == machine.watermark_of(7)


async def test_shards_that_are_given_together_are_written_at_the_same_time_and_told_once(cluster):
    """While one waits nobody fires what it has."""
    store = await cluster.machine()
    await take(store)
    await store.commit([], watermark=T)  # and what taking them has to say
    shards = (await store.shards())[:20]
    store.faulty.calls.clear()
    all_are_asked = asyncio.Event()

    async def wait(_name, parameters):
        if parameters.get("Item", {}).get("pk") == {"S": "shard"}:
            if store.faulty.calls["put_item"] == len(shards):
                all_are_asked.set()
            await all_are_asked.wait()

    store.faulty.before = wait
    assert all(await asyncio.gather(*(store.give(shard, GivenUp(T, was_clean=True)) for shard in shards)))
    assert store.faulty.calls["put_item"] == len(shards) + 1
    [machine] = await store.machines()
    assert machine.hand_overs == SHARDS + len(shards)


async def test_a_clean_stop_gives_all_and_leaves(cluster):
    first, second = await cluster.machine(), await cluster.machine()
    await take(first)
    await first.close(watermark=T)
    [machine] = [machine for machine in await second.machines() if machine.id == first.machine]
    assert (machine.is_retired, machine.has_left) == (True, True)
    assert {(s.owner, s.watermark, s.was_clean) for s in await second.shards()} == {(None, T, True)}


# --- answers that are lost, tables that do not answer ---------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "fault", [unreachable, cut_off, lambda: refused("ThrottlingException"), lambda: refused("500")]
)
async def test_every_call_may_fail_once_or_lose_its_answer(cluster, moment, fault):
    """Each call of a story, one after another: what is committed is there once, and nothing else."""
    store = await cluster.machine()
    other = await cluster.machine()
    failed = set()

    def fail_first(name, parameters):
        key = (name, repr(parameters.get("Item", parameters.get("Key"))))
        if name != "query" and key not in failed:
            failed.add(key)
            raise fault()

    setattr(store.faulty, moment, fail_first)
    await take(store, home("a"), home("b"))
    made = await store.change(creation(spec("a")))
    await store.change(creation(spec("b")))
    await store.commit([entry(made)], watermark=T)
    store.clock.leapt_s += 3
    await store.renew()
    with pytest.raises(Conflict):
        await store.change(creation(spec("a")))
    assert await store.give((await store.shards())[home("b")], GivenUp(T + 1, was_clean=True))
    assert len(failed) > 15
    assert await seen(other) == ["a", "b"]
    assert await entries(other.everything) == [entry(made)]
    [machine] = [machine for machine in await other.machines() if machine.id == store.machine]
    assert (machine.watermark, machine.is_retired) == (T, False)
    assert (await other.shards())[home("b")].watermark == T + 1


async def test_a_table_that_does_not_answer_ends_the_lease_and_not_before(cluster):
    store, other = await cluster.machine(), await cluster.machine()
    await take(store)
    made = await store.change(creation(spec("a")))
    store.faulty.cut()
    committing = asyncio.create_task(store.commit([entry(made)], watermark=T))
    while store.faulty.calls["put_item"] < 100:  # it tries again and again
        store.faulty.calls["put_item"] += 20
        await asyncio.wait([committing], timeout=0.02)
    assert not committing.done()
    store.clock.leapt_s = store.trusted_until - store.clock.boot() - 0.5
    await asyncio.wait([committing], timeout=0.1)
    assert not committing.done()
    store.clock.leapt_s += 7.5
    with pytest.raises(LeaseLost, match="whole lease"):
        await committing
    store.faulty.heal()
    with pytest.raises(LeaseLost):
        await store.renew()
    assert await seen(other) == ["a"]
    assert await entries(other.everything) == []
    await store.close(watermark=None)
    await store.open()
    assert await seen(store) == ["a"]


async def test_a_table_that_answers_again_in_time_has_what_waited(cluster):
    store, other = await cluster.machine(), await cluster.machine()
    await take(store)
    made = await store.change(creation(spec("a")))
    store.faulty.cut()
    tries = [
        asyncio.create_task(store.commit([entry(made, T + number)], watermark=T + number))
        for number in range(5)
    ]
    await asyncio.wait(tries, timeout=0.2)
    store.faulty.heal()
    await asyncio.gather(*tries)
    await other.follow()
    assert await entries(other.everything) == [entry(made, T + number) for number in range(4, -1, -1)]


async def test_writes_that_wait_go_together(cluster):
    store = await cluster.machine()
    await take(store)
    made = [await store.change(creation(spec(f"s{number}"))) for number in range(3)]
    store.faulty.calls.clear()
    opened = asyncio.Event()

    async def wait(_name, _parameters):
        await opened.wait()

    store.faulty.before = wait
    writes = [
        asyncio.create_task(store.commit([entry(one, T + n)], watermark=T + n))
        for one in made
        for n in range(20)
    ]
    while len(await entries(store)) < 60:
        pass
    opened.set()
    await asyncio.gather(*writes)
    assert (
        store.faulty.calls["put_item"] == 4
    )  # the first alone, then all others: of each a log item and a heartbeat


async def test_whoever_waits_may_go_and_the_write_goes_on(cluster):
    store, other = await cluster.machine(), await cluster.machine()
    await take(store)
    made = await store.change(creation(spec("a")))
    writing = asyncio.create_task(store.commit([entry(made)], watermark=T))
    await asyncio.wait([writing], timeout=0)
    writing.cancel()
    await store.commit([], watermark=T + 1)
    await other.follow()
    assert await entries(store) == await entries(other.everything) == [entry(made)]


# --- what is wrong with the table, in words --------------------------------------------------------------------------


async def test_a_table_that_is_not_there_says_how_to_create_it(cluster):
    await cluster.machine()
    with pytest.raises(StoreError, match="cronally store create dynamodb:other"):
        await cluster.machine(name="other")
    cluster.stores.pop()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (refused("AccessDeniedException", "no"), "does not allow dynamodb:PutItem.*'cronally doctor'"),
        (refused("ExpiredTokenException"), "aws sts get-caller-identity"),
        (refused("ValidationException", "bad"), "refuses PutItem: ValidationException: bad"),
    ],
)
async def test_a_refusal_says_what_to_do(cluster, fault, says):
    store = await cluster.machine()

    def refuse(_name, _parameters):
        raise fault

    store.faulty.before = refuse
    with pytest.raises(StoreError, match=says):
        await store.table.put({"pk": "x", "sk": "y"})


# --- sizes ------------------------------------------------------------------------------------------------------------


def noise(size, seed=1):
    return random.Random(seed).randbytes(size // 2).hex()


async def test_commits_and_snapshots_of_many_items_are_read_whole(cluster, monkeypatch):
    monkeypatch.setattr(grown_shards, "_GROWN_BYTES", 1)
    store, other = await cluster.machine(), await cluster.machine()
    await take(store)
    names = [f"s{number}" for number in range(12)]
    await store.stage_begin()
    await store.stage(
        [
            StagedRow(name, canonical_document(spec(name, message=noise(200_000, name), note="x")))
            for name in names
        ]
    )
    await store.flip(at=T, by="uid 1", owner="ops", unsettled=[])
    await store._grown_shards.written()
    assert await seen(other) == sorted(names)
    assert dump(store._own) == dump(other._everything)
    third = await cluster.machine()  # from the snapshots
    assert dump(third._everything) == dump(store._own)
    [one] = [shard for shard in await store._shard_table.all() if shard.number == home("s0")]
    assert one.snapshot is not None


# --- following and taking over ----------------------------------------------------------------------------------------


async def test_each_shard_has_its_snapshot_written_once(cluster, monkeypatch):
    monkeypatch.setattr(grown_shards, "_GROWN_BYTES", 1)
    store = await cluster.machine()
    await take(store)
    await store.commit([], watermark=T)
    await store._grown_shards.written()
    written = []

    def note(_name, parameters):
        if parameters.get("Item", {}).get("pk", {}).get("S", "").startswith("snapshot/"):
            written.append(parameters["Item"]["pk"]["S"])

    store.faulty.after = note
    names = [f"s{number}" for number in range(30)]
    await store.stage_begin()
    await store.stage([StagedRow(name, canonical_document(spec(name))) for name in names])
    await store.flip(at=T, by="uid 1", owner="ops", unsettled=[])
    await store._grown_shards.written()
    assert sorted(written) == sorted({f"snapshot/{home(name):02d}" for name in names})


async def test_two_machines_follow_each_other(cluster):
    first, second = await cluster.machine(), await cluster.machine()
    names = [f"s{number}" for number in range(20)]
    await take(first, *(home(name) for name in {*names[:10]}))
    rest = {home(name) for name in names} - {home(name) for name in names[:10]}
    await take(second, *rest)
    for name in names:
        owner = second if home(name) in rest else first
        made = await owner.change(creation(spec(name)))
        await owner.commit([entry(made)], watermark=T)
    for store in (first, second):
        assert await seen(store) == sorted(names)
        assert len(await entries(store.everything)) == 20
    assert len(await first.schedules()) + len(await second.schedules()) == 20
    elsewhere = next(f"t{number}" for number in range(1000) if home(f"t{number}") in rest)
    with pytest.raises(ShardElsewhere):
        await first.change(creation(spec(elsewhere)))


async def test_what_another_machine_has_settled_is_told_whatever_has_settled_it(cluster):
    store, other = await cluster.machine(), await cluster.machine()
    await take(store)
    told = []
    await other.close(watermark=None)
    other.on_entries = told.extend
    await other.open()
    job, rested = [await store.change(creation(spec(name))) for name in ("job", "rested")]
    paused = Pause(since=T, until=None, note=None, by="uid 0")
    await store.change(edit(rested, pause=paused, opened=(pause_row(rested, T + 1, T + 1, 0, is_open=True),)))
    await store.change(edit(rested, closed=(pause_row(rested, T + 1, T + 9, 3),)))
    await store.commit([pending(job, T), pending(job, T + 1), entry(job, T + 2)], watermark=None)
    await store.commit([pending(job, T + 3)], watermark=None, newer=[Newer(job.id, T + 1, T + 1)])
    await store.change(edit(job, drop_pending=True, kept=frozenset({(T + 3, Kind.SCHEDULED)})))
    await other.follow()
    assert [(row.fire_time - T, row.reason, row.count) for row in told if row.state is not State.PENDING] == [
        (1, SkipReason.PAUSED, 3),
        (2, None, 1),
        (0, SkipReason.SUPERSEDED, 1),
        (1, SkipReason.DROPPED, 1),
    ]


async def test_a_shards_log_is_followed_in_the_order_of_its_owners(cluster):
    """The heartbeat of the second owner may be seen before that of the first."""
    one, two, onlooker = [await cluster.machine() for _ in range(3)]
    await take(one, home("a"))
    made = await one.change(creation(spec("a")))
    await taken_over(two, one, home("a"))
    await two.change(edit(made, new_spec=spec("a", note="x")))
    [machine] = [machine for machine in await onlooker.machines() if machine.id == two.machine]
    await onlooker._follower.follow([machine])
    assert (await onlooker.everything.schedule("a")).spec.note == "x"


async def story(store, seed, *, steps):
    """Do *steps* random writes, of every kind."""
    drawn = random.Random(seed)
    made, keys = {}, []
    for step in range(steps):
        at = T + step * 1000
        name = f"s{drawn.randrange(30)}"
        revised = made.get(name)
        kind = drawn.randrange(12)
        if revised is None:
            topic = {"topic": FIFO} if drawn.random() < 0.2 else {}
            made[name] = await store.change(creation(spec(name, note=str(step), **topic), at=at))
            continue
        if kind == 0:
            await store.change(edit(revised, at=at, action="rm", is_removal=True, drop_pending=True))
            del made[name]
        elif kind == 1:
            stored = await store.schedule(name)
            made[name] = await store.change(
                edit(
                    revised,
                    at=at,
                    new_spec=stored.spec._replace(note=str(step)),
                    unsettled=(pending(revised, at),),
                )
            )
        elif kind == 2:
            opened = pause_row(revised, at, at, 0, is_open=True)
            await store.change(edit(revised, at=at, action="pause", pause=Pause(since=at), opened=(opened,)))
            await store.change(
                edit(
                    revised,
                    at=at + 1,
                    action="resume",
                    closed=(pause_row(revised, at, at + 5, drawn.randrange(3)),),
                )
            )
        elif kind == 3:
            new = [f"n{step}-{n}" for n in range(3)]
            await store.stage_begin()
            await store.stage([StagedRow(one, canonical_document(spec(one))) for one in new])
            rows = await store.flip(
                at=at, by="uid 7", owner=f"o{step % 3}", unsettled=[], removed=[revised.id]
            )
            assert len(rows) == 3
            del made[name]
        elif kind == 4:
            fire = pending(revised, at, kind=Kind.MANUAL)
            await store.add_manual(fire, by="x", fire_id=f"f{step}", idempotency_key=f"k{step}")
        elif kind == 5:
            await store.mark_unclean()
        elif kind == 6:
            await store.own([name], owner=f"o{step}", at=at, by="uid 1")
        else:
            some = [
                drawn.choice(
                    [
                        entry(
                            revised, at + n, released_at=at + n + 1, published_at=at + 9, lateness_us=1234 + n
                        ),
                        pending(revised, at + n, last_error="Throttling", released_at=at),
                        entry(revised, at + n, State.SKIPPED, reason=SkipReason.CATCH_UP, attempts=0),
                        entry(revised, at + n, State.EXPIRED, attempts=1, last_error="no"),
                    ]
                )
                for n in range(drawn.randrange(1, 40))
            ]
            keys += [one.key for one in some if one.state is State.PENDING]
            drawn.shuffle(keys)
            newer = [Newer(revised.id, at, at)] if drawn.random() < 0.3 else []
            await store.commit(
                some,
                watermark=at - 500,
                errors=[(revised.id, drawn.choice([None, "NotFound"]))],
                newer=newer,
                kept=keys[:3],
            )
            late = [
                (await store.rows([key]))[0].entry._replace(
                    state=State.EXPIRED, next_attempt_at=None, is_in_line=False
                )
                for key in keys[:2]
                if (await store.rows([key]))[0].entry.state is State.PENDING
            ]
            await store.commit(late, watermark=None)


@pytest.mark.parametrize("grown_bytes", [64 << 10, 300])
@pytest.mark.parametrize("seed", [1, 2])
async def test_who_takes_over_has_exactly_what_was_committed(cluster, monkeypatch, seed, grown_bytes):
    """From the log alone, and from snapshots with the log since and the history before."""
    monkeypatch.setattr(grown_shards, "_GROWN_BYTES", grown_bytes)
    first, follower = await cluster.machine(), await cluster.machine()
    await take(first)
    await story(first, seed, steps=80)
    await follower.follow()
    await first._grown_shards.written()
    before = dump(first._own)
    assert differing(dump(first._everything), before) == {}
    assert differing(dump(follower._everything), before) == {}
    second = await cluster.machine()
    await second.read_history()
    assert differing(dump(second._everything), before) == {}
    if grown_bytes < 10_000:
        assert any(item.snapshot for item in await second._shard_table.all())
    await taken_over(second, first)
    await second.read_history()
    for row in before["journal"]:
        row["maybe_published"] |= row["state"] == "pending"
    assert differing(dump(second._own), before) == {}
    await second.commit([], watermark=None)
    assert differing(dump(second._everything), before) == {}
    await follower.follow()
    assert differing(dump(follower._everything), before) == {}


async def test_the_history_of_a_shard_is_told_in_the_order_of_its_owners_whichever_machine_is_older(cluster):
    """The younger machine had the shard first; what it left pending the older one sent."""
    older, younger = await cluster.machine(), await cluster.machine()
    number = home("a")
    await take(younger, number)
    made = await younger.change(creation(spec("a")))
    await younger.commit([pending(made)], watermark=T)
    await take(older, number, owner=await retired(older, younger))
    await older.commit([entry(made)], watermark=T + MINUTE)
    await older._grown_shards.write(number)  # of the journal it has nothing: that is read from the older log
    await older.commit([], watermark=T + MINUTE)
    third = await cluster.machine()
    await third.read_history()
    assert dump(third._everything)["journal"] == dump(older._everything)["journal"]


@pytest.mark.parametrize(("is_older_first", "behind_ms"), [(False, 0), (True, 0), (False, 3_600_000)])
async def test_what_was_retried_on_another_machine_is_told_as_it_ended_there(
    cluster, monkeypatch, is_older_first, behind_ms
):
    """behind_ms: how far the clock of the machine on which it was retried is behind."""
    before, after = await cluster.machine(), await cluster.machine()
    if not is_older_first:
        before, after = after, before
    wall = after.clock.wall
    monkeypatch.setattr(after.clock, "wall", lambda: wall() - behind_ms)
    number = home("a")
    await take(before, number)
    made = await before.change(creation(spec("a")))
    skipped = entry(made, T, State.SKIPPED, reason=SkipReason.CATCH_UP, attempts=0)
    await before.commit(
        [skipped, pending(made, T + MINUTE, attempts=1, last_error="Throttling")], watermark=T
    )
    await take(after, number, owner=await retired(after, before))
    await after.mark_unclean(number)
    again = pending(made, T, attempts=0, asked_at=T + 5, is_in_line=True)
    order = Order(made.id, made.revision_id, 1, "a@first", "a@last")
    await after.retry([Reopened(skipped, (again,))], at=T + 5, by="uid 1", orders=[order])
    await after.commit([entry(made, T, asked_at=T + 5)], watermark=T + MINUTE)
    await after.commit(  # which makes the pending one needless
        [entry(made, T + 2 * MINUTE)],
        watermark=T + 2 * MINUTE,
        newer=[Newer(made.id, T + 2 * MINUTE, T + 2 * MINUTE)],
    )
    await after._grown_shards.write(number)
    await after.commit([], watermark=T + 2 * MINUTE)
    third = await cluster.machine()
    await third.read_history()
    told = dump(third._everything)["journal"]
    assert told == dump(after._everything)["journal"]
    assert [(row["state"], row["reason"], row["maybe_published"], row["last_error"]) for row in told] == [
        ("published", None, 0, None),
        ("skipped", "superseded", 1, "Throttling"),
        ("published", None, 0, None),
    ]


async def test_old_rows_of_a_shard_are_found_before_they_are_with_those_that_its_machine_drives(
    cluster, monkeypatch
):
    first, second = await cluster.machine(), await cluster.machine()
    number = home("a")
    await take(first, number)
    made = await first.change(creation(spec("a")))
    hour = 3_600_000
    skipped = entry(
        made,
        T,
        State.SKIPPED,
        reason=SkipReason.CATCH_UP,
        attempts=0,
        last_fire_time=T + 9 * MINUTE,
        count=10,
    )
    await first.commit([skipped, entry(made, T + 20 * MINUTE)], watermark=T + 3 * hour)
    monkeypatch.setattr(replica, "_LARGE_ROWS", 1)
    monkeypatch.setattr(second._older_rows, "_fill", lambda: asyncio.sleep(0))
    await take(second, number, owner=await retired(second, first))
    assert await second._own.covering(made.id, T + 3 * MINUTE) == []
    [row] = await second.covering(made.id, T + 3 * MINUTE)
    assert (row.entry.fire_time, row.entry.count) == (T, 10)
    again = pending(made, T, attempts=0, asked_at=T + 5, is_in_line=True)
    rest = skipped._replace(fire_time=T + MINUTE, due_time=T + MINUTE, count=9)
    order = Order(made.id, made.revision_id, 1, "a@first", "a@last")
    await second.retry([Reopened(skipped, (again, rest))], at=T + 5, by="uid 1", orders=[order])
    [row] = await second.covering(made.id, T + 3 * MINUTE)
    assert (row.entry.fire_time, row.entry.count) == (T + MINUTE, 9)


async def test_the_pending_fires_that_a_change_drops_are_told_on_whichever_machine(cluster):
    first = await cluster.machine()
    number = home("a")
    await take(first, number)
    made = await first.change(creation(spec("a")))
    told = []
    second = await cluster.machine()
    second._follower.on_entries = told.extend
    rows = [pending(made, T + n * MINUTE, last_error="no answer") for n in range(3)]
    await first.commit(rows, watermark=T + 3 * MINUTE)
    gone = []
    await first.change(edit(made, is_removal=True, drop_pending=True, action="rm"), gone=gone)
    await second.catch_up()
    assert [row.reason for row in gone] == [SkipReason.DROPPED] * 3
    assert [row for row in told if row.state is State.SKIPPED] == gone
    await first._grown_shards.write(number)
    await first.commit([], watermark=T + 3 * MINUTE)
    third = await cluster.machine()
    await third.read_history()
    assert dump(third._everything)["journal"] == dump(first._everything)["journal"]


# --- names ------------------------------------------------------------------------------------------------------------


async def test_a_name_is_given_once_whoever_gives_it(cluster):
    """Two machines rename schedules of theirs to the same name at once."""
    first, second = await cluster.machine(), await cluster.machine()
    await take(first, home("a"))
    await take(second, home("c"))
    assert home("a") != home("c")
    a, b = await first.change(creation(spec("a"))), await second.change(creation(spec("c")))
    for round_ in range(4):
        wanted = f"wanted-{round_}"
        results = await asyncio.gather(
            first.change(edit(a, new_spec=spec(wanted))),
            second.change(edit(b, new_spec=spec(wanted))),
            return_exceptions=True,
        )
        assert sorted(isinstance(result, Conflict) for result in results) == [False, True]
        a, b = (
            new if not isinstance(new, Conflict) else old for new, old in zip(results, (a, b), strict=True)
        )
    names = await seen(first)
    assert len(set(names)) == len(names) == 2


async def test_the_lock_of_a_retired_machine_is_broken(cluster):
    first, second = await cluster.machine(), await cluster.machine()
    await take(first)
    held = asyncio.Event()

    async def hold(name, parameters):
        if name == "put_item" and parameters["Item"]["pk"]["S"].startswith("log/"):
            held.set()
            await asyncio.Event().wait()

    first.faulty.before = hold
    making = asyncio.create_task(first.change(creation(spec("a"))))
    await held.wait()
    await taken_over(second, first)
    await second.change(creation(spec("a")))
    first.faulty.heal()
    with pytest.raises(LeaseLost):
        await making
    assert await seen(second) == ["a"]
    assert shard_of(spec("a")) == home("a")


async def test_a_name_waits_for_whoever_gives_it_elsewhere(cluster):
    first, second = await cluster.machine(), await cluster.machine()
    await take(first, home("a"))
    await take(second, home("c"))
    other = await second.change(creation(spec("c")))
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold(name, parameters):
        if name == "put_item" and parameters["Item"]["pk"]["S"].startswith("log/"):
            held.set()
            await go_on.wait()

    first.faulty.before = hold
    making = asyncio.create_task(first.change(creation(spec("a"))))
    await held.wait()
    renaming = asyncio.create_task(second.change(edit(other, new_spec=spec("a"))))
    second.faulty.calls.clear()
    while second.faulty.calls["put_item"] < 3:  # it tries to get the lock
        await asyncio.wait([renaming], timeout=0.01)
    go_on.set()
    await making
    with pytest.raises(Conflict):
        await renaming


# --- what it costs ----------------------------------------------------------------------------------------------------

WRITE_USD = 0.625e-6  # of a unit: 1 KB; on demand, us-east-1
READ_USD = 0.125e-6  # of a unit: 4 KB, consistent, or two of them eventually consistent
MONTH_S = 30.4 * 86_400


@pytest.fixture
async def counting_cluster(tmp_path, table_url):
    """On the server that counts units as AWS does: moto says one for each call."""
    cluster = Cluster(tmp_path, table_url("dynalite"))
    yield cluster
    await cluster.close()


async def test_an_idle_machine_costs_less_than_two_dollars_a_month(counting_cluster):
    others = [await counting_cluster.machine() for _ in range(4)]  # whose heartbeats it reads, too
    store = await counting_cluster.machine()
    await take(store)
    for each in others:
        await each.renew()
    await store.commit([], watermark=T)
    await store.read_history()
    units = store.table.units
    units.write = units.read = 0
    for _ in range(120):  # a minute, in steps of half a second
        store.clock.leapt_s += 0.5
        await store.renew()
        await store.machines()
        await store.follow()
    assert 20 <= units.write <= 23
    assert units.read == 60
    assert (units.write * WRITE_USD + units.read * READ_USD) * MONTH_S / 60 < 2


async def test_a_hundred_million_fires_a_month_cost_less_than_ten_dollars_of_writes(counting_cluster):
    """Ten thousand of them, with as many in a commit as there are in its interval at that rate."""
    store = await counting_cluster.machine()
    await take(store)
    made = [await store.change(creation(spec(f"s{number}"))) for number in range(200)]
    drawn = random.Random(1)
    in_commit = round(100e6 / MONTH_S * store.commit_interval_s)
    units = store.table.units
    units.write = units.read = fires = 0
    while fires < 10_000:
        at = T + round(fires / 100e6 * MONTH_S * 1000)
        rows = []
        for _ in range(in_commit):
            due = at + 1000 * drawn.randrange(3)
            late_us = round(drawn.expovariate(1 / 800))
            released = due + late_us // 1000
            published = released + 15 + round(drawn.expovariate(1 / 8))
            rows.append(
                entry(
                    drawn.choice(made), due, released_at=released, published_at=published, lateness_us=late_us
                )
            )
        await store.commit(rows, watermark=at)
        fires += in_commit
    await store._grown_shards.written()
    assert units.write * 100e6 / fires * WRITE_USD < 10
