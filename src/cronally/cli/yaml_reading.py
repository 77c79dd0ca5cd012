"""What all who read YAML have in common: the reader, how deep it may go, and where a text is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from yaml import YAMLError

MAX_DEPTH: Final = 100


def safe_loader() -> Any:
    """Return libyaml's loader of plain values, or the one in Python where there is no libyaml."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def too_deep_line(data: str | bytes) -> int | None:
    """Return the line (1-based) on which *data* is nested more than 100 deep, or None. Errors: yaml.YAMLError.

    libyaml reads nodes recursively, and one that is too deep ends the process.
    """
    import yaml

    depth = 0
    for event in yaml.parse(data, Loader=safe_loader()):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return event.start_mark.line + 1 if event.start_mark else 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return None


def problem_of(exc: YAMLError, data: str | bytes) -> tuple[int, str]:
    """Return the line (1-based) of what is wrong with *data*, and what."""
    import yaml

    if isinstance(exc, yaml.reader.ReaderError):
        newline: Any = b"\n" if isinstance(data, bytes) else "\n"
        return data[: exc.position].count(newline) + 1, f"this is not YAML: {exc.reason}"
    mark = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
    reason = getattr(exc, "problem", None) or getattr(exc, "context", None)
    return mark.line + 1 if mark else 1, f"this is not YAML: {reason}"
