"""``cronally``: finds the command, runs it, and turns every error into a sentence and an exit code.

A command's module is imported when the command is called, so that a short one starts fast.
"""

import os
import re
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from inspect import cleandoc
from textwrap import indent
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from cronally import __version__
from cronally.cli.output import Volume, err, out, out_json, prepare_streams, set_volume, volume
from cronally.cli.values import read_plainly
from cronally.errors import CronallyError, InternalError

COMMANDS: Final = {
    "serve": ("daemon", "Run the daemon."),
    "demo": ("daemon", "See the main job at work, without AWS."),
    "add": ("changing", "Create a schedule."),
    "set": ("changing", "Change a schedule."),
    "edit": ("editing", "Change a schedule in an editor."),
    "mv": ("editing", "Give a schedule another name."),
    "ls": ("listing", "List the schedules."),
    "show": ("listing", "Show all of one schedule."),
    "rm": ("changing", "Remove schedules."),
    "pause": ("changing", "Put schedules at rest."),
    "resume": ("changing", "End the pause of schedules."),
    "run": ("firing", "Fire a schedule now."),
    "retry": ("firing", "Send fires again that failed or were skipped."),
    "backfill": ("firing", "Make fires for past slots."),
    "next": ("times", "Print the next fires of a rule or a schedule."),
    "why": ("asking", "Say why a slot was there or not."),
    "explain": ("explaining", "Say what a rule or a schedule's rule means."),
    "forecast": ("forecasting", "Show how many messages the coming day has."),
    "history": ("listing", "List what became of each slot."),
    "audit": ("auditing", "List who changed what, and when."),
    "tail": ("watching", "Show what becomes of fires as it happens."),
    "top": ("top", "Watch the daemon on the whole screen."),
    "status": ("listing", "Show how the daemon is."),
    "apply": ("applying", "Make schedules as a file states them."),
    "diff": ("applying", "Show what apply would do with a file."),
    "export": ("exporting", "Write schedules as a file for apply."),
    "import": ("imports", "Take over the schedules of another system."),
    "import crontab": ("imports", "Take over crontabs: a user's, /etc/crontab, /etc/cron.d."),
    "import cron.yaml": ("imports", "Take over the tasks of an Elastic Beanstalk worker environment."),
    "import eventbridge": ("imports", "Take over schedules of EventBridge Scheduler, and scheduled rules."),
    "import kubernetes": ("imports", "Take over Kubernetes CronJobs."),
    "topics": ("topics", "See, make and try SNS topics."),
    "topics ls": ("topics", "List the topics in use."),
    "topics create": ("topics", "Make a topic."),
    "topics subscribe": ("topics", "Have a topic deliver to a queue, function, URL or address."),
    "topics check": ("topics", "Send a test message."),
    "completion": ("completing", "Have a shell complete names and options."),
    "backup": ("backups", "Write a copy of the store while the daemon runs."),
    "restore": ("backups", "Put a backup in the place of the store."),
    "store": ("stores", "Make the table that machines share, and move to it or back."),
    "store create": ("stores", "Make the table."),
    "store copy": ("stores", "Copy an installation to a table or back."),
    "doctor": ("doctor", "Look at all that a daemon needs."),
    "config": ("configuring", "See the settings."),
    "config show": ("configuring", "Print each setting and where it came from."),
    "install": ("installing", "Make the daemon a service of this machine."),
    "help": ("helping", "Show the help of a command."),
}
"""Each command, the module that has it as ``NAME_command``, and what it does in a few words.

One of two words belongs to a group, which has an entry of its own: its module's docstring is what its help says, and
``ls`` of the group ``topics`` is there as ``topics_ls_command``.
"""

EXIT_CODES: Final = {
    0: "done",
    1: "failed",
    2: "bad input",
    3: "no daemon",
    4: "no such schedule",
    5: "conflict",
    6: "differences found",
    70: "a bug",
    130: "interrupted",  # 128 + SIGINT, as a shell says it
}
ABOUT: Final = """\
Cron for teams on AWS: one SNS message at each instant of a crontab, on time and on record.

A daemon ('cronally serve') keeps the schedules; the other commands speak to it through its socket."""
TRACEBACK_VARIABLE: Final = "CRONALLY_TRACEBACK"
_COMPLETION_VARIABLE: Final = "_CRONALLY_COMPLETE"  # a shell asks
_SETTINGS: Final = {"help_option_names": ["-h", "--help"]}
_INTERRUPTED: Final = 130
_OF_THIS_MACHINE: Final = ("serve", "doctor")


def command(name: str) -> Any:
    """Return the command *name*, or the group of that name, ready to be called."""
    module = _module(name)
    text = f"{description(name)}\n\n\b\nExamples:\n{indent(examples(name), '  ')}"
    short = COMMANDS[name][1]
    if names_in(name):
        app = typer.Typer(**_of_commands(f"{name} "))
        app.callback(help=text, short_help=short)(_needs_a_command)
        return read_plainly(_with_volume(get_command(app)))
    function = _function(module, name)
    # Of a command that sees its context, words left over are its own to refuse: a rule without quotes, most often.
    settings = _SETTINGS | {"allow_extra_args": "ctx" in function.__annotations__}
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name.rpartition(" ")[2], help=text, short_help=short, context_settings=settings)(function)
    asked = get_command(app)
    return read_plainly(_with_volume(_with_host(asked) if _takes_host(name) else asked))


def _with_host(asked: Any) -> Any:
    """Let *asked*, a command that speaks to a daemon, take --host."""
    app = typer.Typer(add_completion=False)
    app.command()(_host)
    asked.params += get_command(app).params
    return asked


def _set_host(host: str | None) -> None:
    import_module("cronally.cli.options").set_host(host)


def _host(
    *,
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="ssh://HOST",
            callback=_set_host,
            expose_value=False,
            help="The daemon of another machine, through ssh: ssh://USER@HOST:PORT/PATH/OF/SOCKET, where only HOST must be there. Default: "
            "$CRONALLY_HOST.",
        ),
    ] = None,
) -> None:
    pass


def _takes_host(name: str) -> bool:
    """Whether a command speaks to a daemon that may be one of another machine, or a group has one that does."""
    if names_in(name):
        return any(_takes_host(f"{name} {one}") for one in names_in(name))
    return name not in _OF_THIS_MACHINE and "socket" in _function(_module(name), name).__annotations__


def _with_volume(asked: Any) -> Any:
    """Let *asked*, a command or a group, take -q and -v."""
    app = typer.Typer(add_completion=False)
    app.command()(_volume)
    asked.params += get_command(app).params
    return asked


def _volume(
    *,
    _quiet: Annotated[
        bool,
        typer.Option(
            "-q",
            "--quiet",
            callback=lambda is_given: _set_volume(Volume.QUIET, is_given=is_given),
            expose_value=False,
            help="Say only what is wrong, beside the data.",
        ),
    ] = False,
    _verbose: Annotated[
        bool,
        typer.Option(
            "-v",
            "--verbose",
            callback=lambda is_given: _set_volume(Volume.VERBOSE, is_given=is_given),
            expose_value=False,
            help="Also say what is asked of the daemon.",
        ),
    ] = False,
) -> None:
    pass


def _set_volume(wanted: Volume, *, is_given: bool) -> None:
    if is_given and volume() not in (Volume.NORMAL, wanted):
        raise typer.BadParameter(f"cannot be together with {volume().value}", param_hint=wanted.value)
    if is_given:
        set_volume(wanted)


def description(name: str) -> str:
    """Return what a command or group does, paragraphs of one docstring."""
    module = _module(name)
    return cleandoc((module if names_in(name) else _function(module, name)).__doc__ or "")


def examples(name: str) -> str:
    """Return the lines that show how a command or group is used."""
    return cleandoc(_module(name).EXAMPLES[name])


def _module(name: str) -> Any:
    return import_module(f"cronally.cli.{COMMANDS[name][0]}")


def _function(module: Any, name: str) -> Any:
    return getattr(module, f"{re.sub('[ .]', '_', name)}_command")


def names_in(group: str) -> list[str]:
    """Return the names of the commands of a group, or of those of one word for the empty text."""
    start = f"{group} " if group else ""
    return [
        name.removeprefix(start)
        for name in COMMANDS
        if name.startswith(start) and name.count(" ") == bool(group)
    ]


class _Commands(TyperGroup):
    """Commands that are imported when they are called. Attributes: path: the words before them, each with a blank."""

    path = ""

    def list_commands(self, _ctx: Any) -> list[str]:
        return names_in(self.path.strip())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        names = self.list_commands(ctx)
        if cmd_name in names:
            return command(self.path + cmd_name)
        if not cmd_name.startswith("-"):
            near = get_close_matches(cmd_name, names, n=1)
            fix = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"
            ctx.fail(f"no such command: {(self.path + cmd_name)[:100]!r}; {fix}")
        return None


def _of_commands(path: str) -> dict[str, Any]:
    """Return what makes a ``Typer`` the group of the commands below *path*."""
    return {
        "cls": type("_Commands", (_Commands,), {"path": path}),
        "add_completion": False,
        "rich_markup_mode": None,
        "invoke_without_command": True,
        "context_settings": _SETTINGS,
    }


def _needs_a_command(ctx: typer.Context) -> None:
    if ctx.invoked_subcommand is None:
        err(ctx.get_help())
        raise typer.Exit(2)


def exit_codes() -> str:
    """Return a sentence that says what each exit code means."""
    return f"Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}."


def everything() -> Any:
    """Return ``cronally`` itself, ready to be called: the commands and the options before them."""
    return read_plainly(_with_volume(get_command(_app)))


_app = typer.Typer(**_of_commands(""))


@_app.callback(help=f"{ABOUT}\n\n{exit_codes()}")
def _cronally(
    ctx: typer.Context,
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --version: one JSON document.")] = False,
    socket: Annotated[
        str | None,
        typer.Option("--socket", metavar="PATH", help="The daemon's socket; each command takes it too."),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            "--host", metavar="ssh://HOST", help="The daemon of another machine; each command takes it too."
        ),
    ] = None,
) -> int:
    if version:
        _print_version(as_json=json)
        raise typer.Exit
    if json:
        raise typer.BadParameter("belongs after a command, or beside --version", param_hint="--json")
    _needs_a_command(ctx)
    if host is not None and ctx.invoked_subcommand in COMMANDS and not _takes_host(ctx.invoked_subcommand):
        raise typer.BadParameter(
            f"'cronally {ctx.invoked_subcommand}' is about this machine alone", param_hint="--host"
        )
    given = {key: value for key, value in (("socket", socket), ("host", host)) if value is not None}
    if given:
        ctx.default_map = {name: given | dict.fromkeys(names_in(name), given) for name in names_in("")}
    return 0


def _print_version(*, as_json: bool) -> None:
    if not as_json:
        out(f"cronally {__version__}")
        return
    tzdata = import_module("tzdata").IANA_VERSION
    out_json({"version": __version__, "tzdata": tzdata, "python": sys.version.split()[0]})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code. Never raises for what a user does."""
    prepare_streams()
    set_volume(Volume.NORMAL)
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return code


def _run(arguments: Sequence[str]) -> int:
    asked = os.environ.get(_COMPLETION_VARIABLE)
    if asked:
        completion = import_module("typer.completion")
        completion.completion_init()
        try:
            return int(completion.shell_complete(everything(), {}, "cronally", _COMPLETION_VARIABLE, asked))
        except typer.TyperException:  # there is no such command: then there is nothing to offer
            return 1
    try:
        code = everything().main(list(arguments), prog_name="cronally", standalone_mode=False)
    except typer.TyperException as exc:
        return _refused(exc)
    except typer.Abort:
        return _INTERRUPTED
    except BrokenPipeError:
        raise
    except CronallyError as exc:
        err(f"cronally: {exc}")
        if isinstance(exc, InternalError):
            _say_bug()
        return exc.exit_code
    except SystemExit as exc:  # typer's own way out when stdout is closed
        _abandon_stdout()
        return exc.code if isinstance(exc.code, int) else 1
    except Exception as exc:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        err(f"cronally: this is a bug: {type(exc).__name__}: {exc}")
        _say_bug()
        return InternalError.exit_code
    return code if isinstance(code, int) else 0


def _refused(exc: typer.TyperException) -> int:
    """Say what is wrong with the words on the command line, and where to look."""
    context = getattr(exc, "ctx", None)
    message = exc.format_message()
    near = get_close_matches(getattr(exc, "option_name", ""), getattr(exc, "possibilities", None) or (), n=1)
    if near:
        message = f"{getattr(exc, 'message', message)}; did you mean {near[0]!r}?"
    err(f"cronally: {message[:1].lower()}{message[1:]}")
    err(f"Try '{context.command_path if context else 'cronally'} --help'.")
    return exc.exit_code


def _say_bug() -> None:
    err(
        f"cronally: please report it with the command, this message, 'cronally --version --json', and what "
        f"{TRACEBACK_VARIABLE}=1 prints"
    )


def _abandon_stdout() -> None:
    """Whoever read our output has gone: let the interpreter's last flush go nowhere."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)
