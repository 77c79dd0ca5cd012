"""Forms, signatures and heads: golden bytes, and botocore as the judge."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import parse_qsl, quote_plus, unquote_plus, urlencode

import botocore.auth
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.serialize import create_serializer
from hypothesis import example, given
from hypothesis import strategies as st

from cronally.domain.message import compose
from cronally.domain.model import Fire, Kind
from cronally.domain.spec import Attribute, ScheduleSpec
from cronally.sns import request
from cronally.sns.request import CONTENT_TYPE, Signer, Site, encode
from support.boto_publisher import _arguments
from support.entries import FIFO_TOPIC, NINE, TOPIC, entry

MODEL = ServiceModel(Loader().load_service_model("sns", "service-2"), "sns")
SERIALIZER = create_serializer("query", include_validation=False)


def botos(topic, entries):
    """Return the fields botocore sends for *entries*, as (key, value) pairs, sorted."""
    arguments = [_arguments(one, str(place)) for place, one in enumerate(entries)]
    parameters = {"TopicArn": topic, "PublishBatchRequestEntries": arguments}
    body = SERIALIZER.serialize_to_request(parameters, MODEL.operation_model("PublishBatch"))["body"]
    return sorted(urlencode(body, doseq=True).split("&"))


def ours(topic, entries):
    form = encode(topic, entries)
    assert form.entries == tuple(entries)
    assert form.refused == ()
    return sorted(form.body.decode("ascii").split("&"))


def test_a_form_to_the_byte():
    body = encode(TOPIC, [entry(7, message='{"a": "é+%"}', attributes=(Attribute("n", "5", "Number"),))]).body
    member = "&PublishBatchRequestEntries.member.1."
    attribute = f"{member}MessageAttributes.entry."
    assert body.decode() == (
        "Action=PublishBatch&Version=2010-03-31&TopicArn=arn%3Aaws%3Asns%3Aus-east-1%3A123456789012%3Areports"
        f"{member}Id=0{member}Message=%7B%22a%22%3A+%22%C3%A9%2B%25%22%7D"
        f"{attribute}1.Name=cronally.schedule{attribute}1.Value.DataType=String{attribute}1.Value.StringValue=job-7"
        f"{attribute}2.Name=cronally.fire_time{attribute}2.Value.DataType=String"
        f"{attribute}2.Value.StringValue=2026-11-23T09%3A00%3A00Z"
        f"{attribute}3.Name=cronally.fire_id{attribute}3.Value.DataType=String"
        f"{attribute}3.Value.StringValue=job-7%402026-11-23T09%3A00%3A00Z"
        f"{attribute}4.Name=n{attribute}4.Value.DataType=Number{attribute}4.Value.StringValue=5"
    )


PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))

# (id, topic, fields of the spec)
CASES = {
    "default message": {},
    "plain": {"message": "hello"},
    "all of ASCII": {"message": "".join(map(chr, range(128)))},
    "all that is printed": {"message": PRINTABLE},
    "percent signs": {"message": "100%25 %2B %3Ccronally.fire-id%3E %s %(a)s {0}"},
    "the separator": {"message": "2^10 ^ ^"},
    "emoji and lines": {"message": "\U0001f600\r\n\té\u2028"},
    "nothing": {"message": ""},
    "every placeholder": {
        "message": "<cronally.schedule>|<cronally.fire-time>|<cronally.fire-id>|<cronally.fire-time-utc>|"
        "<aws.scheduler.scheduled-time>|<aws.scheduler.attempt-number>|<cronally.other>|<b>"
    },
    "a placeholder in another": {"message": "<cronally.<cronally.schedule>>", "name": "fire-time"},
    "placeholders in attributes": {
        "attributes": (Attribute("id", "<cronally.fire-id>"), Attribute("t", "<cronally.fire-time-utc>"))
    },
    "attributes": {
        "attributes": (
            Attribute("text", "a&b=c d"),
            Attribute("list", '["é"]', "String.Array"),
            Attribute("n", "-1.5e3", "Number"),
            Attribute("b", "AAEC/w==", "Binary"),
            Attribute("loose", "AB==", "Binary"),
        )
    },
    "large attributes": {"attributes": (Attribute("a", "x" * 1500), Attribute("b", "y" * 1500))},
    "subject": {"subject": "Größe: <cronally.schedule> & co"},
    "structure": {"message": '{"default": "<cronally.fire-id>"}', "message_structure": "json"},
    "fifo": {"topic": FIFO_TOPIC},
    "fifo with a group": {"topic": FIFO_TOPIC, "group": "a/b+c:!"},
    "group on a standard topic": {"group": "fair"},
}


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("count", [1, 2, 10])
@pytest.mark.parametrize("fields", CASES.values(), ids=CASES)
def test_botocore_would_send_the_same_bytes(fields, count, kind):
    fields = {"name": "job-1", "when": "* * * * *", "topic": TOPIC, **fields}
    fire = Fire(1, 1, NINE + 7 * (count == 2), NINE, kind)
    entries = [compose(ScheduleSpec(**fields), fire)] * count
    assert ours(fields["topic"], entries) == botos(fields["topic"], entries)


TEXT = (
    st.text(max_size=60)
    | st.text(alphabet=PRINTABLE, max_size=60)
    | st.text(alphabet="<>^%+ \x00\n&=cronaly.fietmd-", max_size=80)
)
PLACEHOLDERS = st.sampled_from(
    [
        "<cronally.schedule>",
        "<cronally.fire-time>",
        "<cronally.fire-id>",
        "<cronally.fire-time-utc>",
        "<aws.scheduler.scheduled-time>",
    ]
)
MESSAGES = st.none() | st.lists(TEXT | PLACEHOLDERS, max_size=5).map("".join)
ATTRIBUTES = st.lists(
    st.builds(
        Attribute,
        st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True),
        MESSAGES.map(lambda text: text or "x"),
        st.sampled_from(["String", "Number", "String.Array"]),
    )
    | st.builds(
        Attribute,
        st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True),
        st.binary(min_size=1, max_size=20).map(lambda raw: base64.b64encode(raw).decode()),
        st.just("Binary"),
    ),
    max_size=6,
    unique_by=lambda attribute: attribute.name,
).map(tuple)


@st.composite
def batches(draw):
    topic = draw(st.sampled_from([TOPIC, FIFO_TOPIC]))
    entries = []
    for number in range(draw(st.integers(1, 10))):
        spec = ScheduleSpec(
            name=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)),
            when="* * * * *",
            topic=topic,
            message=draw(MESSAGES),
            message_structure=draw(st.sampled_from([None, None, "json"])),
            subject=draw(st.none() | st.text(min_size=1, max_size=20)),
            attributes=draw(ATTRIBUTES),
            group=draw(st.none() | st.from_regex(r"[!-~]{1,20}", fullmatch=True)),
        )
        time = draw(st.integers(0, 4_000_000_000_000))
        entries.append(compose(spec, Fire(number, number, time, time, draw(st.sampled_from(Kind)))))
    return topic, entries


@given(batches())
def test_botocore_would_send_the_same_bytes_whatever_it_is(made):
    topic, entries = made
    assert ours(topic, entries) == botos(topic, entries)


@given(st.lists(TEXT, min_size=1, max_size=10))
@example(["^", "a"])
@example(["a^b"])
@example(["", ""])
@example(["%3C^%"])
def test_quoting_together_is_quoting_each(texts):
    assert request._quoted_all(texts) == [quote_plus(text) for text in texts]


@given(st.lists(MESSAGES, min_size=1, max_size=10))
def test_a_form_says_what_the_entry_says(messages):
    entries = [entry(number, message=message) for number, message in enumerate(messages)]
    fields = dict(
        parse_qsl(encode(TOPIC, entries).body.decode(), keep_blank_values=True, strict_parsing=True)
    )
    for number, one in enumerate(entries, 1):
        prefix = f"PublishBatchRequestEntries.member.{number}."
        assert fields[f"{prefix}Message"] == one.message
        assert fields[f"{prefix}MessageAttributes.entry.3.Value.StringValue"] == one.fire_id
        assert fields[f"{prefix}Id"] == str(number - 1)


# (what cannot be written, the reason)
BAD = [
    ({"message": "\ud800"}, "surrogates not allowed"),
    ({"subject": "\udfff"}, "surrogates not allowed"),
    ({"attributes": (Attribute("a", "x\ud800"),)}, "surrogates not allowed"),
    ({"attributes": (Attribute("b", "not base64!", "Binary"),)}, "base64"),
    ({"attributes": (Attribute("b", "AAA", "Binary"),)}, "padding"),
]


@pytest.mark.parametrize(("fields", "reason"), BAD)
def test_an_entry_that_cannot_be_written_is_refused_alone(fields, reason):
    good = [entry(0), entry(2, message="x")]
    bad = entry(1)._replace(spec=entry(1).spec._replace(**fields))
    form = encode(TOPIC, [good[0], bad, good[1]])
    assert form.entries == tuple(good)
    assert form.body == encode(TOPIC, good).body
    [(refused, why)] = form.refused
    assert refused is bad
    assert why.startswith("ValueError: ")
    assert reason in why.lower()


def test_a_batch_of_nothing_but_bad_entries_has_no_body():
    bad = entry(1)._replace(spec=entry(1).spec._replace(message="\ud800"))
    form = encode(TOPIC, [bad])
    assert (form.body, form.entries, len(form.refused)) == (b"", (), 1)


def test_large_attributes_are_not_kept():
    request._all_texts.cache_clear()
    one = entry(1, attributes=(Attribute("a", "x" * 5000),))
    encode(TOPIC, [one])
    assert request._all_texts.cache_info().currsize == 0


# --- signatures -----------------------------------------------------------------------------------------------------


class Key(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None = None


KEYS = [
    Key("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    Key("ASIA", "s/e+c", "a//token+of=many=="),
]
DATE_S = NINE // 1000


def parsed(head):
    line, *rest = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    return line, dict(one.split(": ", 1) for one in rest)


def boto_authorization(monkeypatch, key, region, url, body):
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: datetime.fromtimestamp(DATE_S, UTC))
    signed = AWSRequest("POST", url, data=body, headers={"Content-Type": CONTENT_TYPE, "User-Agent": "any/1"})
    SigV4Auth(BotoCredentials(*key), "sns", region).add_auth(signed)
    return signed.headers["Authorization"]


@pytest.mark.parametrize("key", KEYS, ids=["key", "session"])
@pytest.mark.parametrize(
    ("region", "host", "path", "url"),
    [
        ("us-east-1", "sns.us-east-1.amazonaws.com", "/", "https://sns.us-east-1.amazonaws.com/"),
        ("eu-west-1", "127.0.0.1:4566", "/", "http://127.0.0.1:4566/"),
        ("us-gov-west-1", "[::1]:80", "/a%20b/c~d/", "https://[::1]:80/a%20b/c~d/"),
    ],
)
def test_botocore_would_sign_the_same(monkeypatch, key, region, host, path, url):
    body = encode(TOPIC, [entry(1), entry(2)]).body
    site = Site(region, host, path, path, "User-Agent: any/1\r\n")
    head = Signer(site, key, DATE_S).head(body)
    line, headers = parsed(head)
    assert line == f"POST {path} HTTP/1.1"
    assert headers["Authorization"] == boto_authorization(monkeypatch, key, region, url, body)
    assert headers["Host"] == host
    assert headers["Content-Length"] == str(len(body))
    assert headers["Content-Type"] == CONTENT_TYPE
    assert headers["X-Amz-Date"] == "20261123T090000Z"
    assert headers.get("X-Amz-Security-Token") == key.token
    assert headers["User-Agent"] == "any/1"


def test_the_key_of_another_day_or_region_is_another():
    body = b"Action=PublishBatch"
    heads = {
        Signer(Site(region, "h", "/", "/", ""), KEYS[0], date_s).head(body)
        for region in ("us-east-1", "eu-west-1")
        for date_s in (DATE_S, DATE_S + 86_400, DATE_S + 1)
    }
    assert len(heads) == 6


def test_the_signed_hash_is_that_of_the_body():
    site = Site("us-east-1", "h", "/", "/", "")
    signer = Signer(site, KEYS[0], DATE_S)
    assert signer.head(b"a") != signer.head(b"b")
    assert signer.head(b"a") == signer.head(b"a")
    assert hashlib.sha256(b"a").hexdigest().encode() not in signer.head(b"a")


def test_a_plain_proxy_is_asked_for_the_whole_url():
    site = Site("us-east-1", "sns:81", "/", "http://sns:81/", "Proxy-Authorization: Basic eA==\r\n")
    line, headers = parsed(Signer(site, KEYS[0], DATE_S).head(b"x"))
    assert line == "POST http://sns:81/ HTTP/1.1"
    assert headers["Proxy-Authorization"] == "Basic eA=="


def test_unquoting_is_the_way_back():
    everything = "".join(map(chr, range(0xD800))) + "\U0001f600"
    assert unquote_plus(request._quoted(everything)) == everything
