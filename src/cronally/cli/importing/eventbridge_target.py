"""What a schedule of EventBridge sends, and where to: its target and Input."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from cronally.cli.importing.found import NotImportable, shortened
from cronally.cli.importing.yaml_texts import Mapping
from cronally.domain.durations import format_duration
from cronally.domain.topic import parse_topic_arn

_EXECUTION_ID: Final = "<aws.scheduler.execution-id>"
_ATTEMPT: Final = "<aws.scheduler.attempt-number>"
_SCHEDULE_ARN: Final = "<aws.scheduler.schedule-arn>"
_PUBLISH: Final = re.compile(r"arn:aws[a-z-]*:scheduler:::aws-sdk:sns:publish", re.ASCII)
_MOST_RETRIES: Final = 185  # the default, and the most there are


class Target:
    """Reads a target into a document. Attributes: differs, remarks: what is said on the way is added to them."""

    def __init__(self, schedule: Mapping, differs: list[str], remarks: list[str]) -> None:
        self._schedule = schedule
        self.differs = differs
        self.remarks = remarks

    def read(self, document: dict[str, Any], target: Mapping) -> None:
        """Put topic, message and policies into *document*. Errors: NotImportable."""
        arn = text_of("Arn", target) or ""
        text = text_of("Input", target)
        if _PUBLISH.fullmatch(arn):
            self._publish(document, text)
        else:
            if _is_topic(arn):
                document["topic"] = arn
            else:
                self.remarks.append(
                    f"its target {shortened(arn, 120) or '(none)'} is no SNS topic: subscribe it to the one that --topic names"
                )
            if text:
                document["message"] = self._filled(text)
            else:
                self.differs.append(
                    "it has no Input, so EventBridge sends an event of its own; Cronally sends its default message"
                )
        sqs = target.get("SqsParameters")
        if isinstance(sqs, Mapping) and (group := text_of("MessageGroupId", sqs)):
            document["group"] = group
        self._retries(document, target)

    def _publish(self, document: dict[str, Any], text: str | None) -> None:
        """Read the parameters of sns:Publish, which a universal target has as its Input."""
        try:
            call = json.loads(text or "")
        except (ValueError, RecursionError):
            call = None
        if not isinstance(call, dict) or not all(
            isinstance(call.get(key), str | None)
            for key in ("TopicArn", "Message", "Subject", "MessageStructure", "MessageGroupId")
        ):
            raise NotImportable(
                "the Input of its target must be the parameters of sns:Publish, a JSON object"
            )
        topic, message = call.pop("TopicArn", None), call.pop("Message", None)
        if topic is None or message is None:
            raise NotImportable(
                "the Input of its target lacks TopicArn or Message, so EventBridge publishes nothing to a topic"
            )
        document |= {"topic": topic, "message": self._filled(message)}
        for theirs, ours in (
            ("Subject", "subject"),
            ("MessageStructure", "message_structure"),
            ("MessageGroupId", "group"),
        ):
            if (value := call.pop(theirs, None)) is not None:
                document[ours] = value
        attributes = call.pop("MessageAttributes", None)
        if attributes is not None:
            document["attributes"] = self._attributes(attributes)
        call.pop("MessageDeduplicationId", None)
        if call:
            self.differs.append(
                f"parameters of sns:Publish that are left out: {shortened(', '.join(map(str, call)))}"
            )

    def _attributes(self, given: object) -> dict[str, Any]:
        attributes: dict[str, Any] = {}
        for name, value in given.items() if isinstance(given, dict) else ():
            text = value.get("StringValue") if isinstance(value, dict) else None
            if not isinstance(text, str):
                raise NotImportable(f"the message attribute {shortened(str(name), 40)!r} has no StringValue")
            kind = value.get("DataType", "String")
            attributes[name] = self._filled(text) if kind == "String" else {"type": kind, "value": text}
        return attributes

    def _filled(self, text: str) -> str:
        """Return *text* with EventBridge's context attributes in our words; its scheduled-time is one of ours, too."""
        if _SCHEDULE_ARN in text:
            arn = text_of("Arn", self._schedule)
            if not arn:
                raise NotImportable(f"its Input has {_SCHEDULE_ARN}, and there is no Arn to put there")
            text = text.replace(_SCHEDULE_ARN, arn)
            self.remarks.append(f"{_SCHEDULE_ARN} is written out as {shortened(arn, 120)}")
        if _EXECUTION_ID in text:
            text = text.replace(_EXECUTION_ID, "<cronally.fire-id>")
            self.differs.append(
                f"{_EXECUTION_ID}, another one at each attempt, is <cronally.fire-id>, the same at each"
            )
        if _ATTEMPT in text:
            text = text.replace(_ATTEMPT, "1")
            self.differs.append(f"{_ATTEMPT} is always 1: a message that is sent again is the same message")
        return text

    def _retries(self, document: dict[str, Any], target: Mapping) -> None:
        policy = target.get("RetryPolicy")
        if isinstance(policy, Mapping):
            age = policy.get("MaximumEventAgeInSeconds")
            if age is not None:
                if not isinstance(age, int) or isinstance(age, bool) or not 1 <= age <= 86_400:
                    raise NotImportable(
                        "RetryPolicy: MaximumEventAgeInSeconds must be a whole number up to 86400"
                    )
                document["deadline"] = format_duration(age * 1000)
            attempts = policy.get("MaximumRetryAttempts")
            if attempts is not None and attempts != _MOST_RETRIES:
                self.differs.append(
                    f"EventBridge gives up after {shortened(str(attempts), 10)} retries; Cronally tries until the deadline"
                )
        if isinstance(target.get("DeadLetterConfig"), Mapping) and target["DeadLetterConfig"].get("Arn"):
            self.differs.append(
                "there is no dead-letter queue: what could not be published is in 'cronally history --state rejected,expired'"
            )


def text_of(key: str, of: Mapping) -> str | None:
    """Return a text, or None if it is not there. Errors: NotImportable if it is something else."""
    value = of.get(key)
    if value is not None and not isinstance(value, str):
        raise NotImportable(f"{key} must be text, not {shortened(str(value), 30)}")
    return value


def _is_topic(arn: str) -> bool:
    try:
        parse_topic_arn(arn)
    except ValueError:
        return False
    return True
