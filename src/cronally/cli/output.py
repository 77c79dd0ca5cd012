"""Data to stdout, messages to stderr; how much is said is for -q and -v to say."""

from __future__ import annotations

import io
import json
import os
import sys
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from cronally.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cronally.admin.wire import PutReply


FAILED: Final = 1
"""The exit code of a command that did not do what was asked: it could not, or nobody agreed."""


class Volume(Enum):
    """How much is said beside the data."""

    QUIET = "--quiet"
    """What is wrong."""
    NORMAL = ""
    VERBOSE = "--verbose"
    """Also what is asked of the daemon."""


_volume = Volume.NORMAL


def volume() -> Volume:
    return _volume


def set_volume(wanted: Volume) -> None:
    """Say as much as *wanted* from now on, in this process."""
    global _volume  # noqa: PLW0603 - a process has one stderr
    _volume = wanted


def prepare_streams() -> None:
    """Let no stream be a reason to fail, be it closed, and no character: what an encoding lacks is written escaped.

    Where one was closed, a file that is opened would take its number, and what is meant for people.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def out(text: str) -> None:
    """Write lines of data."""
    sys.stdout.write(text if text.endswith("\n") or not text else f"{text}\n")


def out_json(value: Any) -> None:
    """Write one JSON document; on a terminal spread out to be read."""
    out(_dumped(value))


def out_json_list(key: str, items: Iterable[Any]) -> None:
    """Write one JSON document, ``{key: [items]}``, each item as it comes."""
    before = f'{{"{key}": ['
    try:
        for item in items:
            out_part(before + _dumped(item))
            before = ",\n"
    finally:  # also when the rest cannot be had: what was printed is JSON
        out("]}" if before == ",\n" else f"{before}]}}")


def out_part(text: str) -> None:
    """Write text as it is, without an end of line."""
    sys.stdout.write(text)


def _dumped(value: Any) -> str:
    is_unicode = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    indent = 2 if sys.stdout.isatty() else None
    return json.dumps(value, ensure_ascii=not is_unicode, indent=indent)


def report(text: str) -> None:
    """Write lines about what was done, which with -q the exit code says alone."""
    if _volume is not Volume.QUIET:
        out(text)


def note(text: str) -> None:
    """Write a message about nothing wrong."""
    if _volume is not Volume.QUIET:
        err(text)


_MISSING: Final = (
    "older fires may be missing: this machine has not been here for long, and still reads them from the table; "
    "try again in a moment"
)


def warn_of_missing(is_missing: bool) -> None:
    """Warn that a list of fires may lack older ones, if it may."""
    if is_missing:
        warn([_MISSING])


def tracer() -> Callable[[str], None]:
    """Return what writes what goes on behind a command, each line with the seconds that have passed; without -v, nothing."""
    if _volume is not Volume.VERBOSE:
        return lambda _: None
    from cronally.clock import SystemClock

    clock = SystemClock()
    began = clock.mono()
    return lambda text: err(f"{clock.mono() - began:8.3f} s  {text}")


def shows_progress() -> bool:
    """Whether somebody watches who wants to see how far long work is."""
    return _volume is not Volume.QUIET and sys.stderr.isatty()


def columns() -> int | None:
    """Return how wide the terminal is to which data goes; None if it goes elsewhere, or that is not known."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None if sys.stdout.isatty() else None
    except (OSError, ValueError):
        return None


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


def check_terminal(why: str, *, yes: bool) -> None:
    """Refuse to go on if somebody is to be asked and nobody is there. why: it is asked. Errors: UsageError."""
    if not yes and not sys.stdin.isatty():
        raise UsageError(f"{why}; off a terminal give --yes")


def print_put(reply: PutReply, *, as_json: bool) -> None:
    """Write what a change has come to: the schedule and its next fires, or all of it as JSON."""
    from cronally.admin.wire import to_plain
    from cronally.cli.render import next_fires_text

    if as_json:
        out_json(to_plain(reply))
    else:
        report(f"{reply.outcome} {reply.schedule.name}")
        report(next_fires_text(reply.schedule))
    warn(reply.schedule.warnings)


def warn(sentences: list[str]) -> None:
    """Write warnings, one a line."""
    for sentence in sentences:
        err(f"warning: {sentence}")
