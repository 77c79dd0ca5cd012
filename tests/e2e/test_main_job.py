"""The installed command, driven as a user drives it: serve, add, see the message, kill, restart, catch up."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from support.processes import stand_ins
from support.queues import TOPIC_PREFIX, Queue

MISSED_AFTER_S = 10  # slots later than this count as missed, and the policy decides


def instant(fire_id):
    return datetime.fromisoformat(fire_id.partition("@")[2]).timestamp() * 1000


def test_a_message_arrives_with_its_body_and_attributes_and_never_before_its_time(installation):
    installation.start()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    added = installation.run(
        "add", "report", f"@at {at:%Y-%m-%dT%H:%M:%SZ}", "--topic", f"{TOPIC_PREFIX}reports",
        "--message", '{"day": "<cronally.fire-time>"}', "--attribute", "team=ops",
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    assert f"{at:%Y-%m-%dT%H:%M:%SZ}" in added.stdout

    queue = Queue(installation.endpoint_url, "reports")
    [message] = queue.receive(1)
    queue.close()

    fire_time = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    assert json.loads(message.body) == {"day": fire_time}
    assert message.attributes == {
        "cronally.schedule": "report",
        "cronally.fire_time": fire_time,
        "cronally.fire_id": f"report@{fire_time}",
        "team": "ops",
    }
    assert message.sent_at >= at.timestamp() * 1000
    [fire] = installation.json("history", "report")["fires"]
    assert (fire["fire_id"], fire["state"]) == (f"report@{fire_time}", "published")
    assert installation.stop() == 0


@pytest.mark.long
def test_after_kill_9_the_slots_in_between_are_caught_up_by_policy(installation):
    installation.start()
    for policy in ("all", "latest", "skip"):
        topic = f"{TOPIC_PREFIX}{policy}"
        added = installation.run("add", policy, "@every 1s", "--topic", topic, "--catch-up", policy)
        assert added.returncode == 0, added.stderr
    queues = {policy: Queue(installation.endpoint_url, policy) for policy in ("all", "latest", "skip")}
    before = {policy: queue.receive(2) for policy, queue in queues.items()}
    installation.kill()
    killed_at = time.time()
    assert stand_ins(installation.port), "the stand-in outlives the daemon"
    # The downtime itself is what is tested: it must be longer than what counts as merely late.
    threading.Event().wait(MISSED_AFTER_S + 4)
    installation.start()
    [recovered] = [line for line in installation.log if "start: of the slots due" in line]
    recovered_at = instant(f"@{recovered.split(' to ')[1].split(',')[0]}")
    after = {policy: queue.receive(12) for policy, queue in queues.items()}
    stopped_at = time.time()
    assert installation.stop() == 0
    for policy, queue in queues.items():
        after[policy] += queue.drain()
        queue.close()

    for policy in queues:
        messages = before[policy] + after[policy]
        assert all(message.sent_at >= instant(message.fire_id) for message in messages)
        fires = installation_journal(installation, policy)
        published = {
            fire["fire_id"]
            for fire in fires
            if fire["state"] == "published" and instant(fire["fire_id"]) / 1000 < stopped_at - 1
        }
        received = {message.fire_id for message in messages}
        assert published <= received
        # What was on its way when the power went is either sent again or admitted to.
        admitted = covered_seconds([fire for fire in fires if fire["maybe_published"]])
        late = {fire_id for fire_id in received - published if instant(fire_id) / 1000 < stopped_at - 1}
        assert all(instant(fire_id) / 1000 in admitted for fire_id in late)
        # Every slot of the downtime is in the journal, in a row of its own or within a range.
        assert covered_seconds(fires) == list(
            range(covered_seconds(fires)[0], covered_seconds(fires)[-1] + 1)
        )
        missed = [
            message
            for message in after[policy]
            if killed_at * 1000 < instant(message.fire_id) < recovered_at - MISSED_AFTER_S * 1000
        ]
        assert len(missed) >= {"all": 2, "latest": 0, "skip": 0}[policy]
        assert len(missed) <= {"all": 99, "latest": 1, "skip": 0}[policy]


def installation_journal(installation, name):
    installation.start()
    try:
        return installation.json("history", name, "--limit", "1000")["fires"]
    finally:
        installation.stop()


def covered_seconds(fires):
    seconds = set()
    for fire in fires:
        first = datetime.fromisoformat(fire["fire_time"]).timestamp()
        last = datetime.fromisoformat(fire["last_fire_time"] or fire["fire_time"]).timestamp()
        assert last - first == fire["count"] - 1
        seconds |= set(range(int(first), int(last) + 1))
    return sorted(seconds)


@pytest.mark.long
def test_a_thousand_schedules_due_at_the_same_second_all_arrive_once(installation):
    installation.start()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=6)
    fire_time = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    file = installation.home / "thousand.jsonl"
    file.write_text(
        "".join(
            json.dumps({"name": f"job-{n}", "when": f"@at {fire_time}", "topic": f"{TOPIC_PREFIX}burst"})
            + "\n"
            for n in range(1000)
        )
    )
    applied = installation.run("apply", "-f", str(file))
    assert applied.returncode == 0, applied.stderr
    queue = Queue(installation.endpoint_url, "burst")
    messages = queue.receive(1000)
    messages += queue.drain()
    queue.close()
    assert sorted(message.fire_id for message in messages) == sorted(
        f"job-{n}@{fire_time}" for n in range(1000)
    )
    assert min(message.sent_at for message in messages) >= at.timestamp() * 1000
    assert installation.stop() == 0
