"""What is armed and has not left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from cronally.engine.departures import Departures
from support.entries import FIFO_TOPIC, NINE, TOPIC, batch

if TYPE_CHECKING:
    from cronally.domain.batching import Batch

OTHER = "arn:aws:sns:us-east-1:123456789012:other"
ELSEWHERE = "arn:aws:sns:eu-west-1:123456789012:reports"


@dataclass
class Armed:
    batch: Batch
    size_bytes: int = 100


def armed(count=1, *, first=0, topic=TOPIC, priority=5):
    return Armed(batch(count, first=first, topic=topic, priority=priority))


def left(departures, turns):
    out = []
    while turns:
        out.append(departures.pop(turns).armed.batch.entries[0].name)
    return out


def test_what_is_due_takes_its_turn_and_what_is_to_come_waits():
    departures = Departures()
    departures.add(armed(first=1), NINE)
    departures.add(armed(first=2), NINE + 1)
    assert departures.next_instant() == NINE
    departures.advance(NINE - 1)
    assert not departures.has_due()
    departures.advance(NINE)
    [turns] = departures.due()
    assert left(departures, turns) == ["job-1"]
    assert not departures.has_due()
    assert departures.next_instant() == NINE + 1


def test_ways_do_not_wait_for_one_another():
    departures = Departures()
    for number, topic in enumerate((TOPIC, OTHER, ELSEWHERE, TOPIC)):
        departures.add(armed(first=number, topic=topic), NINE)
    departures.advance(NINE)
    assert [left(departures, turns) for turns in departures.due()] == [["job-0", "job-1", "job-3"], ["job-2"]]


def test_fifo_batches_are_asked_for_their_groups_before_they_take_a_turn():
    departures = Departures()
    departures.add(armed(first=1, topic=FIFO_TOPIC), NINE)
    departures.advance(NINE)
    assert not departures.has_due()
    assert departures.take_unadmitted(NINE) == []  # another one may be due at that instant
    assert departures.size_bytes == 100
    [departure] = departures.take_unadmitted(NINE + 1)
    assert (departures.size_bytes, departures.has_due()) == (0, False)
    departures.put(departure)
    assert departures.size_bytes == 100
    [turns] = departures.due()
    assert left(departures, turns) == ["job-1"]


def test_memory_is_counted_until_a_batch_leaves():
    departures = Departures()
    for number in range(3):
        departures.add(armed(first=number), NINE + number)
    assert departures.size_bytes == 300
    departures.advance(NINE)
    departures.pop(departures.due()[0])
    assert departures.size_bytes == 200
    assert [each.instant for each in departures.clear()] == [NINE + 1, NINE + 2]
    assert (departures.size_bytes, departures.next_instant(), list(departures)) == (0, None, [])


def test_a_topic_with_few_is_not_behind_one_with_many():
    departures = Departures()
    for first in range(0, 100, 10):
        departures.add(armed(10, first=first), NINE)
    assert departures.ahead(TOPIC, 5) == 100
    assert departures.ahead(OTHER, 5) == 10  # whose turn comes after one batch of the other
    assert departures.ahead(TOPIC, 6) == 0
    assert departures.ahead(OTHER, 4) == 100
    assert departures.ahead(ELSEWHERE, 4) == 0
    departures.add(armed(10, first=100, topic=OTHER), NINE)
    assert departures.ahead(OTHER, 5) == 10 + 20


def test_what_has_left_is_ahead_of_nobody():
    departures = Departures()
    departures.add(armed(7), NINE)
    departures.advance(NINE)
    departures.pop(departures.due()[0])
    assert departures.ahead(TOPIC, 5) == 0


@pytest.mark.parametrize("topic", [TOPIC, FIFO_TOPIC])
def test_what_overstays_is_taken_out_unless_its_group_keeps_its_order(topic):
    departures = Departures()
    for number in range(3):
        departures.add(armed(first=number, topic=topic), NINE + number)
    departures.advance(NINE + 5)
    for departure in departures.take_unadmitted(None):
        departures.put(departure)
    assert len(departures.overstayed(NINE + 2, 0)) == 0
    out = departures.overstayed(NINE + 2, 9)
    expected = [] if topic == FIFO_TOPIC else [NINE, NINE + 1]
    assert [departure.instant for departure in out] == expected
    assert departures.size_bytes == 300 - 100 * len(expected)
    assert len(list(departures)) == 3 - len(expected)
    assert departures.overstayed(NINE, 9) == []
    assert len(departures.overstayed(NINE + 9, 9)) == (0 if topic == FIFO_TOPIC else 1)
    assert departures.has_due() is (topic == FIFO_TOPIC)
