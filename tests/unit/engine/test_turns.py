"""Whose turn it is."""

from __future__ import annotations

import pytest

from cronally.engine.turns import Turns


def drained(turns):
    out = []
    while turns:
        out.append(turns.pop())
        turns.end_turn()
    return out


def filled(*items):
    turns = Turns()
    for priority, topic, item in items:
        turns.add(priority, topic, item)
    return turns


def test_topics_of_equal_priority_take_turns():
    turns = filled(*[(5, "a", f"a{n}") for n in range(4)], (5, "b", "b0"), (5, "c", "c0"), (5, "c", "c1"))
    assert drained(turns) == ["a0", "b0", "c0", "a1", "c1", "a2", "a3"]


def test_a_higher_priority_goes_first_whatever_the_topic():
    turns = filled((5, "a", 1), (0, "a", 2), (9, "b", 3), (9, "a", 4), (5, "b", 5))
    assert drained(turns) == [3, 4, 1, 5, 2]


def test_who_comes_with_a_higher_priority_meanwhile_is_next():
    turns = filled((5, "a", 1), (5, "a", 2))
    assert turns.pop() == 1
    turns.end_turn()
    turns.add(6, "b", 3)
    assert drained(turns) == [3, 2]


def test_a_topic_keeps_its_turn_until_it_ends():
    turns = filled((5, "a", 1), (5, "a", 2), (5, "b", 3))
    assert [turns.pop(), turns.pop()] == [1, 2]
    turns.end_turn()
    assert drained(turns) == [3]


def test_what_is_taken_over_stands_behind_what_is_there():
    turns = filled((5, "a", 1), (5, "b", 2))
    turns.extend(filled((5, "a", 3), (7, "c", 4)))
    assert sorted(turns) == [1, 2, 3, 4]
    assert drained(turns) == [4, 1, 2, 3]
    turns.extend(filled((1, "a", 5)))
    assert drained(turns) == [5]


def test_nobody_is_waiting():
    turns = Turns()
    assert not turns
    assert turns.queue() is None
    with pytest.raises(IndexError):
        turns.pop()
