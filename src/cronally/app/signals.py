"""What the process is told from outside while it runs."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any


class Signals:
    """Attributes: is_stopping: it shall stop in order. is_hurried: and not wait for what is in flight. wants_reload: its settings are to be read again."""

    def __init__(self) -> None:
        self.is_stopping = asyncio.Event()
        self.is_hurried = asyncio.Event()
        self.wants_reload = asyncio.Event()

    @contextmanager
    def heard(self) -> Iterator[None]:
        """SIGTERM and SIGINT stop in order; a second one skips the wait for what is in flight, and later ones say nothing new.

        SIGHUP has the settings read again; one that comes before all is running is heard then.
        """
        loop = asyncio.get_running_loop()

        def stop() -> None:
            (self.is_hurried if self.is_stopping.is_set() else self.is_stopping).set()

        # Not the loop's own handlers: as those are removed, a signal would end the process for a moment.
        wanted = {signal.SIGTERM: stop, signal.SIGINT: stop, signal.SIGHUP: self.wants_reload.set}
        before = {number: _call_on(loop, number, what) for number, what in wanted.items()}
        try:
            yield
        finally:
            # All is on record. One that comes while the interpreter ends would make a clean stop look like none.
            is_over = self.is_stopping.is_set()
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if is_over else handler)


def _call_on(loop: asyncio.AbstractEventLoop, number: signal.Signals, what: Callable[[], None]) -> Any:
    """Have signal *number* call *what* on *loop*; return what it did before."""
    return signal.signal(number, lambda *_: loop.call_soon_threadsafe(what))
