"""Which topics a list of patterns allows."""

from __future__ import annotations

import time

import pytest

from cronally.domain.allowed import AllowedTopics, matches, parse_topic_pattern
from cronally.errors import TopicNotAllowed

HERE = "arn:aws:sns:us-east-1:123456789012:"


@pytest.mark.parametrize(
    ("pattern", "topic", "is_meant"),
    [
        (f"{HERE}reports", f"{HERE}reports", True),
        (f"{HERE}reports", f"{HERE}reports2", False),
        (f"{HERE}reports", f"{HERE}Reports", False),
        (f"{HERE}reports*", f"{HERE}reports", True),
        (f"{HERE}reports*", f"{HERE}reports-eu.fifo", True),
        (f"{HERE}reports*", f"{HERE}my-reports", False),
        (f"{HERE}*.fifo", f"{HERE}orders.fifo", True),
        (f"{HERE}*.fifo", f"{HERE}orders", False),
        (f"{HERE}a*a", f"{HERE}a", False),
        (f"{HERE}a*a", f"{HERE}aa", True),
        (f"{HERE}a*b*a*b", f"{HERE}aXbXaXb", True),
        (f"{HERE}a*b*a*b", f"{HERE}aXbXb", False),
        (f"{HERE}a**b", f"{HERE}ab", True),
        (f"{HERE}*", f"{HERE}anything", True),
        # A star stays within its part: no pattern reaches another account or region unless it says so there.
        ("arn:aws:sns:us-east-1:*:reports", f"{HERE}reports", True),
        ("arn:aws:sns:us-east-1:1*:reports", "arn:aws:sns:us-east-1:999999999999:reports", False),
        ("arn:aws:sns:us-*:123456789012:reports", f"{HERE}reports", True),
        ("arn:aws:sns:*:*:reports", "arn:aws-cn:sns:cn-north-1:123456789012:reports", False),
        ("arn:*:sns:*:*:*", "arn:aws-cn:sns:cn-north-1:123456789012:reports", True),
        # Nothing else has a meaning.
        (f"{HERE}report?", f"{HERE}reports", False),
        (f"{HERE}[r]eports", f"{HERE}reports", False),
        (f"{HERE}.*", f"{HERE}reports", False),
    ],
)
def test_a_star_stands_for_any_characters_of_one_part(pattern, topic, is_meant):
    assert matches(pattern, topic) is is_meant
    assert AllowedTopics([f"{HERE}other", pattern]).allows(topic) is is_meant


def test_no_pattern_takes_long():
    begun = time.monotonic()
    assert not matches(f"{HERE}{'a*' * 120}b", f"{HERE}{'a' * 256}")
    assert time.monotonic() - begun < 0.1


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "",
        "reports*",
        "arn:aws:sns:us-east-1:*",
        "arn:aws:sqs:us-east-1:123456789012:q",
        HERE,
        f"{HERE}a b",
        f"{HERE}rep\norts",
        f"{HERE}é*",
        f"{HERE}reports:sub",
        f"{HERE}{'a' * 400}",
        5,
    ],
)
def test_what_is_no_pattern_is_refused_with_the_form(text):
    with pytest.raises(ValueError, match=r"write the ARN of a topic, with \* for any characters of one part"):
        parse_topic_pattern(text)


def test_without_a_list_all_are_allowed_and_a_list_can_be_replaced():
    allowed = AllowedTopics()
    assert allowed.allows(f"{HERE}reports")
    allowed.replace([f"{HERE}other"])
    assert not allowed.allows(f"{HERE}reports")
    allowed.replace([f"{HERE}reports"])
    allowed.check(f"{HERE}reports")
    allowed.replace(None)
    allowed.check(f"{HERE}other")


def test_a_refusal_names_the_list_but_not_a_thousand_patterns():
    allowed = AllowedTopics([f"{HERE}a{n}" for n in range(1000)])
    with pytest.raises(TopicNotAllowed) as refused:
        allowed.check(f"{HERE}reports")
    assert str(refused.value) == (
        f"topic: {HERE}reports is not among the topics that this daemon may publish to (sns.topics: {HERE}a0, {HERE}a1, "
        f"{HERE}a2, {HERE}a3, {HERE}a4 and 995 more); use one of those, or have its operator add this one"
    )
