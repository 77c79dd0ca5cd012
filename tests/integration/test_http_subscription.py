"""Messages to a URL: the real commands and daemon, a fake SNS that signs, and the receiver of docs/cookbook/http.md."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import subprocess
import threading
import types
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.fake_sns import ACCESS_KEY, SECRET_KEY
from support.fake_subscriptions import CERTIFICATE_PATH, SNS_URL, SubscribedSns
from support.processes import COMMAND
from support.sns_signing import text_to_sign

TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
PAGE = (Path(__file__).parents[2] / "docs" / "cookbook" / "http.md").read_text()
[CODE] = re.findall(r"<!-- file: receiver.py -->\n```python\n(.*?)```", PAGE, re.DOTALL)
BLOCKS = re.findall(
    r"<!-- run by tests/integration/test_http_subscription.py -->\n```sh\n(.*?)```", PAGE, re.DOTALL
)


class Receiver:
    """The page's code behind a web server. page: its module. may_confirm: clear it to hold confirmations back."""

    def __init__(self, sns):
        self.page = types.ModuleType("receiver")
        exec(compile(CODE, "receiver.py", "exec"), self.page.__dict__)
        self._own_fetch, self.page.fetch = self.page.fetch, self._fetch
        self.may_confirm = threading.Event()
        self.may_confirm.set()
        self.fetched = []
        self._sns_url = sns.url
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receiver.page.handle(body))
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def _fetch(self, url):
        """Get what SNS has at *url* from the fake."""
        assert url.startswith(f"{SNS_URL}/")
        self.fetched.append(url)
        if "ConfirmSubscription" in url:
            assert self.may_confirm.wait(timeout=20)
        return self._own_fetch(url.replace(SNS_URL, self._sns_url))

    def jobs(self):
        """Return what it has put down for the worker: rows of fire id, message id, message."""
        with contextlib.closing(sqlite3.connect("jobs.db")) as db:
            try:
                return db.execute("SELECT * FROM jobs").fetchall()
            except sqlite3.OperationalError:  # no table: it has put down nothing
                return []

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
async def sns(aws_files, monkeypatch):
    async with SubscribedSns() as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", fake.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        yield fake


@pytest.fixture
def receiver(sns, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where it makes its jobs.db
    receiver = Receiver(sns)
    yield receiver
    receiver.close()


@pytest.fixture
def cronally(sns, alone, monkeypatch):
    """Runs a command beside the loop of the fake; returns exit code, stdout, stderr."""
    monkeypatch.setattr("cronally.sns.subscribing.POLL_S", 0.02)

    async def run(*words):
        return await asyncio.to_thread(alone, *words)

    return run


@pytest.fixture
async def subscribed(cronally, receiver):
    """The receiver, with its subscription confirmed."""
    await cronally("topics", "create", "reports", "--region", "us-east-1")
    code, _, err = await cronally("topics", "subscribe", TOPIC, receiver.url)
    assert code == 0, err
    return receiver


@pytest.fixture
def posted_to(sns, receiver):
    """The receiver, and a topic that signs with version 2; what it is posted is made by the test."""
    sns.topics[TOPIC] = {"SignatureVersion": "2"}
    return receiver


# --- the confirmation -------------------------------------------------------------------------------------------------


async def test_subscribing_waits_until_the_url_has_confirmed(sns, receiver, cronally):
    assert (await cronally("topics", "create", "reports", "--region", "us-east-1"))[1] == f"{TOPIC}\n"
    receiver.may_confirm.clear()
    running = asyncio.create_task(cronally("topics", "subscribe", TOPIC, receiver.url))
    await sns.wait_for_action("GetSubscriptionAttributes")  # it has looked, and has to look again
    receiver.may_confirm.set()
    code, out, err = await running
    assert code == 0, err
    [subscription] = sns.subscriptions.values()
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        "+ signature", "+ subscription", "… confirmation", "+ confirmation", "! dead letters",
    ]  # fmt: skip
    assert f"subscribed, in the JSON of SNS: {subscription.arn}" in out
    assert "confirmed: messages are delivered from now on" in out
    assert sns.topics[TOPIC]["SignatureVersion"] == "2"
    assert sns.actions.index("SetTopicAttributes") < sns.actions.index("Subscribe")
    [asked] = await sns.wait_for_posts(1)
    assert asked.status == 200
    assert asked.message["SignatureVersion"] == "2"
    assert asked.headers["x-amz-sns-message-type"] == asked.message["Type"] == "SubscriptionConfirmation"
    code, out, _ = await cronally("topics", "subscribe", TOPIC, receiver.url)
    assert code == 0
    assert f"= subscription: subscribed already, in the JSON of SNS: {subscription.arn}" in out
    assert "= signature" in out
    assert sns.actions.count("Subscribe") == sns.actions.count("SetTopicAttributes") == 1


async def test_a_url_that_does_not_confirm_is_told_and_is_asked_again_by_a_second_run(
    sns, receiver, cronally
):
    await cronally("topics", "create", "reports", "--region", "us-east-1")
    ours, receiver.page.TOPICS = receiver.page.TOPICS, set()
    code, out, err = await cronally("topics", "subscribe", TOPIC, receiver.url, "--wait", "1s")
    assert code == 1
    assert (
        f"not confirmed yet: {receiver.url} must fetch the SubscribeURL of the SubscriptionConfirmation that SNS posts "
        "to it; run the command again to have SNS ask once more\n"
    ) in err
    assert "(waiting up to 1s)" in out
    assert "+ confirmation" not in out
    assert [post.status for post in sns.posts] == [403]
    receiver.page.TOPICS = ours
    code, out, err = await cronally("topics", "subscribe", TOPIC, receiver.url)
    assert code == 0, err
    assert "subscribed again: SNS has asked for the confirmation once more" in out
    assert "+ confirmation: confirmed" in out
    [first, second] = await sns.wait_for_posts(2)
    assert first.message["Token"] != second.message["Token"]
    assert len(sns.subscriptions) == 1


async def test_nothing_is_delivered_before_the_confirmation(sns, receiver, cronally):
    await cronally("topics", "create", "reports", "--region", "us-east-1")
    receiver.may_confirm.clear()
    code, _, err = await cronally("topics", "subscribe", TOPIC, receiver.url, "--no-wait")
    assert (code, "not confirmed yet" in err) == (0, True)
    assert (await cronally("topics", "check", TOPIC))[0] == 0
    receiver.may_confirm.set()
    await sns.wait_for_posts(1)
    code, printed, _ = await cronally("topics", "check", TOPIC)
    assert code == 0
    posts = await sns.wait_for_posts(2)
    assert [post.headers["x-amz-sns-message-id"] for post in posts[1:]] == [printed.strip()]


# --- deliveries -------------------------------------------------------------------------------------------------------


async def test_a_test_message_arrives_signed_and_is_left_alone(sns, subscribed, cronally):
    _, printed, _ = await cronally("topics", "check", TOPIC)
    _, post = await sns.wait_for_posts(2)
    [subscription] = sns.subscriptions
    assert post.status == 200
    assert post.headers == {
        "x-amz-sns-message-type": "Notification",
        "x-amz-sns-message-id": printed.strip(),
        "x-amz-sns-topic-arn": TOPIC,
        "x-amz-sns-subscription-arn": subscription,
        "Content-Type": "text/plain; charset=UTF-8",
        "User-Agent": "Amazon Simple Notification Service Agent",
    }
    message = await asyncio.to_thread(subscribed.page.verify, post.body)
    assert message["Subject"] == "Test message of cronally"  # is signed with the others
    assert message["MessageAttributes"] == {"cronally.test": {"Type": "String", "Value": "true"}}
    assert subscribed.jobs() == []


async def test_a_raw_message_has_neither_signature_nor_attributes_and_is_refused(sns, receiver, cronally):
    await cronally("topics", "create", "reports", "--region", "us-east-1")
    _, _, err = await cronally("topics", "subscribe", TOPIC, receiver.url, "--raw")
    assert "a raw HTTP(S) message has no attributes and no signature" in err
    await cronally("topics", "check", TOPIC)
    _, post = await sns.wait_for_posts(2)
    assert post.headers["x-amz-sns-rawdelivery"] == "true"
    assert set(post.message) == {"test", "text", "id"}
    assert post.status == 403


async def test_the_end_of_a_subscription_is_not_undone(sns, subscribed, cronally):
    await cronally("topics", "check", TOPIC)
    _, post = await sns.wait_for_posts(2)
    await asyncio.to_thread(subscribed.page.fetch, post.message["UnsubscribeURL"])
    *_, told = await sns.wait_for_posts(3)
    assert (told.message["Type"], told.status) == ("UnsubscribeConfirmation", 200)
    assert sns.subscriptions == {}
    assert told.message["SubscribeURL"] not in subscribed.fetched


async def test_the_page_from_its_first_command_to_the_job_of_the_worker(sns, receiver, installation):
    installation.receiver_url = sns.url
    sns.routes["https://jobs.example.com/cronally"] = receiver.url
    await asyncio.to_thread(installation.start)
    paths = f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"

    def run(block):
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            env=installation.environment | {"PATH": paths},
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )

    for block in BLOCKS:
        done = await asyncio.to_thread(run, block)
        assert done.returncode == 0, done.stderr
    # The confirmation, the test message, the fire.
    *_, fire = await sns.wait_for_posts(3)
    assert [post.status for post in sns.posts] == [200, 200, 200]
    [(fire_id, message_id, text)] = receiver.jobs()
    assert fire_id.startswith("nightly-report@")
    assert (message_id, json.loads(text)) == (fire.message["MessageId"], {"report": "nightly"})
    assert fire.message["MessageAttributes"]["cronally.fire_id"] == {"Type": "String", "Value": fire_id}
    assert await asyncio.to_thread(installation.stop) == 0


async def test_a_repeat_is_no_second_job(sns, posted_to):
    def fire(fire_id, **signed):
        signed = {"Type": "Notification", "TopicArn": TOPIC, "Message": "{}", **signed}
        attributes = {"cronally.fire_id": {"Type": "String", "Value": fire_id}}
        return json.dumps({**sns.signed(signed), "MessageAttributes": attributes}).encode()

    first = fire("a@1", MessageId="m1")
    copies = [
        first,  # posted twice by SNS
        fire("a@1", MessageId="m2"),  # published twice by Cronally
        fire("a@9", MessageId="m1"),  # posted by somebody else, with an attribute of his own
    ]
    for body in [first, *copies, fire("a@2", MessageId="m3")]:
        assert await asyncio.to_thread(posted_to.page.handle, body) == 200
    assert [row[:2] for row in posted_to.jobs()] == [("a@1", "m1"), ("a@2", "m3")]


# --- what is refused --------------------------------------------------------------------------------------------------


def ago(**span):
    return (datetime.now(UTC) - timedelta(**span)).isoformat(timespec="milliseconds")


def notification(sns, *, version=None, **fields):
    base = {"Type": "Notification", "MessageId": "m", "TopicArn": TOPIC, "Message": "text", "Subject": "s"}
    return sns.signed(base | fields, version=version)


FILE = CERTIFICATE_PATH.removeprefix("/")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda sns: notification(sns) | {"Message": "other"}, "InvalidSignature"),
        (lambda sns: notification(sns) | {"Subject": "other"}, "InvalidSignature"),
        (lambda sns: notification(sns) | {"MessageId": "other"}, "InvalidSignature"),
        (lambda sns: notification(sns) | {"Timestamp": ago(minutes=1)}, "InvalidSignature"),
        (lambda sns: notification(sns) | {"Type": "SubscriptionConfirmation"}, "InvalidSignature"),
        (lambda sns: notification(sns) | {"SubscribeURL": f"{SNS_URL}/?x"}, "InvalidSignature"),
        (lambda sns: notification(sns) | {"Signature": "AAAA"}, "InvalidSignature"),
        (lambda sns: notification(sns, version="1"), "not signed with SHA-256"),
        (lambda sns: notification(sns, version="1") | {"SignatureVersion": "2"}, "InvalidSignature"),
        (lambda sns: notification(sns, Timestamp=ago(minutes=61)), "too old"),
        (lambda sns: notification(sns, Timestamp=ago(minutes=-61)), "too old"),
        (lambda sns: notification(sns) | {"TopicArn": f"{TOPIC}-2"}, "not one of our topics"),
        (lambda sns: notification(sns) | {"TopicArn": [TOPIC]}, "TypeError"),
        (lambda sns: {key: text for key, text in notification(sns).items() if key != "Signature"}, "KeyError"),
        (lambda sns: [], "TypeError"),
        *(
            (lambda sns, url=url: notification(sns) | {"SigningCertURL": url}, "SigningCertURL is not of SNS")
            for url in (
                f"https://evil.example/{FILE}",
                f"https://sns.s3.amazonaws.com/{FILE}",  # a bucket that is called sns
                f"https://sns.s3-us-west-2.amazonaws.com/{FILE}",
                f"https://sns.eu-west-1.amazonaws.com/{FILE}",
                f"https://sns.us-east-1.amazonaws.com.evil.example/{FILE}",
                f"https://sns.us-east-1.amazonaws.com@evil.example/{FILE}",
                f"https://snsxus-east-1.amazonaws.com/{FILE}",
                f"http://sns.us-east-1.amazonaws.com/{FILE}",
                f"{SNS_URL}/other.pem",
                f"{SNS_URL}/{FILE}?x=1",
            )
        ),
    ],
)  # fmt: skip
async def test_what_is_not_signed_by_sns_for_us_and_lately_is_refused(sns, posted_to, spoil, reason):
    assert await asyncio.to_thread(posted_to.page.verify, json.dumps(notification(sns)).encode())
    body = json.dumps(spoil(sns)).encode()
    with pytest.raises(posted_to.page.Refused, match=reason):
        await asyncio.to_thread(posted_to.page.verify, body)
    assert await asyncio.to_thread(posted_to.page.handle, body) == 403
    assert posted_to.jobs() == []


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"null", b"7"])
def test_what_is_no_message_is_refused(receiver, body):
    assert receiver.page.handle(body) == 403


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/?Action=ConfirmSubscription&x",
        "https://sns.us-east-1.amazonaws.com.evil.example/?Action=ConfirmSubscription&x",
        f"{SNS_URL}/?Action=Unsubscribe&x",
    ],
)
async def test_a_subscribe_url_that_leads_elsewhere_is_not_fetched_though_signed(sns, posted_to, url):
    asked = {
        "Type": "SubscriptionConfirmation",
        "MessageId": "m",
        "TopicArn": TOPIC,
        "Message": "",
        "Token": "t",
    }
    body = json.dumps(sns.signed({**asked, "SubscribeURL": url})).encode()
    assert await asyncio.to_thread(posted_to.page.handle, body) == 403
    assert not any("?" in one for one in posted_to.fetched)


async def test_a_certificate_that_cannot_be_had_is_no_refusal_so_that_sns_tries_again(sns, posted_to):
    url = f"{SNS_URL}/SimpleNotificationService-{'f' * 32}.pem"
    body = json.dumps(notification(sns) | {"SigningCertURL": url}).encode()
    with pytest.raises(urllib.error.HTTPError, match="404") as failed:
        await asyncio.to_thread(posted_to.page.handle, body)
    failed.value.close()


async def test_the_certificate_is_fetched_once(sns, subscribed, cronally):
    for _ in range(2):
        await cronally("topics", "check", TOPIC)
    assert [post.status for post in await sns.wait_for_posts(3)] == [200] * 3
    assert subscribed.fetched.count(f"{SNS_URL}{CERTIFICATE_PATH}") == 1


# --- the fake itself --------------------------------------------------------------------------------------------------


def test_what_is_signed_is_what_the_guide_of_sns_says():
    """SNS Developer Guide, "Verifying the signatures of Amazon SNS messages": its example."""
    message = {
        "Type": "Notification",
        "MessageId": "4d4dc071-ddbf-465d-bba8-08f81c89da64",
        "TopicArn": "arn:aws:sns:us-east-2:123456789012:s4-MySNSTopic-1G1WEFCOXTC0P",
        "Subject": "My subject",
        "Message": "My Test Message",
        "Timestamp": "2012-06-05T04:37:04.321Z",
        "MessageAttributes": {"a": {"Type": "String", "Value": "b"}},
    }
    assert text_to_sign(message) == (
        "Message\nMy Test Message\nMessageId\n4d4dc071-ddbf-465d-bba8-08f81c89da64\nSubject\nMy subject\n"
        "Timestamp\n2012-06-05T04:37:04.321Z\n"
        "TopicArn\narn:aws:sns:us-east-2:123456789012:s4-MySNSTopic-1G1WEFCOXTC0P\nType\nNotification\n"
    )


async def test_a_token_that_was_never_given_out_confirms_nothing(sns, cronally):
    await cronally("topics", "create", "reports", "--region", "us-east-1")
    url = f"{sns.url}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=guess"
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        await asyncio.to_thread(urllib.request.urlopen, url, timeout=20)
    refused.value.close()
