"""The topics that an operator allows: ARNs in which ``*`` stands for any characters of one part.

1. ``*`` never reaches over a colon, so that no pattern allows another account, region or partition by accident. It is the
   only character with a meaning.
2. Without a list every topic is allowed.
3. What is allowed is asked in two places: by whoever takes a change (``check``), and by what publishes, for each batch
   (``allows``). A list that has become shorter holds back what was made under the longer one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cronally.errors import TopicNotAllowed

if TYPE_CHECKING:
    from collections.abc import Sequence

NOT_ALLOWED: Final = "TopicNotAllowed: this daemon may not publish to it; its operator's list is sns.topics"
"""Why a fire is held back whose topic is not allowed."""

MOST_PATTERNS: Final = 1_000
_PARTS: Final = 6  # of an ARN: arn, partition, service, region, account, name
_MOST_CHARS: Final = 400  # the longest ARN of a topic has 350
_KEPT: Final = 4_096  # topics whose answer is kept
_FORM: Final = (
    "write the ARN of a topic, with * for any characters of one part, such as "
    "arn:aws:sns:us-east-1:123456789012:reports*"
)


def parse_topic_pattern(text: object) -> str:
    """Return *text* if it is the ARN of a topic with ``*`` in some of its parts. Errors: ValueError that shows the form."""
    if not isinstance(text, str):
        raise ValueError(f"{text!r} is not text; {_FORM}")  # noqa: TRY004 - what is read was written by somebody
    parts = text.split(":")
    is_arn = len(parts) == _PARTS and parts[0] == "arn" and parts[2] == "sns" and all(parts)
    if not is_arn or len(text) > _MOST_CHARS or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text[:120]!r} is no pattern of topics; {_FORM}")
    return text


def matches(pattern: str, topic: str) -> bool:
    """Whether *topic*, an ARN, is one that *pattern* means. Takes time in proportion to their lengths, whatever they are."""
    patterns, parts = pattern.split(":"), topic.split(":")
    return len(patterns) == len(parts) and all(map(_is_like, patterns, parts))


def _is_like(pattern: str, part: str) -> bool:
    first, *others = pattern.split("*")
    if not others:
        return pattern == part
    *middle, last = others
    if len(part) < len(first) + len(last) or not part.startswith(first) or not part.endswith(last):
        return False
    at, end = len(first), len(part) - len(last)
    for piece in middle:  # the earliest place for each leaves the most to the others
        found = part.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


class AllowedTopics:
    """The list in force. patterns: as ``parse_topic_pattern`` returns them; None to allow all."""

    def __init__(self, patterns: Sequence[str] | None = None) -> None:
        self.replace(patterns)

    def replace(self, patterns: Sequence[str] | None) -> None:
        """From now on allow what *patterns* mean, or everything (None)."""
        self.patterns = None if patterns is None else tuple(patterns)
        self._is_listed = lru_cache(maxsize=_KEPT)(self._look)

    def allows(self, topic: str) -> bool:
        """Whether messages may go to *topic*, an ARN."""
        return self.patterns is None or self._is_listed(topic)

    def check(self, topic: str) -> None:
        """Errors: TopicNotAllowed unless messages may go to *topic*."""
        if not self.allows(topic):
            raise TopicNotAllowed(topic, self.patterns or ())

    def _look(self, topic: str) -> bool:
        return any(matches(pattern, topic) for pattern in self.patterns or ())
