"""A daemon whose wall clock is set while it runs, or wrong when it starts: libfaketime lies to it.

The monotonic clock is left alone, as it is when somebody sets a real one; and the receiver has the right time, as SNS has.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cronally.clock import SystemClock

LIBRARY = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
TOPIC = "arn:aws:sns:us-east-1:123456789012:beats"
HOUR_S = 3_600
WITHIN_S = (
    40  # a job every 2 s that is not heard of for so long has fallen silent, be the machine ever so busy
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        LIBRARY is None, reason="faketime is not installed (Debian: apt-get install faketime)"
    ),
]


class FalseClock:
    """What the daemon takes for the wall clock: the real one and *ahead_s* seconds; it looks once a second."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._settings = []
        self.set(0)

    @property
    def ahead_s(self) -> float:
        return self._settings[-1][1]

    def at(self, real_s: float) -> float:
        """Return what it showed at a real instant, the later of two if it was about to be set."""
        before = [ahead_s for since_s, ahead_s in self._settings if since_s <= real_s - 3]
        lately = [ahead_s for since_s, ahead_s in self._settings if real_s - 3 < since_s <= real_s]
        return real_s + max(before[-1:] + lately)

    def set(self, ahead_s: float) -> None:
        self._settings.append((time.time(), ahead_s))
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_s:+f}\n")
        new.replace(self._file)  # nobody reads half of it

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead_s)


@pytest.fixture
def clock(home):
    return FalseClock(home / "clock")


@pytest.fixture
def installation(installation, home, clock):
    installation.extra = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(home / "clock"),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    return installation


def instant(fire_id):
    return datetime.fromisoformat(fire_id.partition("@")[2])


def assert_none_early_and_none_twice(messages, clock):
    ids = [message["fire_id"] for message in messages]
    assert len(set(ids)) == len(ids)
    for message in messages:
        assert clock.at(message["arrived_us"] / 1e6) >= instant(message["fire_id"]).timestamp()


def assert_every_slot_has_its_entry(fires, period_s):
    """Every slot from the first to the last of *fires* lies in one entry and no more."""
    covered = []
    for fire in fires:
        first = round(datetime.fromisoformat(fire.fire_time).timestamp())
        covered += [first + number * period_s for number in range(fire.count)]
    assert sorted(covered) == list(range(min(covered), max(covered) + 1, period_s))


def more(receiver, count=2):
    """Return once *count* more messages have arrived."""
    receiver.wait_for_messages(receiver.stats()["accepted"] + count, within_s=WITHIN_S)


def add_beat(installation, **keys):
    with installation.client() as client:
        client.put("beat", {"when": "@every 2s", "topic": TOPIC, **keys})


def times_in(line):
    """Return what the clock was expected to show and what it showed, as a line of the log has them."""
    event = json.loads(line)
    return [datetime.fromisoformat(event[key]) for key in ("expected", "now")]


def step(installation, clock, ahead_s):
    """Set the clock; return what the log says of it, once it does, and what the clock showed before."""
    said, before = len(installation.log), clock.now()
    clock.set(ahead_s)
    return installation.wait_for("the clock was set", since=said), before


def test_a_clock_set_ahead_is_noticed_and_the_policy_decides_on_the_hour_that_was_not(
    installation, receiver, clock
):
    installation.start()
    with installation.client() as client:
        for policy in ("latest", "all", "skip"):
            client.put(policy, {"when": "@every 2s", "topic": TOPIC, "catch_up": policy})
    more(receiver, 6)
    step(installation, clock, HOUR_S)
    more(receiver, 1_010)
    fires = installation.fires()
    assert installation.stop() == 0
    assert_none_early_and_none_twice(receiver.take(), clock)
    for policy, skipped in (("latest", 1_794), ("all", 795), ("skip", 1_795)):
        own = [fire for fire in fires if fire.schedule == policy]
        assert_every_slot_has_its_entry(own, 2)
        ranges = [fire.count for fire in own if fire.reason == "catch_up"]
        assert max(ranges) == pytest.approx(skipped, abs=12)


def test_a_step_is_noticed_and_logged_with_both_times(installation, receiver, clock):
    installation.start()
    add_beat(installation)
    more(receiver)
    for ahead_s in (HOUR_S, 0):
        line, before = step(installation, clock, ahead_s)
        old, new = times_in(line)
        assert abs(old - before) < timedelta(minutes=1)
        assert abs(new - clock.now()) < timedelta(minutes=1)


def test_a_clock_set_ahead_and_back_silences_nothing_and_fires_nothing_twice(installation, receiver, clock):
    installation.start()
    add_beat(installation)
    more(receiver)
    step(installation, clock, HOUR_S)
    more(receiver)
    step(installation, clock, 0)
    more(receiver, 3)
    assert installation.stop() == 0
    assert_none_early_and_none_twice(receiver.take(), clock)


def test_a_clock_set_back_and_right_again_fires_nothing_twice(installation, receiver, clock):
    clock.set(HOUR_S)
    installation.start()
    add_beat(installation)
    more(receiver)
    step(installation, clock, 0)  # before the schedule was made: it has no slots then
    with installation.client() as client:
        client.put("other", {"when": "@every 2s", "topic": TOPIC})
    more(receiver)
    step(installation, clock, HOUR_S)
    more(receiver, 6)  # five slots of each are less than ten seconds late
    assert installation.stop() == 0
    messages = receiver.take()
    assert_none_early_and_none_twice(messages, clock)
    assert {message["fire_id"].partition("@")[0] for message in messages[-6:]} == {"beat", "other"}


def test_a_restart_while_the_clock_is_back_fires_nothing_twice(installation, receiver, clock):
    clock.set(60)
    installation.start()
    add_beat(installation)
    more(receiver, 4)
    installation.kill()
    clock.set(56)
    installation.start()
    more(receiver, 4)
    assert installation.stop() == 0
    ids = [message["fire_id"] for message in receiver.take()]
    # A crash may repeat what was not on record yet: one slot, of a job every 2 s.
    assert len(ids) - len(set(ids)) <= 1


def test_a_clock_of_1970_is_not_believed_until_it_is_set(installation, receiver, clock):
    clock.set(3 * 86_400 - time.time())
    installation.begin()
    line = installation.wait_for("the clock is not believed")
    assert "1970-01-04" in line
    assert "--trust-clock" in line
    status = installation.json("status")
    assert status["is_ready"] is False
    assert "the clock is not believed" in status["not_ready_because"]
    added = installation.run("add", "beat", "@every 2s", "--topic", TOPIC)
    assert added.returncode == 1
    assert "the clock is not believed" in added.stderr
    clock.set(0)
    installation.wait_for("ready")
    add_beat(installation)
    more(receiver)
    assert installation.stop() == 0


def test_a_clock_of_1970_is_believed_when_the_user_says_so(installation, receiver, clock):
    clock.set(3 * 86_400 - time.time())
    installation.start("--trust-clock")
    add_beat(installation)
    more(receiver)
    assert installation.stop() == 0
    assert receiver.take()[0]["fire_id"].startswith("beat@1970-01-04")


def test_a_machine_that_was_off_for_a_month_starts_and_skips_in_one_entry(installation, receiver, clock):
    installation.start()
    add_beat(installation)
    more(receiver)
    assert installation.stop() == 0
    clock.set(31 * 86_400)
    if SystemClock().is_synchronised() is False:  # as in many a container: then nobody vouches for that month
        installation.begin()
        installation.wait_for("over a day after the last journal entry")
        assert installation.stop() == 0
        installation.start("--trust-clock")
    else:
        installation.start()
    more(receiver)
    fires = installation.fires()
    assert installation.stop() == 0
    assert_none_early_and_none_twice(receiver.take(), clock)
    assert_every_slot_has_its_entry(fires, 2)
    [skipped] = [fire for fire in fires if fire.reason == "catch_up"]
    assert skipped.count == pytest.approx(31 * 43_200, abs=20)
