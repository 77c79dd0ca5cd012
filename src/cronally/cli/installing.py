"""install: the files that make the daemon a service of this machine."""

import difflib
import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from cronally.cli import options as o
from cronally.cli.output import FAILED, agreed, check_terminal, err, out, out_json, report, warn
from cronally.errors import CronallyError, UsageError

EXAMPLES: Final = {
    "install": """
        sudo cronally install --systemd
        cronally install --systemd --dry-run
        cronally install --systemd --prefix build/root
        """,
}

UNIT: Final = "etc/systemd/system/cronally.service"
SYSUSERS: Final = "etc/sysusers.d/cronally.conf"
SETTINGS: Final = "etc/cronally/cronally.toml"
_SOURCES: Final = {UNIT: "cronally.service", SYSUSERS: "cronally.sysusers", SETTINGS: "cronally.toml"}
_COMMAND: Final = "/usr/bin/cronally"  # in the file as it is kept
_UNSEEN: Final = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - by ProtectHome= and PrivateTmp=


class Planned(NamedTuple):
    """A file to write. old: what it says now, None if there is none. new: what it shall say."""

    path: Path
    old: str | None
    new: str

    @property
    def state(self) -> str:
        return "created" if self.old is None else "unchanged" if self.old == self.new else "changed"


def install_command(
    systemd: Annotated[bool, typer.Option("--systemd", help="Install a service of systemd's.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written, and write nothing.")
    ] = False,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--prefix", metavar="DIR", help="Write below DIR as if it were /; for packages and tests."
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Replace files that differ without being asked.")
    ] = False,
    json: o.Json = False,
) -> int:
    """Write the unit, its group and its settings, so that systemd runs this very command as a daemon; say what to type next.

    Run it as root. Run again, after an upgrade say, it changes nothing that is as it should be; where a file differs it shows how and
    asks. Settings that are there already are never touched.
    """
    if not systemd:
        raise UsageError("say for what: cronally install --systemd")
    if prefix is None and not dry_run and os.geteuid() != 0:
        raise CronallyError(
            "only root may write below /etc; run it with sudo, or see what it would do with --dry-run"
        )
    command = own_command()
    planned = plan(Path(prefix or "/"), command)
    differing = [one for one in planned if one.state == "changed"]
    if dry_run:
        _show(planned, command, as_json=json)
        return 0
    if differing and not yes:
        check_terminal(f"{' and '.join(str(one.path) for one in differing)} would be replaced", yes=yes)
        for one in differing:
            err(_difference(one))
        if not agreed(f"replace {'it' if len(differing) == 1 else 'them'}?"):
            err("cronally: nothing was written")
            return FAILED
    for one in planned:
        if one.state != "unchanged":
            _write(one.path, one.new)
    _tell(planned, command, as_json=json)
    return 0


def own_command() -> list[str]:
    """Return the words that run this very cronally."""
    executable = Path(sys.executable)
    if getattr(sys, "frozen", False):
        return [str(executable)]
    script = executable.with_name("cronally")
    return [str(script)] if script.exists() else [str(executable), "-m", "cronally"]


def plan(root: Path, command: list[str]) -> list[Planned]:
    """Return the files, with *command* in the unit. Errors: CronallyError for one that cannot be replaced."""
    planned = []
    for place, name in _SOURCES.items():
        path, new = root / place, (files("cronally") / "systemd" / name).read_text("utf-8")
        if place == UNIT:
            new = new.replace(f"ExecStart={_COMMAND} ", f"ExecStart={' '.join(map(_quoted, command))} ")
        old = _read(path)
        planned.append(Planned(path, old, old if old is not None and place == SETTINGS else new))
    return planned


def _read(path: Path) -> str | None:
    if path.is_symlink():
        raise CronallyError(
            f"{path} is a link to {path.readlink()}; remove it first, if you want a file there"
        )
    try:
        return path.read_text("utf-8", "replace")
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CronallyError(f"{path} cannot be read ({exc.strerror}); run it with sudo") from exc


def _quoted(word: str) -> str:
    """Return *word* as systemd reads it back (systemd.service(5), Command lines)."""
    if not word.isprintable() or "$" in word:
        raise CronallyError(f"{word!r} cannot stand in a unit; install cronally in another place")
    escaped = word.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if any(char in escaped for char in " \"'\\;") else escaped


def _write(path: Path, text: str) -> None:
    """Write all of a file or nothing."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, "utf-8")
        part.chmod(0o644)
        part.replace(path)
    except OSError as exc:
        raise CronallyError(f"{path} cannot be written ({exc.strerror})") from exc


def _difference(one: Planned) -> str:
    lines = difflib.unified_diff(
        (one.old or "").splitlines(), one.new.splitlines(), str(one.path), f"{one.path} (new)", lineterm=""
    )
    return "\n".join(lines)


def _show(planned: list[Planned], command: list[str], *, as_json: bool) -> None:
    if as_json:
        _tell(planned, command, as_json=True)
        return
    for one in planned:
        out(f"# {one.path}: would be {one.state}" if one.state != "unchanged" else f"# {one.path}: unchanged")
        if one.state != "unchanged":
            out(one.new if one.old is None else _difference(one))
    _warn(command)


def _tell(planned: list[Planned], command: list[str], *, as_json: bool) -> None:
    steps = _next_steps(planned)
    if as_json:
        out_json({"files": [{"path": str(one.path), "state": one.state} for one in planned], "next": steps})
    else:
        for one in planned:
            report(f"{one.state:<9} {one.path}")
        if steps:
            report("\nnow type, as root:")
        for step in steps:
            report(f"  {step}")
    _warn(command)


def _next_steps(planned: list[Planned]) -> list[str]:
    states = {one.path.name: one.state for one in planned}
    if states["cronally.service"] == "unchanged" and states["cronally.conf"] == "unchanged":
        return []
    is_upgrade = states["cronally.service"] == "changed"
    user = os.environ.get("SUDO_USER") or "USER"
    return [
        f"systemd-sysusers /{SYSUSERS}",
        "systemctl daemon-reload",
        "systemctl restart cronally" if is_upgrade else "systemctl enable --now cronally",
        f"usermod -aG cronally {user}  # for each person who may use it; from their next login on",
    ]


def _warn(command: list[str]) -> None:
    if command[0].startswith(_UNSEEN):
        sentence = (
            f"{command[0]} lies where the service may not look (ProtectHome=, PrivateTmp=); install cronally in another "
            "place, such as a virtual environment in /opt/cronally, and run this from there"
        )
        warn([sentence])
