"""What top shows, line by line."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cronally.admin.wire import Coming, Overview
from cronally.cli.top_view import TopView
from cronally.errors import AdminError

TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
OVERVIEW = Overview(
    version="1.2.3",
    started_at="2026-11-23T08:00:00Z",
    now="2026-11-23T09:00:00Z",
    not_ready_because=None,
    schedules=1_234,
    paused=0,
    failing=0,
    pending=0,
    oldest_pending_due=None,
    in_flight=3,
    watermark="2026-11-23T08:59:59.950Z",
    ended={"published": 5_000, "skipped": 7, "expired": 0, "rejected": 0},
    lateness_us={"p50": 410, "p99": 2_100, "max": 12_000, "count": 5_000},
    refusing=[],
    refusing_count=0,
    coming=[],
)


def to_come(schedule, due, tz="UTC"):
    return Coming(schedule=schedule, fire_time=due, due=due, tz=tz, topic=TOPIC)


def view_of(*answers):
    """Return a view that heard *answers*, two seconds after one another, the last at 100 s."""
    view = TopView()
    for number, overview in enumerate(answers):
        view.take(overview, 100.0 - 2 * (len(answers) - 1 - number))
    return view


def texts(view, now_s=100.0, width=200, height=40):
    return [line for line, _ in view.lines(now_s, width, height)]


def starting(view, start, **keys):
    [line] = [line for line in texts(view, **keys) if line.startswith(start)]
    return line.removeprefix(start).strip()


def test_the_figures():
    assert texts(view_of(OVERVIEW)) == [
        "cronally 1.2.3  up 1h  2026-11-23 09:00:00 UTC  ready",
        "schedules  1,234",
        "rate       not measured yet",
        "lateness   p50 0.4 ms, p99 2.1 ms, max 12.0 ms (last 5,000 fires)",
        "pending    0",
        "in flight  3, settled up to 2026-11-23T08:59:59.950Z",
        "ended      5,000 published, 7 skipped, 0 expired, 0 rejected (since it started)",
        "",
        "no schedule has a slot to come",
    ]


def test_what_is_wrong_is_counted_and_named():
    refusing = {
        "topic": TOPIC,
        "since": "2026-11-23T08:10:00Z",
        "error": "NotFound: \x1b[31mTopic does not exist",
        "pending": 12,
        "next_probe": "2026-11-23T09:01:00Z",
    }
    view = view_of(
        replace(
            OVERVIEW,
            paused=2,
            failing=5,
            pending=12,
            oldest_pending_due="2026-11-23T08:10:00Z",
            refusing=[refusing],
            refusing_count=1,
        )
    )
    assert starting(view, "schedules") == "1,234, 2 paused, 5 failing"
    lines = view.lines(100.0, 200, 40)
    assert ("pending    12, the oldest due 50m ago", "red") in lines
    at = lines.index(("REFUSED BY SNS", "bold"))
    assert lines[at + 1] == (
        f"{TOPIC} since 2026-11-23T08:10:00Z: NotFound: \\x1b[31mTopic does not exist; 12 wait; tried again in 1m",
        "red",
    )


def test_slots_count_down_between_answers():
    view = view_of(
        replace(
            OVERVIEW,
            coming=[
                to_come("tick", "2026-11-23T09:00:08Z"),
                to_come("nightly", "2026-11-23T22:00:00Z", "Europe/Paris"),
            ],
        )
    )
    heads, tick, nightly = texts(view)[-3:]
    assert heads.split() == ["IN", "DUE", "(LOCAL)", "SCHEDULE", "TOPIC"]
    assert tick.split() == ["8s", "Mon", "2026-11-23", "09:00:08", "+00:00", "tick", "reports"]
    assert nightly.split() == ["13h", "Mon", "2026-11-23", "23:00:00", "+01:00", "nightly", "reports"]
    assert texts(view, now_s=102.5)[-2].split()[0] == "6s"
    assert texts(view, now_s=107.9)[-2].split()[0] == "1s"
    assert texts(view, now_s=108.0)[-1].split()[-2] == "nightly"
    assert "tick" not in "".join(texts(view, now_s=108.0))


def test_a_slot_that_the_daemon_has_planned_stays_until_it_is_due():
    near, far = to_come("tick", "2026-11-23T09:00:03Z"), to_come("tick", "2026-11-23T09:00:08Z")
    view = view_of(
        replace(OVERVIEW, now="2026-11-23T08:59:58Z", coming=[near]), replace(OVERVIEW, coming=[far])
    )
    assert texts(view)[-1].split()[0] == "3s"
    view.take(replace(OVERVIEW, now="2026-11-23T09:00:04Z", coming=[far]), 104.0)
    assert texts(view, now_s=104.0)[-1].split()[0] == "4s"


def test_a_slot_far_off_that_the_daemon_does_not_name_any_more_is_gone():
    view = view_of(replace(OVERVIEW, coming=[to_come("edited", "2026-11-23T09:30:00Z")]), OVERVIEW)
    assert texts(view)[-1] == "no schedule has a slot to come"


def published(count, **keys):
    return replace(OVERVIEW, ended=OVERVIEW.ended | {"published": count}, **keys)


def test_the_rate_is_that_of_the_last_answers_and_of_a_minute():
    assert starting(view_of(published(100), published(150)), "rate") == "25.0/s over 2s (messages published)"
    answers = [published(100 * number) for number in range(40)]  # 78 s
    answers[-1] = published(100 * 38 + 5_000)
    assert starting(view_of(*answers), "rate") == "2,500.0/s over 2s, 131.7/s over 1m (messages published)"


def test_another_daemon_begins_a_new_rate():
    view = view_of(published(9_000), published(10, started_at="2026-11-23T08:59:00Z"))
    assert starting(view, "rate") == "not measured yet"


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20, 5), (40, 12), (80, 24)])
def test_a_small_screen_is_not_overrun(width, height):
    coming = [to_come(f"schedule-{n}", "2026-11-23T10:00:00Z") for n in range(50)]
    lines = texts(view_of(replace(OVERVIEW, coming=coming)), width=width, height=height)
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    assert all(len(line) < width or width == 1 or line.endswith("…") or len(line) == width for line in lines)


def test_without_an_answer_it_says_so_and_shows_the_last_one():
    view = view_of(OVERVIEW)
    view.miss(AdminError("nobody\x07 is there"))
    [(first, style), *rest] = view.lines(130.0, 200, 40)
    assert first == "cronally 1.2.3  up 1h  2026-11-23 09:00:30 UTC  NO ANSWER: nobody\\x07 is there"
    assert style == "bold red"
    assert rest[0] == ("schedules  1,234", "")
    view.take(OVERVIEW, 132.0)
    assert texts(view, now_s=132.0)[0].endswith("ready")


def test_a_daemon_that_is_not_ready_says_why():
    assert texts(view_of(replace(OVERVIEW, not_ready_because="the disk is full")))[0].endswith(
        "NOT READY: the disk is full"
    )
