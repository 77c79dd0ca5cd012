"""JSON text from outside, read strictly: no repeated key, no NaN, no depth that ends the process, no crowd of values."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_DIGITS: Final = 400  # a double has up to 309 before the point; int() itself gives up at 4,300
# Reading a megabyte of brackets or digits takes over 100 ms, a megabyte of text 1 ms. A document is mostly text.
MAX_OUTSIDE_CHARS: Final = 32_768  # of a document, outside its texts: brackets, commas, numbers, blanks
MAX_TEXTS: Final = 4_000  # keys and values; a schedule has less than a hundred

# What json itself reads strings with, from after the opening quotation mark.
read_string: Final[Callable[[str, int], tuple[str, int]]] = getattr(json.decoder, "scanstring")  # noqa: B009 - it has no type


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
    """Return the value of a JSON text in UTF-8, in a few milliseconds whatever it is.

    Errors: ValueError (DuplicateKey for a repeated key).
    """
    try:
        text = data.decode()
        if text.startswith("\ufeff"):
            raise ValueError("it begins with a byte order mark; leave that out")
        _check_crowd(text)
        return _DECODER.decode(text)
    except UnicodeDecodeError as exc:
        raise ValueError(f"byte {exc.start + 1} is not UTF-8") from None
    except json.JSONDecodeError as exc:
        raise ValueError(f"{exc.msg} at column {exc.colno}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check_crowd(text: str) -> None:
    """Refuse what holds far more values than a document has, before they are read. Errors: ValueError."""
    if len(text) <= MAX_OUTSIDE_CHARS:
        return
    end = outside = texts = 0
    while (begin := text.find('"', end)) >= 0:
        outside += begin - end
        texts += 1
        if outside > MAX_OUTSIDE_CHARS or texts > MAX_TEXTS:
            break
        _, end = read_string(text, begin + 1)
    else:
        outside += len(text) - end
    if outside > MAX_OUTSIDE_CHARS or texts > MAX_TEXTS:
        raise ValueError(
            f"it holds more than {MAX_TEXTS:,} texts, or more than {MAX_OUTSIDE_CHARS:,} characters outside of them; "
            "a schedule is small but for its message"
        )
