"""A name for a command line: of the program that does the work, as well as a glance can tell."""

from __future__ import annotations

import re
from typing import Final

# What stands before the program, or around it.
_AROUND: Final = frozenset(
    [
        "[",
        "[[",
        "]",
        "]]",
        "test",
        "if",
        "then",
        "else",
        "fi",
        "cd",
        "&&",
        "||",
        ";",
        "{",
        "}",
        "(",
        ")",
        "!",
        "true",
        "false",
        ":",
        "exec",
        "command",
        "sudo",
        "doas",
        "su",
        "env",
        "nice",
        "ionice",
        "chronic",
        "flock",
        "timeout",
        "time",
        "nohup",
        "setsid",
        "start-stop-daemon",
        "sh",
        "bash",
        "dash",
        "zsh",
        "ksh",
        "python",
        "python2",
        "python3",
        "ruby",
        "perl",
        "php",
        "node",
        "java",
        "npm",
        "npx",
        "yarn",
        "bundle",
        "rake",
        "poetry",
        "uv",
        "run",
        "uvx",
        "pipenv",
        "docker",
        "exec",
        "run-one",
        "bin/rake",
        "bin/rails",
        "rails",
        "manage.py",
        "artisan",
        "run-parts",
        "source",
        ".",
        "echo",
        "umask",
        "export",
        "set",
        "sleep",
        "/dev/null",
    ]
)
_PARTS: Final = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s;&|"'])+|&&|\|\||[;&|]""")
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=", re.ASCII)
_ENDINGS: Final = (".sh", ".bash", ".py", ".php", ".pl", ".rb", ".js", ".jar")
_ENDS: Final = frozenset(("&&", "||", ";", "&", "|"))


def name_of_command(command: str) -> str:
    """Return what to call a schedule that ran *command*: ``backup`` for ``cd / && /usr/local/bin/backup.sh -q``."""
    words = _PARTS.findall(command)
    skipped_to_end = False
    for number, word in enumerate(words):
        if word in _ENDS:
            skipped_to_end = False
            continue
        if skipped_to_end or _is_around(word):
            # The condition of a test and the directory of a cd are no programs.
            skipped_to_end = skipped_to_end or word in {"[", "[[", "test", "cd"}
            continue
        if words[number - 1 : number] in (["su"], ["-u"], ["--user"]):
            continue
        name = _base(word)
        if name:
            return name
    return next((name for word in words if word[:1] != "-" and (name := _base(word))), "command")


def _is_around(word: str) -> bool:
    return (
        word in _AROUND
        or word.rpartition("/")[2] in _AROUND
        or word.startswith(("-", ">", "<", "2>", "$(", "`", "'", '"'))
        or word.endswith((".lock", ".pid"))
        or bool(_ASSIGNMENT.match(word))
        or word.isdigit()
    )


def _base(word: str) -> str:
    name = word.strip("\"'(){}").rstrip("/").rpartition("/")[2]
    for ending in _ENDINGS:
        if name.endswith(ending) and name != ending:
            return name.removesuffix(ending)
    return name if re.search(r"[A-Za-z0-9]", name, re.ASCII) else ""
