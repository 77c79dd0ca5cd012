"""Man pages, made of what the help texts are made of: the names, docstrings, options and examples of the commands.

``python -m cronally.cli.manual DIRECTORY`` writes them; so does every build of the package (hatch_build.py). They are in
the macros of man(7) and in ASCII, which groff and mandoc read in every locale.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, Final

import typer

from cronally import __version__
from cronally.admin.paths import HOST_VARIABLE, SYSTEM_SOCKET, default_socket, state_directory
from cronally.cli.main import (
    ABOUT,
    COMMANDS,
    EXIT_CODES,
    TRACEBACK_VARIABLE,
    command,
    description,
    everything,
    examples,
    exit_codes,
    names_in,
)
from cronally.config import MEANINGS, written_in_files

_STATE: Final = state_directory({"HOME": "~"})
VARIABLES: Final = {
    **{f"CRONALLY_{key.upper()}": meaning for key, meaning in MEANINGS.items()},
    HOST_VARIABLE: "The daemon of another machine, as --host names it; not beside CRONALLY_SOCKET.",
    "CRONALLY_CONFIG": "The file of settings, as --config names it. What a variable or an option says goes before what the "
    "file says.",
    TRACEBACK_VARIABLE: "If set, a bug shows where it happened.",
    "XDG_STATE_HOME, XDG_RUNTIME_DIR": "Where the user's own files are; see FILES.",
    "AWS_PROFILE, AWS_REGION, AWS_ACCESS_KEY_ID, ...": "Credentials and region, found as by every AWS tool.",
    "AWS_ENDPOINT_URL_SNS, AWS_ENDPOINT_URL": "Where SNS is, if not at AWS.",
    "AWS_CA_BUNDLE, HTTPS_PROXY, HTTP_PROXY, NO_PROXY": "Whom to trust and which way to go, as for every AWS tool.",
    "VISUAL, EDITOR": "The editor of 'cronally edit'. [default: vi]",
    "NO_COLOR": "If set, nothing is coloured.",
}
FILES: Final = {
    SYSTEM_SOCKET: "The socket of a daemon for the whole machine; commands look here first.",
    default_socket(
        {"XDG_RUNTIME_DIR": "/run/user/UID"}
    ): "The socket of a user's own daemon, in $XDG_RUNTIME_DIR.",
    f"{_STATE}/cronally.sock": "The same where there is no runtime directory. ~/.local/state is $XDG_STATE_HOME if that "
    "is set.",
    f"{_STATE}/cronally.db": "The store: schedules and journal; beside it its lock, and files of SQLite. 'cronally "
    "backup' copies it.",
    "FILE of --config": f"Settings in TOML: {', '.join(map(written_in_files, MEANINGS))}, as the variables above.",
}


def pages() -> dict[str, str]:
    """Return all pages by their files' names: ``cronally.1``, ``cronally-topics-ls.1``."""
    return {f"{_title(name)}.1": page(name) for name in ("", *COMMANDS)}


def page(name: str) -> str:
    """Return the page of a command or a group, or of ``cronally`` itself for the empty text."""
    asked = command(name) if name else everything()
    ctx = typer.Context(asked, info_name=name, **asked.context_settings)
    params = asked.get_params(ctx)
    arguments = [param for param in params if param.param_type_name == "argument"]
    options = [param for param in params if param.param_type_name == "option"]
    title, short = _title(name), COMMANDS[name][1] if name else ABOUT.partition(":")[0]
    header = f'.TH {_roff(title.upper())} 1 "" "cronally {_roff(__version__)}" "User Commands"'
    sections = {
        "NAME": [f"{_roff(title)} \\- {_roff(short.removesuffix('.'))}"],
        "SYNOPSIS": [_usage(name, options, arguments)],
        "DESCRIPTION": _prose(description(name) if name else ABOUT),
        "COMMANDS": _commands([f"{name} {one}" for one in names_in(name)] if name else list(COMMANDS)),
        "ARGUMENTS": _items((_italic(one.metavar), meaning(one, ctx)) for one in arguments),
        "OPTIONS": _items((_term(one), meaning(one, ctx)) for one in options),
        "EXIT STATUS": _prose(exit_codes())
        if name
        else _items(((_bold(str(code)), meaning) for code, meaning in EXIT_CODES.items()), width=5),
        "ENVIRONMENT": [] if name else _items((_bold(one), text) for one, text in VARIABLES.items()),
        "FILES": [] if name else _items((_italic(one), text) for one, text in FILES.items()),
        "EXAMPLES": _verbatim(examples(name)) if name else [],
        "SEE ALSO": [", ".join(f"{_bold(one)}({section})" for one, section in _see_also(name))],
    }
    lines = [header, ".nh", ".ad l"]  # an ARN that is hyphenated, or stretched, is hard to read
    for section, body in sections.items():
        if body:
            lines += [f".SH {section}", *body]
    return "\n".join(lines) + "\n"


def write(directory: Path) -> None:
    """Write all pages into a directory, which is made if need be. Errors: OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for file, text in pages().items():
        (directory / file).write_text(text, encoding="ascii")


# --- what a page says ---------------------------------------------------------------------------------------------


def _title(name: str) -> str:
    return "-".join(["cronally", *name.split()])


def _commands(names: list[str]) -> list[str]:
    if not names:
        return []
    example = f"{_bold(_title(names[-1]))}(1)"
    table = _items(((_bold(name), COMMANDS[name][1]) for name in names), width=max(map(len, names)) + 2)
    return [f"Each has a page of its own, such as {example}.", ".PP", *table]


def _usage(name: str, options: list[Any], arguments: list[Any]) -> str:
    words = [_bold(f"cronally {name}".rstrip()), f"[{_italic('OPTION')}]..."]
    words += [f"{_bold(max(one.opts, key=len))} {_italic(one.metavar)}" for one in options if one.required]
    words += [_place(one) for one in arguments]
    if names_in(name):
        words += [_italic("COMMAND"), f"[{_italic('ARGUMENT')}]..."]
    return " ".join(words)


def _place(argument: Any) -> str:
    text = _italic(argument.metavar) if argument.required else f"[{_italic(argument.metavar)}]"
    return text if argument.nargs == 1 else f"{text}..."


def _term(option: Any) -> str:
    """Return how an option is written: ``-f, --file FILE``."""
    words = ", ".join(map(_bold, [*sorted(option.opts, key=len), *option.secondary_opts]))
    return words if option.is_flag else f"{words} {_italic(option.metavar)}"


def meaning(param: Any, ctx: Any) -> str:
    """Return what the help says of an option or argument; the synopsis says already which argument must be there."""
    _, text = param.get_help_record(ctx)
    return str(text.removesuffix("[required]") if param.param_type_name == "argument" else text)


def _see_also(name: str) -> Iterator[tuple[str, int]]:
    """Return pages and their sections: those above it, and those of the commands that the text names."""
    if not name:
        yield "crontab", 5
        yield "man", 1
        return
    yield "cronally", 1
    group = name.rpartition(" ")[0]
    if group:
        yield _title(group), 1
    quoted = re.findall(r"'cronally ([a-z. ]+)", description(name))
    named = [words if words in COMMANDS else words.partition(" ")[0] for words in map(str.strip, quoted)]
    for other in dict.fromkeys(named):
        if other in COMMANDS and other != name:
            yield _title(other), 1


# --- how man(7) writes it -----------------------------------------------------------------------------------------

# What would be typeset as another character, so that an example could not be copied: groff_char(7), "Input".
_ESCAPES: Final = str.maketrans(
    {
        "\\": r"\e",
        "-": r"\-",
        "'": r"\(aq",
        '"': r"\(dq",
        "`": r"\(ga",
        "^": r"\(ha",
        "~": r"\(ti",
        "…": "...",  # groff has none for a terminal without Unicode
    }
)


def _roff(text: str) -> str:
    """Return a line of text so that roff prints just that: no request, no escape, no other character."""
    escaped = text.translate(_ESCAPES)
    printed = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in escaped)
    return rf"\&{printed}" if printed.startswith(".") else printed


def _bold(text: str) -> str:
    return rf"\fB{_roff(text)}\fR"


def _italic(text: str) -> str:
    return rf"\fI{_roff(text)}\fR"


def _prose(text: str) -> list[str]:
    r"""Return paragraphs, filled; one that begins with a line ``\b`` keeps its lines, as it does in help."""
    lines: list[str] = []
    for number, paragraph in enumerate(text.split("\n\n")):
        kept = paragraph.partition("\b\n")[2]
        if number and not kept:
            lines.append(".PP")
        lines += _verbatim(dedent(kept)) if kept else [_roff(" ".join(paragraph.split()))]
    return lines


def _verbatim(text: str) -> list[str]:
    return [".RS 4", ".nf", *map(_roff, text.splitlines()), ".fi", ".RE"]


def _items(items: Iterable[tuple[str, str]], *, width: int | None = None) -> list[str]:
    """Return terms, which are roff already, each with a text below it; with a *width*, a table of short ones beside them."""
    start = ".TP" if width is None else f".TP {width}n"
    lines = [line for term, text in items for line in (start, term, _roff(" ".join(text.split())))]
    return lines if width is None else [".PD 0", *lines, ".PD"]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
