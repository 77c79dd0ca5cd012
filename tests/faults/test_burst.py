"""``kill -9`` in the middle of a burst."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

TOPIC = "arn:aws:sns:us-east-1:123456789012:burst"
COUNT = 10_000


def history(installation):
    with installation.client() as client:
        page = client.fires(limit="1000")
        while True:
            yield from page.fires
            if page.next is None:
                return
            page = client.fires(limit="1000", before=page.next)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("accepted", [1, 4_000])
def test_all_of_ten_thousand_due_at_once_are_accounted_for(installation, receiver, accepted):
    installation.start()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=8)
    when = f"@at {at:%Y-%m-%dT%H:%M:%SZ}"
    lines = [{"name": f"job-{n}", "when": when, "topic": TOPIC, "message": f"m {n}"} for n in range(COUNT)]
    file = installation.home / "burst.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    applied = installation.run("apply", "-f", str(file))
    assert applied.returncode == 0, applied.stderr
    receiver.wait_for_messages(accepted)
    installation.kill()
    before = receiver.take()
    assert accepted <= len(before) <= COUNT
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
    fires = list(history(installation))
    assert Counter(fire.state for fire in fires) == {"published": COUNT}
    assert len({fire.fire_id for fire in fires}) == COUNT
    assert installation.stop() == 0
