"""``cronally doctor``, from its words to what is printed: with a daemon and without, with AWS and without."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import boto3
import pytest

from cronally import __version__
from cronally.domain.zones import tzdata_version
from cronally.errors import StoreError
from support.daemon import running_daemon
from support.moto_server import moto_url
from support.recording_publisher import TOPIC_GONE
from support.rig import TOPIC
from support.terminal import Terminal

ORDER = ["daemon", "store", "permissions", "disk", "clock", "tzdata", "credentials"]


@pytest.fixture(scope="session")
def moto():
    return moto_url()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, and no settings of AWS."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "CRONALLY_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("CRONALLY_SOCKET", str(tmp_path / "none.sock"))
    return tmp_path / "home"


@pytest.fixture
def alone(home, capsys):
    """A terminal without a daemon and without AWS."""
    return Terminal(None, capsys)


@pytest.fixture
def aws(home, moto, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    sns = boto3.client("sns", region_name="us-east-1")
    sns.create_topic(Name=TOPIC.rpartition(":")[2])
    sns.close()


@pytest.fixture
def cronally(home, tmp_path, capsys, monkeypatch):
    with running_daemon(tmp_path) as daemon:
        monkeypatch.setenv("CRONALLY_SOCKET", daemon.socket)
        monkeypatch.setattr(daemon.reporting, "_version", __version__)
        monkeypatch.setattr(daemon.reporting, "_store_name", f"sqlite:{tmp_path}/store/cronally.db")
        yield Terminal(daemon, capsys)


def checks(terminal, *words, code):
    found, out, err = terminal("doctor", *words, "--json")
    assert (found, err) == (code, "")
    return {one["check"]: one for one in json.loads(out)["checks"]}


def test_without_daemon_and_aws_every_line_says_what_to_do(alone, home):
    found = checks(alone, code=1)
    assert list(found)[:7] == ORDER
    assert (found["daemon"]["state"], found["credentials"]["state"]) == ("warning", "failed")
    assert found["store"]["state"] == "ok"
    assert all((one["fix"] is None) == (one["state"] == "ok") for one in found.values())
    code, out, _ = alone("doctor")
    assert code == 1
    assert "failed   credentials: no AWS credentials were found\n         -> set AWS_PROFILE" in out
    assert out.endswith("1 failed\n")
    assert not home.exists()


def test_with_credentials_nothing_fails_for_want_of_a_daemon(alone, aws):
    found = checks(alone, code=0)
    assert found["daemon"]["state"] == "warning"
    assert found["credentials"]["text"].startswith("AKIA…MPLE from the environment")
    assert "only a daemon knows" in found["topics"]["text"]
    assert "arn:aws:sts::123456789012" in found["identity"]["text"]


def test_the_topics_of_the_daemon_are_looked_at(cronally, aws):
    cronally.daemon.add("a")
    cronally.daemon.add("b", topic=f"{TOPIC}-absent")
    found = checks(cronally, code=1)
    assert found["endpoint us-east-1"]["state"] == "ok"
    assert found[f"topic {TOPIC}"]["state"] == "ok"
    assert found[f"topic {TOPIC}-absent"]["fix"] == "cronally topics create reports-absent --region us-east-1"
    assert found["daemon"]["state"] == "ok"


def test_each_quota_is_compared_with_the_busiest_minute_to_come(cronally, aws, monkeypatch):
    quotas = {("us-east-1", False): 0.1, ("us-east-1", True): 300.0, ("eu-west-1", False): 0.0}
    monkeypatch.setattr(cronally.daemon.service, "quota_per_s", lambda *way: quotas[way])
    assert checks(cronally, code=0)["quota"]["text"] == "nothing is due in the coming day"
    for name in "ab":
        cronally.daemon.add(name, when="0 9 * * *")
    cronally.daemon.add("c", when="* * * * *", topic=f"{TOPIC}.fifo")
    cronally.daemon.add("d", topic="arn:aws:sns:eu-west-1:123456789012:reports")
    found = checks(cronally, code=1)
    slow = found["quota us-east-1"]
    assert slow["state"] == "warning"
    assert "the busiest minute of the coming day, 2026-11-23T09:00:00Z, has 2: 20.0 s if" in slow["text"]
    assert "cronally forecast" in slow["fix"]
    assert found["quota us-east-1 FIFO"]["state"] == "ok"
    assert "300 messages a second" in found["quota us-east-1 FIFO"]["text"]
    assert "no pacing" in found["quota eu-west-1"]["text"]


def test_a_daemon_that_gives_no_forecast_is_a_warning(cronally, aws, monkeypatch):
    async def refused():
        raise StoreError("the disk is gone")

    monkeypatch.setattr(cronally.daemon.service, "forecast", refused)
    assert checks(cronally, code=0)["quota"]["state"] == "warning"


def test_a_topic_can_be_named_before_there_is_a_daemon(alone, aws):
    assert checks(alone, "--topic", TOPIC, code=0)[f"topic {TOPIC}"]["state"] == "ok"
    assert "--topic" in alone.bad("doctor", "--topic", "reports")


def test_what_sns_says_to_the_daemon_is_told(cronally, aws):
    rig = cronally.daemon.rig
    rig.publisher.script = lambda _entry, _attempt: TOPIC_GONE
    cronally.daemon.add("a", "* * * * *")
    cronally.daemon.call(rig.clock.advance(120))
    found = checks(cronally, code=1)
    assert TOPIC_GONE.error in found[f"topic {TOPIC}"]["text"]
    assert found["daemon"]["state"] == "warning"


def test_a_daemon_that_is_not_ready_is_a_failure(cronally, aws):
    cronally.daemon.reporting.set_ready("the clock is not believed")
    found = checks(cronally, code=1)["daemon"]
    assert (found["state"], "the clock is not believed" in found["text"]) == ("failed", True)


def test_a_daemon_that_publishes_to_a_stand_in_needs_no_aws(cronally, moto, monkeypatch):
    monkeypatch.setattr(cronally.daemon.reporting, "_stand_in", moto)
    cronally.daemon.add("a")
    found = checks(cronally, code=0)
    assert "not needed" in found["credentials"]["text"]
    assert found["endpoint"]["state"] == "ok"


def test_zone_data_that_the_daemon_does_not_have_yet_is_a_warning(cronally, aws, monkeypatch):
    monkeypatch.setattr("cronally.engine.reporting.tzdata_version", lambda: "2020a")
    found = checks(cronally, code=0)["tzdata"]
    assert (found["state"], tzdata_version() in found["text"]) == ("warning", True)


def test_a_damaged_store_is_a_failure(alone, aws, tmp_path):
    (tmp_path / "cronally.db").write_bytes(b"x" * 5_000)
    found = checks(alone, "--store", f"sqlite:{tmp_path}/cronally.db", code=1)
    assert found["store"]["state"] == "failed"


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [("AWS_ENDPOINT_URL", "localhost", "Invalid endpoint"), ("AWS_PROFILE", "nobody", "nobody")],
)
def test_settings_of_aws_that_are_wrong_are_findings(alone, aws, monkeypatch, name, value, part):
    monkeypatch.setenv(name, value)
    found = checks(alone, "--topic", TOPIC, code=1)
    assert any(part in one["text"] for one in found.values() if one["state"] == "failed")


def test_bad_settings_are_bad_input(alone):
    assert "sqlite:PATH" in alone.bad("doctor", "--store", "mysql:x")
    assert "at most 107" in alone.bad("doctor", "--socket", "/" + "x" * 120)


@pytest.mark.long
def test_it_ends_whatever_does_not_answer(alone, tmp_path):
    """A daemon that is stuck, a server that says nothing, and a name server that never answers."""
    quiet = socket.socket()
    quiet.bind(("127.0.0.1", 0))
    quiet.listen(50)
    stuck = socket.socket(socket.AF_UNIX)
    stuck.bind(str(tmp_path / "stuck.sock"))
    stuck.listen(5)
    code = (
        "import socket, sys, time\n"
        "real = socket.getaddrinfo\n"
        "def slow(host, *rest, **more):\n"
        "    if 'amazonaws' in str(host): time.sleep(60)\n"
        "    return real(host, *rest, **more)\n"
        "socket.getaddrinfo = slow\n"
        "from cronally.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    environ = os.environ | {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{quiet.getsockname()[1]}",
        "CRONALLY_SOCKET": str(tmp_path / "stuck.sock"),
    }
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--topic", TOPIC, "--json"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    took_s = time.monotonic() - begun
    stuck.close()
    quiet.close()
    assert (done.returncode, done.stderr) == (1, "")
    found = {one["check"]: one["state"] for one in json.loads(done.stdout)["checks"]}
    assert (found["daemon"], found["endpoint us-east-1"]) == ("failed", "failed")
    assert took_s < 10


# --- a table that machines share --------------------------------------------------------------------------------


def test_a_table_is_looked_at_instead_of_a_file(alone, aws, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    alone.ok("store", "create", "dynamodb:doctors")
    found = checks(alone, "--store", "dynamodb:doctors", code=0)
    assert found["store"]["text"] == "the DynamoDB table doctors in us-east-1 is there"
    for check in ("permissions", "store expiry", "store clock", "machines"):
        assert found[check]["state"] == "ok", found[check]
    assert "disk" not in found
    absent = checks(alone, "--store", "dynamodb:absent", code=1)["store"]
    assert (absent["state"], absent["fix"].split("'")[1]) == (
        "failed",
        "cronally store create dynamodb:absent",
    )


def test_the_table_that_the_daemon_names_is_looked_at(cronally, aws, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    cronally.ok("store", "create", "dynamodb:shared")
    monkeypatch.setattr(cronally.daemon.reporting, "_store_name", "dynamodb:shared")
    assert checks(cronally, code=0)["store"]["text"].startswith("the DynamoDB table shared")


def test_a_table_without_credentials_or_a_region_is_not_looked_at(alone, aws, monkeypatch):
    found = checks(alone, "--store", "dynamodb:abc", code=1)
    assert found["store"]["fix"] == "set AWS_REGION, or the region of the profile"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    found = checks(alone, "--store", "dynamodb:abc", code=1)
    assert (found["store"]["state"], found["credentials"]["state"]) == ("warning", "failed")
