from __future__ import annotations

from cronally.domain.model import JournalEntry, Kind, State
from cronally.engine.relived import Relived

NOW = 1_000_000


def row(schedule_id, fire_time, kind=Kind.SCHEDULED, due_time=None):
    return JournalEntry(schedule_id, fire_time, 1, due_time or fire_time, State.PUBLISHED, kind)


def test_it_is_off_until_a_clock_was_set_back():
    relived = Relived()
    relived.restart(NOW)
    assert not relived.is_on
    assert relived.wants(NOW + 2_000) is None


def test_horizons_are_read_once_until_the_clock_has_been_there():
    relived = Relived()
    relived.begin(NOW + 3_000)
    relived.restart(NOW)
    assert relived.wants(NOW + 2_000) == (NOW, NOW + 2_000)
    relived.add({7: [(NOW + 500, NOW + 500), (NOW + 800, NOW + 1_200)]}, NOW + 2_000, NOW)
    assert relived.wants(NOW + 2_000) is None
    assert relived.wants(NOW + 4_000) == (NOW + 2_000, NOW + 4_000)
    relived.add({}, NOW + 4_000, NOW)
    assert relived.wants(NOW + 6_000) is None
    assert relived.is_on
    assert relived.has(7, NOW + 500)
    assert relived.has(7, NOW + 1_000)
    assert not relived.has(7, NOW + 1_201)
    assert not relived.has(8, NOW + 500)


def test_what_nobody_can_plan_any_more_is_forgotten():
    relived = Relived()
    relived.begin(NOW + 1_000)
    relived.restart(NOW)
    relived.add({7: [(NOW + 500, NOW + 500), (NOW + 600, NOW + 700)]}, NOW + 2_000, NOW)
    relived.pass_by(NOW + 62_000)
    assert relived.has(7, NOW + 500)
    relived.pass_by(NOW + 62_001)
    assert not relived.is_on
    assert not relived.has(7, NOW + 500)
    assert not relived.has(7, NOW + 650)


def test_a_row_of_what_was_in_flight_when_the_clock_was_set_back_counts():
    relived = Relived()
    relived.begin(NOW + 90_000)
    relived.restart(NOW)
    relived.add({}, NOW + 2_000, NOW)
    relived.note(row(7, NOW + 60_000))
    relived.note(row(8, NOW - 60_000))  # due long ago: it is planned by now
    relived.note(row(9, NOW + 60_000, kind=Kind.MANUAL))
    assert relived.has(7, NOW + 60_000)
    assert not relived.has(8, NOW - 60_000)
    assert not relived.has(9, NOW + 60_000)


def test_a_second_step_reaches_as_far_as_the_first():
    relived = Relived()
    relived.begin(NOW + 90_000)
    relived.begin(NOW + 10_000)
    relived.restart(NOW)
    assert relived.through == NOW + 90_000
