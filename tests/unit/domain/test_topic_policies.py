import json

import pytest

from cronally.domain.topic_policies import (
    has_permission,
    merged_policy,
    publish_policy,
    queue_statement,
    statement_id,
)
from cronally.errors import UsageError

TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
QUEUE = "arn:aws:sqs:us-east-1:123456789012:jobs"
OURS = queue_statement(TOPIC, QUEUE)
THEIRS = {"Sid": "Theirs", "Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Resource": QUEUE}
UNNAMED = {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sqs:*", "Resource": QUEUE}
STALE = {**OURS, "Condition": {"ArnLike": {"aws:SourceArn": "*"}}}
OTHER_TOPIC = queue_statement(f"{TOPIC}-2", QUEUE)


def policy(*statements, **keys):
    return json.dumps({"Version": "2012-10-17", **keys, "Statement": list(statements)})


def test_the_statement_lets_in_that_topic_alone():
    assert {key: value for key, value in OURS.items() if key != "Sid"} == {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": QUEUE,
        "Condition": {"ArnEquals": {"aws:SourceArn": TOPIC}},
    }


def test_an_id_is_the_topic_s_own_and_what_aws_takes():
    assert statement_id(TOPIC) == statement_id(TOPIC) != statement_id(f"{TOPIC}-2")
    assert statement_id(TOPIC).isalnum()
    assert statement_id(TOPIC).startswith("Cronally")


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (None, [OURS]),
        ("", [OURS]),
        (policy(), [OURS]),
        (policy(THEIRS, UNNAMED), [THEIRS, UNNAMED, OURS]),
        (policy(STALE, THEIRS), [THEIRS, OURS]),
        (policy(OTHER_TOPIC), [OTHER_TOPIC, OURS]),
        (json.dumps({"Version": "2012-10-17", "Statement": THEIRS}), [THEIRS, OURS]),
        (json.dumps({"Version": "2012-10-17"}), [OURS]),
        (policy(OURS), None),
        (policy(THEIRS, OURS, UNNAMED), None),
        (json.dumps({"Version": "2012-10-17", "Statement": OURS}), None),
    ],
    ids=["none", "empty", "no statements", "others stay", "a stale one of ours is replaced", "another topic's stays",
         "a single one", "no Statement", "there already", "there among others", "there alone"],
)  # fmt: skip
def test_merging_changes_nothing_but_ours(present, expected):
    merged = merged_policy(present, OURS)
    assert (None if merged is None else json.loads(merged)["Statement"]) == expected


def test_merging_keeps_what_else_the_policy_says():
    present = json.dumps({"Version": "2008-10-17", "Id": "theirs", "Statement": [THEIRS]})
    merged = json.loads(merged_policy(present, OURS))
    assert (merged["Version"], merged["Id"]) == ("2008-10-17", "theirs")
    assert merged_policy(json.dumps(merged), OURS) is None


@pytest.mark.parametrize("present", ["no json", "[]", '"text"', "{"])
def test_a_policy_that_cannot_be_read_is_not_replaced(present):
    with pytest.raises(UsageError, match="correct or remove it first"):
        merged_policy(present, OURS)


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (None, False),
        (policy(), False),
        (policy(THEIRS), False),
        (policy({"Sid": statement_id(f"{TOPIC}-2")}), False),
        (policy({"Sid": statement_id(TOPIC)}, THEIRS), True),
    ],
)
def test_a_permission_is_known_by_its_id(present, expected):
    assert has_permission(present, TOPIC) is expected


def test_the_least_policy_names_the_topics_and_nothing_else():
    assert json.loads(publish_policy([f"{TOPIC}-2", TOPIC])) == {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sns:Publish", "Resource": [TOPIC, f"{TOPIC}-2"]}],
    }
