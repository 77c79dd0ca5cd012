"""top: the daemon on the whole screen."""

import os
import sys
from typing import Annotated, Final

import typer

from cronally.admin.wire import MAX_COMING, to_plain
from cronally.cli import options as o
from cronally.cli.output import out, out_json
from cronally.errors import CronallyError, UsageError

EXAMPLES: Final = {
    "top": """
        cronally top
        cronally top --every 10s
        cronally top --json | jq '.coming[0]'
        """,
}

_REDRAWN_S: Final = 1.0  # the seconds count down
_ANSWER_S: Final = 3.0
_NO_SCREEN: Final = ("dumb", "unknown")  # terminals that cannot be drawn on, such as Emacs's shell
_SHOWN_ONCE: Final = (120, 40)  # columns and rows where there is no screen


def top_command(
    every: Annotated[
        str, typer.Option("--every", metavar="DURATION", help="How often the daemon is asked, 1s to 1h.")
    ] = "2s",
    once: Annotated[
        bool, typer.Option("--once", help="Print it once, as is done where there is no screen to draw on.")
    ] = False,
    json: o.Json = False,
    socket: o.Socket = None,
) -> int:
    """Watch the daemon on the whole screen: what fires next, how much and how late, what waits and which topics refuse.

    'q' or Ctrl-C ends it. If the daemon goes away it waits until that is back.
    """
    from cronally.cli.top_view import TopView
    from cronally.clock import SystemClock

    every_s = o.duration_s("--every", every)
    if not 1 <= every_s <= 3_600:
        raise UsageError(f"--every: must be from 1s to 1h, not {every}")
    clock = SystemClock()
    with o.connect(socket, answer_s=_ANSWER_S) as client:
        overview = client.overview(coming=_SHOWN_ONCE[1] if json or once else MAX_COMING)
        if json:
            out_json(to_plain(overview))
            return 0
        view = TopView()
        view.take(overview, clock.mono())
        if once or not sys.stdout.isatty() or os.environ.get("TERM") in _NO_SCREEN:
            out("\n".join(line for line, _ in view.lines(clock.mono(), *_SHOWN_ONCE)))
            return 0
        from cronally.cli.full_screen import Ended, FullScreen

        asked_at = clock.mono()
        try:
            with FullScreen() as screen:
                while True:
                    now = clock.mono()
                    if now - asked_at >= every_s:
                        asked_at = now
                        try:
                            view.take(client.overview(coming=screen.size[1]), clock.mono())
                        except CronallyError as exc:
                            view.miss(exc)
                    width, height = screen.size
                    lines = view.lines(clock.mono(), width, height - 1)
                    blank = [("", "")] * (height - 1 - len(lines))
                    screen.show([*lines, *blank, ("q ends it", "dim")])
                    screen.wait(_REDRAWN_S)
        except Ended as end:
            return end.exit_code
