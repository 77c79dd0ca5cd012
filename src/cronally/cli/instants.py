"""The instants that options state, and the zone that local ones are of."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cronally.clock import SystemClock
from cronally.domain.instant_text import read_absolute, read_instant
from cronally.domain.zones import load_zone
from cronally.errors import UsageError, ZoneError
from cronally.instants import format_utc

if TYPE_CHECKING:
    from collections.abc import Callable

    from cronally.domain.instant_text import Direction
    from cronally.instants import UtcMs

_LOCALTIME: Final = Path("/etc/localtime")


def instant(option: str, text: str, *, tz: Callable[[], str], direction: Direction) -> UtcMs:
    """Read the instant that an option states. tz: asked for its zone if it is a local one. Errors: UsageError."""
    now = SystemClock().wall()
    at = read_absolute(text, now=now, direction=direction)
    if at is not None:
        return at
    try:
        return read_instant(text, load_zone(tz()), now=now, direction=direction).at
    except ZoneError:
        raise
    except UsageError as exc:
        raise UsageError(f"{option}: {exc}") from None


def before_now(option: str, text: str) -> str:
    """Return what the daemon takes for an instant that lies in the past if it could be either; a local one is of the shell's zone."""
    if read_absolute(text, now=SystemClock().wall(), direction=-1) is not None:
        return text  # by the daemon's clock
    return format_utc(instant(option, text, tz=shell_zone, direction=-1))


def shell_zone() -> str:
    """Return the IANA name of the zone that the shell goes by. Errors: UsageError if it has none."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        target = str(_LOCALTIME.resolve())
        name = target.partition("/zoneinfo/")[2] or "UTC"
    try:
        load_zone(name)
    except ZoneError:
        raise UsageError(
            f"the zone of this shell, {name[:50]!r}, has no IANA name; write an instant with its offset, such as "
            "2026-12-24T18:00:00Z, or set TZ"
        ) from None
    return name
