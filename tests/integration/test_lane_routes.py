"""The way to SNS: TLS, proxies, names. Settings are those of every AWS tool."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
from types import SimpleNamespace

import pytest

from cronally.clock import SystemClock
from cronally.engine.ports import OutcomeClass
from cronally.sns import dialer
from cronally.sns.credentials import Credentials
from cronally.sns.publisher import SnsPublisher
from support.certificates import Authority
from support.entries import batch
from support.fake_sns import ACCESS_KEY, SECRET_KEY, FakeSns
from support.raw_server import Proxy, RawServer
from support.settled import publish

PUBLISHED, RETRY, HOLD, REJECTED = OutcomeClass
CLOCK = SystemClock()
CREDENTIALS = Credentials.fixed(CLOCK, ACCESS_KEY, SECRET_KEY)  # shared: botocore reads its models once
VARIABLES = ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def localhost(authority):
    return authority.server("localhost")


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.fixture
async def send(monkeypatch):
    """Return a function that publishes *count* messages to whatever the environment names, and gives one outcome."""
    made = []

    async def sender(url=None, *, given=None, count=1, credentials=CREDENTIALS):
        if url is not None:
            monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", url)
        publisher = SnsPublisher(credentials, CLOCK, endpoint_url=given, connect_timeout_s=2)
        made.append(publisher)
        outcomes = await publish(publisher, CLOCK, *(batch(1, first=number) for number in range(count)))
        assert len(outcomes) == count
        return outcomes[0]

    yield sender
    for publisher in made:
        await publisher.close()


# --- TLS ---


@pytest.mark.parametrize("where", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "profile"])
async def test_the_ca_bundle_of_every_aws_tool_is_trusted(
    send, monkeypatch, tmp_path, authority, localhost, where
):
    if where == "profile":
        (tmp_path / "config").write_text(f"[default]\nca_bundle = {authority.bundle}\n")
    else:
        monkeypatch.setenv(where, str(authority.bundle))
    async with FakeSns(tls=localhost) as sns:
        fresh = Credentials.fixed(CLOCK, ACCESS_KEY, SECRET_KEY)  # profiles are read once
        outcome = await send(sns.url, count=3, credentials=fresh)
        assert (outcome.outcome, outcome.error) == (PUBLISHED, None)
        assert len(sns.received) == 3


async def test_a_certificate_of_nobody_is_refused_and_nothing_is_sent(send, localhost):
    async with FakeSns(tls=localhost) as sns:
        outcome = await send(sns.url)
        assert (outcome.outcome, outcome.is_unknown) == (RETRY, False)
        assert outcome.error.startswith("SSLCertVerificationError: the certificate of localhost:")
        assert "AWS_CA_BUNDLE" in outcome.error
        assert sns.requests == 0


async def test_a_certificate_for_another_host_is_refused(send, monkeypatch, authority):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    async with FakeSns(tls=authority.server("sns.example.com")) as sns:
        outcome = await send(sns.url)
        assert (outcome.outcome, outcome.is_unknown) == (RETRY, False)
        assert "Hostname mismatch" in outcome.error
        assert sns.requests == 0


async def test_a_ca_bundle_that_is_not_there_is_a_setting_to_repair(send, monkeypatch, tmp_path, localhost):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
    async with FakeSns(tls=localhost) as sns:
        outcome = await send(sns.url)
        assert (outcome.outcome, outcome.is_unknown) == (HOLD, False)
        assert "nothing.pem cannot be used" in outcome.error


async def never(_request, _writer):
    raise AssertionError("it was sent")


async def test_a_server_that_speaks_no_tls_is_retried_and_known(send):
    def say(writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with RawServer(never, on_connect=say) as server:
        outcome = await send(f"https://localhost:{server.port}")
        assert (outcome.outcome, outcome.is_unknown) == (RETRY, False)
        assert outcome.error.startswith("SSLError: cannot connect to localhost:")


async def test_a_handshake_that_is_never_answered_ends_in_time():
    async with RawServer(never) as server:
        publisher = SnsPublisher(
            CREDENTIALS,
            CLOCK,
            endpoint_url=f"https://127.0.0.1:{server.port}",
            connect_timeout_s=0.1,
        )
        [outcome] = await publish(publisher, CLOCK, batch(1))
        assert (outcome.outcome, outcome.is_unknown) == (RETRY, False)
        assert outcome.error.startswith("ConnectTimeoutError: no connection to 127.0.0.1:")
        await publisher.close()


# --- proxies ---


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_a_tunnel_is_dug_through_the_proxy(send, monkeypatch, authority, localhost, name, scheme):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    async with FakeSns(tls=localhost) as sns, Proxy() as proxy:
        monkeypatch.setenv(name, f"{scheme}127.0.0.1:{proxy.port}")
        outcome = await send(sns.url)
        assert (outcome.outcome, outcome.error) == (PUBLISHED, None)
        assert proxy.asked == [f"CONNECT localhost:{sns.port} HTTP/1.1"]
        assert proxy.authorizations == [None]


async def test_the_proxy_gets_its_password_and_sns_does_not(send, monkeypatch, authority, localhost):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    async with FakeSns(tls=localhost) as sns, Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:p%40ss@127.0.0.1:{proxy.port}")
        assert (await send(sns.url)).outcome is PUBLISHED
        assert proxy.authorizations == [f"Basic {base64.b64encode(b'user:p@ss').decode()}"]


async def test_a_proxy_that_is_spoken_to_over_tls(send, monkeypatch, authority, localhost):
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.bundle))
    async with FakeSns(tls=localhost) as sns, Proxy(tls=authority.server("127.0.0.1")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://127.0.0.1:{proxy.port}")
        outcome = await send(sns.url)
        assert (outcome.outcome, outcome.error) == (PUBLISHED, None)
        assert proxy.asked == [f"CONNECT localhost:{sns.port} HTTP/1.1"]


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "the proxy answered 'HTTP/1.1 407 Proxy Auth",
        ),
        (b"NONSENSE\r\n\r\n", "the proxy answered 'NONSENSE'"),
        (b"", "the proxy closed the connection"),
    ],
)
async def test_a_proxy_that_refuses_is_named(send, monkeypatch, localhost, refusal, error):
    async with FakeSns(tls=localhost) as sns, Proxy() as proxy:
        proxy.refusal = refusal
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        outcome = await send(sns.url)
        assert (outcome.outcome, outcome.is_unknown) == (RETRY, False)
        assert f"through the proxy 127.0.0.1:{proxy.port}" in outcome.error
        assert error in outcome.error
        assert sns.connections == 0


async def test_a_certificate_is_checked_behind_a_proxy_too(send, monkeypatch, localhost):
    async with FakeSns(tls=localhost) as sns, Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        outcome = await send(sns.url)
        assert (outcome.outcome, outcome.is_unknown) == (RETRY, False)
        assert "is not trusted" in outcome.error


async def test_plain_http_goes_to_its_proxy_with_the_whole_url(send, monkeypatch):
    async with FakeSns() as sns, Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://u:p@127.0.0.1:{proxy.port}")
        outcome = await send(f"http://localhost:{sns.port}")
        assert (outcome.outcome, outcome.error) == (PUBLISHED, None)
        assert proxy.asked == [f"POST http://localhost:{sns.port}/ HTTP/1.1"]
        assert proxy.authorizations == ["Basic dTpw"]


@pytest.mark.parametrize("value", ["localhost", "other,localhost", "*"])
async def test_no_proxy_is_obeyed(send, monkeypatch, value):
    async with FakeSns() as sns, Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", value)
        assert (await send(f"http://localhost:{sns.port}")).outcome is PUBLISHED
        assert proxy.asked == []


async def test_no_proxy_of_another_host_is_not_ours(send, monkeypatch):
    async with FakeSns() as sns, Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "example.com")
        assert (await send(f"http://localhost:{sns.port}")).outcome is PUBLISHED
        assert len(proxy.asked) == 1


async def test_a_server_named_to_us_is_reached_without_a_proxy(send, monkeypatch):
    async with FakeSns() as sns, Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert (await send(given=sns.url)).outcome is PUBLISHED
        assert proxy.asked == []


async def test_a_proxy_of_another_kind_is_a_setting_to_repair(send, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1080")
    outcome = await send("http://localhost:1")
    assert (outcome.outcome, outcome.is_unknown) == (HOLD, False)
    assert "must be written as http://HOST:PORT" in outcome.error


# --- what a request says of itself ---


async def test_a_path_of_the_endpoint_is_asked_for_and_signed(send):
    async with FakeSns() as sns:
        assert (await send(given=f"{sns.url}/some/where")).outcome is PUBLISHED


async def test_the_user_agent_is_the_one_of_the_aws_tools(send):
    async def answer(_request, writer):
        writer.write(b"HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\n")

    async with RawServer(answer) as server:
        await send(given=server.url)
        [request] = server.requests
        assert b"\r\nUser-Agent: aiobotocore/" in request
        assert b"\r\nAccept-Encoding: identity\r\n" in request


# --- names ---


class Remembering(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport


@pytest.fixture
def resolved(monkeypatch):
    """Return the list of names that were resolved, one each time."""
    asked = []
    resolve = dialer.Dialer._resolve

    async def noting(self):
        asked.append(self._route.host)
        return await resolve(self)

    monkeypatch.setattr(dialer.Dialer, "_resolve", noting)
    return asked


async def test_a_name_is_resolved_once_for_many_connections(send, resolved):
    async with FakeSns() as sns:
        await send(given=f"http://localhost:{sns.port}", count=20)
        assert sns.connections > 4
        assert resolved == ["localhost"]


async def test_a_name_is_resolved_again_after_a_failure(resolved):
    async with FakeSns() as sns:
        route = dialer.Route("localhost", sns.port)
        one = dialer.Dialer(route, CLOCK)
        await one._resolved()
    with pytest.raises(dialer.CannotConnect, match="cannot connect to localhost"):
        await one.dial(asyncio.Protocol)
    with pytest.raises(dialer.CannotConnect):
        await one.dial(asyncio.Protocol)
    assert resolved == ["localhost"] * 2
    await one.close()


async def test_that_no_descriptor_is_left_is_said_once_a_minute(monkeypatch, caplog):
    async def none_left(*_args, **_keys):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    clock = SimpleNamespace(mono=lambda: now_s)
    now_s = 100.0
    one = dialer.Dialer(dialer.Route("127.0.0.1", 1), clock)
    monkeypatch.setattr(dialer.Dialer, "_connect", none_left)
    for _ in range(3):
        with pytest.raises(dialer.CannotConnect, match="Too many open files"):
            await one.dial(asyncio.Protocol)
    [said] = caplog.messages
    assert "no file descriptor is left for a connection to 127.0.0.1:1" in said
    assert "LimitNOFILE" in said
    now_s += 61
    with pytest.raises(dialer.CannotConnect):
        await one.dial(asyncio.Protocol)
    assert caplog.messages == [said] * 2
    await one.close()


async def test_a_name_nobody_knows_is_retried_and_known(send):
    outcome = await send(given="http://nobody.invalid:1")
    assert (outcome.outcome, outcome.is_unknown) == (RETRY, False)
    assert "cannot connect to nobody.invalid:1" in outcome.error


async def test_a_host_that_is_no_name_is_retried_and_known(send):
    outcome = await send(given="http://a..b:1")
    assert (outcome.outcome, outcome.is_unknown) == (RETRY, False)
    assert "a..b" in outcome.error


async def test_an_address_that_leads_nowhere_is_passed_over_and_not_tried_again(monkeypatch):
    async with FakeSns() as sns:
        one = dialer.Dialer(dialer.Route("localhost", sns.port), CLOCK)
        one._addresses = ["127.0.0.1", "127.0.0.2"]
        one._resolved_at = CLOCK.mono()
        one._turn = 0
        for _ in range(2):
            protocol = await one.dial(Remembering)
            protocol.transport.abort()
        assert one._addresses == ["127.0.0.1"]
        await asyncio.sleep(0)
