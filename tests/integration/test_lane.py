"""Connections: opened ahead, used in order, given up in time; and whatever a server may say."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from datetime import UTC, datetime
from itertools import count

import pytest
from botocore.credentials import ReadOnlyCredentials

from cronally.clock import SystemClock
from cronally.engine.ports import OutcomeClass
from cronally.sns import lane
from cronally.sns.credentials import Credentials
from cronally.sns.pacing import Pacing
from cronally.sns.publisher import SnsPublisher
from support.entries import TOPIC, batch, numbers
from support.fake_sns import ACCESS_KEY, SECRET_KEY, FakeSns, Fault
from support.raw_server import RawServer
from support.settled import Settled, publish, release

PUBLISHED, RETRY, HOLD, REJECTED = OutcomeClass
UNKNOWN, KNOWN = True, False
CREDENTIALS = Credentials.fixed(
    SystemClock(), ACCESS_KEY, SECRET_KEY
)  # shared: botocore reads its models once


class Clock(SystemClock):
    """The system's, moved by *ahead_s* seconds."""

    ahead_s = 0

    def wall(self):
        return super().wall() + self.ahead_s * 1000

    def wall_us(self):
        return super().wall_us() + self.ahead_s * 1_000_000


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def sns():
    async with FakeSns() as fake:
        yield fake


@pytest.fixture
async def make(clock):
    """Return a maker of publishers, which are closed at the end; nothing of theirs may have failed unseen."""
    made, failures = [], []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))

    def maker(url, *, credentials=None, **options):
        made.append(SnsPublisher(credentials or CREDENTIALS, clock, endpoint_url=url, **options))
        return made[-1]

    yield maker
    for publisher in made:
        await publisher.close()
    assert failures == []


def batches(count):
    return [batch(1, first=number) for number in range(count)]


# --- ahead of the instant ---


async def test_connections_are_open_before_anything_is_released(sns, clock, make):
    publisher = make(sns.url)
    await publisher.arm(batches(20), clock.wall() + 2000)
    await sns.wait_for_connections(8)
    assert sns.requests == 0


async def test_what_is_armed_long_ahead_is_not_connected_yet(sns, clock, make, monkeypatch):
    publisher = make(sns.url)
    await publish(publisher, clock, batch(1))  # so that its endpoint is known
    opened = asyncio.Event()
    monkeypatch.setattr(lane.Lane, "_open_towards", lambda *_: opened.set())
    await publisher.arm(batches(20), clock.wall() + 3200)
    assert not opened.is_set()
    await opened.wait()


async def test_a_release_writes_at_once(sns, clock, make):
    publisher = make(sns.url)
    armed = await publisher.arm(batches(5), clock.wall())
    await sns.wait_for_connections(5)
    await asyncio.sleep(0)
    settled = Settled()
    before_us = clock.wall_us()
    publisher.release(armed, settled)
    after_us = clock.wall_us()
    for outcome in await settled.wait_for(5):
        assert before_us <= outcome.released_us <= after_us
    assert {message.arrived_us >= before_us for message in sns.received} == {True}
    assert sns.connections == 5


async def test_the_bytes_have_left_when_release_returns(clock, make):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        publisher = make(f"http://127.0.0.1:{listening.getsockname()[1]}")
        armed = await publisher.arm([batch(10)], clock.wall())
        [one] = publisher._lanes.values()
        while not one._idle:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        peer, _ = listening.accept()
        with peer:
            publisher.release(armed, Settled())
            peer.settimeout(5)  # the loop gets no turn meanwhile
            received = b""
            while len(received) < len(armed[0].data):
                received += peer.recv(65_536)
        assert received == armed[0].data
        await publisher.close()


async def test_the_signature_has_the_date_of_the_instant(sns, clock, make):
    at = clock.wall() + 60_000
    [armed] = await make(sns.url).arm([batch(1)], at)
    date = datetime.fromtimestamp(at // 1000, UTC).strftime("X-Amz-Date: %Y%m%dT%H%M%SZ\r\n")
    assert date.encode() in armed.data
    assert armed.size_bytes == len(armed.data)


async def test_arming_a_burst_lets_others_have_their_turn(sns, clock, make, monkeypatch):
    publisher = make(sns.url)
    await publisher.arm(batches(1), clock.wall())  # the endpoint is found
    turns = 0

    async def sleep(_duration_s):
        nonlocal turns
        turns += 1

    monkeypatch.setattr(clock, "sleep", sleep)
    monkeypatch.setattr(clock, "mono", count(clock.mono(), 0.001).__next__)  # a batch takes a millisecond
    await publisher.arm(batches(100), clock.wall())
    assert turns >= 20


async def test_a_date_that_is_far_away_is_signed_again(sns, clock, make):
    publisher = make(sns.url)
    armed = await publisher.arm([batch(1)], clock.wall())
    clock.ahead_s = 20 * 60
    sns.faults.skew_s = 20 * 60
    settled = Settled()
    publisher.release(armed, settled)
    assert [o.outcome for o in await settled.wait_for(1)] == [PUBLISHED]


async def test_a_date_that_is_near_is_not_signed_again(sns, clock, make):
    publisher = make(sns.url)
    [armed] = await publisher.arm([batch(1)], clock.wall())
    data = armed.data
    clock.ahead_s = 200
    settled = Settled()
    publisher.release([armed], settled)
    assert [o.outcome for o in await settled.wait_for(1)] == [PUBLISHED]
    assert armed.data is data


async def test_credentials_that_have_changed_sign_again(sns, clock, make):
    credentials = Credentials.fixed(clock, "AKIDOLD", "old")
    publisher = make(sns.url, credentials=credentials)
    armed = await publisher.arm(batches(3), clock.wall())
    credentials._hold(ReadOnlyCredentials(ACCESS_KEY, SECRET_KEY, None))
    settled = Settled()
    publisher.release(armed, settled)
    assert {o.outcome for o in await settled.wait_for(3)} == {PUBLISHED}


async def test_equal_credentials_are_the_same(sns, clock, make):
    credentials = Credentials.fixed(clock, ACCESS_KEY, SECRET_KEY)
    before = credentials.frozen
    credentials._hold(ReadOnlyCredentials(ACCESS_KEY, SECRET_KEY, None, None))
    assert credentials.frozen is before


@pytest.mark.parametrize("skew_s", [20 * 60, -20 * 60])
async def test_the_clock_of_sns_is_taken_for_signing_after_it_has_refused_ours(sns, clock, make, skew_s):
    publisher = make(sns.url)
    sns.faults.skew_s = skew_s
    [first] = await publish(publisher, clock, batch(1))
    assert (first.outcome, first.is_unknown) == (RETRY, KNOWN)
    [second] = await publish(publisher, clock, batch(1))
    assert second.outcome is PUBLISHED
    assert abs(second.released_us - clock.wall_us()) < 60e6  # for signing only
    sns.faults.skew_s = 0  # ours is put right, and was not wrong in the first place
    assert [o.outcome for o in await publish(publisher, clock, batch(1))] == [RETRY]
    assert [o.outcome for o in await publish(publisher, clock, batch(1))] == [PUBLISHED]


# --- idle connections ---


async def test_idle_connections_are_dropped(sns, clock, make, monkeypatch):
    monkeypatch.setattr(lane, "MAX_IDLE_S", 0.05)
    monkeypatch.setattr(lane, "_RESERVED_FOR_S", 0.0)
    publisher = make(sns.url)
    await publish(publisher, clock, *batches(3))
    await sns.wait_for_connections(0)


async def test_a_connection_is_not_dropped_while_something_is_armed_for_it(sns, clock, make, monkeypatch):
    publisher = make(sns.url)
    await publish(publisher, clock, batch(1))
    armed = await publisher.arm([batch(1)], clock.wall() + 2000)
    [one] = publisher._lanes.values()
    [connection] = one._idle
    connection.idle_since -= 12.5
    one._sweep()
    assert one._idle == [connection]
    settled = Settled()
    publisher.release(armed, settled)
    await settled.wait_for(1)
    assert sns.connections == 1
    connection.idle_since -= 12.5
    one._sweep()
    assert one._idle == []


async def test_a_connection_that_will_be_too_old_is_replaced_when_something_is_armed(sns, clock, make):
    publisher = make(sns.url)
    await publish(publisher, clock, batch(1))
    [one] = publisher._lanes.values()
    one._idle[0].idle_since -= 14
    await publisher.arm([batch(1)], clock.wall() + 2000)
    await sns.wait_for_opened(2)
    await sns.wait_for_connections(1)


async def test_connections_that_are_dropped_carry_nothing_more(sns, clock, make):
    publisher = make(sns.url)
    await publish(publisher, clock, *batches(3))
    opened = sns.connections
    publisher.drop_connections()
    await sns.wait_for_connections(0)
    assert [o.outcome for o in await publish(publisher, clock, batch(1))] == [PUBLISHED]
    assert sns.connections == opened + 1


async def test_connections_that_sns_closed_are_no_attempt(sns, clock, make):
    publisher = make(sns.url)
    armed = await publisher.arm(batches(4), clock.wall())
    await sns.wait_for_connections(4)
    sns.close_connections()
    [one] = publisher._lanes.values()
    while one._idle:  # noqa: ASYNC110 - it has not read of it yet
        await asyncio.sleep(0)
    settled = Settled()
    publisher.release(armed, settled)
    assert {o.outcome for o in await settled.wait_for(4)} == {PUBLISHED}
    assert sns.requests == 4


async def test_a_connection_that_is_lost_with_a_request_on_it_is_replaced(sns, clock, make):
    sns.faults.next = [Fault.RESET_AFTER, Fault.LOST_ACK]
    publisher = make(sns.url, max_connections=1)
    outcomes = await publish(publisher, clock, *batches(4))
    assert [(o.outcome, o.is_unknown) for o in sorted(outcomes)] == [(RETRY, UNKNOWN)] * 2 + [
        (PUBLISHED, KNOWN)
    ] * 2
    assert sns.connections == 3


async def test_an_answer_nobody_waits_for_ends_an_idle_connection(clock, make):
    writers = []

    async def answer(_request, writer):
        writer.write(reply(1))
        writers.append(writer)

    async with RawServer(answer) as server:
        publisher = make(server.url)
        await publish(publisher, clock, batch(1))
        writers[0].write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await server.wait_for_open(0)
        assert [o.outcome for o in await publish(publisher, clock, batch(1))] == [PUBLISHED]
        assert server.connections == 2


async def test_without_a_free_descriptor_messages_are_kept_for_later(sns, clock, make):
    publisher = make(sns.url)
    await publish(publisher, clock, batch(1))  # so that all that is opened once is open
    [one] = publisher._lanes.values()
    sns.close_connections()
    while one._connections or one._leaving:  # noqa: ASYNC110 - it has not read of it yet
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        [outcome] = await publish(publisher, clock, batch(1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (outcome.outcome, outcome.is_unknown) == (RETRY, KNOWN)
    assert "oo many open files" in outcome.error
    assert [o.outcome for o in await publish(publisher, clock, batch(1))] == [PUBLISHED]


# --- room and order ---


async def test_there_is_room_until_all_connections_are_busy(sns, clock, make):
    publisher = make(sns.url, max_connections=3)
    sns.gate.clear()
    armed = await publisher.arm(batches(4), clock.wall())
    settled = Settled()
    asked = []
    for one in armed[:3]:
        asked.append(publisher.has_room(TOPIC, 1))
        publisher.release([one], settled)
    assert asked == [True] * 3
    assert not publisher.has_room(TOPIC, 1)
    freed = []

    def note():
        freed.append(publisher.has_room(TOPIC, 1))
        if len(freed) == 1:
            publisher.release([armed[3]], settled)

    publisher.on_room = note
    await sns.wait_for_requests(3)
    sns.gate.set()
    assert len(await settled.wait_for(4)) == 4
    assert freed[0] is True
    assert sns.most_at_once <= 3


async def test_what_is_released_beyond_room_waits_inside_in_order(sns, clock, make):
    publisher = make(sns.url, max_connections=1)
    outcomes = await publish(publisher, clock, *batches(20))
    assert [o.fire.schedule_id for o in sorted(outcomes, key=lambda o: o.released_us)] == list(range(20))
    assert [m.fire_id.split("@")[0] for m in sns.received] == [f"job-{n}" for n in range(20)]
    assert sns.connections == 1


async def test_one_request_is_on_a_connection_at_a_time(sns, clock, make):
    sns.gate.clear()
    settled = await release(make(sns.url, max_connections=4), clock, *batches(10))
    await sns.wait_for_requests(4)
    assert sns.most_at_once == sns.connections == 4
    sns.gate.set()
    await settled.wait_for(10)


async def test_regions_share_the_connections_of_a_server(sns, clock, make):
    topics = [f"arn:aws:sns:{region}:123456789012:reports" for region in ("us-east-1", "eu-west-1")]
    publisher = make(sns.url)
    for topic in topics * 2:
        assert [o.outcome for o in await publish(publisher, clock, batch(1, topic=topic))] == [PUBLISHED]
    assert sns.connections == 1


async def test_quota_leaves_no_room_and_says_when_there_is_some(sns, clock, make):
    publisher = make(sns.url, pacing=Pacing({"us-east-1": 200.0}))
    armed = await publisher.arm([batch(10, first=n * 10) for n in range(22)], clock.wall())
    settled, at = Settled(), 0
    has_returned = asyncio.Event()

    def pump():
        nonlocal at
        while at < len(armed) and publisher.has_room(TOPIC, 10):
            publisher.release([armed[at]], settled)
            at += 1
        if at == len(armed):
            has_returned.set()

    publisher.on_room = pump
    pump()
    assert at == 20
    assert publisher.wait_s(TOPIC, 20) > 0
    await has_returned.wait()
    assert {o.outcome for o in await settled.wait_for(220)} == {PUBLISHED}


async def test_throttling_lowers_the_pace(sns, clock, make):
    pacing = Pacing({"us-east-1": 30.0})  # half a second until ten may go again
    publisher = make(sns.url, pacing=pacing)
    assert publisher.has_room(TOPIC, 10)
    sns.faults.always = Fault.THROTTLE
    await publish(publisher, clock, batch(10))
    assert not publisher.has_room(TOPIC, 10)


async def test_a_failed_entry_that_is_throttled_lowers_the_pace(sns, clock, make):
    pacing = Pacing({"us-east-1": 30.0})  # half a second until ten may go again
    publisher = make(sns.url, pacing=pacing)
    sns.faults.fail_entries = {"job-1@": ("Throttling", False)}
    await publish(publisher, clock, batch(10))
    assert not publisher.has_room(TOPIC, 10)


# --- time-outs ---


async def test_an_answer_that_does_not_come_is_given_up_alone(sns, clock, make):
    sns.faults.by_topic = {TOPIC: Fault.HANG_AFTER}
    other = "arn:aws:sns:us-east-1:123456789012:other"
    publisher = make(sns.url, answer_timeout_s=0.1)
    outcomes = await publish(publisher, clock, batch(1), batch(1, first=1, topic=other))
    assert [(o.outcome, o.is_unknown, o.error) for o in sorted(outcomes)] == [
        (RETRY, UNKNOWN, "TimeoutError: no answer in time"),
        (PUBLISHED, KNOWN, None),
    ]


async def test_a_request_that_cannot_be_written_is_given_up_and_unknown(clock, make):
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        publisher = make(f"http://127.0.0.1:{port}", answer_timeout_s=0.05, attempt_timeout_s=0.25)
        armed = await publisher.arm([batch(10, message='"' * 26_000)], clock.wall())
        [one] = publisher._lanes.values()
        while not one._idle:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        peer = one._idle[0]._transport.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        settled = Settled()
        publisher.release(armed, settled)
        outcome, *_ = await settled.wait_for(10)
        assert (outcome.outcome, outcome.is_unknown) == (RETRY, UNKNOWN)
        assert outcome.finished_at - outcome.released_us // 1000 >= 249  # writing has longer than answering
        await publisher.close()


async def test_a_large_request_arrives_whole(sns, clock, make):
    message = '"' * 260_000
    [outcome] = await publish(make(sns.url), clock, batch(1, message=message))
    assert outcome.outcome is PUBLISHED
    assert sns.received[0].message == message


async def test_what_waits_for_a_server_that_closes_every_connection_is_not_left(clock, make):
    async def never(_request, _writer):
        raise AssertionError

    async with RawServer(never, on_connect=lambda writer: writer.transport.abort()) as server:
        outcomes = await publish(make(server.url), clock, *batches(20))
        assert {o.outcome for o in outcomes} == {RETRY}
        assert numbers(outcomes) == list(range(20))


async def test_closing_gives_up_what_waits_and_what_is_on_its_way(sns, clock, make):
    publisher = make(sns.url, max_connections=2)
    sns.gate.clear()
    settled = await release(publisher, clock, *batches(5))
    await sns.wait_for_requests(2)
    await publisher.close()
    assert [(o.outcome, o.is_unknown) for o in sorted(settled.outcomes)] == [(RETRY, UNKNOWN)] * 2 + [
        (RETRY, KNOWN)
    ] * 3
    await sns.wait_for_connections(0)


async def test_closing_while_connecting_is_known(clock, make):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        publisher = make(f"https://127.0.0.1:{listening.getsockname()[1]}")
        settled = await release(publisher, clock, batch(2))
        await asyncio.sleep(0)
        await publisher.close()
        assert {(o.outcome, o.is_unknown) for o in settled.outcomes} == {(RETRY, KNOWN)}
        assert len(settled.outcomes) == 2


async def test_replies_that_have_come_are_outcomes_even_when_it_closes(sns, clock, make):
    publisher = make(sns.url)
    done = asyncio.Event()

    def there_is_no_time():
        publisher._digesting.cancel()
        done.set()

    publisher.on_room = there_is_no_time
    settled = await release(publisher, clock, batch(1))
    await done.wait()
    assert settled.outcomes == []
    await publisher.close()
    assert [o.outcome for o in settled.outcomes] == [PUBLISHED]


async def test_replies_wait_while_requests_do_but_not_long(sns, clock, make):
    publisher = make(sns.url, max_connections=1)
    armed = await publisher.arm(batches(3), clock.wall())
    settled = Settled()
    publisher.release(armed[:1], settled)
    assert not publisher.has_room(TOPIC, 1)
    has_freed = asyncio.Event()

    def still_full():
        publisher._is_waited_for = True  # as if another batch had been refused
        has_freed.set()

    publisher.on_room = still_full
    await has_freed.wait()
    freed_at = clock.mono()
    for _ in range(5):
        await asyncio.sleep(0)
    assert settled.outcomes == []
    await settled.wait_for(1)
    assert clock.mono() - freed_at < 5  # 0.1 s on a machine of its own


# --- what a server may say ---


def xml(count):
    members = "".join(f"<member><MessageId>x</MessageId><Id>{n}</Id></member>" for n in range(count))
    return (
        f"<PublishBatchResponse><PublishBatchResult><Failed/><Successful>{members}</Successful>"
        "</PublishBatchResult></PublishBatchResponse>"
    ).encode()


def reply(count, *headers, body=None, version="1.1", length=True):
    body = xml(count) if body is None else body
    lines = [f"HTTP/{version} 200 OK", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(count):
    body = xml(count)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(body[n : n + 50]), body[n : n + 50]) for n in range(0, len(body), 50)
    )
    return head + chunks + b"0\r\n\r\n"


# (what the server writes, whether it closes then, whether the connection may be used again)
GOOD = {
    "length": (reply(2), False, True),
    "chunks": (chunked(2), False, True),
    "100 Continue": (b"HTTP/1.1 100 Continue\r\n\r\n" + reply(2), False, True),
    "102 and 103": (b"HTTP/1.1 102 X\r\n\r\nHTTP/1.1 103 X\r\nLink: a\r\n\r\n" + reply(2), False, True),
    "Connection: close": (reply(2, "Connection: close"), False, False),
    "HTTP/1.0": (reply(2, version="1.0"), False, False),
    "until the end": (reply(2, length=False), True, False),
    "two answers": (reply(2) + reply(2), False, False),
    "words after it": (reply(2) + b"more", False, False),
}


@pytest.mark.parametrize("piece", [1_000_000, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize(("data", "is_closed", "is_reused"), GOOD.values(), ids=GOOD)
async def test_an_answer_is_read_however_it_comes(clock, make, data, is_closed, is_reused, piece):
    async def answer(_request, writer):
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
            await writer.drain()
            if piece == 1:
                await asyncio.sleep(0)
        if is_closed:
            writer.close()

    async with RawServer(answer) as server:
        publisher = make(server.url)
        for _ in range(2):
            outcomes = await publish(publisher, clock, batch(2))
            assert [(o.outcome, o.error) for o in outcomes] == [(PUBLISHED, None)] * 2
            if not is_reused:
                await server.wait_for_open(0)
        assert server.connections == (1 if is_reused else 2)


async def test_a_server_that_closes_each_connection_finds_another_open_for_what_is_armed_next(clock, make):
    async def answer(_request, writer):
        writer.write(reply(1, "Connection: close"))
        writer.close()

    async with RawServer(answer) as server:
        publisher = make(server.url)
        now = clock.wall()
        [first] = await publisher.arm([batch(1)], now)
        [second] = await publisher.arm([batch(1, first=1)], now + 1_500)
        settled = Settled()
        publisher.release([first], settled)
        await settled.wait_for(1)
        async with asyncio.timeout(10):
            await server.wait_for_connections(2)
        publisher.release([second], settled)
        assert [outcome.outcome for outcome in await settled.wait_for(2)] == [PUBLISHED] * 2
        assert server.connections == 2


# what the server writes before it closes
BAD = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": reply(2)[:-20],
    "no body": reply(2)[: -len(xml(2))],
    "half a chunk": chunked(2)[:-30],
    "no last chunk": chunked(2)[:-5],
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "binary": bytes(range(256)),
    "TLS": b"\x15\x03\x01\x00\x02\x02\x28",
    "a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n" + xml(2),
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n" + xml(2),
    "an upgrade": b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "only 100 Continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "no end": b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 2_000_000,
    "an endless head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2_000_000,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
async def test_an_answer_that_is_none_is_unknown(clock, make, data):
    async def answer(_request, writer):
        writer.write(data)
        writer.close()

    async with RawServer(answer) as server:
        outcomes = await publish(make(server.url), clock, batch(2))
        assert [(o.outcome, o.is_unknown) for o in outcomes] == [(RETRY, UNKNOWN)] * 2
        assert all(o.error for o in outcomes)
        assert len(server.requests) == 1
        await server.wait_for_open(0)


@pytest.mark.parametrize("name", ["no end", "an endless head"])
async def test_an_answer_that_does_not_end_is_not_read_for_ever(clock, make, name):
    async def answer(_request, writer):
        writer.write(BAD[name])

    async with RawServer(answer) as server:
        [outcome] = await publish(make(server.url), clock, batch(1))
        assert (outcome.outcome, outcome.is_unknown) == (RETRY, UNKNOWN)
        assert outcome.error.startswith("BadReplyError: ")
        await server.wait_for_open(0)


async def test_a_connection_that_is_about_to_close_is_passed_over(sns, clock, make):
    publisher = make(sns.url)
    await publish(publisher, clock, batch(1))
    [one] = publisher._lanes.values()
    armed = await publisher.arm([batch(1)], clock.wall())
    one._idle[-1]._transport.close()
    settled = Settled()
    publisher.release(armed, settled)
    assert [o.outcome for o in await settled.wait_for(1)] == [PUBLISHED]
    assert sns.connections == 2


async def test_nothing_is_left_to_say_when_a_reply_is_late(sns, clock, make):
    publisher = make(sns.url, answer_timeout_s=0.1)
    sns.gate.clear()
    settled = await release(publisher, clock, batch(1))
    await settled.wait_for(1)
    sns.gate.set()
    assert [o.outcome for o in await publish(publisher, clock, batch(1))] == [PUBLISHED]
    assert len(settled.outcomes) == 1


async def test_small_requests_are_not_held_back(sns, clock, make):
    publisher = make(sns.url)
    await publish(publisher, clock, batch(1))
    [one] = publisher._lanes.values()
    handle = one._idle[0]._transport.get_extra_info("socket")
    assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
