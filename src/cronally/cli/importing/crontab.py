"""Crontabs of Debian's cron and of cronie: a user's, and those with a user in each line.

Sources: crontab(5) and cron(8) of both; docs/semantics.md, *Beside other schedulers*.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from cronally.cli.importing.found import Findings, Found, shortened
from cronally.cli.importing.old_rules import OldCrontab, OldRule
from cronally.cli.importing.programs import name_of_command
from cronally.domain.spec import MAX_NOTE_CHARS
from cronally.domain.when import NICKNAMES

SYSTEM: Final = "cron"
GENERAL: Final = (
    (
        "cron ran the command; Cronally publishes it as the message, once, and whoever receives it runs it. The exit status, the "
        "output and the mail with it are the receiver's, and so are its user, directory and environment"
    ),
    (
        "cron forgets what it missed while it was down; Cronally fires the newest missed slot, up to 24 h late (catch_up: skip is "
        "cron's way)"
    ),
    "several fixed times lost in one change of the clock run once each under cron and are one fire here",
)

_VARIABLE: Final = re.compile(
    r"""[ \t]*(?:"([^"]+)"|'([^']+)'|([A-Za-z_]\w*))[ \t]*=[ \t]*(.*?)[ \t]*""", re.ASCII
)
_LINE: Final = re.compile(r"(-?)(@\w+|(?:[^ \t]+[ \t]+){4}[^ \t]+)(?:[ \t]+(.*))?", re.ASCII)
_NTH: Final = re.compile(r"([0-9a-z]+)#[0-9]+", re.ASCII | re.IGNORECASE)
# What Debian and cronie read in the five fields; anything else makes them refuse the line.
_CRON_FIELDS: Final = re.compile(r"[0-9A-Za-z*,/#~ \t-]+", re.ASCII)
_EXTENSION: Final = re.compile(
    r"(?:^|[ \t,])(?:l(?:-\d+)?|lw|\d+[lw]|[a-z]{3}l|h(?:[(/].*)?)(?=$|[ \t,])", re.ASCII | re.IGNORECASE
)
# A comment that is a line switched off, or a drawing of the fields: not about what follows.
_NOT_ABOUT: Final = re.compile(
    r"[|.+*-]|m[ \t]+h[ \t]|(?:[0-9*][^ \t]*[ \t]+){4}|@[a-z]+[ \t]|[A-Z_]+=", re.ASCII
)
_USER: Final = "crontab.user"
_STDIN: Final = "crontab.stdin"


class _Line(NamedTuple):
    """A line that runs something. rule: five fields or a nickname. command: after the user, as it is written."""

    number: int
    rule: str
    user: str | None
    command: str
    is_quiet: bool


def translate(text: str, *, has_users: bool, tz: str | None) -> Findings:
    """Return what a crontab holds.

    Args: text: the file. has_users: there is a user before each command, as in /etc/crontab. tz: of the machine it ran on.
    """
    findings = Findings()
    variables: list[str] = []
    zone, comment = tz, _Comment()
    if "\r\n" in text:
        findings.remark(
            1, "its lines end in CR LF; cron would take the CR as part of the command, here it is left out"
        )
    elif not text.endswith("\n"):
        findings.remark(
            text.count("\n") + 1, "the last line does not end in a line break, so cron ignores it"
        )
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t\r")
        if not line:
            comment.clear()
        elif line.startswith("#"):
            comment.add(line)
        elif (variable := _VARIABLE.fullmatch(line)) is not None:
            comment.clear()
            name = variable[1] or variable[2] or variable[3]
            value = variable[4].strip("\"'") if variable[4][:1] in {'"', "'"} else variable[4]
            if name == "CRON_TZ":
                zone = value or tz
            _remark_variable(findings, number, name, value)
            variables.append(name)
        else:
            found = _read(findings, number, line, has_users)
            if found is not None:
                _add(findings, found, zone, comment.take(), is_from_file=zone != tz)
            comment.clear()
    _remark_whole(findings, tz, has_users)
    return findings


def _remark_variable(findings: Findings, line: int, name: str, value: str) -> None:
    shown = f"{name}={shortened(value)}"
    if name == "CRON_TZ":
        text = "the zone of the lines after it, as in cronie; Debian's cron ignores it and goes by the machine's zone"
    elif name == "TZ":
        text = (
            "the zone the commands saw, not the one cron goes by; the receiver's environment decides it now"
        )
    elif name in {"MAILTO", "MAILFROM"}:
        text = "cron mailed the output; nobody does now. SNS can mail the message (an e-mail subscription), not the output"
    elif name == "RANDOM_DELAY":
        text = "cronie delayed each run by a random time; '--spread' of 'cronally set' does so by an amount that stays the same"
    else:
        text = "not sent along; the environment of whoever receives the message decides it now"
    findings.remark(line, f"{shown}: {text}")


def _read(findings: Findings, number: int, line: str, has_users: bool) -> _Line | None:
    """Return the parts of a line, or None if it runs nothing; then it is refused."""
    match = _LINE.fullmatch(line)
    source = shortened(line, 100)
    if match is None:
        findings.refuse(
            number, source, "it is no variable, comment or rule; a line has five fields and a command"
        )
        return None
    quiet, rule, rest = match.groups()
    user, command = None, rest or ""
    if has_users:
        user, command = (*re.split(r"[ \t]+", command, maxsplit=1), "")[:2]
    if not command:
        what = "user and command" if has_users else "command"
        findings.refuse(number, source, f"a {what} must follow the rule; it has none, so cron refuses it too")
        return None
    return _Line(number, rule, user, command, bool(quiet))


def _add(findings: Findings, line: _Line, zone: str | None, note: str | None, *, is_from_file: bool) -> None:
    source = shortened(f"{line.rule} {f'{line.user} ' if line.user else ''}{line.command}", 100)
    reason = _refusal(line.rule)
    if reason is not None:
        findings.refuse(line.number, source, reason)
        return
    command, stdin = split_percent(line.command)
    if not command.strip():
        findings.refuse(
            line.number, source, "the command is empty before its %, and SNS refuses an empty message"
        )
        return
    document: dict[str, Any] = {"when": " ".join(line.rule.split()), "tz": zone or "UTC", "message": command}
    attributes: dict[str, str] = {}
    differs: list[str] = []
    remarks: list[str] = []
    if line.user is not None:
        attributes[_USER] = line.user
    if stdin is not None:
        differs.append(
            f"cron fed what follows the % to the command's standard input; it goes along as the attribute {_STDIN}"
        )
        if stdin:
            attributes[_STDIN] = stdin
    if line.command.count("%") and stdin is None:
        remarks.append(r"\% is cron's way to write %; the message has %")
    if line.is_quiet:
        remarks.append("the - before the rule kept the run out of the system's log; it has no meaning here")
    if _NTH.search(line.rule):
        differs.append(
            "Debian's cron ignores # and what follows it, so the rule ran every week; here it runs in that week of the month only"
        )
    if is_from_file:
        remarks.append(f"CRON_TZ gives the zone {zone}")
    if note is not None:
        document["note"] = note
    if attributes:
        document["attributes"] = attributes
    old, why_no_old = _old(line.rule, zone or "UTC")
    findings.add(
        Found(
            line=line.number,
            source=source,
            name=name_of_command(line.command),
            document=document,
            old=old,
            why_no_old=why_no_old,
            differs=tuple(differs),
            remarks=tuple(remarks),
        )
    )


def _refusal(rule: str) -> str | None:
    """Say why cron itself runs nothing at *rule*, or has no instant for it."""
    if rule == "@reboot":
        return (
            "@reboot is no time: it ran when a machine started, and Cronally runs on while machines restart; start it from the "
            "machine (a systemd unit, user data), or send its message with 'cronally run'"
        )
    if rule.startswith("@"):
        return None
    if "~" in rule:
        return (
            "~ is cronie's random value, drawn anew at each load of the file; write H, or H(0-30), which the name decides "
            "('cronally add')"
        )
    if not _CRON_FIELDS.fullmatch(rule) or _EXTENSION.search(rule):
        return f"cron itself refuses the rule {shortened(rule)!r}, so it never ran; make it with 'cronally add' if you want it to"
    return None


def _old(rule: str, tz: str) -> tuple[OldRule | None, str | None]:
    text = NICKNAMES.get(rule, rule)
    if text.startswith("@"):
        return None, "cron has no such nickname"
    minute, hour, *_ = text.split()
    is_wild = rule == "@hourly" or minute.startswith("*") or hour.startswith("*")
    old = OldCrontab(
        text=_NTH.sub(r"\1", " ".join(text.split())),
        tz=tz,
        clock="instants" if is_wild else "fixed",
        star_needs_both=True,
    )
    failure = old.check()
    return (old, None) if failure is None else (None, f"croniter cannot read it ({failure})")


def split_percent(command: str) -> tuple[str, str | None]:
    r"""Return the command and what cron feeds to its standard input, or None if it feeds nothing.

    crontab(5): the first ``%`` ends the command, each later one is a line break, ``\%`` is a ``%``.
    """
    parts = re.split(r"(?<!\\)%", command)
    plain = [part.replace(r"\%", "%") for part in parts]
    return plain[0], "\n".join(plain[1:]) if len(plain) > 1 else None


class _Comment:
    """The comment right above a line."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._lines: list[str] = []
        self._is_about_it = True

    def add(self, line: str) -> None:
        text = line.lstrip("#").strip()
        if _NOT_ABOUT.match(text):
            self._is_about_it = False
        elif text:
            self._lines.append(text)

    def take(self) -> str | None:
        """Return it as a note, or None if there is none or it draws the fields."""
        if not self._lines or not self._is_about_it:
            return None
        note = "\n".join(self._lines)
        return note if len(note) <= MAX_NOTE_CHARS else f"{note[: MAX_NOTE_CHARS - 1]}…"


def _remark_whole(findings: Findings, tz: str | None, has_users: bool) -> None:
    if has_users and findings.found:
        findings.remark(findings.found[0].line, f"the user of each line goes along as the attribute {_USER}")
    if tz is None and any(found.document["tz"] == "UTC" for found in findings.found):
        findings.remark(
            1,
            "a crontab does not say which zone its machine was in; UTC is taken. If it was another one: --tz ZONE "
            "(timedatectl shows it)",
        )
    firsts = {str(found.document["message"]).split()[0] for found in findings.found}
    if (
        not has_users
        and len(firsts) == 1
        and len(findings.found) > 1
        and re.fullmatch(r"[a-z][a-z0-9-]*", word := firsts.pop())
    ):
        findings.remark(
            findings.found[0].line,
            f"every command begins with {word!r}; if that is a user, as in /etc/crontab, add --system",
        )
