"""Manifests of Kubernetes CronJobs, and what ``kubectl get cronjobs -o yaml`` (or ``-o json``) prints.

Kubernetes reads schedules with robfig/cron v3: ``a/n`` is ``a-max/n``, ``?`` is ``*`` in every field, and a day field gives way
to the other only if it is a bare ``*`` (``*/1`` is one). Sources: the CronJob page of the Kubernetes documentation, batch/v1
CronJobSpec, robfig/cron v3 parser.go and spec.go.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from cronally.cli.importing.day_fields import EITHER, fires_on_either
from cronally.cli.importing.found import Findings, Found, NotImportable, SourceProblem, shortened, word
from cronally.cli.importing.old_rules import OldCrontab
from cronally.cli.importing.yaml_texts import Mapping, read_documents
from cronally.domain.durations import format_duration
from cronally.domain.spec import MAX_DEADLINE_MS, MAX_TAGS
from cronally.domain.when import NICKNAMES

SYSTEM: Final = "Kubernetes"
GENERAL: Final = (
    (
        "Kubernetes starts a Job; Cronally publishes its command and arguments as a JSON message, and whoever receives it runs "
        "them. Image, variables, secrets, volumes and restarts are the receiver's"
    ),
    (
        "Kubernetes starts the newest missed run however late, unless startingDeadlineSeconds or 100 missed runs forbid it; "
        "Cronally fires the newest missed slot, up to its deadline (24 h unless stated)"
    ),
    "a Job starts some seconds after its time; Cronally publishes at it",
)

_PREFIX: Final = re.compile(r"(?:CRON_TZ|TZ)=(\S*)\s+(.*)", re.DOTALL)
_FIELDS: Final = (("minute", 59), ("hour", 23), ("day", 31), ("month", 12), ("weekday", 6))
_FIELD: Final = re.compile(r"[0-9A-Za-z*?,/-]+", re.ASCII)
_OPEN_STEP: Final = re.compile(r"(\d+|[A-Za-z]{3})/(\d+)", re.ASCII)
_EXTENSION: Final = re.compile(
    r"(?:^|,)(?:l|lw|\d+[lw]|[a-z]{3}l|l-\d+|h(?:/\d+)?)(?=$|,)", re.ASCII | re.IGNORECASE
)
_GO_UNITS: Final = {
    "h": 3_600_000,
    "m": 60_000,
    "s": 1_000,
    "ms": 1,
    "us": 0.001,
    "µs": 0.001,
    "ns": 0.000001,
}
_GO_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/=-]{0,79}", re.ASCII)
_MOST_SECONDS: Final = MAX_DEADLINE_MS // 1000
_CONTAINER_KEYS: Final = ("name", "image", "command", "args")


def translate(text: str) -> Findings:
    """Return what manifests hold. Errors: SourceProblem if there is no manifest, or not one CronJob, among them."""
    findings = Findings()
    others: dict[str, int] = {}
    count = 0
    for line, document in read_documents(text):
        for manifest in _manifests(line, document):
            if manifest.get("kind") != "CronJob":
                kind = word(manifest.get("kind"))[:50]
                others.setdefault(kind, manifest.line)
                continue
            count += 1
            _add(findings, manifest)
    for kind, line in others.items():
        findings.remark(line, f"of the kind {kind}: left out, only CronJobs have schedules")
    if not count and not _is_empty_list(text):
        raise SourceProblem(
            1, "there is no CronJob in it; name a manifest, or what 'kubectl get cronjobs -o yaml' prints"
        )
    return findings


def _is_empty_list(text: str) -> bool:
    return all(
        isinstance(document, Mapping)
        and word(document.get("kind")).endswith("List")
        and not document.get("items")
        for _, document in read_documents(text)
    )


def _manifests(line: int, document: Any) -> list[Mapping]:
    if not isinstance(document, Mapping) or "kind" not in document:
        raise SourceProblem(
            line, "this is no manifest: it has no kind; a CronJob begins with apiVersion and kind"
        )
    if not word(document["kind"]).endswith("List"):
        return [document]
    items = document.get("items")
    items = [] if items is None else items
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise SourceProblem(document.line, "its items are no list of manifests")
    # Items of a typed list may leave out their kind.
    kind = word(document["kind"]).removesuffix("List")
    return [item if "kind" in item or not kind else _with_kind(item, kind) for item in items]


def _with_kind(item: Mapping, kind: str) -> Mapping:
    item["kind"] = kind
    return item


def _add(findings: Findings, manifest: Mapping) -> None:
    metadata, spec = manifest.get("metadata"), manifest.get("spec")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    namespace = metadata.get("namespace") if isinstance(metadata, Mapping) else None
    full = "/".join(word(part) for part in (namespace, name) if part)
    source = shortened(full or "a CronJob without a name", 100)
    try:
        found = _found(manifest.line, source, full, metadata, spec)
    except NotImportable as exc:
        findings.refuse(manifest.line, source, str(exc))
        return
    findings.add(found)


def _found(line: int, source: str, full: str, metadata: Any, spec: Any) -> Found:
    if not isinstance(metadata, Mapping) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise NotImportable("metadata.name is missing; every CronJob has one")
    schedule = spec.get("schedule") if isinstance(spec, Mapping) else None
    if not isinstance(schedule, str) or not schedule.strip():
        raise NotImportable("spec.schedule is missing or no text; put it in quotes")
    differs: list[str] = []
    remarks: list[str] = []
    rule, tz = _zone(schedule.strip(), spec.get("timeZone"), remarks)
    when = _when(rule, remarks, differs)
    document: dict[str, Any] = {"when": when, "tz": tz, "message": _message(full, spec, remarks, differs)}
    if spec.get("suspend") is True:
        document["paused"] = True
        remarks.append("suspend: true, so it is paused until 'cronally resume'")
    deadline = spec.get("startingDeadlineSeconds")
    if deadline is not None:
        if not isinstance(deadline, int) or isinstance(deadline, bool) or not 0 <= deadline <= _MOST_SECONDS:
            raise NotImportable(
                f"spec.startingDeadlineSeconds must be a whole number from 0 to {_MOST_SECONDS:,}"
            )
        document["deadline"] = format_duration(max(deadline, 1) * 1000)
        remarks.append(f"startingDeadlineSeconds: {deadline} is its deadline")
    policy = spec.get("concurrencyPolicy")
    if word(policy) in {"Forbid", "Replace"}:
        doing = "is not started" if policy == "Forbid" else "replaces it"
        differs.append(
            f"concurrencyPolicy {policy}: under Kubernetes a run that comes while the last one is at work {doing}; Cronally "
            "publishes every fire, so the receiver must see to that"
        )
    tags = _tags(metadata, remarks)
    if tags:
        document["tags"] = tags
    old, why_no_old = _old(rule, tz)
    return Found(
        line=line,
        source=f"{source} {shortened(schedule)}",
        name=full.replace("/", "."),
        document=document,
        old=old,
        why_no_old=why_no_old,
        differs=tuple(differs),
        remarks=tuple(remarks),
    )


def _zone(schedule: str, time_zone: object, remarks: list[str]) -> tuple[str, str]:
    """Return the rule without its zone, and the zone."""
    prefix = _PREFIX.fullmatch(schedule)
    if time_zone is not None and not isinstance(time_zone, str):
        raise NotImportable("spec.timeZone must be text, such as Europe/London")
    if prefix is not None:
        if time_zone:
            raise NotImportable(
                "it has both spec.timeZone and a zone in its schedule, which Kubernetes refuses; leave one out"
            )
        remarks.append(f"the zone {prefix[1]} stands before its schedule")
        return prefix[2].strip(), prefix[1]
    if not time_zone:
        remarks.append(
            "it has no timeZone, so Kubernetes goes by the zone of its controller, mostly UTC; UTC is taken"
        )
    return schedule, time_zone or "UTC"


def _when(rule: str, remarks: list[str], differs: list[str]) -> str:
    if rule.startswith("@every"):
        differs.append(
            "Kubernetes counts @every from the last run; Cronally from 1970-01-01T00:00:00Z ('--starts' of 'cronally set' gives "
            "another beginning)"
        )
        return f"@every {format_duration(_go_duration(rule.removeprefix('@every').strip()))}"
    if rule.startswith("@"):
        return rule
    fields = rule.split()
    if len(fields) != len(_FIELDS):
        raise NotImportable(
            f"the schedule {shortened(rule)!r} does not have five fields; Kubernetes refuses it, too"
        )
    wrong = [field for field in fields if not _FIELD.fullmatch(field) or _EXTENSION.search(field)]
    if wrong:
        raise NotImportable(
            f"Kubernetes itself refuses {shortened(wrong[0])!r} in a schedule, so it never ran"
        )
    plain = _plain(fields)
    when = fires_on_either(plain)
    if when != plain:
        remarks.append(EITHER.format(now=" ".join(when), before=" ".join(fields), system=SYSTEM))
    elif plain != fields:
        remarks.append(f"written {' '.join(plain)}, which means the same here")
    return " ".join(when)


def _plain(fields: list[str]) -> list[str]:
    """Return the fields without what robfig/cron alone knows: ``?``, ``*/1`` and ``a/n``."""
    plain = []
    for field, (_, last) in zip(fields, _FIELDS, strict=True):
        items = [
            f"{match[1]}-{last}/{match[2]}"
            if (match := _OPEN_STEP.fullmatch(item))
            else item.replace("?", "*")
            for item in field.split(",")
        ]
        plain.append("*" if {"*", "*/1"} & set(items) else ",".join(items))
    return plain


def _go_duration(text: str) -> int:
    """Return the milliseconds of a duration as Go writes it, whole seconds, at least one, as robfig/cron rounds it."""
    parts = _GO_DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text or len(text) > 40:
        raise NotImportable(f"@every {shortened(text)!r} is no duration; write one such as 1h30m")
    total = sum(float(number) * _GO_UNITS[unit] for number, unit in parts)
    return max(1_000, int(total) // 1000 * 1000)


def _old(rule: str, tz: str) -> tuple[OldCrontab | None, str | None]:
    if rule.startswith("@every"):
        return None, "the manifest does not say when it ran last"
    text = NICKNAMES.get(rule, rule)
    if text.startswith("@") or len(text.split()) != len(_FIELDS):
        return None, "croniter has no such rule"
    # croniter reads a/n alike, but for the day of week, where it goes on to 7.
    plain = _plain(text.split())
    fields = [field.replace("?", "*") if field != "*/1" else "*" for field in text.split()]
    old = OldCrontab(text=" ".join([*fields[:4], plain[4]]), tz=tz, clock="instants")
    failure = old.check()
    return (old, None) if failure is None else (None, f"croniter cannot read it ({failure})")


def _message(full: str, spec: Mapping, remarks: list[str], differs: list[str]) -> str:
    """Return what to run as JSON: the containers' names, images, commands and arguments."""
    node: Any = spec
    for key in ("jobTemplate", "spec", "template", "spec"):
        node = node.get(key) if isinstance(node, Mapping) else None
    containers = node.get("containers") if isinstance(node, Mapping) else None
    if (
        not isinstance(containers, list)
        or not containers
        or not all(isinstance(one, Mapping) for one in containers)
    ):
        raise NotImportable(
            "spec.jobTemplate.spec.template.spec.containers is missing, so there is nothing to run"
        )
    shown = []
    for container in containers:
        for key in ("command", "args"):
            words = container.get(key)
            if words is not None and not (
                isinstance(words, list) and all(isinstance(word, str) for word in words)
            ):
                raise NotImportable(f"{key} of a container must be a list of texts")
        for key in ("name", "image"):
            if not isinstance(container.get(key), str | None):
                raise NotImportable(f"{key} of a container must be text")
        shown.append({key: container[key] for key in _CONTAINER_KEYS if container.get(key) is not None})
        if not container.get("command") and not container.get("args"):
            remarks.append(
                "a container has neither command nor args: its image knows what to run, the message does not"
            )
    if any(container.get("env") or container.get("envFrom") for container in containers):
        remarks.append("variables of the containers are not sent along, for they may be secrets")
    if node.get("initContainers"):
        differs.append("its initContainers are not in the message; the receiver must see to what they did")
    return json.dumps({"cronjob": full, "containers": shown}, ensure_ascii=False)


def _tags(metadata: Mapping, remarks: list[str]) -> list[str]:
    labels = metadata.get("labels")
    if not isinstance(labels, Mapping):
        return []
    words = [f"{key}={value}" if isinstance(value, str) and value else key for key, value in labels.items()]
    tags = [word for word in words if _TAG.fullmatch(word)][:MAX_TAGS]
    if len(tags) < len(words):
        left_out = ", ".join(shortened(word, 40) for word in words if word not in tags)
        remarks.append(f"labels that cannot be tags are left out: {left_out}")
    return tags
