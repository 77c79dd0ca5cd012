"""Records of the log of a shared store."""

from __future__ import annotations

from itertools import islice

import pytest

from cronally.errors import StoreError
from cronally.store.shared_log import Logged, Remembered, decode, encode

MANY = [Logged(number % 64, Remembered(f"key-{number}", "answer" * 5_000, number)) for number in range(400)]


def test_a_record_of_any_size_is_what_it_was():
    for count in (1, 2, 400):
        assert list(decode(encode(MANY[:count]).parts)) == MANY[:count]
    assert list(decode(encode(MANY).parts, shards=frozenset({7}))) == [
        each for each in MANY if each.shard == 7
    ]


def test_a_record_is_read_deed_by_deed():
    """So that whoever reads a large one has the event loop take its turns in between."""
    whole = b"".join(encode(MANY).parts)
    assert list(islice(decode([whole[: len(whole) // 2]]), 100)) == MANY[:100]


@pytest.mark.parametrize("lost", [1, 4, 100])
def test_a_record_that_is_cut_off_is_refused(lost):
    whole = b"".join(encode(MANY).parts)
    with pytest.raises(StoreError, match="cut off"):
        list(decode([whole[:-lost]]))


def test_a_record_of_a_newer_version_is_refused():
    whole = b"".join(encode(MANY[:1]).parts)
    with pytest.raises(StoreError, match="newer cronally"):
        list(decode([b"\x02" + whole[1:]]))
