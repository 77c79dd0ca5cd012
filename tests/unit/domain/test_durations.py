"""Durations as users write them."""

from __future__ import annotations

import pytest

from cronally.domain.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds", "written"),
    [
        ("90s", 90, "1m30s"),
        ("5m", 300, "5m"),
        ("1h30m", 5400, "1h30m"),
        ("2d", 172_800, "2d"),
        ("1d1h1m1s", 90_061, "1d1h1m1s"),
        ("36h", 129_600, "1d12h"),
        ("0s", 0, "0s"),
        ("0", 0, "0s"),
        ("01s", 1, "1s"),
    ],
)
def test_a_duration_is_read_and_written(text, seconds, written):
    assert parse_duration(text) == seconds * 1000
    assert format_duration(seconds * 1000) == written
    assert parse_duration(written) == seconds * 1000


@pytest.mark.parametrize(
    "text", ["", "5", "5 m", "m", "1m1h", "1.5h", "-5s", "5S", "1s1s", "٥s", "1w", "9" * 20 + "s"]
)
def test_anything_else_is_refused_with_the_right_form(text):
    with pytest.raises(ValueError, match="write it as 90s, 5m, 1h30m or 2d"):
        parse_duration(text)
