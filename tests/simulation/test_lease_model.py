"""The protocol of leases in every order of its steps: no promise is broken, and each one is when the protocol is another one.

``make model-check`` goes further.
"""

from __future__ import annotations

import os

import pytest

from simulation.lease_model import Flaw, Model, search

MOST_STATES = int(os.environ.get("MODEL_STATES", "15000"))
"""That are looked at in each arrangement; a million takes some two minutes."""

ARRANGEMENTS = {
    "a shard nobody has": Model(machines=2, shards=1, most_takes=3),
    "a shard that is handed on and on": Model(machines=2, shards=1, most_takes=4, is_settled=True),
    "two shards": Model(machines=2, shards=2, is_settled=True),
    "a crash": Model(machines=2, shards=2, is_settled=True, has_crash=True),
    "a crash, and two to take over": Model(machines=3, shards=1, is_settled=True, has_crash=True),
    "three machines, and a chain of crashes": Model(machines=3, shards=1, most_takes=4, is_settled=True),
    "a longer lease": Model(machines=2, shards=1, lease=3, is_settled=True),
}

TWO = "two machines may send for one shard"
EPOCH = "an epoch has two owners"
JUMP = "a watermark is beyond a slot without an entry"

SHARED = Model(machines=2, shards=1, is_settled=True)
CRASHED = Model(machines=2, shards=2, is_settled=True, has_crash=True)
ALONE = Model(machines=2, shards=2, is_settled=True, has_crash=True, is_dead=True)
"""For flaws that one machine shows by itself: with the other one to be looked at in between, fifty thousand states come before."""

FLAWS = {
    Flaw.TAKES_WITHOUT_RETIRING: (SHARED, "a machine has committed for a shard that is another's"),
    Flaw.NEVER_RETIRES: (SHARED, "slots are lost when 1 alone lives"),
    Flaw.TRUSTS_FROM_THE_END: (SHARED, TWO),
    Flaw.SENDS_WITHOUT_TRUST: (SHARED, TWO),
    Flaw.RETIRES_WHATEVER_VERSION: (SHARED, TWO),
    Flaw.RETIRES_TOO_SOON: (SHARED, TWO),
    Flaw.COMMITS_UNFENCED: (SHARED, "a retired machine has committed"),
    Flaw.EPOCH_STAYS: (SHARED, EPOCH),
    Flaw.TAKES_UNCONDITIONALLY: (SHARED, EPOCH),
    Flaw.TAKES_WITH_ITS_OWN_WATERMARK: (CRASHED, JUMP),
    Flaw.FORGETS_BEHIND: (CRASHED, JUMP),
    Flaw.SAYS_BEHIND_AFTERWARDS: (CRASHED, JUMP),
    Flaw.ENDS_BEHIND_AT_ONCE: (CRASHED, JUMP),
    Flaw.ENDS_BEHIND_WITH_ANY_COMMIT: (CRASHED, JUMP),
    Flaw.ENDS_BEHIND_EARLY: (CRASHED, JUMP),
    Flaw.GIVES_IN_LINE: (ALONE, JUMP),
    Flaw.HOLDS_BEFORE_ITS_COMMIT: (ALONE, JUMP),
    Flaw.GIVES_UNCOMMITTED: (SHARED, JUMP),
    Flaw.SENDS_WHAT_IT_GIVES: (SHARED, TWO),
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_no_order_of_steps_breaks_a_promise_and_all_slots_end_settled(name):
    found = search(ARRANGEMENTS[name], most_states=MOST_STATES, settle_every=100)
    assert found.broken is None, "\n".join(found.steps)
    assert found.is_all or found.states == MOST_STATES
    print(f"{name}: {found.states:,} states{', which are all' if found.is_all else ''}")


def test_every_flaw_is_tried():
    assert FLAWS.keys() == {*Flaw}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_is_found(flaw):
    model, promise = FLAWS[flaw]
    every = 20 if "lives" in promise else 0
    flawed = Model(**{**vars(model), "flaw": flaw, "_silent": {}})
    found = search(flawed, most_states=200_000, settle_every=every)
    print(*found.steps, sep="\n")
    assert found.broken == promise
