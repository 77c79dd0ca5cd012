"""The installed daemon whose store takes no commits: a full disk, then another program that holds it. No restart is needed."""

from __future__ import annotations

import resource
import subprocess
import sys
from datetime import datetime

import pytest

from support.queues import TOPIC_PREFIX, Queue

pytestmark = pytest.mark.long

ADD = ("add", "other", "@daily", "--topic", f"{TOPIC_PREFIX}other")

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


def fill_disk(pid):
    """No file may grow from now on: what a full disk looks like to a process that any user can start."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, hard))


def free_disk(pid):
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


def seconds(fires):
    """Every second that the entries cover, each once."""
    found = []
    for fire in fires:
        first = datetime.fromisoformat(fire["fire_time"]).timestamp()
        found += [int(first) + number for number in range(fire["count"])]
    assert len(found) == len(set(found))
    return sorted(found)


def check_all_on_record(installation, messages):
    fires = installation.json("history", "tick", "--limit", "1000")["fires"]
    covered = seconds(fires)
    assert covered == list(range(covered[0], covered[-1] + 1)), "no slot is without an entry"
    published = {fire["fire_id"] for fire in fires if fire["state"] == "published"}
    last = max(published)
    assert {message.fire_id for message in messages if message.fire_id <= last} <= published
    assert len({message.fire_id for message in messages}) == len(messages), "none came twice"
    assert not [fire for fire in fires if fire["maybe_published"]]


def test_fires_go_on_while_the_disk_is_full_and_while_another_program_holds_the_store(installation):
    installation.start()
    daemon = installation.daemon
    added = installation.run("add", "tick", "@every 1s", "--topic", f"{TOPIC_PREFIX}tick")
    assert added.returncode == 0, added.stderr
    queue = Queue(installation.endpoint_url, "tick")
    messages = queue.receive(2)

    said = len(installation.log)
    fill_disk(daemon.pid)
    assert "no space is left" in installation.wait_for("the store refuses", since=said)
    refused = installation.run(*ADD)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "no space is left" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    status = installation.json("status")
    assert status["is_ready"], "this may pass; fires go on for up to a minute"
    messages += queue.receive(3)
    before = {fire["fire_id"] for fire in installation.json("history", "tick")["fires"]}
    assert messages[-1].fire_id not in before, "it has left, and could not be written down"
    free_disk(daemon.pid)
    installation.wait_for("takes commits again", since=said)
    assert installation.run(*ADD).returncode == 0
    messages += queue.receive(2)
    check_all_on_record(installation, messages)

    store = installation.home / ".local/state/cronally/cronally.db"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "held\n"
        said = len(installation.log)
        assert "busy" in installation.wait_for("the store refuses", since=said)
        refused = installation.run("rm", "other")
        assert refused.returncode == 1
        assert "another program keeps the store" in refused.stderr
        messages += queue.receive(2)
    finally:
        holder.communicate("done\n", timeout=20)
    installation.wait_for("takes commits again", since=said)
    assert installation.run("rm", "other").returncode == 0
    messages += queue.receive(2)
    check_all_on_record(installation, messages)
    assert installation.daemon is daemon
    assert installation.stop() == 0
    queue.close()
