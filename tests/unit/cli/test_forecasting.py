from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from cronally.admin.wire import Forecast, Load
from cronally.cli import forecasting

MINUTES = 1_440


def forecast(counts, *, starts_at="2026-11-23T09:05:00Z", quota=300.0):
    minutes = [0] * MINUTES
    for number, count in counts.items():
        minutes[number] = count
    return Forecast(
        starts_at=starts_at,
        loads=[Load(region="eu-west-1", is_fifo=False, quota_per_s=quota, minutes=minutes)],
    )


def lines(made):
    return "\n".join(forecasting.lines(made)).split("\n")


def test_a_row_is_an_hour_and_a_character_a_minute():
    shown = lines(forecast({0: 1, 54: 900, 55: 450, MINUTES - 1: 1}))
    assert shown[0] == "messages in each minute of the 24 hours from 2026-11-23T09:05:00Z: 1,352, at most 900"
    assert shown[2] == "      :00       :10       :20       :30       :40       :50       "
    assert shown[3] == "09:00      ." + " " * 53 + "@"
    assert shown[4] == "10:00 +"
    assert shown[27] == "09:00     ."


@pytest.mark.parametrize(
    ("width", "each"), [(None, 1), (66, 1), (65, 2), (40, 2), (36, 2), (35, 5), (18, 5), (17, 10), (5, 10)]
)
def test_on_a_narrow_terminal_a_character_is_a_few_minutes(width, each):
    assert forecasting.minutes_each(width) == each


@pytest.mark.parametrize(
    ("each", "heads", "first"),
    [
        (2, "      :00  :10  :20  :30  :40  :50  ", "09:00   ." + " " * 26 + "@"),
        (5, "      :00   :30   ", "09:00  .         @"),
        (10, "      :00:30", "09:00 .    @"),
    ],
)
def test_of_a_few_minutes_the_busiest_is_shown(each, heads, first):
    shown = list(forecasting.lines(forecast({0: 1, 54: 900, MINUTES - 1: 1}), each=each))
    assert shown[2:4] == [heads, first]


def test_the_busiest_minutes_say_what_the_quota_makes_of_them():
    shown = lines(forecast({55: 900, 115: 40_000, 175: 300, 235: 10}))
    table = shown[shown.index("eu-west-1: quota 300 messages/s") + 1 :]
    assert table == [
        "MINUTE (UTC)      MESSAGES  LEAVE WITHIN  SPREAD",
        "2026-11-23 11:00  40,000    133 s         5m",
        "2026-11-23 10:00  900       3 s           10s",
        "2026-11-23 12:00  300       at once       -",
        "2026-11-23 13:00  10        at once       -",
    ]


@pytest.mark.parametrize(
    ("count", "quota", "expected"),
    [(300, 300, None), (301, 300, "10s"), (1_501, 300, "30s"), (10**9, 300, "6h"), (10**9, 0, None)],
)
def test_a_spread_lets_them_leave_at_half_of_the_quota(count, quota, expected):
    assert forecasting.spread_for(count, quota) == expected


def test_nothing_to_come_is_said_in_one_line():
    assert lines(Forecast(starts_at="2026-11-23T09:05:00Z", loads=[])) == [
        "messages in each minute of the 24 hours from 2026-11-23T09:05:00Z: 0, at most 0"
    ]


def test_a_picture_has_a_cell_for_each_minute_that_has_messages():
    text = forecasting.svg_text(forecast({0: 1, 55: 9}))
    ET.fromstring(text)
    assert re.findall(r"<title>(.*?)</title>", text) == ["2026-11-23 09:05: 1", "2026-11-23 10:00: 9"]
    ET.fromstring(forecasting.svg_text(Forecast(starts_at="2026-11-23T09:05:00Z", loads=[])))
