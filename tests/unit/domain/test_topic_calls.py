import json
import shlex
import subprocess

import pytest

from cronally.domain import topic_calls
from cronally.domain.aws_calls import Call, command_line
from cronally.domain.targets import parse_target
from cronally.domain.topic import parse_topic_arn
from cronally.domain.topic_policies import merged_policy, queue_statement, statement_id
from cronally.errors import UsageError

STANDARD = parse_topic_arn("arn:aws:sns:us-east-1:123456789012:reports")
FIFO = parse_topic_arn("arn:aws:sns:us-east-1:123456789012:orders.fifo")
QUEUE = parse_target("arn:aws:sqs:eu-west-1:210987654321:jobs")
FUNCTION = parse_target("arn:aws:lambda:eu-west-1:123456789012:function:worker:live")


def lines(topic, target, *, is_raw=False):
    return topic_calls.subscribe_lines(topic, parse_target(target), is_raw=is_raw)


# --- calls as lines ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (topic_calls.create_topic("reports", "us-east-1", is_fifo=False),
         "aws sns create-topic --name reports --region us-east-1"),
        (topic_calls.create_topic("orders.fifo", None, is_fifo=True),
         ("aws sns create-topic --name orders.fifo "
          """--attributes '{"FifoTopic":"true","ContentBasedDeduplication":"false"}'""")),
        (topic_calls.sign_by_sha256(STANDARD),
         (f"aws sns set-topic-attributes --topic-arn {STANDARD.text} --attribute-name SignatureVersion "
          "--attribute-value 2 --region us-east-1")),
        (topic_calls.subscribe(STANDARD, parse_target("https://example.com/a?b=c&d=e"), is_raw=False),
         (f"aws sns subscribe --topic-arn {STANDARD.text} --protocol https "
          "--notification-endpoint 'https://example.com/a?b=c&d=e' --return-subscription-arn --region us-east-1")),
        (topic_calls.get_queue_url(QUEUE),
         "aws sqs get-queue-url --queue-name jobs --queue-owner-aws-account-id 210987654321 --region eu-west-1"),
        (topic_calls.allow_invocation(STANDARD, FUNCTION),
         ("aws lambda add-permission --function-name arn:aws:lambda:eu-west-1:123456789012:function:worker "
          f"--qualifier live --statement-id {statement_id(STANDARD.text)} --action lambda:InvokeFunction "
          f"--principal sns.amazonaws.com --source-arn {STANDARD.text} --region eu-west-1")),
        (Call(service="iam", operation="SimulatePrincipalPolicy", parameters={"ActionNames": ["a", "b"]}),
         "aws iam simulate-principal-policy --action-names a b"),
    ],
)  # fmt: skip
def test_a_call_is_written_as_the_aws_cli_takes_it(call, expected):
    assert command_line(call) == expected


def test_every_line_splits_into_the_words_that_were_meant():
    target = parse_target("https://example.com/it's?a=$HOME&b=`x`")
    words = shlex.split(command_line(topic_calls.subscribe(STANDARD, target, is_raw=True)))
    assert words[words.index("--notification-endpoint") + 1] == target.endpoint
    assert json.loads(words[words.index("--attributes") + 1]) == {"RawMessageDelivery": "true"}


# --- what a dry run prints --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("topic", "target", "commands"),
    [
        (STANDARD, "https://example.com/", ["sns set-topic-attributes", "sns subscribe"]),
        (STANDARD, "http://example.com/", ["sns set-topic-attributes", "sns subscribe"]),
        (STANDARD, "ops@example.com", ["sns subscribe"]),
        (STANDARD, FUNCTION.endpoint, ["lambda add-permission", "sns subscribe"]),
        (FIFO, QUEUE.endpoint, ["sqs set-queue-attributes", "sns subscribe"]),
    ],
)  # fmt: skip
def test_a_dry_run_has_a_line_for_each_thing_that_is_done(topic, target, commands):
    found = lines(topic, target)
    assert len(found) == len(commands)
    for line, command in zip(found, commands, strict=True):
        assert f"aws {command} " in line


@pytest.mark.parametrize(
    "present",
    [
        None,
        {"Version": "2008-10-17", "Id": "x", "Statement": {"Sid": "Theirs", "Effect": "Deny"}},
        {"Version": "2012-10-17", "Statement": [{"Sid": "Theirs"}, {"Sid": statement_id(STANDARD.text)}, {"Effect": "Allow"}]},
    ],
    ids=["no policy", "one statement", "a stale one of ours"],
)  # fmt: skip
def test_the_lines_of_a_dry_run_keep_the_policy_that_is_there(tmp_path, present):
    jq = subprocess.run(["sh", "-c", "command -v jq"], capture_output=True, check=False)
    if jq.returncode:
        pytest.skip("there is no jq")
    aws = tmp_path / "aws"
    answer = "" if present is None else json.dumps({"Attributes": {"Policy": json.dumps(present)}})
    (tmp_path / "answer").write_text(answer)
    aws.write_text(
        '#!/bin/sh\ncase "$2" in get-queue-url) echo http://queue;; '
        f"get-queue-attributes) cat {tmp_path}/answer;; "
        f'set-queue-attributes) printf "%s" "$6" > {tmp_path}/written;; esac\n'
    )
    aws.chmod(0o755)
    script = "\n".join(lines(STANDARD, QUEUE.endpoint, is_raw=True))
    subprocess.run(["sh", "-ec", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=True, timeout=20)
    written = json.loads(json.loads((tmp_path / "written").read_text())["Policy"])
    expected = merged_policy(present and json.dumps(present), queue_statement(STANDARD.text, QUEUE.endpoint))
    assert written == json.loads(expected)


def test_a_policy_that_cannot_be_read_is_not_overwritten_by_the_lines_of_a_dry_run(tmp_path):
    aws = tmp_path / "aws"
    aws.write_text(
        f'#!/bin/sh\necho "$2" >> {tmp_path}/asked\ncase "$2" in get-queue-url) echo http://q;; *) exit 255;; esac\n'
    )
    aws.chmod(0o755)
    line = lines(STANDARD, QUEUE.endpoint, is_raw=True)[0]
    done = subprocess.run(
        ["sh", "-c", line], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False, timeout=20
    )
    assert done.returncode != 0
    assert (tmp_path / "asked").read_text().split() == ["get-queue-url", "get-queue-attributes"]


# --- topics and messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "is_fifo", "part"),
    [
        ("orders", True, "write orders.fifo"),
        ("orders.fifo", False, "add --fifo"),
        ("", False, "cannot name a topic"),
        ("a.b", False, "cannot name a topic"),
        ("a" * 257, False, "cannot name a topic"),
        (STANDARD.text, False, "is an ARN"),
    ],
)
def test_a_name_that_does_not_fit_is_refused_with_the_right_one(name, is_fifo, part):
    with pytest.raises(UsageError) as refused:
        topic_calls.topic_name(name, is_fifo=is_fifo)
    assert part in str(refused.value)


def test_names_that_fit():
    assert topic_calls.topic_name("orders_1-x", is_fifo=False) == "orders_1-x"
    assert topic_calls.topic_name("orders.fifo", is_fifo=True) == "orders.fifo"


def test_a_test_message_says_what_it_is_and_a_fifo_topic_gets_a_group_and_an_id():
    plain = topic_calls.marked_message(STANDARD, unique="u1").parameters
    assert plain["MessageAttributes"] == {"cronally.test": {"DataType": "String", "StringValue": "true"}}
    assert json.loads(plain["Message"])["test"] is True
    assert not {"MessageGroupId", "MessageDeduplicationId"} & set(plain)
    fifo = topic_calls.marked_message(FIFO, unique="u1").parameters
    assert (fifo["MessageGroupId"], fifo["MessageDeduplicationId"]) == ("cronally-test", "u1")
