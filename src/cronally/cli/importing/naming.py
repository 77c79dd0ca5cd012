"""Names of imported schedules: legal, distinct, and the same each time the same source is imported."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

MAX_CHARS: Final = 80  # design §3
_DIGEST_CHARS: Final = 8
_ILLEGAL: Final = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)


def legal_name(text: str) -> str:
    """Return *text* as the name of a schedule: other characters become dashes, what is too long ends in a hash of it."""
    name = _ILLEGAL.sub("-", text).lstrip("._-").rstrip("-")
    if not name:
        return "imported"
    if len(name) <= MAX_CHARS:
        return name
    digest = sha256(text.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARS]
    return f"{name[: MAX_CHARS - _DIGEST_CHARS - 1]}-{digest}"


class Names:
    """Hands out names, each once: the second ``backup`` is ``backup-2``."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def next(self, text: str) -> str:
        """Return a name for *text* that was not there before."""
        name = wanted = legal_name(text)
        while name in self._taken:
            number = self._counts[wanted] = self._counts.get(wanted, 1) + 1
            end = f"-{number}"
            name = wanted[: MAX_CHARS - len(end)] + end
        self._taken.add(name)
        return name
