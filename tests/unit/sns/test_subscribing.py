"""What a subscription takes, step by step, against a scripted AWS."""

from __future__ import annotations

import asyncio
import json

import pytest

from cronally.domain.targets import parse_target
from cronally.domain.topic import parse_topic_arn
from cronally.domain.topic_policies import queue_statement, statement_id
from cronally.errors import AwsRefused, UsageError
from cronally.sns.subscribing import Subscribing
from support.fake_clock import FakeClock
from support.scripted_aws import Refused, ScriptedAws

TOPIC = parse_topic_arn("arn:aws:sns:us-east-1:123456789012:reports")
QUEUE = "arn:aws:sqs:us-east-1:123456789012:jobs"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:worker"
URL = "https://example.com/cron"
SUBSCRIPTION = f"{TOPIC.text}:11111111-2222-3333-4444-555555555555"
OURS = queue_statement(TOPIC.text, QUEUE)
THEIRS = {"Sid": "Theirs", "Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Resource": QUEUE}

PENDING = {"Attributes": {"PendingConfirmation": "true"}}


def confirmed(**attributes):
    return {"Attributes": {"PendingConfirmation": "false", "RawMessageDelivery": "false", **attributes}}


def listed(endpoint, protocol, arn=SUBSCRIPTION):
    return {"Subscriptions": [{"Protocol": protocol, "Endpoint": endpoint, "SubscriptionArn": arn}]}


def scripted(**answers):
    common = {
        "GetTopicAttributes": {"Attributes": {}},
        "ListSubscriptionsByTopic": {"Subscriptions": []},
        "Subscribe": {"SubscriptionArn": SUBSCRIPTION},
        "GetSubscriptionAttributes": confirmed(),
        "GetQueueUrl": {"QueueUrl": "https://queue"},
        "GetQueueAttributes": {"Attributes": {}},
        "GetPolicy": Refused("ResourceNotFoundException"),
    }
    return ScriptedAws(**common | answers)


class Run:
    """One run of the command. steps: what was told, as (what, outcome)."""

    def __init__(self, aws, target, *, raw=None, clock=None):
        self.told = []
        self.clock = clock or FakeClock()
        self._subscribing = Subscribing(
            aws, self.clock, TOPIC, parse_target(target), raw=raw, tell=self.told.append
        )

    async def __call__(self, wait_s=0.0):
        return await self._subscribing.run(wait_s=wait_s)

    @property
    def steps(self):
        return [(step.what, step.outcome) for step in self.told]

    def text(self, what):
        return next(step.text for step in self.told if step.what == what)


# --- queues -----------------------------------------------------------------------------------------------------


async def test_a_queue_lets_the_topic_in_before_it_is_subscribed():
    aws = scripted(GetQueueAttributes={"Attributes": {"Policy": json.dumps({"Statement": [THEIRS]})}})
    done = await Run(aws, QUEUE)()
    assert aws.operations.index("SetQueueAttributes") < aws.operations.index("Subscribe")
    [written] = aws.parameters("SetQueueAttributes")
    assert json.loads(written["Attributes"]["Policy"])["Statement"] == [THEIRS, OURS]
    assert aws.parameters("Subscribe")[0]["Attributes"] == {"RawMessageDelivery": "true"}
    assert (done.subscription, done.is_confirmed) == (SUBSCRIPTION, True)


async def test_a_second_run_changes_nothing():
    aws = scripted(
        GetQueueAttributes={"Attributes": {"Policy": json.dumps({"Statement": [OURS]})}},
        ListSubscriptionsByTopic=[
            {"Subscriptions": listed("arn:other", "sqs")["Subscriptions"], "NextToken": "2"},
            listed(QUEUE, "sqs"),
        ],
        GetSubscriptionAttributes=confirmed(RawMessageDelivery="true"),
    )
    run = Run(aws, QUEUE)
    done = await run(wait_s=300)
    assert done.subscription == SUBSCRIPTION
    assert not {"SetQueueAttributes", "Subscribe", "SetSubscriptionAttributes"} & set(aws.operations)
    assert aws.parameters("ListSubscriptionsByTopic")[1]["NextToken"] == "2"
    assert ("queue policy", "unchanged") in run.steps
    assert ("subscription", "unchanged") in run.steps


@pytest.mark.parametrize(
    ("wish", "is_raw", "changes"),
    [(None, "false", []), (True, "false", ["true"]), (False, "true", ["false"]), (True, "true", []), (False, "false", [])],
)  # fmt: skip
async def test_a_subscription_that_is_there_is_changed_only_to_what_somebody_asked_for(wish, is_raw, changes):
    aws = scripted(
        ListSubscriptionsByTopic=listed(QUEUE, "sqs"),
        GetSubscriptionAttributes=confirmed(RawMessageDelivery=is_raw),
    )
    run = Run(aws, QUEUE, raw=wish)
    await run()
    assert [one["AttributeValue"] for one in aws.parameters("SetSubscriptionAttributes")] == changes
    assert (("raw delivery", "note") in run.steps) is (wish is None)


async def test_the_policy_of_a_queue_that_cannot_be_read_is_left_alone():
    aws = scripted(GetQueueAttributes={"Attributes": {"Policy": "not JSON"}})
    with pytest.raises(UsageError, match="correct or remove it first"):
        await Run(aws, QUEUE)()
    assert not {"SetQueueAttributes", "Subscribe"} & set(aws.operations)


@pytest.mark.parametrize(
    ("attributes", "notes"),
    [
        ({}, ["queue", "dead letters"]),
        ({"RedrivePolicy": "{}"}, ["dead letters"]),
        ({"RedrivePolicy": "{}", "KmsMasterKeyId": "alias/aws/sqs"}, ["encryption", "dead letters"]),
        ({"RedrivePolicy": "{}", "KmsMasterKeyId": "alias/own"}, ["encryption", "dead letters"]),
    ],
)
async def test_what_a_person_has_to_decide_is_a_note(attributes, notes):
    run = Run(scripted(GetQueueAttributes={"Attributes": attributes}), QUEUE)
    await run()
    assert [what for what, outcome in run.steps if outcome == "note"] == notes


async def test_a_subscription_with_a_dead_letter_queue_needs_no_note():
    run = Run(scripted(GetSubscriptionAttributes=confirmed(RedrivePolicy="{}")), "ops@example.com")
    await run()
    assert [what for what, outcome in run.steps if outcome == "note"] == []


# --- functions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "is_added"),
    [
        (Refused("ResourceNotFoundException"), True),
        ({"Policy": json.dumps({"Statement": [{"Sid": "Theirs"}]})}, True),
        ({"Policy": json.dumps({"Statement": [{"Sid": statement_id(TOPIC.text)}]})}, False),
    ],
)
async def test_a_function_may_be_invoked_by_the_topic_and_is_told_so_once(policy, is_added):
    aws = scripted(GetPolicy=policy)
    await Run(aws, FUNCTION)()
    added = aws.parameters("AddPermission")
    assert len(added) == is_added
    if is_added:
        assert added[0] == {
            "FunctionName": FUNCTION,
            "StatementId": statement_id(TOPIC.text),
            "Action": "lambda:InvokeFunction",
            "Principal": "sns.amazonaws.com",
            "SourceArn": TOPIC.text,
        }
        assert aws.operations.index("AddPermission") < aws.operations.index("Subscribe")


async def test_a_permission_that_somebody_has_just_given_is_as_good():
    aws = scripted(AddPermission=Refused("ResourceConflictException"))
    run = Run(aws, FUNCTION)
    await run()
    assert ("permission", "unchanged") in run.steps
    assert "Subscribe" in aws.operations


async def test_a_function_whose_policy_may_not_be_read_is_not_subscribed():
    aws = scripted(GetPolicy=Refused("AccessDeniedException", "User: x is not authorized"))
    with pytest.raises(AwsRefused, match="lambda:GetPolicy"):
        await Run(aws, FUNCTION)()
    assert "Subscribe" not in aws.operations


# --- URLs and the confirmation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "is_set"), [(None, True), ("1", True), ("2", False)])
async def test_for_a_url_the_topic_signs_with_sha_256(version, is_set):
    attributes = {} if version is None else {"SignatureVersion": version}
    aws = scripted(GetTopicAttributes={"Attributes": attributes})
    await Run(aws, URL)()
    assert [one["AttributeValue"] for one in aws.parameters("SetTopicAttributes")] == ["2"] * is_set
    assert "Attributes" not in aws.parameters("Subscribe")[0]


async def test_for_others_the_signature_of_the_topic_stays():
    aws = scripted()
    await Run(aws, "ops@example.com")()
    assert "SetTopicAttributes" not in aws.operations


async def test_it_waits_until_the_subscription_is_confirmed():
    aws = scripted(GetSubscriptionAttributes=[PENDING] * 5 + [confirmed()])
    run = Run(aws, URL)
    running = asyncio.create_task(run(wait_s=60))
    await run.clock.advance(9)
    assert not running.done()
    assert run.told[-1].outcome == "waiting"
    assert f"{URL} must fetch the SubscribeURL" in run.told[-1].text
    await run.clock.advance(1)
    assert (await running).is_confirmed
    assert ("confirmation", "done") in run.steps


async def test_it_waits_no_longer_than_it_was_told_to():
    aws = scripted(GetSubscriptionAttributes=PENDING)
    run = Run(aws, "ops@example.com")
    running = asyncio.create_task(run(wait_s=7))
    await run.clock.advance(6.9)
    assert not running.done()
    await run.clock.advance(0.2)
    assert not (await running).is_confirmed
    assert "ops@example.com must follow the link" in run.text("confirmation")
    assert ("confirmation", "done") not in run.steps


async def test_it_does_not_wait_when_it_was_told_not_to():
    run = Run(scripted(GetSubscriptionAttributes=PENDING), URL)
    assert not (await run(wait_s=0)).is_confirmed
    assert ("confirmation", "waiting") not in run.steps


async def test_a_confirmation_that_is_missing_is_asked_for_once_more():
    aws = scripted(
        ListSubscriptionsByTopic=listed(URL, "https", "PendingConfirmation"),
        GetSubscriptionAttributes=PENDING,
    )
    run = Run(aws, URL)
    assert (await run()).subscription == SUBSCRIPTION
    assert "once more" in run.text("subscription")
    assert "Subscribe" in aws.operations


async def test_a_subscription_that_vanishes_meanwhile_is_an_error_that_says_so():
    aws = scripted(GetSubscriptionAttributes=[PENDING, Refused("NotFound")])
    run = Run(aws, URL)
    running = asyncio.create_task(run(wait_s=60))
    await run.clock.advance(3)
    with pytest.raises(AwsRefused, match=r"no subscription .* any more"):
        await running


async def test_nothing_is_done_for_a_topic_that_is_not_there():
    aws = scripted(GetTopicAttributes=Refused("NotFound"))
    with pytest.raises(AwsRefused, match="cronally topics create reports --region us-east-1"):
        await Run(aws, QUEUE)()
    assert aws.operations == ["GetTopicAttributes"]


async def test_one_that_was_removed_is_no_subscription():
    gone = listed(URL, "https", "Deleted")["Subscriptions"]
    aws = scripted(ListSubscriptionsByTopic={"Subscriptions": gone})
    await Run(aws, URL)()
    assert "Subscribe" in aws.operations
    aws = scripted(ListSubscriptionsByTopic={"Subscriptions": gone + listed(URL, "https")["Subscriptions"]})
    await Run(aws, URL)()
    assert "Subscribe" not in aws.operations


@pytest.mark.parametrize("there", [{"Subscriptions": []}, listed("ops@example.com", "email")])
async def test_a_mail_is_neither_raw_nor_json(there):
    run = Run(scripted(ListSubscriptionsByTopic=there), "ops@example.com")
    await run()
    assert run.text("subscription") in {f"subscribed: {SUBSCRIPTION}", f"subscribed already: {SUBSCRIPTION}"}
