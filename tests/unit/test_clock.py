"""The clocks of this machine. Waits here are some milliseconds of real time."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from types import SimpleNamespace

import pytest

from cronally import clock as clock_module
from cronally.clock import SystemClock, WaitResult


def test_the_clocks_show_what_the_system_shows():
    clock = SystemClock()
    before = time.time_ns()
    wall, wall_us = clock.wall(), clock.wall_us()
    after = time.time_ns()
    assert before // 1_000_000 <= wall <= after // 1_000_000
    assert before // 1_000 <= wall_us <= after // 1_000
    assert clock.mono() <= time.monotonic()
    assert clock.boot() >= clock.mono() - 1
    assert clock.is_synchronised() in (True, False, None)


def test_a_system_without_the_linux_calls_does_without(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    clock = SystemClock()
    assert clock.is_synchronised() is None
    assert clock.boot() == pytest.approx(time.monotonic(), abs=1)


@pytest.mark.skipif(sys.platform != "linux", reason="adjtimex is Linux's")
def test_a_kernel_that_does_not_say_leaves_it_open(monkeypatch):
    class NoLibrary:
        def __init__(self, *_args, **_keys):
            raise OSError

    monkeypatch.setattr(clock_module.ctypes, "CDLL", NoLibrary)
    assert SystemClock().is_synchronised() is None


@pytest.mark.parametrize("precise", [False, True])
async def test_a_wait_never_ends_before_its_instant(precise):
    clock = SystemClock()
    for ahead_ms in (0, 1, 2, 7):
        until = clock.wall() + ahead_ms
        assert await clock.wait(until, asyncio.Event(), precise=precise) is WaitResult.DUE
        assert time.time_ns() >= until * 1_000_000


async def test_an_instant_that_is_past_is_due_at_once():
    clock = SystemClock()
    assert await clock.wait(clock.wall() - 1000, asyncio.Event()) is WaitResult.DUE


@pytest.mark.parametrize("ahead_ms", [None, 600_000])
async def test_a_wait_is_cut_short_by_its_event_and_clears_it(ahead_ms):
    clock = SystemClock()
    wake = asyncio.Event()
    asyncio.get_running_loop().call_later(0.002, wake.set)
    until = None if ahead_ms is None else clock.wall() + ahead_ms
    assert await clock.wait(until, wake) is WaitResult.WOKEN
    assert not wake.is_set()
    wake.set()
    assert await clock.wait(until, wake) is WaitResult.WOKEN


async def test_a_wait_is_cut_short_in_its_last_millisecond_too(monkeypatch):
    monkeypatch.setattr(clock_module, "_EARLY_WAKE_S", 60.0)  # the whole wait is spent yielding
    clock = SystemClock()
    wake = asyncio.Event()
    asyncio.get_running_loop().call_soon(wake.set)
    assert await clock.wait(clock.wall() + 30_000, wake, precise=True) is WaitResult.WOKEN
    assert not wake.is_set()


@pytest.mark.parametrize("precise", [False, True])
async def test_a_clock_set_back_in_the_last_millisecond_of_a_wait_does_not_make_it_an_hour(
    precise, monkeypatch
):
    clock = SystemClock()
    until = clock.wall() + 1
    until_ns = until * 1_000_000
    shown_ns = itertools.chain([until_ns - 500_000] * 2, itertools.repeat(until_ns - 3_600 * 10**9))
    stepped = SimpleNamespace(time=lambda: next(shown_ns) / 1e9, time_ns=lambda: next(shown_ns))
    monkeypatch.setattr(clock_module, "time", stepped)
    waiting = clock.wait(until, asyncio.Event(), precise=precise)
    assert await asyncio.wait_for(waiting, 20) is WaitResult.RECHECK


@pytest.mark.parametrize("ahead_ms", [None, 600_000])
async def test_a_long_wait_looks_at_the_clocks_now_and_then(ahead_ms, monkeypatch):
    monkeypatch.setattr(clock_module, "MAX_WAIT_S", 0.005)
    clock = SystemClock()
    until = None if ahead_ms is None else clock.wall() + ahead_ms
    assert await clock.wait(until, asyncio.Event()) is WaitResult.RECHECK


async def test_a_sleep_takes_monotonic_time():
    clock = SystemClock()
    before = clock.mono()
    await clock.sleep(0.002)
    assert clock.mono() - before >= 0.002
