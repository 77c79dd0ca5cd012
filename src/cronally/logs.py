"""How the daemon's log looks: one line for each event, whatever the texts in it hold."""

from __future__ import annotations

import logging
from typing import IO

_INDENT = "    "


class OneLine(logging.Formatter):
    """``cronally: MESSAGE``, and a traceback indented below it.

    Texts of users, SNS and peers get into messages and exceptions. What a terminal would obey or not show (controls, line
    ends, bidi marks: CWE-117) is written as Python escapes it, so that no text can pass for a line of the log.
    """

    def __init__(self) -> None:
        super().__init__("cronally: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return escaped(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802 - logging's name
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]  # as logging has it
        return "\n".join(f"{_INDENT}{escaped(line)}" for line in lines)


def log_to(stream: IO[str]) -> None:
    """Write what Cronally says (INFO) and what its libraries complain of (WARNING) to *stream*."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(OneLine())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("cronally").setLevel(logging.INFO)


def escaped(text: str) -> str:
    """Return *text* with everything that is not printable written as Python escapes it."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
