"""Records of the log of a shared store."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from cronally.domain.model import JournalEntry, State
from cronally.engine.records import JournalFilter, Revised
from cronally.errors import StoreError
from cronally.store.shared_log import Committed, Doubted, Logged, Remembered, decode, encode, together
from cronally.store.sqlite import SqliteStore
from support.stores import MINUTE, T, creation, entry, spec

MANY = [Logged(number % 64, Remembered(f"key-{number}", "answer" * 5_000, number)) for number in range(400)]


def test_a_record_of_any_size_is_what_it_was():
    for count in (1, 2, 400):
        assert list(decode(encode(MANY[:count]).parts)) == MANY[:count]
    assert list(decode(encode(MANY).parts, shards=frozenset({7}))) == [
        each for each in MANY if each.shard == 7
    ]


def test_a_record_is_read_deed_by_deed():
    """So that whoever reads a large one has the event loop take its turns in between."""
    whole = b"".join(encode(MANY).parts)
    assert list(islice(decode([whole[: len(whole) // 2]]), 100)) == MANY[:100]


@pytest.mark.parametrize("lost", [1, 4, 100])
def test_a_record_that_is_cut_off_is_refused(lost):
    whole = b"".join(encode(MANY).parts)
    with pytest.raises(StoreError, match="cut off"):
        list(decode([whole[:-lost]]))


def test_a_record_of_a_newer_version_is_refused():
    whole = b"".join(encode(MANY[:1]).parts)
    with pytest.raises(StoreError, match="newer cronally"):
        list(decode([b"\x02" + whole[1:]]))


# --- together -------------------------------------------------------------------------------------------------------


async def stored(path, deeds, ids):
    """Return what a store has after *deeds*, and in how many writes it got it."""
    store = SqliteStore(str(path))
    await store.open()
    for name in ids:
        await store.change(creation(spec(name)))
    writes = 0
    for _, deed in deeds:
        await store.commit(deed.entries, watermark=None, errors=deed.errors)
        writes += 1
    rows = await store.history(JournalFilter(limit=10_000))
    errors = {each.spec.name: each.error for each in await store.schedules()}
    await store.close(watermark=None)
    return rows, errors, writes


@pytest.mark.parametrize("seed", range(5))
async def test_commits_that_are_repeated_together_leave_what_they_leave_one_by_one(seed, tmp_path):
    rng = random.Random(seed)
    ids = {f"job-{number}": Revised(number, 1, number, 0) for number in range(1, 5)}
    deeds = []
    for _ in range(120):
        whose = rng.choice([*ids.values()])
        slot = T + rng.randrange(8) * MINUTE
        rows = []
        for state in rng.choices([State.PENDING, State.PUBLISHED, State.EXPIRED, State.REJECTED], k=2):
            at = slot if state is State.PENDING else None
            rows.append(entry(whose, slot, state, attempts=rng.randrange(3), next_attempt_at=at))
        errors = [(whose.id, rng.choice([None, "no such topic"]))] if rng.random() < 0.3 else []
        deeds.append(Logged(whose.id, Committed(rows, errors)))
    *singly, writes = await stored(tmp_path / "singly.db", deeds, ids)
    *at_once, fewer = await stored(tmp_path / "together.db", together(deeds), ids)
    assert at_once == singly
    assert fewer < writes / 3


def test_what_goes_together_stays_in_order_and_in_bounds():
    rows = [JournalEntry(1, T + number, 1, T + number, State.EXPIRED) for number in range(7_000)]
    deeds = [Logged(1, Committed([row])) for row in rows]
    deeds.insert(100, Logged(2, Doubted()))
    found = list(together(deeds))
    assert [len(each.deed.entries) if isinstance(each.deed, Committed) else 0 for each in found] == [
        100,
        0,
        5_000,
        1_900,
    ]
    commits = [each.deed for each in found if isinstance(each.deed, Committed)]
    assert [row for deed in commits for row in deed.entries] == rows
