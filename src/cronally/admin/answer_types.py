"""What the types of the wire have in common.

They are dataclasses, but for the methods: ``dataclass`` writes and compiles six for each of two dozen classes, which takes a
short command a fifth of its time. Here they have them together.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field
from typing import Any, ClassVar, TypeVar, dataclass_transform

_Answer = TypeVar("_Answer", bound="AnswerType")


class AnswerType:
    """Keyword arguments alone; cannot be changed; equal if of one class with equal values."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init__(self, **values: Any) -> None:
        for key, one in self.__dataclass_fields__.items():
            if key in values:
                value = values.pop(key)
            elif one.default is not MISSING:
                value = one.default
            elif one.default_factory is not MISSING:
                value = one.default_factory()
            else:
                raise TypeError(f"{type(self).__name__}: {key} is missing")
            object.__setattr__(self, key, value)
        if values:
            raise TypeError(f"{type(self).__name__}: no such field: {next(iter(values))}")

    def __setattr__(self, key: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {key!r}")

    def __delattr__(self, key: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {key!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, key) == getattr(other, key) for key in keys_of(type(self)))

    __hash__ = None  # type: ignore[assignment]  # most hold lists; to mypy each class has one, as object does

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={getattr(self, key)!r}" for key in keys_of(type(self)))
        return f"{type(self).__name__}({values})"


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def answer_type(cls: type[_Answer]) -> type[_Answer]:
    """Make a dataclass of a subclass of ``AnswerType``, which lists its fields."""
    return dataclass(init=False, repr=False, eq=False, match_args=False, kw_only=True)(cls)


def keys_of(kind: type[AnswerType]) -> tuple[str, ...]:
    """Return the fields of a type of the wire, in their order."""
    return tuple(kind.__dataclass_fields__)
