"""docs/topics.md: the policies it prints allow what the commands do, and nothing else."""

import json
import re
from pathlib import Path

import pytest

from cronally.domain.targets import parse_target
from cronally.domain.topic import parse_topic_arn
from cronally.sns.subscribing import Subscribing
from cronally.sns.topics import Topics
from support.fake_clock import FakeClock
from support.scripted_aws import Refused, ScriptedAws

PAGE = (Path(__file__).parents[2] / "docs" / "topics.md").read_text()
POLICIES = {
    name: json.loads(text)
    for name, text in re.findall(r"<!-- policy: (\w+) -->\n```json\n(.*?)```", PAGE, re.DOTALL)
}
TOPIC = parse_topic_arn("arn:aws:sns:us-east-1:123456789012:reports")
TARGETS = {
    "sqs": "arn:aws:sqs:us-east-1:123456789012:jobs",
    "lambda": "arn:aws:lambda:us-east-1:123456789012:function:worker",
    "https": "https://example.com/cron",
    "email": "ops@example.com",
}


def allowed(name):
    actions = [statement["Action"] for statement in POLICIES[name]["Statement"]]
    return {action for some in actions for action in ([some] if isinstance(some, str) else some)}


def answers(**others):
    return {
        "GetTopicAttributes": {"Attributes": {}},
        "ListSubscriptionsByTopic": {"Subscriptions": []},
        "Subscribe": {"SubscriptionArn": "arn:sub"},
        "GetSubscriptionAttributes": {"Attributes": {"PendingConfirmation": "false"}},
        "GetQueueUrl": {"QueueUrl": "https://queue"},
        "GetQueueAttributes": {"Attributes": {}},
        "GetPolicy": Refused("ResourceNotFoundException"),
    } | others


@pytest.mark.parametrize("protocol", TARGETS)
async def test_the_policy_for_a_target_allows_what_subscribing_does_and_nothing_else(protocol):
    target = parse_target(TARGETS[protocol])
    there = {"Protocol": protocol, "Endpoint": target.endpoint, "SubscriptionArn": "arn:sub"}
    done = {"sns:SetSubscriptionAttributes"}  # for --raw and --no-raw; one page has one policy for all of it
    for found in ([], [there]):
        aws = ScriptedAws(**answers(ListSubscriptionsByTopic={"Subscriptions": found}))
        await Subscribing(aws, FakeClock(), TOPIC, target, raw=None, tell=lambda _: None).run(wait_s=0)
        done |= {call.action for call in aws.calls}
    assert allowed(protocol) == done


async def test_the_policies_for_making_and_trying_a_topic():
    aws = ScriptedAws(CreateTopic={"TopicArn": TOPIC.text}, Publish={"MessageId": "m"})
    await Topics(aws).create("reports", "us-east-1", is_fifo=False)
    assert {call.action for call in aws.calls} == allowed("create")
    aws.calls.clear()
    await Topics(aws).publish_marked(TOPIC.text)
    assert {call.action for call in aws.calls} == allowed("publish")
