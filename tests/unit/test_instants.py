"""Instants, read and written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronally.instants import MAX_UTC_MS, MIN_UTC_MS, format_utc, from_datetime, parse_rfc3339, to_datetime


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-12-24T18:00:00Z", 1_798_135_200_000),
        ("2026-12-24T18:00Z", 1_798_135_200_000),
        ("2026-12-24t18:00:00z", 1_798_135_200_000),
        ("2026-12-24 19:00:00+01:00", 1_798_135_200_000),
        ("2026-12-24T12:30:00-05:30", 1_798_135_200_000),
        (" 2026-12-24T18:00:00.5Z ", 1_798_135_200_500),
        ("2026-12-24T18:00:00.123999999Z", 1_798_135_200_123),
        ("0001-01-01T00:00:00Z", MIN_UTC_MS),
        ("9999-12-31T23:59:59.999Z", MAX_UTC_MS),
    ],
)
def test_an_instant_is_read(text, ms):
    assert parse_rfc3339(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-12-24",
        "2026-12-24T18:00:00",
        "2026-02-30T18:00:00Z",
        "2026-12-24T25:00:00Z",
        "2026-12-24T18:00:60Z",
        "2026-12-24T18:00:00.Z",
        "2026-12-24T18:00:00+1:00",
        "26-12-24T18:00:00Z",
        "٢٠٢٦-12-24T18:00:00Z",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match=r".+"):
        parse_rfc3339(text)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (MIN_UTC_MS, "0001-01-01T00:00:00Z"),
        (MIN_UTC_MS + 1, "0001-01-01T00:00:00.001Z"),
        (MAX_UTC_MS, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_milliseconds_are_written_only_if_there_are_some(ms, text):
    assert format_utc(ms) == text


@given(st.integers(MIN_UTC_MS, MAX_UTC_MS))
def test_what_is_written_reads_back(ms):
    assert parse_rfc3339(format_utc(ms)) == ms
    assert from_datetime(to_datetime(ms)) == ms


def test_a_datetime_is_rounded_down_and_must_be_aware():
    assert from_datetime(datetime(1970, 1, 1, 0, 0, 0, 1999, UTC)) == 1
    assert from_datetime(datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 0
    with pytest.raises(ValueError, match="no UTC offset"):
        from_datetime(datetime(2026, 1, 1))  # noqa: DTZ001 - its lack is the subject
    with pytest.raises(OverflowError):
        to_datetime(MAX_UTC_MS + 1)
