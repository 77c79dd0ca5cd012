"""Topic ARNs."""

from __future__ import annotations

import pytest

from cronally.domain.topic import parse_topic_arn


@pytest.mark.parametrize(
    ("text", "partition", "region", "is_fifo"),
    [
        ("arn:aws:sns:us-east-1:123456789012:reports", "aws", "us-east-1", False),
        ("arn:aws-cn:sns:cn-north-1:123456789012:orders.fifo", "aws-cn", "cn-north-1", True),
        ("arn:aws-us-gov:sns:us-gov-west-1:123456789012:A_b-9", "aws-us-gov", "us-gov-west-1", False),
        ("arn:aws:sns:eu-west-2:123456789012:" + "t" * 256, "aws", "eu-west-2", False),
    ],
)
def test_the_parts_of_an_arn(text, partition, region, is_fifo):
    arn = parse_topic_arn(text)
    assert (arn.partition, arn.region, arn.account, arn.is_fifo) == (
        partition,
        region,
        "123456789012",
        is_fifo,
    )
    assert text.endswith(arn.name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "reports",
        "arn:aws:sqs:us-east-1:123456789012:reports",
        "arn:aws:sns::123456789012:reports",
        "arn:aws:sns:us-east-1:12345:reports",
        "arn:aws:sns:us-east-1:123456789012:",
        "arn:aws:sns:us-east-1:123456789012:re.ports",
        "arn:aws:sns:us-east-1:123456789012:reports.fifo.fifo",
        "arn:aws:sns:us-east-1:123456789012:reports:subscription",
        "arn:aws:sns:us-east-1:123456789012:" + "t" * 257,
        "arn:aws:sns:us-east-1:123456789012:" + "t" * 252 + ".fifo",
        "arn:aws:sns:us-east-1:123456789012:reports\n",
        "arn:aws:sns:us-east-1:١٢٣٤٥٦٧٨٩٠١٢:reports",
    ],
)
def test_anything_else_is_refused_with_the_right_form(text):
    with pytest.raises(ValueError, match="arn:aws:sns:REGION:ACCOUNT:NAME"):
        parse_topic_arn(text)
