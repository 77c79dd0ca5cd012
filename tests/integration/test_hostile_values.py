"""Hostile values in well-formed requests: every field, every parameter, every name in a path."""

import json
import os
import re
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cronally.domain.spec import DOCUMENT_KEYS
from support.daemon import running_daemon
from support.raw_client import RawClient, request
from support.rig import TOPIC

DOCUMENT = {"when": "0 9 * * *", "tz": "Europe/London", "topic": TOPIC}
UNPRINTABLE = ["\0", "\n", "\x1b[2J", "\x85", "\u2028", "\u202e", "\ud800", "\ufeff", "\U000e0001"]
PATHS = ["../etc/passwd", "/etc/passwd", "..", ".", "//", "a/../b", "posixrules", "Europe/../UTC", "C:\\x"]
LONG = ["x" * 10_000, "9" * 5_000, "é" * 5_000]
HOSTILE = [
    *UNPRINTABLE,
    *(f"a{text}b" for text in UNPRINTABLE),
    *PATHS,
    *LONG,
    "",
    " ",
    "%00",
    "$(id)",
    "'; --",
]

LIMIT_CHARS = 1_200  # of a reason: the longest names all keys of a document


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    with running_daemon(tmp_path_factory.mktemp("hostile")) as running:
        running.add("z", tz="Europe/London")
        yield running


@pytest.fixture
def ask(daemon, caplog):
    def ask(*parts):
        with RawClient(daemon.socket) as client:
            client.send_all([request(*parts)])
            reply = client.reply()
            check(reply)
            return reply

    yield ask
    bad = [record.getMessage() for record in caplog.records if record.levelname not in {"INFO", "DEBUG"}]
    assert bad == []


def check(reply):
    """Whatever was asked, the answer is one of ours: no bug, and a refusal has a reason in one sentence."""
    assert reply is not None
    assert reply.status < 500, reply
    assert reply.headers["cronally-wire"] == "1"
    if reply.status >= 400 and "error" in reply.plain:
        assert 0 < len(reply.reason) <= LIMIT_CHARS, reply.reason
        assert reply.reason.isprintable()


def put(ask, name, document):
    body = json.dumps(document).encode()
    reply = ask("PUT", f"/v1/schedules/{name}", body)
    if reply.status < 300:  # what was accepted can be shown, by itself and among others
        assert ask("GET", f"/v1/schedules/{name}?fires=5").status == 200
        assert ask("GET", "/v1/schedules?limit=1000").status == 200
        assert ask("DELETE", f"/v1/schedules/{name}").status == 200
    return reply


# --- names, zones, parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["", "/run", "/pause", "/resume", "/next", "/why?at=1970-01-01T00:00:00Z"])
def test_no_such_name_names_a_schedule(ask, action):
    body = json.dumps(DOCUMENT).encode()
    for name in [text for text in HOSTILE if text not in {"", "posixrules"}]:
        path = f"/v1/schedules/{quote(name, safe='', errors='surrogatepass')}{action}"
        for method in ("GET", "DELETE", "POST", "PUT"):
            assert ask(method, path, body if method == "PUT" else b"").status in {400, 404, 405, 431}


@pytest.mark.parametrize("path", ["../etc/passwd", "%2e%2e", "%2e%2e%2fetc%2fpasswd", "/", "a/b/c", "a//next", "%00", "a%2fnext", "%zz", "%"])  # fmt: skip
def test_no_path_leads_out(ask, path):
    for method in ("GET", "PUT", "DELETE"):
        assert ask(method, f"/v1/schedules/{path}", b"{}" if method == "PUT" else b"").status in {
            400,
            404,
            405,
        }


def test_no_such_zone_is_looked_for_on_the_disk(ask):
    for zone in HOSTILE:
        reply = put(ask, "a", DOCUMENT | {"tz": zone})
        assert reply.status == 400
        assert "unknown time zone" in reply.reason or "surrogate" in reply.reason


@pytest.mark.parametrize("key", [*DOCUMENT_KEYS, "attributes.value", "pause.note", "pause.until", "unknown"])
def test_no_value_of_any_field_is_a_bug(ask, key):
    for value in (*HOSTILE, 10**4_299, -1, 1e308, True, [], {}, ["\0"], {"until": "\u202e"}):
        if key.startswith("pause."):
            ask("POST", "/v1/schedules/z/pause", json.dumps({key[6:]: value}).encode())
            ask("GET", "/v1/schedules")
            ask("POST", "/v1/schedules/z/resume")
        elif key == "attributes.value":
            put(ask, "a", DOCUMENT | {"attributes": {"k": value}})
        elif key == "unknown":
            put(ask, "a", DOCUMENT | {str(value)[:1_000]: 1})
        else:
            put(ask, "a", DOCUMENT | {key: value})


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/v1/schedules", "after"),
        ("/v1/schedules", "limit"),
        ("/v1/fires", "schedule"),
        ("/v1/fires", "state"),
        ("/v1/fires", "reason"),
        ("/v1/fires", "since"),
        ("/v1/fires", "before"),
        ("/v1/fires", "unknown"),
        ("/v1/schedules/z/next", "after"),
        ("/v1/schedules/z/why", "at"),
        ("/v1/apply", "owner"),
    ],
)
def test_no_parameter_is_a_bug(ask, path, key):
    method = "POST" if path == "/v1/apply" else "GET"
    for value in HOSTILE:
        ask(method, f"{path}?{key}={quote(value, safe='', errors='surrogatepass')}")


@pytest.mark.parametrize("header", ["Idempotency-Key", "If-Match", "If-None-Match", "Cronally-Wire"])
@pytest.mark.parametrize(
    "value", ["\u202e", "\x85", "9" * 5_000, '"' + "9" * 30 + '"', "*", '"1", "2"', 'W/"1"']
)
def test_no_header_is_a_bug(ask, header, value):
    ask("PUT", "/v1/schedules/z", json.dumps(DOCUMENT).encode(), f"{header}: {value}")
    ask("POST", "/v1/schedules/z/run", b"", f"{header}: {value}")


# --- instants at the ends of time -------------------------------------------------------------------------------

ENDS = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "0001-01-01T00:00",
    "9999-12-31T23:59:59.999Z",
    "9999-12-31T23:59:59-23:59",
    "9999-12-31T23:59",
    "1970-01-01T00:00:00Z",
    "999999d",
    "999999d99999999h999999999m9999999999s",
]


@pytest.mark.parametrize("instant", ENDS)
@pytest.mark.parametrize(
    "when", ["0 9 * * *", "@every 1s", "*/7 * * 2 *", f"@at {ENDS[3]}", "@at 9999-12-31T23:59"]
)
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles"])
def test_no_instant_is_a_bug(ask, instant, when, zone):
    document = DOCUMENT | {"when": when, "tz": zone}
    for key in ("starts", "ends"):
        put(ask, "a", document | {key: instant})
    put(ask, "a", document | {"paused": {"until": instant}})
    ask("PUT", "/v1/schedules/b", json.dumps(document).encode())
    at = quote(instant)
    ask("GET", f"/v1/schedules/b/next?count=3&after={at}")
    ask("GET", f"/v1/schedules/b/why?at={at}")
    ask("GET", f"/v1/fires?since={at}&until={at}")
    ask("POST", "/v1/schedules/b/pause", json.dumps({"until": instant}).encode())
    ask("GET", "/v1/schedules/b")
    ask("GET", f"/v1/schedules/b/why?at={at}")
    ask("DELETE", "/v1/schedules/b")


# --- JSON -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b'{"when":' + b"[" * 20_000, "nested too deeply"),
        (b'{"when":' + b"[" * 100_000, "characters outside"),
        (b'{"a":' * 100_000, "texts"),
        (b'{"when": ' + b"9" * 5_000 + b"}", "not JSON"),
        (json.dumps(DOCUMENT).encode()[:-1] + b', "name": "a", "priority": 1e999}', "priority"),
        (b'{"priority": -Infinity}', "no JSON number"),
        (b'{"when": "a", "when": "b"}', "is there twice"),
        (b'{"when": "a", "wh\\u0065n": "b"}', "is there twice"),
        (json.dumps(DOCUMENT).encode("utf-16"), "not UTF-8"),
        (json.dumps(DOCUMENT).encode("utf-16-le"), "not JSON"),
        (json.dumps(DOCUMENT).encode("utf-8-sig"), "byte order mark"),
        (b'{"note": "\xff"}', "not UTF-8"),
        (b'{"note": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"note": "\x00"}', "not JSON"),
        (b"{'when': 1}", "not JSON"),
        (b"null", "must be a JSON object"),
        (b'"' + b"x" * 1_000_000 + b'"', "must be a JSON object"),
        (b"when=0+9+*+*+*&topic=x", "not JSON"),
    ],
)  # fmt: skip
def test_what_is_no_document_is_refused(ask, body, part):
    assert part in ask("PUT", "/v1/schedules/a", body).reason
    reply = ask("POST", "/v1/apply", body)
    assert reply.status == 422
    assert len(reply.plain["problems"][0]["reason"]) <= LIMIT_CHARS


# --- by chance --------------------------------------------------------------------------------------------------

texts = st.one_of(
    st.sampled_from(HOSTILE[:-3]),
    st.text(max_size=30),
    st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Nd"]), max_size=10),
    st.sampled_from(["@every 1s", "@at 9999-12-31T23:59Z", "H H(0-7) * * *", "0 0 29 2 *", "90s", "1d", ENDS[3]]),
    st.lists(
        st.text("0123456789*/,-LW#?HhJANmonfri @", max_size=6), min_size=4, max_size=7
    ).map(" ".join),
)  # fmt: skip
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
documents = st.tuples(
    st.fixed_dictionaries({}, optional={key: st.just(value) for key, value in DOCUMENT.items()}),
    st.dictionaries(st.sampled_from(DOCUMENT_KEYS) | texts, values, max_size=5),
).map(lambda pair: pair[0] | pair[1])
requests = st.one_of(
    st.binary(max_size=200),
    st.builds(
        lambda method, path, header, body, cut: (
            b"%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n%s" % (method, path, header, body)
        )[: len(body) + cut],
        st.sampled_from([b"GET", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"\xff"]),
        st.sampled_from([b"/", b"/v1/schedules", b"/v1/schedules/a", b"/v1/apply", b"/v1/fires?before=1", b"*", b"a:1"])
        | st.binary(max_size=20),
        st.sampled_from(
            [
                b"X: y",
                b"Transfer-Encoding: chunked",
                b"Content-Length: 5",
                b"Content-Length: 5\r\nTransfer-Encoding: chunked",
                b"Content-Encoding: gzip\r\nContent-Length: 3",
                b"Connection: Upgrade\r\nUpgrade: websocket",
                b"Expect: 100-continue",
            ]
        )
        | st.binary(max_size=20),
        st.sampled_from([b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"5\r\n", b"\r\n" * 5]) | st.binary(max_size=30),
        st.integers(0, 200),
    ),
)  # fmt: skip
by_chance = settings(
    max_examples=int(os.environ.get("CASES", "150")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize="CASES" not in os.environ,
)


@by_chance
@given(document=documents)
@example(document=DOCUMENT | {"paused": {"until": "9999-12-31T23:59:59.999Z"}})
def test_no_document_is_a_bug(ask, document):
    put(ask, "fuzz", document)


@by_chance
@given(sent=requests)
def test_no_bytes_are_a_bug_and_none_hang(daemon, sent, caplog):
    with RawClient(daemon.socket) as client:
        client.send_all([sent])
        client.sock.shutdown(1)  # nothing more will come: then the daemon has to end it
        while (reply := client.reply()) is not None:
            assert reply.status < 500, reply
    assert not re.search("bug|Traceback", caplog.text)
