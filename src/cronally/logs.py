"""What the daemon writes to its log: one line per event, whatever it quotes, and never a reason to wait."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TextIO

from cronally.actions import about
from cronally.errors import printable
from cronally.instants import UtcMs, format_utc

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_CHARS: Final = 2_000  # of an event's text
MAX_TRACEBACK_CHARS: Final = 10_000
_MAX_WAITING: Final = 10_000  # lines that nobody takes; more are dropped and counted
REPEATS_S: Final = 60.0
MOST_REPEATS: Final = 10  # warnings of one kind within REPEATS_S
_MOST_KINDS: Final = 1_000  # that are remembered
_LAST_WORDS_S: Final = 2.0  # for the lines that wait when the daemon ends


class Text(logging.Formatter):
    """An event on one printable line. A traceback follows on it, its lines set apart by ``|``."""

    def format(self, record: logging.LogRecord) -> str:
        text = _cut(printable(record.getMessage()), MAX_CHARS)
        if record.exc_info:
            lines = self.formatException(record.exc_info).splitlines()
            text += _cut("".join(f" | {printable(line.strip())}" for line in lines), MAX_TRACEBACK_CHARS)
        return f"cronally: {text}"


class Json(logging.Formatter):
    """An event as one JSON object in ASCII: ``time`` (RFC 3339 UTC), ``level``, ``action``, ``text``, and the fields of the action."""

    def format(self, record: logging.LogRecord) -> str:
        action = getattr(record, "action", None)
        fields = getattr(record, "fields", {}) if action else {"logger": record.name}
        line = {
            "time": format_utc(UtcMs(int(record.created * 1000))),
            "level": record.levelname.lower(),
            "action": action or "library.message",
            "text": _cut(record.getMessage(), MAX_CHARS),
            **{
                key: _cut(value, MAX_CHARS) if isinstance(value, str) else value
                for key, value in fields.items()
            },
        }
        if record.exc_info:
            line["traceback"] = _cut(self.formatException(record.exc_info), MAX_TRACEBACK_CHARS)
        return json.dumps(line, default=str)


FORMATS: Final = {"text": Text, "json": Json}


class Repeats(logging.Filter):
    """Lets few warnings and errors of one kind through in a minute; the next one after it says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}  # since when, and how many since

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        kind = (record.name, str(record.msg))
        since, count = self._seen.get(kind, (record.created, 0))
        if not 0 <= record.created - since < REPEATS_S:
            left_out = count - MOST_REPEATS
            if left_out > 0:
                record.msg = f"{record.getMessage()} ({left_out:,} more of these were left out before)"
                record.args = ()
            since, count = record.created, 0
        if len(self._seen) >= _MOST_KINDS and kind not in self._seen:
            self._seen.clear()
        self._seen[kind] = (since, count + 1)
        return count < MOST_REPEATS


@contextmanager
def silent_logs() -> Iterator[None]:
    """Write no log for the block: a command says itself what went wrong."""
    root, nowhere = logging.getLogger(), logging.NullHandler()
    root.addHandler(nowhere)  # or Python would write warnings to stderr
    try:
        yield
    finally:
        root.removeHandler(nowhere)


class _Waiting(logging.Handler):
    """Hands lines to a thread that writes them: a full pipe or disk holds up the thread alone."""

    def __init__(self, descriptor: int, encoding: str, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.addFilter(Repeats())
        self._descriptor = descriptor
        self._encoding = encoding
        self._lines: queue.Queue[str | None] = queue.Queue(_MAX_WAITING)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if self._dropped:
            dropped = logging.makeLogRecord(
                {
                    "msg": f"{self._dropped:,} lines of the log were dropped, because nobody read it",
                    "levelno": logging.WARNING,
                    "levelname": "WARNING",
                    **about("log.dropped", count=self._dropped),
                }
            )
            line = f"{self.format(dropped)}\n{line}"
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1
        else:
            self._dropped = 0

    def close(self) -> None:
        super().close()
        with suppress(queue.Full):
            self._lines.put_nowait(None)
            self._thread.join(_LAST_WORDS_S)

    def _write(self) -> None:
        # Signals are the event loop's; when it has ended, one that came here would end the process as if killed.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while (line := self._lines.get()) is not None:
            data = f"{line}\n".encode(self._encoding, "backslashreplace")
            with suppress(
                OSError
            ):  # its reader has gone, or its disk is full: a log is not worth more than the fires
                while data:
                    data = data[os.write(self._descriptor, data) :]


@contextmanager
def logging_to(stream: TextIO, level: int = logging.INFO, *, form: str = "auto") -> Iterator[None]:
    """For the block, write what Cronally logs from *level* on, and warnings of others, as *form* says (one of ``FORMATS``, or ``auto``), to the file that *stream* writes to.

    Past the stream itself, whose lock and buffer would hold up, or spoil, the end of the process.
    """
    if form == "auto":
        form = "text" if stream.isatty() else "json"
    handler = _Waiting(stream.fileno(), stream.encoding, FORMATS[form]())
    root, own = logging.getLogger(), logging.getLogger("cronally")
    before = own.level
    root.addHandler(handler)
    own.setLevel(level)
    try:
        yield
    finally:
        own.setLevel(before)
        root.removeHandler(handler)
        handler.close()


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
