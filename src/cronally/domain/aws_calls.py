"""A call of an AWS API as data: to be made by ``sns.aws``, or to be shown as a line for the AWS CLI."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORDS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
# The AWS CLI has --endpoint-url for every command, and so calls this one otherwise (aws sns subscribe help).
_RENAMED: Final = {("sns", "Subscribe", "Endpoint"): "notification-endpoint"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call. service, operation: as botocore has them (``sns``, ``CreateTopic``). region: None for the session's own.

    resource: what it is about, for people: an ARN or a name.
    """

    service: str
    operation: str
    parameters: Mapping[str, object]
    region: str | None = None
    resource: str = ""

    @property
    def action(self) -> str:
        """The IAM action that allows it: ``sns:CreateTopic``."""
        return f"{self.service}:{self.operation}"


def command_line(call: Call) -> str:
    """Return *call* as a line to paste into a shell."""
    return shlex.join(command_words(call))


def command_words(call: Call) -> list[str]:
    """Return *call* as the words of a command of the AWS CLI."""
    words = ["aws", call.service, _kebab(call.operation)]
    for name, value in call.parameters.items():
        renamed = _RENAMED.get((call.service, call.operation, name))
        words += [f"--{renamed or _kebab(name)}", *_written(value)]
    return [*words, "--region", call.region] if call.region else words


def _written(value: object) -> list[str]:
    if value is True:  # a flag
        return []
    if isinstance(value, list):
        return [_word(item) for item in value]
    return [_word(value)]


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _kebab(name: str) -> str:
    return _WORDS.sub("-", name).lower()
