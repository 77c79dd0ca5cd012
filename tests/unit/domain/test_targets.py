import pytest

from cronally.domain.targets import is_raw, parse_target
from cronally.domain.topic import parse_topic_arn
from cronally.errors import UsageError

STANDARD = parse_topic_arn("arn:aws:sns:us-east-1:123456789012:reports")
FIFO = parse_topic_arn("arn:aws:sns:us-east-1:123456789012:orders.fifo")
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:jobs"
FIFO_QUEUE = QUEUE + ".fifo"
FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:worker"
URL = "https://example.com/cron"
EMAIL = "ops@example.com"


@pytest.mark.parametrize(
    ("text", "protocol", "name"),
    [
        (URL, "https", ""),
        ("HTTPS://user:secret@example.com:8443/a?b=c", "https", ""),
        ("http://10.0.0.7/cron", "http", ""),
        (QUEUE, "sqs", "jobs"),
        (FIFO_QUEUE, "sqs", "jobs.fifo"),
        ("arn:aws-cn:sqs:cn-north-1:123456789012:jobs", "sqs", "jobs"),
        (FUNCTION, "lambda", "worker"),
        (FUNCTION + ":live", "lambda", "worker:live"),
        (FUNCTION + ":$LATEST", "lambda", "worker:$LATEST"),
        (EMAIL, "email", ""),
        ("o'neil+cron@mail.example.co.uk", "email", ""),
    ],
)
def test_a_target_is_told_by_how_it_is_written(text, protocol, name):
    target = parse_target(text)
    assert (target.protocol, target.name, target.endpoint) == (protocol, name, text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "write https://HOST/PATH"),
        ("jobs", "write https://HOST/PATH"),
        ("ftp://example.com/", "write https://HOST/PATH"),
        ("ops@localhost", "e-mail address"),
        ("a@b.c, d@e.f", "e-mail address"),
        ("https://", "not a URL that SNS can post to"),
        ("https://exa mple.com/", "not a URL"),
        ("https://example.com:99999/", "not a URL"),
        ("https://example.com/é", "in ASCII"),
        ("https://example.com/#top", "without a fragment"),
        ("https://sqs.us-east-1.amazonaws.com/123456789012/jobs", "arn:aws:sqs:us-east-1:123456789012:jobs"),
        ("https://eu-west-1.queue.amazonaws.com/123456789012/j.fifo", "arn:aws:sqs:eu-west-1:123456789012:j.fifo"),
        ("arn:aws:s3:::bucket", "not the ARN of an SQS queue or a Lambda function"),
        ("arn:aws:sns:us-east-1:123456789012:reports", "not the ARN of an SQS queue"),
        ("arn:aws:sqs:us-east-1:12345:jobs", "not the ARN of an SQS queue"),
        ("arn:aws:sqs:us-east-1:123456789012:" + "x" * 81, "not the ARN of an SQS queue"),
        ("arn:aws:lambda:us-east-1:123456789012:worker", "arn:aws:lambda:REGION:ACCOUNT:function:NAME"),
    ],
)  # fmt: skip
def test_what_is_no_target_is_refused_with_the_right_form(text, part):
    with pytest.raises(UsageError) as refused:
        parse_target(text)
    assert part in str(refused.value)


@pytest.mark.parametrize(
    ("topic", "target", "wish", "expected"),
    [
        (STANDARD, QUEUE, None, True),
        (STANDARD, QUEUE, False, False),
        (STANDARD, URL, None, False),  # raw messages of HTTP(S) are not signed
        (STANDARD, URL, True, True),
        (STANDARD, FUNCTION, None, False),
        (STANDARD, FUNCTION, False, False),
        (STANDARD, EMAIL, None, False),
        (FIFO, FIFO_QUEUE, None, True),
        (FIFO, QUEUE, None, True),
    ],
)
def test_raw_is_for_queues_unless_somebody_says_otherwise(topic, target, wish, expected):
    assert is_raw(topic, parse_target(target), wish=wish) is expected


@pytest.mark.parametrize(
    ("topic", "target", "wish", "part"),
    [
        (STANDARD, FUNCTION, True, "--raw is for SQS and HTTP(S)"),
        (STANDARD, EMAIL, True, "an e-mail address in its own form"),
        (STANDARD, FIFO_QUEUE, None, "takes messages of FIFO topics only"),
        (FIFO, URL, None, "delivers to SQS queues only"),
        (FIFO, FUNCTION, None, "let the function read from that"),
        (FIFO, EMAIL, None, "standard topic for e-mail"),
        (STANDARD, QUEUE.replace("aws:", "aws-cn:"), None, "partition"),
    ],
)
def test_what_does_not_go_together_is_refused(topic, target, wish, part):
    with pytest.raises(UsageError) as refused:
        is_raw(topic, parse_target(target), wish=wish)
    assert part in str(refused.value)
