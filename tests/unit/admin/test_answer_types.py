from __future__ import annotations

from dataclasses import FrozenInstanceError, field, fields, is_dataclass, replace

import pytest

from cronally.admin.answer_types import AnswerType, answer_type, keys_of


@answer_type
class Pair(AnswerType):
    """Two things."""

    name: str
    tags: list[str] = field(default_factory=list)
    count: int = 0


@answer_type
class Other(AnswerType):
    """The same, and something else."""

    name: str
    tags: list[str] = field(default_factory=list)
    count: int = 0


def test_it_is_a_dataclass_with_keyword_arguments_and_defaults():
    one = Pair(name="a", count=3)
    assert (one.name, one.tags, one.count) == ("a", [], 3)
    assert one.tags is not Pair(name="b").tags
    assert is_dataclass(Pair)
    assert keys_of(Pair) == tuple(one.name for one in fields(Pair)) == ("name", "tags", "count")
    assert replace(one, name="b") == Pair(name="b", count=3)
    assert repr(one) == "Pair(name='a', tags=[], count=3)"


def test_it_is_equal_to_its_like():
    assert Pair(name="a") == Pair(name="a")
    assert Pair(name="a") != Pair(name="b")
    assert Pair(name="a") != Other(name="a")
    assert Pair(name="a") != ("a", [], 0)


def test_it_cannot_be_changed():
    one = Pair(name="a")
    with pytest.raises(FrozenInstanceError, match="'name'"):
        one.name = "b"
    with pytest.raises(FrozenInstanceError, match="'name'"):
        del one.name


def test_what_is_missing_or_too_much_is_a_type_error():
    with pytest.raises(TypeError, match="Pair: name is missing"):
        Pair()
    with pytest.raises(TypeError, match="Pair: no such field: nme"):
        Pair(name="a", nme="b")
