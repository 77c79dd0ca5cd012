"""The benchmarks run, and count right: on sizes that take seconds. What they measure is for another machine and hour."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import aiohttp
import pytest

from benchmarks import _picture, _receiver
from benchmarks._harness import Receiver

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_a_small_burst_is_counted_and_drawn(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks",
            "burst",
            "--json",
            "--sizes",
            "10",
            "--runs",
            "0",
            "--only",
            "plain",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (row,) = result["parts"]["plain"]
    assert row["size"] == 10
    assert row["total"] == {"early": 0, "lost": 0, "doubled": 0, "bad_signatures": 0, "mismatched": 0}
    assert [each["is_warm_up"] for each in row["runs"]] == [True]
    assert 0 < row["median"]["first_ms"] <= row["median"]["last_ms"] <= row["median"]["settled_ms"]
    assert result["machine"]["cpus"]

    result["parts"]["plain"][0]["size"] = 1_000
    drawn = ET.fromstring(_picture.draw(result))
    assert "1,000 messages" in drawn.findtext("{http://www.w3.org/2000/svg}desc", "")


@pytest.mark.long
def test_a_small_outage_is_counted():
    sizes = ["--schedules", "90", "--minutes", "3", "--quota", "100", "--idle-s", "1", "--downtime", "20"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "outage", "--json", *sizes],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    outage = result["outage"]
    assert outage["pending"] == 3 * 90 - 2 * 9  # nine of them send only the latest
    assert (outage["superseded"], outage["expired"], outage["missed"], outage["overtaken"]) == (18, 0, 0, 0)
    assert outage["drained"] == outage["circuit_pending"] == outage["pending"]
    assert [row["messages"] > 0 for row in outage["by_priority"]] == [True] * 3
    assert [week["skip_rows"] for week in result["weeks"]] == [20]


async def post(receiver, body, count=1):
    async with aiohttp.ClientSession() as session:
        replies = []
        for _ in range(count):
            async with session.post(receiver.url, data=body, ssl=False) as reply:
                replies.append((reply.status, await reply.text()))
    return replies


BATCH = (
    "Action=PublishBatch&PublishBatchRequestEntries.member.1.Id=a&PublishBatchRequestEntries.member.1.Message=x"
    "&PublishBatchRequestEntries.member.2.Id=b&PublishBatchRequestEntries.member.2.Message=y"
)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
async def test_the_receiver_answers_each_entry_and_refuses_no_one(is_tls, tmp_path):
    with Receiver(tls=tmp_path if is_tls else None) as receiver:
        replies = await post(receiver, BATCH, count=2)
        assert [status for status, _ in replies] == [200, 200]
        ids = [
            member.split("</MessageId>")[0] for _, text in replies for member in text.split("<MessageId>")[1:]
        ]
        assert len(set(ids)) == 4
        assert all("<Id>a</Id>" in text and "<Id>b</Id>" in text for _, text in replies)
        assert receiver.message_count() == 4
        found = receiver.collect(1)
        assert (found["messages"], found["bad_signatures"], found["unidentified"]) == (4, 2, 4)
        assert receiver.collect(1)["messages"] == 0


async def test_the_receiver_throttles_beyond_its_quota():
    with Receiver(quota=3) as receiver:
        (first, _), (second, text) = await post(receiver, BATCH, count=2)
        assert (first, second) == (200, 400)
        assert "<Code>Throttling</Code>" in text
        found = receiver.collect(1)
        assert (found["messages"], found["throttled"]) == (2, 1)


async def test_the_receiver_books_between_reads_when_too_much_lies_there(monkeypatch):
    monkeypatch.setattr(_receiver, "_BACKLOG", 3)
    receiver = _receiver.Receiver()
    request = b"POST / HTTP/1.1\r\n\r\n" + BATCH.encode()
    for _ in range(10):
        receiver.handle(request, request.index(b"\r\n\r\n") + 4)
    assert receiver.ledger.requests == 0
    for _ in range(20):
        await asyncio.sleep(0)
    assert receiver.ledger.requests == 7
    assert (await receiver.collect([]))["messages"] == 20
