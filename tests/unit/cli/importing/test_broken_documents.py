"""Whatever stands in whatever place of a document: a schedule, a reason, or one sentence about the file."""

import copy
import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cronally.cli.importing import cron_yaml, eventbridge, kubernetes
from cronally.cli.importing.found import SourceProblem
from cronally.cli.importing.planning import Choices, Placed, plan
from cronally.cli.importing.report import report_plain, report_text
from cronally.instants import parse_rfc3339

NOW = parse_rfc3339("2026-11-24T00:00:00Z")
SAMPLES = {
    "cron_yaml": (cron_yaml, {"version": 1, "cron": [{"name": "a", "url": "/a", "schedule": "0 23 * * *"}]}),
    "eventbridge": (
        eventbridge,
        {
            "Name": "a", "GroupName": "g", "Arn": "arn:x", "ScheduleExpression": "cron(0 9 * * ? *)", "ScheduleExpressionTimezone": "UTC",
            "State": "ENABLED", "StartDate": "2026-01-01T00:00:00Z", "EndDate": "2030-01-01T00:00:00Z", "CreationDate": 0, "Description": "d",
            "FlexibleTimeWindow": {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": 5},
            "Target": {
                "Arn": "arn:aws:sns:us-east-1:123456789012:t", "Input": "hi <aws.scheduler.schedule-arn>",
                "RetryPolicy": {"MaximumEventAgeInSeconds": 60, "MaximumRetryAttempts": 1},
                "DeadLetterConfig": {"Arn": "x"}, "SqsParameters": {"MessageGroupId": "g"},
            },
        },
    ),
    "kubernetes": (
        kubernetes,
        {
            "kind": "CronJob", "metadata": {"name": "a", "namespace": "n", "labels": {"k": "v"}},
            "spec": {
                "schedule": "0 9 * * *", "timeZone": "UTC", "suspend": True, "startingDeadlineSeconds": 5, "concurrencyPolicy": "Forbid",
                "jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i", "command": ["x"], "args": ["y"], "env": []}],
                                                               "initContainers": []}}}},
            },
        },
    ),
}  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(
        (
            "@reboot",
            "@every",
            "rate()",
            "at(x)",
            "cron()",
            "cron(0 9 * * ? 1)",
            "* * * * *",
            "TZ= * * * * *",
            "0/0 ? ? ? ?",
            "a" * 2000,
        )
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(document, path, value):
    if not path:
        return value
    whole = copy.deepcopy(document)
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return whole


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=200)
@given(data=st.data())
def test_whatever_stands_there_it_is_answered(name, data):
    module, sample = SAMPLES[name]
    document = changed(sample, data.draw(st.sampled_from(list(places(sample)))), data.draw(VALUES))
    with suppress(SourceProblem):
        sources = [Placed("f", module.translate(json.dumps(document)))]
        planned = plan(sources, Choices(keeps_dst=data.draw(st.booleans())), NOW)
        said = {"system": module.SYSTEM, "general": module.GENERAL}
        report_text(planned, sources, **said)
        json.dumps(report_plain(planned, sources, **said))
        assert all(one.refusal.reason for one in planned.refused)


@pytest.mark.parametrize("name", SAMPLES)
@settings(max_examples=200)
@given(data=st.data())
def test_a_file_that_is_cut_short_is_answered(name, data):
    module, sample = SAMPLES[name]
    text = json.dumps(sample, indent=1)
    with suppress(SourceProblem):
        module.translate(text[: data.draw(st.integers(0, len(text)))])
