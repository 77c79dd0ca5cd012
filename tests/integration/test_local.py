"""The stand-in of ``serve --local``: found, started, used again, and told of topics (design §10, last point)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import aiohttp
import pytest

from cronally.clock import SystemClock
from cronally.domain.topic import parse_topic_arn
from cronally.engine.ports import OutcomeClass
from cronally.errors import PublishError
from cronally.sns.local import LocalPublisher, StandIn, find_stand_in, local_credentials, queue_name
from cronally.sns.publisher import SnsPublisher
from support.entries import batch
from support.fake_sns import FakeSns
from support.moto_server import free_port, moto_url

CLOCK = SystemClock()
LOCAL = local_credentials(CLOCK)  # shared: botocore reads its models once


@pytest.fixture(scope="session")
def moto():
    return moto_url()


@pytest.fixture
async def stand_in(moto):
    made = StandIn(CLOCK, moto, credentials=LOCAL)
    yield made
    await made.close()


@pytest.fixture
async def publisher(stand_in):
    made = LocalPublisher(SnsPublisher(LOCAL, CLOCK, endpoint_url=stand_in.url), stand_in)
    yield made
    await made.close()


class ForeignServer:
    """Something on a port that is no SNS."""

    def __init__(self, reply):
        self._reply = reply

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self._reply)
        writer.close()


PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nContent-Type: text/html\r\n\r\n<html></html>"


async def publish(publisher, *batches):
    outcomes, done = [], asyncio.Event()
    count = sum(len(one.entries) for one in batches)

    def settle(some):
        outcomes.extend(some)
        if len(outcomes) == count:
            done.set()

    publisher.release(await publisher.arm(batches, CLOCK.wall()), settle)
    await done.wait()
    return outcomes


async def take(stand_in, arn, count):
    messages = []
    async for message in stand_in.messages(arn):
        messages.append(message)
        if len(messages) == count:
            return messages
    return messages


# --- which server ---


async def test_a_stand_in_that_answers_at_the_endpoint_is_used(moto, tmp_path):
    found = await find_stand_in(CLOCK, log=tmp_path / "log", port=free_port(), endpoint_url=moto)
    assert (found.url, found.process) == (moto, None)
    assert not (tmp_path / "log").exists()
    await found.stop()


@pytest.mark.parametrize(
    "is_silent", [True, False], ids=["nobody there", "one that refuses dummy credentials"]
)
async def test_else_the_one_on_the_port_is_used(moto, tmp_path, is_silent):
    port = int(moto.rpartition(":")[2])
    async with FakeSns() as refusing:  # as AWS would
        endpoint = f"http://127.0.0.1:{free_port()}" if is_silent else refusing.url
        found = await find_stand_in(CLOCK, log=tmp_path / "log", port=port, endpoint_url=endpoint)
        assert (found.url, found.process) == (moto, None)
        await found.stop()


async def test_one_is_started_and_survives_a_kill_of_the_daemon_and_is_used_again(tmp_path):
    port = free_port()
    daemon = textwrap.dedent("""
        import asyncio, os, signal, sys
        from pathlib import Path
        from cronally.clock import SystemClock
        from cronally.sns.local import find_stand_in
        async def main():
            stand_in = await find_stand_in(SystemClock(), log=Path(sys.argv[2]), port=int(sys.argv[1]))
            await stand_in.ensure_topic("arn:aws:sns:us-east-1:123456789012:survivor")
            print(stand_in.process.popen.pid, flush=True)
            os.killpg(0, signal.SIGKILL)
        asyncio.run(main())
    """)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", daemon, str(port), str(tmp_path / "state" / "moto.log")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    out, err = await process.communicate()
    assert (process.returncode, err) == (-signal.SIGKILL, b"")
    pid = int(out)
    try:
        again = await find_stand_in(CLOCK, log=tmp_path / "log", port=port)
        assert again.process is None
        assert await again.has_topic("arn:aws:sns:us-east-1:123456789012:survivor")
        await again.stop()  # not started here, so not stopped here
        os.kill(pid, 0)
    finally:
        os.kill(pid, signal.SIGKILL)


async def test_stop_ends_the_server_that_was_started_here(tmp_path):
    port = free_port()
    started = await find_stand_in(CLOCK, log=tmp_path / "log", port=port)
    popen = started.process.popen
    await started.stop()
    assert popen.poll() is not None
    await started.stop()


async def test_a_port_taken_by_something_else_is_an_error_that_names_the_flag(tmp_path):
    async with ForeignServer(PAGE) as other:
        with pytest.raises(PublishError, match=rf"port {other.port} is taken .* --local-port"):
            await find_stand_in(CLOCK, log=tmp_path / "log", port=other.port)


async def test_a_port_taken_by_something_that_does_not_speak_http_is_an_error(tmp_path):
    async with ForeignServer(b"SSH-2.0-OpenSSH_9.6\r\n") as other:
        with pytest.raises(PublishError, match=rf"port {other.port} is taken"):
            await find_stand_in(CLOCK, log=tmp_path / "log", port=other.port)


async def test_without_moto_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PublishError, match=r"pip install 'cronally\[local\]'"):
        await find_stand_in(CLOCK, log=tmp_path / "log", port=free_port())


async def test_a_server_that_dies_is_reported_with_its_last_words(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho first line >&2\necho 'OSError: out of luck' >&2\nexit 3\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(PublishError, match="ended with status 3: OSError: out of luck"):
        await find_stand_in(CLOCK, log=tmp_path / "log", port=free_port())


async def test_the_users_aws_settings_stay_out_of_it(tmp_path, monkeypatch):
    report = tmp_path / "report"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nenv > {report}\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    monkeypatch.setenv("MOTO_ACCOUNT_ID", "000000000000")
    with pytest.raises(PublishError, match="it said nothing"):
        await find_stand_in(CLOCK, log=tmp_path / "log", port=free_port())
    names = {line.partition("=")[0] for line in report.read_text().splitlines()}
    assert not {"AWS_SECRET_ACCESS_KEY", "MOTO_ACCOUNT_ID"} & names


async def test_real_credentials_are_not_used(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDREAL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    found = await local_credentials(CLOCK).session.get_credentials()
    assert (await found.get_frozen_credentials()).access_key == "cronally-local"


async def test_a_proxy_of_the_environment_is_not_asked_for_the_way(moto, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    made = StandIn(CLOCK, moto)
    assert await made.probe() is None
    await made.close()


# --- topics and queues ---

ARNS = [
    "arn:aws:sns:us-east-1:123456789012:local-standard",
    "arn:aws:sns:us-east-1:123456789012:local-order.fifo",
    "arn:aws:sns:eu-central-1:999988887777:another-account",
    "arn:aws-cn:sns:cn-north-1:111122223333:another-partition",
    "arn:aws:sns:nowhere-1:111122223333:another-world",
    "arn:aws:sns:us-east-1:111122223333:" + "long" * 60,
    "arn:aws:sns:us-east-1:111122223333:" + "long" * 60 + ".fifo",
]


@pytest.mark.parametrize("arn", ARNS, ids=[arn.split(":", 4)[4][:30] for arn in ARNS])
async def test_a_topic_and_its_queue_are_made_on_first_use(stand_in, publisher, arn):
    outcomes = await publish(publisher, batch(3, topic=arn, message="body of <cronally.schedule>"))
    assert {o.outcome for o in outcomes} == {OutcomeClass.PUBLISHED}
    messages = await take(stand_in, arn, 3)
    assert sorted(m.body for m in messages) == ["body of job-0", "body of job-1", "body of job-2"]
    for message in messages:
        name = message.body.removeprefix("body of ")
        assert message.attributes == {
            "cronally.schedule": name,
            "cronally.fire_time": "2026-11-23T09:00:00Z",
            "cronally.fire_id": f"{name}@2026-11-23T09:00:00Z",
        }
        assert min(o.released_us for o in outcomes) // 1000 <= message.sent_at <= CLOCK.wall()


async def test_a_fifo_queue_drops_a_repeat_and_keeps_order_in_a_group(stand_in, publisher):
    arn = "arn:aws:sns:us-east-1:123456789012:repeats.fifo"
    for number in (0, 1, 0, 2):
        await publish(
            publisher, batch(1, first=number, topic=arn, group="one", message="<cronally.schedule>")
        )
    assert [m.body for m in await take(stand_in, arn, 3)] == ["job-0", "job-1", "job-2"]


async def test_making_a_topic_again_changes_nothing_and_is_asked_once(moto, stand_in):
    arn = "arn:aws:sns:us-east-1:123456789012:twice"
    first, second = await asyncio.gather(stand_in.ensure_topic(arn), stand_in.ensure_topic(arn))
    other = StandIn(CLOCK, moto, credentials=LOCAL)
    assert first == second == await other.ensure_topic(arn)
    await other.close()
    publisher = LocalPublisher(SnsPublisher(LOCAL, CLOCK, endpoint_url=moto), stand_in)
    await publish(publisher, batch(1, topic=arn))
    await publisher.close()
    assert len(await take(stand_in, arn, 1)) == 1
    sqs = await stand_in._client("sqs", "us-east-1", "123456789012")
    assert "Messages" not in await sqs.receive_message(QueueUrl=first)


async def test_a_topic_that_the_stand_in_has_lost_is_made_again_by_the_next_attempt(stand_in, publisher):
    arn = "arn:aws:sns:us-east-1:123456789012:lost"
    await publish(publisher, batch(1, topic=arn))
    reset = f"{stand_in.url}/moto-api/reset"  # as after a restart
    async with aiohttp.ClientSession() as session, session.post(reset) as reply:
        assert reply.status == 200
    [outcome] = await publish(publisher, batch(1, topic=arn))
    assert (outcome.outcome, outcome.is_unknown) == (OutcomeClass.RETRY, False)
    [outcome] = await publish(publisher, batch(1, topic=arn))
    assert outcome.outcome is OutcomeClass.PUBLISHED
    assert len(await take(stand_in, arn, 1)) == 1


async def test_a_stand_in_that_is_gone_is_retried_and_arm_raises_nothing(tmp_path):
    stand_in = StandIn(CLOCK, f"http://127.0.0.1:{free_port()}", credentials=LOCAL)
    publisher = LocalPublisher(SnsPublisher(LOCAL, CLOCK, endpoint_url=stand_in.url), stand_in)
    [outcome] = await publish(publisher, batch(1))
    assert (outcome.outcome, outcome.is_unknown) == (OutcomeClass.RETRY, False)
    with pytest.raises(PublishError, match=r"the local stand-in at .* could not make"):
        await stand_in.ensure_topic("arn:aws:sns:us-east-1:123456789012:any")
    await publisher.close()
    await stand_in.close()


async def test_a_topic_that_could_not_be_made_is_made_by_the_next_attempt(stand_in, monkeypatch):
    arn = "arn:aws:sns:us-east-1:123456789012:second-try"

    async def fail(_):
        raise OSError("not yet")

    with monkeypatch.context() as patch:
        patch.setattr(stand_in, "_make", fail)
        with pytest.raises(PublishError, match="not yet"):
            await stand_in.ensure_topic(arn)
    assert (await stand_in.ensure_topic(arn)).endswith("/second-try")


# (topic's name, queue's name)
NAMES = [
    ("reports", "reports"),
    ("a" * 80, "a" * 80),
    ("a" * 75 + ".fifo", "a" * 75 + ".fifo"),
]


@pytest.mark.parametrize(("topic", "queue"), NAMES)
def test_a_queue_has_the_name_of_its_topic(topic, queue):
    assert queue_name(parse_topic_arn(f"arn:aws:sns:us-east-1:123456789012:{topic}")) == queue


def test_long_names_stay_distinct_and_within_80_characters():
    names = {
        queue_name(parse_topic_arn(f"arn:aws:sns:us-east-1:123456789012:{'a' * 200}{end}"))
        for end in ("x", "y", "x.fifo", "y.fifo")
    }
    assert len(names) == 4
    assert all(len(name) <= 80 for name in names)
    assert sum(name.endswith(".fifo") for name in names) == 2


def test_the_server_does_not_need_the_user_to_have_a_region():
    command = "import cronally.sns.moto_server"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    assert subprocess.run([sys.executable, "-c", command], env=environment, check=False).returncode == 0
