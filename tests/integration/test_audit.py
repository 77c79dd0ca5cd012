"""``cronally audit``: a terminal, a socket, and what was done through it."""

from __future__ import annotations

import json
import os
import pwd

import pytest

from cronally.errors import FieldError, ScheduleNotFound
from support.rig import TOPIC

UID = os.getuid()
ME = f"uid {UID} ({pwd.getpwuid(UID).pw_name})"
AT = "2026-11-23T08:59:30Z"


def test_a_schedules_life_is_told_from_its_end(cronally, tmp_path):
    cronally.ok("add", "old", "0 9 * * *", "--topic", TOPIC, "--tag", "x")
    cronally.ok("set", "old", "--note", "n" * 100, "--tz", "Europe/London")
    cronally.ok("mv", "old", "new")
    cronally.ok("pause", "new", "--until", "2026-12-01T00:00:00Z", "--note", "holidays", "--drop-pending")
    cronally.ok("resume", "new")
    fire_id = cronally.ok("run", "new").strip()
    cronally.ok("backfill", "new", "--from", "2026-11-21T00:00", "--until", "2026-11-22T23:00", "--yes")
    cronally.ok("rm", "new")
    heads, *lines = cronally.ok("audit", "old").splitlines()
    assert heads.split() == ["WHEN", "WHO", "ACTION", "SCHEDULE", "REVISION", "CHANGED"]
    assert {line.split("  ")[0] for line in lines} == {AT}
    assert all(ME in line for line in lines)
    told = [" ".join(line.partition(ME)[2].split()) for line in lines]
    note = f"{'n' * 60}… (100 characters)"
    # What is done in one millisecond is told by kind; here the clock stands still.
    assert sorted(told) == sorted(
        [
            f'rm new 3 removed; when: 0 9 * * *; tz: Europe/London; topic: {TOPIC}; tags: ["x"]; note: {note}',
            "backfill new 3 2 fires: new@2026-11-21T09:00:00Z+backfill … new@2026-11-22T09:00:00Z+backfill",
            f"run new 3 {fire_id}",
            "resume new 3 paused: until 2026-12-01T00:00:00Z, “holidays” -> (not paused)",
            "pause new 3 paused: (not paused) -> until 2026-12-01T00:00:00Z, “holidays”; pending fires dropped",
            "mv new 3 name: old -> new",
            f"set old 2 tz: (default) -> Europe/London; note: (default) -> {note}",
            f'add old 1 created; when: 0 9 * * *; topic: {TOPIC}; tags: ["x"]',
        ]
    )  # fmt: skip


def test_json_has_whole_documents(cronally):
    cronally.ok("add", "a", "0 9 * * *", "--topic", TOPIC, "--message", "m" * 300, "--paused")
    cronally.ok("set", "a", "--note", "n")
    set_, add = cronally.json("audit", "--action", "add,set")["changes"]
    document = {"when": "0 9 * * *", "topic": TOPIC, "message": "m" * 300}
    paused = {"since": AT, "until": None, "note": None}
    assert add == {
        "at": AT, "by": ME, "action": "add", "schedule": "a", "revision": 1,
        "before": None, "after": {**document, "paused": paused}, "detail": {},
    }  # fmt: skip
    assert set_ == {
        "at": AT, "by": ME, "action": "set", "schedule": "a", "revision": 2,
        "before": document, "after": {**document, "note": "n"}, "detail": {},
    }  # fmt: skip


def test_an_apply_is_told_with_its_owner(cronally, tmp_path):
    def apply(*schedules, owner="web"):
        file = tmp_path / "f.json"
        document = {name: {"when": "0 9 * * *", "topic": TOPIC, **keys} for name, keys in schedules}
        file.write_text(json.dumps({"schedules": document}))
        cronally.ok("apply", "-f", str(file), "--owner", owner, "--prune", "--yes")

    cronally.ok("add", "mine", "0 9 * * *", "--topic", TOPIC)
    apply(("mine", {}), ("a", {}), ("b", {"paused": True}))
    apply(("a", {"note": "x"}), ("b", {"paused": False}))
    apply(("a", {"note": "x"}), owner="api")
    told = [
        (change["action"], change["schedule"], change["before"], change["after"], change["detail"])
        for change in cronally.json("audit", "--action", "apply")["changes"]
    ]
    base = {"when": "0 9 * * *", "topic": TOPIC}
    paused = {"since": AT, "until": None, "note": None}
    by_web = {"owner": "web"}
    expected = [
        ("apply", "a", {"owner": "web"}, {"owner": "api"}, {"owner": "api"}),
        ("apply", "mine", base, None, by_web),
        ("apply", "b", {"paused": paused}, {"paused": False}, by_web),
        ("apply", "a", base, {**base, "note": "x"}, by_web),
        ("apply", "mine", {"owner": None}, {"owner": "web"}, by_web),
        ("apply", "b", None, {**base, "paused": paused}, by_web),
        ("apply", "a", None, base, by_web),
    ]
    assert sorted(map(repr, told)) == sorted(map(repr, expected))
    text = cronally.ok("audit", "--action", "apply")
    assert "apply (api)" in text
    assert "owner: (none) -> web" in text


def test_a_pause_that_ends_by_itself_was_ended_by_cronally(cronally):
    cronally.ok("add", "a", "@hourly", "--topic", TOPIC)
    cronally.ok("pause", "a", "--until", "2026-11-23T09:30:00Z")
    cronally.daemon.call(cronally.daemon.rig.clock.advance(3600))
    [change] = cronally.json("audit", "--by", "cronally")["changes"]
    assert (change["action"], change["at"]) == ("resume", "2026-11-23T09:29:59.999Z")


def test_it_can_be_narrowed(cronally):
    for name in ("a", "b", "c"):
        cronally.ok("add", name, "0 9 * * *", "--topic", TOPIC)
    cronally.daemon.call(cronally.daemon.rig.clock.advance(7200))
    cronally.ok("rm", "b")

    def names(*words):
        return [change["schedule"] for change in cronally.json("audit", *words)["changes"]]

    assert names() == ["b", "c", "b", "a"]
    assert names("--limit", "2") == ["b", "c"]
    assert names("--since", "1h") == ["b"]
    assert names("--until", "1h", "--limit", "1") == ["c"]
    assert names("--by", str(UID), "--action", "rm") == ["b"]
    assert names("--by", "nobody-at-all") == []
    assert cronally("audit", "--by", "nobody-at-all")[1:] == ("", "no changes are on record for that\n")


def test_pages_follow_one_another(cronally, monkeypatch):
    for number in range(7):
        cronally.ok("add", f"s{number}", "0 9 * * *", "--topic", TOPIC)
    with monkeypatch.context() as small:
        small.setattr("cronally.admin.wire.MAX_PAGE", 2)
        assert [line.split()[5] for line in cronally.ok("audit").splitlines()[1:]] == [
            f"s{number}" for number in range(6, -1, -1)
        ]
    with cronally.daemon.client() as client:
        page = client.audit(limit="3")
        assert [change.schedule for change in client.audit(limit="3", before=page.next).changes] == [
            "s3",
            "s2",
            "s1",
        ]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["never"], 4, "no schedule is named 'never'"),
        ([""], 2, "name of the schedule is empty"),
        (["--by", ""], 2, "--by"),
        (["--action", "delete"], 2, "add, set, mv, rm"),
        (["--since", "soon"], 2, "since"),
        (["--limit", "0"], 2, "limit"),
        (["--since", "1h", "--until", "2h"], 2, "until"),
    ],
)
def test_what_cannot_be_asked_is_refused(cronally, words, code, said):
    assert said in cronally.bad("audit", *words, code=code)


def test_a_place_that_no_page_gave_is_refused(cronally):
    with cronally.daemon.client() as client:
        for before in ("x", "1.2.3", "1.1", "1.0.-1"):
            with pytest.raises(FieldError):
                client.audit(before=before)
        with pytest.raises(ScheduleNotFound):
            client.audit(schedule="never")


def test_what_somebody_wrote_cannot_steer_the_terminal(cronally):
    cronally.ok("add", "a", "0 9 * * *", "--topic", TOPIC, "--message", "\tx\ny")
    assert "message: \\tx\\ny" in cronally.ok("audit")
