"""YAML documents as plain values whose mappings know their line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cronally.cli.importing.found import SourceProblem, shortened
from cronally.cli.yaml_reading import problem_of, safe_loader, too_deep_line

if TYPE_CHECKING:
    from collections.abc import Iterator


class Mapping(dict[str, Any]):
    """A mapping of a YAML or JSON text. Attributes: line: where it begins, 1-based."""

    line: int = 1


def read_documents(text: str) -> list[tuple[int, Any]]:
    """Return each document with its line; those that are empty are left out. Instants stay text.

    Errors: SourceProblem.
    """
    import yaml

    loader: Any = None
    try:
        too_deep = too_deep_line(text)
        if too_deep is not None:
            raise SourceProblem(too_deep, "this is nested too deeply; a manifest has about ten levels")
        loader = safe_loader()(text)
        reader = _Reader(loader)
        return [
            (node.start_mark.line + 1, reader.value(node)) for node in _nodes(loader) if not _is_null(node)
        ]
    except yaml.YAMLError as exc:
        line, reason = problem_of(exc, text)
        raise SourceProblem(line, reason) from None
    finally:
        if loader is not None:
            loader.dispose()


def _nodes(loader: Any) -> Iterator[Any]:
    while loader.check_node():
        yield loader.get_node()


def _is_null(node: Any) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


class _Reader:
    """Turns nodes into values; what an alias names is one value, however often it is named."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._values: dict[int, Any] = {}
        self._nodes: list[Any] = []  # kept, so that no other node gets the id of one
        self._open: set[int] = set()

    def value(self, node: Any) -> Any:
        import yaml

        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._values:
            return self._values[id(node)]
        line = node.start_mark.line + 1
        if id(node) in self._open:
            raise SourceProblem(line, "an alias (*) names what it is part of; write it out")
        self._open.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            value: Any = [self.value(item) for item in node.value]
        else:
            value = self._mapping(node, line)
        self._open.discard(id(node))
        self._nodes.append(node)
        self._values[id(node)] = value
        return value

    def _scalar(self, node: Any) -> Any:
        if node.tag == "tag:yaml.org,2002:timestamp":
            return node.value
        try:
            return self._loader.construct_object(node)
        except ValueError:  # a number with thousands of digits
            return node.value

    def _mapping(self, node: Any, line: int) -> Mapping:
        mapping, merged = Mapping(), Mapping()
        mapping.line = line
        for key, item in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                others = self.value(item)
                for other in others if isinstance(others, list) else [others]:
                    if not isinstance(other, Mapping):
                        raise SourceProblem(key.start_mark.line + 1, "<< takes mappings only")
                    merged |= {name: value for name, value in other.items() if name not in merged}
                continue
            name = self.value(key)
            if not isinstance(name, str | int | float | bool | None):
                reason = "a key must be text; if this is a template ({{ … }}), render it first"
                raise SourceProblem(key.start_mark.line + 1, reason)
            text = name if isinstance(name, str) else str(key.value)
            if text in mapping:
                reason = f"the key {shortened(text)!r} is there twice; leave one out"
                raise SourceProblem(key.start_mark.line + 1, reason)
            mapping[text] = self.value(item)
        for name, value in merged.items():
            mapping.setdefault(name, value)
        return mapping
