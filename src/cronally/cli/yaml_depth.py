"""How deeply a YAML text is nested: libyaml reads nodes recursively, and one that is too deep ends the process."""

from __future__ import annotations

from typing import Any, Final

MAX_DEPTH: Final = 100


def too_deep_line(data: str | bytes) -> int | None:
    """Return the line (1-based) on which *data* is nested more than 100 deep, or None. Errors: yaml.YAMLError."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    for event in yaml.parse(data, Loader=base):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return event.start_mark.line + 1 if event.start_mark else 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None
