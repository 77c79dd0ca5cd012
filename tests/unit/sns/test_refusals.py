import pytest

from cronally.domain import topic_calls
from cronally.domain.targets import parse_target
from cronally.domain.topic import parse_topic_arn
from cronally.errors import AwsInputRefused
from cronally.sns.refusals import is_absent, is_denied, refusal

TOPIC = parse_topic_arn("arn:aws:sns:eu-west-1:123456789012:reports")
FIFO = parse_topic_arn("arn:aws:sns:eu-west-1:123456789012:orders.fifo")
QUEUE = parse_target("arn:aws:sqs:eu-west-1:123456789012:jobs")
FUNCTION = parse_target("arn:aws:lambda:eu-west-1:123456789012:function:worker")

PUBLISH = topic_calls.marked_message(TOPIC, unique="u")
GET_QUEUE = topic_calls.get_queue_url(QUEUE)


@pytest.mark.parametrize(
    ("call", "code", "message", "parts"),
    [
        (PUBLISH, "AuthorizationError", "User: x is not authorized to perform: SNS:Publish",
         ["may not do sns:Publish on arn:aws:sns:eu-west-1:123456789012:reports", "allow sns:Publish", "User: x is not"]),
        (topic_calls.create_topic("reports", "eu-west-1", is_fifo=False), "AuthorizationError", "",
         ["sns:CreateTopic on topic reports"]),
        (GET_QUEUE, "AccessDenied", "", ["sqs:GetQueueUrl on arn:aws:sqs:eu-west-1:123456789012:jobs"]),
        (topic_calls.allow_invocation(TOPIC, FUNCTION), "AccessDeniedException", "", ["allow lambda:AddPermission"]),
        (PUBLISH, "NotFound", "Topic does not exist", ["topics create reports --region eu-west-1", "correct the ARN"]),
        (topic_calls.get_topic(FIFO), "NotFoundException", "", ["topics create orders.fifo --fifo --region eu-west-1"]),
        (GET_QUEUE, "AWS.SimpleQueueService.NonExistentQueue", "", ["no queue arn:aws:sqs:eu-west-1", "aws sqs create-queue"]),
        (topic_calls.allow_invocation(TOPIC, FUNCTION), "ResourceNotFoundException", "", ["no function worker"]),
        (topic_calls.get_subscription(TOPIC, "arn:sub"), "NotFound", "", ["no subscription arn:sub any more", "topics subscribe"]),
        (PUBLISH, "InvalidClientTokenId", "", ["does not know these credentials", "AWS_PROFILE"]),
        (PUBLISH, "ExpiredTokenException", "", ["have expired"]),
        (PUBLISH, "SignatureDoesNotMatch", "Signature expired: 2026 is now earlier than", ["clock is wrong"]),
        (PUBLISH, "SignatureDoesNotMatch", "The request signature we calculated", ["secret key does not belong"]),
        (PUBLISH, "RequestTimeTooSkewed", "", ["clock is wrong"]),
        (PUBLISH, "Throttling", "Rate exceeded", ["in a moment"]),
        (GET_QUEUE, "RequestThrottled", "", ["in a moment"]),
        (PUBLISH, "KMSAccessDenied", "", ["the KMS key of arn:aws:sns", "its policy allows it"]),
        (PUBLISH, "KMSDisabledException", "", ["the KMS key"]),
        (PUBLISH, "InternalError", "oops", ["AWS refused sns:Publish", "InternalError: oops"]),
        (PUBLISH, "", "", ["AWS refused sns:Publish"]),
    ],
)  # fmt: skip
def test_a_refusal_says_what_where_and_what_to_do(call, code, message, parts):
    error = refusal(call, code, message)
    assert all(part in str(error) for part in parts), str(error)
    assert (error.exit_code, error.action, error.code) == (1, call.action, code)


@pytest.mark.parametrize(
    "code", ["InvalidParameter", "InvalidParameterValue", "ValidationException", "ValidationError"]
)
def test_input_that_is_refused_is_the_caller_s(code):
    error = refusal(PUBLISH, code, "Invalid parameter: TopicArn")
    assert isinstance(error, AwsInputRefused)
    assert error.exit_code == 2
    assert "Invalid parameter: TopicArn" in str(error)


def test_what_kind_of_refusal_it_is():
    assert is_denied(refusal(PUBLISH, "AccessDeniedException", ""))
    assert not is_denied(refusal(PUBLISH, "NotFound", ""))
    assert is_absent(refusal(PUBLISH, "com.amazonaws.sqs#QueueDoesNotExist", ""))
    assert not is_absent(refusal(PUBLISH, "AuthorizationError", ""))


def test_a_long_answer_is_cut():
    assert len(str(refusal(PUBLISH, "Odd", "x" * 5_000))) < 500
