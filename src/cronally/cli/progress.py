"""How far long work is, as a bar on stderr while somebody watches."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, Self

from cronally.cli.output import shows_progress
from cronally.clock import SystemClock

if TYPE_CHECKING:
    from types import TracebackType

_SHOWN_AFTER_S: Final = 0.3  # what takes no longer is over before it could be read
_REDRAWN_S: Final = 0.1
_MOST_CHARS: Final = 40  # of the bar
_COLUMNS: Final = 80  # where the terminal does not tell


class Progress:
    """For the block, shows how much of *total* is done; of an unknown total (None) what is said alone."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._is_watched = shows_progress()
        self._clock = SystemClock()
        self._drawn_at_s = self._clock.mono() + _SHOWN_AFTER_S - _REDRAWN_S
        self._is_drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()

    def reach(self, done: int, said: str) -> None:
        """So much is *done*. said: the same in words."""
        now = self._clock.mono()
        is_last = self._is_drawn and self._total is not None and done >= self._total
        if not self._is_watched or (now - self._drawn_at_s < _REDRAWN_S and not is_last):
            return
        self._drawn_at_s, self._is_drawn = now, True
        sys.stdout.flush()
        sys.stderr.write(f"\r{bar_text(done, self._total, said, _columns() - 1)}\x1b[K")
        sys.stderr.flush()

    def clear(self) -> None:
        """Take the bar away, before something else is written."""
        if self._is_drawn:
            self._is_drawn = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def bar_text(done: int, total: int | None, said: str, width: int) -> str:
    """Return a line of at most *width* characters: the bar as far as there is room, the share, and what is *said*."""
    if not total:
        return said[:width]
    share = min(done / total, 1.0)
    told = f"{share:4.0%}  {said}"
    chars = min(_MOST_CHARS, width - len(told) - 3)
    if chars < 5:
        return told[:width]
    full = int(share * chars)
    return f"[{'#' * full}{' ' * (chars - full)}] {told}"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS
