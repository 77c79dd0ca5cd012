"""How ``cronally serve`` starts, refuses to start, and stops."""

from __future__ import annotations

import signal
import subprocess

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
