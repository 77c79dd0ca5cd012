"""When a topic's circuit opens and closes, and when a probe goes."""

from __future__ import annotations

import pytest

from cronally.domain.model import FireKey, Kind
from cronally.domain.policy import HOLD_MS
from cronally.engine.circuits import Circuits
from cronally.instants import UtcMs

TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
NOW = UtcMs(1_795_510_800_000)
KEY = FireKey(1, NOW, Kind.SCHEDULED)


@pytest.fixture
def circuits():
    return Circuits()


@pytest.fixture
def circuit(circuits):
    return circuits.of(TOPIC)


def fail(circuit, at=NOW, *, is_held=False, is_first=True):
    return circuit.fail(at * 1000, "no", is_held=is_held, is_first=is_first)


def trip(circuits, circuit, at=NOW, *, is_held=False):
    while not fail(circuit, at, is_held=is_held):
        pass
    circuits.trip(circuit, at, is_held=is_held, jitter=0.5)


def test_three_failures_in_a_row_open_it(circuit):
    assert [fail(circuit, NOW + n) for n in range(3)] == [False, False, True]


def test_a_success_between_failures_keeps_it_closed(circuit):
    for n in range(0, 30, 3):
        assert not fail(circuit, NOW + n)
        assert not fail(circuit, NOW + n + 1)
        assert not circuit.succeed((NOW + n + 2) * 1000)


def test_a_failure_of_what_left_before_the_newest_success_says_nothing(circuit):
    circuit.succeed((NOW + 10) * 1000)
    assert not any(fail(circuit, NOW + n, is_held=True) for n in range(9))


def test_a_topic_that_is_gone_opens_it_at_once(circuit):
    circuit.succeed((NOW - 1) * 1000)
    assert fail(circuit, is_held=True)


def test_one_message_that_is_held_again_while_others_go_does_not_open_it(circuit):
    circuit.succeed((NOW - 1) * 1000)
    assert not fail(circuit, is_held=True, is_first=False)
    assert fail(circuit, NOW + HOLD_MS, is_held=True, is_first=False)


def test_only_what_left_since_it_opened_closes_it(circuits, circuit):
    trip(circuits, circuit, NOW)
    assert not circuit.succeed((NOW - 5) * 1000)
    fail(circuit, NOW + 20)
    assert not circuit.succeed((NOW + 10) * 1000)
    assert circuit.succeed((NOW + 30) * 1000)


def test_probes_go_one_at_a_time_and_later_and_later(circuits, circuit):
    trip(circuits, circuit)
    now, waits = NOW, []
    for _ in range(12):
        at = circuits.next_probe()
        waits.append(at - now)
        assert circuits.take_due(UtcMs(at - 1)) is None
        assert circuits.take_due(at) is circuit
        circuits.begin_probe(circuit, KEY)
        assert circuits.next_probe() is None
        assert circuits.take_due(UtcMs(at + 10**9)) is None
        circuits.end_probe(circuit, at, "still no", is_held=False, jitter=0.5)
        now = at
    assert waits == [400, 800, 1600, 3200, 6400, 12_800, 25_600] + [30_000] * 5
    assert circuit.error == "still no"


def test_a_topic_that_is_gone_is_probed_every_five_minutes(circuits, circuit):
    trip(circuits, circuit, is_held=True)
    assert circuits.next_probe() == NOW + HOLD_MS


def test_only_the_probe_may_go(circuits, circuit):
    assert not circuits.is_barred(TOPIC, KEY)
    trip(circuits, circuit)
    assert circuits.is_barred(TOPIC, KEY)
    circuits.begin_probe(circuit, KEY)
    assert not circuits.is_barred(TOPIC, KEY)
    assert circuits.is_barred(TOPIC, KEY._replace(schedule_id=2))
    circuits.close(circuit)
    assert not circuits.is_barred(TOPIC, KEY._replace(schedule_id=2))
    assert (circuits.open, circuits.probes, circuit.error) == ({}, {}, None)


def test_a_probe_that_is_lost_is_followed_by_another_at_once(circuits, circuit):
    trip(circuits, circuit)
    at = circuits.next_probe()
    circuits.take_due(at)
    circuits.begin_probe(circuit, KEY)
    circuits.lose_probe(circuit)
    assert circuits.take_due(at) is circuit


def test_without_anything_to_probe_with_it_waits_until_there_is(circuits, circuit):
    trip(circuits, circuit)
    at = circuits.next_probe()
    circuits.starve(circuits.take_due(at), at)
    assert circuits.take_due(at) is None
    assert circuits.feed(TOPIC, UtcMs(at + 5))
    assert not circuits.feed(TOPIC, UtcMs(at + 5))
    assert circuits.take_due(UtcMs(at + 5)) is circuit


def test_a_clock_set_back_delays_no_probe(circuits, circuit):
    trip(circuits, circuit, is_held=True)
    back = UtcMs(NOW - 10**8)
    circuits.forget_instants(back)
    assert circuits.take_due(back) is circuit
    assert circuit.succeed(back * 1000)


def test_circuits_are_named_with_the_longest_open_first(circuits):
    for n in (3, 1, 2):
        trip(circuits, circuits.of(f"{TOPIC}-{n}"), UtcMs(NOW + n))
    assert [circuit.topic[-1] for circuit in circuits.summary()] == ["1", "2", "3"]
