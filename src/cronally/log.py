"""The daemon's log on standard error: it never holds the daemon up, whoever reads it, or does not."""

from __future__ import annotations

import logging
import os
import select
import sys
from typing import Final

_AT_ONCE: Final = select.PIPE_BUF  # bytes that a pipe which has room takes without making the writer wait


class PatientHandler(logging.Handler):
    """Writes a line to *descriptor* if that has room for it now. If not, the line is dropped, and the next one that goes says so.

    A full pipe would stop the whole daemon: nobody can wait there. A queue would only put that off.
    """

    def __init__(self, descriptor: int) -> None:
        """Any descriptor will do, also one whose reader has gone."""
        super().__init__()
        self._descriptor = descriptor
        self._encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = f"{self.format(record)}\n"
            if self._dropped:
                text = f"cronally: lines of the log that nobody took: {self._dropped}\n{text}"
            is_written = self._write(text.encode(self._encoding, "backslashreplace"))
        except Exception:  # noqa: BLE001 - as every handler of logging: a bad record is reported, and stops nobody
            self.handleError(record)
        else:
            self._dropped = 0 if is_written else self._dropped + 1

    def _write(self, data: bytes) -> bool:
        for start in range(0, len(data), _AT_ONCE):
            if self._poll.poll(0) != [(self._descriptor, select.POLLOUT)]:
                return False
            try:
                os.write(self._descriptor, data[start : start + _AT_ONCE])
            except OSError:  # its reader went a moment ago, or its disk is full
                return False
        return True


def start_log() -> None:
    """Send what is logged to standard error: warnings of anybody's, and what Cronally has to tell."""
    handler = PatientHandler(2)
    handler.setFormatter(logging.Formatter("cronally: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("cronally").setLevel(logging.INFO)
