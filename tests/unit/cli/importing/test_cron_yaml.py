"""The cron.yaml of the Elastic Beanstalk developer guide, and what goes wrong with one."""

import pytest

from cronally.cli.importing.cron_yaml import BODY, translate
from cronally.cli.importing.found import SourceProblem
from cronally.cli.importing.planning import Choices, Placed, plan
from cronally.domain.message import compose
from cronally.domain.model import Fire, Kind
from cronally.instants import parse_rfc3339

NOW = parse_rfc3339("2026-11-24T00:00:00Z")
GUIDE = """\
version: 1
cron:
 - name: "backup-job"          # unique across all entries in this file
   url: "/backup"              # does not need to be unique
   schedule: "0 */12 * * *"    # runs every 12 hours
 - name: "audit"
   url: "/audit"
   schedule: "0 23 * * *"
"""


def entry(schedule="0 1 * * *", **keys):
    fields = {"name": "a", "url": "/a", "schedule": f"'{schedule}'"} | keys
    return (
        "version: 1\ncron:\n- "
        + "\n  ".join(f"{key}: {value}" for key, value in fields.items() if value is not None)
        + "\n"
    )


def planned(text):
    return plan([Placed("f", translate(text))], Choices(topic="arn:aws:sns:us-east-1:123456789012:t"), NOW)


def test_the_example_of_the_guide():
    first, second = translate(GUIDE).found
    assert (first.line, first.name, first.document["when"], first.document["tz"]) == (
        3,
        "backup-job",
        "0 */12 * * *",
        "UTC",
    )
    assert (second.line, second.name) == (6, "audit")


def test_a_worker_gets_what_its_leader_would_have_sent():
    item = planned(GUIDE).items[1]
    fire = Fire(
        1, 1, parse_rfc3339("2026-11-24T23:00:00Z"), parse_rfc3339("2026-11-24T23:00:00Z"), Kind.SCHEDULED
    )
    sent = compose(item.spec, fire)
    assert sent.message == BODY == "elasticbeanstalk scheduled job"
    theirs = {one.name: (one.type, one.value) for one in sent.attributes if one.name.startswith("beanstalk.")}
    assert theirs == {
        "beanstalk.sqsd.path": ("String", "/audit"),
        "beanstalk.sqsd.task_name": ("String", "audit"),
        "beanstalk.sqsd.scheduled_time": ("String", "2026-11-24 23:00:00 UTC"),
    }
    assert len(sent.attributes) <= 10  # a raw SQS subscription drops a message with more


@pytest.mark.parametrize(
    "rule",
    ["@daily", "0 */12 * * *", "0 23 1 * fri", "0 23 */2 * fri", "0 23 1 * */2", "5 4 * * sun", "0 0 29 2 *"],
)
def test_a_task_keeps_its_fires(rule):
    [item] = planned(entry(rule)).items
    assert item.found.old is not None
    assert all(fire.is_old and fire.is_ours for fire in item.comparison.next_fires)
    assert item.comparison.later == ()


def test_a_rule_that_is_written_anew_says_so():
    [found] = translate(entry("0 23 */2 * fri")).found
    assert found.document["when"] == "0 23 1-31/2 * fri"
    assert "Beanstalk fires when either does" in found.remarks[0]


def test_both_day_fields_are_pointed_out_because_versions_of_beanstalk_differ():
    assert "look at the days" in translate(entry("0 23 1 * fri")).found[0].differs[0]
    assert translate(entry("0 23 1 * *")).found[0].differs == ()


@pytest.mark.parametrize("text", ["version: 1\ncron:\n", "version: 1\ncron: []\n"])
def test_a_file_without_tasks(text):
    assert translate(text).found == []


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [("cron: []", 1, "'version: 1' is missing"), ("version: 1", 1, "'cron:' is missing"), ("version: 2\ncron: []", 1, "Beanstalk knows 1"),
     (f"version: 0x{'f' * 5_000}\ncron: []", 1, "a long number"),
     ("version: true\ncron: []", 1, "Beanstalk knows 1"), ("- a", 1, "a cron.yaml is"), ("version: 1\ncron: {a: b}", 1, "no list"),
     ("version: 1\ncron: [a]", 1, "no mapping"), ("version: 1\ncron: []\n---\nb: 1", 4, "one document"), ("# nothing", 1, "one document")],
)  # fmt: skip
def test_what_is_no_cron_yaml(text, line, part):
    with pytest.raises(SourceProblem, match=part) as caught:
        translate(text)
    assert caught.value.line == line


@pytest.mark.parametrize(
    ("text", "part"),
    [(entry(url="a"), "begins with /"), (entry(url=None), "url is missing"), (entry(name="5"), "name is missing or no text"),
     (entry(schedule="0 1 * *"), "five fields"), (entry(schedule="@reboot"), "five fields")],
)  # fmt: skip
def test_a_bad_task_is_refused_with_the_reason(text, part):
    findings = translate(text)
    assert findings.found == []
    assert part in findings.refusals[0].reason
    assert findings.refusals[0].line == 3


def test_of_two_tasks_of_one_name_the_last_counts_as_on_beanstalk():
    findings = translate(entry() + entry("0 2 * * *").partition("cron:\n")[2])
    assert [one.document["when"] for one in findings.found] == ["0 2 * * *"]
    assert "line 6 has the same name" in findings.refusals[0].reason


def test_a_rule_of_ours_that_beanstalk_cannot_mean_is_refused():
    result = planned(entry("0 0 31 2 *"))
    assert "no date ever matches" in result.refused[0].refusal.reason
