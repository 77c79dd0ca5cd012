"""serve and demo: the commands that are a daemon themselves."""

import logging
from typing import Annotated, Final

import typer

from cronally.cli.output import Volume, volume

EXAMPLES: Final = {
    "serve": """
        cronally serve
        cronally serve --local
        cronally serve --store sqlite:/var/lib/cronally/cronally.db --socket /run/cronally/cronally.sock
        cronally serve --store dynamodb:cronally
        """,
    "demo": """
        cronally demo
        cronally demo --for 60
        """,
}


def serve_command(
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            metavar="sqlite:PATH|dynamodb:TABLE",
            help="Where schedules and journal are kept: in a file, or in a table that several machines share. [default: a file in the state directory]",
        ),
    ] = None,
    socket: Annotated[
        str | None,
        typer.Option("--socket", metavar="PATH", help="The socket to answer commands on, at most 107 bytes."),
    ] = None,
    local: Annotated[
        bool,
        typer.Option(
            "--local", help="Publish to a local stand-in for SNS and SQS; no AWS account is needed."
        ),
    ] = False,
    local_port: Annotated[
        int | None,
        typer.Option("--local-port", metavar="PORT", help="Where the stand-in is started. [default: 4566]"),
    ] = None,
    config: Annotated[str | None, typer.Option("--config", metavar="FILE", help="Settings in TOML.")] = None,
    trust_clock: Annotated[
        bool, typer.Option("--trust-clock", help="Believe the wall clock, whatever it says.")
    ] = False,
) -> int:
    """Run the daemon until SIGTERM or SIGINT: it fires the schedules and answers the other commands.

    Settings come from the defaults, the file, CRONALLY_* variables and these options; the later ones win. On a stop no
    new fires leave, those in flight are finished, and the exit code is 0; a second signal does not wait.
    """
    from cronally import app

    flags: dict[str, object] = {
        "store": store,
        "socket": socket,
        "local": local or None,
        "local_port": local_port,
        "trust_clock": trust_clock or None,
    }
    levels = {Volume.QUIET: logging.WARNING, Volume.NORMAL: logging.INFO, Volume.VERBOSE: logging.DEBUG}
    return app.serve(flags, config_file=config, log_level=levels[volume()])


def demo_command(
    for_s: Annotated[
        float, typer.Option("--for", metavar="SECONDS", min=1, max=86_400, help="How long it runs.")
    ] = 20,
) -> int:
    """Run the main job here and now: daemon, local SNS and SQS, three schedules, a table of what arrives and how late.

    Nothing is left behind. Ctrl-C ends it early.
    """
    from cronally.cli import demo

    return demo.run(for_s)
