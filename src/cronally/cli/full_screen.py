"""A terminal's whole screen, taken for a while and given back as it was, however the command ends."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OTHERS: Final = (signal.SIGTSTP, signal.SIGWINCH)


class Ended(Exception):  # noqa: N818 - nothing is wrong
    """Somebody asks to end. Attributes: exit_code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


class FullScreen:
    """Shows lines on the whole screen, for the block. Stopped with Ctrl-Z, it gives the screen back until it goes on."""

    def __init__(self) -> None:
        self._console = Console()
        self._live: Live | None = None
        self._cleaning = ExitStack()
        self._signals, self._written = os.pipe()
        self._mode: list[Any] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self._console.width, self._console.height

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(os.close, self._signals)
            stack.callback(os.close, self._written)
            stack.enter_context(self._hearing())
            self._take()
            stack.callback(self._give_back)
            self._cleaning = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cleaning.__exit__(kind, exc, traceback)

    def show(self, lines: Sequence[tuple[str, str]]) -> None:
        """Draw lines, each with its style (``bold``, ``red``, or none); what is too wide or too much is cut."""
        width, height = self.size
        text = Text(no_wrap=True, overflow="crop")
        for number, (line, style) in enumerate(lines[:height]):
            text.append(("\n" if number else "") + line[:width], style)
        assert self._live is not None
        self._live.update(text, refresh=True)

    def wait(self, timeout_s: float) -> None:
        """Return after *timeout_s*, or sooner if the screen is to be drawn anew. Errors: Ended, for ``q`` and signals."""
        sources = [self._signals, *([sys.stdin.fileno()] if self._mode is not None else [])]
        ready, _, _ = select.select(sources, [], [], max(timeout_s, 0))
        for source in ready:
            given = os.read(source, 64)
            if source != self._signals:
                if not given or b"q" in given.lower():  # nothing: the terminal has gone
                    raise Ended(0)
                continue
            for number in given:
                if number in _ENDING:
                    raise Ended(0 if number == signal.SIGINT else 128 + number)
                if number == signal.SIGTSTP:
                    self._give_back()
                    os.kill(os.getpid(), signal.SIGSTOP)
                    self._take()

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        """For the block, signals wake ``wait`` and do nothing else."""
        os.set_blocking(self._written, False)
        before = {number: signal.signal(number, lambda *_: None) for number in (*_ENDING, *_OTHERS)}
        woken = signal.set_wakeup_fd(self._written, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(woken)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self) -> None:
        if sys.stdin.isatty():
            self._mode = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        self._live = Live(Text(), console=self._console, screen=True, auto_refresh=False)
        self._live.start()

    def _give_back(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._mode is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._mode)
            self._mode = None
