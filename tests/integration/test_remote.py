"""--host: a daemon on another machine, through an ``ssh`` that carries to another socket of this one."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cronally.cli import main, tunnel
from cronally.cli.tunnel import Place
from cronally.errors import UsageError
from support import fake_ssh
from support.rig import TOPIC

# A command as a shell on a terminal starts it: what runs the tests may ignore signals, which is inherited.
HEARS_SIGNALS = (
    "import os, signal, sys; [signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)]; "
    "os.execv(sys.executable, [sys.executable, '-m', 'cronally', *sys.argv[1:]])"
)


class Ssh:
    """What the fake one was called with."""

    def __init__(self, log):
        self._log = log

    @property
    def lines(self):
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    @property
    def calls(self):
        return [fake_ssh.parsed(line) for line in self.lines if line != "ended"]


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    fake_ssh.install(tmp_path / "bin")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SSH_LOG", str(tmp_path / "ssh.log"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return Ssh(tmp_path / "ssh.log")


@pytest.fixture
def remote(cronally, ssh, monkeypatch):
    """A terminal of another machine than the daemon's, and where the daemon is."""
    monkeypatch.delenv("CRONALLY_SOCKET")
    cronally.url = f"ssh://anna@vm:2222{cronally.daemon.socket}"
    return cronally


def left(tmp_path):
    return [*(tmp_path / "tmp").iterdir()]


def test_a_command_reaches_a_daemon_through_ssh(remote, ssh, tmp_path):
    remote.ok("add", "a", "0 9 * * *", "--topic", TOPIC, "--host", remote.url)
    assert [one["name"] for one in remote.json("ls", "--host", remote.url)["schedules"]] == ["a"]
    assert [one["action"] for one in remote.json("audit", "--host", remote.url)["changes"]] == ["add"]
    options, words = ssh.calls[0]
    assert words == ["vm"]
    local, _, far = options.pop("-L")[0].partition(":")
    assert far == remote.daemon.socket
    assert Path(local).parent.parent == tmp_path / "tmp"
    assert options == {
        "-N": [""],
        "-T": [""],
        "-S": ["none"],
        "-o": ["ExitOnForwardFailure=no", "ClearAllForwardings=no"],
        "-p": ["2222"],
        "-l": ["anna"],
    }
    assert "--" in ssh.lines[0]
    assert ssh.lines.count("ended") == 3
    assert left(tmp_path) == []


def test_the_host_may_stand_before_the_command_and_in_the_environment(remote, ssh, monkeypatch, tmp_path):
    remote.ok("--host", remote.url, "ls")
    monkeypatch.setenv("CRONALLY_HOST", remote.url)
    remote.ok("status")
    assert remote("run", "nothing")[0] == 4  # an error of the daemon's is its own
    assert len(ssh.calls) == 3
    remote.ok("ls", "--socket", remote.daemon.socket)  # an option goes before a variable
    monkeypatch.setenv("CRONALLY_SOCKET", "/nowhere/x")
    remote.ok("ls", "--host", remote.url)
    assert len(ssh.calls) == 4
    assert "unset one of them" in remote.bad("ls")


def test_a_file_on_stdin_is_not_ssh_s_to_read(remote, ssh):
    document = json.dumps({"name": "a", "when": "@daily", "topic": TOPIC})
    done = subprocess.run(
        [sys.executable, "-m", "cronally", "apply", "-f", "-", "--host", remote.url],
        input=document,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "created 1" in done.stdout


def test_v_says_how_ssh_is_called(remote, ssh):
    _, _, err = remote("ls", "-v", "--host", remote.url)
    assert re.search(r"ssh -N -T .* -l anna -- vm\n", err)
    assert "ssh has made the way" in err


def test_its_directory_is_this_users_alone(remote, ssh, tmp_path, monkeypatch):
    seen = []
    popen = subprocess.Popen

    def watched(command, **settings):
        seen.append(stat.S_IMODE(next((tmp_path / "tmp").iterdir()).stat().st_mode))
        return popen(command, **settings)

    monkeypatch.setattr(tunnel.subprocess, "Popen", watched)
    remote.ok("ls", "--host", remote.url)
    assert seen == [0o700]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Warning: x\r\nanna@vm: Permission denied (publickey).\r\n",
            "anna@vm: Permission denied (publickey)",
        ),
        ("", "it does not say why"),
        ("\x1b[31mred\n", "\\x1b[31mred"),
    ],
)
def test_when_ssh_ends_its_last_words_are_told(remote, ssh, monkeypatch, tmp_path, said, told):
    monkeypatch.setenv("FAKE_SSH_SAYS", said)
    err = remote.bad("ls", "--host", remote.url, code=3)
    assert told in err
    assert "see that 'ssh -p 2222 anna@vm' works" in err
    assert err.count("\n") == 1
    assert left(tmp_path) == []


def test_a_host_without_a_daemon_is_told_apart_from_one_that_went_away(remote, ssh, tmp_path):
    err = remote.bad("ls", "--host", "ssh://vm/nowhere/cronally.sock", code=3)
    assert "its sshd does not get to /nowhere/cronally.sock" in err
    assert "open failed" in err
    assert str(tmp_path) not in err
    assert left(tmp_path) == []
    assert ssh.lines[-1] == "ended"


def test_without_an_ssh_it_is_said(remote, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    err = remote.bad("ls", "--host", remote.url, code=3)
    assert "ssh cannot be run (no such file or directory)" in err
    assert left(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_a_command_ends_ssh_and_leaves_nothing(remote, ssh, tmp_path, number):
    """'tail' goes on until it is stopped."""
    remote.daemon.add("a")
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS_SIGNALS, "tail", "-v", "--host", remote.url],
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        for line in process.stderr:
            if "GET /v1/events" in line:
                break
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    assert ssh.lines[-1] == "ended"
    assert left(tmp_path) == []


def test_a_directory_with_a_name_that_means_something_to_ssh_is_not_used(remote, ssh, tmp_path, monkeypatch):
    for name in ("a:b", "a%h", "${HOME}", "x" * 100):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / name))
        remote.ok("ls", "--host", remote.url)
        assert ssh.calls[-1][0]["-L"][0].startswith("/tmp/cronally-")
        assert [*(tmp_path / name).iterdir()] == []


# --- what is no host ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("ssh://vm", Place("vm", None, None, "/run/cronally/cronally.sock")),
        ("ssh://vm/", Place("vm", None, None, "/run/cronally/cronally.sock")),
        ("ssh://anna@10.0.0.1:22", Place("10.0.0.1", "anna", 22, "/run/cronally/cronally.sock")),
        ("ssh://[fe80::1]:2222/run/x.sock", Place("fe80::1", None, 2222, "/run/x.sock")),
        ("ssh://my_alias/run/cronally/cronally-ro.sock", Place("my_alias", None, None, "/run/cronally/cronally-ro.sock")),
    ],
)  # fmt: skip
def test_a_host_is_read(text, place):
    assert Place.read(text) == place
    assert Place.read(str(place)) == place


@pytest.mark.parametrize(
    "text",
    ["", "vm", "anna@vm", "http://vm", "ssh://", "ssh://-oProxyCommand=x", "ssh://-l@vm", "ssh://anna@-x", "ssh://a b",
     "ssh://vm\n", "ssh://vm\x00", "ssh://vm/a b", "ssh://vm/a:b", "ssh://vm/%h", "ssh://vm/${HOME}", "ssh://vm:0",
     "ssh://vm:65536", "ssh://vm:x", "ssh://a@b@vm", "ssh://anna:secret@vm", "ssh://vm;x", "ssh://vm/$(x)", "ssh://v\u0456m",
     "ssh://[x]", "ssh://vm//x", "ssh://vm/" + "x" * 107, "SSH://vm", " ssh://vm"],
)  # fmt: skip
def test_what_is_no_host_never_reaches_ssh(alone, ssh, monkeypatch, text):
    monkeypatch.delenv("CRONALLY_SOCKET")
    with pytest.raises(UsageError):
        Place.read(text)
    if text and "\x00" not in text:
        err = alone.bad("ls", "--host", text)
        assert err.count("\n") == 1
        assert ssh.lines == []


def test_two_daemons_are_one_too_many(alone, ssh):
    for words in (
        ["ls", "--host", "ssh://vm", "--socket", "/x"],
        ["--socket", "/x", "ls", "--host", "ssh://vm"],
    ):
        assert "give one of them" in alone.bad(*words)
    assert ssh.lines == []


def test_what_is_about_this_machine_takes_no_host(alone, ssh):
    for name in ("serve", "doctor", "restore", "demo", "completion"):
        assert "about this machine alone" in alone.bad("--host", "ssh://vm", name)
    assert ssh.lines == []


def test_every_command_with_a_socket_takes_a_host():
    with_socket = {
        name
        for name in main.COMMANDS
        if not main.names_in(name) and any("--socket" in param.opts for param in main.command(name).params)
    }
    with_host = {
        name
        for name in main.COMMANDS
        if not main.names_in(name) and any("--host" in param.opts for param in main.command(name).params)
    }
    assert with_socket - with_host == {"serve", "doctor"}
    assert with_host < with_socket
    assert len(with_host) >= 25


def test_a_backup_of_another_machine_goes_to_a_place_of_that_machine(remote, ssh):
    assert "from the root" in remote.bad("backup", "x.db", "--host", remote.url)
    assert "leave one out" in remote.bad("backup", "/x.db", "--store", "sqlite:/y", "--host", remote.url)
    assert ssh.lines == []


def test_a_shell_that_completes_a_name_opens_no_connection(remote, ssh, monkeypatch):
    from cronally.cli.completing import schedule_names

    remote.daemon.add("a")
    monkeypatch.setenv("CRONALLY_HOST", remote.url)
    assert schedule_names("a") == []
    assert ssh.lines == []


def test_a_command_without_a_host_imports_nothing_for_one(alone):
    script = (
        "import sys\nfrom cronally.cli.main import main\nmain(['ls'])\n"
        "print(sorted({'cronally.cli.tunnel', 'tempfile'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
