"""``cronally install``, and the files that it writes."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cronally.cli import installing
from cronally.cli.installing import SETTINGS, SYSUSERS, UNIT
from cronally.cli.main import main
from cronally.config import DEFAULT_DRAIN, load_config
from cronally.domain.durations import parse_duration

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "src/cronally/systemd"
ANALYZE = shutil.which("systemd-analyze")
SYSUSERS_TOOL = shutil.which("systemd-sysusers")


@pytest.fixture
def install(tmp_path, capsys):
    """Run ``cronally install --systemd`` below an empty directory; return code, stdout and stderr."""

    def run(*arguments, prefix=True):
        where = ["--prefix", str(tmp_path)] if prefix else []
        code = main(["install", "--systemd", *where, *arguments])
        return code, *capsys.readouterr()

    run.root = tmp_path
    return run


def unit_of(text):
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str
    parser.read_string(text)
    return parser


def test_deploy_has_what_is_installed():
    names = {path.name for path in KEPT.iterdir()}
    assert {(ROOT / "deploy" / name).read_text() for name in names} == {
        (KEPT / name).read_text() for name in names
    }
    assert {"cronally.service", "cronally.sysusers", "cronally.toml"} <= names


def test_it_writes_the_unit_with_the_command_that_runs_and_says_what_to_type(install):
    code, said, _ = install()
    assert code == 0
    start = unit_of((install.root / UNIT).read_text())["Service"]["ExecStart"]
    command = start.partition(" serve ")[0]
    assert start == f"{command} serve --config /etc/cronally/cronally.toml"
    assert command == str(Path(sys.executable).with_name("cronally"))
    assert (install.root / SYSUSERS).read_text() == (KEPT / "cronally.sysusers").read_text()
    assert {path.stat().st_mode & 0o777 for path in install.root.rglob("*") if path.is_file()} == {0o644}
    steps = ["systemd-sysusers /etc/sysusers.d/cronally.conf", "systemctl daemon-reload"]
    for step in [*steps, "systemctl enable --now cronally", "usermod -aG cronally "]:
        assert f"  {step}" in said
    assert not list(install.root.rglob("*.part"))


def test_a_second_time_it_changes_nothing(install):
    install()
    code, said, _ = install()
    assert (code, said.count("unchanged"), "now type" in said) == (0, 3, False)


def test_a_file_that_differs_is_shown_and_replaced_only_if_somebody_agrees(install, monkeypatch):
    install()
    unit = install.root / UNIT
    ours, theirs = unit.read_text(), unit.read_text().replace("MemoryMax=1G", "MemoryMax=2G")
    unit.write_text(theirs)
    code, _, warned = install()
    assert (code, "off a terminal give --yes" in warned, unit.read_text()) == (2, True, theirs)
    monkeypatch.setattr(installing, "check_terminal", lambda *_, **__: None)
    monkeypatch.setattr(installing, "agreed", lambda _: False)
    code, _, warned = install()
    assert (code, unit.read_text()) == (1, theirs)
    assert "-MemoryMax=2G\n+MemoryMax=1G" in warned
    code, said, _ = install("--yes")
    assert (code, unit.read_text()) == (0, ours)
    assert "systemctl restart cronally" in said


def test_settings_that_are_there_are_the_operators(install):
    (install.root / SETTINGS).parent.mkdir(parents=True)
    (install.root / SETTINGS).write_text("mine\n")
    assert install("--yes")[0] == 0
    assert (install.root / SETTINGS).read_text() == "mine\n"


def test_a_dry_run_writes_nothing_and_shows_all(install):
    code, said, _ = install("--dry-run")
    assert code == 0
    assert "Type=notify" in said
    assert f"# {install.root / UNIT}: would be created" in said
    assert not list(install.root.iterdir())


def test_json_has_the_files_and_the_steps(install):
    told = json.loads(install("--json")[1])
    assert [one["state"] for one in told["files"]] == ["created"] * 3
    assert told["next"][1] == "systemctl daemon-reload"
    assert json.loads(install("--json", "--dry-run")[1]) == {
        "files": [one | {"state": "unchanged"} for one in told["files"]],
        "next": [],
    }


def test_without_root_it_refuses_in_a_sentence(install, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    code, said, warned = install(prefix=False)
    assert (code, said) == (1, "")
    assert "only root may write below /etc; run it with sudo" in warned


def test_what_it_is_for_has_to_be_said(capsys):
    assert main(["install"]) == 2
    assert "cronally install --systemd" in capsys.readouterr().err


def test_a_link_is_left_alone(install):
    (install.root / UNIT).parent.mkdir(parents=True)
    (install.root / UNIT).symlink_to("/dev/null")
    code, _, warned = install("--yes")
    assert (code, "is a link to /dev/null" in warned) == (1, True)


@pytest.mark.parametrize(
    ("executable", "start"),
    [
        ("/opt/cronally/bin/python", "/opt/cronally/bin/python -m cronally"),
        ("/opt/my tools/100%/python", '"/opt/my tools/100%%/python" -m cronally'),
    ],
)
def test_a_command_in_a_strange_place_is_written_so_that_systemd_reads_it(
    install, monkeypatch, executable, start
):
    monkeypatch.setattr(sys, "executable", executable)
    install()
    assert f"ExecStart={start} serve " in (install.root / UNIT).read_text()


def test_a_single_file_is_its_own_command_and_one_in_a_home_is_warned_about(install, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/home/ann/cronally")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    _, _, warned = install()
    assert "ExecStart=/home/ann/cronally serve " in (install.root / UNIT).read_text()
    assert "lies where the service may not look" in warned


# --- the files --------------------------------------------------------------------------------------------------------


def test_the_settings_are_the_defaults_but_for_the_places_and_all_that_are_shown_can_be_uncommented(tmp_path):
    text = (KEPT / "cronally.toml").read_text()
    environ = {"HOME": "/x", "CRONALLY_SOCKET": "/x.sock"}
    defaults = load_config(environ, {})
    given = tomllib.loads(text)
    assert given == {
        "store": "sqlite:/var/lib/cronally/cronally.db",
        "socket": "/run/cronally/cronally.sock",
    }
    (tmp_path / "all.toml").write_text(re.sub(r"^#(?! )", "", text, flags=re.MULTILINE))
    shown = load_config({"HOME": "/x"}, {}, config_file=str(tmp_path / "all.toml"))
    assert shown.sns_topics == ("arn:aws:sns:us-east-1:123456789012:reports*",)
    assert (shown.journal, shown.drain_timeout_s) == (defaults.journal, defaults.drain_timeout_s)


def test_the_places_of_unit_and_settings_agree():
    service = unit_of((KEPT / "cronally.service").read_text())["Service"]
    settings = tomllib.loads((KEPT / "cronally.toml").read_text())
    assert settings["socket"] == f"/run/{service['RuntimeDirectory']}/cronally.sock"
    assert settings["store"] == f"sqlite:/var/lib/{service['StateDirectory']}/cronally.db"
    assert f"g {service['Group']} " in (KEPT / "cronally.sysusers").read_text()
    assert service["RuntimeDirectoryMode"] == "0750"


def test_the_unit_gives_a_stop_the_time_it_takes_and_lets_changes_be_attributed():
    service = unit_of((KEPT / "cronally.service").read_text())["Service"]
    assert int(service["TimeoutStopSec"]) > 2 * parse_duration(DEFAULT_DRAIN) / 1000
    assert service["KillMode"] == "mixed"  # a second SIGTERM would mean: do not wait
    assert service["PrivateUsers"] == "no"  # or SO_PEERCRED calls everybody nobody
    assert service["User"] != service["Group"]  # systemd refuses to make up a user whose name a group has


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_the_exposure_is_at_most_one_and_a_half():
    asked = [ANALYZE, "security", "--offline=true", "--no-pager", str(KEPT / "cronally.service")]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    [level] = re.findall(r"Overall exposure level for cronally.service: (\d+\.\d)", done.stdout)
    assert float(level) <= 1.5, done.stdout


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_understands_every_line(install):
    install()
    unit = install.root / UNIT
    unit.write_text(
        re.sub(r"^Documentation=.*\n", "", unit.read_text(), flags=re.MULTILINE)
    )  # man pages may not be there
    done = subprocess.run([ANALYZE, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.skipif(SYSUSERS_TOOL is None, reason="systemd-sysusers is not installed")
def test_the_group_is_made(install):
    install()
    asked = [SYSUSERS_TOOL, "--root", str(install.root), str(install.root / SYSUSERS)]
    subprocess.run(asked, capture_output=True, check=True)
    assert re.search(r"^cronally:x:\d+:$", (install.root / "etc/group").read_text(), re.MULTILINE)


# --- config show ------------------------------------------------------------------------------------------------------


def test_each_setting_is_shown_with_where_it_came_from(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CRONALLY_JOURNAL_KEEP", "90d")
    (tmp_path / "x.toml").write_text("[sns.quota]\nus-east-1 = 5\n")
    asked = ["config", "show", "--config", str(tmp_path / "x.toml"), "--socket", "/run/x.sock"]
    assert main(asked) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert rows["journal.keep"] == ["CRONALLY_JOURNAL_KEEP", "90d"]
    assert rows["sns.quota"] == [str(tmp_path / "x.toml"), "us-east-1=5"]
    assert rows["socket"] == ["--socket", "/run/x.sock"]
    assert rows["drain_timeout"] == ["default", "10s"]
    assert main([*asked, "--json"]) == 0
    told = {one.pop("key"): one for one in json.loads(capsys.readouterr().out)["settings"]}
    assert told["sns.quota"] == {
        "value": {"us-east-1": 5.0},
        "from": "file",
        "source": str(tmp_path / "x.toml"),
    }
    assert told["sns.topics"] == {"value": None, "from": "default", "source": "default"}


def test_a_setting_that_is_refused_for_serve_is_refused_there(tmp_path, capsys):
    (tmp_path / "x.toml").write_text("[sns]\nquote = 5\n")
    assert main(["config", "show", "--config", str(tmp_path / "x.toml")]) == 2
    assert "did you mean 'sns.quota'?" in capsys.readouterr().err
