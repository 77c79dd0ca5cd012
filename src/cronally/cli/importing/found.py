"""What an import finds in its source: schedules in Cronally's words, and what cannot become one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cronally.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cronally.cli.importing.old_rules import OldRule

MAX_SCHEDULES: Final = 10_000  # as in a file for apply
_BOM: Final = b"\xef\xbb\xbf"
_BINARY: Final = b"\x00"
_LONG_NUMBER: Final = 10**18


class SourceProblem(UsageError):  # noqa: N818 - says whose it is
    """The source is not what it should be, so nothing of it is taken. Attributes: line: 1-based. reason: with the fix."""

    def __init__(self, line: int, reason: str) -> None:
        self.line, self.reason = line, reason
        super().__init__(f"line {line}: {reason}")


class NotImportable(UsageError):  # noqa: N818 - a way out of one schedule, not an error of ours
    """This schedule cannot become one here; the others can. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A schedule of the source.

    Attributes: line: where it begins, 1-based. source: what its owner knows it by, on one line. name: what to call it;
        it need be neither legal nor unique. document: as for ``apply``, without ``topic`` unless the source has one.
        old: the instants of the old system, computed apart from ours. why_no_old: if they cannot be.
        differs: what will be different, sentences without a full stop. remarks: how it was mapped.
    """

    line: int
    source: str
    name: str
    document: Mapping[str, Any]
    old: OldRule | None = None
    why_no_old: str | None = None
    differs: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Refusal(NamedTuple):
    """What cannot be imported. source: what its owner knows it by. reason: a sentence with the way out."""

    line: int
    source: str
    reason: str


class Remark(NamedTuple):
    """Something about the source as a whole."""

    line: int
    text: str


@dataclass(slots=True)
class Findings:
    """All that one source holds."""

    found: list[Found] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    def add(self, found: Found) -> None:
        """Take a schedule in. Errors: SourceProblem for the one too many."""
        if len(self.found) == MAX_SCHEDULES:
            raise SourceProblem(
                found.line, f"there are more than {MAX_SCHEDULES:,} schedules; import them in several files"
            )
        self.found.append(found)

    def refuse(self, line: int, source: str, reason: str) -> None:
        self.refusals.append(Refusal(line, source, reason))

    def remark(self, line: int, text: str) -> None:
        self.remarks.append(Remark(line, text))


def decoded(data: bytes) -> str:
    """Return the text of a source. Errors: SourceProblem if it is empty, binary or not UTF-8."""
    body = data.removeprefix(_BOM)
    if not body.strip():
        raise SourceProblem(1, "there is nothing in it; did what should have written it fail?")
    at = body.find(_BINARY)
    if at >= 0:
        raise SourceProblem(
            body.count(b"\n", 0, at) + 1, "this is not text (there is a NUL byte); name another file"
        )
    try:
        return body.decode()
    except UnicodeDecodeError as exc:
        raise SourceProblem(
            body.count(b"\n", 0, exc.start) + 1, "this is not UTF-8; convert the file, with iconv for example"
        ) from None


def word(value: object) -> str:
    """Return a value of a file to be quoted: one that is no scalar may, by aliases, be longer than any memory."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and abs(value) >= _LONG_NUMBER:
        return "a long number"  # Python writes none of over 4,300 digits
    return str(value)


def shortened(text: str, most: int = 60) -> str:
    """Return *text* on one line and not too long, to be quoted."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
