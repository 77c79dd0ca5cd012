"""``catch_up`` against a list of all slots, decided one by one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cronally.domain.model import CatchUp
from cronally.domain.policy import (
    BACKOFF_CAP_MS,
    CATCH_UP_ALL_MOST,
    Window,
    backoff_ms,
    catch_up,
    clip,
    next_slot,
    range_in,
    slot_window,
    without,
)
from cronally.domain.recurrence import Recurrence

START = 1_795_420_800_000  # a Monday, 08:00:00Z
RULES = [
    Recurrence.parse(when) for when in ("@every 1s", "@every 7s", "@every 1m", "* * * * *", "*/5 * * * *")
]
rules = st.sampled_from(RULES)
offsets = st.sampled_from([0, 0, 1_000, 95_000])
instants = st.integers(START, START + 2_000_000)


@st.composite
def situations(draw):
    rule = draw(rules)
    offset = draw(offsets)
    now = draw(instants)
    after = draw(st.integers(START - 5_000, now))
    window = Window(after, min(now - offset, draw(st.integers(after, now + 10_000))))
    slots = list(rule.between_ms(window.after, window.through))
    # settled: disjoint ranges whose ends are slots, sorted; some may reach beyond the window
    settled = []
    around = list(rule.between_ms(window.after - 50_000, window.through + 50_000))
    marks = sorted(draw(st.sets(st.integers(0, max(0, len(around) - 1)), max_size=8))) if around else []
    while marks:
        first = marks.pop(0)
        last = marks.pop(0) if marks and draw(st.booleans()) else first
        settled.append((around[first], around[last]))
    return rule, offset, now, window, slots, settled


def naive(slots, settled, *, now, offset, policy, deadline, most):
    """Decide each slot by the words of the policy."""
    unsettled = [slot for slot in slots if not any(first <= slot <= last for first, last in settled)]
    missed = [slot for slot in unsettled if now - (slot + offset) > 10_000]
    late = [slot for slot in unsettled if slot not in missed]
    chosen = {CatchUp.LATEST: missed[-1:], CatchUp.ALL: missed[-most:], CatchUp.SKIP: []}[policy]
    fires = chosen + late
    expired = [slot for slot in fires if now - (slot + offset) > deadline]
    skipped = [slot for slot in missed if slot not in chosen]
    return [slot for slot in fires if slot not in expired], expired, skipped


@given(situations(), st.sampled_from(list(CatchUp)), st.sampled_from([1_000, 30_000, 600_000, 86_400_000]))
def test_catch_up_decides_each_slot_as_the_policy_says(situation, policy, deadline):
    rule, offset, now, window, slots, settled = situation
    result = catch_up(rule, window, settled, now=now, offset_ms=offset, policy=policy, deadline_ms=deadline)
    fires, expired, skipped = naive(
        slots, settled, now=now, offset=offset, policy=policy, deadline=deadline, most=CATCH_UP_ALL_MOST
    )
    assert result.fires == fires
    assert result.expired == expired
    covered = [slot for r in result.skipped for slot in rule.between_ms(r.first - 1, r.last)]
    assert covered == skipped
    for skip in result.skipped:
        assert (skip.first, skip.last) == (min(skip.first, skip.last), max(skip.first, skip.last))
        assert skip.slots == len(list(rule.between_ms(skip.first - 1, skip.last)))
        assert not any(first <= skip.last and last >= skip.first for first, last in settled)


@given(situations(), st.sampled_from(list(CatchUp)))
def test_what_was_decided_is_not_decided_again(situation, policy):
    rule, offset, now, window, _, settled = situation
    keys = {"now": now, "offset_ms": offset, "policy": policy, "deadline_ms": 60_000}
    first = catch_up(rule, window, settled, **keys)
    decided = [(slot, slot) for slot in (*first.fires, *first.expired)] + [
        (r.first, r.last) for r in first.skipped
    ]
    again = catch_up(rule, window, sorted([*settled, *decided]), **keys)
    assert (again.fires, again.expired, again.skipped) == ([], [], [])


@given(rules, instants, instants)
def test_a_range_counts_what_lies_in_it(rule, a, b):
    slots = list(rule.between_ms(a, b))
    found = range_in(rule, Window(a, b))
    assert found == ((slots[0], slots[-1], len(slots)) if slots else None)


@given(rules, instants, st.none() | instants, st.none() | instants, instants)
def test_the_next_slot_respects_every_bound(rule, effective_from, starts, ends, after):
    window = slot_window(effective_from, starts, ends)
    slot = next_slot(rule, window, after)
    least = max(effective_from, after, (starts or 0) - 1)
    expected = next(rule.between_ms(least, min(ends or 10**14, least + 4_000_000)), None)
    assert slot == expected
    assert clip(window, after=after).after == max(window.after, after)


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_backoff_is_at_least_a_millisecond_and_at_most_a_minute(attempts, jitter):
    assert 1 <= backoff_ms(attempts, jitter) <= BACKOFF_CAP_MS
    assert backoff_ms(attempts, 0.999999) <= 200 * 2 ** (attempts - 1)


@given(rules, instants, instants, st.data())
def test_a_range_without_some_of_its_slots_has_each_of_the_others_once(rule, one, other, data):
    whole = range_in(rule, Window(min(one, other), max(one, other)))
    if whole is None:
        return
    slots = list(rule.between_ms(whole.first - 1, whole.last))
    taken = sorted(data.draw(st.sets(st.sampled_from(slots), max_size=20)))
    left = list(without(rule, whole, taken))
    parts = [list(rule.between_ms(rest.first - 1, rest.last)) for rest in left]
    assert [(part[0], part[-1], len(part)) for part in parts] == left
    assert [slot for part in parts for slot in part] == [slot for slot in slots if slot not in taken]
