from dataclasses import replace

import pytest

from cronally.admin.wire import Fire, Schedule, Status
from cronally.cli import render

SCHEDULE = Schedule(
    name="nightly",
    when="0 9\t* * *",
    tz="Europe/London",
    topic="arn:aws:sns:us-east-1:123456789012:reports",
    next_fire="2026-06-01T08:00:00Z",
    next_fires=["2026-06-01T08:00:00Z", "2026-06-02T08:00:00Z"],
    effective_from="2026-05-01T00:00:00Z",
    revision=1,
)
NOW = "2026-06-01T06:30:00Z"
PAUSED = {"since": "2026-05-31T00:00:00Z", "until": None, "note": None, "by": "uid 0 (root)"}
FIRE = Fire(
    fire_id="a@x",
    schedule="a",
    fire_time="2026-06-01T08:00:00Z",
    kind="scheduled",
    state="published",
    attempts=1,
)


@pytest.mark.parametrize(
    ("instant", "tz", "expected"),
    [
        ("2026-06-01T08:00:00Z", "Europe/London", "Mon 2026-06-01 09:00:00 +01:00"),
        ("2026-06-01T08:00:00Z", "UTC", "Mon 2026-06-01 08:00:00 +00:00"),
        ("2026-06-01T08:00:00.250Z", "America/St_Johns", "Mon 2026-06-01 05:30:00.250 -02:30"),
        ("2026-10-25T00:30:00Z", "Europe/London", "Sun 2026-10-25 01:30:00 +01:00"),
        ("2026-10-25T01:30:00Z", "Europe/London", "Sun 2026-10-25 01:30:00 +00:00"),
        ("9999-12-31T23:30:00Z", "Asia/Tokyo", "Fri 9999-12-31 23:30:00 +00:00"),
        ("2026-06-01T08:00:00Z", "Mars/Olympus", "Mon 2026-06-01 08:00:00 +00:00"),
        ("2026-06-01T08:00:00Z", "../../etc/passwd", "Mon 2026-06-01 08:00:00 +00:00"),
    ],
)
def test_local_text(instant, tz, expected):
    assert render.local_text(instant, tz) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (3600, "1h"),
        (11_520, "3h 12m"),
        (90_000, "1d 1h"),
    ],
)
def test_span(seconds, expected):
    assert render.span_text(seconds) == expected


def test_relative_text():
    assert render.relative_text("2026-06-01T08:00:00Z", NOW) == "in 1h 30m"
    assert render.relative_text("2026-06-01T06:29:00Z", NOW) == "1m ago"
    assert render.relative_text("2026-06-01T06:29:00Z", None) == ""


def test_a_table_of_schedules():
    table = render.Table(("NAME", "WHEN", "TZ", "NEXT (LOCAL)", "TOPIC", "STATE"))
    rows = render.schedules_rows([SCHEDULE, replace(SCHEDULE, next_fire=None)], NOW)
    assert table.part(rows).split("\n") == [
        "NAME     WHEN       TZ             NEXT (LOCAL)                         TOPIC                STATE",
        "nightly  0 9 * * *  Europe/London  Mon 2026-06-01 09:00:00 (in 1h 30m)  reports (us-east-1)  ok",
        "nightly  0 9 * * *  Europe/London  -                                    reports (us-east-1)  done",
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "ok"),
        ({"next_fire": None}, "done"),
        ({"paused": PAUSED}, "paused"),
        ({"paused": PAUSED | {"until": "2026-07-01T00:00:00Z"}}, "paused until 2026-07-01T00:00:00Z"),
        ({"error": "NotFound: gone\x1b[31m\n"}, "error: NotFound: gone\\x1b[31m\\n"),
        ({"error": "e", "pending": 1200, "paused": PAUSED}, "error: e, paused, 1,200 pending"),
    ],
)
def test_state(changes, expected):
    assert render.state_text(replace(SCHEDULE, **changes)) == expected


def test_long_cells_are_cut_and_the_last_is_not():
    lines = render.table(("A", "B"), [("x" * 60, "y" * 200)]).split("\n")
    assert lines[1] == "x" * 47 + "…  " + "y" * 200
    assert render.table(("A", "B"), []) == "A  B"


def test_the_later_parts_of_a_table_go_on_in_its_columns():
    table = render.Table(("A", "B"))
    assert table.part([("xxxx", "1")]) == "A     B\nxxxx  1"
    assert table.part([("y", "2")]) == "y     2"
    assert table.part([("zzzzzz", "3")]) == "zzzzzz  3"


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({}, "  Mon 2026-06-01 09:00:00 +01:00  2026-06-01T08:00:00Z\n  Tue"),
        ({"next_fires": []}, "no fires left"),
        ({"next_fires": [], "paused": PAUSED}, "until 'cronally resume nightly'"),
        (
            {"paused": PAUSED | {"until": "2026-06-01T00:00:00Z"}},
            "paused until 2026-06-01T00:00:00Z; then\n  Mon",
        ),
    ],
)
def test_next_fires(changes, part):
    assert part in render.next_fires_text(replace(SCHEDULE, **changes))


def test_show_has_everything():
    full = replace(
        SCHEDULE,
        message="m" * 500,
        attributes={"n": {"type": "Number", "value": "5"}, "k": "v"},
        tags=["x", "y"],
        note="why\nnot",
        paused=PAUSED | {"note": "moving"},
        error="AuthorizationError: no",
        subject="hi",
    )
    text = render.schedule_text(full, "At 09:00")
    for part in ("means", "At 09:00", "(500 bytes", "n:Number=5", "k=v", "x y", "why\\nnot", "“moving”", "uid 0 (root)",
                 "AuthorizationError: no", "subject", "arn:aws:sns:us-east-1:123456789012:reports"):  # fmt: skip
        assert part in text, part
    assert "(default:" in render.schedule_text(SCHEDULE, None)
    assert "means" not in render.schedule_text(SCHEDULE, None)


@pytest.mark.parametrize(
    ("lateness_us", "expected"),
    [(None, "-"), (0, "0.0 ms"), (412, "0.4 ms"), (9_999_999, "10000.0 ms"), (12_000_000, "12s")],
)
def test_lateness(lateness_us, expected):
    assert render.late_text(lateness_us) == expected


def test_a_table_of_fires_says_why():
    rows = [
        FIRE,
        replace(FIRE, state="skipped", reason="paused", count=1440, last_fire_time="2026-06-02T07:59:00Z"),
        replace(FIRE, state="expired", maybe_published=True, last_error="Throttled: slow\ndown"),
    ]
    lines = render.fires_table(rows).split("\n")
    assert "paused; 1,440 slots up to 2026-06-02T07:59:00Z" in lines[2]
    assert "may have been published; Throttled: slow\\ndown" in lines[3]


def test_status():
    status = Status(
        version="0.1.0",
        tzdata="2026a",
        started_at="2026-06-01T06:00:00Z",
        now=NOW,
        is_ready=True,
        store="sqlite:/x",
        schedules=1200,
        paused=1,
        failing=2,
        journal={"published": 5},
        next_fire="2026-06-01T08:00:00Z",
        watermark=NOW,
        lateness_us={"p50": 400, "p99": 1200, "max": 3000, "count": 1500},
        stand_in="http://127.0.0.1:4566",
    )
    text = render.status_text(status)
    for part in (
        "ready",
        "30m, since",
        "1,200, 1 paused, 2 failing",
        "in 1h 30m",
        "5 published",
        "p99 1.2 ms, max 3.0 ms (last 1,500 fires)",
        ":4566",
    ):
        assert part in text, part
    assert "journal" not in text  # of an older daemon
    kept = {"journal_keep": "30d", "journal_max_bytes": 2 << 30, "size_bytes": 300 << 20}
    assert "journal        from the beginning, kept for 30d; 300 MiB of 2 GiB used" in render.status_text(
        replace(status, **kept)
    )
    pruned = replace(status, **kept, pruned_through="2026-10-24T00:00:00Z")
    assert "journal        after 2026-10-24T00:00:00Z, kept" in render.status_text(pruned)
    broken = replace(status, is_ready=False, not_ready_because="the store takes no commits")
    assert "NOT READY: the store takes no commits" in render.status_text(broken)


def test_status_names_the_topics_for_which_sns_refuses_everything():
    refusing = [
        {
            "topic": f"arn:aws:sns:us-east-1:123456789012:t{n}",
            "since": "2026-06-01T06:00:00Z",
            "error": "NotFound: Topic does not exist",
            "pending": 1_234,
            "next_probe": "2026-06-01T06:32:00Z",
        }
        for n in range(20)
    ]
    status = Status(version="0", tzdata="a", started_at=NOW, now=NOW, is_ready=True)
    assert "refused" not in render.status_text(status)
    text = render.status_text(replace(status, refusing=refusing[:1], refusing_count=1))
    assert (
        "refused by SNS arn:aws:sns:us-east-1:123456789012:t0 since 2026-06-01T06:00:00Z: NotFound: Topic does not exist; "
        "1,234 wait; tried again in 2m\n" in f"{text}\n"
    )
    text = render.status_text(replace(status, refusing=refusing, refusing_count=200))
    assert text.count("1,234 wait") == 5
    assert text.endswith("and 195 more topics")


def test_status_draws_how_late_fires_left():
    bounds = (100, 250, 1_000, 2_500_000, None)
    counts = (0, 900, 0, 99, 1)
    histogram = [{"le_us": bound, "count": count} for bound, count in zip(bounds, counts, strict=True)]
    assert render.histogram_lines(histogram) == [
        f"<= 0.25 ms {'#' * 27:<31} 90.0%  900",
        f"<= 1 ms    {'':<31}  0.0%  0",
        f"<= 2.5 s   {'###':<31}  9.9%  99",
        f"more       {'#':<31}  0.1%  1",
    ]
    assert render.histogram_lines([{"le_us": 100, "count": 0}]) == []


def test_status_names_the_schedules_that_another_tzdata_moved():
    change = {"old": "2026a", "new": "2026b", "names": ["a", "b"], "count": 2}
    status = Status(version="0", tzdata="2026b", started_at=NOW, now=NOW, is_ready=True, zone_change=change)
    assert "moved fires    of 2 by tzdata 2026b (before: 2026a): a, b\n" in f"{render.status_text(status)}\n"
    many = replace(status, zone_change=change | {"count": 1_000})
    assert "of 1,000 by tzdata 2026b (before: 2026a): a, b, …" in render.status_text(many)


def test_topics_are_shortened_only_if_they_are_arns():
    assert render.short_topic("arn:aws:sns:eu-west-1:123456789012:q.fifo") == "q.fifo (eu-west-1)"
    assert render.short_topic("odd") == "odd"


ROWS = [("nightly", "0 9 * * *", "ok"), ("b", "@every 90s", "")]


@pytest.mark.parametrize("room", [None, 80, 200, 30])
def test_a_table_that_fits_or_goes_to_no_narrow_terminal_is_one(room):
    table = render.Table(("NAME", "WHEN", "STATE"), room=room)
    assert table.part([]) == "NAME  WHEN  STATE"
    assert table.part(ROWS) == "NAME     WHEN        STATE\nnightly  0 9 * * *   ok\nb        @every 90s"


def test_on_a_narrow_terminal_the_cells_of_a_row_stand_below_each_other():
    table = render.Table(("NAME", "WHEN", "STATE"), room=20)
    assert table.part(ROWS) == "nightly\n  when   0 9 * * *\n  state  ok\nb\n  when   @every 90s"
    assert table.part(ROWS[1:]) == "b\n  when   @every 90s"


def machine(host, state, started_at, shards=0, *, is_self=False):
    return {
        "id": f"{host}-{started_at}",
        "host": host,
        "state": state,
        "shards": shards,
        "lag_ms": None,
        "heartbeat_age_ms": 1_000,
        "started_at": started_at,
        "is_self": is_self,
    }


def test_of_machines_that_are_over_the_last_ones_are_named_and_those_that_have_shards():
    machines = [
        machine("a", "gone", "2026-11-23T09:00:00Z"),
        machine("a", "alive", "2026-11-23T09:02:00Z", 32, is_self=True),
        machine("b", "gone", "2026-11-23T09:00:00Z", 5),
        machine("b", "gone", "2026-11-23T09:01:00Z"),
        machine("b", "gone", "2026-11-23T09:02:00Z"),
        machine("b", "leaving", "2026-11-23T09:03:00Z", 27),
        machine("c", "gone", "2026-11-23T09:00:00Z"),
        machine("c", "gone", "2026-11-23T09:05:00Z"),
    ]
    status = Status(version="0", tzdata="a", started_at=NOW, now=NOW, is_ready=True, machines=machines)
    lines = render.status_text(status).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("machines"))
    assert [line[15:] for line in lines[first : first + 4]] == [
        "a (this one): 32 shards, heard of 1s ago",
        "b: 5 shards, heard of 1s ago, GONE",
        "b: 27 shards, heard of 1s ago, LEAVING",
        "c: 0 shards, heard of 1s ago, GONE",
    ]
    assert lines[first + 4].startswith("schedules")
    reading = render.status_text(replace(status, has_history=False)).splitlines()
    assert [line for line in reading if line not in lines] == [
        f"{'':15}older entries of the journal are still being read, and cannot be listed here yet"
    ]
