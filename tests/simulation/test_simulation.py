"""The engine on a virtual clock among seeded faults, judged by the slot checker.

A failure names its seed; ``make simulate SEED=…`` repeats it exactly, ``make simulate SEEDS=…`` runs many. These are the first
of those that ``make simulate-short`` runs: so many that what breaks most days is seen at once.
"""

from __future__ import annotations

import pytest

from simulation.story import Story

CHUNK = 3  # seeds in one test: both workers get some
SEEDS = 6


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_promise_is_kept_among_faults(first):
    for seed in range(first, first + CHUNK):
        verdict = Story(seed).run()
        assert not verdict.wrong, f"make simulate SEED={seed}:\n" + "\n".join(verdict.wrong[:10])
        assert verdict.slots > 100


@pytest.mark.parametrize("seed", [50, 127])
def test_a_seed_that_found_something_once_finds_nothing_more(seed):
    assert not Story(seed).run().wrong


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 6))]
)
def test_without_faults_every_fire_leaves_once_and_at_its_very_instant(seed):
    story = Story(seed, is_calm=True)
    verdict = story.run()
    assert not verdict.wrong, f"seed {seed}:\n" + "\n".join(verdict.wrong[:10])
    arrivals = [sent.arrival for sent in story.sent]
    late = [each for each in arrivals if each.released_us != each.entry.fire.due_time * 1000]
    assert not late, f"seed {seed}: {[(each.entry.fire_id, each.released_us) for each in late[:5]]}"
    assert len({each.entry.fire_id for each in arrivals}) == len(arrivals) > 50
