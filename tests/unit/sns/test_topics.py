"""What is told of topics, against a scripted AWS."""

import pytest

from cronally.errors import AwsUnreachable, CredentialsInvalid
from cronally.sns.topics import Topics
from support.scripted_aws import Refused, ScriptedAws

TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
FIFO = TOPIC + ".fifo"


async def test_a_topic_is_told_with_its_subscriptions():
    attributes = {
        "FifoTopic": "true",
        "SubscriptionsConfirmed": "2",
        "SubscriptionsPending": "1",
        "SignatureVersion": "2",
    }
    [state] = await Topics(ScriptedAws(GetTopicAttributes={"Attributes": attributes})).states([FIFO])
    assert (state.exists, state.is_fifo, state.confirmed, state.pending) == (True, True, 2, 1)
    assert (state.signature_version, state.problem) == ("2", None)


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (Refused("NotFound"), None),
        (Refused("AuthorizationError"), "may not do sns:GetTopicAttributes"),
        (AwsUnreachable("sns:GetTopicAttributes", "timed out"), "timed out"),
        (CredentialsInvalid("none"), "none"),
    ],
)
async def test_what_cannot_be_told_is_no_error_and_hides_no_other_topic(answer, part):
    aws = ScriptedAws(GetTopicAttributes=[answer, {"Attributes": {}}])
    first, second = await Topics(aws).states([TOPIC, FIFO])
    assert not first.exists
    assert first.problem is None if part is None else part in first.problem
    assert (second.topic, second.exists) == (FIFO, True)


async def test_each_test_message_has_an_id_of_its_own():
    aws = ScriptedAws(Publish={"MessageId": "m"})
    for _ in range(2):
        assert await Topics(aws).publish_marked(FIFO) == "m"
    first, second = aws.parameters("Publish")
    assert first["MessageDeduplicationId"] != second["MessageDeduplicationId"]
