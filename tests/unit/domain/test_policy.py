"""Missed slots at the boundaries; the general case is tests/property/test_policy.py."""

from __future__ import annotations

import pytest

from cronally.domain.model import CatchUp
from cronally.domain.policy import SlotRange, Window, backoff_ms, catch_up, next_slot, range_in, slot_window
from cronally.domain.recurrence import Recurrence
from cronally.instants import MAX_UTC_MS

MINUTELY = Recurrence.parse("* * * * *")
NINE = 1_795_424_400_000
MINUTE = 60_000


def decided(policy, *, until=NINE + 5 * MINUTE, settled=(), deadline_ms=86_400_000, late_ms=30_000):
    return catch_up(
        MINUTELY,
        Window(NINE - 1, until),
        settled,
        now=until + late_ms,
        offset_ms=0,
        policy=policy,
        deadline_ms=deadline_ms,
    )


def minutes(slots):
    return [(slot - NINE) // MINUTE for slot in slots]


@pytest.mark.parametrize(
    ("policy", "fires", "skipped"),
    [
        (CatchUp.LATEST, [5], [SlotRange(NINE, NINE + 4 * MINUTE, 5)]),
        (CatchUp.ALL, [0, 1, 2, 3, 4, 5], []),
        (CatchUp.SKIP, [], [SlotRange(NINE, NINE + 5 * MINUTE, 6)]),
    ],
)
def test_each_policy(policy, fires, skipped):
    result = decided(policy)
    assert (minutes(result.fires), result.expired, result.skipped) == (fires, [], skipped)


@pytest.mark.parametrize(("late_ms", "missed"), [(10_000, False), (10_001, True)])
def test_more_than_ten_seconds_late_is_missed(late_ms, missed):
    assert (minutes(decided(CatchUp.SKIP, late_ms=late_ms).fires) == []) is missed


@pytest.mark.parametrize(("deadline_ms", "is_expired"), [(30_000, False), (29_999, True)])
def test_the_deadline_is_the_last_instant_at_which_an_attempt_may_begin(deadline_ms, is_expired):
    result = decided(CatchUp.LATEST, deadline_ms=deadline_ms)
    assert (minutes(result.expired) == [5]) is is_expired
    assert (minutes(result.fires) == [5]) is not is_expired


def test_ranges_touch_no_settled_slot():
    settled = [(NINE + MINUTE, NINE + 2 * MINUTE), (NINE + 4 * MINUTE, NINE + 4 * MINUTE)]
    result = decided(CatchUp.SKIP, settled=settled)
    assert [(*minutes([r.first, r.last]), r.slots) for r in result.skipped] == [
        (0, 0, 1),
        (3, 3, 1),
        (5, 5, 1),
    ]


def test_the_newest_unsettled_slot_is_the_latest():
    result = decided(CatchUp.LATEST, settled=[(NINE + 5 * MINUTE, NINE + 9 * MINUTE)])
    assert minutes(result.fires) == [4]


def test_all_fires_the_newest_thousand_and_skips_the_others_in_one_range():
    result = decided(CatchUp.ALL, until=NINE + 1499 * MINUTE)
    assert minutes(result.fires) == list(range(500, 1500))
    assert result.skipped == [SlotRange(NINE, NINE + 499 * MINUTE, 500)]


def test_nothing_is_decided_in_an_empty_window():
    assert catch_up(
        MINUTELY,
        Window(NINE, NINE),
        (),
        now=NINE,
        offset_ms=0,
        policy=CatchUp.ALL,
        deadline_ms=1000,
    ) == ([], [], [])


def test_bounds_are_inclusive_and_effective_from_is_not():
    window = slot_window(NINE, None, NINE + 2 * MINUTE)
    assert range_in(MINUTELY, window) == (NINE + MINUTE, NINE + 2 * MINUTE, 2)
    assert range_in(MINUTELY, slot_window(NINE - 10 * MINUTE, NINE, NINE)) == (NINE, NINE, 1)
    assert slot_window(NINE, NINE - MINUTE, None) == (NINE, MAX_UTC_MS)
    assert next_slot(MINUTELY, window, NINE + 2 * MINUTE) is None
    assert range_in(MINUTELY, Window(NINE + 1, NINE + 2)) is None
    assert range_in(MINUTELY, Window(NINE, NINE)) is None


@pytest.mark.parametrize(
    ("attempts", "jitter", "ms"),
    [(1, 0.5, 100), (2, 0.5, 200), (9, 0.5, 25_600), (10, 0.5, 30_000), (10**9, 0.5, 30_000), (1, 0.0, 1)],
)
def test_backoff_doubles_from_a_fifth_of_a_second_to_a_minute(attempts, jitter, ms):
    assert backoff_ms(attempts, jitter) == ms
