"""Durations as users write them: ``90s``, ``5m``, ``1h30m``, ``2d``."""

from __future__ import annotations

import re
from functools import lru_cache

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_UNITS = (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS), ("s", SECOND_MS))
_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,8})h)?(?:(\d{1,9})m)?(?:(\d{1,10})s)?", re.ASCII)


@lru_cache(maxsize=1024)
def parse_duration(text: str) -> int:
    """Return the duration in milliseconds, a whole number of seconds, 0 or more.

    Units ``d h m s`` in this order, each once. A bare ``0`` is accepted.
    Errors: ValueError that shows the right form.
    """
    match = _DURATION.fullmatch(text)
    if text == "0":
        return 0
    if match is None or not text:
        raise ValueError(f"{text[:50]!r} is not a duration; write it as 90s, 5m, 1h30m or 2d")
    return sum(int(digits) * unit for digits, (_, unit) in zip(match.groups(), _UNITS, strict=True) if digits)


def format_duration(duration_ms: int) -> str:
    """Write whole seconds, 0 or more, in the form ``parse_duration`` reads: ``1h30m``; 0 is ``0s``."""
    rest, parts = duration_ms, []
    for letter, unit in _UNITS:
        amount, rest = divmod(rest, unit)
        if amount:
            parts.append(f"{amount}{letter}")
    return "".join(parts) or "0s"
