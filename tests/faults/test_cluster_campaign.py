"""Three installed daemons that share a table, among faults at random moments; ``make faults-cluster`` runs it for longer, and with the usual lease."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from support.campaign import report
from support.cluster_campaign import ClusterCampaign
from support.table_servers import table_server

pytestmark = pytest.mark.long


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("server", "seed", "lease_s", "seconds"),
    [("moto", 3, 5, 40), ("dynalite", 3, 3, 40)],  # moto's does one thing at a time
    ids=["moto", "dynalite"],
)
def test_every_promise_is_kept_by_machines_that_are_killed_frozen_stopped_and_cut_off(
    server, seed, lease_s, seconds
):
    if table_server(server) is None:
        pytest.skip(f"{server} is not installed")
    # Not tmp_path: a Unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as home:
        campaign = ClusterCampaign(Path(home), seed, seconds=seconds, lease_s=lease_s, server=server)
        verdict = campaign.run()
        assert not verdict.wrong, f"seed {seed}:\n" + report(verdict, campaign.counts)
    assert verdict.slots > 3_000
    assert verdict.received > 1_000
    assert sum(edit.answered is not None for edit in campaign.record.edits if edit.via) > 5
    assert campaign.record.looked > 0
    happened = {"kills", "stops", "freezes", "table cuts", "sns cuts", "retired", "leases lost", "edits"}
    assert {word for word, count in campaign.counts.items() if count} >= happened
