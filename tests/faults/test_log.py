"""A log that nobody takes: the daemon neither waits for it nor ends over it."""

from __future__ import annotations

import fcntl
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from support.processes import COMMAND

TOPIC = "arn:aws:sns:us-east-1:123456789012:beats"


def full_pipe():
    """Return both ends of a pipe that has no room left."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    os.set_blocking(writer, True)
    return reader, writer


def change_and_fire(installation, receiver):
    """Make changes, each of which is logged, and see a message arrive."""
    seen = receiver.stats()["accepted"]
    with installation.client() as client:
        client.put("beat", {"when": "@every 1s", "topic": TOPIC})
        for number in range(30):
            client.put(f"yearly-{number}", {"when": "@yearly", "topic": TOPIC, "note": os.urandom(4).hex()})
    receiver.wait_for_messages(seen + 2)


@pytest.mark.long
def test_a_full_pipe_holds_nothing_up_and_what_waited_is_written_once_there_is_room(installation, receiver):
    reader, writer = full_pipe()
    installation.begin(stderr=writer)
    installation.wait_until_ready()
    change_and_fire(installation, receiver)
    os.close(writer)
    os.read(reader, 4096)
    change_and_fire(installation, receiver)
    assert installation.stop() == 0
    with os.fdopen(reader, "rb") as rest:
        said = rest.read().replace(b"x" * 16, b"").decode()
    assert '"action": "daemon.ready"' in said
    assert '"action": "admin.change"' in said


@pytest.mark.long
def test_a_pipe_whose_reader_has_gone_is_no_reason_to_end(installation, receiver):
    reader, writer = os.pipe()
    installation.begin(stderr=writer)
    os.close(writer)
    os.close(reader)
    installation.wait_until_ready()
    change_and_fire(installation, receiver)
    assert installation.stop() == 0


@pytest.mark.long
def test_without_standard_streams_no_file_takes_their_place(installation, receiver):
    installation.begin(stderr=2, before=lambda: os.closerange(0, 3))
    installation.wait_until_ready()
    change_and_fire(installation, receiver)
    places = Path(f"/proc/{installation.daemon.pid}/fd")
    assert {str((places / name).readlink()) for name in ("0", "1", "2")} == {"/dev/null"}
    assert installation.stop() == 0


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_command_does_not_mind_a_closed_stream(number):
    done = subprocess.run(
        [COMMAND, "next", "0 9 * * *", "--tz", "UTC"],
        preexec_fn=lambda: os.close(number),
        timeout=30,
        check=False,
    )
    assert done.returncode == 0
