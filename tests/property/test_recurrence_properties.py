"""What holds for every rule: order, the way back, counts, and that any text is answered or refused, never anything else."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from cronally.domain.crontab import name_hash
from cronally.domain.describe import describe
from cronally.domain.dst import dst_changes, dst_note
from cronally.domain.lint import lint
from cronally.domain.recurrence import Recurrence
from cronally.errors import WhenError, ZoneError
from cronally.instants import UtcMs
from support import slots_oracle
from support.slots_oracle import NaiveCrontab

EXAMPLES = max(int(os.environ.get("CASES", "2000")) // 8, 1)
DAY_MS = 86_400_000
ZONES = st.sampled_from(
    (
        *(
            "UTC",
            "America/New_York",
            "Australia/Lord_Howe",
            "Antarctica/Troll",
            "America/Sao_Paulo",
            "Pacific/Apia",
        ),
        *("Africa/Casablanca", "Europe/Dublin", "Africa/Monrovia", "America/Nuuk", "Pacific/Kiritimati"),
    )
)
CHOICES = st.fixed_dictionaries(
    {"on_gap": st.sampled_from(("run", "skip")), "on_repeat": st.sampled_from(("first", "both"))}
)
INSTANTS = st.integers(0, 7_258_118_400_000).map(UtcMs)
WHENS = st.sampled_from(
    (
        *(
            "* * * * *",
            "*/7 * * * *",
            "0 * * * *",
            "30 2 * * *",
            "0,30 1,2 * * *",
            "*/30 2 * * *",
            "@daily",
            "@weekly",
        ),
        *(
            "0 9 * * 1-5",
            "0 0 L * *",
            "0 0 LW,15W * *",
            "0 0 29 2 *",
            "0 0 * * fri#5",
            "15 3 1,15 * mon",
            "0 0 */2 * sun",
        ),
        *(
            "@every 1s",
            "@every 90s",
            "@every 36h",
            "@every 400d",
            "H H * * *",
            "H/20 1-3 H * *",
            "@at 2100-06-01T01:30",
        ),
    )
)
RULES = st.builds(
    lambda when, tz, choice, name: Recurrence.parse(when, tz=tz, name=name, **choice),
    WHENS,
    ZONES,
    CHOICES,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
)
many = settings(max_examples=EXAMPLES, deadline=None, print_blob=True)


@many
@given(rule=RULES, at=INSTANTS)
def test_next_and_latest_are_each_other_s_way_back(rule, at):
    following, newest = rule.next_ms(at), rule.latest_ms(at)
    if following is not None:
        assert following > at
        assert rule.latest_ms(UtcMs(following + 1)) == following
        newest_up_to_now = rule.latest_ms(UtcMs(at + 1))
        assert rule.latest_ms(following) == newest_up_to_now
    if newest is not None:
        assert newest < at
        assert rule.next_ms(UtcMs(newest - 1)) == newest
        assert rule.next_ms(newest) == rule.next_ms(UtcMs(at - 1))


@many
@given(rule=RULES, at=INSTANTS, length=st.integers(0, 4 * DAY_MS))
def test_between_strictly_increases_and_count_counts_it(rule, at, length):
    end = UtcMs(at + min(length, 3_600_000 if rule.period_ms == 1000 else length))
    slots = list(rule.between_ms(at, end))
    assert all(earlier < later for earlier, later in pairwise(slots))
    assert all(at < slot <= end for slot in slots)
    assert rule.count_ms(at, end) == len(slots)


@many
@given(rule=RULES, cuts=st.lists(INSTANTS, min_size=3, max_size=3).map(sorted))
def test_counts_add_up(rule, cuts):
    a, b, c = cuts
    assert rule.count_ms(a, b) + rule.count_ms(b, c) == rule.count_ms(a, c)


@many
@given(rule=RULES, at=INSTANTS, starts=INSTANTS)
def test_starts_cuts_the_slots_off_and_changes_none(rule, at, starts):
    if rule.period_ms is not None:  # an @every rule counts from it
        return
    later = Recurrence.parse(
        rule.when,
        tz=rule.tz,
        name="x" if "H" in rule.when else None,
        on_gap=rule.on_gap,
        on_repeat=rule.on_repeat,
        starts=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=starts),
    )
    free = Recurrence.parse(rule.when, tz=rule.tz, name="x", on_gap=rule.on_gap, on_repeat=rule.on_repeat)
    assert later.next_ms(at) == free.next_ms(max(at, UtcMs(starts - 1)))
    newest = free.latest_ms(at)
    assert later.latest_ms(at) == (newest if newest is not None and newest >= starts else None)


@many
@given(rule=RULES, at=INSTANTS)
def test_everything_can_be_described(rule, at):
    assert describe(rule)
    assert rule.describe() == describe(rule)
    for remark in lint(rule, now_ms=at):
        assert remark.code
        assert remark.message
    for change in dst_changes(rule, at, 3):
        assert change.at_ms > at
        assert (change.effect == "none") == (change.count == 0)
        slot = rule.next_ms(UtcMs(change.at_ms - 1))
        if change.effect in {"moved", "merged"}:
            assert slot == change.at_ms
            assert dst_note(rule, slot).effect == change.effect


@many
@given(
    second=st.sets(st.integers(0, 59), min_size=1, max_size=3),
    minute=st.sampled_from(("0", "30", "0,59", "*/20")),
    hour=st.sampled_from(("1", "2", "0-3", "*")),
    tz=ZONES,
    choice=CHOICES,
    segment=st.integers(1, 200),
)
def test_seconds_follow_the_same_rules(second, minute, hour, tz, choice, segment):
    seconds = ",".join(map(str, sorted(second)))
    rule = Recurrence.parse(f"{seconds} {minute} {hour} * * ?", dialect="quartz", tz=tz, **choice)
    starts = [start for start in rule.zone.starts[1:-1] if start > 0] or [1_700_000_000]
    start = starts[segment % len(starts)] - 30_000
    end = start + 70_000
    naive = NaiveCrontab(f"{minute} {hour} * * *", tuple(sorted(second)))
    expected = slots_oracle.slots(naive, tz, start, end, **choice)
    assert [slot // 1000 for slot in rule.between_ms(UtcMs(start * 1000), UtcMs(end * 1000))] == expected


TEXT = st.one_of(
    st.text(max_size=60),
    st.text("0123456789*/-,#?LWHlwh@ \tmonfrijadec().:TZ+~", max_size=60),
    st.lists(st.text("0123456789*/-,#?LWHfri", min_size=1, max_size=6), min_size=4, max_size=8).map(" ".join),
    st.builds(
        "@{} {}".format,
        st.sampled_from(("every", "at", "daily", "rate")),
        st.text("0123456789dhms.:-TZ+ ", max_size=30),
    ),
    st.builds(
        "{}({})".format,
        st.sampled_from(("rate", "at", "cron", "x")),
        st.text("0123456789 *?-minuteshours:T", max_size=30),
    ),
)


def outcome(text: str, **options: str | None) -> Recurrence | WhenError | ZoneError:
    try:
        return Recurrence.parse(text, **options)
    except (WhenError, ZoneError) as error:
        return error


@settings(parent=many, max_examples=5 * EXAMPLES)
@given(
    text=TEXT, dialect=st.sampled_from(("unix", "quartz", "eventbridge")), named=st.booleans(), choice=CHOICES
)
def test_any_text_is_a_rule_or_a_when_error(text, dialect, named, choice):
    result = outcome(text, dialect=dialect, name="job" if named else None, tz="America/New_York", **choice)
    if isinstance(result, Recurrence):
        now = UtcMs(1_800_000_000_000)
        result.next_ms(now)
        result.latest_ms(now)
        result.count_ms(now, UtcMs(now + DAY_MS))
        assert describe(result)
        lint(result, now_ms=now)
    else:
        assert isinstance(result, WhenError)
        assert result.hint
        assert result.column is None or 1 <= result.column <= len(text) + 1
        assert str(result).isascii()
        assert str(result).isprintable()


@many
@given(name=st.text(max_size=40))
def test_any_zone_name_is_a_zone_or_a_zone_error(name):
    result = outcome("@daily", tz=name)
    if not isinstance(result, Recurrence):
        assert isinstance(result, ZoneError)
        assert result.suggestion is None or Recurrence.parse("@daily", tz=result.suggestion)


@many
@given(name=st.text(max_size=100))
def test_the_hash_of_a_name_has_64_bits(name):
    assert 0 <= name_hash(name) < 2**64
