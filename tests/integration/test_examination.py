"""What ``doctor`` says about AWS: real clients against servers on this machine, and a scripted AWS."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from cronally.clock import SystemClock
from cronally.domain.findings import Health
from cronally.errors import AwsUnreachable
from cronally.sns import examination
from cronally.sns.credentials import Credentials
from cronally.sns.examination import InUse, examine_credentials, examine_endpoint, examine_topics
from support.fake_sns import FakeSns
from support.moto_server import free_port
from support.scripted_aws import Refused, ScriptedAws

CLOCK = SystemClock()
TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
ROLE = "arn:aws:iam::123456789012:role/cronally"
ERROR = (
    b"HTTP/1.1 403 No\r\n%sConnection: close\r\n\r\n"
    b"<ErrorResponse><Error><Code>InvalidClientTokenId</Code></Error></ErrorResponse>"
)
CALLER = {"Arn": "arn:aws:sts::123456789012:assumed-role/cronally/i-0abc"}


# --- credentials ------------------------------------------------------------------------------------------------


async def test_credentials_are_told_by_their_ends_and_their_source(aws_files, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    found = await examine_credentials(Credentials(CLOCK), CLOCK)
    assert found.health is Health.OK
    assert found.text == "AKIA…MPLE from the environment, which do not expire"
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t")
    assert (await examine_credentials(Credentials(CLOCK), CLOCK)).health is Health.WARNING


async def test_credentials_that_the_chain_renews_are_fine(aws_files):
    process = aws_files / "process"
    process.write_text(
        "#!/bin/sh\necho '" + json.dumps({
            "Version": 1, "AccessKeyId": "ASIAIOSFODNN7EXAMPLE", "SecretAccessKey": "s", "SessionToken": "t",
            "Expiration": "2099-01-01T00:00:00Z",
        }) + "'\n"
    )  # fmt: skip
    process.chmod(0o755)
    (aws_files / "config").write_text(f"[default]\ncredential_process = {process}\n")
    found = await examine_credentials(Credentials(CLOCK), CLOCK)
    assert found.health is Health.OK
    assert "credential process of the profile, until 2099-01-01T00:00:00Z, renewed before that" in found.text


async def test_no_credentials_are_a_failure_with_what_to_set(aws_files):
    found = await examine_credentials(Credentials(CLOCK), CLOCK)
    assert (found.health, found.text) == (Health.FAILED, "no AWS credentials were found")
    assert found.fix.startswith("set AWS_PROFILE")


async def test_a_chain_that_does_not_answer_is_given_up(aws_files, monkeypatch):
    monkeypatch.setattr(examination, "CREDENTIALS_S", 0.05)
    credentials = Credentials(CLOCK)
    monkeypatch.setattr(credentials, "start", asyncio.Event().wait)
    found = await examine_credentials(credentials, CLOCK)
    assert found.health is Health.FAILED
    assert "did not answer" in found.text


# --- endpoints --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skew_s", "health", "part"),
    [(0, Health.OK, "agrees with ours"), (60, Health.WARNING, "s behind"), (-60, Health.WARNING, "s ahead"),
     (3_600, Health.FAILED, "5 minutes off")],
)  # fmt: skip
async def test_the_clock_of_the_endpoint_is_compared_although_it_knows_nobody(skew_s, health, part):
    async with FakeSns() as sns:
        sns.faults.skew_s = skew_s
        found = await examine_endpoint("us-east-1", CLOCK, endpoint_url=sns.url)
    assert found.health is health, found
    assert part in found.text
    assert sns.url in found.text


@pytest.mark.parametrize(
    ("reply", "health", "part"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Health.FAILED, "does not answer"),
        (b"SSH-2.0-OpenSSH\r\n", Health.FAILED, "does not answer"),
        (b"", Health.FAILED, "does not answer"),
        (ERROR % b"", Health.WARNING, "does not say what time"),
        (
            ERROR % b"Date: noon\r\n",
            Health.WARNING,
            "does not say what time",
        ),
    ],
    ids=["empty", "no HTTP", "closed", "no date", "no such date"],
)
async def test_what_is_no_sns_is_a_finding_not_an_error(reply, health, part):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    found = await examine_endpoint("us-east-1", CLOCK, endpoint_url=url)
    server.close()
    await server.wait_closed()
    assert found.health is health, found
    assert part in found.text


async def test_an_endpoint_that_is_not_there_or_silent_is_a_finding(monkeypatch):
    found = await examine_endpoint("us-east-1", CLOCK, endpoint_url=f"http://127.0.0.1:{free_port()}")
    assert (found.health, "Could not connect" in found.text) == (Health.FAILED, True)
    monkeypatch.setattr(examination, "PART_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = await examine_endpoint("us-east-1", CLOCK, endpoint_url=url)
    assert (found.health, "did not answer within" in found.text) == (Health.FAILED, True)


# --- topics -----------------------------------------------------------------------------------------------------


def evaluation(decision, arn=TOPIC):
    return {"EvaluationResults": [{"EvalResourceName": arn, "EvalDecision": decision}]}


async def examined(aws, *topics):
    [identity, *about] = await examine_topics(aws, topics or [InUse(TOPIC)], "us-east-1")
    return identity, about


async def test_iam_is_asked_for_the_role_and_nothing_is_sent():
    aws = ScriptedAws(
        GetCallerIdentity=CALLER,
        SimulatePrincipalPolicy=evaluation("allowed"),
        GetTopicAttributes={"Attributes": {}},
    )
    identity, [topic] = await examined(aws)
    assert CALLER["Arn"] in identity.text
    assert (topic.health, "sns:Publish is allowed" in topic.text) == (Health.OK, True)
    [asked] = aws.parameters("SimulatePrincipalPolicy")
    assert (asked["PolicySourceArn"], asked["ActionNames"]) == (ROLE, ["sns:Publish"])
    assert asked["ResourceArns"] == [TOPIC]
    assert set(aws.operations) == {"GetCallerIdentity", "SimulatePrincipalPolicy", "GetTopicAttributes"}


async def test_a_denial_names_the_role_and_the_policy_to_paste():
    aws = ScriptedAws(GetCallerIdentity=CALLER, SimulatePrincipalPolicy=evaluation("implicitDeny"))
    aws.answers["GetTopicAttributes"] = {"Attributes": {}}
    _, [topic] = await examined(aws)
    assert topic.health is Health.FAILED
    assert f"attach this policy to {ROLE}: " in topic.fix
    assert json.loads(topic.fix.partition(": ")[2])["Statement"][0]["Resource"] == [TOPIC]


@pytest.mark.parametrize(
    "answer",
    [Refused("AccessDenied"), AwsUnreachable("iam:SimulatePrincipalPolicy", "gone")],
    ids=["denied", "gone"],
)
async def test_what_could_not_be_asked_is_not_called_tested(answer):
    aws = ScriptedAws(
        GetCallerIdentity=CALLER, SimulatePrincipalPolicy=answer, GetTopicAttributes={"Attributes": {}}
    )
    _, [topic] = await examined(aws)
    assert topic.health is Health.OK
    assert "sns:Publish itself was not tested" in topic.text
    aws.answers["GetTopicAttributes"] = Refused("AuthorizationError")
    _, [topic] = await examined(aws)
    assert topic.health is Health.WARNING
    assert "not tested" in topic.text


async def test_credentials_that_aws_does_not_know_are_a_failure():
    aws = ScriptedAws(
        GetCallerIdentity=Refused("InvalidClientTokenId"), GetTopicAttributes=Refused("InvalidClientTokenId")
    )
    identity, [topic] = await examined(aws)
    assert identity.health is Health.FAILED
    assert "does not know these credentials" in identity.text
    assert topic.health is not Health.OK
    assert "SimulatePrincipalPolicy" not in aws.operations


async def test_of_very_many_topics_those_that_refuse_come_first():
    topics = [InUse(f"{TOPIC}-{number}") for number in range(60)]
    topics.append(InUse(f"{TOPIC}-bad", "NotFound: no"))
    aws = ScriptedAws(
        GetCallerIdentity={"Arn": "arn:aws:iam::123456789012:root"}, GetTopicAttributes={"Attributes": {}}
    )
    _, about = await examined(aws, *topics)
    assert len(about) == examination.MOST_TOPICS + 1
    assert (about[0].check, about[0].health) == (f"topic {TOPIC}-bad", Health.FAILED)
    assert "11 more" in about[-1].text


async def test_a_question_that_is_not_answered_holds_up_no_other(monkeypatch):
    class Silent(ScriptedAws):
        async def do(self, call):
            if call.operation == "GetCallerIdentity":
                await asyncio.Event().wait()
            return await super().do(call)

    monkeypatch.setattr(examination, "PART_S", 0.05)
    identity, [topic] = await examined(Silent(GetTopicAttributes={"Attributes": {}}))
    assert (identity.health, "no answer within" in identity.text) == (Health.WARNING, True)
    assert topic.health is Health.OK
