"""The engine's times against a brute-force program, in windows that lie around the changes of real zones.

``CASES`` sets how many windows are compared (``make fuzz-times CASES=200000``); a failure prints the window.
"""

from __future__ import annotations

import os
import random

import pytest

from cronally.domain.recurrence import Recurrence
from cronally.domain.zones import load_zone, zone_names
from cronally.errors import WhenError
from cronally.instants import UtcMs, format_utc
from support import slots_oracle
from support.slots_oracle import NaiveCrontab

CASES = int(os.environ.get("CASES", "2000"))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
DAY = 86_400
FIRST, LAST = 0, 7_258_118_400  # 1970-01-01 to 2200-01-01
# Half an hour, two hours, midnight, a lost day, negative DST, seconds in the offset, and plain ones.
FAVOURITES = (
    "America/New_York",
    "Europe/London",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "America/Sao_Paulo",
    "Pacific/Apia",
    "Africa/Casablanca",
    "America/Havana",
    "Asia/Tehran",
    "Europe/Dublin",
    "Asia/Kolkata",
    "Africa/Monrovia",
    "Pacific/Kwajalein",
    "America/Nuuk",
    "Asia/Gaza",
    "UTC",
)


def drawn_field(rng: random.Random, low: int, high: int) -> str:
    kind = rng.random()
    if kind < 0.3:
        return "*"
    if kind < 0.45:
        return f"*/{rng.choice((2, 5, 7, 10, 15, 20, 30, 100))}"
    if kind < 0.55:
        first = rng.randint(low, high)
        last = rng.randint(first, high)
        return f"{first}-{last}" + (f"/{rng.randint(1, 20)}" if rng.random() < 0.5 else "")
    values = sorted(rng.sample(range(low, high + 1), rng.choice((1, 1, 1, 2, 3))))
    return ",".join(map(str, values)) + (",*" if rng.random() < 0.02 else "")


def drawn_day(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return "*"
    if rng.random() < 0.3:
        return rng.choice(
            ("L", "L-1", "L-30", "LW", "1W", "15W", "31W", "29W,L", "1W,15W", "?", "1,L", "L-27")
        )
    return drawn_field(rng, 1, 31)


def drawn_weekday(rng: random.Random) -> str:
    if rng.random() < 0.55:
        return "*"
    if rng.random() < 0.4:
        return rng.choice(
            (
                *("mon-fri", "SUN", "sat-sun", "7-tue", "5-0", "fri#2", "1#5"),
                *("friL", "7L", "sun#L", "?", "Tue,THU", "0-7/3"),
            )
        )
    return drawn_field(rng, 0, 7)


def drawn_rule(rng: random.Random) -> str:
    hour = drawn_field(rng, 0, 23) if rng.random() < 0.5 else str(rng.choice((0, 0, 1, 1, 2, 2, 3, 23)))
    month = "*" if rng.random() < 0.7 else drawn_field(rng, 1, 12)
    return " ".join((drawn_field(rng, 0, 59), hour, drawn_day(rng), month, drawn_weekday(rng)))


def drawn_window(rng: random.Random, tz: str) -> tuple[int, int]:
    zone = load_zone(tz)
    changes = [start for start in zone.starts[1:-1] if FIRST < start < LAST]
    if changes and rng.random() < 0.9:
        # evenly over the years, or the recent ones, where the odd rules are
        middle = rng.choice(changes) if rng.random() < 0.6 else rng.choice(changes[-400:-300] or changes)
    else:
        middle = rng.randrange(FIRST + 40 * DAY, LAST - 40 * DAY)
    start = middle - rng.randrange(0, int(1.5 * DAY))
    return max(start, FIRST), min(start + rng.choice((DAY, 2 * DAY, 3 * DAY)), LAST)


def parsed(text: str, tz: str, **options: str) -> Recurrence | None:
    """Return the rule, or None if no date matches it; the drawn texts are right in every other way."""
    try:
        return Recurrence.parse(text, tz=tz, **options)
    except WhenError as error:
        if "no date ever matches" in str(error):
            return None
        raise


@pytest.mark.timeout(0)
def test_slots_equal_the_minute_by_minute_oracle():
    rng = random.Random(SEED)
    names = sorted(zone_names())
    compared = refused = fired = 0
    while compared < CASES:
        text = drawn_rule(rng)
        tz = rng.choice(FAVOURITES) if rng.random() < 0.7 else rng.choice(names)
        on_gap, on_repeat = rng.choice(
            (("run", "first"), ("run", "first"), ("skip", "first"), ("run", "both"), ("skip", "both"))
        )
        rule = parsed(text, tz, on_gap=on_gap, on_repeat=on_repeat)
        if rule is None:
            refused += 1
            continue
        start, end = drawn_window(rng, tz)
        naive = NaiveCrontab(text)
        # A frequent rule needs no long window, and a rare one gets a month.
        if naive.per_day() > 300:
            end = min(end, start + DAY)
        elif naive.per_day() < 5 and text.split()[3] != "*" and rng.random() < 0.2:
            end = min(LAST, start + 7 * 365 * DAY)  # long enough to skip over whole segments of the zone
        elif naive.per_day() < 5:
            start, end = max(FIRST, start - 15 * DAY), min(LAST, end + 15 * DAY)
        expected = slots_oracle.slots(naive, tz, start, end, on_gap=on_gap, on_repeat=on_repeat)
        where = f"SEED={SEED}: {text!r} in {tz}, {on_gap}/{on_repeat}, {format_utc(UtcMs(start * 1000))} + {end - start} s"

        a, b = UtcMs(start * 1000), UtcMs(end * 1000)
        got = list(rule.between_ms(a, b))
        assert got == [second * 1000 for second in expected], where
        assert rule.count_ms(a, b) == len(expected), where
        backwards, at = [], UtcMs(b + 1)
        while (at := rule.latest_ms(at)) is not None and at > a:
            backwards.append(at)
        assert backwards == got[::-1], where
        compared += 1
        fired += len(expected)
    print(f"SEED={SEED}: {compared} windows, {fired} slots, {refused} rules that no date matches")
    assert fired
