"""The reference of the commands: what their help and man pages are made of, as pages of the site."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final

import typer

from cronally.cli.main import (
    ABOUT,
    COMMANDS,
    EXIT_CODES,
    command,
    description,
    everything,
    examples,
    names_in,
)
from cronally.cli.manual import FILES, VARIABLES, meaning
from docs_site.markdown import block, code, plain, table

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER: Final = "reference/commands"


def pages() -> Iterator[tuple[str, str]]:
    """Yield the name on the site and the text of each page, in the order of the menu."""
    yield f"{FOLDER}/README.md", _overview()
    for name in COMMANDS:
        yield place(name), _page(name)


def place(name: str) -> str:
    """Return the name of the page of a command or group."""
    return f"{FOLDER}/{re.sub('[ .]', '-', name)}.md"


def _overview() -> str:
    asked = everything()
    ctx = typer.Context(asked, info_name="cronally", **asked.context_settings)
    names = ((f"[`cronally {name}`]({_file(name)})", plain(text)) for name, (_, text) in COMMANDS.items())
    lines = ["# Commands", "", *_prose(ABOUT)]
    lines += [*table(["", ""], names), "## Options before a command", *_options(asked, ctx)]
    lines += [
        "## Exit codes",
        *table(["code", ""], ((code(str(key)), text) for key, text in EXIT_CODES.items())),
    ]
    lines += [
        "## Environment",
        *table(["variable", ""], ((code(key), plain(text)) for key, text in VARIABLES.items())),
    ]
    lines += ["## Files", *table(["file", ""], ((code(key), plain(text)) for key, text in FILES.items()))]
    return "\n".join(lines)


def _page(name: str) -> str:
    asked = command(name)
    ctx = typer.Context(asked, info_name=name, **asked.context_settings)
    arguments = [one for one in asked.get_params(ctx) if one.param_type_name == "argument"]
    lines = [f"# cronally {name}", "", *block(_usage(name, asked.get_params(ctx)))]
    lines += _prose(description(name))
    if names_in(name):
        rows = (
            (f"[`cronally {name} {one}`]({_file(f'{name} {one}')})", plain(COMMANDS[f"{name} {one}"][1]))
            for one in names_in(name)
        )
        lines += ["## Commands", *table(["", ""], rows)]
    if arguments:
        rows = ((code(one.metavar), plain(meaning(one, ctx))) for one in arguments)
        lines += ["## Arguments", *table(["", ""], rows)]
    lines += ["## Options", *_options(asked, ctx), "## Examples", *block(examples(name), "sh")]
    return "\n".join(lines)


def _options(asked: Any, ctx: Any) -> list[str]:
    found = [one for one in asked.get_params(ctx) if one.param_type_name == "option"]
    return table(["", ""], ((_term(one), plain(meaning(one, ctx))) for one in found))


def _term(option: Any) -> str:
    words = ", ".join(map(code, [*sorted(option.opts, key=len), *option.secondary_opts]))
    return words if option.is_flag else f"{words} {code(option.metavar)}"


def _usage(name: str, params: list[Any]) -> str:
    words = [f"cronally {name} [OPTION]..."]
    words += [
        f"{max(one.opts, key=len)} {one.metavar}"
        for one in params
        if one.required and one.param_type_name == "option"
    ]
    for one in params:
        if one.param_type_name == "argument":
            text = one.metavar if one.required else f"[{one.metavar}]"
            words.append(text if one.nargs == 1 else f"{text}...")
    return " ".join([*words, *(["COMMAND", "[ARGUMENT]..."] if names_in(name) else [])])


def _prose(text: str) -> list[str]:
    r"""Return paragraphs; one that begins with a line ``\b`` keeps its lines, as it does in help."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        kept = paragraph.partition("\b\n")[2]
        lines += block(dedent(kept)) if kept else ["", _with_links(paragraph), ""]
    return lines


def _with_links(text: str) -> str:
    """Return a paragraph in which each 'cronally ...' leads to the page of that command."""

    def link(quoted: str) -> str:
        words = quoted.removeprefix("cronally ").split()
        name = next((known for known in (" ".join(words[:2]), *words[:1]) if known in COMMANDS), None)
        return code(quoted) if name is None else f"[{code(quoted)}]({_file(name)})"

    return re.sub(r"'(cronally [^']+)'", lambda match: link(match[1]), plain(text))


def _file(name: str) -> str:
    return place(name).rpartition("/")[2]
