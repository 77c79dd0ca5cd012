"""The man pages say what the help says, and roff prints what they say."""

import re
import subprocess
import sys

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from cronally import config, errors
from cronally.cli import manual
from cronally.cli.main import COMMANDS, EXIT_CODES, command, everything, examples

PAGES = manual.pages()
REQUESTS = {".TH", ".SH", ".PP", ".TP", ".RS", ".RE", ".PD", ".nf", ".fi", ".nh", ".ad"}
GLYPHS = {
    r"\e": "\\",
    r"\-": "-",
    r"\(aq": "'",
    r"\(dq": '"',
    r"\(ga": "`",
    r"\(ha": "^",
    r"\(ti": "~",
    r"\&": "",
}


def printed(line):
    """Return what roff prints for a line of text; an escape that is none of ours fails."""

    def character(match):
        escape, code = match.group(), match.group(1)
        return chr(int(code, 16)) if code else "" if escape[:2] == r"\f" else GLYPHS[escape]

    assert line.isascii()
    assert line[:1] not in {".", "'"}
    return re.sub(r"\\(?:\[u([0-9A-F]{4,6})\]|f[BIR]|\(..|.)", character, line)


def text_of(page):
    """Return the lines that are printed, of which none is broken or filled here."""
    lines = page.splitlines()
    assert {line.split()[0] for line in lines if line.startswith(".")} <= REQUESTS
    return [printed(line) for line in lines if not line.startswith(".")]


def section(page, name):
    return page.partition(f"\n.SH {name}\n")[2].partition("\n.SH ")[0]


def page_of(name):
    return PAGES[f"{'-'.join(['cronally', *name.split()])}.1"]


def params_of(name):
    asked = command(name) if name else everything()
    ctx = typer.Context(asked, info_name="x", **asked.context_settings)
    return [(param, param.get_help_record(ctx)[1]) for param in asked.get_params(ctx)]


def test_every_command_has_a_page_and_is_on_the_first():
    assert set(PAGES) == {"cronally.1", *(f"cronally-{name.replace(' ', '-')}.1" for name in COMMANDS)}
    listed = text_of(section(page_of(""), "COMMANDS"))
    assert set(COMMANDS) <= set(listed)
    assert {short for _, short in COMMANDS.values()} <= set(listed)
    assert "topics subscribe" in text_of(section(page_of("topics"), "COMMANDS"))


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_a_page_has_every_option_and_argument_with_what_the_help_says(name):
    text = text_of(page_of(name))
    for param, meaning in params_of(name):
        is_argument = param.param_type_name == "argument"
        term = param.metavar if is_argument else manual._term(param)
        at = text.index(term if is_argument else printed(term))
        assert (
            text[at + 1]
            == " ".join(meaning.split()).removesuffix("[required]" if is_argument else "").rstrip()
        )
        assert all(word in text[at] for word in [*param.opts, *param.secondary_opts] if word.startswith("-"))


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_has_the_examples_as_they_are(name):
    kept = section(page_of(name), "EXAMPLES").partition(".nf\n")[2].partition("\n.fi")[0]
    assert [printed(line) for line in kept.splitlines()] == examples(name).splitlines()


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_may_be_repeated_says_so(name):
    for param, meaning in params_of(name):
        if getattr(param, "multiple", False):
            assert re.search("repeated|up to .* times", meaning)


@pytest.mark.parametrize(
    ("name", "usage"),
    [
        ("", "cronally [OPTION]... COMMAND [ARGUMENT]..."),
        ("add", "cronally add [OPTION]... NAME WHEN"),
        ("rm", "cronally rm [OPTION]... [NAME]..."),
        ("history", "cronally history [OPTION]... [NAME]"),
        ("apply", "cronally apply [OPTION]... --file FILE|-"),
        ("topics", "cronally topics [OPTION]... COMMAND [ARGUMENT]..."),
        ("import cron.yaml", "cronally import cron.yaml [OPTION]... [FILE|-]..."),
    ],
)
def test_the_synopsis_is_how_a_command_is_called(name, usage):
    assert text_of(section(page_of(name), "SYNOPSIS")) == [usage]


def test_the_first_page_has_the_exit_codes_the_settings_and_the_files():
    first = page_of("")
    assert [*zip(*[iter(text_of(section(first, "EXIT STATUS")))] * 2, strict=True)] == [
        (str(code), meaning) for code, meaning in EXIT_CODES.items()
    ]
    variables = text_of(section(first, "ENVIRONMENT"))
    assert {f"CRONALLY_{key.upper()}" for key in config._READERS} <= set(variables)
    files = text_of(section(first, "FILES"))
    assert "/run/cronally/cronally.sock" in files
    assert "~/.local/state/cronally/cronally.db" in files
    assert "journal.max_size" in " ".join(files)


def test_every_error_has_an_exit_code_that_is_told():
    def below(kind):
        return [kind, *(one for sub in kind.__subclasses__() for one in below(sub))]

    assert {kind.exit_code for kind in below(errors.CronallyError)} <= set(EXIT_CODES)
    assert "3 no daemon" in " ".join(text_of(section(page_of("add"), "EXIT STATUS")))


def test_a_page_names_those_that_its_text_speaks_of():
    assert text_of(section(page_of("add"), "SEE ALSO")) == ["cronally(1), cronally-set(1)"]
    assert text_of(section(page_of("topics ls"), "SEE ALSO")) == ["cronally(1), cronally-topics(1)"]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="…")))
def test_any_text_is_printed_as_it_is(text):
    assert printed(manual._roff(text)) == text
    assert printed(manual._bold(text)) == text


def test_a_paragraph_can_keep_its_lines():
    prose = manual._prose("One\ntwo.\n\n\b\n  .kept\n    'as it is'\n\n'Three'")
    assert prose[:2] == ["One two.", ".RS 4"]
    assert [printed(line) for line in prose if not line.startswith(".")] == [
        "One two.",
        ".kept",
        "  'as it is'",
        "'Three'",
    ]


def test_pages_are_written_where_they_are_wanted(tmp_path):
    manual.write(tmp_path / "man1")
    assert {path.name: path.read_text() for path in (tmp_path / "man1").iterdir()} == PAGES


def test_a_build_of_the_package_needs_no_more_than_typer_for_them():
    program = (
        "import sys; from cronally.cli.manual import pages; pages(); "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    others = {
        "aiobotocore",
        "aiohttp",
        "aiosqlite",
        "botocore",
        "croniter",
        "httptools",
        "tzdata",
        "uvloop",
        "yaml",
    }
    assert others.isdisjoint(loaded)
