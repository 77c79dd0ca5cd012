"""Sizes as users write them: ``512MiB``, ``2GiB``."""

from __future__ import annotations

import re

_UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))
_SIZE = re.compile(r"(\d{1,15}) ?(B|KiB|MiB|GiB|TiB)", re.ASCII)


def parse_size(text: str) -> int:
    """Return the size in bytes. Errors: ValueError that shows the right form."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:50]!r} is not a size; write it as 512MiB, 2GiB or 1TiB")
    return int(match[1]) * dict(_UNITS)[match[2]]


def format_size(size_bytes: int) -> str:
    """Write a size, 0 or more bytes, for people: ``2 GiB``, ``1.4 MiB``, ``512 B``."""
    name, unit = next((one for one in _UNITS if size_bytes >= one[1]), _UNITS[-1])
    return f"{size_bytes / unit:.1f}".removesuffix(".0") + f" {name}"
