"""What people are told of schedules in trouble, as a message."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_LINES: Final = 50  # of a message


class Alert(NamedTuple):
    """What is to be told: by schedule's name, the sentence. failing comes before recovered. ids: whose it is, by name."""

    failing: dict[str, str]
    recovered: dict[str, str]
    ids: Mapping[str, int] = MappingProxyType({})

    @property
    def kind(self) -> str:
        return "failing" if self.failing else "recovered"

    @property
    def subject(self) -> str:
        """Up to 100 characters of ASCII, as SNS wants it."""
        if len(self.failing) + len(self.recovered) == 1:
            [name] = self.failing or self.recovered
            return f"Cronally: {name} {'fails' if self.failing else 'has recovered'}"[:100]
        parts = [
            f"{len(found):,} schedule{'s' if len(found) > 1 else ''} {words}"
            for found, words in ((self.failing, "in trouble"), (self.recovered, "recovered"))
            if found
        ]
        return f"Cronally: {', '.join(parts)}"

    @property
    def text(self) -> str:
        lines = [f"{name} fails: {reason}" for name, reason in self.failing.items()]
        lines += [f"{name} has recovered: {reason}" for name, reason in self.recovered.items()]
        if len(lines) > _MOST_LINES:
            lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES:,} more"]
        return "\n".join([*lines, "", "cronally history NAME says what became of each fire."])
