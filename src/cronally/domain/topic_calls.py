"""The AWS calls that make, join and try topics, each built in one place; and what ``--dry-run`` prints."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Final

from cronally.domain.aws_calls import Call, command_line
from cronally.domain.topic import TopicArn, parse_topic_arn
from cronally.domain.topic_policies import queue_statement, statement_id
from cronally.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.domain.targets import Target

TEST_ATTRIBUTE: Final = "cronally.test"
"""The message attribute, ``true``, that tells a test message from the others."""

SIGNATURE_VERSION: Final = (
    "2"  # SHA-256; 1, the default of a topic, is SHA-1 (SNS Developer Guide, verifying signatures)
)
ALERT_ATTRIBUTE: Final = "cronally.alert"
_ALERTS_GROUP: Final = "cronally-alerts"
_TEST_GROUP: Final = "cronally-test"
_TEST_SUBJECT: Final = "Test message of cronally"

# Puts our statement in the place of the one with its Sid, and leaves the others; no answer at all means: no policy.
_MERGE: Final = (
    '{Policy: (([inputs][0].Attributes.Policy // "{\\"Version\\":\\"2012-10-17\\",\\"Statement\\":[]}") | fromjson '
    "| .Statement = ([.Statement] | flatten | map(select(.Sid != $ours.Sid))) + [$ours] | tojson)}"
)


# --- topics -----------------------------------------------------------------------------------------------------


def topic_name(name: str, *, is_fifo: bool) -> str:
    """Return *name* if a topic of that kind can bear it. Errors: UsageError with the right form."""
    if name.startswith("arn:"):
        raise UsageError(f"{name[:200]!r} is an ARN; name the topic alone, and its region with --region")
    try:
        parse_topic_arn(f"arn:aws:sns:us-east-1:123456789012:{name}")
    except ValueError:
        raise UsageError(
            f"{name[:100]!r} cannot name a topic; use 1 to 256 letters, digits, dashes or underscores, and .fifo at the end of "
            "a FIFO topic's name"
        ) from None
    if is_fifo and not name.endswith(".fifo"):
        raise UsageError(f"the name of a FIFO topic ends in .fifo; write {name}.fifo")
    if name.endswith(".fifo") and not is_fifo:
        raise UsageError(f"{name} is the name of a FIFO topic; add --fifo, or leave out .fifo")
    return name


def create_topic(name: str, region: str | None, *, is_fifo: bool) -> Call:
    # Every message has its fire id to be told apart by; by their bodies most fires of a schedule would be repeats.
    attributes = {"FifoTopic": "true", "ContentBasedDeduplication": "false"} if is_fifo else {}
    parameters: dict[str, object] = {"Name": name, **({"Attributes": attributes} if attributes else {})}
    return Call(
        service="sns", operation="CreateTopic", region=region, parameters=parameters, resource=f"topic {name}"
    )


def get_topic(topic: TopicArn) -> Call:
    return _sns("GetTopicAttributes", topic)


def who_am_i(region: str) -> Call:
    return Call(service="sts", operation="GetCallerIdentity", region=region, parameters={}, resource="itself")


def may_publish(principal: str, topics: Sequence[str], region: str) -> Call:
    """Return the question whether the policies of *principal* let it publish to *topics*."""
    parameters = {
        "PolicySourceArn": principal,
        "ActionNames": ["sns:Publish"],
        "ResourceArns": list(topics),
        "MaxItems": 1000,
    }
    return Call(
        service="iam",
        operation="SimulatePrincipalPolicy",
        region=region,
        parameters=parameters,
        resource=principal,
    )


def sign_by_sha256(topic: TopicArn) -> Call:
    return _sns(
        "SetTopicAttributes", topic, AttributeName="SignatureVersion", AttributeValue=SIGNATURE_VERSION
    )


def marked_message(topic: TopicArn, *, unique: str) -> Call:
    """Return the publish of a message that says it is a test. unique: another for each, for FIFO topics to let it pass."""
    text = json.dumps(
        {
            "test": True,
            "text": "A test message of 'cronally topics check'; nothing is to be done.",
            "id": unique,
        }
    )
    fifo = {"MessageGroupId": _TEST_GROUP, "MessageDeduplicationId": unique} if topic.is_fifo else {}
    attribute = {TEST_ATTRIBUTE: {"DataType": "String", "StringValue": "true"}}
    return _sns("Publish", topic, Message=text, Subject=_TEST_SUBJECT, MessageAttributes=attribute, **fifo)


def alert(topic: TopicArn, *, subject: str, text: str, kind: str, unique: str) -> Call:
    """Return the publish of a message for people. kind: the attribute ``cronally.alert``. unique: as of ``marked_message``."""
    fifo = {"MessageGroupId": _ALERTS_GROUP, "MessageDeduplicationId": unique} if topic.is_fifo else {}
    attribute = {ALERT_ATTRIBUTE: {"DataType": "String", "StringValue": kind}}
    return _sns("Publish", topic, Message=text, Subject=subject, MessageAttributes=attribute, **fifo)


def _sns(operation: str, topic: TopicArn, **parameters: object) -> Call:
    return Call(
        service="sns",
        operation=operation,
        region=topic.region,
        parameters={"TopicArn": topic.text, **parameters},
        resource=topic.text,
    )


# --- subscriptions ----------------------------------------------------------------------------------------------


def subscribe(topic: TopicArn, target: Target, *, is_raw: bool) -> Call:
    raw = {"Attributes": {"RawMessageDelivery": "true"}} if is_raw else {}
    return _sns(
        "Subscribe",
        topic,
        Protocol=target.protocol,
        Endpoint=target.endpoint,
        **raw,
        ReturnSubscriptionArn=True,
    )


def list_subscriptions(topic: TopicArn, after: str | None) -> Call:
    return _sns("ListSubscriptionsByTopic", topic, **({"NextToken": after} if after else {}))


def get_subscription(topic: TopicArn, subscription: str) -> Call:
    return _of_subscription("GetSubscriptionAttributes", topic, subscription)


def set_raw(topic: TopicArn, subscription: str, *, is_raw: bool) -> Call:
    return _of_subscription(
        "SetSubscriptionAttributes",
        topic,
        subscription,
        AttributeName="RawMessageDelivery",
        AttributeValue="true" if is_raw else "false",
    )


def set_redrive(topic: TopicArn, subscription: str) -> Call:
    """Return the call that gives a subscription a dead-letter queue, whose ARN is for a person to put in."""
    queue = f"arn:{topic.partition}:sqs:{topic.region}:{topic.account}:DEAD-LETTERS{'.fifo' if topic.is_fifo else ''}"
    return _of_subscription(
        "SetSubscriptionAttributes",
        topic,
        subscription,
        AttributeName="RedrivePolicy",
        AttributeValue=json.dumps({"deadLetterTargetArn": queue}),
    )


def _of_subscription(operation: str, topic: TopicArn, subscription: str, **parameters: object) -> Call:
    return Call(
        service="sns",
        operation=operation,
        region=topic.region,
        parameters={"SubscriptionArn": subscription, **parameters},
        resource=subscription,
    )


# --- queues and functions ---------------------------------------------------------------------------------------


def get_queue_url(queue: Target) -> Call:
    return Call(
        service="sqs",
        operation="GetQueueUrl",
        region=queue.region,
        parameters={"QueueName": queue.name, "QueueOwnerAWSAccountId": queue.account},
        resource=queue.endpoint,
    )


def get_queue(queue: Target, url: str) -> Call:
    return Call(
        service="sqs",
        operation="GetQueueAttributes",
        region=queue.region,
        parameters={"QueueUrl": url, "AttributeNames": ["All"]},  # one that was never set cannot be named
        resource=queue.endpoint,
    )


def set_queue_policy(queue: Target, url: str, policy: str) -> Call:
    return Call(
        service="sqs",
        operation="SetQueueAttributes",
        region=queue.region,
        parameters={"QueueUrl": url, "Attributes": {"Policy": policy}},
        resource=queue.endpoint,
    )


def get_function_policy(function: Target) -> Call:
    return _of_function("GetPolicy", function)


def allow_invocation(topic: TopicArn, function: Target) -> Call:
    return _of_function(
        "AddPermission",
        function,
        StatementId=statement_id(topic.text),
        Action="lambda:InvokeFunction",
        Principal="sns.amazonaws.com",
        SourceArn=topic.text,
    )


def _of_function(operation: str, function: Target, **parameters: object) -> Call:
    name, _, qualifier = function.name.partition(":")
    own = function.endpoint.removesuffix(f":{qualifier}") if qualifier else function.endpoint
    qualified = {"Qualifier": qualifier} if qualifier else {}
    return Call(
        service="lambda",
        operation=operation,
        region=function.region,
        parameters={"FunctionName": own, **qualified, **parameters},
        resource=f"function {name}",
    )


# --- what --dry-run prints --------------------------------------------------------------------------------------


def subscribe_lines(topic: TopicArn, target: Target, *, is_raw: bool) -> list[str]:
    """Return lines to paste into a shell that do what ``subscribe`` does, without its looks at what is there already.

    Only the queue's policy is read and merged, by jq: it must not lose what it has.
    """
    lines = []
    if target.is_http:
        lines.append(command_line(sign_by_sha256(topic)))
    elif target.protocol == "lambda":
        lines.append(command_line(allow_invocation(topic, target)))
    elif target.protocol == "sqs":
        lines.append(_queue_line(topic, target))
    return [*lines, command_line(subscribe(topic, target, is_raw=is_raw))]


def _queue_line(topic: TopicArn, queue: Target) -> str:
    region = shlex.join(["--region", queue.region])
    url = command_line(get_queue_url(queue))
    ours = shlex.quote(json.dumps(queue_statement(topic.text, queue.endpoint), separators=(",", ":")))
    # A step that fails ends it: without the policy that is there, what is written would take its place.
    steps = [
        f"queue_url=$({url} --query QueueUrl --output text)",
        f'attributes=$(aws sqs get-queue-attributes --queue-url "$queue_url" --attribute-names Policy {region})',
        f"policy=$(printf '%s' \"$attributes\" | jq -cn --argjson ours {ours} {shlex.quote(_MERGE)})",
        f'aws sqs set-queue-attributes --queue-url "$queue_url" --attributes "$policy" {region}',
    ]
    return " &&\n  ".join(steps)
