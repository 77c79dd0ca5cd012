"""Settings that are read again while the daemon runs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from cronally.actions import about
from cronally.config import reloaded
from cronally.errors import UsageError

if TYPE_CHECKING:
    from cronally.app.daemon import Daemon
    from cronally.engine.engine import Engine
    from cronally.engine.journalist import Journalist
    from cronally.engine.reporting import Reporting
    from cronally.engine.retention import Retention

_log = logging.getLogger("cronally")


async def reload_for_ever(
    daemon: Daemon, engine: Engine, retention: Retention, journalist: Journalist, reporting: Reporting
) -> None:
    """At each SIGHUP, take over what can be taken over of the settings as they are now, or nothing."""
    while True:
        await daemon.signals.wants_reload.wait()
        daemon.signals.wants_reload.clear()
        daemon.supervision.reloading()
        try:
            read = await asyncio.to_thread(daemon.read)  # a file may be on a disk that hangs
        except UsageError as exc:
            _log.error(
                "the settings are not read again, and stay as they were: %s",
                exc,
                extra=about("daemon.reload_refused", error=str(exc)),
            )
        else:
            became = reloaded(daemon.config, read)
            config = daemon.config = became.config
            daemon.pacing.replace(config.sns_quota)
            retention.keep = journalist.keep = reporting.keep = config.journal
            engine.allow(config.sns_topics)
            for change in became.applied:
                _log.info("reload: %s", change, extra=about("daemon.reload", change=change, is_applied=True))
            for change in became.waiting:
                _log.warning(
                    "reload: %s, but not before a restart",
                    change,
                    extra=about("daemon.reload", change=change, is_applied=False),
                )
            _log.info(
                "the settings are read again: %d changed",
                len(became.applied),
                extra=about("daemon.reloaded", changed=len(became.applied)),
            )
        daemon.supervision.ready()
