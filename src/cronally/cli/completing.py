"""completion: what a shell is told, so that it completes commands, options and the names of schedules."""

import os
from importlib import import_module
from typing import Annotated, Final

import typer

from cronally.admin.client import Client
from cronally.admin.paths import HOST_VARIABLE, find_socket
from cronally.cli.output import out
from cronally.cli.selecting import before_all
from cronally.errors import CronallyError, UsageError

EXAMPLES: Final = {
    "completion": """
        eval "$(cronally completion bash)"        # in ~/.bashrc
        eval "$(cronally completion zsh)"         # in ~/.zshrc, after compinit
        cronally completion fish > ~/.config/fish/completions/cronally.fish
        """,
}

_SHELLS: Final = ("bash", "zsh", "fish")
_MOST_NAMES: Final = 200
_WITHIN_S: Final = 2.0  # a shell waits for it


def completion_command(
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="The shell.")],
) -> None:
    """Print what makes a shell complete commands, options and the names of schedules, which the daemon is asked for."""
    if shell not in _SHELLS:
        raise UsageError(f"{shell[:50]!r} is no shell that can be told; there are {', '.join(_SHELLS)}")
    completion = import_module("typer.completion")
    out(
        completion.get_completion_script(prog_name="cronally", complete_var="_CRONALLY_COMPLETE", shell=shell)
    )


def schedule_names(incomplete: str) -> list[str]:
    """Return the names of schedules that begin so, up to 200; none if the daemon does not tell."""
    names: list[str] = []
    if os.environ.get(HOST_VARIABLE):  # a key that is pressed opens no connection to another machine
        return names
    try:
        with Client(find_socket(os.environ), answer_s=_WITHIN_S) as client:
            for page in client.schedule_pages(after=before_all(incomplete)):
                for schedule in page["schedules"]:
                    name = schedule["name"]
                    if not name.startswith(incomplete) or len(names) == _MOST_NAMES:
                        return names
                    names.append(name)
    except CronallyError:
        pass
    return names
