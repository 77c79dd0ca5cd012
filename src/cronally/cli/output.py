"""Data to stdout, messages to stderr."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any


def prepare_streams() -> None:
    """Let no character be a reason to fail, and no closed stream.

    What a stream's encoding lacks is written escaped. A standard descriptor that is closed (a shell's ``2>&-``) becomes
    /dev/null: else the next file or socket would get its number, and libuv aborts when such a one is closed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - open to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def out(text: str) -> None:
    """Write lines of data."""
    sys.stdout.write(text if text.endswith("\n") or not text else f"{text}\n")


def out_json(value: Any) -> None:
    """Write one JSON document; on a terminal spread out to be read."""
    is_unicode = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    indent = 2 if sys.stdout.isatty() else None
    out(json.dumps(value, ensure_ascii=not is_unicode, indent=indent))


def err(text: str) -> None:
    """Write a message."""
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")


def agreed(question: str) -> bool:
    """Ask on stderr, so that stdout has nothing but data; no answer is a no."""
    sys.stdout.flush()
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def warn(sentences: list[str]) -> None:
    """Write warnings, one a line."""
    for sentence in sentences:
        err(f"warning: {sentence}")
