"""Several machines on a virtual clock that hand shards to each other among seeded faults, judged by the slot checker.

A failure names its seed; ``make simulate-cluster SEED=…`` repeats it exactly, ``make simulate-cluster SEEDS=…`` runs many.
"""

from __future__ import annotations

from collections import defaultdict

import pytest

from simulation.cluster_story import ClusterStory

CHUNK = 2  # seeds in one test
SEEDS = 12


def seeds(first, following, step=1):
    """Return the seeds up to *first*, and those up to *following* for the tests that take long."""
    return [
        *range(0, first, step),
        *(pytest.param(seed, marks=pytest.mark.long) for seed in range(first, following, step)),
    ]


@pytest.mark.parametrize("first", seeds(6, SEEDS, CHUNK))
def test_every_promise_is_kept_whoever_drives_a_shard(first):
    hand_overs = 0
    for seed in range(first, first + CHUNK):
        verdict = ClusterStory(seed).run()
        assert not verdict.wrong, f"make simulate-cluster SEED={seed}:\n" + "\n".join(verdict.wrong[:10])
        assert verdict.slots > 100
        hand_overs += verdict.faults["hand-over"]
    assert hand_overs > 10


@pytest.mark.parametrize("seed", seeds(2, 4))
def test_without_faults_every_fire_leaves_once_and_what_is_not_handed_over_at_its_very_instant(seed):
    story = ClusterStory(seed, is_calm=True)
    verdict = story.run()
    assert not verdict.wrong, f"seed {seed}:\n" + "\n".join(verdict.wrong[:10])
    times_sent = defaultdict(int)
    late = []
    for shard in story.cluster.shards:
        for each in (sent.arrival for sent in shard.sent):
            times_sent[each.entry.fire_id] += 1
            due = each.entry.fire.due_time
            is_on_the_way = any(
                move.since <= each.released_us // 1000 and due <= move.until for move in shard.moves
            )
            if each.released_us != due * 1000 and not is_on_the_way:
                late.append((each.entry.fire_id, each.released_us - due * 1000))
    assert not late, f"seed {seed}: {late[:5]}"
    assert set(times_sent.values()) == {1}
    assert verdict.faults["hand-over"] > 10
