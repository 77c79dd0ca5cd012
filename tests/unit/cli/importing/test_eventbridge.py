"""What the AWS CLI prints of EventBridge Scheduler and of rules."""

import json

import pytest

from cronally.cli.importing.eventbridge import translate
from cronally.cli.importing.found import SourceProblem
from cronally.cli.importing.planning import Choices, Placed, plan
from cronally.instants import parse_rfc3339
from support.imported import the_item, the_only

NOW = parse_rfc3339("2026-11-24T00:00:00Z")
TOPIC = "arn:aws:sns:us-east-1:123456789012:invoices"
NIGHTLY = """\
{
    "ActionAfterCompletion": "NONE",
    "Arn": "arn:aws:scheduler:us-east-1:123456789012:schedule/billing/nightly",
    "CreationDate": "2024-03-01T12:00:00.123000+01:00",
    "Description": "Nightly invoices",
    "EndDate": "2030-01-01T00:00:00+01:00",
    "FlexibleTimeWindow": {
        "MaximumWindowInMinutes": 15,
        "Mode": "FLEXIBLE"
    },
    "GroupName": "billing",
    "LastModificationDate": "2024-03-01T12:00:00.123000+01:00",
    "Name": "nightly",
    "ScheduleExpression": "cron(30 4 ? * MON-FRI *)",
    "ScheduleExpressionTimezone": "Europe/Berlin",
    "StartDate": "2024-03-02T00:00:00+01:00",
    "State": "DISABLED",
    "Target": {
        "Arn": "arn:aws:lambda:us-east-1:123456789012:function:invoice",
        "DeadLetterConfig": {"Arn": "arn:aws:sqs:us-east-1:123456789012:dlq"},
        "Input": "{\\"at\\": \\"<aws.scheduler.scheduled-time>\\"}",
        "RetryPolicy": {
            "MaximumEventAgeInSeconds": 3600,
            "MaximumRetryAttempts": 10
        },
        "RoleArn": "arn:aws:iam::123456789012:role/scheduler"
    }
}
"""
RULES = """\
{
    "Rules": [
        {
            "Name": "every-five",
            "Arn": "arn:aws:events:us-east-1:123456789012:rule/every-five",
            "State": "ENABLED",
            "Description": "five",
            "ScheduleExpression": "rate(5 minutes)",
            "EventBusName": "default"
        },
        {
            "Name": "on-upload",
            "Arn": "arn:aws:events:us-east-1:123456789012:rule/on-upload",
            "EventPattern": "{\\"source\\": [\\"aws.s3\\"]}",
            "State": "ENABLED",
            "EventBusName": "default"
        }
    ]
}
"""


def schedule(expression="cron(0 9 * * ? *)", **keys):
    target = {"Arn": TOPIC, "Input": "hi"} | keys.pop("Target", {})
    return json.dumps({"Name": "a", "ScheduleExpression": expression, "Target": target} | keys)


def only(text):
    return the_only(translate(text))


def item(text, **choices):
    return the_item(translate(text), NOW, topic=TOPIC, **choices)


def test_a_whole_schedule():
    found = only(NIGHTLY)
    assert (found.line, found.name) == (1, "billing.nightly")
    assert found.document == {
        "when": "cron(30 4 ? * MON-FRI *)",
        "dialect": "eventbridge",
        "tz": "Europe/Berlin",
        "starts": "2024-03-01T23:00:00Z",
        "ends": "2029-12-31T23:00:00Z",
        "paused": True,
        "spread": "15m",
        "message": '{"at": "<aws.scheduler.scheduled-time>"}',
        "deadline": "1h",
        "note": "Nightly invoices",
        "tags": ["group:billing"],
    }
    said = " ".join(found.differs + found.remarks)
    for part in (
        "function:invoice is no SNS topic",
        "window of 15 min",
        "after 10 retries",
        "no dead-letter queue",
        "paused until",
    ):
        assert part in said
    assert item(NIGHTLY).document["topic"] == TOPIC


def test_rules_and_what_they_lack():
    findings = translate(RULES)
    [found] = findings.found
    assert (found.line, found.name, found.document["when"]) == (3, "every-five", "rate(5 minutes)")
    assert "list-targets-by-rule" in found.remarks[0]
    assert "from the creation" in found.differs[0]
    [refusal] = findings.refusals
    assert (refusal.line, "EventPattern" in refusal.reason) == (11, True)


def test_what_list_schedules_prints_does_not_do_and_what_does_is_said():
    text = json.dumps(
        {
            "Schedules": [
                {"Arn": "a", "Name": "n", "GroupName": "g", "State": "ENABLED", "Target": {"Arn": TOPIC}}
            ]
        }
    )
    with pytest.raises(SourceProblem, match="aws scheduler get-schedule --group-name"):
        translate(text)


@pytest.mark.parametrize("text", ["[]", '{"Schedules": []}', '{"Rules": []}'])
def test_a_list_without_schedules(text):
    assert translate(text).found == []


def test_many_documents():
    one = schedule()
    for text in (one + one, f"{one}\n{one}", f"[{one}, {one}]"):
        assert [found.name for found in translate(text).found] == ["a", "a"]


def test_a_topic_of_the_source_goes_before_that_of_the_command_line():
    assert item(schedule(Target={"Arn": f"{TOPIC}-2"})).document["topic"] == f"{TOPIC}-2"


def test_a_universal_target_that_publishes():
    call = {
        "TopicArn": TOPIC, "Message": "at <aws.scheduler.scheduled-time>", "Subject": "s", "MessageGroupId": "g",
        "MessageAttributes": {"k": {"DataType": "String", "StringValue": "v"}, "n": {"DataType": "Number", "StringValue": "5"}},
    }  # fmt: skip
    found = only(
        schedule(Target={"Arn": "arn:aws:scheduler:::aws-sdk:sns:publish", "Input": json.dumps(call)})
    )
    assert {key: found.document[key] for key in ("topic", "message", "subject", "group", "attributes")} == {
        "topic": TOPIC,
        "message": "at <aws.scheduler.scheduled-time>",
        "subject": "s",
        "group": "g",
        "attributes": {"k": "v", "n": {"type": "Number", "value": "5"}},
    }


def test_context_attributes():
    text = "<aws.scheduler.scheduled-time> <aws.scheduler.execution-id> <aws.scheduler.attempt-number> <aws.scheduler.schedule-arn>"
    found = only(schedule(Arn="arn:x", Target={"Input": text}))
    assert found.document["message"] == "<aws.scheduler.scheduled-time> <cronally.fire-id> 1 arn:x"
    assert len(found.differs) == 2
    assert "no Arn" in translate(schedule(Target={"Input": text})).refusals[0].reason


@pytest.mark.parametrize(
    ("expression", "tz"),
    [
        ("cron(0 9 ? * MON-FRI *)", "Europe/London"), ("cron(0/15 9-17 ? 1/3 6L,2#2 2027-2029)", "UTC"), ("cron(0 0 L * ? *)", "UTC"),
        ("cron(5 4 1,15 JAN-MAR ? 2027/2)", "Asia/Tokyo"), ("cron(0 0 ? * 1 *)", "UTC"), ("cron(0 0 ? * L *)", "UTC"),
        ("cron(0 0 ? * 2-6 *)", "America/New_York"), ("rate(90 minutes)", "UTC"), ("rate(1 day)", "Europe/London"),
        ("at(2026-12-24T18:00:00)", "America/New_York"), ("at(2027-11-07T01:30:00)", "America/New_York"),
    ],
)  # fmt: skip
def test_a_schedule_keeps_its_fires(expression, tz):
    one = item(schedule(expression, ScheduleExpressionTimezone=tz, CreationDate="2026-01-01T00:07:00Z"))
    assert one.found.why_no_old is None
    assert one.comparison.failure is None
    assert all(fire.is_old and fire.is_ours for fire in one.comparison.next_fires)
    assert one.comparison.later == ()


def test_what_the_change_of_the_clock_does_differently_is_shown_and_can_be_kept():
    text = schedule("cron(30 2 * * ? *)", ScheduleExpressionTimezone="America/New_York")
    assert [(fire.at, fire.is_ours) for fire in item(text).comparison.later] == [
        (parse_rfc3339("2027-03-14T07:00:00Z"), True)
    ]
    kept = item(text, keeps_dst=True)
    assert kept.comparison.later == ()
    assert kept.document["on_gap"] == "skip"


def test_a_rule_that_croniter_cannot_read_is_imported_and_says_so():
    one = item(schedule("cron(0 0 15W * ? *)"))
    assert "croniter does not read W" in one.remarks[-1]
    assert len(one.comparison.next_fires) == 3


def test_rate_counts_from_its_start_or_creation():
    assert (
        only(schedule("rate(5 minutes)", CreationDate=1709290800.5)).document["starts"]
        == "2024-03-01T11:00:00Z"
    )
    dated = only(schedule("rate(5 minutes)", CreationDate=0, StartDate="2026-01-01T00:00:00Z"))
    assert dated.document["starts"] == "2026-01-01T00:00:00Z"


def test_at_has_no_bounds():
    found = only(
        schedule("at(2027-01-01T00:00:00)", StartDate="2028-01-01T00:00:00Z", ActionAfterCompletion="DELETE")
    )
    assert "starts" not in found.document
    assert any("here it stays" in text for text in found.differs)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (schedule(""), "ScheduleExpression is missing"),
        (schedule(5), "must be text"),
        (schedule(State="MAYBE"), "neither ENABLED nor DISABLED"),
        (schedule(StartDate="soon"), "no instant"),
        (schedule(StartDate=[1]), "no instant"),
        (schedule(EndDate=1e300), "no instant"),
        (schedule(FlexibleTimeWindow={"Mode": "FLEXIBLE"}), "MaximumWindowInMinutes"),
        (schedule(Target={"RetryPolicy": {"MaximumEventAgeInSeconds": "x"}}), "MaximumEventAgeInSeconds"),
        (schedule(Target={"Arn": "arn:aws:scheduler:::aws-sdk:sns:publish", "Input": "x"}), "JSON object"),
        (schedule(Target={"Arn": "arn:aws:scheduler:::aws-sdk:sns:publish", "Input": "{}"}), "lacks TopicArn"),
        (schedule(Target={"Arn": "arn:aws:scheduler:::aws-sdk:sns:publish",
                          "Input": json.dumps({"TopicArn": TOPIC, "Message": "m", "MessageAttributes": {"k": 1}})}), "no StringValue"),
    ],
)  # fmt: skip
def test_a_bad_schedule_is_refused_with_the_reason(text, part):
    findings = translate(text)
    assert findings.found == []
    assert part in findings.refusals[0].reason


@pytest.mark.parametrize(
    ("text", "part"),
    [(schedule("at(2020-01-01T00:00:00)"), "its time is past"), (schedule(EndDate="2020-01-01T00:00:00Z"), "is past"),
     (schedule("cron(0 9 * * * *)"), "exactly one of the two day fields"), (schedule("rate(5 fortnights)"), "is not a rate"),
     (schedule(ScheduleExpressionTimezone="Mars/Base"), "Mars/Base"), (schedule("cron(0 9 * * ? 1999)"), "past")],
)  # fmt: skip
def test_what_would_never_fire_or_is_no_rule_is_not_imported(text, part):
    result = plan([Placed("f", translate(text))], Choices(), NOW)
    assert result.items == []
    assert part in result.refused[0].refusal.reason


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [("5", 1, "is not what"), ("[1]", 1, "is not what"), ('{"Schedules": 5}', 1, "is not what"), ('{}\n{"a": 1}', 1, "no Name"),
     (f"{schedule()}\n\n{{}}", 3, "no Name"), ('{"Name": 5}', 1, "no Name")],
)  # fmt: skip
def test_what_the_aws_cli_does_not_print(text, line, part):
    with pytest.raises(SourceProblem, match=part) as caught:
        translate(text)
    assert caught.value.line == line
