"""Instants as people write them."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest

from cronally.domain.instant_text import read_absolute, read_instant
from cronally.domain.zones import load_zone
from cronally.errors import UsageError
from cronally.instants import format_utc, parse_rfc3339

NOW = parse_rfc3339("2026-11-24T15:30:00Z")  # a Tuesday; 16:30 in Paris


def read(text, tz="Europe/Paris", *, now=NOW, direction=1):
    return read_instant(text, load_zone(tz), now=now, direction=direction)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-12-24T18:00:00Z", "2026-12-24T18:00:00Z"),
        ("2026-12-24T18:00:00.5+02:00", "2026-12-24T16:00:00.500Z"),
        ("2026-12-24T18:00", "2026-12-24T17:00:00Z"),
        (" 2026-12-24  18:00:30 ", "2026-12-24T17:00:30Z"),
        ("2026-12-24", "2026-12-23T23:00:00Z"),
        ("2026-07-01 9am", "2026-07-01T07:00:00Z"),
        ("now", "2026-11-24T15:30:00Z"),
        ("2h", "2026-11-24T17:30:00Z"),
        ("1d12h", "2026-11-26T03:30:00Z"),
        ("in 90s", "2026-11-24T15:31:30Z"),
        ("10m ago", "2026-11-24T15:20:00Z"),
        ("today", "2026-11-23T23:00:00Z"),
        ("Tomorrow 9:00", "2026-11-25T08:00:00Z"),
        ("tomorrow at 9:00", "2026-11-25T08:00:00Z"),
        ("tomorrow noon", "2026-11-25T11:00:00Z"),
        ("yesterday 23:59:59", "2026-11-23T22:59:59Z"),
        ("tomorrow", "2026-11-24T23:00:00Z"),
        ("18:00", "2026-11-24T17:00:00Z"),
        ("16:30", "2026-11-25T15:30:00Z"),
        ("16:00", "2026-11-25T15:00:00Z"),
        ("6pm", "2026-11-24T17:00:00Z"),
        ("12am", "2026-11-24T23:00:00Z"),
        ("12:15pm", "2026-11-25T11:15:00Z"),
        ("midnight", "2026-11-24T23:00:00Z"),
        ("fri 9:00", "2026-11-27T08:00:00Z"),
        ("FRIDAY", "2026-11-26T23:00:00Z"),
        ("tue 18:00", "2026-11-24T17:00:00Z"),
        ("tue 9:00", "2026-12-01T08:00:00Z"),
        ("tuesday", "2026-11-30T23:00:00Z"),
    ],
)
def test_what_is_to_come(text, at):
    assert format_utc(read(text).at) == at


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2h", "2026-11-24T13:30:00Z"),
        ("in 2h", "2026-11-24T17:30:00Z"),
        ("18:00", "2026-11-23T17:00:00Z"),
        ("16:30", "2026-11-24T15:30:00Z"),
        ("fri 9:00", "2026-11-20T08:00:00Z"),
        ("tue", "2026-11-23T23:00:00Z"),
        ("tue 18:00", "2026-11-17T17:00:00Z"),
        ("tomorrow 9:00", "2026-11-25T08:00:00Z"),
    ],
)
def test_what_has_been(text, at):
    assert format_utc(read(text, direction=-1).at) == at


@pytest.mark.parametrize(
    ("text", "at", "kind"),
    [
        ("2026-11-23T09:00:00+01:00", "2026-11-23T08:00:00Z", "once"),
        ("2026-07-23T09:00", "2026-07-23T08:00:00Z", "once"),
        ("2026-03-29T01:30", "2026-03-29T01:00:00Z", "gap"),
        ("2026-10-25T01:30", "2026-10-25T00:30:00Z", "repeat"),
    ],
)
def test_local_times_that_do_not_exist_or_come_twice(text, at, kind):
    asked = read(text, "Europe/London")
    assert (format_utc(asked.at), asked.kind) == (at, kind)
    assert (asked.local is None) is text.endswith("+01:00")


def test_the_day_is_that_of_the_zone():
    late = parse_rfc3339("2026-11-24T23:30:00Z")
    assert format_utc(read("tomorrow 9:00", "UTC", now=late).at) == "2026-11-25T09:00:00Z"
    assert format_utc(read("tomorrow 9:00", "Asia/Tokyo", now=late).at) == "2026-11-26T00:00:00Z"


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "9", "tomorrow 9", "25:00", "9:60", "13pm", "0am", "tomorrow 9:00 sharp", "at 9:00", "next monday", "in", "in x",
     "x ago", "2026-02-30", "2026-02-30T00:00", "٢026-01-01T00:00", "24-12-2026", "5/6", "monday tuesday", "T9:00", "-2h", "2h30",
     "9999999d", "0001-01-01T00:00+14:00", "0001-01-01"],
)  # fmt: skip
@pytest.mark.parametrize("direction", [-1, 1])
def test_what_is_no_instant_is_refused_with_the_right_forms(text, direction):
    ago = "ago" if direction < 0 else "from now"
    right = re.escape(
        f"2h for two hours {ago}, or 2026-12-24T18:00, 'tomorrow 9:00' or 'fri 9:00' for the local time in Asia/Tokyo"
    )
    with pytest.raises(UsageError, match=right):
        read(text, "Asia/Tokyo", direction=direction)


@pytest.mark.parametrize("text", ["tomorrow", "9:00", "2026-12-24T18:00", "2026-12-24"])
def test_what_is_local_is_not_absolute(text):
    assert read_absolute(text, now=NOW, direction=1) is None


@pytest.mark.parametrize("now", ["0001-01-01T00:30:00Z", "9999-12-31T23:30:00Z"])
@pytest.mark.parametrize("text", ["yesterday 9:00", "tomorrow 9:00", "mon", "sun", "23:59"])
def test_at_the_ends_of_time_it_is_refused_or_read_but_nothing_breaks(now, text):
    for direction in (-1, 1):
        for tz in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
            with suppress(UsageError):
                read(text, tz, now=parse_rfc3339(now), direction=direction)
