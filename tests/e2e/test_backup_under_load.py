"""The installed command: a backup while it fires, the store lost, the backup put in its place, and the slots since then decided."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from support.queues import TOPIC_PREFIX, Queue
from support.store_files import damage

pytestmark = pytest.mark.long

COUNT = 20  # a second; moto's server takes some more


def test_a_backup_taken_under_load_replaces_a_damaged_store_and_recovery_decides_the_rest(installation):
    installation.start()
    file = installation.home / "schedules.jsonl"
    file.write_text(
        "".join(
            json.dumps(
                {
                    "name": f"job-{number}",
                    "when": "@every 1s",
                    "topic": f"{TOPIC_PREFIX}load",
                    "catch_up": ("all", "skip")[number % 2],
                }
            )
            + "\n"
            for number in range(COUNT)
        )
    )
    assert installation.run("apply", "-f", str(file)).returncode == 0
    queue = Queue(installation.endpoint_url, "load")
    messages = queue.receive(2 * COUNT)
    backup = installation.home / "b.db"
    made = installation.json("backup", str(backup))
    assert (made["schedules"], made["size_bytes"]) == (COUNT, backup.stat().st_size)
    assert backup.stat().st_mode & 0o777 == 0o600
    messages += queue.receive(3 * COUNT)

    # It is in use: refused, and the daemon named.
    refused = installation.run("restore", str(backup), "--yes")
    assert refused.returncode == 1
    assert f"pid {installation.daemon.pid}" in refused.stderr
    installation.kill()

    store = installation.home / ".local/state/cronally/cronally.db"
    for suffix in ("-wal", "-shm"):
        store.with_name(f"cronally.db{suffix}").unlink()
    damage(store, from_page=2)
    refused = installation.run("serve", "--local", "--local-port", str(installation.port))
    assert refused.returncode == 1
    assert "cronally restore FILE" in refused.stderr
    assert "Traceback" not in refused.stderr

    restored = installation.json("restore", str(backup), "--yes")
    assert restored["damage"]
    assert restored["kept"].startswith(str(store))
    installation.start()
    messages += queue.receive(COUNT)  # some of them from before: moto's server is slow
    installation.wait_until_decided(max(message.fire_id.partition("@")[2] for message in messages))
    fires = installation.json("history", "--limit", "100000")["fires"]
    assert installation.stop() == 0
    queue.close()

    covered = {}
    for fire in fires:
        first = int(datetime.fromisoformat(fire["fire_time"]).timestamp())
        covered.setdefault(fire["schedule"], []).extend(first + number for number in range(fire["count"]))
    assert len(covered) == COUNT
    for name, slots in covered.items():
        assert sorted(slots) == list(range(min(slots), max(slots) + 1)), f"every slot of {name} has one entry"
    # What was published between the backup and the loss is sent again with its own id, or skipped and admitted to.
    skipped = [fire for fire in fires if fire["state"] == "skipped"]
    assert all(fire["maybe_published"] for fire in skipped)
    known = {fire["fire_id"] for fire in fires}
    last = max(fire["last_fire_time"] for fire in fires)
    ranges = [(fire["schedule"], fire["fire_time"], fire["last_fire_time"]) for fire in skipped]
    for message in messages:
        name, _, fire_time = message.fire_id.partition("@")
        assert (
            fire_time >= last
            or message.fire_id in known
            or any(name == schedule and first <= fire_time <= last for schedule, first, last in ranges)
        )
