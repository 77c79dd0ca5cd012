"""Diagrams, drawn when the site is made: a reader's browser loads nothing and runs nothing for them."""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

import mermaidx

_TEXT_IN_SVG: Final = {"htmlLabels": False, "flowchart": {"htmlLabels": False}}  # what an image may hold
_WIDE: Final = 1200  # pixels; what is wider is made smaller, and scrolls beside it


def fence(source: str, *_: Any, **__: Any) -> str:
    """Return a block in the language of Mermaid as an image; called by pymdownx.superfences."""
    drawn = mermaidx.render(source, config=_TEXT_IN_SVG).svg()
    width = float(drawn.partition('viewBox="')[2].split()[2])
    shown = round(width * (0.6 if width > _WIDE else 1))
    image = f"data:image/svg+xml;base64,{b64encode(drawn.encode()).decode()}"
    return f'<div class="diagram"><img alt="A diagram" width="{shown}" src="{image}"></div>'
