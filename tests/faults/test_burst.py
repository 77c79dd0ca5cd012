"""``kill -9`` in the middle of a burst."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

pytestmark = pytest.mark.long

TOPIC = "arn:aws:sns:us-east-1:123456789012:burst"
COUNT = 10_000


@pytest.mark.timeout(120)
def test_all_of_ten_thousand_due_at_once_are_accounted_for(installation, receiver):
    installation.start()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=6)
    when = f"@at {at:%Y-%m-%dT%H:%M:%SZ}"
    lines = [{"name": f"job-{n}", "when": when, "topic": TOPIC, "message": f"m {n}"} for n in range(COUNT)]
    file = installation.home / "burst.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    applied = installation.run("apply", "-f", str(file))
    assert applied.returncode == 0, applied.stderr
    receiver.wait_for_messages(1_000)
    installation.kill()
    before = receiver.take()
    assert 1_000 <= len(before) <= COUNT
    installation.start()
    with installation.client() as client:
        # Asked again and again: how many the receiver will have got, repeats included, nobody can tell.
        give_up = time.monotonic() + 40
        while (published := client.status().journal["published"]) < COUNT:
            assert time.monotonic() < give_up, f"{published} are published"
            time.sleep(0.1)

    got = Counter(message["fire_id"] for message in before + receiver.take())
    assert got.keys() == {f"job-{n}@{at:%Y-%m-%dT%H:%M:%SZ}" for n in range(COUNT)}
    # What had been accepted and was not yet on record has been sent once more, and nothing else has.
    assert max(got.values()) <= 2
    assert {id_ for id_, count in got.items() if count == 2} <= {message["fire_id"] for message in before}
    fires = installation.fires()
    assert Counter(fire.state for fire in fires) == {"published": COUNT}
    assert len({fire.fire_id for fire in fires}) == COUNT
    assert installation.stop() == 0
