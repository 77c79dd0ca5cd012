"""Packing loses nothing, exceeds nothing, and keeps order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cronally.domain.batching import pack
from support.entries import sized_entry

TOPICS = [f"arn:aws:sns:us-east-1:123456789012:{name}" for name in ("a", "b", "c.fifo", "d.fifo")]


@st.composite
def entries(draw):
    made = []
    for number in range(draw(st.integers(0, 60))):
        topic = draw(st.sampled_from(TOPICS))
        made.append(
            sized_entry(
                number,
                draw(st.sampled_from([1, 10, 30, 60, 100, 130])),
                topic=topic,
                group=draw(st.sampled_from(["g", "h", "i"])) if topic.endswith(".fifo") else None,
            )
        )
    return made


@given(entries(), st.integers(1, 10))
def test_batches_lose_and_exceed_nothing_and_keep_the_order(given_entries, most):
    batches = pack(given_entries, max_entries=most, max_bytes=100)
    packed = [entry for batch in batches for entry in batch.entries]
    for topic in TOPICS:
        assert [e for e in packed if e.topic == topic] == [e for e in given_entries if e.topic == topic]
    assert len(packed) == len(given_entries)
    for batch in batches:
        assert {entry.topic for entry in batch.entries} == {batch.topic}
        assert 1 <= len(batch.entries) <= most
        assert sum(entry.size_bytes for entry in batch.entries) <= 100 or len(batch.entries) == 1
        if batch.topic.endswith(".fifo"):
            groups = [entry.group for entry in batch.entries]
            assert len(set(groups)) == len(groups)


@given(st.integers(0, 95))
def test_entries_alike_fill_their_batches(count):
    alike = [sized_entry(n, 1, topic=TOPICS[0]) for n in range(count)]
    assert [len(batch.entries) for batch in pack(alike)] == [10] * (count // 10) + [count % 10] * (
        count % 10 > 0
    )
