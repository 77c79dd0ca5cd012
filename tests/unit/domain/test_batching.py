"""Entries packed into requests; the general case is tests/property/test_batching.py."""

from __future__ import annotations

from cronally.domain.batching import pack
from cronally.domain.message import MAX_MESSAGE_BYTES
from support.entries import sized_entry

TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"


def entry(number, *, size=100, topic=TOPIC, group=None):
    return sized_entry(number, size, topic=topic, group=group)


def test_ten_go_together():
    assert [len(batch.entries) for batch in pack(entry(n) for n in range(25))] == [10, 10, 5]


def test_nothing_packs_into_nothing():
    assert pack([]) == []


def test_a_batch_is_at_most_as_large_as_one_message_may_be():
    half = MAX_MESSAGE_BYTES // 2
    assert [len(b.entries) for b in pack([entry(1, size=half), entry(2, size=half), entry(3, size=1)])] == [
        2,
        1,
    ]


def test_an_entry_that_is_too_large_goes_alone():
    batches = pack([entry(1), entry(2, size=MAX_MESSAGE_BYTES + 1), entry(3)])
    assert [[e.name for e in b.entries] for b in batches] == [["job-1"], ["job-2"], ["job-3"]]


def test_topics_are_kept_apart():
    batches = pack([entry(1), entry(2, topic=TOPIC + "2"), entry(3)])
    assert [[e.name for e in b.entries] for b in batches] == [["job-1", "job-3"], ["job-2"]]


def test_a_fifo_batch_holds_one_entry_of_a_group():
    fifo = TOPIC + ".fifo"
    batches = pack([entry(n, topic=fifo, group="gh"[n % 2]) for n in range(4)])
    assert [[e.group for e in b.entries] for b in batches] == [["g", "h"], ["g", "h"]]


def test_a_group_of_a_standard_topic_does_not_divide():
    assert len(pack([entry(n, group="g") for n in range(10)])) == 1
