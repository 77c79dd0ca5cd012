"""The pages of docs/ as a reader takes them: files to write, commands to type, and what is printed.

    <!-- file: NAME -->                 the next block is a file
    ```sh                               commands
    ```text                             right after those: what they print, abridged
    <!-- run by TEST -->                the next block has a test of its own
    <!-- printed by: COMMAND -->        the next ```text block is what a command prints that goes on in another terminal

In what is printed ``…`` stands for anything within a line, and a line of its own for any lines. How many blanks there are between
words says nothing: columns are as wide as what is in them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>[^\n]+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class File(NamedTuple):
    """line: of the page, from 1."""

    line: int
    name: str
    text: str


class Commands(NamedTuple):
    """printed: None if the page does not show it."""

    line: int
    text: str
    printed: str | None


class Elsewhere(NamedTuple):
    """What the command that was started with exactly the text *by* has printed by now."""

    line: int
    by: str
    printed: str


Step = File | Commands | Elsewhere


def steps(page: str) -> Iterator[Step]:
    """Yield what a reader of *page* does, in order; other blocks than those above are only read."""
    blocks = list(_BLOCK.finditer(page))
    for number, block in enumerate(blocks):
        line = page.count("\n", 0, block.start("language")) + 1
        kind, _, about = (block["mark"] or "").partition(": ")
        if kind == "file":
            yield File(line, about, block["text"])
        elif kind == "printed by":
            yield Elsewhere(line, about, block["text"])
        elif block["language"] == "sh" and not kind.startswith("run by "):
            yield Commands(line, block["text"], _shown_after(page, block, blocks[number + 1 :]))


def _shown_after(page: str, block: re.Match[str], later: list[re.Match[str]]) -> str | None:
    if not later or later[0]["language"] != "text" or later[0]["mark"]:
        return None
    return None if page[block.end() : later[0].start()].strip() else later[0]["text"]


def is_as_shown(shown: str, printed: str) -> bool:
    """Return whether a page that shows *shown* does not lie about *printed*."""
    lines = [r"(?:.*\n)*?" if line.strip() == "…" else f"{_line(line)}\n" for line in shown.splitlines()]
    return (
        re.fullmatch("".join(lines), "".join(f"{_even(line)}\n" for line in printed.splitlines())) is not None
    )


def _line(shown: str) -> str:
    return ".*".join(re.escape(part) for part in _even(shown).split("…"))


def _even(line: str) -> str:
    return " ".join(line.split())
