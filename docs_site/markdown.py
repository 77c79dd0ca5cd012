"""Writing Markdown from text that is none."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MARKED: Final = re.compile(r"([\\*_\[\]|#~^])")
_CODE: Final = re.compile(r"(`+[^`]+`+)")
CODE: Final = r"^ *```.*?^ *```$|`[^`\n]+`"
"""A block or a span of code; to be matched with MULTILINE and DOTALL."""


def plain(text: str) -> str:
    """Return *text* so that Markdown shows just that; what is between backticks is code, in a table too."""
    parts = _CODE.split(" ".join(text.split()))
    return "".join(part if number % 2 else _escaped(part) for number, part in enumerate(parts))


def _escaped(text: str) -> str:
    return _MARKED.sub(r"\\\1", text).replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """Return *text* as code within a line."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    """Return the lines of a table of cells in Markdown; a bar ends a cell, unless it is in code."""
    heads = list(heads)
    lines = ["", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return [*lines, ""]


def block(text: str, language: str = "text") -> list[str]:
    """Return the lines of a block of code."""
    return ["", f"```{language}", *text.splitlines(), "```", ""]


def slug(heading: str) -> str:
    """Return the anchor of a heading of Markdown, as the forge and the site make it."""
    shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\- ]", "", shown.strip().lower()).replace(" ", "-")


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """Return a page of which all that is no code is changed."""
    parts = re.split(f"({CODE})", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if number % 2 else change(part) for number, part in enumerate(parts))
