"""The cron.yaml of an Elastic Beanstalk worker environment.

The leader of the worker tier posts a fixed body with three attributes to the queue; a raw SQS subscription delivers ours
just so, and the workers' own daemon (sqsd) does the rest. Sources: the Elastic Beanstalk developer guide, *Worker
environments*; aws-sqsd 2.0, which has the names of the attributes; parse-cron, the gem it reads schedules with.
"""

from __future__ import annotations

from typing import Any, Final

from cronally.cli.importing.day_fields import EITHER, fires_on_either
from cronally.cli.importing.found import Findings, Found, SourceProblem, shortened, word
from cronally.cli.importing.old_rules import OldCrontab
from cronally.cli.importing.yaml_texts import Mapping, read_documents
from cronally.domain.when import NICKNAMES

SYSTEM: Final = "Beanstalk"
GENERAL: Final = (
    (
        "subscribe the workers' queue to the topic with raw message delivery, and the workers need no change; then deploy a "
        "cron.yaml with 'cron: []', or every task comes twice"
    ),
    (
        "Beanstalk sends a missed task again if its last one is less than 5 min old; Cronally fires the newest missed slot, up to "
        "24 h late (catch_up, deadline)"
    ),
    "Beanstalk's leader may send up to a second early; Cronally never does",
)

BODY: Final = "elasticbeanstalk scheduled job"
_SHAPE: Final = 'a cron.yaml is "version: 1" and "cron:" with a list of name, url and schedule'
_KEYS: Final = ("name", "url", "schedule")


def translate(text: str) -> Findings:
    """Return what a cron.yaml holds. Errors: SourceProblem."""
    documents = read_documents(text)
    if len(documents) != 1:
        raise SourceProblem(documents[1][0] if documents else 1, f"{_SHAPE}, in one document")
    line, root = documents[0]
    if not isinstance(root, Mapping):
        raise SourceProblem(line, _SHAPE)
    if "version" not in root or "cron" not in root:
        missing = "version: 1" if "version" not in root else "cron:"
        raise SourceProblem(root.line, f"{missing!r} is missing; {_SHAPE}")
    if root["version"] != 1 or isinstance(root["version"], bool):
        raise SourceProblem(
            root.line, f"version is {shortened(word(root['version']), 30)!r}; Beanstalk knows 1 only"
        )
    entries = [] if root["cron"] is None else root["cron"]
    if not isinstance(entries, list):
        raise SourceProblem(root.line, f"cron holds no list; {_SHAPE}")
    findings = Findings()
    last = {
        entry["name"]: entry.line
        for entry in entries
        if isinstance(entry, Mapping) and isinstance(entry.get("name"), str)
    }
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise SourceProblem(
                root.line, f"an entry of cron is {shortened(word(entry), 30)!r}, no mapping; {_SHAPE}"
            )
        source = shortened(" ".join(word(entry.get(key)) for key in ("name", "schedule", "url")), 100)
        wrong = _defect(entry)
        if wrong is not None:
            findings.refuse(entry.line, source, wrong)
        elif last[entry["name"]] != entry.line:
            findings.refuse(
                entry.line,
                source,
                f"line {last[entry['name']]} has the same name, and Beanstalk runs only the last of a name; leave one out",
            )
        else:
            _add(findings, entry, source)
    return findings


def _defect(entry: Mapping) -> str | None:
    for key in _KEYS:
        value = entry.get(key)
        if not isinstance(value, str) or not value.strip():
            return f"{key} is missing or no text; Beanstalk refuses the file, too"
    if not entry["url"].startswith("/"):
        return "url must be a path that begins with /, such as /tasks/report"
    schedule = entry["schedule"].strip()
    if len(schedule.split()) != 5 and schedule not in NICKNAMES:
        return f"the schedule {shortened(schedule)!r} does not have five fields; write minute, hour, day, month and weekday"
    return None


def _add(findings: Findings, entry: Mapping, source: str) -> None:
    schedule = entry["schedule"].strip()
    fields = NICKNAMES.get(schedule, schedule).split()
    when = fires_on_either(fields)
    remarks: list[str] = []
    differs: list[str] = []
    if fields[2] != "*" and fields[4] != "*":
        differs.append(
            "both day fields are set: an early version of Beanstalk's reader ran it when both match, later ones when either does, "
            "as is done here; look at the days on which it ran"
        )
    if when != fields:
        remarks.append(EITHER.format(now=" ".join(when), before=" ".join(fields), system=SYSTEM))
    unknown = sorted(set(entry) - set(_KEYS))
    if unknown:
        remarks.append(f"left out, as Beanstalk does: {', '.join(unknown)}")
    document: dict[str, Any] = {
        "when": schedule if schedule in NICKNAMES else " ".join(when),
        "tz": "UTC",
        "message": BODY,
        "attributes": {
            "beanstalk.sqsd.path": entry["url"],
            "beanstalk.sqsd.task_name": entry["name"],
            "beanstalk.sqsd.scheduled_time": "<cronally.fire-time-utc>",
        },
    }
    old = OldCrontab(text=" ".join(fields), tz="UTC", clock="instants")
    failure = old.check()
    findings.add(
        Found(
            line=entry.line,
            source=source,
            name=entry["name"],
            document=document,
            old=old if failure is None else None,
            why_no_old=failure and f"croniter cannot read it ({failure})",
            differs=tuple(differs),
            remarks=tuple(remarks),
        )
    )
