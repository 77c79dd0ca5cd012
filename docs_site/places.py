"""Where the files of the repository are on the site, and what becomes of the links between them."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Final

from docs_site.markdown import CODE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Pages that are not in docs/, and their names on the site.
OUTSIDE: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks.md",
}
# Entries of the menu that stand for all pages of their folder, which is listed when the site is made.
FOLDERS: Final = ("adr/README.md", "reference/commands/README.md")
# Code, in which nothing is a link; or a link, whose text may have code in it: what begins first counts.
CODE_OR_LINK: Final = re.compile(
    rf"{CODE}|(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)", re.MULTILINE | re.DOTALL
)


def pages(root: Path) -> Iterator[str]:
    """Yield the repository's paths of all pages of the site."""
    yield from OUTSIDE
    for path in sorted(root.glob("docs/**/*.md")):
        yield path.relative_to(root).as_posix()


def on_site(path: str) -> str:
    """Return the name on the site of a file or folder of the repository, the empty text if it is not there."""
    if path in OUTSIDE:
        return OUTSIDE[path]
    if path == "docs/adr":
        return "adr/README.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else ""


def in_repository(name: str) -> str:
    """Return the repository's path of a page of the site."""
    return next((path for path, place in OUTSIDE.items() if place == name), f"docs/{name}")


def target_of(link: str, page: str) -> tuple[str, str]:
    """Return where a link on *page* goes: the repository's path, and the anchor; of another site the empty text."""
    if re.match(r"[a-z][a-z0-9+.-]*:", link):
        return "", ""
    path, _, anchor = link.partition("#")
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page, anchor


def with_links_of_site(text: str, page: str) -> str:
    """Return the text of *page*, a path of the repository, with links that hold on the site.

    What is linked to and is not on the site loses its link: there is no address of the repository to send a reader to.
    """
    here = posixpath.dirname(on_site(page))

    def replaced(match: re.Match[str]) -> str:
        mark, shown, link = match.groups()
        if link is None:
            return match[0]
        path, anchor = target_of(link, page)
        if not path or link.startswith("#"):
            return match[0]
        place = on_site(path)
        if not place:
            return shown
        there = posixpath.relpath(place, here or ".")
        return f"{mark}[{shown}]({there}{f'#{anchor}' if anchor else ''})"

    return CODE_OR_LINK.sub(replaced, text)


def links(text: str) -> list[str]:
    """Return where the links of a page go, as they are written."""
    return [match[3] for match in CODE_OR_LINK.finditer(text) if match[3] is not None]
