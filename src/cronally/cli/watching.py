"""tail: what becomes of fires, as it happens."""

import json as jsonlib
import sys
from fnmatch import fnmatchcase
from typing import Annotated, Final

import typer

from cronally.admin.wire import Fire, to_plain
from cronally.cli import options as o
from cronally.cli.output import columns, err, note, out
from cronally.cli.selecting import is_glob

EXAMPLES: Final = {
    "tail": """
        cronally tail
        cronally tail 'report-*' --state rejected,expired
        cronally tail --json | jq -r 'select(.lateness_us > 1000000) | .fire_id'
        """,
}


def tail_command(
    names: o.Globs = None,
    state: o.States = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON Lines, one document for each fire.")
    ] = False,
    socket: o.Socket = None,
) -> None:
    """Show what becomes of each fire as it happens, until you stop it (Ctrl-C); 'cronally history' has what was before.

    A fire that is tried again appears each time: as pending, and in the end as what it has become. The slots that a pause
    skips are one line, with how many they were, when it ends.
    """
    wanted = {"state": ",".join(state or []) or None}
    if names and len(names) == 1 and not is_glob(names[0]):
        wanted["schedule"] = names[0]
    with o.connect(socket) as client:
        events = client.events(**wanted)
        show = _Lines() if json else _Rows()
        if sys.stderr.isatty() and not json:
            note("waiting for fires; Ctrl-C ends it")
        for event in events:
            if isinstance(event, int):
                err(
                    f"warning: {event:,} fires are left out: they came faster than they are read; 'cronally history' has all"
                )
            elif not names or any(fnmatchcase(event.schedule, name) for name in names):
                show(event)
                sys.stdout.flush()


class _Lines:
    """Prints JSON Lines."""

    def __call__(self, fire: Fire) -> None:
        out(jsonlib.dumps(to_plain(fire)))


class _Rows:
    """Prints a table that goes on."""

    def __init__(self) -> None:
        from cronally.cli.render import FIRE_HEADS, Table, fires_rows

        self._table, self._rows_of = Table(FIRE_HEADS, room=columns()), fires_rows

    def __call__(self, fire: Fire) -> None:
        out(self._table.part(self._rows_of([fire])))
