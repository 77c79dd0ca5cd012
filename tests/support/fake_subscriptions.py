"""A fake SNS that also has topics and subscriptions of URLs: it asks them to confirm, and posts signed messages to them.

It posts once; SNS would try again after a 5xx. The certificate and the URLs by which a subscription is confirmed and ended are
answered without credentials, at the address of the fake; in messages they have the host of SNS.
"""

from __future__ import annotations

import json
import secrets
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit
from xml.sax.saxutils import escape

import aiohttp

from support.fake_sns import (
    Connection,
    FakeSns,
    Message,
    Refusal,
    Request,
    error_reply,
    http_reply,
    read_entries,
    result_xml,
)
from support.sns_signing import Signer

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCOUNT = "123456789012"
REGION = "us-east-1"
SNS_URL = f"https://sns.{REGION}.amazonaws.com"
CERTIFICATE_PATH = "/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
_ANSWER_S = 15.0  # SNS Developer Guide, "Make sure your endpoint is ready"


class Post(NamedTuple):
    """What was posted to a subscriber. status: what it answered, None if it did not."""

    headers: dict[str, str]
    body: bytes
    status: int | None

    @property
    def message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.body)
        return message


@dataclass
class Subscription:
    """One of a URL. tokens: those by which it may be confirmed."""

    arn: str
    topic: str
    protocol: str
    endpoint: str
    is_raw: bool = False
    is_confirmed: bool = False
    tokens: set[str] = field(default_factory=set)


class SubscribedSns(FakeSns):
    """The server.

    routes: endpoint to the URL that is posted to in its place. topics: attributes that were set, by ARN. subscriptions: by
    ARN. actions: of each call but PublishBatch, in order. posts: in order of their answers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.signer = Signer.make()
        self.routes: dict[str, str] = {}
        self.topics: dict[str, dict[str, str]] = {}
        self.subscriptions: dict[str, Subscription] = {}
        self.actions: list[str] = []
        self.posts: list[Post] = []
        self._session: aiohttp.ClientSession | None = None

    async def start(self, port: int = 0) -> None:
        await super().start(port)
        if self._session is None:  # it may have been down for a while
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_S))

    async def close(self) -> None:
        await super().close()
        if self._session is not None:
            await self._session.close()

    async def wait_for_posts(self, count: int) -> list[Post]:
        """Return what was posted once *count* have been answered."""
        await self._wait(lambda: len(self.posts) >= count)
        return self.posts

    async def wait_for_action(self, action: str) -> None:
        """Return once somebody has called *action*."""
        await self._wait(lambda: action in self.actions)

    # --- the seams of FakeSns -----------------------------------------------------------------------------------------

    def handle(self, connection: Connection, request: Request) -> None:
        if request.method == "GET" and not request.target.startswith("/_control"):
            connection.answer(self._visited(request.target))
            self.notify()
        else:
            super().handle(connection, request)

    def _accept(self, topic: str, entries: list[Message]) -> tuple[list[str], list[tuple[str, str, bool]]]:
        before = len(self._messages)
        answer = super()._accept(topic, entries)
        for message in self._messages[before:]:
            if not message.is_dropped:
                self._deliver(message, str(uuid.uuid4()))
        return answer

    def _other_action(self, form: dict[str, str]) -> str:
        action = form.get("Action", "")
        self.actions.append(action)
        if action == "CreateTopic":
            arn = f"arn:aws:sns:{REGION}:{ACCOUNT}:{form['Name']}"
            self.topics.setdefault(arn, {})
            return result_xml(action, _tag("TopicArn", arn))
        if "SubscriptionArn" in form:
            return self._of_subscription(action, form)
        if form.get("TopicArn") not in self.topics:
            raise Refusal(404, "NotFound", "Topic does not exist")
        return self._of_topic(action, form)

    # --- calls ----------------------------------------------------------------------------------------------------------

    def _of_topic(self, action: str, form: dict[str, str]) -> str:
        topic = form["TopicArn"]
        match action:
            case "GetTopicAttributes":
                states = [one.is_confirmed for one in self._subscriptions_of(topic)]
                counts = {
                    "SubscriptionsConfirmed": str(sum(states)),
                    "SubscriptionsPending": str(len(states) - sum(states)),
                }
                return result_xml(action, _attributes({"TopicArn": topic, **counts, **self.topics[topic]}))
            case "SetTopicAttributes":
                self.topics[topic][form["AttributeName"]] = form["AttributeValue"]
                return result_xml(action, "")
            case "Publish":
                return result_xml(action, _tag("MessageId", self._publish_one(topic, form)))
            case "Subscribe":
                subscription = self._subscribe(topic, form)
                is_told = subscription.is_confirmed or form.get("ReturnSubscriptionArn") == "true"
                return result_xml(
                    action, _tag("SubscriptionArn", subscription.arn if is_told else "pending confirmation")
                )
            case "ConfirmSubscription":
                return self._confirm(topic, form["Token"])
            case "ListSubscriptionsByTopic":
                members = "".join(map(_member, self._subscriptions_of(topic)))
                return result_xml(action, f"<Subscriptions>{members}</Subscriptions>")
            case _:
                raise Refusal(400, "InvalidAction", f"The action {action} is not valid for this endpoint.")

    def _of_subscription(self, action: str, form: Mapping[str, str]) -> str:
        one = self.subscriptions.get(form["SubscriptionArn"])
        if one is None:
            raise Refusal(404, "NotFound", "Subscription does not exist")
        match action:
            case "GetSubscriptionAttributes":
                return result_xml(
                    action,
                    _attributes(
                        {
                            "SubscriptionArn": one.arn,
                            "TopicArn": one.topic,
                            "Protocol": one.protocol,
                            "Endpoint": one.endpoint,
                            "Owner": ACCOUNT,
                            "RawMessageDelivery": _bool(one.is_raw),
                            "PendingConfirmation": _bool(not one.is_confirmed),
                        }
                    ),
                )
            case "SetSubscriptionAttributes" if form["AttributeName"] == "RawMessageDelivery":
                one.is_raw = form["AttributeValue"] == "true"
                return result_xml(action, "")
            case "Unsubscribe":
                del self.subscriptions[one.arn]
                self._ask(one, "UnsubscribeConfirmation")
                return result_xml(action, "")
            case _:
                raise Refusal(400, "InvalidParameter", f"Invalid parameter: {dict(form)}")

    def _subscriptions_of(self, topic: str) -> list[Subscription]:
        return [one for one in self.subscriptions.values() if one.topic == topic]

    def _subscribe(self, topic: str, form: Mapping[str, str]) -> Subscription:
        protocol, endpoint = form["Protocol"], form["Endpoint"]
        wanted = {
            value: form[f"{key.removesuffix('key')}value"]
            for key, value in form.items()
            if key.startswith("Attributes.entry.") and key.endswith(".key")
        }
        there = [one for one in self._subscriptions_of(topic) if one.endpoint == endpoint]
        one = there[0] if there else Subscription(f"{topic}:{uuid.uuid4()}", topic, protocol, endpoint)
        if not there:
            one.is_raw = wanted.get("RawMessageDelivery") == "true"
            self.subscriptions[one.arn] = one
        if not one.is_confirmed:
            self._ask(one, "SubscriptionConfirmation")
        return one

    def _confirm(self, topic: str, token: str) -> str:
        for one in self._subscriptions_of(topic):
            if token in one.tokens:
                one.is_confirmed = True
                return result_xml("ConfirmSubscription", _tag("SubscriptionArn", one.arn))
        raise Refusal(400, "InvalidParameter", "Invalid parameter: Token")

    def _publish_one(self, topic: str, form: Mapping[str, str]) -> str:
        """Take the message of ``Publish``; return its id."""
        prefix = "PublishBatchRequestEntries.member.1."
        batch = {"TopicArn": topic} | {f"{prefix}{key}": value for key, value in form.items()}
        [message] = read_entries(batch, time.time_ns() // 1000, self.requests - 1, 0)
        self._check_entry(message, is_fifo=topic.endswith(".fifo"))
        super()._accept(topic, [message])
        message_id = str(uuid.uuid4())
        self._deliver(message, message_id)
        return message_id

    def _visited(self, target: str) -> bytes:
        """Answer a GET that anybody may make."""
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        try:
            if url.path == CERTIFICATE_PATH:
                return http_reply(200, self.signer.pem.decode(), "binary/octet-stream")
            match query.get("Action"):
                case "ConfirmSubscription":
                    return http_reply(200, self._confirm(query["TopicArn"], query["Token"]))
                case "Unsubscribe":
                    return http_reply(200, self._of_subscription("Unsubscribe", query))
                case _:
                    return error_reply(404, "NotFound", "There is nothing here.")
        except Refusal as refusal:
            return error_reply(refusal.status, refusal.code, refusal.message)

    # --- posts ----------------------------------------------------------------------------------------------------------

    def _ask(self, one: Subscription, kind: str) -> None:
        """Post the confirmation of that *kind*, with a token of its own."""
        token = secrets.token_hex(64)
        one.tokens.add(token)
        is_new = kind == "SubscriptionConfirmation"
        done = (
            f"subscribe to the topic {one.topic}.\nTo confirm the subscription"
            if is_new
            else f"deactivate subscription {one.arn}.\nTo cancel this operation and restore the subscription"
        )
        message = {
            "Type": kind,
            "MessageId": str(uuid.uuid4()),
            "Token": token,
            "TopicArn": one.topic,
            "Message": f"You have chosen to {done}, visit the SubscribeURL included in this message.",
            "SubscribeURL": f"{SNS_URL}/?Action=ConfirmSubscription&TopicArn={one.topic}&Token={token}",
        }
        whose = {} if is_new else {"x-amz-sns-subscription-arn": one.arn}
        self._spawn(self._post(one, self.signed(message), whose))

    def _deliver(self, message: Message, message_id: str) -> None:
        for one in self._subscriptions_of(message.topic):
            if one.is_confirmed:
                self._spawn(self._notify_of(one, message, message_id))

    async def _notify_of(self, one: Subscription, message: Message, message_id: str) -> None:
        subject = {} if message.subject is None else {"Subject": message.subject}
        attributes = {
            name: {"Type": type_, "Value": value} for name, (type_, value) in message.attributes.items()
        }
        envelope: dict[str, Any] = self.signed(
            {
                "Type": "Notification",
                "MessageId": message_id,
                "TopicArn": message.topic,
                **subject,
                "Message": message.message,
            }
        )
        envelope["UnsubscribeURL"] = f"{SNS_URL}/?Action=Unsubscribe&SubscriptionArn={one.arn}"
        if attributes:
            envelope["MessageAttributes"] = attributes
        await self._post(one, envelope, {"x-amz-sns-subscription-arn": one.arn})

    def signed(self, message: Mapping[str, Any], *, version: str | None = None) -> dict[str, Any]:
        """Return *message* with what SNS adds: time, if it has none, and signature. version: not the one of the topic."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        version = version or self.topics[message["TopicArn"]].get("SignatureVersion", "1")
        dated = {"Timestamp": now, **message}
        return {
            **dated,
            "SignatureVersion": version,
            "Signature": self.signer.signature(dated, version),
            "SigningCertURL": f"{SNS_URL}{CERTIFICATE_PATH}",
        }

    async def _post(self, one: Subscription, message: dict[str, Any], more: dict[str, str]) -> None:
        assert self._session is not None
        headers = {
            "x-amz-sns-message-type": message["Type"],
            "x-amz-sns-message-id": message["MessageId"],
            "x-amz-sns-topic-arn": one.topic,
            **more,
            "Content-Type": "text/plain; charset=UTF-8",
            "User-Agent": "Amazon Simple Notification Service Agent",
        }
        body = json.dumps(message, indent=2)
        if one.is_raw and message["Type"] == "Notification":
            headers["x-amz-sns-rawdelivery"] = "true"
            body = message["Message"]
        url = self.routes.get(one.endpoint, one.endpoint)
        status = None
        try:
            async with self._session.post(url, data=body.encode(), headers=headers) as reply:
                status = reply.status
        except (TimeoutError, aiohttp.ClientError):
            pass
        self.posts.append(Post(headers, body.encode(), status))
        self.notify()


def _tag(name: str, text: str) -> str:
    return f"<{name}>{escape(text)}</{name}>"


def _attributes(values: Mapping[str, str]) -> str:
    entries = "".join(
        f"<entry>{_tag('key', key)}{_tag('value', value)}</entry>" for key, value in values.items()
    )
    return f"<Attributes>{entries}</Attributes>"


def _member(one: Subscription) -> str:
    shown = {
        "TopicArn": one.topic,
        "Protocol": one.protocol,
        "SubscriptionArn": one.arn if one.is_confirmed else "PendingConfirmation",
        "Owner": ACCOUNT,
        "Endpoint": one.endpoint,
    }
    return f"<member>{''.join(_tag(name, text) for name, text in shown.items())}</member>"


def _bool(value: bool) -> str:
    return str(value).lower()
