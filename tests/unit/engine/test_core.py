"""What the core holds, without an engine."""

from __future__ import annotations

import pytest

from cronally.domain.model import Fire, Kind
from cronally.engine.core import Core
from support.entries import launch

FIRE = Fire(1, 1, 1000, 1000)


def test_a_fire_is_held_once():
    core = Core()
    assert core.hold(FIRE)
    assert not core.hold(FIRE)
    assert core.hold(FIRE._replace(kind=Kind.MANUAL), has_row=True)


def test_a_fire_on_its_way_is_not_sent_a_second_time():
    core = Core()
    core.hold(FIRE)
    launch(core, FIRE)
    assert not core.mark_planned(FIRE)
    assert core.in_flight_count() == 1
    assert not core.may_release(FIRE)


def test_the_watermark_stays_before_what_is_held_without_a_row():
    core = Core()
    core.planned_through = 10_000
    core.hold(FIRE)
    core.hold(FIRE._replace(schedule_id=2, due_time=3000))
    assert core.watermark(5000) == 999
    core.note_row(FIRE)
    assert core.watermark(5000) == 2999
    core.mark_settled([FIRE._replace(schedule_id=2)])
    assert core.watermark(5000) == 5000
    assert core.watermark(20_000) == 10_000


def test_a_manual_fire_is_its_writers_until_the_row_is_there():
    core = Core()
    manual = FIRE._replace(kind=Kind.MANUAL)
    core.begin_manual(manual)
    assert not core.hold(manual, has_row=True)
    assert not core.may_release(manual)
    assert core.end_manual(manual, is_done=True)
    assert core.may_release(manual)
    assert not core.end_manual(manual, is_done=True)
    other = manual._replace(schedule_id=2)
    core.begin_manual(other)
    assert not core.end_manual(other, is_done=False)
    assert core.hold(other, has_row=True)


def test_what_was_armed_before_a_fire_was_asked_for_again_does_not_leave():
    core = Core()
    again = FIRE._replace(asked_at=2000)
    core.hold(again, has_row=True)
    assert not core.may_release(FIRE)
    with pytest.raises(AssertionError):
        launch(core, FIRE)
    assert core.may_release(again)
    launch(core, again)


def test_what_is_dropped_stays_withheld_until_the_change_is_made_or_fails():
    core = Core()
    sent = FIRE._replace(fire_time=1)
    core.hold(sent)
    launch(core, sent)
    core.hold(FIRE)
    pending = FIRE._replace(fire_time=500)
    core.hold(pending, has_row=True)
    assert core.begin_drop(1) == {(1, Kind.SCHEDULED)}
    assert not core.may_release(FIRE)
    assert not core.hold(pending, has_row=True)
    assert core.end_drop(1, is_done=False) == [FIRE]
    assert core.may_release(FIRE)
    assert core.hold(pending, has_row=True)
    core.begin_drop(1)
    assert core.end_drop(1, is_done=True) == []
    assert not core.may_release(FIRE)
