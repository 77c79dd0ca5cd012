"""docs/topics.md: the policies it prints allow what the commands do, and nothing else."""

import json
import re
from pathlib import Path

import pytest

from cronally.domain.findings import topic_finding
from cronally.domain.targets import parse_target
from cronally.domain.topic import parse_topic_arn
from cronally.domain.topic_policies import publish_policy
from cronally.domain.topic_reports import TopicState
from cronally.sns.subscribing import Subscribing
from cronally.sns.topics import Topics
from support.fake_clock import FakeClock
from support.scripted_aws import Refused, ScriptedAws

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "topics.md").read_text()
FILES = {path.stem: json.loads(path.read_text()) for path in (ROOT / "deploy" / "iam").iterdir()}
POLICIES = {
    name: json.loads(text)
    for name, text in re.findall(r"<!-- policy: (\w+) -->\n```json\n(.*?)```", PAGE, re.DOTALL)
}
TOPIC = parse_topic_arn("arn:aws:sns:us-east-1:123456789012:reports")
KEY = "arn:aws:kms:us-east-1:123456789012:key/KEY-ID"
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


def rights(*policies):
    """Return the actions that are allowed on each resource, whatever is in one statement."""
    found = {}
    for statement in (statement for policy in policies for statement in policy["Statement"]):
        assert statement.keys() == {"Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        actions, resources = (
            {value} if isinstance(value, str) else set(value)
            for value in (statement["Action"], statement["Resource"])
        )
        for resource in resources:
            found[resource] = found.get(resource, set()) | actions
    return found


def test_the_files_are_the_policies_of_the_page():
    assert FILES.keys() == {"publish", "publish-encrypted", "topics", "table"}  # the last is of machines.md
    assert FILES["publish"] == json.loads(publish_policy([TOPIC.text]))
    assert FILES["publish-encrypted"] == json.loads(publish_policy([TOPIC.text], keys=[KEY]))
    assert rights(POLICIES["publish"]) == rights(FILES["publish"])
    assert rights(POLICIES["encrypted"]) == rights(FILES["publish-encrypted"])
    of_commands = [POLICIES[name] for name in ("create", "publish", *TARGETS)]
    assert rights(FILES["topics"]) == rights(*of_commands)
    assert POLICIES.keys() == {"create", "publish", "encrypted", *TARGETS}


@pytest.mark.parametrize(
    ("refused", "name"),
    [
        ("AuthorizationError: not authorized to perform: SNS:Publish", "publish"),
        ("KMSAccessDenied: the ciphertext refers to a key that you may not use", "publish-encrypted"),
    ],
)
def test_doctor_prints_the_policy_of_the_file(refused, name):
    finding = topic_finding(
        TOPIC.text, state=TopicState(TOPIC.text, exists=True), decision=None, who="the role", refused=refused
    )
    printed = finding.fix[finding.fix.index("{") :]
    assert json.loads(printed) == FILES[name]
