"""The real server and the real client on a real Unix socket."""

import asyncio
import json
import os
import socket
import stat
from contextlib import closing, suppress

import pytest

from cronally.admin import wire
from cronally.admin.client import Client, _UnixConnection
from cronally.admin.requests import read_lines
from cronally.admin.server import AdminServer
from cronally.admin.unix_socket import bind_socket
from cronally.errors import (
    AdminError,
    Conflict,
    CronallyError,
    DaemonUnreachable,
    FieldError,
    FireNotFound,
    InternalError,
    NotReady,
    RevisionConflict,
    ScheduleNotFound,
    StoreBusy,
    UsageError,
    WhenError,
)
from cronally.instants import parse_rfc3339
from support.daemon import running_daemon
from support.rig import TOPIC

DOCUMENT = {"when": "0 9 * * *", "topic": TOPIC}


@pytest.fixture
def daemon(tmp_path):
    with running_daemon(tmp_path) as running:
        yield running


@pytest.fixture
def client(daemon):
    with daemon.client() as connected:
        yield connected


def raw(daemon, method, path, body=None, headers=None):
    """Return status, headers and JSON of a request as any HTTP client would make it."""
    with closing(_UnixConnection(daemon.socket, timeout=20)) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent
            connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())


def failing(monkeypatch, daemon, method, error):
    async def fail(*_, **__):
        raise error

    monkeypatch.setattr(daemon.service, method, fail)


# --- the socket -------------------------------------------------------------------------------------------------


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o022, 0o077, 0o000])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_socket_and_directory_are_for_owner_and_group(tmp_path, umask):
    with closing(bind_socket(str(tmp_path / "run/cronally/x.sock"))):
        assert mode(tmp_path / "run/cronally/x.sock") == 0o660
        assert mode(tmp_path / "run/cronally") == 0o750


def test_a_directory_that_is_there_keeps_its_mode(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    with closing(bind_socket(str(directory / "x.sock"))):
        assert mode(directory) == 0o700


def test_a_leftover_socket_is_replaced(tmp_path):
    path = str(tmp_path / "x.sock")
    bind_socket(path).close()
    with closing(bind_socket(path)), closing(socket.socket(socket.AF_UNIX)) as probe:
        probe.connect(path)


def test_a_socket_on_which_somebody_listens_is_not_touched(tmp_path):
    path = str(tmp_path / "x.sock")
    with closing(bind_socket(path)), closing(socket.socket(socket.AF_UNIX)) as probe:
        with pytest.raises(CronallyError, match="another daemon answers") as caught:
            bind_socket(path)
        assert caught.value.exit_code == 1
        probe.connect(path)


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_never_removed(tmp_path, kind):
    path = tmp_path / "x.sock"
    {"file": path.touch, "directory": path.mkdir, "link": lambda: path.symlink_to("nowhere")}[kind]()
    with pytest.raises(CronallyError, match="is no socket"):
        bind_socket(str(path))
    assert os.path.lexists(path)


def test_a_path_that_cannot_be_made_is_said_to_be_so(tmp_path):
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(CronallyError, match=r"cannot be made: .*; make .* writable") as caught:
            bind_socket(str(directory / "x.sock"))
        assert caught.value.exit_code == 1


def test_a_path_that_is_too_long_is_bad_input(tmp_path):
    with pytest.raises(UsageError, match="at most 107") as caught:
        bind_socket(str(tmp_path / ("x" * 108)))
    assert caught.value.exit_code == 2


async def test_close_leaves_a_socket_that_another_daemon_has_put_there(tmp_path):
    path = tmp_path / "x.sock"
    server = AdminServer(None, None, None, socket_path=str(path))
    await server.start()
    path.unlink()
    with closing(bind_socket(str(path))):
        await server.close()
        assert path.exists()
    await server.close()


async def test_close_removes_the_socket(tmp_path):
    path = tmp_path / "x.sock"
    server = AdminServer(None, None, None, socket_path=str(path))
    await server.start()
    await server.close()
    assert not path.exists()


# --- calls ------------------------------------------------------------------------------------------------------


def test_a_schedule_from_creation_to_removal(daemon, client):
    made = client.put("nightly", DOCUMENT | {"tz": "Europe/London"}, create_only=True)
    assert made.outcome == "created"
    assert made.schedule.next_fires == [
        "2026-11-23T09:00:00Z",
        "2026-11-24T09:00:00Z",
        "2026-11-25T09:00:00Z",
    ]
    assert made.schedule.next_fire == made.schedule.next_fires[0]
    assert (made.schedule.revision, made.schedule.deadline, made.schedule.attributes) == (1, "1d", {})

    assert client.put("nightly", DOCUMENT | {"tz": "Europe/London"}, create_only=True).outcome == "unchanged"
    with pytest.raises(Conflict, match="cronally set nightly"):
        client.put("nightly", DOCUMENT, create_only=True)
    assert client.put("nightly", DOCUMENT, if_revision=1).outcome == "changed"
    with pytest.raises(RevisionConflict) as caught:
        client.put("nightly", DOCUMENT, if_revision=1)
    assert (caught.value.expected, caught.value.found) == (1, 2)

    paused = client.pause("nightly", until="2h", note="moving")
    assert paused.schedule.paused == {
        "since": "2026-11-23T08:59:30Z",
        "until": "2026-11-23T10:59:30Z",
        "note": "moving",
        "by": paused.schedule.paused["by"],
    }
    assert paused.schedule.paused["by"].startswith(f"uid {os.getuid()}")
    assert client.resume("nightly").paused is False

    fire_id = client.run("nightly", idempotency_key="k")
    assert client.run("nightly", idempotency_key="k") == fire_id
    assert client.run("nightly") != fire_id
    assert fire_id in [fire.fire_id for fire in client.fires(schedule="nightly").fires]

    span = {"from_": "2026-11-21T00:00", "until": "2026-11-22T12:00:00Z"}
    assert client.backfill("nightly", **span, dry_run=True, idempotency_key="k").backfilled == 2
    done = client.backfill("nightly", **span, most=2, idempotency_key="k")
    assert (done.slots, done.backfilled, done.already) == (2, 2, 0)
    assert client.backfill("nightly", **span, idempotency_key="k") == done
    assert client.backfill("nightly", **span).already == 2
    daemon.call(daemon.rig.clock.advance(1))
    for id_ in (*done.fires, fire_id):
        with pytest.raises(Conflict, match="published"):
            client.retry([id_])
    with pytest.raises(FireNotFound):
        client.retry(["nightly@2026-11-21T09:00:00Z"], dry_run=True)

    assert client.next("nightly", after="2026-12-01T00:00:00Z", count=1).fires == ["2026-12-01T09:00:00Z"]
    assert client.remove("nightly").name == "nightly"
    with pytest.raises(ScheduleNotFound):
        client.schedule("nightly")
    assert client.fires(schedule="nightly").fires


def test_etag_and_status_of_creation(daemon):
    body = json.dumps(DOCUMENT)
    status, headers, plain = raw(daemon, "PUT", "/v1/schedules/a", body)
    assert (status, headers["ETag"], headers["Cronally-Wire"], plain["outcome"]) == (
        201,
        '"1"',
        "1",
        "created",
    )
    assert raw(daemon, "PUT", "/v1/schedules/a", body, {"If-Match": "1"})[0] == 200
    assert raw(daemon, "PUT", "/v1/schedules/a", body, {"If-Match": '"7"'})[0] == 412
    assert raw(daemon, "GET", "/v1/schedules/a")[1]["ETag"] == '"1"'
    other = json.dumps(DOCUMENT | {"note": "n"})
    assert raw(daemon, "PUT", "/v1/schedules/a", other, {"If-None-Match": "*"})[0] == 409


def test_pages(daemon, client):
    for number in range(7):
        daemon.add(f"s{number}")
    page = client.schedule_pages()
    assert [s["name"] for s in next(page)["schedules"]] == [f"s{number}" for number in range(7)]
    _, _, first = raw(daemon, "GET", "/v1/schedules?limit=3")
    assert ([s["name"] for s in first["schedules"]], first["next"]) == (["s0", "s1", "s2"], "s2")
    _, _, last = raw(daemon, "GET", "/v1/schedules?limit=3&after=s5")
    assert ([s["name"] for s in last["schedules"]], last["next"]) == (["s6"], None)
    for number in range(5):
        client.run(f"s{number}")
    seen, before = [], None
    while True:
        fires = client.fires(limit="2", before=before)
        seen += [fire.fire_id for fire in fires.fires]
        before = fires.next
        if before is None:
            break
    assert len(seen) == len(set(seen)) == 5


def test_a_page_of_long_messages_ends_early_and_goes_on(daemon, client):
    for number in range(20):
        daemon.add(f"s{number:02}", message="x" * 250_000)
    pages = list(client.schedule_pages())
    assert len(pages) > 1
    assert [s["name"] for page in pages for s in page["schedules"]] == [
        f"s{number:02}" for number in range(20)
    ]


def test_filters_of_the_journal(daemon, client):
    daemon.add("a")
    fire_id = client.run("a")
    assert [fire.fire_id for fire in client.fires(state="pending,published", since="1h").fires] == [fire_id]
    assert client.fires(state="expired").fires == []
    assert client.fires(until="2026-11-23T00:00:00Z").fires == []
    with pytest.raises(ScheduleNotFound):
        client.fires(schedule="never")


def test_a_pause_that_goes_on_is_listed_however_long_ago_it_began(daemon, client):
    daemon.add("a", when="* * * * *")
    client.pause("a")
    daemon.call(daemon.rig.clock.advance(7200))
    [fire] = client.fires(since="10m").fires
    assert (fire.reason, fire.count, fire.last_fire_time) == ("paused", 120, "2026-11-23T10:59:00Z")
    assert client.fires(since="10m", reason="paused", until="5m").fires == [fire]
    assert client.fires(since="10m", state="published,pending").fires == []


def test_the_topics_in_use_come_in_pages(daemon, client):
    for number in range(3):
        daemon.add(f"s{number}", topic=f"{TOPIC}-{number}")
    daemon.add("other", topic=f"{TOPIC}-0")
    status, _, page = raw(daemon, "GET", "/v1/topics?limit=2")
    assert (status, page["next"]) == (200, f"{TOPIC}-1")
    assert [(one["topic"], one["schedules"]) for one in page["topics"]] == [
        (f"{TOPIC}-0", 2),
        (f"{TOPIC}-1", 1),
    ]
    _, _, rest = raw(daemon, "GET", f"/v1/topics?limit=2&after={page['next']}")
    assert [one["topic"] for one in rest["topics"]] == [f"{TOPIC}-2"]
    assert rest["next"] is None
    assert client.topics() == [wire.Topic(**one) for one in page["topics"] + rest["topics"]]


def test_status_and_probes(daemon, client, monkeypatch):
    daemon.add("a")
    status = client.status()
    assert (status.is_ready, status.schedules, status.next_fire) == (True, 1, "2026-11-23T09:00:00Z")
    assert set(status.journal) == {"published", "pending", "skipped", "expired", "rejected"}
    assert (status.journal_keep, status.journal_max_bytes, status.pruned_through) == ("30d", 2 << 30, None)
    daemon.rig.engine.core.pruned_through = parse_rfc3339("2026-10-24T00:00:00Z")
    assert client.status().pruned_through == "2026-10-24T00:00:00Z"
    assert raw(daemon, "GET", "/healthz")[0] == 200
    assert raw(daemon, "GET", "/readyz")[0] == 200
    daemon.reporting.set_ready("it is stopping")
    assert raw(daemon, "GET", "/readyz")[::2] == (503, {"ready": False, "because": "it is stopping"})
    with pytest.raises(NotReady, match="it is stopping"):
        client.run("a")
    assert client.schedule("a").name == "a"


@pytest.mark.parametrize(
    ("until", "part"),
    [
        ("1d", "=2026-11-24T08:59:30Z"),
        ("2026-11-24T00:00:00+01:00", "=2026-11-23T23:00:00Z"),
        ("tomorrow 9:00", "=2026-11-24T14:00:00Z"),
        ("18:00", "=2026-11-23T23:00:00Z"),
        ("2026-12-01", "=2026-12-01T05:00:00Z"),
        ("yesterday", "past"),
        ("", "until: '' is no instant"),
        ("0s", "past"),
        ("2020-01-01T00:00:00Z", "past"),
    ],
)
def test_the_end_of_a_pause_is_in_the_zone_of_the_schedule(daemon, client, until, part):
    daemon.add("a", tz="America/New_York")
    if part.startswith("="):
        assert client.pause("a", until=until).schedule.paused["until"] == part[1:]
        return
    with pytest.raises(UsageError, match=part):
        client.pause("a", until=until)
    assert client.schedule("a").paused is False


def test_many_are_changed_in_one_request_of_which_each_refused_one_is_told(daemon, client):
    for name in ("a", "b", "c"):
        daemon.add(name, tz="America/New_York")
    [reply] = client.many("pause", ["a", "none", "b", "a"], until="tomorrow 9:00", note="rest")
    assert [(one["name"], one["pending"]) for one in reply.done] == [("a", 0), ("b", 0)]
    assert {one["schedule"]["paused"]["until"] for one in reply.done} == {"2026-11-24T14:00:00Z"}
    assert [(one["name"], one["error"]["kind"]) for one in reply.refused] == [("none", "ScheduleNotFound")]
    [reply] = client.many("pause", ["c"], until="yesterday")
    assert "is past" in reply.refused[0]["error"]["message"]
    assert client.schedule("c").paused is False
    [reply] = client.many("resume", ["a", "c"])
    assert [one["schedule"]["paused"] for one in reply.done] == [False, False]
    [reply] = client.many("remove", ["a", "b", "c"])
    assert [one["schedule"] for one in reply.done] == [None] * 3
    assert [page["schedules"] for page in client.schedule_pages()] == [[]]


def test_of_many_long_ones_so_many_are_changed_as_an_answer_holds(daemon, client):
    names = [f"long-{number:02}" for number in range(20)]
    for name in names:
        daemon.add(name, message="x" * 200_000)
    replies = list(client.many("pause", names))
    assert [one["name"] for reply in replies for one in reply.done] == names
    assert len(replies) == 7  # of three each: the last of them goes beyond 512 KiB


# --- apply ------------------------------------------------------------------------------------------------------


def line(name, **keys):
    return json.dumps({"name": name, **DOCUMENT, **keys}).encode() + b"\n"


def test_apply_is_all_or_nothing_and_idempotent(client):
    lines = [line("a"), b"\n", line("b"), line("c")[:-1]]
    assert client.apply(lines) == wire.ApplyReply(created=3)
    assert client.apply(lines) == wire.ApplyReply(unchanged=3)
    reply = client.apply([line("a", note="n"), b"nonsense\n", line("d", tz="Mars"), line("a")])
    assert [(p.line, p.name) for p in reply.problems] == [(2, None), (3, "d"), (4, "a")]
    assert reply.problem_count == 3
    assert client.schedule("a").note is None
    assert client.apply([line("a", note="n")], owner="team").changed == 1
    assert client.schedule("a").owner == "team"


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_lines_are_put_together_from_chunks_of_any_size(client, size):
    count = 4 if size == 1 else 30
    data = b"\xef\xbb\xbf" + b"".join(line(f"s{number}", message="é\r") for number in range(count))
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert client.apply(chunks) == wire.ApplyReply(created=count)


class Content:
    def __init__(self, *chunks):
        self.chunks = list(chunks)

    async def readany(self):
        return self.chunks.pop(0) if self.chunks else b""


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([], []),
        ([b"a"], [b"a"]),
        ([b"a\n"], [b"a"]),
        ([b"a\n\nb"], [b"a", b"", b"b"]),
        ([b"a", b"b\nc", b"d", b"\n", b"\n"], [b"ab", b"cd", b""]),
        ([b"\xef\xbb\xbfa"], [b"a"]),
        ([b"\xef", b"\xbb\xbf", b"a\n", b"\xef\xbb\xbfb"], [b"a", b"\xef\xbb\xbfb"]),
        ([b"\xef\xbb\xbf"], []),
        ([b"\n"], [b""]),
    ],
)
async def test_lines(chunks, expected):
    assert [text async for text in read_lines(Content(*chunks))] == expected


async def test_a_line_without_end_is_not_kept():
    lines = [text async for text in read_lines(Content(*[b"x" * 100_000] * 30, b"\nb"))]
    assert [len(text) for text in lines] == [wire.MAX_BODY_BYTES + 1, 1]


def test_a_line_that_is_too_long_is_a_problem_of_that_line(client):
    reply = client.apply(
        [line("a"), b'{"name": "b", "message": "', *[b"x" * 65_536] * 17, b'"}\n', line("c")]
    )
    assert [p.line for p in reply.problems] == [2]


def test_a_client_that_goes_away_leaves_nothing_behind(daemon, client):
    with closing(socket.socket(socket.AF_UNIX)) as sock:
        sock.connect(daemon.socket)
        sock.sendall(b"POST /v1/apply HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        text = line("a")
        sock.sendall(f"{len(text):x}\r\n".encode() + text + b"\r\n")
    assert client.apply([line("b")]).created == 1
    with pytest.raises(ScheduleNotFound):
        client.schedule("a")


# --- what is refused --------------------------------------------------------------------------------------------

TOO_MANY = json.dumps(
    {"fires": [f"a@2026-11-23T09:00:00.{n:03d}Z" for n in range(1_000)] + ["b@2026-11-23T09:00Z"]}
).encode()
BODY = json.dumps(DOCUMENT).encode()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "part"),
    [
        ("GET", "/", None, 404, "nothing at GET /"),
        ("GET", "/v2/schedules", None, 404, "nothing at"),
        ("GET", "/v1/schedules/", None, 404, "nothing at"),
        ("GET", "/v1/schedules/a/../b", None, 404, "nothing at"),
        ("PATCH", "/v1/schedules/a", b"{}", 405, "takes DELETE, GET, HEAD, PUT"),
        ("GET", "/v1/schedules/none", None, 404, "no schedule is named 'none'"),
        ("GET", "/v1/schedules/a%2Fb", None, 404, "no schedule is named 'a/b'"),
        ("GET", "/v1/schedules?limit=0", None, 400, "limit: must be a whole number from 1 to 1000"),
        ("GET", "/v1/schedules?limit=%D9%A3", None, 400, "limit"),
        ("GET", "/v1/schedules?offset=1", None, 400, "no such parameter: offset"),
        ("GET", "/v1/schedules?limit=1&limit=2", None, 400, "twice"),
        ("GET", "/v1/fires?state=done", None, 400, "state: must be among published"),
        ("GET", "/v1/fires?reason=late", None, 400, "reason: must be among catch_up, superseded, paused"),
        ("GET", "/v1/fires?since=then", None, 400, "since"),
        ("GET", "/v1/fires?since=1h&until=2h", None, 400, "is not after since"),
        ("GET", "/v1/fires?before=x", None, 400, "before"),
        ("GET", "/v1/fires?before=1.1.odd", None, 400, "before"),
        ("PUT", "/v1/schedules/a", b"{", 400, "not JSON"),
        ("PUT", "/v1/schedules/a", b"\xff", 400, "not UTF-8"),
        ("PUT", "/v1/schedules/a", b"[]", 400, "must be a JSON object"),
        ("PUT", "/v1/schedules/a", b'{"when": 1, "when": 2}', 400, "'when' is there twice"),
        ("PUT", "/v1/schedules/a", b'{"priority": NaN}', 400, "NaN"),
        ("PUT", "/v1/schedules/a", b"[" * 20_000, 400, "nested too deeply"),
        ("PUT", "/v1/schedules/a", b"x" * 1_048_577, 413, "more than 1,048,576 bytes"),
        ("PUT", "/v1/schedules/a", b"", 400, "when: is missing"),
        ("PUT", "/v1/schedules/a", b'{"\\ud800": 1}', 400, "no such key"),
        ("PUT", "/v1/schedules/a%20b", BODY, 400, "not a schedule name"),
        ("PUT", "/v1/schedules/a?drop=1", BODY, 400, "takes none"),
        ("POST", "/v1/schedules/a/pause", b'{"untl": 1}', 400, "untl: no such key"),
        ("POST", "/v1/schedules/a/pause", b'{"until": 5}', 400, "until: must be a text"),
        ("POST", "/v1/schedules/a/pause", b'{"note": 5}', 400, "note: must be text"),
        ("POST", "/v1/schedules/a/pause", b'{"drop_pending": 1}', 400, "true or false"),
        ("DELETE", "/v1/schedules/a?drop_pending=yes", None, 400, "true or false"),
        ("POST", "/v1/many", b"{}", 400, "action: must be remove, pause or resume"),
        ("POST", "/v1/many", b'{"action": "remove"}', 400, "names: must be a list of 1 to 200 names"),
        ("POST", "/v1/many", b'{"action": "remove", "names": []}', 400, "names: must be a list"),
        ("POST", "/v1/many", b'{"action": "remove", "names": [1]}', 400, "names: must be a list"),
        ("POST", "/v1/many", b'{"action": "resume", "names": ["a"], "note": "x"}', 400, "note: is not for resume"),
        ("POST", "/v1/many", b'{"action": "pause", "names": ["a"], "note": 5}', 400, "note: must be text"),
        ("POST", "/v1/retry", b"{}", 400, "fires: must be a list of fire ids"),
        ("POST", "/v1/retry", b'{"fires": "a"}', 400, "fires: must be a list of fire ids"),
        ("POST", "/v1/retry", b'{"fires": [1]}', 400, "fires: must be a list of fire ids"),
        ("POST", "/v1/retry", b'{"fires": ["a"], "failed": true}', 400, "failed: no such key"),
        ("POST", "/v1/retry", b'{"fires": ["a"], "dry_run": 1}', 400, "dry_run: must be true or false"),
        ("POST", "/v1/retry", b'{"fires": ["\\ud800"]}', 400, "is no fire id"),
        ("POST", "/v1/retry", TOO_MANY, 400, "1,001 fires are too many"),
        ("GET", "/v1/retry", None, 405, "takes POST"),
        ("POST", "/v1/schedules/a/backfill", b"{}", 400, "from: is missing"),
        ("POST", "/v1/schedules/a/backfill", b'{"from": 1}', 400, "from: must be a text"),
        ("POST", "/v1/schedules/a/backfill", b'{"from": "x", "until": null}', 400, "until: is missing"),
        ("POST", "/v1/schedules/a/backfill", b'{"from": "", "until": "", "max": true}', 400, "max: must be a whole"),
        ("POST", "/v1/schedules/a/backfill", b'{"from": "", "until": "", "max": 1000001}', 400, "max: must be a whole"),
        ("POST", "/v1/schedules/a/backfill", b'{"from": "", "until": "", "max": 1.5}', 400, "max: must be a whole"),
        ("POST", "/v1/schedules/a/backfill", b'{"untl": ""}', 400, "untl: no such key"),
        ("POST", "/v1/schedules/none/backfill", b'{"from": "", "until": ""}', 404, "no schedule is named"),
        ("POST", "/v1/apply?owner=a%20b", b"", 400, "cannot be an owner"),
    ],
)  # fmt: skip
def test_a_bad_request_is_one_sentence(daemon, method, path, body, status, part):
    found, headers, plain = raw(daemon, method, path, body)
    assert found == status
    assert headers["Cronally-Wire"] == "1"
    error = plain["error"]
    assert part in error["message"]
    assert error["exit_code"] == (4 if "no schedule" in error["message"] else 2)
    assert "\n" not in error["message"]
    assert headers.get("Allow") == (part.removeprefix("takes ") if status == 405 else None)


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"Cronally-Wire": "2"}, 400, "WireVersionMismatch"),
        ({"If-Match": "abc"}, 400, "UsageError"),
        ({"If-Match": "*"}, 400, "UsageError"),
        ({"If-None-Match": '"3"'}, 400, "UsageError"),
    ],
)
def test_a_bad_header(daemon, headers, status, kind):
    found, _, plain = raw(daemon, "PUT", "/v1/schedules/a", BODY, headers)
    assert (found, plain["error"]["kind"]) == (status, kind)


@pytest.mark.parametrize("key", ["x" * 201, "a\tb"])
def test_a_bad_idempotency_key(daemon, key):
    daemon.add("a")
    assert raw(daemon, "POST", "/v1/schedules/a/run", b"", {"Idempotency-Key": key})[0] == 400
    span = b'{"from": "2026-11-20T00:00", "until": "2026-11-21T00:00"}'
    assert raw(daemon, "POST", "/v1/schedules/a/backfill", span, {"Idempotency-Key": key})[0] == 400


def test_an_error_keeps_its_fields(client):
    with pytest.raises(WhenError) as caught:
        client.put("a", DOCUMENT | {"when": "61 * * * *"})
    assert (caught.value.field, caught.value.column, caught.value.exit_code) == ("minute", 1, 2)
    assert caught.value.hint
    with pytest.raises(FieldError):
        client.put("a", {"when": "@daily"})


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (StoreBusy("busy"), 503, StoreBusy),
        (NotReady("starting"), 503, NotReady),
        (CronallyError("failed"), 500, CronallyError),
        (InternalError("a bug"), 500, InternalError),
    ],
)
def test_errors_of_the_service(daemon, client, monkeypatch, error, status, kind):
    failing(monkeypatch, daemon, "get", error)
    assert raw(daemon, "GET", "/v1/schedules/a")[0] == status
    with pytest.raises(kind, match=str(error)) as caught:
        client.schedule("a")
    assert type(caught.value) is kind


def test_an_unexpected_exception_is_logged_and_not_told(daemon, client, monkeypatch, caplog):
    failing(monkeypatch, daemon, "get", KeyError("a secret"))
    with pytest.raises(InternalError, match="this is a bug") as caught:
        client.schedule("a")
    assert caught.value.exit_code == 70
    assert "secret" not in str(caught.value)
    assert "a secret" in caplog.text
    assert client.status().is_ready


def test_changes_are_logged_with_who_made_them_and_without_what_is_sent(daemon, client, caplog):
    caplog.set_level("DEBUG", "cronally")
    secret = {"message": "s3cret", "subject": "s3cret", "attributes": {"token": "s3cret"}, "note": "s3cret"}
    client.put("a", DOCUMENT | secret)
    client.apply([json.dumps({"name": "b", **DOCUMENT, **secret}).encode()])
    client.pause("a", note="s3cret")
    client.resume("a")
    fire_id = client.run("a")
    client.move("a", "c")
    client.remove("c")
    told = [record for record in caplog.records if getattr(record, "action", "") == "admin.change"]
    changes = ["put", "apply", "pause", "resume", "run", "move", "remove"]
    assert [record.fields["change"] for record in told] == changes
    assert all(record.fields["by"].startswith(f"uid {os.getuid()}") for record in told)
    assert told[0].getMessage().startswith(f"created a, by uid {os.getuid()}")
    assert told[4].fields | {"by": ""} == {"change": "run", "schedule": "a", "fire_id": fire_id, "by": ""}
    assert "s3cret" not in caplog.text
    assert not any("s3cret" in str(getattr(record, "fields", "")) for record in caplog.records)


# --- the client alone -------------------------------------------------------------------------------------------


def answering(path, reply):
    """Accept one connection at *path* and send *reply* to whatever comes."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    async def serve():
        connection, _ = await asyncio.to_thread(listening.accept)
        with connection:
            await asyncio.to_thread(connection.recv, 65_536)
            connection.sendall(reply)
        listening.close()

    return asyncio.create_task(serve())


@pytest.mark.parametrize(
    ("reply", "part"),
    [
        (b"", "went away before it answered"),
        (b"SSH-2.0-OpenSSH\r\n", "went away"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "is no cronally daemon"),
        (b"HTTP/1.1 200 OK\r\nCronally-Wire: 2\r\nContent-Length: 2\r\n\r\n{}", "version 2"),
        (b"HTTP/1.1 200 OK\r\nCronally-Wire: 1\r\nContent-Length: 2\r\n\r\n[]", "no JSON"),
        (b"HTTP/1.1 200 OK\r\nCronally-Wire: 1\r\nContent-Length: 3\r\n\r\n<a>", "no JSON"),
        (b"HTTP/1.1 200 OK\r\nCronally-Wire: 1\r\nContent-Length: 99\r\n\r\n{}", "went away"),
        (b"HTTP/1.1 200 OK\r\nCronally-Wire: 1\r\nContent-Length: 2\r\n\r\n{}", "not understood"),
    ],
)
async def test_what_answers_may_be_no_daemon(tmp_path, reply, part):
    task = answering(tmp_path / "x", reply)
    with Client(str(tmp_path / "x")) as client, pytest.raises(AdminError, match=part) as caught:
        await asyncio.to_thread(client.status)
    assert caught.value.exit_code == 3
    await task


def test_nobody_answers(tmp_path):
    with Client(str(tmp_path / "x")) as client, pytest.raises(DaemonUnreachable, match="cronally serve"):
        client.status()
    bind_socket(str(tmp_path / "x")).close()
    with Client(str(tmp_path / "x")) as client, pytest.raises(DaemonUnreachable, match="connection refused"):
        client.status()


def test_an_answer_that_does_not_come(tmp_path, monkeypatch):
    monkeypatch.setattr("cronally.admin.client.ANSWER_S", 0.05)
    with closing(bind_socket(str(tmp_path / "x"))), Client(str(tmp_path / "x")) as client:
        connection = client._connection
        connection.timeout = 0.05
        with pytest.raises(AdminError, match="did not answer within"):
            client._call("GET", "/v1/status", timeout_s=0.05)


@pytest.mark.parametrize("name", ["", ".", "..", "\udcff"])
def test_a_name_that_no_path_can_carry_is_refused_here(tmp_path, name):
    with Client(str(tmp_path / "x")) as client, pytest.raises(UsageError, match="cannot name a schedule"):
        client.schedule(name)


def test_a_document_that_is_too_large_or_no_utf_8_is_refused_here(tmp_path):
    with Client(str(tmp_path / "x")) as client:
        with pytest.raises(UsageError, match="262,144"):
            client.put("a", {"message": "x" * 1_048_576})
        with pytest.raises(UsageError, match="UTF-8"):
            client.put("a", {"message": "\udcff"})


def test_a_large_body_that_is_refused_early_still_gets_its_answer(daemon, client):
    for _ in range(3):
        with pytest.raises(UsageError, match="more than"):
            client._call("PUT", "/v1/schedules/a", iter([b"x" * 65_536] * 200))
    assert client.status().is_ready


def test_the_client_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys, cronally.admin.client; "
        "print([m for m in ('aiohttp', 'asyncio', 'botocore', 'rich', 'typer', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
