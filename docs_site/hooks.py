"""What mkdocs calls while it makes the site (``hooks`` in mkdocs.yml): it adds the pages that are not in docs/, and sets links right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from docs_site import commands, reference  # noqa: E402
from docs_site.diagrams import fence  # noqa: E402
from docs_site.places import OUTSIDE, in_repository, with_links_of_site  # noqa: E402

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write out the menu's folders, and have diagrams and anchors as on the forge."""
    config.nav = [_written_out(entry) for entry in config.nav or []]
    config.mdx_configs["pymdownx.superfences"] = {
        "custom_fences": [{"name": "mermaid", "class": "mermaid", "format": fence}]
    }
    config.mdx_configs["toc"] = {"permalink": True, "slugify": slugify(case="lower")}
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the repository that are not in docs/, and those that are made from the code."""
    made = {name: (ROOT / path).read_text(encoding="utf-8") for path, name in OUTSIDE.items()}
    for name, text in (made | reference.pages(ROOT)).items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Set the links right of a page that is in the repository."""
    name = page.file.src_uri
    path = in_repository(name)
    return with_links_of_site(markdown, path) if (ROOT / path).is_file() else markdown


def _written_out(entry: Any) -> Any:
    """Return an entry of the menu, with all pages of the folder that it stands for."""
    if not isinstance(entry, dict):
        return entry
    [(title, value)] = entry.items()
    if isinstance(value, list):
        return {title: [_written_out(one) for one in value]}
    if value == "adr/README.md":
        return {title: [value, *(f"adr/{path.name}" for path in reference.decisions(ROOT))]}
    if value == "reference/commands/README.md":
        return {title: [name for name, _ in commands.pages()]}
    return entry
