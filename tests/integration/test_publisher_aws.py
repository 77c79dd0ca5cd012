"""SnsPublisher over real sockets: faults against the fake SNS, meaning against moto."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from cronally.clock import SystemClock
from cronally.domain.batching import Batch
from cronally.domain.spec import Attribute
from cronally.engine.ports import OutcomeClass
from cronally.errors import PublishError
from cronally.sns.clients import Clients
from cronally.sns.credentials import Credentials
from cronally.sns.local import StandIn, local_credentials
from cronally.sns.publisher import SnsPublisher
from cronally.sns.topics import create_topic
from support.entries import FIFO_TOPIC, TOPIC, batch, numbers
from support.fake_sns import ACCESS_KEY, SECRET_KEY, FakeSns, Fault
from support.moto_server import free_port, moto_url

PUBLISHED, RETRY, HOLD, REJECTED = OutcomeClass
UNKNOWN, KNOWN = True, False
CLOCK = SystemClock()
CREDENTIALS = Credentials.fixed(CLOCK, ACCESS_KEY, SECRET_KEY)
LOCAL = local_credentials(CLOCK)  # shared: botocore reads its models once


@pytest.fixture
async def sns():
    async with FakeSns() as fake:
        yield fake


@pytest.fixture
async def make():
    """Return a maker of publishers, which are closed at the end."""
    made = []

    def maker(url=None, *, credentials=None, **options):
        made.append(SnsPublisher(credentials or CREDENTIALS, CLOCK, endpoint_url=url, **options))
        return made[-1]

    yield maker
    for publisher in made:
        await publisher.close()


class Settled:
    def __init__(self):
        self.outcomes = []
        self._changed = asyncio.Event()

    def __call__(self, outcomes):
        self.outcomes += outcomes
        self._changed.set()

    async def wait_for(self, count):
        while len(self.outcomes) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.outcomes


async def release(publisher, *batches):
    settled = Settled()
    publisher.release(await publisher.arm(batches, CLOCK.wall()), settled)
    return settled


async def publish(publisher, *batches):
    settled = await release(publisher, *batches)
    return await settled.wait_for(sum(len(one.entries) for one in batches))


# --- what is sent ---


async def test_every_part_of_an_entry_arrives(sns, make):
    attributes = (
        Attribute("n", "5", "Number"),
        Attribute("list", '["a"]', "String.Array"),
        Attribute("b", "AAEC/w==", "Binary"),
    )
    sent = batch(
        1, message="é & <b>=+% \U0001f600\n<cronally.fire-id>", subject="A subject", attributes=attributes
    )
    [outcome] = await publish(make(sns.url), sent)
    assert outcome.outcome is PUBLISHED
    [message] = sns.received
    assert message.topic == TOPIC
    assert message.message == "é & <b>=+% \U0001f600\njob-0@2026-11-23T09:00:00Z"
    assert message.subject == "A subject"
    assert message.attributes == {
        "cronally.schedule": ("String", "job-0"),
        "cronally.fire_time": ("String", "2026-11-23T09:00:00Z"),
        "cronally.fire_id": ("String", "job-0@2026-11-23T09:00:00Z"),
        "n": ("Number", "5"),
        "list": ("String.Array", '["a"]'),
        "b": ("Binary", "AAEC/w=="),
    }
    assert (message.group, message.deduplication, message.message_structure) == (None, None, None)


async def test_a_structured_message_says_so(sns, make):
    text = '{"default": "<cronally.fire-id>", "email": "x"}'
    await publish(make(sns.url), batch(1, message=text, message_structure="json"))
    [message] = sns.received
    assert message.message_structure == "json"


async def test_a_fifo_entry_carries_group_and_fire_id_and_a_repeat_is_dropped(sns, make):
    publisher = make(sns.url)
    await publish(publisher, batch(2, topic=FIFO_TOPIC))
    outcomes = await publish(publisher, batch(2, topic=FIFO_TOPIC))
    assert Counter(o.outcome for o in outcomes) == {PUBLISHED: 2}
    assert [(m.group, m.deduplication) for m in sns.delivered] == [
        ("job-0", "job-0@2026-11-23T09:00:00Z"),
        ("job-1", "job-1@2026-11-23T09:00:00Z"),
    ]
    assert len(sns.received) == 4


async def test_an_entry_that_cannot_be_written_is_rejected_and_the_others_go(sns, make):
    good = batch(2)
    bad = batch(1, first=2, attributes=(Attribute("b", "not base64!", "Binary"),))
    outcomes = await publish(make(sns.url), Batch(TOPIC, good.entries + bad.entries))
    assert {o.fire.schedule_id: o.outcome for o in outcomes} == {0: PUBLISHED, 1: PUBLISHED, 2: REJECTED}
    assert sns.requests == 1


# --- what comes back ---

# (fault, class, unknown, entries that SNS took, beginning of the error)
FAULTS = [
    (Fault.THROTTLE, RETRY, KNOWN, 0, "Throttling: Rate exceeded"),
    (Fault.ERROR_500, RETRY, UNKNOWN, 0, "InternalError: "),
    (Fault.ERROR_500_AFTER, RETRY, UNKNOWN, 3, "InternalError: "),
    (Fault.UNAVAILABLE, RETRY, UNKNOWN, 0, ""),
    (Fault.RESET_BEFORE, RETRY, UNKNOWN, 0, ""),
    (Fault.RESET_AFTER, RETRY, UNKNOWN, 3, ""),
    (Fault.LOST_ACK, RETRY, UNKNOWN, 3, "ConnectionClosedError: "),
    (Fault.TRUNCATED, RETRY, UNKNOWN, 3, ""),
    (Fault.GARBAGE, RETRY, UNKNOWN, 3, ""),
    (Fault.EMPTY_REPLY, RETRY, UNKNOWN, 3, "the reply of SNS does not name this entry"),
    (Fault.NOT_FOUND, HOLD, KNOWN, 0, "NotFound: Topic does not exist"),
    (Fault.DENIED, HOLD, KNOWN, 0, "AuthorizationError: "),
    (Fault.EXPIRED_TOKEN, RETRY, KNOWN, 0, "ExpiredToken: "),
]


@pytest.mark.parametrize(
    ("fault", "outcome", "is_unknown", "taken", "error"), FAULTS, ids=[f[0] for f in FAULTS]
)
async def test_a_fault_of_the_whole_call(sns, make, fault, outcome, is_unknown, taken, error):
    sns.faults.always = fault
    outcomes = await publish(make(sns.url), batch(3))
    assert numbers(outcomes) == [0, 1, 2]
    assert {(o.outcome, o.is_unknown) for o in outcomes} == {(outcome, is_unknown)}
    assert all(o.error and o.error.startswith(error) for o in outcomes)
    assert len(sns.received) == taken
    assert sns.requests == 1


async def test_an_entry_that_the_reply_does_not_name_is_unknown(sns, make):
    sns.faults.always = Fault.HALF_REPLY
    outcomes = await publish(make(sns.url), batch(3))
    assert {o.fire.schedule_id: (o.outcome, o.is_unknown) for o in outcomes} == {
        0: (PUBLISHED, KNOWN),
        1: (RETRY, UNKNOWN),
        2: (RETRY, UNKNOWN),
    }


async def test_an_answer_that_never_comes_is_unknown(sns, make):
    sns.faults.always = Fault.HANG_AFTER
    outcomes = await publish(make(sns.url, attempt_timeout_s=0.2), batch(2))
    assert {(o.outcome, o.is_unknown, o.error) for o in outcomes} == {
        (RETRY, UNKNOWN, "TimeoutError: no answer in time")
    }


async def test_entries_that_fail_alone(sns, make):
    sns.faults.fail_entries = {
        "job-1@": ("InvalidParameter", True),
        "job-2@": ("InternalError", False),
        "job-3@": ("KMSThrottling", True),
        "job-4@": ("KMSDisabled", True),
    }
    outcomes = await publish(make(sns.url), batch(6))
    assert {o.fire.schedule_id: (o.outcome, o.is_unknown) for o in outcomes} == {
        0: (PUBLISHED, KNOWN),
        1: (REJECTED, KNOWN),
        2: (RETRY, UNKNOWN),
        3: (RETRY, KNOWN),
        4: (HOLD, KNOWN),
        5: (PUBLISHED, KNOWN),
    }
    assert sns.requests == 1


async def test_a_bad_entry_in_a_batch_costs_one_call_for_each_and_no_more(sns, make):
    sns.faults.poison = "job-3@"
    outcomes = await publish(make(sns.url), batch(10))
    assert {o.fire.schedule_id for o in outcomes if o.outcome is REJECTED} == {3}
    assert sns.requests == 11
    assert len(sns.received) == 9


async def test_entries_sent_singly_meet_their_own_faults(sns, make):
    sns.faults.poison = "job-1@"
    sns.faults.next = [Fault.OK, Fault.OK, Fault.OK, Fault.LOST_ACK]
    outcomes = await publish(make(sns.url, max_connections=1), batch(3))
    assert {o.fire.schedule_id: (o.outcome, o.is_unknown) for o in outcomes} == {
        0: (PUBLISHED, KNOWN),
        1: (REJECTED, KNOWN),
        2: (RETRY, UNKNOWN),
    }


async def test_throttled_singles_are_not_rejected(sns, make):
    sns.faults.poison = "job-1@"
    sns.faults.next = [Fault.OK, Fault.THROTTLE, Fault.THROTTLE, Fault.THROTTLE]
    outcomes = await publish(make(sns.url), batch(3))
    assert {(o.outcome, o.is_unknown) for o in outcomes} == {(RETRY, KNOWN)}


async def test_a_quota_refuses_what_is_beyond_it(sns, make):
    sns.faults.quota = 20
    outcomes = await publish(make(sns.url), *(batch(10, first=n * 10) for n in range(5)))
    counts = Counter(o.outcome for o in outcomes)
    assert counts[PUBLISHED] >= 20
    assert counts[RETRY] >= 20
    assert len(sns.received) == counts[PUBLISHED]


async def test_nobody_listening_is_retry_and_known_not_to_have_gone(make):
    outcomes = await publish(make(f"http://127.0.0.1:{free_port()}"), batch(2))
    assert {(o.outcome, o.is_unknown) for o in outcomes} == {(RETRY, KNOWN)}
    assert outcomes[0].error.startswith("ConnectionRefusedError: cannot connect to 127.0.0.1:")


async def test_a_clock_that_is_off_by_more_than_15_minutes_is_retry(sns, make):
    publisher = make(sns.url)
    sns.faults.skew_s = 14 * 60
    assert (await publish(publisher, batch(1)))[0].outcome is PUBLISHED
    sns.faults.skew_s = 16 * 60
    [outcome] = await publish(publisher, batch(1))
    assert (outcome.outcome, outcome.is_unknown) == (RETRY, KNOWN)
    assert "15 min" in outcome.error


# --- credentials, endpoints, clients ---


async def test_without_credentials_entries_are_retried_with_a_reason(sns, make, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    publisher = make(sns.url, credentials=Credentials(CLOCK))
    # Nobody has started these credentials, so there is nothing to sign with but what the chain finds.
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    outcomes = await publish(publisher, batch(2))
    assert {(o.outcome, o.is_unknown) for o in outcomes} == {(RETRY, KNOWN)}
    assert "credentials" in outcomes[0].error
    assert sns.requests == 0


@pytest.mark.parametrize(("key", "secret"), [("AKIDOTHER", SECRET_KEY), (ACCESS_KEY, "wrong")])
async def test_refused_credentials_are_asked_for_again(sns, make, key, secret):
    credentials = Credentials.fixed(CLOCK, key, secret)
    [outcome] = await publish(make(sns.url, credentials=credentials), batch(1))
    assert (outcome.outcome, outcome.is_unknown) == (RETRY, KNOWN)
    # A wrong signature may be a clock; an unknown key is certainly not.
    assert credentials._wanted.is_set() is (key == "AKIDOTHER")


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_SNS", "AWS_ENDPOINT_URL", "profile"])
async def test_the_endpoint_of_every_aws_tool_is_obeyed(sns, make, monkeypatch, tmp_path, variable):
    for name in ("AWS_ENDPOINT_URL_SNS", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "config"
    config.write_text(
        f"[profile team]\nservices = here\n[services here]\nsns =\n  endpoint_url = {sns.url}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    if variable == "profile":
        monkeypatch.setenv("AWS_PROFILE", "team")
    else:
        monkeypatch.setenv(variable, sns.url)
    fresh = Credentials.fixed(CLOCK, ACCESS_KEY, SECRET_KEY)
    [outcome] = await publish(make(credentials=fresh), batch(1))
    assert outcome.outcome is PUBLISHED
    assert len(sns.received) == 1


async def test_the_region_is_the_topics(sns, make, monkeypatch):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    topics = [f"arn:aws:sns:{region}:123456789012:reports" for region in ("us-east-1", "eu-west-1")]
    outcomes = await publish(make(sns.url), *(batch(1, topic=topic) for topic in topics))
    assert [o.outcome for o in outcomes] == [PUBLISHED, PUBLISHED]  # the fake compares ARN and signature


async def test_the_endpoint_is_found_by_arm_and_kept_and_so_is_the_connection(sns, make, monkeypatch):
    publisher = make(sns.url)
    assert [o.outcome for o in await publish(publisher, batch(1))] == [PUBLISHED]

    def fail(*_, **__):
        raise AssertionError("asked twice")

    monkeypatch.setattr(publisher.credentials.session, "create_client", fail)
    for _ in range(3):
        assert [o.outcome for o in await publish(publisher, batch(1))] == [PUBLISHED]
    assert sns.connections == 1


async def test_a_client_that_cannot_be_made_is_retried_and_the_next_attempt_tries_again(
    sns, make, monkeypatch
):
    publisher = make(sns.url)

    def fail(*_, **__):
        raise RuntimeError("no client today")

    with monkeypatch.context() as patch:
        patch.setattr(publisher.credentials.session, "create_client", fail)
        outcomes = await publish(publisher, batch(2))
    assert {(o.outcome, o.is_unknown) for o in outcomes} == {(RETRY, KNOWN)}
    assert "no client today" in outcomes[0].error
    assert {o.outcome for o in await publish(publisher, batch(2))} == {PUBLISHED}


async def test_a_connection_that_sns_closed_while_idle_is_replaced(sns, make):
    publisher = make(sns.url)
    sns.faults.idle_close_s = 0.05
    await publish(publisher, batch(1))
    await sns.wait_for_connections(0)
    assert [o.outcome for o in await publish(publisher, batch(1))] == [PUBLISHED]
    assert sns.connections == 2


# --- many calls ---


async def test_calls_beyond_the_limit_wait_unsigned(sns, make):
    publisher = make(sns.url, max_connections=4)
    sns.gate.clear()
    settled = await release(publisher, *(batch(1, first=n) for n in range(10)))
    await sns.wait_for_requests(4)
    await publisher.close()
    assert sns.requests == 4
    assert numbers(settled.outcomes) == list(range(10))
    begun = {o.fire.schedule_id: o.is_unknown for o in settled.outcomes}
    assert begun == {n: n < 4 for n in range(10)}
    assert {o.outcome for o in settled.outcomes} == {RETRY}


async def test_released_is_when_the_call_began_and_not_when_it_was_queued(sns, make):
    publisher = make(sns.url, max_connections=1)
    sns.gate.clear()
    settled = await release(publisher, batch(1), batch(1, first=1))
    await sns.wait_for_requests(1)
    opened_us = CLOCK.wall_us()
    sns.gate.set()
    outcomes = await settled.wait_for(2)
    released = {o.fire.schedule_id: o.released_us for o in outcomes}
    assert released[0] <= opened_us <= released[1]
    arrived = {m.fire_id: m.arrived_us for m in sns.received}
    assert released[1] <= arrived["job-1@2026-11-23T09:00:00Z"]


async def test_what_waited_for_a_connection_until_after_its_deadline_does_not_go(sns, make):
    publisher = make(sns.url, max_connections=1)
    sns.gate.clear()

    def until(deadline_at, *, first):
        entries = batch(2, first=first).entries
        late, in_time = (
            one._replace(fire=one.fire._replace(deadline_at=at))
            for one, at in zip(entries, (deadline_at, CLOCK.wall() + 60_000), strict=True)
        )
        return Batch(TOPIC, (late, in_time))

    soon = CLOCK.wall() - 1
    settled = await release(
        publisher, batch(1), until(soon, first=1), Batch(TOPIC, until(soon, first=3).entries[:1])
    )
    await sns.wait_for_requests(1)
    sns.gate.set()
    outcomes = {o.fire.schedule_id: o for o in await settled.wait_for(4)}
    assert {number: o.outcome for number, o in outcomes.items()} == {
        0: PUBLISHED,
        1: RETRY,
        2: PUBLISHED,
        3: RETRY,
    }
    assert all("its deadline passed" in outcomes[number].error for number in (1, 3))
    assert not any(outcomes[number].is_unknown for number in (1, 3))
    assert len(sns.received) == 2
    assert sns.requests == 2


async def test_what_waited_for_a_connection_until_nothing_may_be_sent_any_more_does_not_go(sns, make):
    may_send = True
    publisher = make(sns.url, max_connections=1, may_send=lambda: may_send)
    sns.gate.clear()
    settled = await release(publisher, *(batch(2, first=2 * number) for number in range(3)))
    await sns.wait_for_requests(1)
    may_send = False
    sns.gate.set()
    outcomes = await settled.wait_for(6)
    assert {o.fire.schedule_id: (o.outcome, o.is_unknown) for o in outcomes} == {
        number: (PUBLISHED, KNOWN) if number < 2 else (RETRY, KNOWN) for number in range(6)
    }
    assert all("lease" in o.error for o in outcomes if o.outcome is RETRY)
    assert sns.requests == 1
    may_send = True
    assert [o.outcome for o in await publish(publisher, batch(1))] == [PUBLISHED]


async def test_cancelling_an_arm_leaves_the_endpoint_to_others(sns, make, monkeypatch):
    publisher = make(sns.url)
    begun, go_on = asyncio.Event(), asyncio.Event()
    finish = publisher._endpoints._clients._make

    async def slowly(region):
        begun.set()
        await go_on.wait()
        return await finish(region)

    monkeypatch.setattr(publisher._endpoints._clients, "_make", slowly)
    arming = asyncio.create_task(publisher.arm([batch(1)], CLOCK.wall()))
    await begun.wait()
    arming.cancel()
    await asyncio.gather(arming, return_exceptions=True)
    go_on.set()
    assert [o.outcome for o in await publish(publisher, batch(1))] == [PUBLISHED]
    assert len(publisher._endpoints._clients._makers) == 1


# --- meaning, against moto ---


@pytest.fixture(scope="session")
def moto():
    return moto_url()


async def test_moto_takes_what_we_send_and_knows_no_missing_topic(moto, make):
    arn = "arn:aws:sns:us-east-1:123456789012:nobody-made-this"
    [outcome] = await publish(make(moto, credentials=LOCAL), batch(1, topic=arn))
    assert (outcome.outcome, outcome.is_unknown) == (HOLD, KNOWN)
    assert outcome.error.startswith("NotFound: ")


async def test_moto_delivers_body_and_attributes(moto, make):
    arn = "arn:aws:sns:us-east-1:123456789012:meaning"
    stand_in = StandIn(CLOCK, moto, credentials=LOCAL)
    await stand_in.ensure_topic(arn)
    attributes = (Attribute("n", "5", "Number"), Attribute("b", "AAEC/w==", "Binary"))
    sent = batch(1, topic=arn, message="é <cronally.fire-id>", attributes=attributes)
    [outcome] = await publish(make(moto, credentials=LOCAL), sent)
    assert outcome.outcome is PUBLISHED
    async for message in stand_in.messages(arn):
        assert message.body == "é job-0@2026-11-23T09:00:00Z"
        assert message.attributes["cronally.fire_id"] == "job-0@2026-11-23T09:00:00Z"
        assert (message.attributes["n"], message.attributes["b"]) == ("5", "AAEC/w==")
        assert outcome.released_us // 1000 <= message.sent_at <= outcome.finished_at
        break
    await stand_in.close()


# --- topics ---


async def test_a_topic_of_another_account_is_not_made_in_ours(moto):
    clients = Clients(LOCAL, endpoint_url=moto)
    with pytest.raises(
        PublishError, match=r"is arn:aws:sns:us-east-1:123456789012:theirs, not .*correct the ARN"
    ):
        await create_topic(await clients.get("us-east-1"), "arn:aws:sns:us-east-1:999999999999:theirs")
    await clients.close()


async def test_throttling_is_said_once_in_a_while(sns, make, caplog):
    sns.faults.always = Fault.THROTTLE
    await publish(make(sns.url), batch(2), batch(3))
    said = [record for record in caplog.records if getattr(record, "action", None) == "sns.throttled"]
    assert [record.getMessage()[:20] for record in said] == ["SNS in us-east-1 tak"]
    assert "Throttling: Rate exceeded" in said[0].getMessage()
