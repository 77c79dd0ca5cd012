"""The installed daemon among faults at random moments; ``make faults`` runs it for longer."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from support.campaign import Campaign, report

pytestmark = pytest.mark.long

SEED = 3


@pytest.mark.timeout(240)
def test_every_promise_is_kept_by_a_daemon_that_is_killed_frozen_and_stopped_while_its_receiver_fails():
    # Not tmp_path: a Unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as home:
        campaign = Campaign(Path(home), SEED, seconds=10)
        verdict = campaign.run()
        assert not verdict.wrong, f"seed {SEED}:\n" + report(verdict, campaign.counts)
    assert verdict.slots > 1_000
    assert verdict.received > 1_000
    assert set(campaign.counts) >= {"kills", "stops", "freezes", "outages", "receiver", "edits"}
