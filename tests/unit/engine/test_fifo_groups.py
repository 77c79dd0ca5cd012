"""The bookkeeping of message groups, without an engine."""

from __future__ import annotations

from cronally.domain.model import Fire, Kind
from cronally.engine.fifo import MAX_WAITING, FifoGroups, GroupKey, place_of

KEY = GroupKey("topic.fifo", "g")


def fire(time, schedule_id=1, kind=Kind.SCHEDULED):
    return Fire(schedule_id, 1, time, time, kind)


def place(time, schedule_id=1):
    return place_of(fire(time, schedule_id), f"job-{schedule_id}")


def drained(groups, head):
    """The fire times from *head* on, as each head is settled."""
    times = []
    while head is not None:
        times.append(head.fire_time)
        head = groups.finish(head)
    return times


def test_the_first_to_enter_a_free_group_is_its_head():
    groups = FifoGroups()
    assert groups.enter(KEY, place(1))
    assert groups.head_of(fire(1)) == KEY
    assert groups.finish(fire(1)) is None
    assert len(groups) == 0


def test_those_that_wait_go_in_order():
    groups = FifoGroups()
    groups.enter(KEY, place(1))
    for time in (5, 3, 4, 2):
        assert not groups.enter(KEY, place(time))
        assert groups.is_waiting(KEY, place(time))
    assert drained(groups, fire(1)) == [1, 2, 3, 4, 5]
    assert len(groups) == 0


def test_memory_holds_the_first_hundred_and_the_store_the_others():
    groups = FifoGroups()
    groups.enter(KEY, place(0))
    for time in range(2 * MAX_WAITING, 0, -1):
        groups.enter(KEY, place(time))
    assert not groups.is_waiting(KEY, place(MAX_WAITING + 1))
    assert not groups.enter(KEY, place(1000))
    assert not groups.is_waiting(KEY, place(1000))
    assert drained(groups, fire(0)) == list(range(MAX_WAITING + 1))
    assert groups.wanting(0) == [KEY]
    groups.begin_refill(KEY)
    assert not groups.enter(KEY, place(2000))
    rest = [place(time) for time in [*range(MAX_WAITING + 1, 2 * MAX_WAITING + 1), 1000]]
    assert drained(groups, groups.refill(KEY, rest, is_all=True)) == [p.fire_time for p in rest] + [2000]
    assert len(groups) == 0


def test_a_refill_that_is_not_all_keeps_what_comes_after_it_for_the_next():
    groups = FifoGroups()
    groups.mark_busy(KEY)
    assert not groups.enter(KEY, place(1))
    groups.begin_refill(KEY)
    groups.enter(KEY, place(9))
    groups.enter(KEY, place(2))
    head = groups.refill(KEY, [place(1), place(2), place(3)], is_all=False)
    assert drained(groups, head) == [1, 2, 3]
    assert groups.wanting(0) == [KEY]


def test_a_refill_that_finds_nothing_frees_the_group():
    groups = FifoGroups()
    groups.mark_busy(KEY)
    groups.begin_refill(KEY)
    assert groups.refill(KEY, [], is_all=True) is None
    assert len(groups) == 0


def test_a_head_is_tried_again_once_and_a_retry_of_a_former_head_is_void():
    groups = FifoGroups()
    groups.enter(KEY, place(1))
    groups.enter(KEY, place(2))
    groups.replace_head(fire(1)._replace(attempts=1), 100)
    assert groups.next_retry() == 100
    assert groups.retries_due(99) == []
    assert [f.attempts for f in groups.retries_due(100)] == [1]
    assert groups.retries_due(100) == []
    groups.replace_head(fire(1), 200)
    groups.finish(fire(1))
    assert groups.retries_due(300) == []


def test_a_group_opens_when_its_fire_is_due():
    groups = FifoGroups()
    groups.open_at(KEY, 50)
    assert groups.next_retry() == 50
    assert groups.wanting(49) == []
    assert groups.enter(KEY, place(40))
    assert groups.wanting(50) == []
    groups.enter(KEY, place(60))
    assert groups.finish(fire(40)) is None
    assert groups.wanting(50) == [KEY]


def test_a_schedule_is_forgotten_but_for_what_has_been_sent():
    groups = FifoGroups()
    other = GroupKey("topic.fifo", "h")
    groups.enter(KEY, place(1))
    groups.enter(KEY, place(2, 2))
    groups.enter(other, place(1, 2))
    groups.enter(other, place(2, 1))
    groups.forget(2, {(1, Kind.SCHEDULED)})
    assert groups.head_of(fire(1, 2)) == other
    assert groups.finish(fire(1)) is None
    assert groups.wanting(0) == [KEY]
    groups.forget(2, set())
    assert groups.head_of(fire(1, 2)) is None
    assert set(groups.wanting(0)) == {KEY, other}
    groups.give_up_head(fire(99))


def test_one_that_was_read_from_the_store_does_not_enter_a_second_time():
    groups = FifoGroups()
    groups.mark_busy(KEY)
    groups.begin_refill(KEY)
    head = groups.refill(KEY, [place(1), place(2)], is_all=True)
    dated = place_of(fire(2)._replace(deadline_at=99), "job-1")
    assert not groups.enter(KEY, dated)
    assert groups.is_waiting(KEY, dated)
    assert drained(groups, head) == [1, 2]


def test_a_pending_fire_that_has_come_due_keeps_its_place_though_nobody_has_looked_yet():
    groups = FifoGroups()
    groups.open_at(KEY, 5)
    assert groups.enter(KEY, place(4))
    groups.finish(fire(4))
    groups.open_at(KEY, 5)
    assert not groups.enter(KEY, place(6))
    assert groups.wanting(6) == [KEY]
