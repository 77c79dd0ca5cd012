"""What the service manager is told, and when."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from cronally.service_manager import ServiceManager, Supervision
from support.fake_clock import FakeClock


@pytest.fixture
def listening(tmp_path):
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "notify"))
    heard.setblocking(False)
    with heard:
        yield heard


def messages(heard):
    found = []
    while True:
        try:
            text = heard.recv(4096).decode()
        except BlockingIOError:
            return found
        found.append(dict(line.split("=", 1) for line in text.splitlines()))


def manager_at(heard, **environ):
    address = heard.getsockname()
    address = f"@{address[1:].decode()}" if isinstance(address, bytes) else address
    return ServiceManager.found_in({"NOTIFY_SOCKET": address, **environ})


def test_a_message_is_one_datagram(listening):
    manager = manager_at(listening)
    manager.tell(READY=1, STATUS="ready")
    assert listening.recv(4096) == b"READY=1\nSTATUS=ready"
    manager.close()


@pytest.mark.skipif(not Path("/proc").exists(), reason="abstract sockets are Linux's")
def test_an_abstract_socket_is_reached(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0cronally-test-{os.getpid()}")
        heard.settimeout(5)
        manager = manager_at(heard)
        manager.tell(READY=1)
        assert heard.recv(100) == b"READY=1"
        manager.close()


@pytest.mark.parametrize("address", [None, "", "relative", "@", "/", "vsock:2:1234"])
def test_without_a_socket_that_can_be_reached_nothing_is_said(address):
    manager = ServiceManager.found_in(
        {} if address is None else {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "5"}
    )
    manager.tell(READY=1)
    assert (manager.is_there, manager.watchdog_s) == (False, None)


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getppid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_the_one_that_is_meant_for_us(listening, environ, watchdog_s):
    manager = manager_at(listening, **environ)
    assert manager.watchdog_s == watchdog_s
    manager.close()


def test_a_socket_that_has_gone_is_said_once_and_disturbs_nothing(listening, tmp_path, caplog):
    manager = manager_at(listening)
    listening.close()
    (tmp_path / "notify").unlink()
    manager.tell(READY=1)
    manager.tell(READY=1)
    [said] = caplog.messages
    assert "is not reached" in said


def test_what_a_full_socket_does_not_take_goes_later_and_in_order(listening):
    manager = manager_at(listening)
    taken = 0
    while not manager._waiting:
        manager.tell(STATUS=taken)
        taken += 1
    manager.tell(READY=1)
    for _ in range(100):
        manager.tell(WATCHDOG=1)  # of these one that comes is enough
    heard = messages(listening)
    manager.tell(WATCHDOG=1)
    heard += messages(listening)
    assert heard == [*({"STATUS": str(n)} for n in range(taken)), {"READY": "1"}]
    manager.tell(WATCHDOG=1)
    assert messages(listening) == [{"WATCHDOG": "1"}]
    manager.close()


class Silence:
    """The engine's loops, as a test has them. began: when one of them passed last."""

    def __init__(self, clock):
        self.clock, self.began = clock, None

    def __call__(self):
        return (0.0, None) if self.began is None else (self.clock.mono() - self.began, "plan")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def supervision(listening, clock):
    manager = manager_at(listening, WATCHDOG_USEC="20000000")
    supervision = Supervision(manager, clock)
    supervision.silence = Silence(clock)
    task = asyncio.create_task(supervision.run())
    await clock.settle()
    yield supervision
    task.cancel()
    manager.close()


async def test_a_start_that_takes_long_asks_for_time_and_says_why(supervision, listening, clock):
    await clock.advance(2)
    told = messages(listening)
    assert told[0] == {"STATUS": "not ready: it is starting"}
    assert [one for one in told if "EXTEND_TIMEOUT_USEC" in one] == [{"EXTEND_TIMEOUT_USEC": "30000000"}] * 3
    supervision.not_ready_because = lambda: "the clock is not believed: \n1970"
    await clock.advance(1)
    assert {"STATUS": "not ready: the clock is not believed: \\n1970"} in messages(listening)
    supervision.not_ready_because = lambda: None
    supervision.ready()
    await clock.advance(5)
    told = messages(listening)
    assert told[0] == {"READY": "1", "STATUS": "ready"}
    assert not [
        one for one in told if "EXTEND_TIMEOUT_USEC" in one or ("STATUS" in one and "READY" not in one)
    ]


async def test_the_watchdog_is_pinged_four_times_in_its_time(supervision, listening, clock):
    supervision.ready()
    messages(listening)
    pings = 0
    for _ in range(10):  # the kernel keeps about ten that are not read
        await clock.advance(10)
        pings += messages(listening).count({"WATCHDOG": "1"})
    assert pings == 20


async def test_a_loop_that_hangs_stops_the_pings_until_it_passes_again(supervision, listening, clock, caplog):
    supervision.ready()
    await clock.advance(30)
    supervision.silence.began = clock.mono()
    await clock.advance(11)  # just over half of the 20 s
    messages(listening)
    await clock.advance(60)
    assert {"WATCHDOG": "1"} not in messages(listening)
    assert caplog.messages == [
        "the engine's loop 'plan' has not passed for 11 s: the watchdog is told no more"
    ]
    supervision.silence.began = None
    await clock.advance(5)
    assert {"WATCHDOG": "1"} in messages(listening)


async def test_a_stop_says_so_with_the_time_it_may_take_and_is_not_watched_for_loops_that_have_ended(
    supervision, listening, clock
):
    supervision.ready()
    messages(listening)
    supervision.not_ready_because = lambda: "it is stopping"
    supervision.stopping(300)
    assert messages(listening) == [
        {"STOPPING": "1", "STATUS": "not ready: it is stopping", "EXTEND_TIMEOUT_USEC": "360000000"}
    ]
    supervision.silence.began = clock.mono()
    await clock.advance(40)
    assert messages(listening).count({"WATCHDOG": "1"}) == 8


async def test_a_reload_is_announced_with_the_monotonic_time(supervision, listening, clock):
    supervision.not_ready_because = lambda: None
    supervision.ready()
    messages(listening)
    supervision.reloading()
    supervision.ready()
    assert messages(listening) == [
        {"RELOADING": "1", "MONOTONIC_USEC": str(int(clock.mono() * 1_000_000))},
        {"READY": "1", "STATUS": "ready"},
    ]


async def test_not_being_ready_any_more_is_told(supervision, listening, clock):
    supervision.not_ready_because = lambda: None
    supervision.ready()
    messages(listening)
    supervision.not_ready_because = lambda: "the store takes no commits"
    await clock.advance(1)
    assert {"STATUS": "not ready: the store takes no commits"} in messages(listening)
