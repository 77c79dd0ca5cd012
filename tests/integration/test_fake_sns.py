"""The fake SNS is trusted by other tests, so it is tested itself: with botocore's signatures, and with spoilt ones."""

from __future__ import annotations

import asyncio
import json
import sys
from urllib.parse import urlencode

import aiohttp
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from support.entries import FIFO_TOPIC, TOPIC
from support.fake_sns import ACCESS_KEY, SECRET_KEY, FakeSns, Fault


@pytest.fixture
async def sns():
    async with FakeSns() as fake:
        yield fake


def form(*messages, topic=TOPIC, **extra):
    fields = {"Action": "PublishBatch", "Version": "2010-03-31", "TopicArn": topic}
    for number, message in enumerate(messages, 1):
        member = f"PublishBatchRequestEntries.member.{number}."
        fields |= {f"{member}Id": str(number - 1), f"{member}Message": message}
        fields |= {f"{member}{key}": value for key, value in extra.items()}
    return urlencode(fields)


def signed(url, body, *, key=ACCESS_KEY, secret=SECRET_KEY, region="us-east-1", service="sns"):
    request = AWSRequest(
        "POST", f"{url}/", data=body, headers={"Content-Type": "application/x-www-form-urlencoded"}
    )
    SigV4Auth(Credentials(key, secret), service, region).add_auth(request)
    return dict(request.headers)


async def post(url, body, headers):
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/", data=body, headers=headers) as reply,
    ):
        return reply.status, await reply.text()


async def send(sns, *messages, **fields):
    body = form(*messages, **fields)
    return await post(sns.url, body, signed(sns.url, body))


async def test_a_good_signature_is_accepted(sns):
    status, text = await send(sns, "one", "two")
    assert status == 200
    assert text.count("<MessageId>") == 2
    assert [m.message for m in sns.received] == ["one", "two"]


async def test_a_changed_body_is_refused(sns):
    headers = signed(sns.url, form("one"))
    status, text = await post(sns.url, form("two"), headers)
    assert status == 403
    assert "SignatureDoesNotMatch" in text
    assert sns.received == []


# (what is spoilt, code)
SPOILT = [
    ({"key": "AKIDOTHER"}, "InvalidClientTokenId"),
    ({"secret": "wrong"}, "SignatureDoesNotMatch"),
    ({"service": "sqs"}, "SignatureDoesNotMatch"),
    ({"region": "eu-west-1"}, "InvalidParameter"),
]


@pytest.mark.parametrize(("spoilt", "code"), SPOILT)
async def test_a_spoilt_signature_is_refused(sns, spoilt, code):
    body = form("one")
    _, text = await post(sns.url, body, signed(sns.url, body, **spoilt))
    assert f"<Code>{code}</Code>" in text
    assert sns.refusals == {code: 1}


async def test_a_changed_header_that_was_signed_is_refused(sns):
    body = form("one")
    headers = signed(sns.url, body)
    headers["X-Amz-Date"] = headers["X-Amz-Date"][:-2] + ("1Z" if headers["X-Amz-Date"][-2] != "1" else "2Z")
    _, text = await post(sns.url, body, headers)
    assert "SignatureDoesNotMatch" in text


async def test_no_signature_is_refused(sns):
    status, text = await post(sns.url, form("one"), {"Content-Type": "application/x-www-form-urlencoded"})
    assert status == 403
    assert "MissingAuthenticationToken" in text


@pytest.mark.parametrize(
    ("skew_s", "status"), [(14 * 60, 200), (-14 * 60, 200), (16 * 60, 403), (-16 * 60, 403)]
)
async def test_a_signature_is_good_for_15_minutes_either_way(sns, skew_s, status):
    sns.faults.skew_s = skew_s
    assert (await send(sns, "one"))[0] == status


# (messages, other fields, code)
WRONG = [
    ([str(n) for n in range(11)], {}, "TooManyEntriesInBatchRequest"),
    ([], {}, "EmptyBatchRequest"),
    (["a", "b"], {"Id": "same"}, "BatchEntryIdsNotDistinct"),
    (["a"], {"Id": "no blanks"}, "InvalidBatchEntryId"),
    (["x" * 262_145], {}, "InvalidParameter"),
    (["x" * 131_072, "y" * 131_073], {}, "BatchRequestTooLong"),
    ([""], {}, "InvalidParameter"),
    (["a"], {"Subject": "two\nlines"}, "InvalidParameter"),
    (["a"], {"MessageDeduplicationId": "d"}, "InvalidParameter"),
    (["a"], {"topic": FIFO_TOPIC}, "InvalidParameter"),
    (["a"], {"topic": FIFO_TOPIC, "MessageGroupId": "g"}, "InvalidParameter"),
    (["a"], {"topic": "reports"}, "InvalidParameter"),
    (["{}"], {"MessageStructure": "json"}, "InvalidParameter"),
    (
        ["a"],
        {
            "MessageAttributes.entry.1.Name": "n",
            "MessageAttributes.entry.1.Value.DataType": "String",
            "MessageAttributes.entry.1.Value.StringValue": "",
        },
        "ParameterValueInvalid",
    ),
]


@pytest.mark.parametrize(("messages", "fields", "code"), WRONG, ids=[w[2] for w in WRONG])
async def test_a_wrong_call_is_refused_whole(sns, messages, fields, code):
    status, text = await send(sns, *messages, **fields)
    assert status == 400
    assert f"<Code>{code}</Code>" in text
    assert sns.received == []


async def test_the_largest_batch_is_taken(sns):
    assert (await send(sns, "x" * 131_072, "y" * 131_072))[0] == 200


async def test_a_fifo_repeat_is_accepted_and_not_delivered(sns):
    fields = {"topic": FIFO_TOPIC, "MessageGroupId": "g", "MessageDeduplicationId": "d"}
    for _ in range(2):
        assert (await send(sns, "one", **fields))[0] == 200
    assert [m.is_dropped for m in sns.received] == [False, True]
    assert len(sns.delivered) == 1


async def test_the_quota_counts_messages(sns):
    sns.faults.quota = 5
    assert (await send(sns, *"abcd"))[0] == 200
    status, text = await send(sns, *"efgh")
    assert status == 400
    assert "<Code>Throttling</Code>" in text


async def test_waiting_for_messages_ends_when_they_are_there(sns):
    waiting = asyncio.create_task(sns.wait_for_messages(2))
    await send(sns, "one")
    assert not waiting.done()
    await send(sns, "two")
    assert [m.message for m in await waiting] == ["one", "two"]


async def read_json(session, method, url, body=None):
    async with session.request(method, url, json=body) as reply:
        return reply.status, await reply.json()


async def test_another_process_sets_faults_and_reads_what_came():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.fake_sns", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
        cwd="tests",
    )
    try:
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        body = form("one é", "two")
        async with aiohttp.ClientSession() as session:
            faults = {"next": [Fault.THROTTLE]}
            assert await read_json(session, "POST", f"{url}/_control/faults", faults) == (200, {})
            assert (await post(url, body, signed(url, body)))[0] == 400
            assert (await read_json(session, "POST", f"{url}/_control/faults", {"nonsense": 1}))[0] == 400
            assert (await post(url, body, signed(url, body)))[0] == 200
            _, got = await read_json(session, "GET", f"{url}/_control/received?since=1")
            assert got["count"] == 2
            assert [(m["message"], m["topic"]) for m in got["messages"]] == [("two", TOPIC)]
            _, stats = await read_json(session, "GET", f"{url}/_control/stats")
            assert stats["accepted"] == 2
            await read_json(session, "POST", f"{url}/_control/reset")
            assert (await read_json(session, "GET", f"{url}/_control/received"))[1]["count"] == 0
    finally:
        process.kill()
        await process.wait()


async def test_what_is_taken_says_whether_the_sender_knows(sns):
    sns.faults.next = [Fault.OK, Fault.LOST_ACK]
    await send(sns, "one", "two")
    with pytest.raises(aiohttp.ClientError):
        await send(sns, "three")
    sns.gate.clear()
    waiting = asyncio.create_task(send(sns, "four"))
    async with aiohttp.ClientSession() as session:
        assert await read_json(session, "GET", f"{sns.url}/_control/wait?messages=4") == (200, {})
        _, got = await read_json(session, "POST", f"{sns.url}/_control/take")
        taken = [(m["message"], m["answered_us"] is not None) for m in got["messages"]]
        assert taken == [("one", True), ("two", True), ("three", False)]
        assert all(m["connected_us"] <= m["arrived_us"] for m in got["messages"])
        sns.gate.set()
        await waiting
        _, got = await read_json(session, "POST", f"{sns.url}/_control/take")
    assert [(m["message"], m["answered_us"] is not None) for m in got["messages"]] == [("four", True)]


async def test_one_that_goes_down_comes_back_on_its_port_and_remembers():
    async with FakeSns() as sns:
        await send(sns, "one")
        sns.gate.clear()
        cut = asyncio.create_task(send(sns, "two"))
        await sns.wait_for_messages(2)
        async with aiohttp.ClientSession() as session:
            await read_json(session, "POST", f"{sns.url}/_control/down", {"for_s": 0})
        with pytest.raises(aiohttp.ClientError):
            await cut
        sns.gate.set()
        await sns.wait_until_up()
        assert (await send(sns, "three"))[0] == 200
        assert [m.message for m in sns.received] == ["one", "two", "three"]
