"""The pages of docs/ do what they say: every command is typed, every file written, and what is printed is compared."""

from __future__ import annotations

import io
import json
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.request import Request, urlopen

import boto3
import pytest

from support import aws_cli, crontab, kubectl
from support.moto_server import moto_url
from support.pages import Commands, Elsewhere, File, is_as_shown, steps
from support.processes import COMMAND
from support.queues import TOPIC_PREFIX, Queue
from support.shell import Shell

DOCS = Path(__file__).resolve().parents[2] / "docs"
COOKBOOK = sorted(path.name for path in DOCS.glob("cookbook/*.md"))

# Commands that are not typed, and why.
NOT_RUN = {
    "pip install .\n": "the tests run what is installed",
    "pip install boto3\n": "it is installed",
    "cronally serve\n": "one runs already",
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

    def make_worker(self):
        self.write("sqs-worker.md")
        self.make_queue("jobs", topic="tasks")

    def make_crontab(self):
        (self.installation.home / "crontab").write_text(CRONTAB)
        self.make_queue("jobs", topic="tasks")

    def make_schedules_of_eventbridge(self):
        self.make_function("report")
        target = "arn:aws:lambda:us-east-1:123456789012:function:report"
        self.client("scheduler").create_schedule(
            Name="nightly",
            ScheduleExpression="cron(0 9 ? * MON-FRI *)",
            ScheduleExpressionTimezone="Europe/London",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": target, "RoleArn": target, "Input": '{"report": "nightly"}'},
        )
        self.client("events").put_rule(Name="hourly", ScheduleExpression="rate(1 hour)")


HAVE = {
    "lambda.md": lambda reader: reader.make_function("reports"),
    "from-cron.md": Reader.make_crontab,
    "from-elastic-beanstalk.md": lambda reader: reader.make_queue("awseb-e-abc-AWSEBWorkerQueue", "tasks"),
    "from-eventbridge.md": Reader.make_schedules_of_eventbridge,
    "from-kubernetes.md": Reader.make_worker,
    "from-python-schedulers.md": Reader.make_worker,
}


def text_of(page):
    return (DOCS / "cookbook" / page).read_text()


@pytest.fixture
def account(installation, tmp_path):
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
        "PATH": f"{commands}:{COMMAND.parent}:/usr/local/bin:/usr/bin:/bin",
    }
    with ExitStack() as stack:
        yield Reader(installation, moto, stack)


@pytest.fixture
def reader(account):
    account.installation.start()
    return account


def follow(reader, page, text):
    """Do what *text* says, and complain where that is not what happens."""
    with reader.shell() as shell:
        for step in steps(text):
            where = f"{page}:{step.line}"
            match step:
                case File(_, name, content):
                    (reader.directory / name).write_text(content)
                case Commands(_, typed, _) if typed in NOT_RUN:
                    pass
                case Commands(_, typed, _) if typed in BESIDE:
                    shell.begin(typed)
                case Commands(_, typed, shown):
                    try:
                        printed = shell.run(typed)
                    except AssertionError as exc:
                        pytest.fail(f"{where}: {exc}")
                    assert shown is None or is_as_shown(shown, printed), f"{where} prints\n{printed}"
                    reader.installation.wait_until_settled()
                case Elsewhere(_, by, shown):
                    printed = shell.wait_for(shown, by=f"{by}\n")
                    assert is_as_shown(shown, printed), f"{where}: {by} prints\n{printed}"


@pytest.mark.parametrize("page", COOKBOOK)
def test_a_page_does_what_it_says(reader, page):
    text = text_of(page)
    if "\njq " in text and shutil.which("jq") is None:
        pytest.skip("there is no jq")
    HAVE.get(page, lambda _: None)(reader)
    follow(reader, page, text)
