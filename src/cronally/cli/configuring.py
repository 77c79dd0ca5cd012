"""See the settings of a daemon, and where each came from."""

import os
from typing import Annotated, Final

import typer

from cronally.cli import options as o
from cronally.cli.output import out, out_json

EXAMPLES: Final = {
    "config": """
        cronally config show
        """,
    "config show": """
        cronally config show
        cronally config show --config /etc/cronally/cronally.toml
        cronally config show --json | jq '.settings[] | select(.from != "default")'
        """,
}

_WIDEST: Final = 120  # a path is to be read whole


def config_show_command(
    config: Annotated[str | None, typer.Option("--config", metavar="FILE", help="Settings in TOML.")] = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="sqlite:PATH|dynamodb:TABLE", help="As for serve.")
    ] = None,
    socket: Annotated[str | None, typer.Option("--socket", metavar="PATH", help="As for serve.")] = None,
    local: Annotated[bool, typer.Option("--local", help="As for serve.")] = False,
    local_port: Annotated[
        int | None, typer.Option("--local-port", metavar="PORT", help="As for serve.")
    ] = None,
    trust_clock: Annotated[bool, typer.Option("--trust-clock", help="As for serve.")] = False,
    json: o.Json = False,
) -> None:
    """Print each setting that 'cronally serve' would have here and now, and where it came from; no daemon is asked.

    The later ones of these win: default, file, CRONALLY_* variable, option. What is refused for serve is refused here, with the reason. No
    setting is a secret.
    """
    from cronally.cli.render import printable, table
    from cronally.config import load_config, settings

    flags = {
        "store": store,
        "socket": socket,
        "local": local or None,
        "local_port": local_port,
        "trust_clock": trust_clock or None,
    }
    found = settings(load_config(os.environ, flags, config_file=config))
    if json:
        plain = [{"key": s.key, "value": s.value, "from": s.kind, "source": s.source} for s in found]
        out_json({"settings": plain})
        return
    rows = [(one.key, one.source, printable(one.text)) for one in found]
    out(table(("SETTING", "FROM", "VALUE"), rows, widest=_WIDEST))
