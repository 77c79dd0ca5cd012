"""AWS for tests of what is asked and when: it answers by the script, and remembers the calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cronally.sns.refusals import refusal

if TYPE_CHECKING:
    from cronally.domain.aws_calls import Call


class Refused:
    """An answer by which AWS refuses a call."""

    def __init__(self, code: str, message: str = "no") -> None:
        self.code, self.message = code, message


class ScriptedAws:
    """A ``Caller``. answers: by operation: an answer, a ``Refused``, an error, or a list of those, of which the last one stays."""

    region = "us-east-1"

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[Call] = []

    @property
    def operations(self) -> list[str]:
        return [call.operation for call in self.calls]

    def parameters(self, operation: str) -> list[Any]:
        """Return the parameters of each call of *operation*."""
        return [dict(call.parameters) for call in self.calls if call.operation == operation]

    async def do(self, call: Call) -> dict[str, Any]:
        self.calls.append(call)
        answer = self.answers.get(call.operation, {})
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Refused):
            raise refusal(call, answer.code, answer.message)
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)
