"""help: the help of a command, for those who ask for it that way round."""

from typing import Annotated, Final

import typer

from cronally.cli.output import out
from cronally.errors import UsageError

EXAMPLES: Final = {
    "help": """
        cronally help
        cronally help add
        cronally help topics subscribe
        """,
}


def complete_words(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the names of commands that begin so, for the shell."""
    from cronally.cli.main import names_in

    before = " ".join(ctx.params.get("words") or ())
    return [name for name in names_in(before) if name.startswith(incomplete)]


def help_command(
    ctx: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND", help="The command, of one word or two.", autocompletion=complete_words
        ),
    ] = None,
) -> None:
    """Print the help of a command, as its --help does, or that of all commands. 'man cronally-add' has it as a page."""
    context = ctx.find_root()
    for word in words or ():
        find = getattr(context.command, "get_command", None)
        found = find(context, word) if find else None
        if found is None:
            raise UsageError(f"there is no command {word[:100]!r} of {context.command_path!r}")
        context = typer.Context(found, parent=context, info_name=word, **found.context_settings)
    out(context.get_help())
