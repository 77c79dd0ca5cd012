"""The installed daemon while hundreds of clients mean ill: it fires, it answers who means well, and its log stays clean."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time

import pytest

from benchmarks._attack import ATTACKS, _attack, run
from benchmarks._harness import Daemon, Receiver, fresh_home, line

pytestmark = pytest.mark.long

NAMES = "tick-{:03d}"
SCHEDULES = 10


@pytest.fixture
def receiver():
    with Receiver() as running:
        yield running


@pytest.fixture
def daemon(tmp_path_factory, receiver):
    with Daemon(fresh_home(tmp_path_factory.mktemp("a")), receiver) as running:
        yield running
        log = (running.home / "daemon.log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert lines[0]["action"] == "daemon.ready"
    assert all(line["action"] != "admin.bug" and "traceback" not in line for line in lines)
    assert log.isascii()
    assert all(text.isprintable() for text in log.splitlines())


def test_every_attack_by_itself_is_answered_or_closed(daemon):
    async def each():
        return {name: await _attack(daemon.socket, send, random.Random(1)) for name, send in ATTACKS.items()}

    answers = asyncio.run(each())
    # asyncio's client loses the answer that came while it was sending; that there is one, test_hostile_http shows.
    silent = {"idle", "slow body", "stalled apply", "garbage", "endless body", "endless line", "long line"}
    assert {name for name, (status, _) in answers.items() if status == "none"} <= silent
    expected = {
        "a gibibyte": "413",
        "empty lines": "200",
        "bad lines": "422",
        "deep": "400",
        "numbers": "400",
        "pairs": "400",
        "escapes": "201",
        "no zone": "400",
        "path": "404",
        "slow head": "200",
    }
    assert {name: answers[name][0] for name in expected} == expected
    for status, answer in answers.values():
        if status.startswith("4") and status != "422":
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"].isprintable()


def test_under_attack_nothing_is_early_lost_or_doubled(daemon, receiver):
    daemon.apply([line(number, "@every 1s", names=NAMES) for number in range(SCHEDULES)])
    seconds = 5
    begin = math.ceil(time.time()) + 1.5
    result = asyncio.run(run(daemon.socket, clients=200, seconds=seconds + 2))
    time.sleep(max(0.0, begin + seconds - time.time()))
    ledger = receiver.collect(SCHEDULES, names=NAMES, between_s=(begin, begin + seconds))
    assert result["bugs"] == []
    assert result["statuses"].get("500", 0) == 0
    assert (ledger["early"], ledger["lost"], ledger["doubled"]) == (0, 0, 0)
    assert len(ledger["slots"]) == seconds
    assert (
        result["refused"] < result["asked"]
    )  # a slow machine may have to send a newcomer away, with a reason
    assert daemon.client.status().is_ready
