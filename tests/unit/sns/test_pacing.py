"""The token bucket of a region."""

from __future__ import annotations

import pytest

from cronally.engine.figures import QuotaUse
from cronally.instants import MonoS
from cronally.sns.pacing import Pacing, quota_per_s

VIRGINIA = "arn:aws:sns:us-east-1:123456789012:reports"
OTHER = "arn:aws:sns:us-east-1:123456789012:other"
FIFO = "arn:aws:sns:us-east-1:123456789012:orders.fifo"
MILAN = "arn:aws:sns:eu-south-1:123456789012:reports"


def has_room(pacing, topic, messages, now):
    return pacing.room_in_s(topic, messages, now) == 0


def drained(pacing, topic, seconds, *, start=0.0, step_s=0.01, batch=10):
    """Return how many messages leave in *seconds* when there is always more."""
    sent = 0
    for step in range(round(seconds / step_s) + 1):
        now = start + step * step_s
        while has_room(pacing, topic, batch, now):
            pacing.take(topic, batch, now)
            sent += batch
    return sent


def test_machines_that_share_the_work_share_the_quotas():
    alone, half, other = (
        Pacing({"us-east-1": 1_000}),
        Pacing({"us-east-1": 1_000}),
        Pacing({"us-east-1": 1_000}),
    )
    half.share(0.5)
    other.share(0.5)
    both = drained(half, VIRGINIA, 5) + drained(other, VIRGINIA, 5)
    assert both == pytest.approx(drained(alone, VIRGINIA, 5), abs=20)


def test_a_part_that_changes_holds_at_once_and_a_rate_that_has_fallen_stays_fallen():
    pacing = Pacing({"us-east-1": 1_000})
    drained(pacing, VIRGINIA, 0)
    pacing.throttled(VIRGINIA, MonoS(0))
    [fallen] = pacing.uses(MonoS(0))
    pacing.share(0.25)
    [part] = pacing.uses(MonoS(0))
    assert (part.quota, part.rate) == (250, pytest.approx(fallen.rate / 4))
    pacing.share(1)
    [whole] = pacing.uses(MonoS(0))
    assert (whole.quota, whole.rate) == (1_000, pytest.approx(fallen.rate))


def test_of_a_small_part_a_whole_batch_still_fits():
    pacing = Pacing({"default": 300})
    pacing.share(1 / 64)
    assert has_room(pacing, MILAN, 10, 0.0)
    pacing.take(MILAN, 10, 0.0)
    assert pacing.room_in_s(MILAN, 10, 0.0) == pytest.approx(10 * 64 / 300)


@pytest.mark.parametrize(
    ("region", "is_fifo", "given", "expected"),
    [
        ("us-east-1", False, {}, 30_000),
        ("eu-west-1", False, {}, 9_000),
        ("eu-central-1", False, {}, 1_500),
        ("eu-central-1", True, {}, 3_000),
        ("eu-south-1", False, {}, 300),
        ("eu-south-1", True, {}, 3_000),
        ("us-east-1", False, {"us-east-1": 50_000}, 50_000),
        ("us-east-1", False, {"eu-west-1": 1}, 30_000),
        ("us-east-1", False, {"default": 0}, 0),
        ("us-east-1", True, {"default": 7, "us-east-1": 0}, 0),
        ("us-west-2", True, {"default": 7, "us-east-1": 0}, 7),
    ],
)
def test_the_quota_is_the_published_one_unless_it_is_given(region, is_fifo, given, expected):
    assert quota_per_s(region, is_fifo=is_fifo, given=given) == expected


def test_a_second_of_quota_leaves_at_once_and_the_rest_at_the_rate():
    pacing = Pacing({"us-east-1": 1_000})
    assert drained(pacing, VIRGINIA, 0) == 1_000
    assert drained(pacing, VIRGINIA, 5) == pytest.approx(5_000, abs=10)


def test_an_idle_bucket_holds_no_more_than_a_second():
    pacing = Pacing({"us-east-1": 1_000})
    drained(pacing, VIRGINIA, 0)
    assert drained(pacing, VIRGINIA, 0, start=3_600.0) == 1_000


def test_topics_of_a_region_share_its_bucket_and_fifo_and_regions_do_not():
    pacing = Pacing({"us-east-1": 100, "eu-south-1": 100})
    assert drained(pacing, VIRGINIA, 0) == 100
    assert not has_room(pacing, OTHER, 1, 0.0)
    assert has_room(pacing, FIFO, 10, 0.0)
    assert has_room(pacing, MILAN, 10, 0.0)


def test_no_quota_is_no_limit():
    pacing = Pacing({"default": 0})
    for _ in range(1_000):
        pacing.take(VIRGINIA, 10, 0.0)
    pacing.throttled(VIRGINIA, 0.0)
    assert has_room(pacing, VIRGINIA, 10, 0.0)
    assert pacing.wait_s(VIRGINIA, 10**6, 0.0) == 0


def test_it_says_how_long_messages_take_and_when_a_batch_may_go():
    pacing = Pacing({"us-east-1": 100})
    assert pacing.wait_s(VIRGINIA, 100, 0.0) == 0
    assert pacing.wait_s(VIRGINIA, 1_100, 0.0) == pytest.approx(10)
    drained(pacing, VIRGINIA, 0)
    assert pacing.room_in_s(VIRGINIA, 10, 0.0) == pytest.approx(0.1)
    assert pacing.room_in_s(VIRGINIA, 10, 0.05) == pytest.approx(0.05)
    assert pacing.room_in_s(VIRGINIA, 10, 0.1) == pytest.approx(0, abs=1e-9)


def test_a_whole_batch_fits_into_the_smallest_bucket():
    pacing = Pacing({"us-east-1": 1})
    assert has_room(pacing, VIRGINIA, 10, 0.0)
    pacing.take(VIRGINIA, 10, 0.0)
    assert pacing.room_in_s(VIRGINIA, 10, 0.0) == pytest.approx(10)


def test_throttling_stops_what_is_left_and_lowers_the_rate_once_for_one_overload():
    pacing = Pacing({"us-east-1": 1_000})
    for _ in range(50):
        pacing.throttled(VIRGINIA, 10.0)
    assert not has_room(pacing, VIRGINIA, 1, 10.0)
    assert pacing.wait_s(VIRGINIA, 700, 10.0) == pytest.approx(1)
    pacing.throttled(VIRGINIA, 10.5)
    assert pacing.wait_s(VIRGINIA, 700, 10.5) == pytest.approx(1)
    pacing.throttled(VIRGINIA, 11.0)
    assert pacing.wait_s(VIRGINIA, 490, 11.0) == pytest.approx(1)


def test_it_never_falls_so_low_that_it_cannot_find_out_that_all_is_well_again():
    pacing = Pacing({"us-east-1": 1_000})
    for second in range(100):
        pacing.throttled(VIRGINIA, float(second))
    assert pacing.wait_s(VIRGINIA, 20, 99.0) == pytest.approx(1)


def test_the_rate_rises_again_to_the_quota_and_no_further():
    pacing = Pacing({"us-east-1": 1_000})
    pacing.throttled(VIRGINIA, 0.0)
    assert drained(pacing, VIRGINIA, 60) < 60_000
    assert drained(pacing, VIRGINIA, 10, start=60.01) == pytest.approx(10_000, abs=20)


def test_a_clock_that_stands_still_or_goes_back_gives_nothing():
    pacing = Pacing({"us-east-1": 100})
    pacing.take(VIRGINIA, 100, 5.0)
    assert not has_room(pacing, VIRGINIA, 1, 4.0)
    assert not has_room(pacing, VIRGINIA, 1, 5.0)


def test_it_tells_how_each_quota_is_used():
    pacing = Pacing({"us-east-1": 100, "eu-west-1": 0})
    standard, fifo = "arn:aws:sns:us-east-1:123456789012:a", "arn:aws:sns:us-east-1:123456789012:a.fifo"
    pacing.take(standard, 30, MonoS(0))
    pacing.take(standard, 30, MonoS(0))
    pacing.take(fifo, 1, MonoS(0))
    pacing.take("arn:aws:sns:eu-west-1:123456789012:a", 5, MonoS(0))
    pacing.throttled(fifo, MonoS(0))
    first, second = pacing.uses(MonoS(0.1))
    assert first == QuotaUse("us-east-1", False, 100, 100, pytest.approx(50), 60, 0)
    assert second[:3] == ("us-east-1", True, 100)
    assert second.rate < 100
    assert (second.sent, second.throttled) == (1, 1)


def test_other_quotas_hold_at_once_and_what_stays_keeps_its_bucket():
    east = "arn:aws:sns:us-east-1:123456789012:reports"
    west = "arn:aws:sns:us-west-2:123456789012:reports"
    pacing = Pacing({"us-east-1": 100, "us-west-2": 100})
    for topic in (east, west):
        pacing.take(topic, 100, 0.0)
        assert pacing.wait_s(topic, 100, 0.0) == 1
    pacing.replace({"us-east-1": 1000, "us-west-2": 100})
    assert pacing.wait_s(east, 1000, 0.0) == 0
    assert pacing.wait_s(west, 100, 0.0) == 1
    pacing.replace({"default": 0})
    assert pacing.wait_s(west, 1_000_000, 0.0) == 0
