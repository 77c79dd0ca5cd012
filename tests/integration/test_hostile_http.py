"""Hostile bytes, sizes and paces at the admin socket: a 4xx with a reason or a closed connection, and a daemon that goes on."""

import json
import resource
import select
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from cronally.admin.client import Client
from cronally.admin.limits import CHANGES_AT_ONCE, MAX_CONNECTIONS, MAX_HEADERS, connection_limit
from cronally.admin.unix_socket import bind_socket
from cronally.errors import DaemonUnreachable
from support.daemon import running_daemon
from support.raw_client import RawClient, request
from support.rig import TOPIC

DOCUMENT = {"when": "0 9 * * *", "topic": TOPIC}
STATUS = request("GET", "/v1/status")


@pytest.fixture
def daemon(tmp_path, caplog):
    with running_daemon(tmp_path) as running:
        yield running
        with running.client() as client:
            assert client.status().is_ready
    assert [record.getMessage() for record in caplog.records if record.levelname != "INFO"] == []


@pytest.fixture
def connect(daemon):
    with ExitStack() as stack:
        yield lambda *sent: stack.enter_context(RawClient(daemon.socket, *sent))


def memory_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def refusal(client, status):
    """Return the reason of an answer that refuses: one sentence on one line."""
    reply = client.reply()
    assert reply is not None
    assert reply.status == status, reply
    assert reply.headers["cronally-wire"] == "1"
    assert 0 < len(reply.reason) < 500
    assert reply.reason.isprintable()
    return reply.reason


def chunked(chunks):
    for chunk in chunks:
        yield b"%x\r\n%s\r\n" % (len(chunk), chunk)
    yield b"0\r\n\r\n"


def endless(size_bytes):
    """Return a chunked body of so many bytes, a megabyte at a time."""
    return chunked([b"x" * 1_048_576] * (size_bytes >> 20))


# --- bodies -----------------------------------------------------------------------------------------------------


def test_a_body_of_a_gibibyte_is_refused_before_any_of_it_is_sent(connect):
    client = connect(request("PUT", "/v1/schedules/a", b"", f"Content-Length: {1 << 30}"))
    assert "more than 1,048,576 bytes" in refusal(client, 413)
    assert client.is_closed()


def test_a_body_of_a_gibibyte_without_a_length_is_cut_off_at_the_limit(connect):
    before = memory_bytes()
    client = connect(request("PUT", "/v1/schedules/a", b"", "Transfer-Encoding: chunked"))
    assert client.send_all(endless(1 << 30)) < 8_000_000
    assert "more than 1,048,576 bytes" in refusal(client, 413)
    assert memory_bytes() - before < 64_000_000


def test_a_body_that_is_not_asked_for_is_not_read(connect):
    client = connect(request("GET", "/v1/status", b"", "Transfer-Encoding: chunked"))
    assert client.send_all(endless(1 << 30)) < 8_000_000
    assert client.reply().status == 200
    assert client.is_closed()


def test_a_body_that_trickles_is_given_up(connect, monkeypatch):
    monkeypatch.setattr("cronally.admin.boundary.BODY_S", 0.05)
    client = connect(request("PUT", "/v1/schedules/a", b"{", "Content-Length: 100"))
    assert "did not come within" in refusal(client, 408)
    assert client.is_closed()


def test_a_body_that_ends_before_its_length_is_dropped(daemon, connect):
    client = connect(request("PUT", "/v1/schedules/a", json.dumps(DOCUMENT).encode(), "Content-Length: 999"))
    client.sock.shutdown(1)
    assert client.reply() is None
    assert connect(request("GET", "/v1/schedules/a")).reply().status == 404


def test_a_body_that_is_packed_is_not_unpacked(connect):
    client = connect(request("PUT", "/v1/schedules/a", b"\x1f\x8b\x08", "Content-Encoding: gzip"))
    assert "send it as it is" in refusal(client, 415)


def test_chunks_that_are_none_are_refused(connect):
    client = connect(request("PUT", "/v1/schedules/a", b"zz\r\n{}\r\n", "Transfer-Encoding: chunked"))
    refusal(client, 400)
    assert client.is_closed()


def test_bodies_that_are_still_coming_have_a_limit_together(daemon, connect, monkeypatch):
    monkeypatch.setattr("cronally.admin.connections.MAX_HELD_BYTES", 2_000_000)
    head = request("PUT", "/v1/schedules/a", b"", "Content-Length: 1000000")
    first, *others = (connect(head, b"x" * 900_000) for _ in range(3))
    assert first.is_closed()
    for client in others:
        client.send(b"x" * 100_000)
        refusal(client, 400)


def test_bodies_that_wait_their_turn_count_and_more_are_refused(daemon, connect, monkeypatch, blocked):
    monkeypatch.setattr("cronally.admin.connections.MAX_HELD_BYTES", 600_000)
    body = json.dumps(DOCUMENT | {"message": "x" * 250_000}).encode()
    for number in range(2):
        connect(request("PUT", "/v1/schedules/a", body))
        wait_for_work(daemon, number + 1)
    assert "large requests" in refusal(connect(request("PUT", "/v1/schedules/a", body)), 503)


def test_who_asks_little_is_answered_also_when_no_more_may_be_held(daemon, connect, monkeypatch, blocked):
    body = json.dumps(DOCUMENT | {"message": "x" * 250_000}).encode()
    for number in range(2):
        connect(request("PUT", "/v1/schedules/a", body))
        wait_for_work(daemon, number + 1)
    monkeypatch.setattr("cronally.admin.connections.MAX_HELD_BYTES", 400_000)
    assert connect(STATUS).reply().status == 200
    assert "large requests" in refusal(connect(request("PUT", "/v1/schedules/a", body)), 503)


def test_an_answer_for_which_there_is_no_room_says_so(daemon, connect, monkeypatch):
    daemon.add("large", message="x" * 100_000)
    monkeypatch.setattr("cronally.admin.connections.MAX_HELD_BYTES", 90_000)
    assert "large requests" in refusal(connect(request("GET", "/v1/schedules")), 503)


def test_an_answer_that_nobody_takes_is_given_up(daemon, connect, monkeypatch):
    monkeypatch.setattr("cronally.admin.boundary.ANSWER_S", 0.05)
    for number in range(4):
        daemon.add(f"s{number}", message="x" * 250_000)
    client = connect(request("GET", "/v1/schedules"))
    assert was_hung_up(client)


def was_hung_up(client):
    """Wait until the daemon has closed the connection, without reading anything."""
    poll = select.poll()
    poll.register(client.sock, select.POLLHUP)
    return bool(poll.poll(20_000))


# --- apply ------------------------------------------------------------------------------------------------------

APPLY = request("POST", "/v1/apply", b"", "Transfer-Encoding: chunked")


def line(name, **keys):
    return json.dumps({"name": name, **DOCUMENT, **keys}).encode() + b"\n"


def test_a_line_of_a_gibibyte_ends_the_apply(connect):
    before = memory_bytes()
    client = connect(APPLY)
    assert client.send_all(endless(1 << 30)) < 32_000_000
    assert "line 1 has more than 16,777,216 bytes" in refusal(client, 400)
    assert memory_bytes() - before < 64_000_000


def test_empty_lines_are_lines_and_have_a_limit(connect, monkeypatch):
    client = connect(APPLY, *chunked([b"\n" * 300_000 + line("a") + b"{\n"]))
    reply = client.reply()
    assert reply.status == 422
    assert [problem["line"] for problem in reply.plain["problems"]] == [300_002]
    monkeypatch.setattr("cronally.admin.requests.MAX_APPLY_LINES", 300_000)
    client = connect(APPLY)
    client.send_all(chunked([b"\n" * 100_000] * 1_000))
    assert "more than 300,000 lines" in refusal(client, 400)


def test_an_apply_has_a_limit_of_bytes_whether_it_says_so_or_not(connect, monkeypatch):
    client = connect(request("POST", "/v1/apply", b"", f"Content-Length: {1 << 40}"))
    assert "more than 4,294,967,296 bytes" in refusal(client, 413)
    monkeypatch.setattr("cronally.admin.requests.MAX_APPLY_BYTES", 10_000_000)
    client = connect(APPLY)
    client.send_all(chunked([line("a", note="n" * 400) * 1_000] * 1_000))
    assert "more than 10,000,000 bytes" in refusal(client, 400)


def test_of_many_problems_a_thousand_are_listed_and_all_are_counted(connect):
    client = connect(APPLY, *chunked([line("a") * 1_000] * 3))
    reply = client.reply()
    assert (reply.status, reply.plain["problem_count"], len(reply.plain["problems"])) == (422, 2_999, 1_000)


def test_lines_that_stop_coming_hold_back_nobody(daemon, connect):
    stalled = connect(APPLY, b"%x\r\n%s\r\n" % (len(line("a")), line("a")))
    body = json.dumps(DOCUMENT).encode()
    assert connect(request("PUT", "/v1/schedules/b", body)).reply().status == 201
    assert connect(APPLY, *chunked([line("c")])).reply().plain["created"] == 1
    stalled.send(b"0\r\n\r\n")
    assert stalled.reply().plain["created"] == 1


@pytest.mark.parametrize("size", [100, 5_000_000])
def test_lines_that_stop_coming_end_the_apply(connect, monkeypatch, size):
    for key in ("APPLY_STALL_S", "APPLY_PACE_S"):
        monkeypatch.setattr(f"cronally.admin.requests.{key}", 0.2)
    text = line("a", note="n" * 400) * (size // 400)
    client = connect(APPLY, b"%x\r\n" % (2 * size), text)
    assert "nothing was applied: the next lines did not come in time" in refusal(client, 408)


def test_few_applies_are_under_way_at_once(connect):
    first = [connect(APPLY) for _ in range(4)]
    for client in first:
        client.send(b"%x\r\n%s\r\n" % (len(line("a")), line("a")))
        connect(STATUS).reply()
    assert "4 applies are under way already" in refusal(connect(APPLY), 503)
    for client in first:
        client.send(b"0\r\n\r\n")
    outcomes = [client.reply().plain for client in first]
    assert sorted(plain["created"] for plain in outcomes) == [0, 0, 0, 1]


# --- connections ------------------------------------------------------------------------------------------------


def test_a_thousand_idle_connections_keep_nobody_out(daemon, connect):
    clients = [connect() for _ in range(1_000)]
    assert connect(STATUS).reply().status == 200
    with daemon.client() as client:
        assert client.status().is_ready
    assert daemon.server.connections.count <= connection_limit() <= MAX_CONNECTIONS
    assert clients[0].is_closed()
    clients[-1].send(STATUS)
    assert clients[-1].reply().status == 200


def test_a_thousand_requests_that_are_never_complete_keep_nobody_out(daemon, connect):
    head = b"PUT /v1/schedules/a HTTP/1.1\r\nHost: x\r\n"
    clients = [connect(head) for _ in range(500)]
    clients += [connect(head + b"Content-Length: 100\r\n\r\n{") for _ in range(500)]
    assert connect(STATUS).reply().status == 200
    assert clients[0].is_closed()
    assert daemon.server.connections.count <= MAX_CONNECTIONS


def test_of_those_that_wait_the_one_that_has_waited_longest_goes(daemon, connect, monkeypatch):
    monkeypatch.setattr(daemon.server.connections, "most", 2)
    first, second = connect(STATUS), connect(STATUS)
    assert (first.reply().status, second.reply().status) == (200, 200)
    first.send(STATUS)
    assert first.reply().status == 200
    third = connect(STATUS)
    assert third.reply().status == 200
    assert second.is_closed()
    first.send(STATUS)
    assert first.reply().status == 200


@pytest.fixture
def blocked(daemon):
    """Hold back all changes, as a long apply does."""
    lock = daemon.rig.engine.edits.lock
    daemon.call(lock.acquire())
    yield
    daemon.loop.call_soon_threadsafe(lock.release)


def test_requests_in_work_are_never_closed_and_more_are_refused(daemon, connect, monkeypatch, blocked):
    body = json.dumps(DOCUMENT).encode()
    clients = [connect(request("PUT", f"/v1/schedules/s{number}", body)) for number in range(3)]
    wait_for_work(daemon, 3)
    monkeypatch.setattr(daemon.server.connections, "most", 3)
    assert "as many requests in work as it takes" in refusal(connect(), 503)
    daemon.loop.call_soon_threadsafe(daemon.rig.engine.edits.lock.release)
    assert [client.reply().status for client in clients] == [201] * 3
    daemon.call(daemon.rig.engine.edits.lock.acquire())


def wait_for_work(daemon, count):
    """Return once so many requests are in work; meanwhile ask for something, so that the daemon's loop turns."""
    with RawClient(daemon.socket) as client:
        while daemon.server.connections.in_work_count < count:
            client.send(request("GET", "/healthz"))
            client.reply()


def test_changes_that_wait_do_not_hold_back_those_who_read(daemon, connect, blocked):
    body = json.dumps(DOCUMENT).encode()
    for number in range(20):
        connect(request("PUT", f"/v1/schedules/s{number}", body))
    wait_for_work(daemon, 20)
    assert connect(STATUS).reply().status == 200
    assert connect(request("GET", "/healthz")).reply().status == 200


def test_who_leaves_while_a_change_is_in_work_still_counts_and_gets_what_was_asked(daemon, connect, blocked):
    body = json.dumps(DOCUMENT).encode()
    for number in range(CHANGES_AT_ONCE):
        connect(request("PUT", f"/v1/schedules/s{number}", body)).sock.close()
        wait_for_work(daemon, number + 1)
    daemon.server.connections.most = CHANGES_AT_ONCE
    refusal(connect(), 503)
    daemon.loop.call_soon_threadsafe(daemon.rig.engine.edits.lock.release)
    while connect(request("GET", "/v1/schedules")).reply().status == 503:
        pass
    daemon.call(daemon.rig.engine.edits.lock.acquire())
    names = [
        schedule["name"] for schedule in connect(request("GET", "/v1/schedules")).reply().plain["schedules"]
    ]
    assert "s0" in names


def test_who_leaves_before_its_turn_leaves_nothing_behind(daemon, connect, blocked):
    body = json.dumps(DOCUMENT).encode()
    for number in range(20):
        clients = [connect(request("PUT", f"/v1/schedules/s{number}", body))]
        wait_for_work(daemon, min(number, CHANGES_AT_ONCE) + 1)
        if number >= CHANGES_AT_ONCE:
            clients[0].sock.close()
            while daemon.server.connections.in_work_count > CHANGES_AT_ONCE:
                connect(STATUS).reply()


def test_a_connection_without_a_request_is_closed_after_a_while(connect, monkeypatch):
    monkeypatch.setattr("cronally.admin.connections.IDLE_S", 0.05)
    for sent in (b"", b"GET /v1/status HT", b"GET /v1/status\r\n"):
        assert connect(sent).reply() is None
    client = connect(STATUS)
    assert client.reply().status == 200
    assert client.is_closed()


def test_our_client_waits_at_a_door_with_many_before_it(tmp_path):
    path = str(tmp_path / "x")
    with closing(bind_socket(path)) as listening, ExitStack() as stack:
        listening.listen(0)
        stack.enter_context(RawClient(path))
        client = stack.enter_context(Client(path))
        client._connection.timeout = 0.05
        with pytest.raises(DaemonUnreachable, match="temporarily unavailable"):
            client._connect(0.05)
        with ThreadPoolExecutor() as pool:
            connecting = pool.submit(client._connect, 20)
            listening.setblocking(True)
            listening.accept()[0].close()
            connecting.result(20)


def test_our_client_goes_on_after_its_idle_connection_was_closed(daemon, monkeypatch):
    monkeypatch.setattr("cronally.admin.connections.IDLE_S", 0.05)
    with daemon.client() as client:
        assert client.status().is_ready
        select.select([client._connection.sock], [], [], 20)
        assert client.status().is_ready


def test_a_quarter_of_few_descriptors_is_for_the_socket(monkeypatch):
    for limit, expected in ((1024, 256), (400, 100), (16, 8), (resource.RLIM_INFINITY, 256)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert connection_limit() == expected


def test_the_daemon_stops_although_a_client_never_ends_its_request(tmp_path):
    with running_daemon(tmp_path) as daemon, RawClient(daemon.socket, STATUS) as client:
        assert client.reply().status == 200
        client.send(request("PUT", "/v1/schedules/a", b"{", "Content-Length: 100"))


# --- what is no request -----------------------------------------------------------------------------------------

PUT = ("PUT", "/v1/schedules/a", json.dumps(DOCUMENT).encode())
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "part"),
    [
        (b"GET /v1/status\r\n\r\n", 400, "HTTP/1.1"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "HTTP/1.1"),
        (bytes.fromhex("16030102000100") + bytes(30), 400, "HTTPS"),
        (b"SSH-2.0-OpenSSH_9\r\n", 400, "no HTTP request"),
        (bytes(100), 400, "no HTTP request"),
        ("G\u202eT / HTTP/1.1\r\n\r\n".encode(), 400, "no HTTP request"),
        (b"get /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 400, "no HTTP request"),
        (b"GET /v1/schedules/\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400, "no HTTP request"),
        (request("GET", "/v1/schedules/\u202e"), 400, "no HTTP request"),
        (request("GET", "/v1/status", b"", "X: \0"), 400, "no HTTP request"),
        (request("GET", "/v1/status", b"", "X: a\nHost: b"), 400, "no HTTP request"),
        (request("GET", "http://[::1/v1/status"), 400, "no HTTP request"),
        (request("GET", "/" + "a" * 9_000), 431, "more than 8,190 bytes"),
        (b"GET /" + b"a" * 1_000_000, 431, "more than 8,190 bytes"),
        (request("GET", "/v1/status", b"", "X: " + "a" * 9_000), 431, "more than 8,190 bytes"),
        (request("GET", "/v1/status", b"", "a" * 9_000 + ": x"), 431, "more than 8,190 bytes"),
        (request("GET", "/v1/status", b"", *["X: a"] * MAX_HEADERS), 431, "more than 64 headers"),
        (request(*PUT[:2], CHUNKS, "Transfer-Encoding: chunked", "Content-Length: 4"), 400, "no HTTP"),
        (request(*PUT[:2], CHUNKS, "Content-Length: 4", "Transfer-Encoding: chunked"), 400, "no HTTP"),
        (request(*PUT[:2], CHUNKS, "Transfer-Encoding: chunked", "Transfer-Encoding: identity"), 400, "no HTTP"),
        (request(*PUT[:2], CHUNKS, "Transfer-Encoding: gzip"), 400, "no HTTP"),
        (request(*PUT, "Content-Length: 4", "Content-Length: 5"), 400, "no HTTP"),
        (request(*PUT, "Content-Length: -4"), 400, "no HTTP"),
        (request(*PUT, "Content-Length: " + "9" * 100), 400, "no HTTP"),
        (request(*PUT, "Expect: tea"), 417, "100-continue"),
        (request("CONNECT", "evil.example:80"), 404, "nothing at CONNECT"),
        (request("OPTIONS", "*"), 404, "nothing at OPTIONS"),
        (request("PATCH", "/v1/status"), 405, "takes GET, HEAD"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_said_to_be_none(connect, sent, status, part):
    client = connect()
    client.send_all([sent])
    assert part in refusal(client, status)


@pytest.mark.parametrize(
    "sent",
    [
        request("GET", "/v1/status", host="evil.example"),
        request("GET", "/v1/status", host="[::1"),
        request("GET", "http://evil.example/v1/status"),
        b"GET /v1/status HTTP/1.0\r\n\r\n",
        b"\r\n" * 1_000 + STATUS,
        request("GET", "/v1/status", b"", "Connection: Upgrade", "Upgrade: websocket"),
        request("GET", "/v1/status", b"", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"),
        request("GET", "/v1/status", b"{}", "Content-Type: multipart/form-data; boundary=\u202e"),
    ],
)  # fmt: skip
def test_what_does_not_matter_on_a_unix_socket_is_not_looked_at(connect, sent):
    assert connect(sent).reply().status == 200


def test_who_expects_to_be_told_to_go_on_is_told(connect):
    method, path, body = PUT
    client = connect(request(method, path, b"", "Expect: 100-continue", f"Content-Length: {len(body)}"))
    assert client.sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(body)
    assert client.reply().status == 201


def test_who_leaves_before_being_told_to_go_on_is_no_bug(daemon):
    # The daemon fixture looks at the log. Whether the answer finds the connection closed is chance: so, many times.
    for _ in range(200):
        with RawClient(daemon.socket, request(*PUT[:2], b"", "Expect: 100-continue", "Content-Length: 9")):
            pass


def test_pipelined_requests_are_answered_in_order(connect):
    names = [f"s{number}" for number in range(100)]
    client = connect(b"".join(request("GET", f"/v1/schedules/{name}") for name in names))
    assert [client.reply().reason.split("'")[1] for _ in names] == names


def test_garbage_behind_a_request_ends_the_connection(connect):
    client = connect(STATUS)
    assert client.reply().status == 200
    client.send(bytes(50))
    refusal(client, 400)
    assert client.is_closed()
    client = connect(STATUS + bytes(50))
    refusal(client, 400)
    assert client.is_closed()
