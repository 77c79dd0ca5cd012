"""top on a terminal: what it takes it gives back, however it ends."""

from __future__ import annotations

import json
import os
import signal

import pytest

from support.processes import COMMAND
from support.pseudo_terminal import PseudoTerminal
from support.rig import TOPIC

TAKES, GIVES_BACK = "\x1b[?1049h", "\x1b[?1049l"
HIDES, SHOWS = "\x1b[?25l", "\x1b[?25h"


@pytest.fixture
def top(cronally):
    """The command on a terminal of its own, begun."""
    cronally.daemon.add("nightly")
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "CRONALLY_SOCKET") if key in os.environ}
    with PseudoTerminal([str(COMMAND), "top", "--every", "1s"], environment, columns=100, rows=24) as screen:
        yield screen


@pytest.mark.parametrize(
    ("how", "code"),
    [("q", 0), ("Q", 0), ("\x03", 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["q", "Q", "Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_the_terminal_is_left_as_it_was(top, how, code):
    shown = top.read_until("q ends it")
    assert TAKES in shown
    assert HIDES in shown
    assert "nightly" in shown
    assert not top.is_as_before
    top.signal(how) if isinstance(how, int) else top.type(how)
    assert top.end() == code
    assert top.output.rindex(GIVES_BACK) > top.output.rindex(TAKES)
    assert top.output.rindex(SHOWS) > top.output.rindex(HIDES)
    assert top.is_as_before
    assert "Traceback" not in top.output


def test_on_a_terminal_that_cannot_be_drawn_on_it_is_printed_once(cronally):
    cronally.daemon.add("nightly")
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "CRONALLY_SOCKET") if key in os.environ}
    with PseudoTerminal(
        [str(COMMAND), "top"], environment | {"TERM": "dumb"}, columns=100, rows=24
    ) as screen:
        assert screen.end() == 0
    assert "nightly" in screen.output
    assert "\x1b" not in screen.output


def test_other_keys_do_nothing(top):
    top.read_until("q ends it")
    top.type("x\x1b[A ")
    top.read_until("q ends it")
    top.type("q")
    assert top.end() == 0


def test_stopped_it_gives_the_terminal_back_and_takes_it_again_when_it_goes_on(top):
    top.read_until("q ends it")
    top.type("\x1a")
    top.wait_until_stopped()
    assert GIVES_BACK in top.read_until(SHOWS) or GIVES_BACK in top.output
    assert top.is_as_before
    top.signal(signal.SIGCONT)
    assert TAKES in top.read_until("q ends it")
    top.type("q")
    assert top.end() == 0
    assert top.is_as_before


def test_a_daemon_that_goes_away_is_waited_for(cronally, top):
    top.read_until("ready")
    daemon = cronally.daemon
    daemon.call(daemon.server.close())
    assert "nightly" in top.read_until("NO ANSWER") + top.read_until("q ends it")
    daemon.call(daemon.server.start())
    top.read_until("  ready")
    top.type("q")
    assert top.end() == 0


def test_off_a_terminal_it_is_printed_once(cronally):
    cronally.daemon.add("nightly", tz="Europe/London")
    out = cronally.ok("top")
    assert "schedules  1\n" in out
    assert "Mon 2026-11-23 09:00:00 +00:00  nightly   reports\n" in out
    assert "\x1b" not in out
    assert cronally.ok("top", "--once").splitlines()[-1] == out.splitlines()[-1]


def test_as_json_it_is_one_document(cronally):
    cronally.daemon.add("nightly")
    document = cronally.json("top")
    assert document["coming"] == [
        {
            "schedule": "nightly",
            "fire_time": "2026-11-23T09:00:00Z",
            "due": "2026-11-23T09:00:00Z",
            "tz": "UTC",
            "topic": TOPIC,
        }
    ]
    assert json.dumps(document["ended"]) == '{"published": 0, "skipped": 0, "expired": 0, "rejected": 0}'


@pytest.mark.parametrize("every", ["0s", "2h", "soon", "-1s", ""])
def test_how_often_must_be_a_sensible_duration(cronally, every):
    assert "--every" in cronally.bad("top", "--every", every)


def test_without_a_daemon_it_does_not_begin(alone):
    assert "no cronally daemon answers" in alone.bad("top", code=3)
