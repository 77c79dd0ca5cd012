"""How ``cronally serve`` starts, refuses to start, and stops."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from support.processes import COMMAND


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (["--socket", f"/tmp/{'x' * 110}.sock"], 2, "a Unix socket takes at most 107"),
        (["--store", "sqlite:/proc/cronally/x.db"], 1, "/proc/cronally/x.db"),
        (["--socket", "/proc/cronally/x.sock"], 1, "/proc/cronally"),
        (["--store", "mysql:x"], 2, "write it as sqlite:PATH"),
        (["--config", "missing.toml"], 2, "missing.toml"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(installation, arguments, exit_code, words):
    done = installation.run("serve", *arguments)
    assert (done.returncode, done.stdout) == (exit_code, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("cronally: ")
    assert words in last
    assert "Traceback" not in done.stderr


def test_it_listens_on_its_unix_socket_and_on_no_port(installation):
    installation.start()
    process = Path(f"/proc/{installation.daemon.pid}")
    own = {str(descriptor.readlink()) for descriptor in (process / "fd").iterdir()}
    # proc(5), /proc/net/tcp: the address is the second word, the state (0A: listening) the fourth, the inode the tenth.
    for family in ("tcp", "tcp6"):
        table = [line.split() for line in (process / "net" / family).read_text().splitlines()[1:]]
        assert not [row[1] for row in table if row[3] == "0A" and f"socket:[{row[9]}]" in own]
    paths = [line.split()[7:] for line in (process / "net/unix").read_text().splitlines()[1:]]
    assert [str(installation.socket)] in paths
    assert installation.stop() == 0


def test_metrics_are_served_on_the_port_that_is_named_and_a_port_in_use_is_refused(installation):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        settings = installation.home / "cronally.toml"
        settings.write_text(f'[metrics]\nlisten = "{listen}"\n')
        done = installation.run("serve", "--config", str(settings))
        assert (done.returncode, done.stdout) == (1, "")
        assert (
            f"cronally: metrics.listen: nobody can listen on {listen} (Addr" in done.stderr.splitlines()[-1]
        )
    installation.start("--config", str(settings))
    with urllib.request.urlopen(f"http://{listen}/metrics", timeout=20) as reply:
        text = reply.read().decode()
    assert "cronally_ready 1.0" in text
    assert "cronally_watermark_lag_seconds" in text
    assert installation.stop() == 0


def test_a_daemon_whose_streams_are_closed_serves_and_stops_in_order(installation):
    store = f"sqlite:{installation.home / 'a.db'}"
    daemon = subprocess.Popen(
        ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", COMMAND, "serve", "--store", store],
        env=installation.environment,
    )
    try:
        while installation.run("ls").returncode != 0:
            assert daemon.poll() is None
        opened = [(Path(f"/proc/{daemon.pid}/fd") / number).readlink() for number in "012"]
        assert opened == [Path(os.devnull)] * 3
    finally:
        daemon.terminate()
        assert daemon.wait(30) == 0


def test_a_second_daemon_on_the_same_store_names_the_first(installation):
    installation.start()
    second = installation.run(
        "serve", "--local", "--local-port", str(installation.port), "--socket", "/tmp/other.sock"
    )
    assert second.returncode == 1
    assert f"pid {installation.daemon.pid}" in second.stderr
    assert installation.run("ls").returncode == 0
    assert installation.stop() == 0


def test_without_a_daemon_a_command_says_how_to_start_one(installation):
    done = installation.run("ls")
    assert (done.returncode, done.stdout) == (3, "")
    assert "cronally serve" in done.stderr


def test_what_is_in_flight_is_finished_before_a_stop(installation):
    installation.start()
    assert (
        installation.run(
            "add", "tick", "@every 1s", "--topic", "arn:aws:sns:us-east-1:123456789012:t"
        ).returncode
        == 0
    )
    assert installation.run("run", "tick").returncode == 0
    assert installation.stop() == 0
    assert not installation.socket.exists()
    installation.start()
    states = {fire["state"] for fire in installation.json("history")["fires"]}
    assert states <= {"published"}
    assert not [fire for fire in installation.json("history")["fires"] if fire["maybe_published"]]


def test_signals_during_a_stop_do_not_spoil_it(installation):
    installation.start()
    daemon = installation.daemon
    while daemon.poll() is None:  # in every moment of the stop, its last one too
        daemon.send_signal(signal.SIGTERM)
    assert installation.wait() == 0
    said = len(installation.log)
    installation.start()
    assert "ready" in installation.log[said]  # not a word of recovery


@pytest.mark.long
def test_the_demo_shows_what_arrived_and_leaves_nothing_behind(installation):
    done = subprocess.run(
        [COMMAND, "demo", "--for", "5"],
        env=installation.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert " = arrived " in done.stdout.splitlines()[-1]
    assert ", 0 early" in done.stdout.splitlines()[-1]
    assert not list(installation.home.iterdir())


def test_ctrl_c_ends_the_demo_with_its_summary(installation):
    demo = subprocess.Popen(
        [COMMAND, "demo", "--for", "60"], env=installation.environment, stdout=subprocess.PIPE, text=True
    )
    said = []
    for line in demo.stdout:
        said.append(line)
        if "due" in line:  # something has arrived
            break
    demo.send_signal(signal.SIGINT)
    said += demo.stdout.readlines()
    demo.stdout.close()
    assert demo.wait(30) == 0
    assert " = arrived " in said[-1]


ON_A_SHARE = """
import sys
from cronally.app import term
from cronally.cli.main import main

term.network_warning = lambda path: f"the store {path} lies on a network file system (nfs4)"
sys.exit(main(sys.argv[1:]))
"""


def test_a_store_on_a_network_file_system_is_warned_about_in_the_log_and_in_status(installation):
    installation.start(command=(sys.executable, "-c", ON_A_SHARE))
    [warning] = [line for line in installation.log if "network file system" in line]
    store = installation.home / ".local/state/cronally/cronally.db"
    assert f"the store {store} lies on a network file system (nfs4)" in warning
    assert installation.json("status")["store_warning"] in warning
    assert "WARNING: the store" in installation.run("status").stdout
    assert installation.stop() == 0
