"""Which schedules a command is about: names, globs (``report-*``) and tags."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cronally.admin.wire import to_plain
from cronally.errors import NoScheduleMatches, ScheduleNotFound, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cronally.admin.client import Client

_GLOB: Final = re.compile(r"[*?\[]")


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
    return _GLOB.search(name) is not None


def pages(client: Client, selection: Selection) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """Yield the schedules of *selection* as plain JSON, a page at a time, each with the daemon's clock if it is known.

    Errors: NoScheduleMatches, after the last page, if a glob has matched none; ScheduleNotFound, if there are only names.
    """
    missing = list(selection.names)
    if selection.names and not selection.is_bulk:
        unknown: ScheduleNotFound | None = None
        for name in dict.fromkeys(selection.names):
            try:
                one = client.schedule(name, fires=1)
            except ScheduleNotFound as exc:
                unknown = unknown or exc
                continue
            yield [to_plain(one)], None
        if unknown is not None:
            raise unknown
        missing = []
    else:
        start = _common_start(selection.names)
        for page in client.schedule_pages(after=before_all(start)):
            found = [schedule for schedule in page["schedules"] if selection.has(schedule)]
            for schedule in found if missing else ():
                missing = [one for one in missing if not fnmatchcase(schedule["name"], one)]
            if found:
                yield found, page.get("now")
            if page["schedules"] and not page["schedules"][-1]["name"].startswith(start):
                break  # past all that can match
    if missing:
        raise NoScheduleMatches(missing[0], tags=selection.tags)


def _common_start(names: Sequence[str]) -> str:
    """Return what all that *names* (globs) match begins with."""
    return commonprefix([_GLOB.split(name, maxsplit=1)[0] for name in names])  # noqa: RUF071 - these are no paths


def before_all(prefix: str) -> str | None:
    """Return a text that sorts right before all names which begin with *prefix*: in none there is a ``~``."""
    if not prefix or ord(prefix[-1]) == 0:
        return None
    return f"{prefix[:-1]}{chr(ord(prefix[-1]) - 1)}~"


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
