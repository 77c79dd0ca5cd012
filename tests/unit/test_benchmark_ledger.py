"""The ledger decides whether a run was good, so it has to notice when one was not. Signatures are botocore's."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from benchmarks._ledger import ACCESS_KEY, SECRET_KEY, Ledger

FIRE_TIME = "2026-11-23T09:00:00Z"
INSTANT_US = int(datetime(2026, 11, 23, 9, tzinfo=UTC).timestamp()) * 1_000_000
NAMES = ["job-0", "job-1"]


@pytest.fixture(autouse=True)
def _at_the_instant(monkeypatch):
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: datetime(2026, 11, 23, 9))  # noqa: DTZ001 - as botocore's


def request(
    *names, secret=SECRET_KEY, key=ACCESS_KEY, fire_time=FIRE_TIME, message='{{"job": "{}"}}', change=b""
):
    form = {"Action": "PublishBatch", "TopicArn": "arn:aws:sns:us-east-1:123456789012:bench"}
    for number, name in enumerate(names, 1):
        member = f"PublishBatchRequestEntries.member.{number}."
        form |= {
            f"{member}Id": str(number),
            f"{member}Message": message.format(name),
            f"{member}MessageAttributes.entry.1.Name": "team",
            f"{member}MessageAttributes.entry.1.Value.StringValue": "reports",
            f"{member}MessageAttributes.entry.2.Name": "cronally.fire_id",
            f"{member}MessageAttributes.entry.2.Value.StringValue": f"{name}@{fire_time}",
        }
    body = urlencode(form).encode()
    signed = AWSRequest("POST", "http://127.0.0.1:80/", data=body, headers={"Host": "127.0.0.1:80"})
    SigV4Auth(Credentials(key, secret), "sns", "us-east-1").add_auth(signed)
    head = "".join(f"{name}: {value}\r\n" for name, value in signed.headers.items())
    return f"POST / HTTP/1.1\r\n{head}\r\n".encode() + body + change


def booked(*requests, late_us=1_500):
    ledger = Ledger()
    for each in requests:
        ledger.take(INSTANT_US + late_us, each)
    return ledger.summary(NAMES)


def test_a_good_run_has_nothing_to_blame():
    found = booked(request("job-0"), request("job-1"))
    assert [found[key] for key in ("messages", "bad_signatures", "mismatched", "unidentified")] == [
        2,
        0,
        0,
        0,
    ]
    assert [found[key] for key in ("early", "doubled", "lost")] == [0, 0, 0]
    assert found["slots"][0]["instant_us"] == INSTANT_US
    assert set(found["curve_us"]) == {1_500}


@pytest.mark.parametrize(
    "spoilt",
    [{"secret": "another"}, {"key": "AKIDANOTHER"}, {"change": b"&x=1"}],
    ids=["secret", "key", "body"],
)
def test_a_bad_signature_is_noticed(spoilt):
    assert booked(request(*NAMES, **spoilt))["bad_signatures"] == 1


def test_a_request_without_a_signature_is_noticed():
    whole = request(*NAMES).replace(b"Authorization:", b"X-Other:")
    assert booked(whole)["bad_signatures"] == 1


def test_a_signature_of_another_hour_is_noticed():
    assert booked(request(*NAMES), late_us=3_600_000_000)["bad_signatures"] == 1


def test_a_message_that_comes_twice_is_noticed():
    found = booked(request(*NAMES), request("job-1"))
    assert found["doubled"] == 1
    assert found["slots"][0]["doubled_ids"] == [f"job-1@{FIRE_TIME}"]


def test_a_message_before_its_time_is_noticed():
    assert booked(request(*NAMES), late_us=-1)["early"] == 2


def test_a_message_that_never_came_is_noticed():
    found = booked(request("job-1"))
    assert (found["lost"], found["slots"][0]["lost_names"]) == (1, ["job-0"])


def test_a_message_of_another_schedule_is_noticed():
    assert booked(request(*NAMES, message='{{"job": "other"}}'))["mismatched"] == 2


def test_other_fire_times_can_be_left_out():
    ledger = Ledger()
    ledger.take(INSTANT_US, request(*NAMES))
    ledger.take(INSTANT_US, request(*NAMES, fire_time="2026-11-23T09:00:01Z"))
    begin = INSTANT_US / 1e6
    found = ledger.summary(NAMES, (begin + 1, begin + 2))
    assert [slot["fire_time"] for slot in found["slots"]] == ["2026-11-23T09:00:01Z"]
    assert found["early"] == 2
