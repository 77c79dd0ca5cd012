"""The single executable: all that the package does, and what is its own. ``make test-binary`` builds it and runs this."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from inspect import cleandoc
from pathlib import Path

import pytest

from cronally import __version__
from cronally.cli.main import COMMANDS
from cronally.domain.zones import tzdata_version
from support.moto_server import free_port, moto_url
from support.processes import COMMAND, INSTALLED
from support.pseudo_terminal import PseudoTerminal
from support.receiver import start_receiver
from support.table_servers import new_table_name, table_server

pytestmark = pytest.mark.skipif(COMMAND == INSTALLED, reason="make test-binary builds what is tested here")

MOST_BYTES = 40_000_000
TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"


@pytest.fixture
def receiver(installation):
    running = start_receiver(installation.environment)
    installation.receiver_url = running.url
    yield running
    running.stop()


def ok(installation, *words, stdin=None):
    done = installation.run(*words, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout


def child_of(process):
    [child] = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(child)


def unpacked(installation):
    return list(installation.home.glob("_MEI*"))


# --- what is in it ------------------------------------------------------------------------------------------------------


def test_it_is_one_file_that_can_be_sent_to_a_machine():
    assert COMMAND.stat().st_size < MOST_BYTES
    assert COMMAND.read_bytes()[:4] == b"\x7fELF"


def test_its_version_and_its_time_zones_are_those_of_the_package(installation):
    assert ok(installation, "--version") == f"cronally {__version__}\n"
    said = installation.json("--version")
    assert (said["version"], said["tzdata"]) == (__version__, tzdata_version())
    assert unpacked(installation) == []


def test_it_installs_itself_as_a_service(installation):
    shown = ok(installation, "install", "--systemd", "--dry-run", "--prefix", str(installation.home))
    assert f"ExecStart={COMMAND} serve" in shown


def test_it_makes_a_table_and_shares_it(installation, receiver):
    installation.extra |= {
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_DYNAMODB": table_server("moto"),
        "CRONALLY_STORE": f"dynamodb:{new_table_name()}",
    }
    ok(installation, "store", "create", installation.extra["CRONALLY_STORE"])
    installation.start()
    ok(installation, "add", "report", "0 9 * * *", "--topic", TOPIC)
    [machine] = installation.json("status")["machines"]
    assert (machine["state"], machine["shards"]) == ("alive", 64)
    assert installation.stop() == 0
    installation.start()
    assert "report" in ok(installation, "ls")
    assert installation.stop() == 0


def test_every_module_of_commands_is_in_it(installation):
    def help_of(name):
        return name, installation.run("help", *name.split())

    one_of_each = {module: name for name, (module, _) in COMMANDS.items()}.values()
    with ThreadPoolExecutor(2) as pool:
        for name, done in pool.map(help_of, one_of_each):
            assert done.returncode == 0, (name, done.stderr)
            assert done.stdout.startswith(f"Usage: cronally {name} "), name


def test_what_needs_no_daemon_needs_no_python(installation):
    [first] = installation.json(
        "next", "30 2 * * *", "--tz", "America/New_York", "--from", "2026-03-08T00:00:00Z", "--count", "1"
    )["fires"]
    assert first == "2026-03-08T07:00:00Z"
    assert "a tool built on croniter" in ok(installation, "explain", "30 2 * * *", "--tz", "Europe/London")
    imported = ok(
        installation, "import", "crontab", "-", "--tz", "UTC", "--topic", TOPIC, stdin="5 4 * * * /bin/true\n"
    )
    assert "5 4 * * *" in imported
    tasks = "version: 1\ncron:\n - name: tidy\n   url: /tidy\n   schedule: '0 * * * *'\n"
    assert "tidy" in ok(installation, "import", "cron.yaml", "-", "--topic", TOPIC, stdin=tasks)
    for shell in ("bash", "zsh", "fish"):
        assert "_CRONALLY_COMPLETE" in ok(installation, "completion", shell)


def test_the_main_job(installation, receiver):
    installation.start()
    ok(installation, "add", "report", "0 9 * * *", "--tz", "Europe/London", "--topic", TOPIC)
    fire_id = installation.json("run", "report")["fire_id"]
    receiver.wait_for_messages(1)
    installation.wait_until_settled()
    assert [message["fire_id"] for message in receiver.take()] == [fire_id]
    [fire] = installation.json("history", "report")["fires"]
    assert (fire["fire_id"], fire["state"]) == (fire_id, "published")
    assert "report" in ok(installation, "ls")
    assert "Europe/London" in ok(installation, "show", "report")
    assert ok(installation, "why", "report", "2026-11-22T09:00")
    assert ok(installation, "forecast")
    assert "report" in ok(installation, "export")
    assert TOPIC in ok(installation, "topics", "ls")
    assert ok(installation, "status")
    found = installation.run("doctor")
    assert "ok       store" in found.stdout
    assert "ok       tzdata" in found.stdout

    backup = str(installation.home / "backup.db")
    ok(installation, "backup", backup)
    assert installation.stop() == 0
    assert unpacked(installation) == []
    ok(installation, "restore", backup, "--yes")


def test_tail_shows_a_fire_and_ends_at_ctrl_c_without_a_word(installation, receiver):
    installation.start()
    ok(installation, "add", "report", "0 9 * * *", "--topic", TOPIC)
    command = [str(COMMAND), "tail", "--json"]
    with PseudoTerminal(command, installation.environment, columns=400, rows=24) as screen:
        with installation.client() as client:
            give_up = time.monotonic() + 20
            # Nothing tells from outside that tail listens: fires are made until it shows one.
            while not select.select([screen._master], [], [], 0.1)[0]:
                assert time.monotonic() < give_up
                client.run("report")
        screen.read_until("report@")
        screen.type("\x03")  # to both processes of the executable, and the first passes it on
        assert screen.end() == 130
    assert "Traceback" not in screen.output
    assert "KeyboardInterrupt" not in screen.output
    assert installation.stop() == 0


def test_the_local_stand_in_is_used_where_one_answers_and_said_to_be_elsewhere_where_none_does(installation):
    done = installation.run("serve", "--local", "--local-port", str(free_port()))
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "pip install 'cronally[local]'" in line

    installation.extra["AWS_ENDPOINT_URL"] = moto_url()
    installation.start()
    ok(installation, "add", "report", "0 9 * * *", "--topic", TOPIC)
    ok(installation, "run", "report")
    installation.wait_until_settled()
    [fire] = installation.json("history", "report")["fires"]
    assert fire["state"] == "published"
    assert installation.stop() == 0


def test_topics_are_made_and_subscribed_with_what_it_knows_of_aws(installation):
    installation.extra |= {
        "AWS_ENDPOINT_URL": moto_url(),
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }
    topic = ok(installation, "topics", "create", "binary").split()[-1]
    queue = "arn:aws:sqs:us-east-1:123456789012:binary"
    refused = installation.run("topics", "subscribe", topic, queue)
    assert "there is no queue" in refused.stderr or refused.returncode == 0
    function = "arn:aws:lambda:us-east-1:123456789012:function:binary"
    refused = installation.run("topics", "subscribe", topic, function)
    assert refused.returncode == 1
    assert "function" in refused.stderr
    assert "this is a bug" not in refused.stderr
    examined = installation.run("doctor", "--topic", topic)  # asks who this is (sts) and what it may (iam)
    assert "this is a bug" not in examined.stderr
    assert topic in examined.stdout


@pytest.mark.parametrize(
    "profile",
    [
        "role_arn = arn:aws:iam::123456789012:role/x\ncredential_source = Environment",
        "role_arn = arn:aws:iam::123456789012:role/x\nweb_identity_token_file = {home}/token",
        """sso_session = s
        sso_account_id = 123456789012
        sso_role_name = x
        [sso-session s]
        sso_region = us-east-1
        sso_start_url = https://example.com/start""",
    ],
    ids=["role", "web-identity", "identity-center"],
)
def test_credentials_are_looked_for_wherever_aws_tools_find_them(installation, profile):
    (installation.home / "token").write_text("token")
    config = installation.home / "config"
    config.write_text(
        f"[profile x]\nregion = us-east-1\n{cleandoc(profile).format(home=installation.home)}\n"
    )
    installation.extra |= {
        "AWS_CONFIG_FILE": str(config),
        "AWS_PROFILE": "x",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }
    done = installation.run("doctor", "--topic", TOPIC)
    said = done.stdout + done.stderr
    assert "failed   credentials" in said
    assert "Unknown service" not in said
    assert "this is a bug" not in said


# --- what being unpacked changes -----------------------------------------------------------------------------------------


def test_a_program_that_it_starts_finds_the_environment_of_the_user(installation):
    seen = installation.home / "seen"
    program = installation.home / "give-credentials"
    reply = json.dumps({"Version": 1, "AccessKeyId": "a", "SecretAccessKey": "b"})
    program.write_text(f"#!/bin/sh\nenv > {shlex.quote(str(seen))}\necho {shlex.quote(reply)}\n")
    program.chmod(0o755)
    config = installation.home / "config"
    config.write_text(f"[default]\nregion = us-east-1\ncredential_process = {program}\n")
    installation.extra |= {"AWS_CONFIG_FILE": str(config), "LD_LIBRARY_PATH": "/opt/mine"}
    installation.run("doctor")
    lines = seen.read_text().splitlines()
    assert "LD_LIBRARY_PATH=/opt/mine" in lines
    assert not [line for line in lines if "_PYI_" in line or "_MEI" in line]


def test_kill_9_ends_the_daemon_and_the_next_start_removes_what_it_left(installation, receiver):
    installation.start()
    daemon = os.pidfd_open(child_of(installation.daemon.pid))
    os.kill(installation.daemon.pid, signal.SIGKILL)  # the one process that its user knows
    assert installation.wait() == -signal.SIGKILL
    assert select.select([daemon], [], [], 20)[0], "it goes on without the process that was killed"
    os.close(daemon)
    [left] = unpacked(installation)

    installation.start()
    assert left in unpacked(installation)  # so young it may be one that is being unpacked
    assert installation.stop() == 0
    os.utime(left, (0, 0))
    foreign = installation.home / "_MEI-of-another-program"
    foreign.mkdir()
    os.utime(foreign, (0, 0))
    installation.start()
    [own] = set(unpacked(installation)) - {foreign}
    assert own != left
    os.utime(own, (0, 0))
    ok(installation, "ls")
    refused = installation.run("serve")  # it finds ours old, too, and locked
    assert refused.returncode == 1
    assert own.exists()
    assert installation.stop() == 0
    assert unpacked(installation) == [foreign]


def test_a_stop_that_reaches_both_processes_waits_for_what_is_in_flight(installation, receiver):
    installation.start()
    ok(installation, "add", "report", "0 9 * * *", "--topic", TOPIC)
    receiver.set_faults(delay_s=1.0)
    with installation.client() as client:
        client.run("report")
        while not client.status().in_flight:
            assert installation.daemon.poll() is None
    daemon = child_of(installation.daemon.pid)
    os.kill(installation.daemon.pid, signal.SIGTERM)
    os.kill(daemon, signal.SIGTERM)  # as systemd's KillMode=control-group has it
    assert installation.wait() == 0
    receiver.set_faults(delay_s=0.0)
    installation.start()
    [fire] = installation.json("history", "report")["fires"]
    assert (fire["state"], fire["attempts"], fire["maybe_published"]) == ("published", 1, False)
    assert installation.stop() == 0
    assert len(receiver.take()) == 1
