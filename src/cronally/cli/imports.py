"""Take over the schedules of another system.

Without --write nothing is changed: each command prints a report of the schedules it would make, of everything that will be
different, and of the next three fires under the old rule and under Cronally's. It needs no daemon and no AWS account then.

What cannot be imported is listed with its reason, and the exit code is 1. --write then writes nothing, unless --skip says to
go on without it. All schedules are written or none. A schedule of the same name that an import with the same --owner did not
make is left alone, and then nothing is written (exit code 5). A file that is not what it should be is refused as a whole, with
the line (exit code 2).

The same source gives the same names each time, so an import can be repeated; what is there twice is numbered, and --prefix keeps
the names of two machines apart.
"""

import re
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cronally.cli import options as o
from cronally.cli.import_job import OWNER, Job, carry_out

if TYPE_CHECKING:
    from cronally.cli.importing.found import Findings

_CRONTAB: Final = """
    cronally import crontab /etc/crontab /etc/cron.d/* --tz Europe/London
    crontab -l | cronally import crontab --tz Europe/London
    crontab -l | cronally import crontab --topic arn:aws:sns:us-east-1:123456789012:tasks --prefix web. --write
    """
_CRON_YAML: Final = """
    cronally import cron.yaml cron.yaml
    cronally import cron.yaml cron.yaml --topic arn:aws:sns:us-east-1:123456789012:worker --write
    """
_EVENTBRIDGE: Final = """
    aws scheduler get-schedule --name nightly | cronally import eventbridge
    aws scheduler list-schedules --query 'Schedules[].[GroupName,Name]' --output text |
        while read -r group name; do aws scheduler get-schedule --group-name "$group" --name "$name"; done |
        cronally import eventbridge --topic arn:aws:sns:us-east-1:123456789012:tasks
    aws events list-rules | cronally import eventbridge --skip --write --topic arn:aws:sns:us-east-1:123456789012:tasks
    """
_KUBERNETES: Final = """
    kubectl get cronjobs -A -o yaml | cronally import kubernetes
    cronally import kubernetes manifests/*.yaml --topic arn:aws:sns:us-east-1:123456789012:tasks --write
    """
EXAMPLES: Final = {
    "import": "    crontab -l | cronally import crontab --tz Europe/London",
    "import crontab": _CRONTAB,
    "import cron.yaml": _CRON_YAML,
    "import eventbridge": _EVENTBRIDGE,
    "import kubernetes": _KUBERNETES,
}

_SYSTEM_CRONTAB: Final = re.compile(r"(?:.*/)?etc/(?:crontab|cron\.d/[^/]*)")
_CRON_D_NAME: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)

_Files = Annotated[
    list[str] | None,
    typer.Argument(metavar="FILE|-", help="What to read. [default: - (standard input)]", show_default=False),
]
_Topic = Annotated[
    str | None,
    typer.Option(
        "--topic", metavar="ARN", help="The SNS topic of schedules whose source names none; --write needs it."
    ),
]
_Prefix = Annotated[
    str, typer.Option("--prefix", metavar="TEXT", help="What each name begins with, such as web1.")
]
_KeepDst = Annotated[
    bool,
    typer.Option(
        "--keep-dst",
        help="Treat local times that do not exist or come twice as the old system did, where on_gap and on_repeat can.",
    ),
]
_Write = Annotated[bool, typer.Option("--write", help="Make the schedules; without it they are only shown.")]
_Skip = Annotated[
    bool, typer.Option("--skip", help="With --write: go on without those that cannot be imported.")
]


def import_crontab_command(
    files: _Files = None,
    system: Annotated[
        bool | None,
        typer.Option(
            "--system/--user",
            help="Whether a user stands before each command. [default: as for files in /etc/cron.d and /etc/crontab]",
            show_default=False,
        ),
    ] = None,
    tz: Annotated[
        str | None,
        typer.Option(
            "--tz", metavar="ZONE", help="IANA time zone of the machine that ran it. [default: UTC]"
        ),
    ] = None,
    topic: _Topic = None,
    prefix: _Prefix = "",
    tags: o.Tags = None,
    owner: o.Owner = OWNER,
    keep_dst: _KeepDst = False,
    write: _Write = False,
    skip: _Skip = False,
    json: o.Json = False,
    socket: o.Socket = None,
) -> int:
    r"""Take over the schedules of crontabs.

    The command is the message, after cron's own reading of % and \%; what follows a % and the user go along as attributes. The
    name is that of the program, numbered if it is there twice; a comment right above a line is its note. CRON_TZ is the zone of
    the lines after it. @reboot, and what cron itself refuses, cannot be imported.
    """
    from cronally.cli.importing import crontab

    if tz is not None:
        from cronally.domain.zones import load_zone

        load_zone(tz)

    def translate(text: str, file: str) -> "Findings":
        is_system = bool(_SYSTEM_CRONTAB.fullmatch(file)) if system is None else system
        findings = crontab.translate(text, has_users=is_system, tz=tz)
        directory, _, name = file.rpartition("/")
        if directory.endswith("etc/cron.d") and not _CRON_D_NAME.fullmatch(name):
            findings.remark(1, f"Debian's cron ignores files in cron.d with such a name: {name}")
        return findings

    job = Job(files, topic, prefix, tags, owner, keep_dst, write, skip, json, socket)
    return carry_out(crontab, translate, job)


def _import_command(source: str, text: str) -> Callable[..., int]:
    """Return the command that takes over what the translator *source* reads; text: what its help says."""

    def command(
        files: _Files = None,
        topic: _Topic = None,
        prefix: _Prefix = "",
        tags: o.Tags = None,
        owner: o.Owner = OWNER,
        keep_dst: _KeepDst = False,
        write: _Write = False,
        skip: _Skip = False,
        json: o.Json = False,
        socket: o.Socket = None,
    ) -> int:
        translator = import_module(f"cronally.cli.importing.{source}")
        job = Job(files, topic, prefix, tags, owner, keep_dst, write, skip, json, socket)
        return carry_out(translator, lambda content, _: translator.translate(content), job)

    command.__doc__ = text
    return command


import_cron_yaml_command = _import_command(
    "cron_yaml",
    """Take over the periodic tasks of an Elastic Beanstalk worker environment.

    Body and attributes are those that the environment's leader sends, so the workers need no change once their queue is
    subscribed to the topic with raw message delivery. Schedules are in UTC, as there.
    """,
)

import_eventbridge_command = _import_command(
    "eventbridge",
    """Take over schedules of EventBridge Scheduler, and scheduled rules.

    Reads what 'aws scheduler get-schedule', 'aws events describe-rule' and 'aws events list-rules' print: one JSON document,
    an array, or many one after the other. Expression, zone, start, end, flexible window (spread), age of events (deadline),
    state and Input are taken over, and the target if it is an SNS topic or sns:Publish; another target must be subscribed to
    the --topic.
    """,
)

import_kubernetes_command = _import_command(
    "kubernetes",
    """Take over Kubernetes CronJobs.

    Reads manifests and what 'kubectl get cronjobs' prints with -o yaml or -o json. The message is JSON with image, command and
    arguments of each container; namespace and name are the name, labels are tags, suspend is a pause, and
    startingDeadlineSeconds the deadline. A rule is written as Cronally reads it, so that it fires on the same days.
    """,
)
