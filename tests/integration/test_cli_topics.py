"""``cronally topics``, from its words to what is printed: a real daemon's socket, and moto's server for AWS."""

import subprocess
import sys

import pytest

from cronally.cli.main import GROUPS
from support.daemon import running_daemon
from support.recording_publisher import PUBLISHED, REJECTED, TOPIC_GONE
from support.rig import TOPIC
from support.terminal import Terminal

OTHER = "arn:aws:sns:eu-west-1:123456789012:other"


@pytest.fixture
def cronally(tmp_path, capsys, monkeypatch):
    with running_daemon(tmp_path) as daemon:
        monkeypatch.setenv("CRONALLY_SOCKET", daemon.socket)
        yield Terminal(daemon, capsys)


@pytest.fixture
def alone(tmp_path, capsys, monkeypatch):
    """A terminal without a daemon."""
    monkeypatch.setenv("CRONALLY_SOCKET", str(tmp_path / "none.sock"))
    return Terminal(None, capsys)


# --- the group --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in GROUPS[group][1]])
def test_every_command_of_a_group_has_help_with_examples(alone, group, name):
    out = alone.ok(group, name, "--help")
    assert "Examples:\n" in out
    assert f"cronally {group} {name}" in out
    assert alone.ok(group, name, "-h") == out


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_lists_its_commands(alone, group):
    out = alone.ok(group, "--help")
    assert all(f"  {name} " in out for name in GROUPS[group][1])
    assert "..." not in out.partition("Commands:")[2]
    assert "Usage:" in alone.bad(group)
    assert f"  {group} " in alone.ok("--help")


@pytest.mark.parametrize(
    ("words", "part"),
    [(["topic"], "did you mean 'topics'?"), (["topics", "lss"], "did you mean 'ls'?"),
     (["topics", "xyz"], "there are ls"), (["topics", "--jsno"], "--jsno"), (["topics", "ls", "extra"], "extra")],
)  # fmt: skip
def test_words_that_are_not_understood(alone, words, part):
    err = alone.bad(*words)
    assert part in err
    assert "--help'" in err


def test_a_socket_can_be_named_before_and_after_the_group(cronally, monkeypatch):
    socket = cronally.daemon.socket
    monkeypatch.setenv("CRONALLY_SOCKET", "/nowhere/x")
    assert cronally.ok("topics", "ls", "--socket", socket) == ""
    assert cronally.ok("--socket", socket, "topics", "ls") == ""
    assert "/nowhere/x" in cronally.bad("topics", "ls", code=3)


# --- ls ---------------------------------------------------------------------------------------------------------


def test_ls_shows_the_topics_in_use_and_how_they_are(cronally):
    rig = cronally.daemon.rig
    rig.publisher.script = lambda entry, _attempt: (
        TOPIC_GONE if entry.topic == OTHER else REJECTED if entry.name == "b" else PUBLISHED
    )
    for name in ("a", "b"):
        cronally.daemon.add(name, "0 9 * * *")
    cronally.daemon.add("c", "* * * * *", topic=OTHER)
    cronally.daemon.call(rig.clock.advance(120))
    lines = cronally.ok("topics", "ls").split("\n")
    assert lines[0].split() == ["TOPIC", "SCHEDULES", "PENDING", "HEALTH"]
    refusing, failing = lines[1:3]
    assert refusing.split()[:3] == [OTHER, "1", "1"]
    assert "refusing since 2026-11-23T09:0" in refusing
    assert TOPIC_GONE.error in refusing
    assert failing.split()[:3] == [TOPIC, "2", "0"]
    assert f"1 of its schedules failing: {REJECTED.error}" in failing
    one, two = cronally.json("topics", "ls")["topics"]
    assert (one["topic"], one["schedules"], one["refusing"]["error"]) == (OTHER, 1, TOPIC_GONE.error)
    assert (two["topic"], two["refusing"], two["failing"]) == (TOPIC, None, 1)


def test_ls_reads_every_page(cronally, monkeypatch):
    monkeypatch.setattr("cronally.admin.wire.MAX_PAGE", 2)
    topics = [f"{TOPIC}-{number}" for number in range(5)]
    for number, topic in enumerate(topics):
        cronally.daemon.add(f"s{number}", topic=topic)
    assert [one["topic"] for one in cronally.json("topics", "ls")["topics"]] == topics


def test_ls_of_no_topics_says_so(cronally):
    code, out, err = cronally("topics", "ls")
    assert (code, out) == (0, "")
    assert "cronally add" in err
    assert cronally.json("topics", "ls") == {"topics": []}


def test_ls_imports_nothing_heavy(cronally):
    cronally.daemon.add("a")
    code = (
        "import sys; from cronally.cli.main import main; main(['topics', 'ls']); "
        "print([m for m in ('aiohttp', 'asyncio', 'botocore', 'pydantic', 'rich', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.endswith("[]\n"), done.stdout
