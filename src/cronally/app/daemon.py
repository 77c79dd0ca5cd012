"""The daemon as a process: its settings, its signals, what it tells who started it, and its engine's terms."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cronally.app.event_loop import run
from cronally.app.signals import Signals
from cronally.app.term import Term
from cronally.clock import SystemClock
from cronally.config import load_config
from cronally.engine.lease_counts import LeaseCounts
from cronally.errors import LeaseLost
from cronally.logs import logging_to
from cronally.service_manager import ServiceManager, Supervision
from cronally.sns.pacing import Pacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cronally.clock import Clock
    from cronally.config import Config


def serve(
    flags: Mapping[str, object], *, config_file: str | None = None, log_level: int = logging.INFO
) -> int:
    """Run the daemon until SIGTERM or SIGINT; return its exit code.

    flags: settings given on the command line, by their keys in ``config``; None where one was not given. log_level: the
    least that goes into the log.
    Errors: every CronallyError of the parts, before anything is half-started.
    """

    def read() -> Config:
        return load_config(os.environ, flags, config_file=config_file)

    config = read()
    with logging_to(sys.stderr, log_level, form=config.log_format):
        return run(Daemon(config, SystemClock(), read).run())


class Daemon:
    """One run of ``cronally serve``.

    Attributes: config: the settings in force; a reload replaces them. clock. read: reads the settings again; raises UsageError if
        they cannot be accepted. signals. pacing: of what is published. leases: of those that it had as one of several machines. supervision: what the service manager is told.
    """

    def __init__(self, config: Config, clock: Clock, read: Callable[[], Config]) -> None:
        self.config = config
        self.clock = clock
        self.read = read
        self.signals = Signals()
        self.pacing = Pacing(config.sns_quota)
        self.leases = LeaseCounts()
        self._manager = ServiceManager.found_in(os.environ)
        self.supervision = Supervision(self._manager, clock)

    async def run(self) -> int:
        with self.signals.heard(), self._supervised():
            former: list[str] = []
            while not await self._is_over(former):
                pass
        return 0

    async def _is_over(self, former: list[str]) -> bool:
        """Run one term; False if another has to follow, for the lease was lost. former: of terms before; this one's machine is added."""
        is_lost = False
        try:
            await Term(self, former).run()
        except* LeaseLost:  # who keeps the lease has said so
            is_lost = True
            self.leases.lost += 1
        return not is_lost or self.signals.is_stopping.is_set()

    @contextmanager
    def _supervised(self) -> Iterator[None]:
        """For the block, tell the service manager how we are."""
        if self._manager.watchdog_s is not None:
            with suppress(OSError, ValueError):  # there may be no stderr
                faulthandler.enable()  # the watchdog's SIGABRT leaves in the log where each thread was
        telling = asyncio.ensure_future(self.supervision.run())
        try:
            yield
        finally:
            telling.cancel()
            self._manager.close()
