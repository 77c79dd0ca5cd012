"""How a machine repeats what others have committed."""

from __future__ import annotations

import asyncio

import pytest

from cronally.errors import StoreBusy
from cronally.store.committing import log_items
from cronally.store.following import Follower
from cronally.store.shared_log import Logged, Remembered, encode
from support.fake_clock import FakeClock

DEEDS = [Remembered(f"key-{number}", "answer", number) for number in range(5)]


class Table:
    """The log of machine ``other``: one commit of all deeds."""

    async def query(self, _pk, *, first, last, is_reversed, at_once):
        yield log_items("other", 1, encode([Logged(1, deed) for deed in DEEDS]), stamp=1, expires=0)


class Everything:
    """Attributes: repeated: deeds, in order. fails: at how many it fails once. gate: awaited before each deed."""

    def __init__(self):
        self.repeated = []
        self.fails = None
        self.gate = asyncio.Event()
        self.waiting = asyncio.Event()

    async def repeat(self, _shard, deed):
        self.waiting.set()
        await self.gate.wait()
        if len(self.repeated) == self.fails:
            self.fails = None
            raise StoreBusy("the disk is slow")
        self.repeated.append(deed)


@pytest.fixture
def everything():
    return Everything()


@pytest.fixture
def follower(everything):
    return Follower(Table(), everything, None, FakeClock(), machine="me")


async def test_whoever_goes_away_in_the_middle_of_a_commit_leaves_no_deed_done_twice(follower, everything):
    reading = asyncio.create_task(follower.reach("other", 1))
    await everything.waiting.wait()
    reading.cancel()
    await asyncio.sleep(0)
    assert not reading.done()  # the deed is done to its end
    everything.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert everything.repeated == DEEDS[:1]
    await follower.reach("other", 1)
    assert everything.repeated == DEEDS


@pytest.mark.parametrize("fails", range(5))
async def test_a_commit_that_could_not_be_repeated_whole_goes_on_where_it_was(follower, everything, fails):
    everything.gate.set()
    everything.fails = fails
    with pytest.raises(StoreBusy):
        await follower.reach("other", 1)
    await follower.reach("other", 1)
    assert everything.repeated == DEEDS
    await follower.reach("other", 1)
    assert everything.repeated == DEEDS
