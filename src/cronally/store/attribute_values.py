"""Items of a DynamoDB table as dicts of plain values, and as its protocol has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Item = dict[str, Any]
Key = tuple[str, str]


def key_values(key: Key) -> dict[str, Any]:
    """Return the two attributes that *key* is."""
    return {"pk": {"S": key[0]}, "sk": {"S": key[1]}}


def encoded(value: Any) -> dict[str, Any]:
    """Return *value*, of those that are in items, as DynamoDB's protocol has it."""
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case str():
            return {"S": value}
        case bytes():
            return {"B": value}
        case list() | tuple():
            return {"L": [encoded(one) for one in value]}
        case _:
            raise TypeError(f"{value!r} cannot be in an item")


def item_of(found: Mapping[str, Any]) -> Item:
    """Return an item that was found, as a dict of plain values."""
    return {name: decoded(value) for name, value in found.items()}


def decoded(value: Mapping[str, Any]) -> Any:
    """Return the plain value that DynamoDB's protocol has so."""
    [(type_, held)] = value.items()
    match type_:
        case "NULL":
            return None
        case "N":
            return int(held)
        case "B":
            return bytes(held)
        case "L":
            return [decoded(one) for one in held]
        case _:
            return held
