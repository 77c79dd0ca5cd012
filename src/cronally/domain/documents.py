"""JSON text from outside, read strictly: no repeated key, no NaN, no depth that ends the process."""

from __future__ import annotations

import json
from typing import Final, NoReturn

_MOST_DIGITS: Final = 400  # a double has up to 309 before the point; int() itself gives up at 4,300


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


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits")
    return int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse_constant, parse_int=_whole)


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
