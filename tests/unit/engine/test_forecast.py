"""What a forecast counts: the slots that the schedules will have, minute by minute."""

from __future__ import annotations

from collections import Counter

import pytest

from cronally.domain.topic import Way
from cronally.engine.forecast import MINUTES
from cronally.instants import parse_rfc3339
from support.rig import FIFO_TOPIC, TOPIC, running_engine

WEST = "arn:aws:sns:us-west-2:123456789012:reports"
STARTS = parse_rfc3339("2026-11-23T09:00:00Z")  # the clock shows 08:59:30
EAST = Way("us-east-1", is_fifo=False)
MINUTE_MS, HOUR_MS = 60_000, 3_600_000


def minute(text):
    return (parse_rfc3339(f"2026-11-{text}Z") - STARTS) // MINUTE_MS


async def forecast_of(*schedules):
    async with running_engine() as rig:
        await rig.apply(*({"name": f"s{n}", "topic": TOPIC, **keys} for n, keys in enumerate(schedules)))
        return await rig.service.forecast()


def found(forecast, way=EAST):
    return {number: count for number, count in enumerate(forecast.minutes[way]) if count}


async def test_it_begins_with_the_next_full_minute_and_takes_a_day():
    forecast = await forecast_of({"when": "* * * * *"})
    assert forecast.starts_at == STARTS
    assert list(forecast.minutes[EAST]) == [1] * MINUTES


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"when": "30 12 * * *"}, {"23T12:30:00": 1}),
        ({"when": "30 12 * * *", "tz": "America/New_York"}, {"23T17:30:00": 1}),
        ({"when": "0 9 * * *"}, {"23T09:00:00": 1}),
        ({"when": "59 8 * * *"}, {"24T08:59:00": 1}),
        ({"when": "@at 2026-11-23T18:00:00Z"}, {"23T18:00:00": 1}),
        ({"when": "0 */6 * * *", "starts": "2026-11-23T13:00:00Z", "ends": "2026-11-24T00:00:00Z"},
         {"23T18:00:00": 1, "24T00:00:00": 1}),
        ({"when": "0 12 * * *", "ends": "2026-11-23T11:00:00Z"}, {}),
    ],
)  # fmt: skip
async def test_each_kind_of_rule_is_counted_where_it_is_due(keys, expected):
    forecast = await forecast_of(keys, {"when": "0 10 * * *"})
    assert found(forecast) == {minute("23T10:00:00"): 1} | {minute(text): n for text, n in expected.items()}


@pytest.mark.parametrize("when", ["@every 1s", "@every 7s", "@every 25s", "@every 59s", "@every 61s"])
async def test_a_rule_with_many_slots_a_minute_has_each_in_its_minute(when):
    starts = "2026-11-23T10:00:30Z"
    async with running_engine() as rig:
        await rig.add("all", when)
        await rig.add("later", when, starts=starts, spread="1h")
        forecast = await rig.service.forecast()
        expected = Counter()
        for name, first in (("all", STARTS - HOUR_MS), ("later", parse_rfc3339(starts))):
            spec = (await rig.service.get(name)).stored.spec
            slots = spec.recurrence().between_ms(first - 1, STARTS + 25 * HOUR_MS)
            expected.update((slot + spec.offset_ms() - STARTS) // MINUTE_MS for slot in slots)
    assert list(forecast.minutes[EAST]) == [expected[number] for number in range(MINUTES)]


async def test_many_that_share_a_rule_count_as_many_and_those_with_bounds_singly():
    many = [{"when": "0 12 * * *"}] * 2_000
    forecast = await forecast_of(*many, {"when": "0 12 * * *", "ends": "2026-11-23T11:00:00Z"})
    assert found(forecast) == {minute("23T12:00:00"): 2_000}


async def test_a_spread_counts_when_it_is_due():
    forecast = await forecast_of(*[{"when": "0 12 * * *", "spread": "10m"}] * 200)
    counts = found(forecast)
    assert set(counts) == set(range(minute("23T12:00:00"), minute("23T12:10:00")))
    assert sum(counts.values()) == 200


async def test_regions_and_fifo_topics_have_quotas_of_their_own():
    daily = {"when": "0 12 * * *"}
    forecast = await forecast_of(daily, daily | {"topic": WEST}, daily | {"topic": FIFO_TOPIC})
    assert set(forecast.minutes) == {EAST, Way("us-west-2", is_fifo=False), Way("us-east-1", is_fifo=True)}


async def test_what_is_paused_is_left_out():
    forecast = await forecast_of({"when": "0 12 * * *", "paused": True})
    assert forecast.minutes == {}
