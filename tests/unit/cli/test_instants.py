"""The zone of instants that options state."""

from __future__ import annotations

import pytest

from cronally.cli import instants
from cronally.cli.instants import before_now, instant, shell_zone
from cronally.errors import UsageError, ZoneError
from cronally.instants import format_utc, parse_rfc3339
from support.fake_clock import FakeClock


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """It is 16:30 in Paris."""
    monkeypatch.setattr(instants, "SystemClock", lambda: FakeClock("2026-11-24T15:30:00Z"))


@pytest.mark.parametrize("given", ["Europe/Paris", ":Europe/Paris"])
def test_the_zone_of_the_shell_is_that_of_tz(monkeypatch, given):
    monkeypatch.setenv("TZ", given)
    assert shell_zone() == "Europe/Paris"
    assert before_now("--since", "yesterday 9:00") == "2026-11-23T08:00:00Z"
    assert before_now("--since", "18:00") == "2026-11-23T17:00:00Z"


@pytest.mark.parametrize(
    ("link", "name"),
    [
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("/var/db/timezone/zoneinfo/UTC", "UTC"),
        (None, "UTC"),
    ],
)
def test_without_it_that_of_the_machine(monkeypatch, tmp_path, link, name):
    monkeypatch.delenv("TZ", raising=False)
    place = tmp_path / "localtime"
    if link is not None:
        place.symlink_to(link)
    monkeypatch.setattr(instants, "_LOCALTIME", place)
    assert shell_zone() == name


def test_a_zone_without_a_name_is_refused_only_when_it_is_needed(monkeypatch):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    assert before_now("--since", "2h") == "2h"
    assert before_now("--since", "2026-11-01T00:00:00Z") == "2026-11-01T00:00:00Z"
    with pytest.raises(UsageError, match="has no IANA name; write an instant with its offset"):
        before_now("--since", "yesterday")


def test_an_option_is_named_when_its_instant_is_none():
    assert (
        format_utc(instant("--ends", "fri", tz=lambda: "Asia/Tokyo", direction=1)) == "2026-11-26T15:00:00Z"
    )
    with pytest.raises(UsageError, match="--ends: 'soon' is no instant"):
        instant("--ends", "soon", tz=lambda: "UTC", direction=1)
    with pytest.raises(ZoneError, match="Mars"):
        instant("--ends", "fri", tz=lambda: "Mars/Base", direction=1)
    absolute = instant("--ends", "2026-12-24T18:00:00Z", tz=lambda: "Mars/Base", direction=1)
    assert absolute == parse_rfc3339("2026-12-24T18:00:00Z")
