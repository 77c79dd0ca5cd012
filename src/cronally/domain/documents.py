"""JSON text from outside, read strictly: no repeated key, no NaN, no depth that ends the process."""

from __future__ import annotations

import json
from typing import NoReturn


class DuplicateKey(ValueError):  # noqa: N818 - says what it found
    """An object has a key twice. Attributes: key."""

    def __init__(self, key: str) -> None:
        self.key = key[:100]
        super().__init__(f"the key {self.key!r} is there twice")


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise DuplicateKey(key)
            seen.add(key)
    return mapping


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse_constant)


def load_json(data: bytes) -> object:
    """Return the value of a JSON text in UTF-8. Errors: ValueError (DuplicateKey for a repeated key)."""
    try:
        return _DECODER.decode(data.decode())
    except UnicodeDecodeError as exc:
        raise ValueError(f"byte {exc.start + 1} is not UTF-8") from None
    except json.JSONDecodeError as exc:
        raise ValueError(f"{exc.msg} at column {exc.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
