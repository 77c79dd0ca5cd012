"""Stands in for the AWS CLI, which is 150 MB: calls the SDK as the words say, and refuses words that it does not understand.

Run as ``python aws_cli.py SERVICE OPERATION --OPTION VALUE…``. Options and their types are those of the service's model, so what the
CLI would refuse is refused here. The endpoint is ``$AWS_ENDPOINT_URL``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import boto3
import jmespath
from botocore import xform_name

_GLOBAL = {"--query", "--output", "--region", "--cli-input-json"}


def main(words: list[str]) -> None:
    service, operation, *rest = words
    given = _options(rest)
    client = boto3.client(service, region_name=_one(given, "--region"))
    model = client.meta.service_model
    [name] = [name for name in model.operation_names if xform_name(name, "-") == operation]
    shape = model.operation_model(name).input_shape
    members = {} if shape is None else {f"--{xform_name(key, '-')}": key for key in shape.members}
    arguments = json.loads(_text(given["--cli-input-json"][0])) if "--cli-input-json" in given else {}
    for option, values in given.items():
        if option not in _GLOBAL:
            arguments[members[option]] = _value(shape.members[members[option]], values)
    reply = getattr(client, xform_name(name))(**arguments)
    del reply["ResponseMetadata"]
    _print(reply, _one(given, "--query"), is_text=given.get("--output") == ["text"])


def _options(words: list[str]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            option = options[word] = []
        else:
            option.append(word)
    return options


def _one(given: dict[str, list[str]], option: str) -> str | None:
    return given[option][0] if option in given else None


def _text(value: str) -> str:
    return Path(value.removeprefix("file://")).read_text() if value.startswith("file://") else value


def _value(shape: Any, values: list[str]) -> Any:
    if shape.type_name == "list":
        is_json = values[0].startswith("[")
        return json.loads(values[0]) if is_json else [_value(shape.member, [value]) for value in values]
    [value] = [_text(value) for value in values]
    if shape.type_name in {"structure", "map"}:
        return json.loads(value) if value.startswith("{") else _shorthand(shape, value)
    kinds: dict[str, Any] = {
        "string": str,
        "integer": int,
        "double": float,
        "boolean": lambda text: text == "true",
    }
    return kinds[shape.type_name](value)


def _shorthand(shape: Any, text: str) -> dict[str, Any]:
    pairs = dict(pair.split("=", 1) for pair in text.split(","))
    if shape.type_name == "map":
        return pairs
    return {key: _value(shape.members[key], [value]) for key, value in pairs.items()}


def _print(reply: Any, query: str | None, *, is_text: bool) -> None:
    if query is not None:
        reply = jmespath.search(query, reply)
    if is_text:
        rows = reply if isinstance(reply, list) else [reply]
        print("\n".join("\t".join(row) if isinstance(row, list) else str(row) for row in rows))
    elif reply:
        print(json.dumps(reply, indent=4, default=lambda instant: instant.isoformat(), ensure_ascii=False))


if __name__ == "__main__":
    main(sys.argv[1:])
