"""All pages that are made, not written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docs_site import api, commands, settings

if TYPE_CHECKING:
    from pathlib import Path


def pages(root: Path) -> dict[str, str]:
    """Return the texts of the pages by their names on the site."""
    return {
        **dict(commands.pages()),
        "reference/settings.md": settings.settings_page(),
        "reference/schedule.md": settings.schedule_page(),
        "reference/api.md": api.api_page(),
        "reference/errors.md": api.errors_page(),
        "adr/README.md": _decisions_page(root),
    }


def decisions(root: Path) -> list[Path]:
    """Return the files of the decisions, in the order of their numbers."""
    return sorted(root.glob("docs/adr/[0-9]*.md"))


def _decisions_page(root: Path) -> str:
    rows = [f"- [{_title(path)}]({path.name})" for path in decisions(root)]
    return "\n".join(
        ["# Decisions", "", "Why it is built as it is, where another way was possible.", "", *rows]
    )


def _title(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
