"""Schedules of EventBridge Scheduler and scheduled rules of EventBridge, as the AWS CLI prints them.

Sources: the EventBridge Scheduler user guide (*Schedule types*, *Context attributes*) and API reference; botocore's
model of scheduler 2021-06-30 and of events 2015-10-07.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

from cronally.cli.importing.eventbridge_target import Target, text_of
from cronally.cli.importing.found import Findings, Found, NotImportable, SourceProblem, shortened
from cronally.cli.importing.json_texts import read_values
from cronally.cli.importing.old_eventbridge import old_rule
from cronally.cli.importing.yaml_texts import Mapping
from cronally.domain.durations import MINUTE_MS, format_duration
from cronally.instants import UtcMs, format_utc, from_datetime, parse_rfc3339

SYSTEM: Final = "EventBridge"
GENERAL: Final = (
    "EventBridge fires somewhere in the 60 s after the time; Cronally at it",
    (
        "EventBridge gives each attempt an id of its own; Cronally repeats a message with the same fire id, in the attribute "
        "cronally.fire_id"
    ),
)

_GET_SCHEDULES: Final = (
    "aws scheduler list-schedules --query 'Schedules[].[GroupName,Name]' --output text | while read -r group name; do aws "
    'scheduler get-schedule --group-name "$group" --name "$name"; done | cronally import eventbridge'
)
_SHAPE: Final = "this is not what 'aws scheduler get-schedule' or 'aws events describe-rule' prints: a JSON object with Name and ScheduleExpression"
_TAG: Final = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


def translate(text: str) -> Findings:
    """Return what the documents hold. Errors: SourceProblem."""
    findings = Findings()
    for line, value in read_values(text):
        for schedule in _schedules(line, value):
            _add(findings, schedule)
    return findings


def _schedules(line: int, value: Any) -> list[Mapping]:
    if isinstance(value, Mapping):
        for key in ("Schedules", "Rules"):
            if key in value:
                value = value[key]
                break
        else:
            value = [value]
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise SourceProblem(line, _SHAPE)
    for one in value:
        if not isinstance(one.get("Name"), str) or not one["Name"]:
            raise SourceProblem(one.line, f"it has no Name; {_SHAPE}")
    if value and all("ScheduleExpression" not in one and "Target" in one for one in value):
        raise SourceProblem(
            value[0].line, f"list-schedules does not print when they fire; run instead: {_GET_SCHEDULES}"
        )
    return value


def _add(findings: Findings, schedule: Mapping) -> None:
    name, group = schedule["Name"], schedule.get("GroupName")
    is_grouped = isinstance(group, str) and group != "default"
    full = f"{group}.{name}" if is_grouped else name
    source = shortened(
        f"{f'{group}/' if is_grouped else ''}{name} {schedule.get('ScheduleExpression', '')}", 100
    )
    builder = _Builder(schedule)
    try:
        document = builder.document()
        if is_grouped and _TAG.fullmatch(str(group)):
            document["tags"] = [f"group:{group}"]
        old, why_no_old = old_rule(
            document["when"], document["tz"], starts=builder.starts, created=builder.created
        )
    except NotImportable as exc:
        findings.refuse(schedule.line, source, str(exc))
        return
    findings.add(
        Found(
            line=schedule.line,
            source=source,
            name=full,
            document=document,
            old=old,
            why_no_old=why_no_old,
            differs=tuple(builder.differs),
            remarks=tuple(builder.remarks),
        )
    )


class _Builder:
    """Puts one schedule's document together. Attributes: differs, remarks: said on the way. starts, created: instants."""

    def __init__(self, schedule: Mapping) -> None:
        self._schedule = schedule
        self.differs: list[str] = []
        self.remarks: list[str] = []
        self.starts: UtcMs | None = None
        self.created: UtcMs | None = None

    def document(self) -> dict[str, Any]:
        expression = text_of("ScheduleExpression", self._schedule)
        if not expression:
            if self._schedule.get("EventPattern"):
                raise NotImportable(
                    "it is a rule for events (EventPattern), not for times; leave it to EventBridge"
                )
            raise NotImportable("ScheduleExpression is missing; 'aws scheduler get-schedule' prints it")
        document: dict[str, Any] = {
            "when": expression.strip(),
            "dialect": "eventbridge",
            "tz": text_of("ScheduleExpressionTimezone", self._schedule) or "UTC",
        }
        self._bounds(document, expression.strip())
        self._state(document)
        self._window(document)
        target = self._schedule.get("Target")
        if isinstance(target, Mapping):
            Target(self._schedule, self.differs, self.remarks).read(document, target)
        else:
            self.remarks.append(
                "a rule's targets are not in it ('aws events list-targets-by-rule' shows them): subscribe them to the topic; the "
                "message is Cronally's default"
            )
        if note := text_of("Description", self._schedule):
            document["note"] = note if len(note) <= 500 else f"{note[:499]}…"
        return document

    def _bounds(self, document: dict[str, Any], expression: str) -> None:
        self.created = self._instant("CreationDate")
        starts, ends = self._instant("StartDate"), self._instant("EndDate")
        if expression.startswith("at("):
            if starts is not None or ends is not None:
                self.remarks.append(
                    "EventBridge ignores StartDate and EndDate of at(), and so they are left out"
                )
            return
        if starts is not None:
            self.starts = starts
            document["starts"] = format_utc(starts)
        if ends is not None:
            document["ends"] = format_utc(ends)
        if expression.startswith("rate(") and starts is None:
            if self.created is None:
                self.differs.append(
                    "EventBridge counts rate() from the creation of the schedule, Cronally from 1970-01-01T00:00:00Z ('--starts' "
                    "of 'cronally set' gives another beginning)"
                )
            else:
                document["starts"] = format_utc(self.created)
                self.remarks.append(
                    "rate() is counted from its CreationDate, which is its 'starts'; EventBridge does not say what an edit does to that"
                )

    def _instant(self, key: str) -> UtcMs | None:
        value = self._schedule.get(key)
        if value is None:
            return None
        try:
            # A number of seconds is how version 1 of the AWS CLI writes it.
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            instant = (
                from_datetime(datetime.fromtimestamp(value, UTC)) if is_number else parse_rfc3339(str(value))
            )
        except (ValueError, OverflowError, OSError):
            raise NotImportable(f"{key} {shortened(str(value), 40)} is no instant") from None
        return UtcMs(instant // 1000 * 1000)

    def _state(self, document: dict[str, Any]) -> None:
        state = self._schedule.get("State", "ENABLED")
        if state == "DISABLED":
            document["paused"] = True
            self.remarks.append("State is DISABLED, so it is paused until 'cronally resume'")
        elif not str(state).startswith("ENABLED"):
            raise NotImportable(f"State {shortened(str(state), 30)} is neither ENABLED nor DISABLED")
        if self._schedule.get("ActionAfterCompletion") == "DELETE":
            self.differs.append(
                "EventBridge deletes it after its last fire; here it stays, with its history, until 'cronally rm'"
            )

    def _window(self, document: dict[str, Any]) -> None:
        window = self._schedule.get("FlexibleTimeWindow")
        if not isinstance(window, Mapping) or window.get("Mode", "OFF") == "OFF":
            return
        minutes = window.get("MaximumWindowInMinutes")
        if not isinstance(minutes, int) or isinstance(minutes, bool) or not 1 <= minutes <= 1_440:
            raise NotImportable(
                "FlexibleTimeWindow: MaximumWindowInMinutes must be a whole number from 1 to 1440"
            )
        document["spread"] = format_duration(minutes * MINUTE_MS)
        self.differs.append(
            f"EventBridge fires anywhere in its window of {minutes} min; Cronally at one point of it, always the same (spread)"
        )
