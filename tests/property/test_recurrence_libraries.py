"""The engine against cronsim and crondst, two libraries with Debian's DST rules, away from their known defects.

Left out on purpose, because cronsim 2.8 is wrong there (crondst, the oracle and we agree): shifts of half an hour, a start
inside the repeated hour, ``a-a/n``, gaps at midnight, and the day Apia lost.
"""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, time
from itertools import islice

from crondst import CronDst, CronDstError
from cronsim import CronSim
from cronsim.cronsim import CronSimError
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from cronally.domain.recurrence import Recurrence
from support.slots_oracle import zone_info

EXAMPLES = max(int(os.environ.get("CASES", "2000")) // 8, 1)
ZONES = (
    "UTC",
    "America/New_York",
    "Europe/London",
    "Europe/Riga",
    "Australia/Sydney",
    "Europe/Dublin",
    "Asia/Kolkata",
)
# Days before a change in each of those zones, and any other day.
DAYS = st.one_of(
    st.sampled_from(
        (
            *(date(2026, 3, 7), date(2026, 10, 31), date(2026, 3, 28), date(2026, 10, 24)),
            *(date(2026, 4, 4), date(2026, 10, 3), date(2021, 3, 27), date(2028, 2, 28)),
        )
    ),
    st.dates(date(1990, 1, 1), date(2036, 1, 1)),
)
NOON = time(12)


def values(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = (
        st.tuples(number, number)
        .filter(lambda ends: ends[0] < ends[1])
        .map(lambda ends: f"{ends[0]}-{ends[1]}")
    )
    step = st.integers(1, 40).map(str)
    item = st.one_of(number.map(str), span, st.builds("{}/{}".format, span, step))
    return st.one_of(
        st.just("*"),
        st.builds("*/{}".format, step),
        st.lists(item, min_size=1, max_size=3).map(",".join),
    )


HOURS = st.one_of(values(0, 23), st.sampled_from(("0", "1", "2", "3", "1,2", "1-3", "*/2")))
RULES = st.builds(
    "{} {} {} {} {}".format,
    values(0, 59),
    HOURS,
    st.one_of(st.just("*"), values(1, 31)),
    st.one_of(st.just("*"), values(1, 12)),
    st.one_of(st.just("*"), values(0, 6)),
)
quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def ours(text: str, tz: str, start: datetime, count: int) -> list[datetime]:
    rule, at, found = Recurrence.parse(text, tz=tz), start, []
    while len(found) < count and (at := rule.next_after(at)) is not None:
        found.append(at)
    return found


@quick
@given(text=RULES, tz=st.sampled_from(ZONES), day=DAYS)
def test_cronsim_agrees(text, tz, day):
    start = datetime.combine(day, NOON, zone_info(tz))
    try:
        theirs = [slot.astimezone(UTC) for slot in islice(CronSim(text, start), 30)]
    except CronSimError:  # it gives up after 50 years
        assume(False)
    assert ours(text, tz, start, len(theirs)) == theirs


@quick
@given(text=RULES, tz=st.sampled_from((*ZONES, "America/Sao_Paulo", "America/Havana")), day=DAYS)
def test_crondst_agrees(text, tz, day):
    start = datetime.combine(day, NOON, zone_info(tz))
    try:
        theirs = [slot.astimezone(UTC) for slot in islice(CronDst(text).iter(start), 30)]
    except CronDstError:
        assume(False)
    assert ours(text, tz, start, len(theirs)) == theirs
