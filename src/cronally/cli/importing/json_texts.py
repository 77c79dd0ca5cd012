"""JSON documents, one after the other, as plain values whose objects know their line."""

from __future__ import annotations

import json
from bisect import bisect_left
from json.scanner import py_make_scanner  # type: ignore[attr-defined]  # typeshed leaves it out
from typing import TYPE_CHECKING, Any, Final

from cronally.cli.importing.found import SourceProblem
from cronally.cli.importing.yaml_texts import Mapping

if TYPE_CHECKING:
    from collections.abc import Callable

_BLANKS: Final = " \t\r\n"


def read_values(text: str) -> list[tuple[int, Any]]:
    """Return each value of a JSON document, JSON Lines, or documents written after one another, with its line.

    Errors: SourceProblem.
    """
    decoder = _Decoder(text)
    values: list[tuple[int, Any]] = []
    at = _after_blanks(text, 0)
    try:
        while at < len(text):
            value, end = decoder.raw_decode(text, at)
            values.append((decoder.line(at), value))
            at = _after_blanks(text, end)
    except json.JSONDecodeError as exc:
        cut = " (is the file cut short?)" if exc.pos >= len(text.rstrip()) else ""
        raise SourceProblem(exc.lineno, f"this is not JSON: {exc.msg} at column {exc.colno}{cut}") from None
    except ValueError as exc:  # int() of thousands of digits
        raise SourceProblem(decoder.line(at), f"this is not JSON that can be read: {exc}") from None
    except RecursionError:
        raise SourceProblem(decoder.line(at), "this is nested too deeply") from None
    return values


def _after_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANKS:
        at += 1
    return at


class _Decoder(json.JSONDecoder):
    """Reads objects into ``Mapping``: json's own reader in Python asks for each, and says where it is."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._breaks = [place for place, char in enumerate(text) if char == "\n"]
        read_object: Callable[..., tuple[dict[str, Any], int]] = json.decoder.JSONObject  # type: ignore[attr-defined]  # as above

        def parse_object(text_and_end: tuple[str, int], *rest: Any) -> tuple[Mapping, int]:
            plain, end = read_object(text_and_end, *rest)
            mapping = Mapping(plain)
            mapping.line = self.line(text_and_end[1])
            return mapping, end

        self.parse_object = parse_object
        self.scan_once = py_make_scanner(self)

    def line(self, at: int) -> int:
        """Return the line of a place in the text."""
        return bisect_left(self._breaks, at) + 1
