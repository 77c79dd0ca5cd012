"""A daemon that has no file descriptors left."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

TOPIC = "arn:aws:sns:us-east-1:123456789012:beats"


@pytest.fixture
def beating(installation, receiver):
    """A daemon with ten jobs a second, all of which are kept however late they come."""
    installation.start()
    with installation.client() as client:
        for number in range(10):
            client.put(f"beat-{number}", {"when": "@every 1s", "topic": TOPIC, "catch_up": "all"})
    receiver.wait_for_messages(20)
    return installation


def allow(installation, descriptors):
    """Let the daemon have so many descriptors; return how many it might have before."""
    pid = installation.daemon.pid
    before, most = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors, most))
    return before


def in_use(installation):
    return len(list(Path(f"/proc/{installation.daemon.pid}/fd").iterdir()))


def more(receiver, count):
    receiver.wait_for_messages(receiver.stats()["accepted"] + count)


def assert_every_slot_is_published(installation, receiver):
    fires = installation.fires()
    assert installation.stop() == 0
    assert {fire.state for fire in fires} == {"published"}
    assert {fire.fire_id for fire in fires} <= {message["fire_id"] for message in receiver.take()}
    for number in range(10):
        own = [fire.fire_time for fire in fires if fire.schedule == f"beat-{number}"]
        seconds = sorted(round(datetime.fromisoformat(time).timestamp()) for time in own)
        assert seconds == list(range(seconds[0], seconds[-1] + 1))


def test_what_is_connected_goes_on_and_what_is_cut_waits_until_there_are_descriptors_again(beating, receiver):
    before = allow(beating, 3)  # fewer than it has: it can open none
    more(receiver, 30)
    said = len(beating.log)
    receiver.be_down(0)
    line = beating.wait_for("no file descriptor is left", since=said)
    assert "LimitNOFILE" in line
    allow(beating, before)
    more(receiver, 40)
    with beating.client() as client:
        status = client.status()
    assert status.is_ready
    assert_every_slot_is_published(beating, receiver)


def test_idle_clients_that_take_all_descriptors_do_not_keep_it_from_firing(beating, receiver):
    allow(beating, in_use(beating) + 20)
    with ExitStack() as idle:
        for _ in range(60):  # what the daemon cannot take waits in its queue, which is longer
            client = idle.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(str(beating.socket))
        more(receiver, 30)
        receiver.be_down(0)  # and new connections take what the old ones had
        more(receiver, 30)
    more(receiver, 10)
    assert beating.run("status").returncode == 0
    assert_every_slot_is_published(beating, receiver)
