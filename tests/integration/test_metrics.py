"""``/metrics``, on the admin socket and on a port."""

from __future__ import annotations

import http.client
import json
import socket

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from cronally.admin.limits import MAX_METRICS_CONNECTIONS, METRICS_PACE_S
from cronally.admin.listen import Listen
from cronally.admin.metrics_port import MetricsPort
from cronally.clock import SystemClock
from cronally.errors import CronallyError
from support.daemon import running_daemon
from support.fake_clock import FakeClock
from support.raw_client import RawClient, request

_TIMEOUT_S = 20.0


@pytest.fixture
def daemon(tmp_path):
    with running_daemon(tmp_path) as daemon:
        yield daemon


def served_at(daemon, listen, clock=None):
    # The daemon's clock stands still, and would have a second request wait for ever.
    return MetricsPort(daemon.server.metrics, daemon.reporting, clock or SystemClock(), listen=listen)


@pytest.fixture
def port(daemon):
    served = served_at(daemon, Listen("127.0.0.1", 0))
    daemon.call(served.start())
    yield served
    daemon.call(served.close())


def ask(port, path="/metrics", *, method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port.port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, body=body, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.headers.get("Content-Type"), reply.read().decode()
    finally:
        connection.close()


def samples(text, parse=parse_text):
    return {
        (one.name, *sorted(one.labels.items())): one.value for family in parse(text) for one in family.samples
    }


async def fire(daemon):
    await daemon.rig.clock.advance(60)


def test_a_scrape_tells_what_has_been(daemon, port):
    daemon.add("a")
    daemon.add("resting", paused=True)
    daemon.call(fire(daemon))
    status, kind, text = ask(port)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = samples(text)
    assert found[("cronally_ready",)] == 1
    fires = ("cronally_fires_total", ("kind", "scheduled"), ("reason", ""))
    assert found[*fires, ("state", "published")] == 1
    assert found[*fires, ("state", "expired")] == 0
    assert found["cronally_schedules", ("state", "active")] == 1
    assert found["cronally_schedules", ("state", "paused")] == 1
    assert found["cronally_fire_lateness_seconds_bucket", ("le", "0.0001")] == 1
    assert found[("cronally_fire_lateness_seconds_count",)] == 1
    assert found[("cronally_pending_fires",)] == 0
    assert found[("cronally_store_readable",)] == 1
    assert 'resting"' not in text  # no schedule is named


def test_openmetrics_is_spoken_to_whom_that_is_acceptable(daemon, port):
    accept = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5"
    status, kind, text = ask(port, Accept=accept)
    assert (status, kind) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert text.endswith("# EOF\n")
    assert text.count("# EOF") == 1
    assert samples(text, parse_openmetrics).keys() == samples(ask(port)[2]).keys()


def test_the_admin_socket_has_them_too(daemon):
    connection = RawClient(daemon.socket, request("GET", "/metrics"))
    with connection:
        head = connection._until(b"\r\n\r\n").decode()
        assert head.startswith("HTTP/1.1 200 ")
        assert "cronally_ready 1.0" in connection._exactly(connection_length(head)).decode()


def connection_length(head):
    return int(next(line for line in head.split("\r\n") if line.lower().startswith("content-length:"))[15:])


def test_they_are_made_once_a_second_however_many_ask(daemon, port):
    before = ask(port)[2]
    daemon.add("a")
    assert ask(port)[2] == before
    daemon.call(daemon.rig.clock.advance(1))
    assert samples(ask(port)[2])["cronally_schedules", ("state", "active")] == 1


def test_the_port_says_whether_the_daemon_is_ready(daemon, port):
    assert ask(port, "/healthz")[::2] == (200, '{"ok": true}\n')
    assert ask(port, "/readyz")[0] == 200
    daemon.reporting.set_ready("it is stopping")
    status, _, text = ask(port, "/readyz")
    assert (status, json.loads(text)["because"]) == (503, "it is stopping")
    daemon.call(daemon.rig.clock.advance(2))
    assert samples(ask(port)[2])[("cronally_ready",)] == 0


def test_what_only_reads_says_so(port):
    connection = http.client.HTTPConnection("127.0.0.1", port.port, timeout=_TIMEOUT_S)
    connection.request("POST", "/metrics")
    assert connection.getresponse().headers["Allow"] == "GET"
    connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/schedules", 404),
        ("GET", "/v1/status", 404),
        ("GET", "/metrics/", 404),
        ("POST", "/metrics", 405),
        ("PUT", "/v1/schedules/a", 405),
        ("DELETE", "/v1/schedules/a", 405),
        ("HEAD", "/metrics", 405),
        ("OPTIONS", "/metrics", 405),
    ],
)
def test_the_port_has_nothing_else(daemon, port, method, path, status):
    daemon.add("a")
    assert ask(port, path, method=method, body="{}" if method in {"POST", "PUT"} else None)[0] == status
    assert daemon.call(daemon.service.get("a")).stored.revision == 1


@pytest.mark.parametrize(
    "host", ["localhost:9464", "LOCALHOST", "127.0.0.1", "127.0.0.1:1", "[::1]:9464", "[::1]"]
)
def test_who_names_this_machine_is_answered(daemon, port, host):
    assert ask(port, Host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9464",
        "localhost.evil.example",
        "127.0.0.1.evil.example:80",
        "10.0.0.1",
        "",
        "localhost:x",
        "[::2]",
        "::1",
    ],
)
def test_a_name_that_was_pointed_here_is_refused(daemon, port, host):
    status, _, text = ask(port, Host=host)
    assert status == 403
    assert "Host has to name this machine" in text


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: evil.example\r\n"])
def test_a_request_with_no_host_or_two_is_refused(daemon, port, hosts):
    with socket.create_connection(("127.0.0.1", port.port), timeout=_TIMEOUT_S) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
        assert b" 40" in connection.recv(100)


def test_connections_that_ask_nothing_keep_nobody_out(daemon, port):
    idle = [socket.create_connection(("127.0.0.1", port.port)) for _ in range(5 * MAX_METRICS_CONNECTIONS)]
    try:
        assert ask(port, "/healthz")[0] == 200
        assert port.connections.count <= MAX_METRICS_CONNECTIONS
        with daemon.client() as client:
            assert client.status().schedules == 0  # and none of the admin socket's is taken
    finally:
        for one in idle:
            one.close()


def test_requests_that_come_too_fast_wait_refused_ones_too(daemon):
    clock = FakeClock()
    served = served_at(daemon, Listen("127.0.0.1", 0), clock)
    daemon.call(served.start())
    assert ask(served, "/healthz")[0] == 200
    with socket.create_connection(("127.0.0.1", served.port), timeout=_TIMEOUT_S) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        while not served._turns.locked():
            daemon.call(clock.settle())
        connection.setblocking(False)
        with pytest.raises(BlockingIOError):
            connection.recv(1)
        connection.settimeout(_TIMEOUT_S)
        daemon.call(clock.advance(METRICS_PACE_S))
        assert connection.recv(100).startswith(b"HTTP/1.1 403 ")
    daemon.call(served.close())


def test_who_leaves_before_the_request_had_its_turn_leaves_nothing_behind(daemon):
    clock = FakeClock()
    served = served_at(daemon, Listen("127.0.0.1", 0), clock)
    daemon.call(served.start())
    assert ask(served, "/healthz")[0] == 200
    sent = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"

    async def waiting():
        await clock.settle()
        return len(served._turns._waiters or ())

    with socket.create_connection(("127.0.0.1", served.port), timeout=_TIMEOUT_S) as first:
        first.sendall(sent)
        while not served._turns.locked():
            daemon.call(clock.settle())
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", served.port), timeout=_TIMEOUT_S) as hasty:
                hasty.sendall(sent)
                while not daemon.call(waiting()):
                    pass
            while served.connections.count > 1:
                daemon.call(clock.settle())
            assert daemon.call(waiting()) == 0
    daemon.call(clock.advance(1))
    assert ask(served, "/healthz")[0] == 200
    daemon.call(served.close())


def test_a_port_in_use_is_said_to_be(daemon, port):
    second = served_at(daemon, Listen("127.0.0.1", port.port))
    with pytest.raises(
        CronallyError, match=rf"metrics.listen: nobody can listen on 127.0.0.1:{port.port} \(Addr"
    ):
        daemon.call(second.start())
    assert CronallyError.exit_code == 1


def test_ipv6_is_spoken(daemon):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    served = served_at(daemon, Listen("::1", 0))
    try:
        daemon.call(served.start())
    except CronallyError as exc:
        pytest.skip(str(exc))
    connection = http.client.HTTPConnection("::1", served.port, timeout=_TIMEOUT_S)
    connection.request("GET", "/healthz")
    assert connection.getresponse().status == 200
    connection.close()
    daemon.call(served.close())


def test_metrics_are_answered_while_the_store_is_not(daemon, port, monkeypatch):
    from cronally.errors import StoreError

    async def refuse(**_):
        raise StoreError("the disk is gone")

    monkeypatch.setattr(daemon.rig.store, "counts", refuse)
    found = samples(ask(port)[2])
    assert found[("cronally_store_readable",)] == 0
    assert ("cronally_pending_fires",) not in found
