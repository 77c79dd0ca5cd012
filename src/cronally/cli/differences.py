"""What an apply would do, in the manner of a diff: + created, ~ changed, - removed."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from cronally.cli.render import local_text, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cronally.admin.wire import ApplyReply, Difference

_SIGNS: Final = {"create": "+", "change": "~", "remove": "-"}
_COLOURS: Final = {"create": "\x1b[32m", "change": "\x1b[33m", "remove": "\x1b[31m"}
_PLAIN: Final = "\x1b[0m"
_MOST_CHARS: Final = 200  # of a value
_KEY_WIDTH: Final = 10


def is_coloured() -> bool:
    """Whether stdout takes colours: a terminal, and nobody has set NO_COLOR (no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def difference_text(difference: Difference, *, coloured: bool = False) -> str:
    """Return the lines for one schedule."""
    head = f"{_SIGNS[difference.action]} {printable(difference.name)}"
    if coloured:
        head = f"{_COLOURS[difference.action]}{head}{_PLAIN}"
    return "\n".join([head, *_key_lines(difference), *_fire_lines(difference)])


def counts_text(reply: ApplyReply) -> str:
    """Return one line: how much there is to do."""
    total = reply.created + reply.changed + reply.removed
    if not total:
        return f"nothing would change; {reply.unchanged:,} unchanged"
    parts = ((reply.created, "create"), (reply.changed, "change"), (reply.removed, "remove"))
    wanted = ", ".join(f"{count:,} to {word}" for count, word in parts if count)
    return f"{wanted}; {reply.unchanged:,} unchanged"


def _key_lines(difference: Difference) -> Iterator[str]:
    before, after = difference.before or {}, difference.after or {}
    if difference.action != "change":
        for key, value in (after or before).items():
            yield f"    {key:<{_KEY_WIDTH}}  {written(key, value)}"
        return
    for key in dict.fromkeys([*before, *after]):
        old, new = before.get(key), after.get(key)
        if old != new:
            yield f"    {key:<{_KEY_WIDTH}}  {written(key, old)} -> {written(key, new)}"


def _fire_lines(difference: Difference) -> Iterator[str]:
    before, after = difference.next_before, difference.next_after
    if difference.action == "change" and before == after:
        return
    if difference.action != "create":
        yield f"    {'fires' if difference.action == 'remove' else 'fired':<{_KEY_WIDTH}}  {_fires(before, difference.before)}"
    if difference.action != "remove":
        yield f"    {'fires':<{_KEY_WIDTH}}  {_fires(after, difference.after)}"


def _fires(fires: list[str], document: Mapping[str, Any] | None) -> str:
    if not fires:
        return "paused" if document and document.get("paused") else "never again"
    tz = str((document or {}).get("tz", "UTC"))
    return ", ".join(local_text(fire, tz) for fire in fires)


def written(key: str, value: object, *, most_chars: int = _MOST_CHARS) -> str:
    """Return the value of a key of a schedule, cut if it is long."""
    if value is None:
        return "(not paused)" if key == "paused" else "(default)"
    if key == "paused" and isinstance(value, dict):
        return f"until {value['until']}" if value.get("until") else "until it is resumed"
    text = printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return text if len(text) <= most_chars else f"{text[:most_chars]}… ({len(text):,} characters)"
