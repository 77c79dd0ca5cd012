"""Which schedules a command is about: names, globs (``report-*``) and tags."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

from cronally.errors import NoScheduleMatches, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cronally.admin.client import Client

_GLOB_CHARS = frozenset("*?[")


class Selection(NamedTuple):
    """Names or globs, none meaning all; and tags, of which a schedule has to have every one."""

    names: Sequence[str] = ()
    tags: Sequence[str] = ()

    @property
    def is_bulk(self) -> bool:
        """Whether it may be more than its names say."""
        return bool(self.tags) or any(map(is_glob, self.names))

    def has(self, schedule: dict[str, Any]) -> bool:
        """Whether a schedule, as plain JSON, is one of them."""
        name = schedule["name"]
        return (not self.names or any(name == one or fnmatchcase(name, one) for one in self.names)) and all(
            tag in schedule["tags"] for tag in self.tags
        )


def is_glob(name: str) -> bool:
    """Whether *name* is a pattern; no schedule's name has such characters."""
    return not _GLOB_CHARS.isdisjoint(name)


def pages(client: Client, selection: Selection) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """Yield the schedules of *selection* as plain JSON, a page at a time, each with the daemon's clock.

    Errors: NoScheduleMatches, after the last page, if a name or glob has matched none.
    """
    missing = set(selection.names)
    for page in client.schedule_pages():
        found = [schedule for schedule in page["schedules"] if selection.has(schedule)]
        for schedule in found if missing else ():
            name = schedule["name"]
            missing -= {one for one in missing if name == one or fnmatchcase(name, one)}
        if found:
            yield found, page.get("now")
    for name in selection.names:
        if name in missing:
            raise NoScheduleMatches(name, tags=selection.tags)


def names_of(client: Client, selection: Selection) -> list[str]:
    """Return the names that *selection* means; those given in full as they are, whether or not there are such schedules.

    Errors: UsageError if nothing is selected, NoScheduleMatches.
    """
    if not selection.names and not selection.tags:
        raise UsageError("name at least one schedule, or a glob such as 'report-*', or give --tag")
    if not selection.is_bulk:
        return list(dict.fromkeys(selection.names))
    found = [schedule["name"] for page, _ in pages(client, selection) for schedule in page]
    if not found:
        raise NoScheduleMatches(None, tags=selection.tags)
    return found
