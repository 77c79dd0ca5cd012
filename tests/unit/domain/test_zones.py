"""Zones as integers: the same answers as zoneinfo, from the tzdata package, and names that are never paths."""

from __future__ import annotations

import io
import random
import struct
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from zoneinfo import ZoneInfo

import pytest

from cronally.domain.zones import FAR, Zone, compile_tzif, footer_steps, load_zone, tzdata_version, zone_names
from cronally.errors import ZoneError
from support.slots_oracle import zone_info

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_2199 = 7_258_118_400


def offset_s(zone: ZoneInfo, second: int) -> int:
    return int((EPOCH + timedelta(seconds=second)).astimezone(zone).utcoffset().total_seconds())


def test_every_zone_agrees_with_zoneinfo_from_1970_to_2199():
    rng = random.Random(1)
    for name in sorted(zone_names()):
        zone, oracle = load_zone(name), zone_info(name)
        changes = [start for start in zone.starts[1:-1] if 0 < start < END_OF_2199]
        instants = [rng.randrange(END_OF_2199) for _ in range(60)]
        instants += [start + side for start in rng.sample(changes, min(20, len(changes))) for side in (-1, 0)]
        for instant in instants:
            assert zone.offset_at(instant) == offset_s(oracle, instant), (name, instant)


def test_no_change_is_missed():
    # New York 1967 to 2200: two a year, but 1974 and 1975 have their own dates
    changes = [start for start in load_zone("America/New_York").starts if 0 < start < END_OF_2199]
    assert len(changes) == 2 * 230


def test_neighbouring_segments_differ():
    for name in zone_names():
        zone = load_zone(name)
        assert all(one != other for one, other in zip(zone.offsets, zone.offsets[1:], strict=False)), name
        assert zone.starts == sorted(set(zone.starts))
        assert zone.starts[0] == -FAR
        assert zone.starts[-1] == FAR


def test_a_zone_is_compiled_once():
    assert load_zone("Europe/London") is load_zone("Europe/London")
    assert repr(load_zone("Europe/London")) == "Zone('Europe/London')"


def test_tzdata_version_is_the_packages():
    year, number = version("tzdata").split(".")[:2]
    assert tzdata_version() == f"{year}{chr(ord('a') + int(number) - 1)}"


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("europe/london", "Europe/London"),
        ("London", "Europe/London"),
        ("Europe/Londn", "Europe/London"),
        ("America/New York", "America/New_York"),
        ("new york", "America/New_York"),
        (" UTC ", "UTC"),
        ("PST", "America/Los_Angeles"),
        ("UTC+2", "Etc/GMT-2"),
        ("+02:00", "Etc/GMT-2"),
        ("GMT-5", "Etc/GMT+5"),
        ("UTC+20", None),
        ("", None),
        ("Mars/Base", None),
        ("../../etc/passwd", None),
        ("/etc/localtime", None),
        ("x" * 10_000, None),
        ("zone.tab", None),
        ("UTC\0", "UTC"),
        ("EST5EDT ", "EST5EDT"),
        ("Europe/London\u202e", "Europe/London"),
    ],
)
def test_unknown_zones_are_refused_with_the_nearest(name, suggestion):
    with pytest.raises(ZoneError) as caught:
        load_zone(name)
    assert caught.value.suggestion == suggestion
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()
    if suggestion is not None:
        assert f"did you mean {suggestion}?" in str(caught.value)


def test_the_file_system_is_never_asked_for_an_unknown_name(monkeypatch):
    def refuse(*_):
        raise AssertionError("opened")

    monkeypatch.setattr("cronally.domain.zones._compiled", refuse)
    for name in ("../zones", "Europe/../UTC", "Europe", "tzdata.zi", "./UTC"):
        with pytest.raises(ZoneError):
            load_zone(name)


def test_resolve_tells_gaps_and_repeats():
    zone = load_zone("America/New_York")  # 2026-03-08 07:00Z gap; 2026-11-01 06:00Z repeat

    def local(text: str) -> int:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())

    assert zone.resolve(local("2026-03-08T01:59:59")) == (local("2026-03-08T06:59:59"), "once")
    assert zone.resolve(local("2026-03-08T02:00")) == (local("2026-03-08T07:00"), "gap")
    assert zone.resolve(local("2026-03-08T02:59:59")) == (local("2026-03-08T07:00"), "gap")
    assert zone.resolve(local("2026-03-08T03:00")) == (local("2026-03-08T07:00"), "once")
    assert zone.resolve(local("2026-11-01T00:59:59")) == (local("2026-11-01T04:59:59"), "once")
    assert zone.resolve(local("2026-11-01T01:00")) == (local("2026-11-01T05:00"), "repeat")
    assert zone.resolve(local("2026-11-01T01:59:59")) == (local("2026-11-01T05:59:59"), "repeat")
    assert zone.resolve(local("2026-11-01T02:00")) == (local("2026-11-01T07:00"), "once")


def test_times_already_passed_are_not_passed_again_by_a_gap_inside_a_repeat():
    # Back one hour at 10,000 s, and half an hour later forward again: 10,000 to 11,800 UTC shows 9,400 to 11,200 again.
    zone = Zone("test", [-FAR, 10_000, 11_800], [3000, -600, 3000])
    assert zone.high == [-FAR, 13_000, 13_000]
    local_starts = [zone.local_start(segment) for segment in (1, 2)]
    assert local_starts == [9_400, 14_800]
    assert zone.resolve(12_000) == (9_000, "repeat")
    assert zone.resolve(13_500) == (11_800, "gap")
    fixed = zone.course(fills_gaps=True, repeats=False)
    assert fixed.floors == [-FAR, 13_000, 13_000]
    skipping = zone.course(fills_gaps=False, repeats=False)
    assert skipping.floors == [-FAR, 13_000, 14_800]
    wild = zone.course(fills_gaps=False, repeats=True)
    assert wild.floors == [-FAR, 9_400, 14_800]
    assert wild.lowest_floors == [-FAR, 9_400, 14_800]
    both = zone.course(fills_gaps=True, repeats=True)
    assert both.floors == [-FAR, 9_400, 13_000]


def tzif(footer: str, times: list[int], kinds: list[int], offsets: list[int]) -> bytes:
    def block(code: str, times: list[int]) -> bytes:
        header = b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, len(times), len(offsets), 4)
        types = b"".join(struct.pack(">lBB", offset, 0, 0) for offset in offsets)
        return (
            header
            + struct.pack(f">{len(times)}{code}", *times)
            + bytes(kinds[: len(times)])
            + types
            + b"XXX\0"
        )

    return block("l", []) + block("q", times) + f"\n{footer}\n".encode()


# The footer, and its standard offset in seconds, which is the file's last one (RFC 8536 asks for that).
FOOTERS = [
    ("EST5EDT,M3.2.0,M11.1.0", -18_000),
    ("IST-1GMT0,M10.5.0,M3.5.0/1", 3600),
    ("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", -7200),
    ("EET-2EEST,M3.4.4/50,M10.4.4/50", 7200),
    ("<+1245>-12:45<+1345>,M9.5.0/2:45,M4.1.0/3:45", 45_900),
    ("AAA3BBB,J60/2,J300/2", -10_800),
    ("AAA-3:30:15BBB-5,M2.5.4/0:00:01,M12.5.6/23:59:59", 12_615),
    ("UTC0", 0),
    ("<-03>3", -10_800),
]


@pytest.mark.parametrize(("footer", "standard"), FOOTERS)
def test_footers_agree_with_zoneinfo(footer, standard):
    data = tzif(footer, [1_000_000_000], [1], [60, standard])
    zone, oracle = compile_tzif("test", data), ZoneInfo.from_file(io.BytesIO(data))
    assert zone.offset_at(999_999_999) == 60
    rng = random.Random(footer)
    instants = [rng.randrange(1_050_000_000, END_OF_2199) for _ in range(300)]
    instants += [start + side for start in zone.starts[4:-3] for side in (-1, 0)]
    for instant in instants:
        assert zone.offset_at(instant) == offset_s(oracle, instant)


@pytest.mark.parametrize(
    (
        "footer",
        "days_of_2003",
        "days_of_2004",
    ),  # zoneinfo reads J59 and plain numbers otherwise than POSIX does
    [
        ("AAA0BBB,J59/0,J60/0", ["02-28", "02-28 23:00"], ["02-28", "02-29 23:00"]),
        ("AAA0BBB,J1/0,J365/0", ["01-01", "12-30 23:00"], ["01-01", "12-30 23:00"]),
        ("AAA0BBB,58/0,59/0", ["02-28", "02-28 23:00"], ["02-28", "02-28 23:00"]),
        ("AAA0BBB,0/0,364/0", ["01-01", "12-30 23:00"], ["01-01", "12-29 23:00"]),
    ],
)
def test_footers_by_day_of_the_year(footer, days_of_2003, days_of_2004):
    def shown(second: int) -> str:
        return f"{EPOCH + timedelta(seconds=second):%Y-%m-%d %H:%M}"

    steps = [shown(second) for second, _ in footer_steps(footer, 2003)[:4]]
    days = [f"2003-{day}" for day in days_of_2003] + [f"2004-{day}" for day in days_of_2004]
    assert steps == [day if ":" in day else f"{day} 00:00" for day in days]


def test_a_file_without_footer_keeps_its_last_offset():
    zone = compile_tzif("test", tzif("", [1_000_000_000], [1], [0, 3600]))
    assert zone.starts == [-FAR, 1_000_000_000, FAR]
    assert zone.offsets == [0, 3600]


@pytest.mark.parametrize("data", [b"", b"TZif\0" + bytes(100), b"PK\3\4"])
def test_other_files_are_refused(data):
    with pytest.raises(ValueError, match="zone test is not TZif"):
        compile_tzif("test", data)


def test_other_footers_are_refused():
    with pytest.raises(ValueError, match="'EST5EDT' is not a POSIX TZ text"):
        footer_steps("EST5EDT", 2000)
