"""A zone that tzdata does not have any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cronally.domain import spec
from cronally.domain.recurrence import Recurrence
from cronally.errors import ZoneError

if TYPE_CHECKING:
    import pytest


def lose_zone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let no rule of the zone *name* be compiled for the rest of a test."""
    parse = Recurrence.parse

    def without(when: str, *, tz: str, **keys: Any) -> Recurrence:
        if tz == name:
            raise ZoneError(name)
        return parse(when, tz=tz, **keys)

    monkeypatch.setattr(Recurrence, "parse", without)
    spec._compile.cache_clear()  # what it remembers is of the time before
