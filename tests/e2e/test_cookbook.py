"""The pages of docs/ do what they say: every command is typed, every file written, and what is printed is compared."""

from __future__ import annotations

import asyncio
import io
import json
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from urllib.request import Request, urlopen

import boto3
import pytest

from cronally.store.sqlite import SqliteStore
from support import aws_cli, crontab, kubectl
from support.moto_server import moto_url
from support.pages import Commands, Elsewhere, File, is_as_shown, steps
from support.processes import COMMAND, INSTALLED
from support.queues import TOPIC_PREFIX, Queue
from support.shell import Shell
from support.stores import T, creation, spec
from support.warm_command import WarmCommand

DOCS = Path(__file__).resolve().parents[2] / "docs"
COOKBOOK = sorted(path.name for path in DOCS.glob("cookbook/*.md"))
README = "../../README.md"
TUTORIAL = "../tutorial.md"
OTHERS = [
    README,
    TUTORIAL,
    "../topics.md",
    "../importing.md",
    "../operations.md",
    "../runbook.md",
    "../machines.md",
]

# Lines that are not typed, and why.
NOT_RUN = {
    "pip install .": "the tests run what is installed",
    "pip install boto3": "it is installed",
    "export AWS_PROFILE=production": "the reader has credentials of moto's",
    "cronally serve": "one runs already",
    "cronally serve --local": "as above",
    "cronally serve --store dynamodb:cronally": "as above; tests/faults/test_cluster_campaign.py has three",
    "make setup": "it is what runs the tests",
    'export PATH="$PWD/.venv/bin:$PATH"': "it is",
    "export AWS_ENDPOINT_URL=http://127.0.0.1:4566 AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1": "moto is elsewhere",
    "export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test": "the reader has credentials of moto's",
    "cronally tail": "it goes on until Ctrl-C; tests/integration/test_cli.py has it",
    "sudo cronally install --systemd": "as below",
    "cronally install --systemd": "it writes below /etc; tests/integration/test_install.py has it",
    "systemd-sysusers /etc/sysusers.d/cronally.conf": "as above",
    "systemctl daemon-reload": "there is no service",
    "systemctl enable --now cronally": "as above",
    "usermod -aG cronally ann": "as above",
    "systemctl reload cronally": "as above; tests/e2e/test_service.py has the signal",
    "systemctl stop cronally": "there is no service; tests/integration/test_restore.py has what comes next",
    "systemctl start cronally": "as above",
    "cronally restore /var/backups/cronally.db --dry-run": "the daemon runs",
    "cronally restore /var/backups/cronally.db": "the daemon runs",
    "systemctl disable cronally": "as for its stop",
    "cronally restore /var/backups/before-upgrade.db": "the daemon runs",
    "cronally backup /var/backups/move.db --store sqlite:/var/lib/cronally/cronally.db": "the daemon runs",
    "cronally restore /var/backups/move.db --store sqlite:/var/lib/cronally/cronally.db": "the daemon runs",
}
# What is typed in place of what the page says, and why.
INSTEAD = {
    "/var/backups/": "",  # a directory of the reader's
    "sqlite:/var/lib/cronally/cronally.db dynamodb": "sqlite:cronally.db dynamodb",  # as above
    "sqlite:/var/lib/cronally/back.db": "sqlite:back.db",  # as above
    "/etc/c": "etc/c",  # as above
    "--failed --since 2h": "--failed --since 2h --yes",  # nobody answers
    "--until 2026-11-20T23:59": "--until 2026-11-20T23:59 --yes",  # as above
    "cronally edit": "EDITOR=true cronally edit",  # nobody types
}
# Commands that go on until they are stopped: typed in a terminal of their own.
BESIDE = {"python worker.py\n"}

CRONTAB = """\
# what the board reads
0 9 * * 1-5 flock -n /tmp/report.lock /srv/app/bin/report --all
*/5 * * * * /srv/app/bin/sweep
"""


class Reader:
    """Somebody with a page, a machine with a daemon on it, and an AWS account that is moto's."""

    def __init__(self, installation, moto, stack):
        self.installation = installation
        self.moto = moto
        self.directory = installation.home / "work"
        self.directory.mkdir()
        self._stack = stack

    def client(self, service):
        options = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
        client = boto3.client(service, endpoint_url=self.moto, **options)
        self._stack.callback(client.close)
        return client

    @contextmanager
    def shell(self):
        with Shell(self.directory, self.installation.environment) as shell:
            yield shell

    def write(self, page, *names):
        """Write the files that *page* shows, or those of *names* only."""
        for step in steps(text_of(page)):
            if isinstance(step, File) and (not names or step.name in names):
                (self.directory / step.name).write_text(step.text)

    # --- what the pages say that you have ---

    def make_function(self, name):
        # Without this a function is a container of Docker's.
        settings = json.dumps({"lambda": {"use_docker": False}}).encode()
        headers = {"Content-Type": "application/json"}
        urlopen(Request(f"{self.moto}/moto-api/config", settings, headers, method="POST")).close()
        role = self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("handler.py", "def handler(event, context): pass")
        self.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=role,
            Handler="handler.handler",
            Code={"ZipFile": code.getvalue()},
        )

    def make_queue(self, name, topic=None, *, is_raw=True):
        """Make a queue; topic: one to make, too, that feeds it."""
        self.client("sqs").create_queue(QueueName=name)
        if topic is not None:
            sns = self.client("sns")
            sns.subscribe(
                TopicArn=sns.create_topic(Name=topic)["TopicArn"],
                Protocol="sqs",
                Endpoint=f"arn:aws:sqs:us-east-1:123456789012:{name}",
                Attributes={"RawMessageDelivery": str(is_raw).lower()},
            )

    def make_store(self):
        """Make a store that no daemon uses."""

        async def make():
            store = SqliteStore(self.directory / "cronally.db")
            await store.open()
            await store.change(creation(spec("nightly")))
            await store.close(watermark=T)

        asyncio.run(make())

    def make_worker(self):
        self.write("sqs-worker.md")
        self.make_queue("jobs", topic="tasks")

    def make_crontab(self):
        (self.installation.home / "crontab").write_text(CRONTAB)
        self.make_queue("jobs", topic="tasks")

    def make_schedules_of_eventbridge(self):
        self.make_queue("jobs", topic="tasks")
        target = "arn:aws:lambda:us-east-1:123456789012:function:report"
        self.client("scheduler").create_schedule(
            Name="nightly",
            ScheduleExpression="cron(0 9 ? * MON-FRI *)",
            ScheduleExpressionTimezone="Europe/London",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": target, "RoleArn": target, "Input": '{"report": "nightly"}'},
        )
        self.client("events").put_rule(Name="hourly", ScheduleExpression="rate(1 hour)")

    def make_all_to_import(self):
        self.make_crontab()
        self.make_schedules_of_eventbridge()
        self.write("from-elastic-beanstalk.md", "cron.yaml")
        (self.directory / "etc/cron.d").mkdir(parents=True)
        (self.directory / "etc/crontab").write_text("17 * * * * root run-parts /etc/cron.hourly\n")
        (self.directory / "etc/cron.d/app").write_text("0 9 * * 1-5 app /srv/app/bin/report\n")

    # --- what has come of a page ---

    def has_what_the_leader_would_send(self):
        queue = Queue(self.moto, "awseb-e-abc-AWSEBWorkerQueue")
        [message] = queue.receive(1)
        queue.close()
        [fire] = self.installation.fires()
        assert message.body == "elasticbeanstalk scheduled job"
        assert message.attributes["beanstalk.sqsd.path"] == "/cron/report"
        assert message.attributes["beanstalk.sqsd.task_name"] == "nightly-report"
        at = datetime.fromisoformat(fire.fire_time)
        scheduled_time = message.attributes["beanstalk.sqsd.scheduled_time"]
        assert scheduled_time.startswith(f"{at:%Y-%m-%d %H:%M:%S}")  # a run has milliseconds, too
        assert scheduled_time.endswith(" UTC")


HAVE = {
    "lambda.md": lambda reader: reader.make_function("reports"),
    "from-cron.md": Reader.make_crontab,
    "from-elastic-beanstalk.md": lambda reader: reader.make_queue("awseb-e-abc-AWSEBWorkerQueue", "tasks"),
    "from-eventbridge.md": Reader.make_schedules_of_eventbridge,
    "from-kubernetes.md": Reader.make_worker,
    "from-python-schedulers.md": Reader.make_worker,
    "../topics.md": lambda reader: reader.make_queue("jobs"),
    README: lambda reader: reader.make_queue("jobs", "reports"),
    "../importing.md": Reader.make_all_to_import,
    "../machines.md": Reader.make_store,
}
# What is looked at after a page, beside what its commands print.
SEEN = {"from-elastic-beanstalk.md": Reader.has_what_the_leader_would_send}


def text_of(page):
    text = (DOCS / "cookbook" / page).read_text()
    if page == README:  # what is above is of a repository, and of a daemon with a stand-in
        above, heading, below = text.partition("## Use it with AWS")
        text = "\n" * above.count("\n") + heading + below
    return text


@cache
def slow_lines_of_the_cookbook():
    return {
        line
        for page in COOKBOOK
        for step in steps(text_of(page))
        if isinstance(step, Commands)
        for line in step.text.splitlines()
        if line.startswith(("cronally topics", "cronally doctor"))
    }


def typed(commands, page):
    """Return what is typed of *commands*, and how. What takes long is typed once for all pages."""
    done = slow_lines_of_the_cookbook() if page in OTHERS else set()
    lines = [line for line in commands.splitlines() if without_comment(line) not in {*NOT_RUN, *done}]
    text = "\n".join(lines)
    for shown, own in INSTEAD.items():
        text = text.replace(shown, own)
    return text


def without_comment(line):
    return re.sub(" +#.*", "", line)


@pytest.fixture(scope="session")
def warm_command():
    """What runs instead of the installed command when a page has it typed: it starts in a tenth of the time."""
    if COMMAND != INSTALLED:  # what is tested is that one
        yield COMMAND
        return
    with tempfile.TemporaryDirectory(prefix="c-") as directory:
        command = WarmCommand(Path(directory))
        yield command.script
        command.close()


@pytest.fixture
def account(installation, tmp_path, warm_command):
    """A reader with nothing but tools."""
    moto = moto_url()
    urlopen(Request(f"{moto}/moto-api/reset", method="POST")).close()
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, module in {"aws": aws_cli, "crontab": crontab, "kubectl": kubectl}.items():
        (commands / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module.__file__} "$@"\n')
        (commands / name).chmod(0o755)
    installation.receiver_url = moto
    installation.extra = {
        "AWS_ENDPOINT_URL": moto,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PATH": f"{commands}:{warm_command.parent}:{COMMAND.parent}:/usr/local/bin:/usr/bin:/bin",
    }
    with ExitStack() as stack:
        yield Reader(installation, moto, stack)


@pytest.fixture
def page():
    """The page that a test is of, if it is of one."""


@pytest.fixture
def reader(account, page):
    account.installation.start(*["--local"] * (page == TUTORIAL))
    return account


def follow(reader, page, text):
    """Do what *text* says, and complain where that is not what happens."""
    reader.write(page)  # some pages show a file after the command
    with reader.shell() as shell:
        for step in steps(text):
            where = f"{page}:{step.line}"
            match step:
                case File(_, name, content):
                    (reader.directory / name).write_text(content)
                case Commands(_, commands, _) if commands in BESIDE:
                    shell.begin(commands)
                case Commands(_, commands, shown):
                    try:
                        printed = shell.run(typed(commands, page))
                    except AssertionError as exc:
                        pytest.fail(f"{where}: {exc}")
                    assert shown is None or is_as_shown(shown, printed), f"{where} prints\n{printed}"
                    reader.installation.wait_until_settled()
                case Elsewhere(_, by, shown):
                    printed = shell.wait_for(shown, by=f"{by}\n")
                    assert is_as_shown(shown, printed), f"{where}: {by} prints\n{printed}"


@pytest.mark.parametrize("page", [*COOKBOOK, *OTHERS])
def test_a_page_does_what_it_says(reader, page):
    text = text_of(page)
    if "\njq " in text and shutil.which("jq") is None:
        pytest.skip("there is no jq")
    HAVE.get(page, lambda _: None)(reader)
    follow(reader, page, text)
    SEEN.get(page, lambda _: None)(reader)


def test_nothing_is_left_out_or_replaced_that_no_page_has():
    lines = {
        without_comment(line)
        for page in [*COOKBOOK, *OTHERS]
        for step in steps(text_of(page))
        if isinstance(step, Commands)
        for line in step.text.splitlines()
    }
    assert NOT_RUN.keys() - lines == set()
    assert [shown for shown in INSTEAD if not any(shown in line for line in lines)] == []


@pytest.mark.parametrize("page", COOKBOOK)
def test_commands_are_in_blocks_that_are_typed(page):
    languages = set(re.findall(r"^ *```(\w*)", text_of(page), re.MULTILINE))
    assert languages & {"bash", "console", "shell", "zsh"} == set()
    read = re.sub(r"^```.*?^```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^(?: {4}|\t)(?:aws|cronally|crontab|kubectl|pip|python) .*", read, re.MULTILINE) == []


@pytest.mark.parametrize("page", COOKBOOK)
def test_commands_with_a_test_of_their_own_have_one(page):
    for test in re.findall(r"^<!-- run by (.+) -->$", text_of(page), re.MULTILINE):
        assert page in (DOCS.parent / test).read_text()


# --- the code that the pages show -----------------------------------------------------------------------------------


def publish(reader, topic, message, **attributes):
    typed = {name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()}
    reader.client("sns").publish(TopicArn=f"{TOPIC_PREFIX}{topic}", Message=message, MessageAttributes=typed)


def test_the_worker_does_the_work_of_a_fire_once_and_leaves_test_messages_alone(account):
    account.make_worker()
    for fire_id, more in [
        ("a", {"cronally.test": "true"}),
        ("b", {}),
        ("b", {}),
        ("c", {}),
        ("b", {}),
        ("last", {}),
    ]:
        publish(account, "tasks", "m", **{"cronally.fire_id": fire_id}, **more)
    with account.shell() as shell:
        shell.begin("python worker.py")
        assert shell.wait_for("…\nlast: m", by="python worker.py").splitlines() == ["b: m", "c: m", "last: m"]


def test_work_that_fails_is_done_again_and_is_not_in_the_way_of_others(account):
    account.make_worker()
    (account.directory / "tasks.py").write_text(
        "failed = []\n"
        "def work(message, attributes):\n"
        "    if message == 'fails' and not failed:\n"
        "        failed.append(message)\n"
        "        raise OSError\n"
        "    print(message, flush=True)\n"
    )
    at_once = {"QueueUrl": f"{account.moto}/123456789012/jobs", "Attributes": {"VisibilityTimeout": "0"}}
    account.client("sqs").set_queue_attributes(**at_once)
    for message in ("fails", "lasts"):
        publish(account, "tasks", message, **{"cronally.fire_id": message})
    worker = "python worker.py 2> /dev/null"
    with account.shell() as shell:
        shell.begin(worker)
        assert sorted(shell.wait_for("…s\n…s", by=worker).splitlines()) == ["fails", "lasts"]


def event_of(message, attributes):
    """Return what SNS hands to a function."""
    typed = {name: {"Type": "String", "Value": text} for name, text in attributes.items()}
    return {"Records": [{"EventSource": "aws:sns", "Sns": {"Message": message, "MessageAttributes": typed}}]}


EVENT = event_of("m", {"cronally.schedule": "a", "cronally.fire_id": "a@2026-11-23T09:00:00Z"})


@pytest.fixture
def function(account, monkeypatch):
    """The function of the page and its table: call it with an event. ``worked`` has the messages that it has worked on."""
    account.client("dynamodb").create_table(
        TableName="cronally-fires",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "fire_id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "fire_id", "KeyType": "HASH"}],
    )
    for name, value in account.installation.environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    account.write("lambda.md")
    handler = runpy.run_path(str(account.directory / "handler.py"))["handler"]
    function = Function(handler)
    yield function
    function.names["fires"].meta.client.close()


class Function:
    def __init__(self, handler):
        self.names = handler.__globals__
        self.worked = []
        self.work_is(lambda message, attributes: self.worked.append(message))

    def work_is(self, work):
        self.names["work"] = work

    def __call__(self, event, *, left_ms=3000):
        self.names["handler"](event, SimpleNamespace(get_remaining_time_in_millis=lambda: left_ms))


def test_the_function_does_the_work_of_a_fire_once(reader, function):
    reader.make_queue("envelopes", topic="reports", is_raw=False)
    with reader.installation.client() as client:
        client.put("a", {"when": "@daily", "topic": f"{TOPIC_PREFIX}reports", "message": "m"})
        client.run("a")
    queue = Queue(reader.moto, "envelopes")
    [message] = queue.receive(1)
    queue.close()
    for _ in range(3):
        function({"Records": [{"EventSource": "aws:sns", "Sns": json.loads(message.body)}]})
    assert function.worked == ["m"]


def test_the_function_leaves_test_messages_alone(function):
    function(event_of("m", {"cronally.test": "true"}))
    assert function.worked == []


def test_a_function_that_fails_does_the_work_at_the_next_attempt(function):
    def fail(message, attributes):
        raise BrokenPipeError

    work = function.names["work"]
    function.work_is(fail)
    with pytest.raises(BrokenPipeError):
        function(EVENT)
    function.work_is(work)
    function(EVENT)
    assert function.worked == ["m"]


def test_a_second_invocation_fails_while_the_first_is_at_work(function):
    def work(message, attributes):
        with pytest.raises(function.names["Refused"]):
            function(EVENT)
        function.worked.append(message)

    function.work_is(work)
    function(EVENT)
    assert function.worked == ["m"]


def test_after_an_invocation_that_has_died_another_does_the_work(function):
    fire_id = EVENT["Records"][0]["Sns"]["MessageAttributes"]["cronally.fire_id"]["Value"]
    assert function.names["claim"]({"fire_id": fire_id}, -1)  # nothing comes after it, and its time is over
    function(EVENT)
    assert function.worked == ["m"]


def test_the_jobs_of_a_crontab_are_run_by_name_and_not_as_the_message_says(account, monkeypatch):
    account.write("from-cron.md")
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append((command, check)))
    work = runpy.run_path(str(account.directory / "tasks.py"))["work"]
    work("rm -rf /", {"cronally.schedule": "sweep"})
    assert commands == [(["/srv/app/bin/sweep"], True)]


def test_the_rules_of_apscheduler_are_translated_to_the_same_fires():
    from apscheduler.triggers.cron import CronTrigger

    import cronally

    rows = re.findall(
        r"^\| `(CronTrigger.*?)` \| `(.*?)`", text_of("from-python-schedulers.md"), re.MULTILINE
    )
    assert len(rows) == 5
    for theirs, ours in rows:
        trigger = eval(theirs, {"CronTrigger": CronTrigger})
        rule = cronally.Recurrence.parse(ours, tz="Europe/London")
        at = datetime(2026, 3, 1, 12, tzinfo=UTC)
        for _ in range(100):
            following = rule.next_after(at)
            assert trigger.get_next_fire_time(at, at).astimezone(UTC) == following, theirs
            at = following
