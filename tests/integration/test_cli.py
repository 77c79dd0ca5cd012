"""The commands, from their words to what is printed, against a daemon on a real socket."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from types import ModuleType

import pytest

from cronally.admin import wire
from cronally.admin.client import Client
from cronally.cli import options as o
from cronally.cli.main import COMMANDS, main
from cronally.engine.service import DoneAtOnce
from cronally.errors import AdminError, FieldError, NotReady, StoreError, StoreFull, UsageError
from support.recording_publisher import PUBLISHED, REJECTED, TOPIC_GONE
from support.rig import TOPIC


class Stdin(io.TextIOWrapper):
    def __init__(self, data):
        super().__init__(io.BytesIO(data))


# --- add and set ------------------------------------------------------------------------------------------------


def test_add_prints_the_next_three_fires_in_local_time_and_utc(cronally):
    out = cronally.ok("add", "nightly", "0 9 * * mon-fri", "--tz", "America/New_York", "--topic", TOPIC)
    assert out.split("\n") == [
        "created nightly",
        "  Mon 2026-11-23 09:00:00 -05:00  2026-11-23T14:00:00Z",
        "  Tue 2026-11-24 09:00:00 -05:00  2026-11-24T14:00:00Z",
        "  Wed 2026-11-25 09:00:00 -05:00  2026-11-25T14:00:00Z",
        "",
    ]


def test_add_again_is_unchanged_and_different_is_a_conflict(cronally):
    words = ("add", "a", "@daily", "--topic", TOPIC)
    cronally.ok(*words)
    assert cronally.ok(*words).startswith("unchanged a\n")
    assert "cronally set a" in cronally.bad(*words, "--note", "other", code=5)
    assert cronally.json(*words)["outcome"] == "unchanged"


def test_add_takes_every_option(cronally, tmp_path):
    message = tmp_path / "message"
    message.write_text("from a file\n")
    made = cronally.json(
        "add", "full", "0 0 9 ? * MON-FRI", "--dialect", "quartz", "--tz", "Europe/London", "--topic", f"{TOPIC}.fifo",
        "--message", f"@{message}", "--subject", "s", "--attribute", "team=x", "--attribute", "n:Number=5",
        "--group", "g", "--catch-up", "all", "--deadline", "1h30m", "--late-after", "5m", "--on-gap", "skip",
        "--on-repeat", "both", "--spread", "2m", "--priority", "9", "--starts", "2026-12-01T00:00:00Z",
        "--ends", "2027-12-01T00:00:00+01:00", "--tag", "one", "--tag", "two", "--note", "why", "--paused",
    )["schedule"]  # fmt: skip
    assert made["message"] == "from a file\n"
    assert made["attributes"] == {"n": {"type": "Number", "value": "5"}, "team": "x"}
    assert made["paused"]["since"] == "2026-11-23T08:59:30Z"
    assert made["next_fire"] is None
    expected = {
        "dialect": "quartz", "subject": "s", "group": "g", "catch_up": "all", "deadline": "1h30m", "late_after": "5m",
        "on_gap": "skip", "on_repeat": "both", "spread": "2m", "priority": 9, "starts": "2026-12-01T00:00:00Z",
        "ends": "2027-11-30T23:00:00Z", "tags": ["one", "two"], "note": "why",
    }  # fmt: skip
    assert {key: made[key] for key in expected} == expected


def test_a_message_from_standard_input_is_exact(cronally, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin("é\r\n".encode()))
    assert (
        cronally.json("add", "a", "@daily", "--topic", TOPIC, "--message", "-")["schedule"]["message"]
        == "é\r\n"
    )


def test_warnings_go_to_stderr(cronally):
    code, out, err = cronally("add", "a", "0 0 */2 * mon", "--topic", TOPIC)
    assert (code, err.startswith("warning: ")) == (0, True)
    assert "warning" not in out


def test_set_changes_only_what_is_given(cronally):
    cronally.ok(
        "add", "a", "@daily", "--topic", TOPIC, "--message", "m", "--attribute", "k=v", "--deadline", "1h"
    )
    changed = cronally.json("set", "a", "--when", "@hourly", "--attribute", "n=1", "--unset", "deadline")
    assert changed["outcome"] == "changed"
    schedule = changed["schedule"]
    assert (schedule["when"], schedule["message"], schedule["deadline"]) == ("@hourly", "m", "1d")
    assert schedule["attributes"] == {"k": "v", "n": "1"}
    assert cronally.ok("set", "a", "--when", "@hourly").startswith("unchanged a")
    assert cronally.json("set", "a", "--tz", "")["schedule"]["tz"] == "UTC"


def test_set_keeps_a_pause(cronally):
    cronally.ok("add", "a", "@daily", "--topic", TOPIC)
    cronally.ok("pause", "a")
    assert cronally.json("set", "a", "--note", "n")["schedule"]["paused"]


def test_set_looks_again_when_somebody_was_faster(cronally, monkeypatch):
    cronally.ok("add", "a", "@daily", "--topic", TOPIC)
    read = Client.schedule
    raced = []

    def read_then_race(self, name, *, fires=3):
        found = read(self, name, fires=fires)
        if not raced:
            raced.append(name)
            cronally.daemon.add("a", "@daily", note="theirs")
        return found

    monkeypatch.setattr(Client, "schedule", read_then_race)
    schedule = cronally.json("set", "a", "--tz", "Europe/London")["schedule"]
    assert (schedule["note"], schedule["tz"]) == ("theirs", "Europe/London")


BAD_ADDS = {
    "zone": (["@daily", "--topic", TOPIC, "--tz", "Europe/Lodnon"], "Europe/London"),
    "rule": (["61 * * * *", "--topic", TOPIC], "in the minute field at column 1"),
    "no rule": (["nonsense", "--topic", TOPIC], "the rule has 1 field"),
    "unquoted": (["0", "9", "*", "*", "*", "--topic", TOPIC], "put the rule in quotes"),
    "no topic": (["@daily"], "--topic is missing"),
    "arn": (["@daily", "--topic", "reports"], "arn:aws:sns:REGION:ACCOUNT:NAME"),
    "queue": (["@daily", "--topic", TOPIC.replace(":sns:", ":sqs:")], "not the ARN of an SNS topic"),
    "long message": (["@daily", "--topic", TOPIC, "--message", "x" * 262_145], "SNS takes 262,144"),
    "longer message": (["@daily", "--topic", TOPIC, "--message", "x" * 1_100_000], "262,144"),
    "empty message": (["@daily", "--topic", TOPIC, "--message", ""], "empty message"),
    "no file": (["@daily", "--topic", TOPIC, "--message", "@/nowhere/x"], "/nowhere/x cannot be read"),
    "past": (["@at 2020-01-01T00:00:00Z", "--topic", TOPIC], "past"),
    "attribute": (["@daily", "--topic", TOPIC, "--attribute", "x"], "NAME=VALUE"),
    "reserved": (["@daily", "--topic", TOPIC, "--attribute", "cronally.kind=x"], "Cronally itself sends"),
    "duration": (["@daily", "--topic", TOPIC, "--deadline", "90"], "90s"),
    "priority": (["@daily", "--topic", TOPIC, "--priority", "10"], "from 0 to 9"),
    "number": (["@daily", "--topic", TOPIC, "--priority", "high"], "not a whole number"),
    "instant": (["@daily", "--topic", TOPIC, "--starts", "soon"], "2026-12-24T18:00:00Z"),
    "policy": (["@daily", "--topic", TOPIC, "--catch-up", "some"], "latest, all, skip"),
    "unknown option": (["@daily", "--topic", TOPIC, "--tzz", "UTC"], "--tz"),
    "surrogate": (["@daily", "--topic", TOPIC, "--note", "\udcff"], "UTF-8"),
}


@pytest.mark.parametrize(("words", "part"), BAD_ADDS.values(), ids=BAD_ADDS)
def test_a_bad_add_is_one_sentence_and_changes_nothing(cronally, words, part):
    err = cronally.bad("add", "a", *words)
    assert part in err
    assert err.startswith("cronally: ")
    assert len(err.strip().split("\n")) <= 2
    assert cronally.json("ls") == {"schedules": []}


@pytest.mark.parametrize("name", ["a b", "-", "é", "x" * 81, "a/b", "..", ""])
def test_a_bad_name(cronally, name):
    words = ("add", "--topic", TOPIC, "--", name, "@daily")
    assert "name" in cronally.bad(*words)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["set", "a"], "nothing to change"),
        (["set", "a", "--unset", "when"], "no such key"),
        (["set", "a", "--message", ""], "--unset message"),
        (["set", "a", "--when", ""], "the rule is empty"),
        (["set", "a", "--when", "@at 2020-01-01T00:00Z"], "past"),
    ],
)
def test_a_bad_set(cronally, words, part):
    cronally.daemon.add("a")
    assert part in cronally.bad(*words)
    assert cronally.json("show", "a")["revision"] == 1


# --- listing ----------------------------------------------------------------------------------------------------


def test_ls(cronally):
    assert cronally("ls") == (0, "", "there are no schedules; make one with 'cronally add'\n")
    cronally.daemon.add("b", tz="Europe/London")
    cronally.daemon.add("a", paused=True)
    lines = cronally.ok("ls").split("\n")
    assert lines[0].split() == ["NAME", "WHEN", "TZ", "NEXT", "(LOCAL)", "TOPIC", "STATE"]
    assert lines[1].endswith("paused")
    assert "Mon 2026-11-23 09:00:00 (in 30s)" in lines[2]
    plain = cronally.json("ls")
    assert [schedule["name"] for schedule in plain["schedules"]] == ["a", "b"]
    assert list(plain) == ["schedules"]
    assert list(plain["schedules"][0])[:7] == ["name", "when", "tz", "topic", "paused", "next_fire", "error"]


def test_show(cronally):
    cronally.daemon.add("nightly", "0 9 * * mon-fri", message="hello")
    out = cronally.ok("show", "nightly")
    assert "At 09:00" in out
    assert "hello" in out
    assert cronally.json("show", "nightly")["name"] == "nightly"


def test_a_schedule_that_is_not_there(cronally):
    cronally.daemon.add("nightly")
    for words in (["show", "nihgtly"], ["set", "nihgtly", "--note", "x"], ["run", "nihgtly"], ["next", "nihgtly"],
                  ["rm", "nihgtly"], ["pause", "nihgtly"], ["resume", "nihgtly"], ["history", "nihgtly"], ["history", "nihgtly", "--since", "1h"]):  # fmt: skip
        assert "did you mean 'nightly'?" in cronally.bad(*words, code=4), words


def test_fires_that_are_still_being_read_from_a_table_are_said_to_be_missing(cronally):
    cronally.daemon.add("a")
    assert cronally.json("history") == {"fires": []}
    cronally.daemon.service.has_history = lambda: False
    code, out, said = cronally("history", "--json")
    assert (code, json.loads(out)) == (0, {"fires": []})
    assert said.startswith("warning: older fires may be missing: ")
    assert (
        "warning: older fires may be missing: " in cronally("retry", "--failed", "--since", "1d", "--yes")[2]
    )
    said = cronally.bad("retry", "a@2026-11-01T09:00:00Z", "--yes", code=1)
    assert "a@2026-11-01T09:00:00Z is not among the fires that this machine has read so far" in said
    cronally.daemon.service.has_history = lambda: True
    assert "no fire is on record" in cronally.bad("retry", "a@2026-11-01T09:00:00Z", "--yes", code=4)


def test_history(cronally):
    cronally.daemon.add("a")
    assert cronally("history")[1:] == ("", "no slots are on record for that\n")
    fire_id = cronally.ok("run", "a").strip()
    [fire] = cronally.json("history", "a")["fires"]
    assert list(fire) == [
        "fire_id", "schedule", "fire_time", "kind", "state", "reason", "attempts", "released_at", "published_at",
        "lateness_us", "maybe_published", "last_error", "last_fire_time", "count",
    ]  # fmt: skip
    assert (fire["fire_id"], fire["kind"]) == (fire_id, "manual")
    assert "manual" in cronally.ok("history", "a", "--since", "1h")
    for number in range(4):
        cronally.ok("run", "a", "--idempotency-key", str(number))
    assert len(cronally.json("history", "--limit", "3")["fires"]) == 3
    assert (
        cronally.json("history", "--state", "expired", "--state", "rejected", "--reason", "paused")["fires"]
        == []
    )
    assert "'0' is not 1 or more" in cronally.bad("history", "--limit", "0")
    assert "published" in cronally.bad("history", "--state", "done")
    assert "empty" in cronally.bad("history", "")
    assert "since" in cronally.bad("history", "--since", "soon")


def test_a_health_check_fails_with_the_reason_while_the_daemon_is_not_ready(cronally):
    assert "ready" in cronally.ok("status", "--ready")
    cronally.daemon.reporting.set_ready("it is stopping")
    assert cronally("status", "--ready")[0::2] == (1, "cronally: it is not ready: it is stopping\n")
    code, out, err = cronally("status", "--ready", "--json")
    assert (code, json.loads(out)["is_ready"], err) == (
        1,
        False,
        "cronally: it is not ready: it is stopping\n",
    )
    assert cronally("status")[0] == 0


def test_status(cronally):
    assert "ready" in cronally.ok("status")
    assert cronally.json("status")["is_ready"] is True


# --- pause, resume, run, rm -------------------------------------------------------------------------------------


def test_pause_and_resume(cronally):
    cronally.daemon.add("a")
    assert (
        cronally.ok("pause", "a", "--until", "2h", "--note", "moving")
        == "paused until 2026-11-23T10:59:30Z: a\n"
    )
    assert "paused until" in cronally.ok("ls")
    assert cronally.ok("pause", "a") == "paused a\n"
    assert cronally.ok("resume", "a").startswith("resumed a\n  Mon 2026-11-23 09:00:00")
    assert cronally.json("pause", "a")["paused"][0]["schedule"]["paused"]["until"] is None
    assert cronally.json("resume", "a")["resumed"][0]["name"] == "a"
    assert "'soon' is no instant" in cronally.bad("pause", "a", "--until", "soon")


def test_rm_and_pause_say_how_many_fires_remain(cronally, monkeypatch):
    for name in "abc":
        cronally.daemon.add(name)

    async def remove_many(names, *, drop_pending, **__):
        return [DoneAtOnce(name, 0 if drop_pending else 3) for name in names]

    monkeypatch.setattr(cronally.daemon.service, "remove_many", remove_many)
    assert (
        cronally.ok("rm", "a")
        == "removed a; 3 pending fires remain to be published (--drop-pending skips them)\n"
    )
    assert cronally.ok("rm", "a", "--drop-pending") == "removed a\n"
    assert cronally.json("rm", "a", "b") == {
        "removed": [{"name": "a", "pending": 3}, {"name": "b", "pending": 3}]
    }


def test_rm_goes_on_after_a_name_that_is_not_there(cronally):
    for name in "abc":
        cronally.daemon.add(name)
    code, out, err = cronally("rm", "a", "nothing", "b", "a")
    assert (code, out) == (4, "removed a\nremoved b\n")
    assert "nothing" in err
    assert [schedule["name"] for schedule in cronally.json("ls")["schedules"]] == ["c"]


@pytest.mark.parametrize(
    ("trouble", "code", "says"),
    [
        (StoreError("the disk is full"), 1, "before this\ncronally: the disk is full\n"),
        (
            AdminError("it went away"),
            3,
            "before this; those that were being asked for may be, too\ncronally: it went away\n",
        ),
        (KeyboardInterrupt(), 130, "before this; those that were being asked for may be, too\n"),
    ],
)
def test_what_was_done_before_a_change_of_many_breaks_off_is_told(cronally, monkeypatch, trouble, code, says):
    names = [f"job-{number:03}" for number in range(250)]
    for name in names:
        cronally.daemon.add(name)
    real = Client.many

    def breaking_off(client, *words, **wish):
        yield next(real(client, *words, **wish))
        raise trouble

    monkeypatch.setattr(Client, "many", breaking_off)
    found, out, err = cronally("rm", "job-*", "--yes")
    assert (found, out.count("\n")) == (code, 200)
    assert err == f"cronally: 200 of 250 schedules were removed {says}"
    assert len(cronally.json("ls")["schedules"]) == 50
    monkeypatch.setattr(Client, "many", real)
    assert cronally.ok("rm", "job-*", "--yes", "-q") == ""


def test_what_was_done_is_told_beside_what_was_refused(cronally, monkeypatch):
    error = wire.error_to_plain(FieldError("until", "is past in its zone"))

    def refusing_one(_client, _action, names, **_):
        yield wire.ManyReply(done=[{"name": names[1], "pending": 0}], refused=[{"name": names[0], **error}])

    for name in "ab":
        cronally.daemon.add(name)
    monkeypatch.setattr(Client, "many", refusing_one)
    assert cronally("rm", "a", "b") == (2, "removed b\n", "cronally: until: is past in its zone\n")


def test_a_machine_that_fails_is_told_after_what_the_others_have_done(cronally, monkeypatch):
    error = wire.error_to_plain(NotReady("machine c is over"))["error"]
    monkeypatch.setattr(
        Client,
        "_call",
        lambda *_, **__: {"done": [{"name": "a", "pending": 0}], "refused": [], "error": error},
    )
    assert cronally("rm", "a", "b") == (
        1,
        "removed a\n",
        "cronally: 1 of 2 schedules were removed before this\ncronally: machine c is over\n",
    )


def test_run(cronally):
    cronally.daemon.add("a")
    first = cronally.json("run", "a", "--idempotency-key", "k")
    assert first == {"fire_id": "a@2026-11-23T08:59:30Z+manual"}
    assert cronally.ok("run", "a", "--idempotency-key", "k").strip() == first["fire_id"]
    assert "idempotency key" in cronally.bad("run", "a", "--idempotency-key", "")
    assert "idempotency key" in cronally.bad("run", "a", "--idempotency-key", "é\n")


# --- retry and backfill -----------------------------------------------------------------------------------------


def typing(monkeypatch, text):
    """Let somebody at a terminal type *text*."""
    stdin = Stdin(text.encode())
    stdin.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", stdin)


@pytest.fixture
def refused(cronally):
    """Two schedules whose fires of nine o'clock SNS refused at the first attempt."""
    rig = cronally.daemon.rig
    rig.publisher.script = lambda _entry, attempt: REJECTED if attempt == 1 else PUBLISHED
    for name in ("a", "b"):
        cronally.daemon.add(name, "0 9 * * *")
    cronally.daemon.call(rig.clock.advance(60))
    return ["a@2026-11-23T09:00:00Z", "b@2026-11-23T09:00:00Z"]


def states(cronally):
    cronally.daemon.call(cronally.daemon.rig.clock.advance(1))
    return {fire["fire_id"]: fire["state"] for fire in cronally.json("history", "--limit", "10000")["fires"]}


def test_retry_by_fire_id(cronally, refused):
    assert cronally.ok("retry", refused[0], "--yes") == f"retried 1 fire: {refused[0]}\n"
    assert states(cronally) == {refused[0]: "published", refused[1]: "rejected"}
    assert refused[0] in cronally.bad("retry", *refused, "--yes", code=5)
    assert states(cronally)[refused[1]] == "rejected"
    assert cronally.json("retry", refused[1], "--yes") == {"retried": [refused[1]], "pending": []}


def test_retry_shows_what_it_is_about_and_asks(cronally, refused, monkeypatch):
    typing(monkeypatch, "n\n")
    code, out, err = cronally("retry", *refused)
    assert (code, "nothing was retried" in err) == (1, True)
    lines = out.split("\n")
    assert lines[0] == "2 fires to retry, of a (1), b (1)"
    assert [line.split()[:4] for line in lines[2:4]] == [
        ["2026-11-23T09:00:00Z", name, "scheduled", "rejected"] for name in "ab"
    ]
    assert "Retry 2 fires? [y/N]" in err
    assert set(states(cronally).values()) == {"rejected"}
    typing(monkeypatch, "y\n")
    assert f"retried 2 fires: {', '.join(refused)}\n" in cronally.ok("retry", *refused)
    assert set(states(cronally).values()) == {"published"}


def test_retry_with_json_prints_one_document_and_asks_on_stderr(cronally, refused, monkeypatch):
    typing(monkeypatch, "y\n")
    code, out, err = cronally("retry", *refused, "--json")
    assert (code, json.loads(out)) == (0, {"retried": refused, "pending": []})
    assert "2 fires to retry" in err


def test_off_a_terminal_nothing_is_asked_and_nothing_done(cronally, refused, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Stdin(b"y\n"))
    assert "off a terminal give --yes" in cronally.bad("retry", *refused)
    assert "off a terminal give --yes" in cronally.bad("retry", "--failed", "--since", "1d")
    words = ("backfill", "a", "--from", "2026-11-20T00:00:00Z", "--until", "2026-11-22T00:00:00Z")
    assert "off a terminal give --yes" in cronally.bad(*words)
    assert set(states(cronally).values()) == {"rejected"}


def test_retry_of_all_that_failed(cronally, refused):
    assert cronally("retry", "--failed", "--since", "2026-11-23T09:00:01Z", "--yes")[1:] == (
        "",
        "no fires were rejected or have expired there\n",
    )
    done = cronally.json("retry", "--failed", "--since", "1h", "--schedule", "b", "--yes")
    assert done["retried"] == [refused[1]]
    assert cronally.ok("retry", "--failed", "--since", "1h", "--yes") == f"retried 1 fire: {refused[0]}\n"
    assert set(states(cronally).values()) == {"published"}


def test_retry_of_many_goes_in_slices_oldest_first_and_shows_its_progress(cronally, monkeypatch):
    rig = cronally.daemon.rig
    rig.publisher.script = lambda _entry, _attempt: REJECTED
    cronally.daemon.add("a", "@every 1s")
    cronally.daemon.call(rig.clock.advance(2_500.9))
    rig.publisher.script = lambda _entry, _attempt: PUBLISHED
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    typing(monkeypatch, "y\n")
    code, out, err = cronally("retry", "--failed", "--since", "1h")
    assert (code, out.split("\n")[0]) == (0, "2,500 fires to retry, of a (2,500)")
    assert "the first: a@2026-11-23T08:59:31Z" in out
    assert "retried 2,500 fires: 2,500, from a@2026-11-23T08:59:31Z to a@2026-11-23T09:41:10Z" in out
    assert "2,000 of 2,500 retried" in err


def test_a_retry_that_is_broken_off_says_how_far_it_came(cronally, monkeypatch):
    rig = cronally.daemon.rig
    rig.publisher.script = lambda _entry, _attempt: REJECTED
    cronally.daemon.add("a", "@every 1s")
    cronally.daemon.call(rig.clock.advance(1_200.9))
    retry = Client.retry
    calls = []

    def second_fails(self, fires, **keys):
        calls.append(fires)
        if len(calls) == 2:
            raise StoreFull("no space is left")
        return retry(self, fires, **keys)

    monkeypatch.setattr(Client, "retry", second_fails)
    err = cronally.bad("retry", "--failed", "--since", "1h", "--yes", code=1)
    assert "1,000 of 1,200 fires are retried; run it again for the rest" in err
    assert "no space is left" in err


def test_a_pending_fire_is_named_and_no_error(cronally):
    rig = cronally.daemon.rig
    rig.publisher.script = lambda _entry, _attempt: TOPIC_GONE
    cronally.daemon.add("a", "0 9 * * *")
    cronally.daemon.call(rig.clock.advance(60))
    words = ("retry", "a@2026-11-23T09:00:00Z", "--yes")
    assert cronally.ok(*words) == "pending already: a@2026-11-23T09:00:00Z\n"
    assert cronally.json(*words) == {"retried": [], "pending": ["a@2026-11-23T09:00:00Z"]}


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        ([], 2, "--failed --since 2h"),
        (["--failed"], 2, "--failed needs --since"),
        (["--failed", "--since", "soon"], 2, "--since: 'soon' is no instant"),
        (["--failed", "--since", "1h", "a@2026-11-23T09:00:00Z"], 2, "not both"),
        (["--since", "1h", "a@2026-11-23T09:00:00Z"], 2, "--since belongs to --failed"),
        (["--schedule", "a", "a@2026-11-23T09:00:00Z"], 2, "--schedule belongs to --failed"),
        (["--failed", "--since", "1h", "--schedule", "aa"], 4, "did you mean 'a'?"),
        (["a"], 2, "is no fire id"),
        (["a@2026-11-23T09:00:00Z\udcff"], 2, "UTF-8"),
        (["a@2026-11-23T09:30:00Z"], 4, "cronally history a"),
        (["x-a@2026-11-23T09:00:00Z"], 4, "no fire is on record"),
    ],
)
def test_a_bad_retry(cronally, refused, words, code, part):
    assert part in cronally.bad("retry", "--yes", *words, code=code)
    assert set(states(cronally).values()) == {"rejected"}


SPAN = ("--from", "2026-11-20T00:00", "--until", "2026-11-22T23:59")


def test_backfill(cronally):
    cronally.daemon.add("a", "0 9 * * *", tz="America/New_York")
    ids = [f"a@2026-11-{day}T14:00:00Z+backfill" for day in (20, 21, 22)]
    assert cronally.ok("backfill", "a", *SPAN, "--dry-run").split("\n") == [
        "a has 3 slots there; 3 fires to make", *(f"  {id_}" for id_ in ids), "nothing was made (--dry-run)", "",
    ]  # fmt: skip
    assert states(cronally) == {}
    assert cronally.json("backfill", "a", *SPAN, "--yes") == {
        "name": "a", "tz": "America/New_York", "slots": 3, "backfilled": 3, "already": 0,
        "first": "2026-11-20T14:00:00Z", "last": "2026-11-22T14:00:00Z", "fires": ids,
    }  # fmt: skip
    assert states(cronally) == dict.fromkeys(reversed(ids), "published")
    again = cronally.ok("backfill", "a", *SPAN, "--yes")
    assert again == "a has 3 slots there; 0 fires made, 3 backfilled before\n"
    assert len(states(cronally)) == 3


def test_backfill_shows_what_it_is_about_and_asks(cronally, monkeypatch):
    cronally.daemon.add("a", "*/15 * * * *")
    typing(monkeypatch, "n\n")
    code, out, err = cronally("backfill", "a", *SPAN)
    assert (code, "nothing was made" in err) == (1, True)
    assert out.split("\n") == [
        "a has 288 slots there; 288 fires to make",
        "  the first Fri 2026-11-20 00:00:00 +00:00  2026-11-20T00:00:00Z",
        "  the last  Sun 2026-11-22 23:45:00 +00:00  2026-11-22T23:45:00Z",
        "",
    ]
    assert "Make 288 fires? [y/N]" in err
    assert states(cronally) == {}
    typing(monkeypatch, "y\n")
    assert cronally.ok("backfill", "a", *SPAN).endswith("made 288 fires\n")
    assert len(states(cronally)) == 288
    typing(monkeypatch, "")  # there is nothing to ask
    assert "0 fires to make, 288 backfilled before" in cronally.ok("backfill", "a", *SPAN)


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["a", "--from", "2026-11-20T00:00"], 2, "--until"),
        (["a", "--until", "2026-11-20T00:00"], 2, "--from"),
        (["a", "--from", "soon", "--until", "2026-11-20T00:00"], 2, "'soon' is no instant"),
        (["a", "--from", "2026-11-20T00:00", "--until", "2026-11-23T09:00"], 2, "still to come"),
        (["a", "--from", "2026-11-22T00:00", "--until", "2026-11-20T00:00"], 2, "ends before it begins"),
        (["a", *SPAN], 2, "--max 4320"),
        (["a", *SPAN, "--max", "4319"], 2, "4,320 slots"),
        (["a", *SPAN, "--max", "0"], 2, "--max"),
        (["a", *SPAN, "--max", "many"], 2, "not a whole number"),
        (["aa", *SPAN], 4, "did you mean 'a'?"),
    ],
)
def test_a_bad_backfill(cronally, words, code, part):
    cronally.daemon.add("a", "* * * * *")
    assert part in cronally.bad("backfill", *words, "--yes", code=code)
    assert states(cronally) == {}


def test_a_span_without_slots(cronally):
    cronally.daemon.add("a", "0 9 * * *")
    words = ("backfill", "a", "--from", "2026-11-20T10:00", "--until", "2026-11-20T11:00")
    assert cronally.ok(*words, "--yes") == "a has no slots there\n"
    assert cronally.json(*words, "--dry-run")["first"] is None


# --- next -------------------------------------------------------------------------------------------------------


def test_next_of_a_rule_needs_no_daemon(alone):
    words = ("next", "30 1 * * *", "--tz", "Europe/London", "--from", "2026-10-24T12:00:00Z", "--count", "2")
    assert alone.json(*words) == {"fires": ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]}
    assert alone.ok(*words).startswith(
        "Sun 2026-10-25 01:30:00 +01:00  2026-10-25T00:30:00Z  once: 01:30 comes twice; this is the first, and the only slot\n"
    )
    both = alone.json(*words, "--on-repeat", "both")
    assert both == {"fires": ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]}
    until = alone.json("next", "@hourly", "--from", "2026-01-01T00:00:00Z", "--until", "2026-01-01T02:00:00Z")
    assert until == {"fires": ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z"]}
    assert len(alone.json("next", "H H * * *", "--name", "nightly")["fires"]) == 10
    rate = alone.json(
        "next",
        "rate(5 minutes)",
        "--dialect",
        "eventbridge",
        "--from",
        "2026-01-01T00:00:00Z",
        "--count",
        "1",
    )
    assert rate == {"fires": ["2026-01-01T00:05:00Z"]}
    assert alone("next", "@at 2020-01-01T00:00:00Z") == (0, "", "it has no fires there\n")


def test_next_marks_the_slots_that_a_change_of_the_clock_moved_merged_or_repeated(alone):
    def marks(when, start, *words):
        new_york = ("--tz", "America/New_York", "--from", start, "--count", "2", *words)
        return [line.partition("Z")[2].strip() for line in alone.ok("next", when, *new_york).splitlines()]

    moved = "moved: 02:30 does not exist on 2026-03-08 in America/New_York: the slot is at 03:00"
    assert marks("30 2 * * *", "2026-03-08T00:00:00Z") == [moved, ""]
    assert marks("0,30 2 * * *", "2026-03-08T00:00:00Z")[0].startswith("merged: 02:00 and 02:30 do not exist")
    twice = marks("30 1 * * *", "2026-11-01T00:00:00Z", "--on-repeat", "both")
    assert twice == ["repeated: the first 01:30 of two", "repeated: the second 01:30 of that day"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["61 * * * *"], "minute"),
        (["@daily", "--tz", "Nowhere"], "time zone"),
        (["H H * * *"], "name"),
        (["0", "9", "*", "*", "*"], "put the rule in quotes"),
        (["@daily", "--from", "soon"], "--from: 'soon'"),
        (["@daily", "--from", "0000-01-01T00:00:00Z"], "--from"),
        (["@daily", "--count", "0"], "--count"),
        (["@daily", "--on-gap", "x"], "on_gap"),
        (["name", "--tz", "UTC"], "belongs to a rule"),
    ],
)
def test_a_bad_next(alone, words, part):
    assert part in alone.bad("next", *words)


def test_next_of_a_schedule(cronally):
    cronally.daemon.add("a", tz="Asia/Tokyo")
    assert (
        cronally.ok("next", "a", "--count", "1") == "Tue 2026-11-24 09:00:00 +09:00  2026-11-24T00:00:00Z\n"
    )
    cronally.daemon.add("b", "@every 1m", paused=True)
    assert len(cronally.json("next", "b", "--count", "2500")["fires"]) == 2500
    until = cronally.json("next", "b", "--from", "2026-12-01T00:00:00Z", "--until", "2026-12-01T00:02:00Z")
    assert until == {"fires": ["2026-12-01T00:01:00Z", "2026-12-01T00:02:00Z"]}
    assert cronally.json("next", "b", "--until", "2020-01-01T00:00:00Z") == {"fires": []}
    cronally.daemon.add("c", "30 2 * * *", tz="America/New_York")
    assert "Z  moved: 02:30" in cronally.ok("next", "c", "--from", "2027-03-14T00:00:00Z", "--count", "1")


# --- explain ----------------------------------------------------------------------------------------------------


def test_explain_of_a_rule_needs_no_daemon(alone):
    out = alone.ok("explain", "H 9 * * mon-fri", "--tz", "Europe/London", "--name", "nightly")
    assert out.startswith("At 09:")
    assert "fixed: " in out
    plain = alone.json("explain", "30 2 * * *", "--tz", "America/New_York", "--on-gap", "skip")
    assert plain["class"] == "fixed"
    assert {"moved"} != {change["effect"] for change in plain["dst_changes"]} >= {"skipped"}
    later = alone.json("explain", "@daily", "--tz", "Europe/London", "--starts", "2031-01-01T00:00:00Z")
    assert later["dst_changes"][0]["at"] == "2031-03-30T01:00:00Z"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["61 * * * *"], "minute"),
        (["@daily", "--tz", "Nowhere"], "time zone"),
        (["0", "9", "*", "*", "*"], "put the rule in quotes: cronally explain"),
        (["@daily", "--starts", "soon"], "--starts: 'soon'"),
        (["name", "--on-gap", "skip"], "--on-gap belongs to a rule"),
    ],
)
def test_a_bad_explain(alone, words, part):
    assert part in alone.bad("explain", *words)


def test_explain_of_a_schedule(cronally):
    cronally.daemon.add("a", "30 1 * * *", tz="Europe/London", starts="2031-01-01T00:00:00Z")
    plain = cronally.json("explain", "a")
    assert plain["means"] == "At 01:30, every day, Europe/London time, from 2031-01-01T00:00:00Z on."
    assert plain["dst_changes"][0]["at"] == "2031-03-30T01:00:00Z"
    assert "'cronally ls'" in cronally.bad("explain", "zzz", code=4)


# --- why --------------------------------------------------------------------------------------------------------


def test_why_says_field_by_field_why_there_is_no_slot(cronally):
    cronally.daemon.add("a", "0 9 * * mon-fri", tz="America/New_York")
    assert cronally.ok("why", "a", "2026-11-28T09:00").split("\n") == [
        "a at Sat 2026-11-28 09:00:00 -05:00, which is 2026-11-28T14:00:00Z",
        "none: there is no slot: day-of-week does not match",
        "",
        "the rule '0 9 * * mon-fri' in America/New_York: day-of-week does not match",
        "  FIELD         RULE     INSTANT",
        "  minute        0        00             matches",
        "  hour          9        09             matches",
        "  day-of-month  *        28             matches",
        "  month         *        11 (November)  matches",
        "  day-of-week   mon-fri  Saturday       does not match",
        "  previous  Fri 2026-11-27 09:00:00 -05:00  2026-11-27T14:00:00Z",
        "  next      Mon 2026-11-30 09:00:00 -05:00  2026-11-30T14:00:00Z",
        "",
        "the journal has nothing on it",
        "",
    ]


def test_why_says_what_became_of_a_slot(cronally):
    daemon = cronally.daemon
    daemon.add("a", "0 9 13 * mon", starts="2026-11-01T00:00:00Z")
    daemon.call(daemon.rig.clock.advance(60))
    plain = cronally.json("why", "a", "2026-11-23T09:00:00Z")
    assert (plain["fate"], plain["is_slot"], plain["local"]) == (
        "published",
        True,
        "2026-11-23T09:00:00+00:00",
    )
    assert plain["days"] == "a day may match either day field"
    assert [(fire["fire_id"], fire["state"]) for fire in plain["fires"]] == [
        ("a@2026-11-23T09:00:00Z", "published")
    ]
    assert plain["fields"][2] == {"field": "day-of-month", "written": "13", "value": "23", "is_match": False}
    assert "published: SNS accepted it" in cronally.ok("why", "a", "2026-11-23 09:00")
    assert cronally.json("why", "a", "2026-11-30T09:00:00Z")["fate"] == "upcoming"


def test_why_reads_local_times_that_do_not_exist_or_come_twice(cronally):
    cronally.daemon.add("a", "30 1 * * *", tz="Europe/London")
    assert "does not exist there; this is the first instant" in cronally.ok("why", "a", "2027-03-28T01:30")
    twice = cronally.json("why", "a", "2027-10-31T01:30")
    assert (twice["at"], twice["dst"]) == (
        "2027-10-31T00:30:00Z",
        "01:30 comes twice; this is the first, and the only slot",
    )
    assert "UTC offset" in twice["asked_as"]


def test_a_bad_why(cronally):
    cronally.daemon.add("a")
    assert "write 2026-12-24T18:00:00Z" in cronally.bad("why", "a", "soon")
    assert "'cronally ls'" in cronally.bad("why", "zzz", "2026-11-23T09:00:00Z", code=4)


# --- forecast ---------------------------------------------------------------------------------------------------


def test_forecast_asks_the_daemon_and_draws(cronally, tmp_path):
    cronally.daemon.add("a", "0 12 * * *")
    assert "at most 1\n" in cronally.ok("forecast")
    file = tmp_path / "f.svg"
    plain = json.loads(cronally.ok("forecast", "--svg", str(file), "--json"))
    assert (plain["starts_at"], plain["loads"][0]["minutes"][180]) == ("2026-11-23T09:00:00Z", 1)
    assert "2026-11-23 12:00: 1" in file.read_text()
    assert "cannot be written: is a directory" in cronally.bad("forecast", "--svg", str(tmp_path))


# --- completion -------------------------------------------------------------------------------------------------


def completed(cronally, monkeypatch, line):
    """What a shell is offered for the last word of *line*."""
    words = line.split(" ")
    monkeypatch.setenv("_CRONALLY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    code, out, err = cronally()
    assert (code, err) == (0, "")
    return out.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("cronally res", ["resume", "restore"]),
        ("cronally pause --un", ["--until"]),
        ("cronally show a", ["a", "a.b", "a1"]),
        ("cronally rm b a", ["a", "a.b", "a1"]),
        ("cronally history zz", ["zz"]),
        ("cronally next zz", ["zz"]),
        ("cronally explain zz", ["zz"]),
        ("cronally mv x", []),
        ("cronally help res", ["resume", "restore"]),
        ("cronally help topics s", ["subscribe"]),
        ("cronally help add s", []),
    ],
)
def test_a_shell_completes_commands_options_and_names(cronally, monkeypatch, line, offered):
    for name in ("A", "a", "a.b", "a1", "b", "zz"):
        cronally.daemon.add(name)
    assert completed(cronally, monkeypatch, line) == offered


def test_a_shell_is_offered_two_hundred_names_at_most_and_none_without_a_daemon(
    cronally, monkeypatch, tmp_path
):
    cronally.daemon.call(cronally.daemon.rig.apply(*[{"name": f"n{n:03}", **ENTRY} for n in range(210)]))
    assert completed(cronally, monkeypatch, "cronally show n")[-1] == "n199"
    assert completed(cronally, monkeypatch, "cronally show n20")[0] == "n200"
    monkeypatch.setenv("CRONALLY_SOCKET", str(tmp_path / "none.sock"))
    assert completed(cronally, monkeypatch, "cronally show n") == []


def test_a_shell_is_offered_nothing_after_a_word_that_is_none(cronally, monkeypatch):
    monkeypatch.setenv("_CRONALLY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "cronally nonsense x")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert cronally() == (1, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_is_told(alone, shell):
    assert "_CRONALLY_COMPLETE=complete_" in alone.ok("completion", shell)


def test_a_shell_that_cannot_be_told(alone):
    assert "there are bash, zsh, fish" in alone.bad("completion", "tcsh")


def test_instants_are_read_in_the_zone_of_the_schedule(cronally):
    new = ["--topic", TOPIC, "--tz", "Asia/Tokyo"]
    cronally.ok("add", "a", "0 9 * * *", *new, "--starts", "2030-01-01", "--ends", "2030-12-31 18:00")
    shown = cronally.json("show", "a")
    assert (shown["starts"], shown["ends"]) == ("2029-12-31T15:00:00Z", "2030-12-31T09:00:00Z")
    cronally.ok("set", "a", "--ends", "2031-01-01")
    assert cronally.json("show", "a")["ends"] == "2030-12-31T15:00:00Z"
    cronally.ok("set", "a", "--tz", "UTC", "--ends", "2031-01-01")
    assert cronally.json("show", "a")["ends"] == "2031-01-01T00:00:00Z"
    cronally.ok("set", "a", "--ends", "")
    assert cronally.json("show", "a")["ends"] is None
    cronally.ok("add", "b", "0 9 * * *", *new)
    fires = cronally.json("next", "b", "--from", "2030-01-01", "--until", "2030-01-01 12:00")["fires"]
    assert fires == ["2030-01-01T00:00:00Z"]
    rule = cronally.json("next", "0 9 * * *", "--tz", "Asia/Tokyo", "--from", "2030-01-01", "--count", "1")
    assert rule["fires"] == fires
    assert cronally.json("why", "b", "yesterday 9:00")["at"] == "2026-11-22T00:00:00Z"
    cronally.ok("pause", "b", "--until", "tomorrow noon")
    assert cronally.json("show", "b")["paused"]["until"] == "2026-11-24T03:00:00Z"


# --- how much is said -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quiet", ["-q", "--quiet"])
def test_quiet_says_only_what_is_wrong_beside_the_data(cronally, quiet):
    assert cronally("ls", quiet) == (0, "", "")
    for words in (
        ["add", "a", "0 9 * * *", "--topic", TOPIC],
        ["set", "a", "--deadline", "1h"],
        ["pause", "a"],
        ["resume", "a"],
        ["mv", "a", "b"],
        ["retry", "--failed", "--since", "1h", "--yes"],
        ["rm", "b"],
    ):
        assert cronally(*words, quiet) == (0, "", "")
    code, out, err = cronally("rm", "b", quiet)
    assert (code, out) == (4, "")
    assert "no schedule is named 'b'" in err
    cronally.ok("add", "a", "0 9 31 4,5 *", "--topic", TOPIC, "--dialect", "unix")
    assert cronally.ok("run", "a", quiet).startswith("a@")


def test_quiet_goes_before_a_command_too_and_holds_for_that_one(cronally):
    new = ["add", "a", "0 9 * * *", "--topic", TOPIC]
    assert cronally("-q", *new) == (0, "", "")
    assert "unchanged a" in cronally.ok(*new)


def test_verbose_says_what_is_asked_of_the_daemon(cronally):
    cronally.daemon.add("a")
    for words in (["show", "a", "-v"], ["--verbose", "show", "a"], ["-v", "show", "a", "-v"]):
        code, out, err = cronally(*words)
        assert code == 0
        assert out == cronally.ok("show", "a")
        lines = err.splitlines()
        assert all(re.match(r" +\d+\.\d{3} s  ", line) for line in lines)
        assert [line.split("s  ", 1)[1] for line in lines][:2] == [
            f"connecting to {cronally.daemon.socket}",
            "GET /v1/schedules/a?fires=3",
        ]
        assert re.search(r"200, [\d,]+ bytes$", lines[-1])


def test_quiet_and_verbose_are_not_for_one_command(cronally):
    assert "cannot be together with --quiet" in cronally.bad("-q", "ls", "-v")
    assert "cannot be together with --verbose" in cronally.bad("ls", "-v", "-q")


@pytest.mark.parametrize(("words", "level"), [([], "INFO"), (["-q"], "WARNING"), (["-v"], "DEBUG")])
def test_of_a_daemon_they_say_how_much_it_logs(monkeypatch, words, level):
    levels = []
    monkeypatch.setattr("cronally.app.serve", lambda _, config_file, log_level: levels.append(log_level) or 0)
    assert main(["serve", *words]) == 0
    assert levels == [getattr(logging, level)]


# --- tail -------------------------------------------------------------------------------------------------------


def test_events_come_as_they_happen(cronally):
    cronally.daemon.add("a")
    cronally.daemon.add("b")
    with Client(cronally.daemon.socket) as client:
        events = client.events(schedule="a")
        cronally.ok("run", "b")
        fire_id = cronally.ok("run", "a").strip()
        fire = next(events)
        assert (fire.fire_id, fire.state) == (fire_id, "published")
        cronally.daemon.loop.call_soon_threadsafe(cronally.daemon.server.events.end)
        with pytest.raises(AdminError, match="has stopped"):
            next(events)


def test_a_listener_that_goes_is_forgotten_and_what_is_asked_wrongly_is_refused(cronally):
    with Client(cronally.daemon.socket) as client:
        client.events()
        assert len(cronally.daemon.service._live._feeds) == 1
    with Client(cronally.daemon.socket) as client, pytest.raises(UsageError, match="state"):
        client.events(state="done")
    cronally.daemon.call(cronally.daemon.rig.clock.advance(30))
    assert len(cronally.daemon.service._live._feeds) == 0


def test_a_name_that_is_no_text_can_be_listened_for(cronally):
    with Client(cronally.daemon.socket) as client:
        client.events(schedule="\udcff")  # as the command line gives a byte that is no UTF-8


def test_tail_prints_rows_or_lines(cronally, monkeypatch, capsys):
    cronally.daemon.add("a-1")
    cronally.daemon.add("b")
    real = Client.events

    def events(client, **query):
        found = real(client, **query)  # it listens
        for name in ("b", "a-1"):
            cronally.daemon.call(cronally.daemon.service.run(name, by="t"))
        cronally.daemon.call(
            cronally.daemon.rig.clock.advance(1)
        )  # the second time each has the next millisecond
        if query.get("schedule") is None:
            yield next(found)
            yield 7
        yield next(found)

    monkeypatch.setattr(Client, "events", events)
    code, out, err = cronally("tail", "a-*")
    assert code == 0
    lines = out.split("\n")
    assert lines[0].split()[:2] == ["FIRE", "TIME"]
    assert lines[1].split()[1:4] == ["a-1", "manual", "published"]
    assert (
        err
        == "warning: 7 fires are left out: they came faster than they are read; 'cronally history' has all\n"
    )
    assert json.loads(cronally.ok("tail", "a-1", "--json"))["schedule"] == "a-1"


# --- edit and mv ------------------------------------------------------------------------------------------------


@pytest.fixture
def editor(monkeypatch, tmp_path):
    """Let the editor be a sed script, one for each time that it is opened; return what it was shown."""
    shown = tmp_path / "shown"

    def use(*scripts):
        lines = [
            f'cat "$1" >> {shown}',
            f"n=$(cat {tmp_path}/n 2>/dev/null || echo 0)",
            f"echo $((n+1)) > {tmp_path}/n",
        ]
        lines += [f"[ $n -eq {number} ] && sed -i '{script}' \"$1\"" for number, script in enumerate(scripts)]
        program = tmp_path / "ed"
        program.write_text("#!/bin/sh\n" + "\n".join(lines) + "\nexit 0\n")
        program.chmod(0o755)
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", str(program))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        return shown

    return use


def left_over(tmp_path):
    return list(tmp_path.glob("cronally-*.yaml"))


def test_edit_makes_what_was_saved_effective(cronally, editor, tmp_path):
    cronally.ok("add", "a", "0 9 * * *", "--topic", TOPIC, "--note", "x")
    cronally.ok("pause", "a", "--note", "why")
    shown = editor("s/0 9/0 10/; /paused/,/note: why/d")
    out = cronally.ok("edit", "a")
    assert out.startswith("changed a\n  Mon 2026-11-23 10:00:00 +00:00")
    assert "schedules:\n  a:\n    when: 0 9 * * *\n" in shown.read_text()
    now = cronally.json("show", "a")
    assert (now["when"], now["note"], now["paused"]) == ("0 10 * * *", "x", False)
    assert left_over(tmp_path) == []


def test_edit_changes_nothing_if_nothing_is_saved(cronally, editor, tmp_path):
    cronally.ok("add", "a", "0 9 * * *", "--topic", TOPIC)
    editor()
    assert cronally.ok("edit", "a") == "unchanged a\n"
    assert cronally.json("edit", "a")["outcome"] == "unchanged"
    assert cronally.json("show", "a")["revision"] == 1
    assert left_over(tmp_path) == []


@pytest.mark.parametrize(
    ("script", "part"),
    [
        ("s/0 9/99 9/", "out of range"),
        ("s/  a:/  b:/", "'cronally mv'"),
        ("s/when: /when: [/", "line "),
        ("s/topic/topci/", "did you mean 'topic'"),
    ],
)
def test_what_was_edited_wrongly_is_kept(cronally, editor, tmp_path, script, part):
    cronally.ok("add", "a", "0 9 * * *", "--topic", TOPIC)
    editor(script)
    err = cronally.bad("edit", "a")
    assert part in err
    [file] = left_over(tmp_path)
    assert f"nothing was changed; what you wrote is in {file}" in err
    assert cronally.json("show", "a")["revision"] == 1


def test_what_was_edited_wrongly_can_be_edited_again(cronally, editor, tmp_path, monkeypatch):
    cronally.ok("add", "a", "0 9 * * *", "--topic", TOPIC)
    editor("s/0 9/99 9/", "s/99 9/7 9/")
    monkeypatch.setattr(sys, "stdin", type("Tty", (io.StringIO,), {"isatty": lambda _self: True})("y\n"))
    assert "changed a" in cronally.ok("edit", "a")
    assert cronally.json("show", "a")["when"] == "7 9 * * *"


def test_an_edit_overwrites_no_other(cronally, editor, tmp_path):
    cronally.ok("add", "a", "0 9 * * *", "--topic", TOPIC)
    document = {"when": "0 9 * * *", "topic": TOPIC, "note": "theirs"}
    editor("s/0 9/0 10/")
    program = tmp_path / "ed"
    put = tmp_path / "put.py"
    put.write_text(
        f"from cronally.admin.client import Client\nClient({cronally.daemon.socket!r}).put('a', {document!r})\n"
    )
    program.write_text(program.read_text().replace("exit 0", f"{sys.executable} {put}\nexit 0"))
    assert "changed" in cronally.bad("edit", "a", code=5)
    assert cronally.json("show", "a")["note"] == "theirs"
    assert len(left_over(tmp_path)) == 1


def test_an_editor_that_fails_or_is_none(cronally, monkeypatch, editor, tmp_path):
    cronally.ok("add", "a", "0 9 * * *", "--topic", TOPIC)
    editor()
    monkeypatch.setenv("EDITOR", "false")
    assert "the editor ended with 1" in cronally.bad("edit", "a")
    monkeypatch.setenv("EDITOR", "/no/such-editor --wait")
    assert "cannot be started (no such file or directory)" in cronally.bad("edit", "a")
    assert len(left_over(tmp_path)) == 1
    assert "no schedule is named 'none'" in cronally.bad("edit", "none", code=4)


def test_an_editor_that_leaves_no_file_changes_nothing(cronally, monkeypatch, editor):
    cronally.ok("add", "a", "0 9 * * *", "--topic", TOPIC)
    editor()
    monkeypatch.setenv("EDITOR", "rm")
    err = cronally.bad("edit", "a")
    assert "nothing was changed: what the editor left in" in err
    assert "(no such file or directory)" in err


def test_without_a_terminal_no_editor_is_guessed(cronally, monkeypatch, editor, tmp_path):
    cronally.ok("add", "a", "0 9 * * *", "--topic", TOPIC)
    editor()
    monkeypatch.delenv("EDITOR")
    assert "there is no terminal for an editor" in cronally.bad("edit", "a")
    assert left_over(tmp_path) == []


def test_mv_renames_and_says_what_moves_with_the_name(cronally):
    cronally.ok("add", "old", "H 9 * * *", "--topic", f"{TOPIC}.fifo", "--spread", "1h")
    out = cronally.ok("mv", "old", "new")
    before, after = out.split("\n")[0], out
    assert before == "renamed old to new"
    assert "the spread goes by the name" in after
    assert "its slots have moved: H goes by the name" in after
    assert "its message group on the FIFO topic is 'new' now" in after
    assert [one["name"] for one in cronally.json("ls")["schedules"]] == ["new"]
    assert cronally.json("show", "new")["revision"] == 2
    cronally.ok("add", "other", "0 9 * * *", "--topic", TOPIC)
    assert "already" in cronally.bad("mv", "new", "other", code=5)
    assert "already" in cronally.bad("mv", "new", "new", code=5)
    assert "not a schedule name" in cronally.bad("mv", "new", "a b")
    assert "no schedule is named 'old'" in cronally.bad("mv", "old", "x", code=4)


def test_history_answers_to_both_names(cronally):
    cronally.ok("add", "old", "0 9 * * *", "--topic", TOPIC)
    fire_id = cronally.ok("run", "old").strip()
    cronally.ok("mv", "old", "new")
    for name in ("old", "new"):
        assert [fire["fire_id"] for fire in cronally.json("history", name)["fires"]] == [fire_id]


# --- apply ------------------------------------------------------------------------------------------------------

ENTRY = {"when": "0 9 * * *", "topic": TOPIC}


def test_apply_takes_yaml_json_and_json_lines(cronally, tmp_path):
    yaml, plain, lines = tmp_path / "a.yaml", tmp_path / "a.json", tmp_path / "a.jsonl"
    yaml.write_text(
        f"schedules:\n  a: {{when: '0 9 * * *', topic: '{TOPIC}'}}\n  b: {{when: '@daily', topic: '{TOPIC}'}}\n"
    )
    plain.write_text(json.dumps({"schedules": {"a": ENTRY, "b": ENTRY}}))
    lines.write_text("".join(json.dumps({"name": name, **ENTRY}) + "\n" for name in "abc"))
    assert cronally.ok("apply", "-f", str(yaml)) == "created 2, changed 0, unchanged 0\n"
    assert cronally.ok("apply", "-f", str(yaml)) == "created 0, changed 0, unchanged 2\n"
    assert cronally.ok("apply", "-f", str(plain)) == "created 0, changed 1, unchanged 1\n"
    assert cronally.json("apply", "-f", str(lines), "--owner", "team") == {
        "created": 1, "changed": 0, "removed": 0, "unchanged": 2, "is_dry_run": False, "differences": [],
        "problems": [], "problem_count": 0,
    }  # fmt: skip
    assert cronally.json("show", "c")["owner"] == "team"


def test_nothing_in_a_file_steers_the_terminal(alone, tmp_path):
    file = tmp_path / "evil.yaml"
    file.write_text('schedules:\n  "\\e[2Jevil": {when: x, when: y}\n  "a\\x9bm": {"k\\e[m": .nan}\n')
    err = alone.bad("apply", "-f", str(file))
    assert not set("\x1b\x9b") & set(err)
    assert "evil" in err


def test_json_that_is_broken_off_is_json_still(cronally, monkeypatch):
    cronally.daemon.add("a")
    for words in (("ls", "a", "zzz"), ("export", "a", "zzz")):
        code, out, err = cronally(*words, "--json")
        assert code == 4
        assert "zzz" in err
        assert len(json.loads(out)["schedules"]) == 1


def test_an_agreed_prune_with_json_prints_nothing_else(cronally, tmp_path, monkeypatch):
    entry = {"when": "0 9 * * *", "topic": TOPIC}
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"schedules": {"a": entry, "b": entry}}))
    cronally.ok("apply", "-f", str(path))
    path.write_text(json.dumps({"schedules": {"a": entry}}))
    monkeypatch.setattr(sys, "stdin", type("Tty", (io.StringIO,), {"isatty": lambda _self: True})("y\n"))
    code, out, err = cronally("apply", "-f", str(path), "--prune", "--json")
    assert (code, json.loads(out)["removed"]) == (0, 1)
    assert "- b" in err


def test_an_export_is_utf_8_whatever_the_terminal_is(cronally):
    cronally.daemon.add("a", message="café €")
    for form in ((), ("--jsonl",), ("--json",)):
        done = subprocess.run(
            [sys.executable, "-m", "cronally", "export", *form],
            env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True, timeout=60,
        )  # fmt: skip
        text = done.stdout.decode()
        assert "café €" in text or "caf\\u00e9 \\u20ac" in text


@pytest.fixture
def file(tmp_path):
    """A file of schedules; call it with the entries to write them."""

    class File:
        path = tmp_path / "schedules.json"

        def __call__(self, **entries):
            self.path.write_text(json.dumps({"schedules": entries}))
            return str(self.path)

    return File()


def test_diff_shows_what_apply_would_do_and_does_nothing(cronally, file):
    same, other = ENTRY | {"tz": "Europe/London"}, ENTRY | {"note": "old", "deadline": "1h"}
    cronally.ok("apply", "-f", file(same=same, other=other, gone=ENTRY), "--owner", "team")
    new = file(same=same, other=ENTRY | {"when": "0 10 * * *"}, new=ENTRY | {"tz": "Asia/Tokyo"})
    words = ("diff", "-f", new, "--prune", "--owner", "team")
    code, out, _ = cronally(*words)
    assert code == 6
    assert out.split("\n") == [
        "- gone",
        "    when        0 9 * * *",
        f"    topic       {TOPIC}",
        "    fires       Mon 2026-11-23 09:00:00 +00:00, Tue 2026-11-24 09:00:00 +00:00, Wed 2026-11-25 09:00:00 +00:00",
        "+ new",
        "    when        0 9 * * *",
        "    tz          Asia/Tokyo",
        f"    topic       {TOPIC}",
        "    fires       Tue 2026-11-24 09:00:00 +09:00, Wed 2026-11-25 09:00:00 +09:00, Thu 2026-11-26 09:00:00 +09:00",
        "~ other",
        "    when        0 9 * * * -> 0 10 * * *",
        "    deadline    1h -> (default)",
        "    note        old -> (default)",
        "    fired       Mon 2026-11-23 09:00:00 +00:00, Tue 2026-11-24 09:00:00 +00:00, Wed 2026-11-25 09:00:00 +00:00",
        "    fires       Mon 2026-11-23 10:00:00 +00:00, Tue 2026-11-24 10:00:00 +00:00, Wed 2026-11-25 10:00:00 +00:00",
        "1 to create, 1 to change, 1 to remove; 1 unchanged",
        "",
    ]
    code, text, _ = cronally(*words, "--json")
    assert code == 6
    assert [(each["action"], each["name"]) for each in json.loads(text)["differences"]] == [
        ("remove", "gone"), ("create", "new"), ("change", "other"),
    ]  # fmt: skip
    assert cronally.ok("apply", "-f", new, "--dry-run", "--prune", "--owner", "team") == out
    assert [one["name"] for one in cronally.json("ls")["schedules"]] == ["gone", "other", "same"]
    cronally.ok("apply", "-f", new, "--prune", "--owner", "team", "--yes")
    assert cronally(*words)[:2] == (0, "nothing would change; 3 unchanged\n")


def test_a_diff_of_a_bad_file_is_no_difference(cronally, file):
    assert "unknown time zone" in cronally.bad("diff", "-f", file(a=ENTRY | {"tz": "Mars"}))


def test_a_pause_in_a_file_is_a_difference(cronally, file):
    cronally.ok("apply", "-f", file(a=ENTRY))
    code, out, _ = cronally("diff", "-f", file(a=ENTRY | {"paused": {"until": "2026-12-01T00:00:00Z"}}))
    assert code == 6
    assert "    paused      (not paused) -> until 2026-12-01T00:00:00Z\n" in out
    cronally.ok("pause", "a")
    assert cronally("diff", "-f", file(a=ENTRY))[0] == 0
    code, out, _ = cronally("diff", "-f", file(a=ENTRY | {"paused": False}))
    assert "    paused      until it is resumed -> (not paused)\n    fired       paused\n" in out


def test_prune_removes_only_what_an_apply_of_the_same_owner_made(cronally, file, monkeypatch):
    cronally.ok("add", "by-hand", "0 9 * * *", "--topic", TOPIC)
    cronally.ok("apply", "-f", file(theirs=ENTRY), "--owner", "them")
    cronally.ok("apply", "-f", file(a=ENTRY, b=ENTRY, c=ENTRY))
    cronally.ok("pause", "c")
    assert "off a terminal give --yes" in cronally.bad("apply", "-f", file(a=ENTRY), "--prune")
    assert "standard input is the file" in cronally.bad("apply", "-f", "-", "--prune")
    answers = type("Tty", (io.StringIO,), {"isatty": lambda _self: True})
    monkeypatch.setattr(sys, "stdin", answers("n\n"))
    code, out, err = cronally("apply", "-f", file(a=ENTRY), "--prune")
    assert (code, out.split("\n")[0]) == (1, "- b")
    assert err == "Remove 2 schedules? [y/N] nothing was applied\n"
    monkeypatch.setattr(sys, "stdin", answers("y\n"))
    assert "removed 2, unchanged 1" in cronally.ok("apply", "-f", file(a=ENTRY), "--prune")
    assert [one["name"] for one in cronally.json("ls")["schedules"]] == ["a", "by-hand", "theirs"]


@pytest.mark.parametrize("form", [(), ("--json",), ("--jsonl",)])
def test_an_export_that_is_applied_changes_nothing(cronally, file, tmp_path, form):
    cronally.ok(
        "apply", "-f",
        file(
            plain=ENTRY, **{"007": ENTRY | {"message": "true"}},
            full=ENTRY | {
                "tz": "America/New_York", "message": "line 1\n  line 2\u0085\U0001f600\x7f: #\n", "subject": "é",
                "attributes": {"team": "x", "n": {"type": "Number", "value": "5"}}, "catch_up": "all", "deadline": "90m",
                "spread": "30s", "priority": 0, "starts": "2026-01-01T00:00:00Z", "tags": ["yes", "2026-01-01"], "note": "- x",
            },
            resting=ENTRY | {"paused": {"until": "2026-12-01T00:00:00Z", "note": "why"}}, still=ENTRY | {"paused": True},
        ),
    )  # fmt: skip
    text = cronally.ok("export", *form)
    copy = tmp_path / f"copy{form[0].replace('--', '.') if form else '.yaml'}"
    copy.write_text(text)
    assert cronally.ok("diff", "-f", str(copy)) == "nothing would change; 5 unchanged\n"
    before = cronally.json("ls")["schedules"]
    cronally.ok("rm", "*", "--yes")
    assert "created 5" in cronally.ok("apply", "-f", str(copy))
    kept = (
        "name",
        "when",
        "tz",
        "message",
        "attributes",
        "tags",
        "note",
        "spread",
        "deadline",
        "priority",
        "starts",
    )
    for old, new in zip(before, cronally.json("ls")["schedules"], strict=True):
        assert {key: old[key] for key in kept} == {key: new[key] for key in kept}
        assert bool(old["paused"]) is bool(new["paused"])


def test_an_export_of_some(cronally, file):
    assert cronally.ok("export") == "schedules: {}\n"
    assert json.loads(cronally.ok("export", "--json")) == {"schedules": {}}
    cronally.ok(
        "apply",
        "-f",
        file(a=ENTRY | {"tags": ["x"]}, b=ENTRY, ab=ENTRY | {"tags": ["x", "y"]}),
        "--owner",
        "team",
    )
    cronally.ok("add", "axe", "0 9 * * *", "--topic", TOPIC)

    def exported(*words):
        return list(json.loads(cronally.ok("export", "--json", *words))["schedules"])

    assert exported("a*", "b") == ["a", "ab", "axe", "b"]
    assert exported("--tag", "x") == ["a", "ab"]
    assert exported("--tag", "x", "--tag", "y") == ["ab"]
    assert exported("--owner", "team") == ["a", "ab", "b"]
    assert "two forms" in cronally.bad("export", "--json", "--jsonl")
    code, _, err = cronally("export", "zzz*")
    assert (code, err) == (4, "cronally: no schedule matches 'zzz*'; 'cronally ls' lists those there are\n")


def test_a_name_that_is_not_there_suggests_the_nearest(cronally):
    cronally.daemon.add("nightly")
    assert (
        cronally.bad("ls", "nigthly", code=4)
        == "cronally: no schedule is named 'nigthly'; did you mean 'nightly'?\n"
    )
    assert cronally.bad("export", "nigthly", code=4).endswith("did you mean 'nightly'?\n")


def test_an_option_that_there_is_not_suggests_the_nearest(alone):
    err = alone.bad("set", "a", "--messsage", "x")
    assert err.startswith("cronally: no such option: --messsage; did you mean '--message'?\n")
    assert alone.bad("--sockt", "x", "ls").startswith(
        "cronally: no such option: --sockt; did you mean '--socket'?\n"
    )


def test_globs_and_tags_select_for_every_bulk_command(cronally, file, monkeypatch):
    cronally.ok("apply", "-f", file(a1=ENTRY | {"tags": ["x"]}, a2=ENTRY, b=ENTRY | {"tags": ["x"]}))
    assert [one["name"] for one in cronally.json("ls", "a*")["schedules"]] == ["a1", "a2"]
    assert [one["name"] for one in cronally.json("ls", "a*", "--tag", "x")["schedules"]] == ["a1"]
    assert len(cronally.json("ls", "--limit", "2")["schedules"]) == 2
    assert [each["name"] for each in cronally.json("pause", "--tag", "x")["paused"]] == ["a1", "b"]
    assert [each["name"] for each in cronally.json("resume", "a?", "b")["resumed"]] == ["a1", "a2", "b"]
    assert "at least one" in cronally.bad("rm")
    assert "off a terminal give --yes" in cronally.bad("rm", "a*")
    assert "no schedule has the tag 'zzz'" in cronally.bad("pause", "--tag", "zzz", code=4)
    answers = type("Tty", (io.StringIO,), {"isatty": lambda _self: True})
    monkeypatch.setattr(sys, "stdin", answers("\n"))
    assert cronally("rm", "a*") == (1, "a1\na2\n", "Remove these 2 schedules? [y/N] nothing was removed\n")
    assert cronally.ok("rm", "a*", "--yes") == "removed a1\nremoved a2\n"
    assert [one["name"] for one in cronally.json("ls")["schedules"]] == ["b"]


@pytest.mark.parametrize(
    "data",
    [
        f"schedules: {{a: {{when: '@daily', topic: '{TOPIC}'}}}}",
        json.dumps({"schedules": {"a": ENTRY}}, indent=2),
        json.dumps({"name": "a", **ENTRY}),
    ],
    ids=["yaml", "json", "lines"],
)
def test_apply_reads_standard_input_and_knows_it_by_its_content(cronally, monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", Stdin(data.encode()))
    assert cronally.ok("apply", "-f", "-").startswith("created 1,")


def test_apply_shows_every_problem_with_its_place_and_applies_nothing(cronally, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(
        f"schedules:\n  good: {{when: '@daily', topic: '{TOPIC}'}}\n  zone: {{when: '@daily', topic: '{TOPIC}', tz: Mars}}\n"
        f"  rule:\n    when: '61 * * * *'\n    topic: '{TOPIC}'\n  key: {{when: '@daily', topic: '{TOPIC}', topci: x}}\n"
    )
    lines = cronally.bad("apply", "-f", str(file)).split("\n")
    assert lines[0].startswith(f"{file}:3: zone: unknown time zone 'Mars'")
    assert lines[1].startswith(f"{file}:4: rule: 61 is out of range")
    assert lines[2].startswith(f"{file}:7: key: topci: no such key; did you mean 'topic'?")
    assert lines[3] == "cronally: nothing was applied; correct the file and apply it again"
    assert cronally.json("ls") == {"schedules": []}
    code, out, _ = cronally("apply", "-f", str(file), "--json")
    assert code == 2
    assert [(p["line"], p["name"]) for p in json.loads(out)["problems"]] == [
        (3, "zone"),
        (4, "rule"),
        (7, "key"),
    ]


def test_apply_shows_problems_of_json_lines_on_their_lines(cronally, tmp_path):
    file = tmp_path / "bad.jsonl"
    good = json.dumps({"name": "a", **ENTRY})
    file.write_text(f'{good}\n\n{good}\n{{"name": "b", "when": 5}}\nnonsense\n{{"name": "c", "name": "d"}}\n')
    err = cronally.bad("apply", "-f", str(file)).split("\n")
    assert [line.split(": ")[0].rpartition(":")[2] for line in err[:4]] == ["3", "4", "5", "6"]
    assert err[0].startswith(f"{file}:3: a: ")


def test_apply_shows_fifty_problems_and_counts_the_others(cronally, tmp_path):
    file = tmp_path / "bad.jsonl"
    file.write_text("{}\n" * 1_200)
    lines = cronally.bad("apply", "-f", str(file)).strip().split("\n")
    assert len(lines) == 52
    assert lines[50] == "and 1,150 more"
    file = tmp_path / "bad.yaml"
    file.write_text("schedules:\n" + "".join(f"  a{number}: 5\n" for number in range(60)))
    assert "and 10 more" in cronally.bad("apply", "-f", str(file))


@pytest.mark.parametrize(
    ("words", "part"),
    [(["-f", "/nowhere/x"], "cannot be read"), (["-f", "/"], "cannot be read"), ([], "--file"), (["-f", "/dev/null"], "empty"),
     (["-f", "/dev/null", "--owner", "a b"], "")],
)  # fmt: skip
def test_a_bad_apply(cronally, words, part):
    assert part in cronally.bad("apply", *words)


@pytest.mark.parametrize("command", [["apply", "--prune", "--yes"], ["diff", "--prune"], ["apply"]])
def test_an_empty_file_of_lines_is_refused_and_prunes_nothing(cronally, tmp_path, file, command):
    cronally.ok("apply", "-f", file(a=ENTRY))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    err = cronally.bad(*command, "-f", str(empty))
    assert err.startswith(
        f"{empty}:1: the file is empty; if nothing is what it shall hold, write 'schedules: {{}}'\n"
    )
    assert len(cronally.json("ls")["schedules"]) == 1
    empty.rename(tmp_path / "none.yaml").write_text("schedules: {}")
    assert cronally.ok("apply", "-f", str(tmp_path / "none.yaml"), "--prune", "--yes").startswith(
        "created 0, changed 0, removed 1"
    )


def test_apply_shows_its_progress_on_a_terminal(cronally, tmp_path, monkeypatch):
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps({"name": "a", **ENTRY}) + "\n")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    code, _, err = cronally("apply", "-f", str(file))
    assert (code, err) == (0, "")  # it is over before it could be read
    monkeypatch.setattr("cronally.cli.progress._SHOWN_AFTER_S", 0.0)
    code, _, err = cronally("apply", "-f", str(file))
    bar = f"[{'#' * 31}] 100%  1 schedule sent, waiting for the daemon"
    assert (code, err) == (0, f"\r{bar}\x1b[K\r\x1b[K")
    assert len(bar) == 79


# --- serve and demo ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "flags", "config"),
    [
        ([], {}, None),
        (
            [
                "--store",
                "sqlite:/x",
                "--socket",
                "/s",
                "--local",
                "--local-port",
                "4577",
                "--config",
                "c",
                "--trust-clock",
            ],
            {"store": "sqlite:/x", "socket": "/s", "local": True, "local_port": 4577, "trust_clock": True},
            "c",
        ),
    ],
)
def test_serve_hands_over_what_is_given(alone, monkeypatch, words, flags, config):
    served = []

    def serve(given, *, config_file, log_level):
        served.append((given, config_file))
        return 0

    monkeypatch.setattr("cronally.app.serve", serve)
    assert alone.ok("serve", *words) == ""
    nothing = dict.fromkeys(("store", "socket", "local", "local_port", "trust_clock"))
    assert served == [(nothing | flags, config)]


@pytest.mark.parametrize(
    "words", [["serve", "--local-port", "x"], ["demo", "--for", "0"], ["demo", "--for", "nan"]]
)
def test_a_bad_number(alone, words):
    assert words[1] in alone.bad(*words)


# --- the whole --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [["ls"], ["show", "a"], ["add", "a", "@daily", "--topic", TOPIC], ["run", "a"], ["rm", "a"], ["pause", "a"],
     ["resume", "a"], ["set", "a", "--note", "n"], ["history"], ["status"], ["next", "a"], ["explain", "a"],
     ["why", "a", "2026-11-23T09:00"], ["audit"]],
)  # fmt: skip
def test_without_a_daemon_every_command_says_how_to_start_one(alone, words):
    err = alone.bad(*words, code=3)
    assert "no cronally daemon answers at" in err
    assert "cronally serve" in err
    assert err.count("\n") == 1


def test_a_socket_can_be_named_before_and_after_the_command(cronally, monkeypatch):
    socket = cronally.daemon.socket
    monkeypatch.setenv("CRONALLY_SOCKET", "/nowhere/x")
    assert cronally.ok("ls", "--socket", socket) == ""
    assert cronally.ok("--socket", socket, "ls") == ""
    assert cronally.ok("--socket", "/nowhere/y", "ls", "--socket", socket) == ""
    assert "/nowhere/x" in cronally.bad("ls", code=3)
    assert "at most 107" in cronally.bad("ls", "--socket", "/" + "x" * 120)
    assert "empty" in cronally.bad("ls", "--socket", "")


def test_version(alone):
    assert alone.ok("--version").startswith("cronally ")
    assert set(json.loads(alone.ok("--version", "--json"))) == {"version", "tzdata", "python"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples(alone, name):
    words = name.split()
    out = alone.ok(*words, "--help")
    assert "Examples:\n" in out
    assert f"cronally {name}" in out
    assert alone.ok(*words, "-h") == out


def test_help_lists_the_commands(alone):
    out = alone.ok("--help")
    assert all(f"  {name} " in out for name in COMMANDS if " " not in name)
    assert "..." not in out.partition("Commands:")[2]
    assert "Usage:" in alone.bad()


@pytest.mark.parametrize("words", [["add"], ["topics"], ["topics", "subscribe"], []])
def test_help_of_a_command_is_what_its_option_prints(alone, words):
    assert alone.ok("help", *words) == alone.ok(*words, "--help")


@pytest.mark.parametrize(
    ("words", "part"),
    [(["ad"], "no such command: 'ad'; did you mean 'add'?"), (["topics", "lss"], "did you mean 'ls'?"),
     (["add", "x"], "there is no command 'x' of 'cronally add'"), (["--", "-x"], "there is no command '-x' of 'cronally'")],
)  # fmt: skip
def test_help_of_what_is_no_command(alone, words, part):
    assert part in alone.bad("help", *words)


@pytest.fixture
def grouped(alone, monkeypatch):
    """A terminal with a group of commands, ``pets``; what is fed is in its list ``fed``."""
    fed = []

    def pets_feed_command(name: o.Name, socket: o.Socket = None) -> int:
        """Feed a pet."""
        fed.append((name, socket))
        return 7

    def pets_ls_command() -> None:
        """List the pets."""

    module = ModuleType("cronally.cli.pets", "Animals that live with people.")
    module.EXAMPLES = {name: f"cronally {name}" for name in ("pets", "pets feed", "pets ls.all")}
    module.pets_feed_command, module.pets_ls_all_command = pets_feed_command, pets_ls_command
    monkeypatch.setitem(sys.modules, "cronally.cli.pets", module)
    for name, text in {"pets": "Keep pets.", "pets feed": "Feed one.", "pets ls.all": "List all."}.items():
        monkeypatch.setitem(COMMANDS, name, ("pets", text))
    alone.fed = fed
    return alone


def test_a_group_has_commands_of_its_own(grouped):
    assert grouped("pets", "feed", "rex", "--socket", "/s")[0] == 7
    assert grouped("--socket", "/t", "pets", "feed", "rex")[0] == 7
    assert grouped.fed == [("rex", "/s"), ("rex", "/t")]
    grouped.ok("pets", "ls.all")
    out = grouped.ok("pets", "--help")
    assert out.startswith("Usage: cronally pets [OPTIONS] COMMAND [ARGS]")
    assert "Animals that live with people." in out
    assert "  feed    Feed one.\n  ls.all  List all." in out
    assert "Examples:\n    cronally pets" in out
    everything = grouped.ok("--help")
    assert re.search(r"^  pets +Keep pets\.$", everything, re.MULTILINE)
    assert "feed" not in everything


@pytest.mark.parametrize(
    ("words", "part"),
    [(["pets"], "List all."), (["pets", "fed"], "no such command: 'pets fed'; did you mean 'feed'?"),
     (["pets", "xyz"], "there are feed, ls.all"), (["feed", "rex"], "no such command: 'feed'"),
     (["pets feed", "rex"], "no such command: 'pets feed'"), (["pets", "--feed"], "--feed")],
)  # fmt: skip
def test_a_group_refuses_other_words(grouped, words, part):
    assert part in grouped.bad(*words)


@pytest.mark.parametrize(
    ("words", "part"),
    [(["lss"], "did you mean 'ls'?"), (["xyz"], "there are serve"), (["ls", "--jsno"], "--json"), (["--jsno"], "--json"),
     (["--json"], "--version"), (["status", "extra"], "unexpected extra argument"), (["show"], "NAME")],
)  # fmt: skip
def test_words_that_are_not_understood(alone, words, part):
    err = alone.bad(*words)
    assert part in err
    assert err.startswith("cronally: ")
    assert "--help'" in err


def test_a_bug_is_called_one(cronally, monkeypatch):
    def broken(*_, **__):
        raise KeyError("oops")

    monkeypatch.setattr(Client, "status", broken)
    err = cronally.bad("status", code=70)
    assert "this is a bug: KeyError: 'oops'" in err
    assert "report" in err
    monkeypatch.setenv("CRONALLY_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["status"])


def test_a_bug_of_the_daemon_is_called_one_too(cronally, monkeypatch):
    async def broken():
        raise KeyError("oops")

    monkeypatch.setattr(cronally.daemon.reporting, "status", broken)
    assert "the daemon's log" in cronally.bad("status", code=70)


def test_an_interrupt_is_quiet(cronally, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "status", interrupted)
    assert cronally.bad("status", code=130) == ""


def test_a_reader_that_goes_away_is_no_error(cronally):
    for number in range(300):
        cronally.daemon.add(f"schedule-{number}", message="x" * 1000)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "cronally", "ls", "--json"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        timeout=20,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_what_the_terminal_cannot_show_is_escaped(cronally):
    cronally.daemon.add("a", note="é…")
    environ = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    for words in (["show", "a"], ["show", "a", "--json"]):
        done = subprocess.run(
            [sys.executable, "-m", "cronally", *words],
            env=environ,
            capture_output=True,
            check=False,
            timeout=20,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"\\u2026" in done.stdout
    assert json.loads(done.stdout)["note"] == "é…"


def test_listing_imports_nothing_heavy(cronally):
    cronally.daemon.add("a")
    code = (
        "import sys; from cronally.cli.main import main; main(['ls']); "
        "print([m for m in ('aiohttp', 'asyncio', 'botocore', 'pydantic', 'rich', 'yaml', 'croniter') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )
    assert done.stdout.endswith("[]\n"), done.stdout
