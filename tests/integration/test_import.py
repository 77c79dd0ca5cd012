"""``cronally import``, from files to schedules of a daemon on a real socket."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cronally.cli import imports
from cronally.cli.import_job import MAX_BYTES
from cronally.cli.main import main
from support.daemon import running_daemon
from support.rig import TOPIC

CRONTAB = "MAILTO=ops@example.com\n# every night\n0 3 * * * /opt/backup.sh\n*/5 * * * * /opt/poll\n0 4 * * * /opt/backup.sh full\n"
CRON_YAML = "version: 1\ncron:\n- {name: audit, url: /audit, schedule: '0 23 * * *'}\n"
EVENTBRIDGE = json.dumps(
    {"Name": "nightly", "GroupName": "billing", "ScheduleExpression": "cron(0 9 ? * MON-FRI *)", "State": "DISABLED",
     "Target": {"Arn": "arn:aws:lambda:us-east-1:123456789012:function:f", "Input": "hi"}}
)  # fmt: skip
KUBERNETES = """\
apiVersion: batch/v1
kind: CronJob
metadata: {name: hello, namespace: prod}
spec:
  schedule: "0 9 * * *"
  jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: i, args: [x]}]}}}}
"""
SOURCES = {"crontab": CRONTAB, "cron.yaml": CRON_YAML, "eventbridge": EVENTBRIDGE, "kubernetes": KUBERNETES}
each_source = pytest.mark.parametrize("source", SOURCES)


class Importing:
    """Somebody at a terminal who types ``cronally import``."""

    def __init__(self, daemon, directory, capsys):
        self.daemon, self.directory, self.capsys = daemon, directory, capsys

    def file(self, content, name="source"):
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def __call__(self, source, content, *words):
        """Return exit code, stdout and stderr of the import of a file with *content*."""
        return self.run("import", source, self.file(content), *words)

    def run(self, *words):
        self.capsys.readouterr()
        code = main([*words])
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    def names(self):
        return [schedule["name"] for schedule in json.loads(self.run("ls", "--json")[1])["schedules"]]


@pytest.fixture
def importing(tmp_path, capsys, monkeypatch):
    with running_daemon(tmp_path) as daemon:
        monkeypatch.setenv("CRONALLY_SOCKET", daemon.socket)
        yield Importing(daemon, tmp_path, capsys)


@pytest.fixture
def alone(tmp_path, capsys, monkeypatch):
    """Without a daemon."""
    monkeypatch.setenv("CRONALLY_SOCKET", str(tmp_path / "none.sock"))
    return Importing(None, tmp_path, capsys)


# --- the report -------------------------------------------------------------------------------------------------


@each_source
def test_a_dry_run_reports_and_needs_neither_daemon_nor_topic(alone, source):
    code, out, err = alone(source, SOURCES[source])
    assert code == 0
    assert "nothing was written; to make them: --write --topic ARN" in err
    assert out.startswith("different from ")
    assert out.count("as before") == 3 * out.count("  rule ")
    assert f"{alone.directory}/source:" in out


def test_the_report_of_a_crontab(alone):
    _, out, _ = alone("crontab", CRONTAB, "--tz", "Europe/London", "--topic", TOPIC)
    assert "source:1: MAILTO=ops@example.com: cron mailed the output" in out
    block = out.partition("\n\nbackup\n")[2].partition("\n\n")[0].split("\n")
    assert block[0].endswith("source:3: 0 3 * * * /opt/backup.sh")
    assert block[1:4] == [
        "  rule       0 3 * * * in Europe/London",
        "  message    /opt/backup.sh",
        f"  topic      {TOPIC}",
    ]
    assert "\n\nbackup-2\n" in out
    assert "called backup-2, not backup: another one has that name" in out


def test_fires_that_differ_are_marked(alone):
    _, out, _ = alone("crontab", "0 4 * * 1#2 /opt/x\n")
    assert "<- GONE: cron fired, Cronally does not" in out
    assert "  DIFFERS    Debian's cron ignores #" in out


def test_json_is_one_document(alone):
    code, out, _ = alone(
        "crontab", CRONTAB + "@reboot /opt/agent\n", "--json", "--prefix", "web1.", "--tag", "moved"
    )
    report = json.loads(out)
    assert code == 1
    first = report["schedules"][0]
    assert (first["name"], first["line"], first["document"]["tags"]) == ("web1.backup", 3, ["moved"])
    assert first["next_fires"] == first["old_next_fires"]
    assert (len(first["next_fires"]), first["fires_that_differ"], first["old_by"]) == (3, [], "croniter")
    assert report["refused"][0]["line"] == 6
    assert report["written"] is None


def test_several_files_and_standard_input(alone, monkeypatch):
    one, two = alone.file(CRON_YAML, "one"), alone.file(CRON_YAML.replace("audit", "other"), "two")
    report = json.loads(alone.run("import", "cron.yaml", one, two, "--json")[1])
    assert [(item["name"], item["file"]) for item in report["schedules"]] == [("audit", one), ("other", two)]
    for words in ((), ("-",)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CRON_YAML.encode())))
        assert (
            json.loads(alone.run("import", "cron.yaml", *words, "--json")[1])["schedules"][0]["file"]
            == "stdin"
        )


@pytest.mark.parametrize(
    ("name", "words", "has_user"),
    [("etc/crontab", [], True), ("etc/cron.d/php", [], True), ("etc/cron.d/php", ["--user"], False), ("mine", [], False),
     ("mine", ["--system"], True)],
)  # fmt: skip
def test_which_crontabs_have_a_user_in_each_line(alone, name, words, has_user):
    file = alone.file("0 3 * * * root /opt/x\n", name)
    document = json.loads(alone.run("import", "crontab", file, "--json", *words)[1])["schedules"][0][
        "document"
    ]
    assert document["message"] == ("/opt/x" if has_user else "root /opt/x")
    assert document.get("attributes") == ({"crontab.user": "root"} if has_user else None)


def test_a_file_that_debians_cron_ignores_is_pointed_out(alone):
    file = alone.file("0 3 * * * root /opt/x\n", "etc/cron.d/php.bak")
    assert "Debian's cron ignores files" in alone.run("import", "crontab", file)[1]


def test_what_steers_a_terminal_is_escaped(alone):
    _, out, _ = alone("crontab", "0 3 * * * echo \x1b[31mred\n@reboot \x1b[31m\n")
    assert "\x1b" not in out


# --- writing ----------------------------------------------------------------------------------------------------


@each_source
def test_write_makes_the_schedules_and_again_changes_nothing(importing, source):
    code, out, _ = importing(source, SOURCES[source], "--topic", TOPIC, "--write")
    count = out.count("  rule ")
    assert (code, out.strip().split("\n")[-1]) == (0, f"created {count}, changed 0, unchanged 0")
    assert len(importing.names()) == count
    code, out, _ = importing(source, SOURCES[source], "--topic", TOPIC, "--write", "--json")
    assert (code, json.loads(out)["written"]) == (
        0,
        {"created": 0, "changed": 0, "unchanged": count, "problems": []},
    )


def test_what_is_written_is_what_was_shown(importing):
    importing("eventbridge", EVENTBRIDGE, "--topic", TOPIC, "--write")
    made = json.loads(importing.run("show", "billing.nightly", "--json")[1])
    assert (made["when"], made["dialect"], made["message"], made["tags"], made["owner"]) == (
        "cron(0 9 ? * MON-FRI *)", "eventbridge", "hi", ["group:billing"], "import",
    )  # fmt: skip
    assert made["paused"] is not None


def test_owner_and_keep_dst_reach_what_is_written(importing):
    importing("kubernetes", KUBERNETES, "--topic", TOPIC, "--write", "--owner", "platform", "--keep-dst")
    made = json.loads(importing.run("show", "prod.hello", "--json")[1])
    assert (made["owner"], made["on_gap"], made["on_repeat"]) == ("platform", "skip", "both")
    assert importing("kubernetes", KUBERNETES, "--topic", TOPIC, "--write")[0] == 5


def test_what_cannot_be_imported_keeps_all_from_being_written_unless_skipped(importing):
    text = CRONTAB + "@reboot /opt/agent\n"
    code, out, err = importing("crontab", text, "--topic", TOPIC, "--write")
    assert (code, importing.names()) == (1, [])
    assert "@reboot is no time" in out
    assert "nothing was written, because of what cannot be imported; --skip" in err
    code, out, _ = importing("crontab", text, "--topic", TOPIC, "--write", "--skip")
    assert (code, importing.names()) == (0, ["backup", "backup-2", "poll"])
    assert out.endswith("created 3, changed 0, unchanged 0; left out 1\n")


def test_without_a_topic_nothing_is_written(importing):
    code, _, err = importing("cron.yaml", CRON_YAML, "--write")
    assert (code, importing.names()) == (2, [])
    assert "source:3: audit: no topic is known" in err
    assert "--topic ARN" in err


def test_a_schedule_that_an_import_did_not_make_is_left_alone(importing):
    importing.daemon.add("audit", message="mine")
    code, _, err = importing("cron.yaml", CRON_YAML, "--topic", TOPIC, "--write")
    assert code == 5
    assert "source:3: audit: there is a schedule of that name already, made by hand" in err
    assert "--prefix" in err
    assert json.loads(importing.run("show", "audit", "--json")[1])["message"] == "mine"
    assert importing("cron.yaml", CRON_YAML, "--topic", TOPIC, "--write", "--prefix", "eb.")[0] == 0
    assert importing.names() == ["audit", "eb.audit"]


def test_a_file_with_nothing_in_it_writes_nothing(importing):
    for source, text in (
        ("cron.yaml", "version: 1\ncron: []\n"),
        ("eventbridge", "[]"),
        ("crontab", "# none\n"),
    ):
        code, out, _ = importing(source, text, "--topic", TOPIC, "--write")
        assert (code, out.strip()) == (0, "there is nothing to write")


def test_writing_needs_a_daemon(alone):
    code, _, err = alone("cron.yaml", CRON_YAML, "--topic", TOPIC, "--write")
    assert code == 3
    assert "cronally serve" in err


def test_what_the_daemon_refuses_is_said_at_its_line(importing, monkeypatch):
    # The daemon looks again: here it does not believe the client's check of the time, by being far ahead of it.
    text = json.dumps(
        {"Name": "a", "ScheduleExpression": "at(2199-01-01T00:00:00)", "Target": {"Arn": TOPIC, "Input": "x"}}
    )
    importing.daemon.rig.clock.step_wall(200 * 366 * 86_400_000)
    code, _, err = importing("eventbridge", text, "--write")
    assert (code, importing.names()) == (2, [])
    assert "source:1: a: " in err
    assert "nothing was written; correct the source" in err


# --- bad input --------------------------------------------------------------------------------------------------


@each_source
@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "there is nothing in it"), (b"\n\n", "there is nothing in it"), (b"a\n\x00b", ":2: this is not text"),
     (b"\n\ncaf\xe9", ":3: this is not UTF-8"), (b"a" * (MAX_BYTES + 1), "has over 16 MiB")],
    ids=["empty", "blank", "binary", "latin", "huge"],
)  # fmt: skip
def test_what_is_no_text_is_one_sentence(alone, source, content, part):
    code, out, err = alone(source, content, "--write", "--topic", TOPIC)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"cronally: {alone.directory}/source")
    assert part in err


@pytest.mark.parametrize(
    ("source", "content", "part"),
    [
        ("cron.yaml", "version: 1\ncron: [\n", ":3: this is not YAML"),
        ("cron.yaml", "kind: CronJob\n", ":1: 'version: 1' is missing"),
        ("cron.yaml", "[" * 100_000, ":1: this is nested too deeply"),
        ("eventbridge", EVENTBRIDGE[:-20], ":1: this is not JSON"),
        (
            "eventbridge",
            '\n{"Schedules": [{"Name": "a", "Target": {}}]}',
            ":2: list-schedules does not print",
        ),
        ("eventbridge", "version: 1\n", ":1: this is not JSON"),
        ("kubernetes", KUBERNETES[:-5], "this is not YAML"),
        ("kubernetes", "kind: Service\n", ":1: there is no CronJob in it"),
        ("kubernetes", "- " * 100_000, ":1: this is nested too deeply"),
    ],
)
def test_half_written_and_other_files_are_one_sentence(alone, source, content, part):
    code, out, err = alone(source, content)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{alone.directory}/source{part}" in err if part.startswith(":") else part in err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["crontab", "/nowhere/x"], "the file /nowhere/x cannot be read"),
        (["crontab", "/"], "cannot be read: is a directory"),
        (["crontab", "-", "-"], "- is there twice"),
        (["crontab", "--tz", "Mars/Base"], "Mars/Base"),
        (["crontab", "--topic", "x"], "--topic: 'x' is not the ARN"),
        (["crontab", "--prefix", "a b"], "--prefix 'a b' cannot begin a name"),
        (["crontab", "--prefix", "-"], "cannot begin a name"),
        (["crontab", "--tag", "a b"], "--tag: must be"),
        (["crontab", "--skip"], "--skip belongs to --write"),
        (["crontabs"], "did you mean 'crontab'?"),
        (["nomad"], "there are crontab, cron.yaml, eventbridge, kubernetes"),
        ([], "Commands:"),
    ],
)
def test_words_that_are_not_understood(alone, words, part):
    code, out, err = alone.run("import", *words)
    assert (code, out) == (2, "")
    assert part in err


def shown_commands():
    """Return the words of each ``cronally import`` that the page, the README and the help show."""
    root = Path(__file__).parents[2]
    texts = [(root / page).read_text() for page in ("docs/importing.md", "README.md")]
    # Code stands indented, after a pipe, or at the beginning of a line; a command in a sentence has no options.
    texts += imports.EXAMPLES.values()
    lines = [
        line
        for text in texts
        for line in text.split("\n")
        if re.match(r"(?:.*\| *|\s*)cronally import [a-z]", line)
    ]
    return [shlex.split(line.rpartition("cronally ")[2].partition("`")[0]) for line in lines]


@pytest.mark.parametrize("words", shown_commands(), ids=" ".join)
def test_every_command_that_is_shown_runs(importing, monkeypatch, words):
    source, sample = words[1], SOURCES[words[1]]
    files = [word for word in words[2:] if re.fullmatch(r"/etc/\S+|\S+\.yaml", word)]
    kept = [word for word in words[2:] if word not in files]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sample.encode())))
    code, out, err = importing.run("import", source, *([importing.file(sample)] if files else []), *kept)
    assert code == 0, err
    assert ("created" in out) == ("--write" in kept)


def test_other_commands_do_not_pay_for_it(alone):
    code = (
        "import sys; from cronally.cli.main import main; main(['import', '--help']); main(['import', 'crontab', '--help']); "
        "print([m for m in ('aiohttp', 'asyncio', 'botocore', 'pydantic', 'rich', 'yaml', 'croniter') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20, env=os.environ
    )
    assert done.stdout.endswith("[]\n"), done.stdout
