"""Cronally: a cron for teams that run on AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cronally.domain.recurrence import Recurrence
    from cronally.errors import WhenError, ZoneError

__version__ = "0.1.0"
RELEASED_AT = "2026-11-23T00:00:00Z"
"""No clock that says an earlier time can be right (design §9)."""

__all__ = ["Recurrence", "WhenError", "ZoneError"]


def __getattr__(name: str) -> Any:
    """Load the public names when they are first used: the command line needs none of them to start."""
    if name == "Recurrence":
        from cronally.domain.recurrence import Recurrence  # noqa: PLC0415 - on first use

        return Recurrence
    if name in ("WhenError", "ZoneError"):
        from cronally import errors  # noqa: PLC0415 - on first use

        return getattr(errors, name)
    raise AttributeError(f"module 'cronally' has no attribute {name!r}")
