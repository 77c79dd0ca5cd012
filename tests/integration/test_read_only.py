"""The socket for reading alone: who may use it, and for what."""

from __future__ import annotations

import grp
import http.client
import json
import logging
import os
import socket
import stat
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cronally.admin.client import Client
from cronally.admin.paths import read_only_socket
from cronally.admin.server import AdminServer
from cronally.admin.unix_socket import bind_socket
from cronally.errors import CronallyError, ReadOnly, UsageError
from support.daemon import running_daemon
from support.rig import TOPIC
from support.store_files import unprivileged
from support.terminal import Terminal

GROUP = grp.getgrgid(os.getegid()).gr_name
OTHER = next(group for group in grp.getgrall() if group.gr_gid not in (os.getegid(), *os.getgroups()))


@pytest.fixture
def daemon(tmp_path):
    directory = tmp_path / "run"
    with running_daemon(directory, read_only_group=GROUP) as daemon:
        daemon.add("a")
        yield daemon


def mode(path):
    return stat.S_IMODE(Path(path).stat().st_mode)


def status(path, method, target, body=None):
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before the body was sent
            connection.request(method, target, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def test_its_mode_and_group_say_who_may_use_it(daemon, tmp_path):
    readers = read_only_socket(daemon.socket)
    assert readers == str(tmp_path / "run/cronally-ro.sock")
    assert (mode(readers), Path(readers).stat().st_gid) == (0o660, os.getegid())
    assert mode(daemon.socket) == 0o660
    assert mode(tmp_path / "run") == 0o751  # others come to the sockets, and to nothing else


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to any group")
async def test_it_belongs_to_the_group_that_is_named_and_the_other_socket_does_not(tmp_path):
    server = AdminServer(
        None, None, None, socket_path=str(tmp_path / "x.sock"), read_only_group=OTHER.gr_name
    )
    await server.start()
    assert (tmp_path / "x-ro.sock").stat().st_gid == OTHER.gr_gid
    assert (tmp_path / "x.sock").stat().st_gid == os.getegid()
    await server.close()
    assert list(tmp_path.iterdir()) == []


def test_until_it_has_its_group_nobody_else_may_use_it(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "chown", lambda path, _uid, gid: seen.append((mode(path), gid)))
    with closing(bind_socket(str(tmp_path / "x"), group=GROUP)):
        assert seen == [(0o600, os.getegid())]
        assert mode(tmp_path / "x") == 0o660


def test_it_answers_questions(daemon):
    with Client(read_only_socket(daemon.socket)) as client:
        assert client.schedule("a").name == "a"
        assert client.status().schedules == 1
        assert [change.by for change in client.audit().changes] == ["test"]


def changing_routes(daemon):
    """Every route of the server that is no GET, by its method and a path."""
    runner = daemon.server._doors[0].runner
    routes = [(route.method, route.resource.canonical) for route in runner.app.router.routes()]
    return [(method, path.replace("{name}", "a")) for method, path in routes if method not in ("GET", "HEAD")]


def test_it_refuses_everything_else(daemon):
    readers = read_only_socket(daemon.socket)
    routes = changing_routes(daemon)
    assert len(routes) >= 10
    for method, path in [
        *routes,
        ("POST", "/v1/apply?dry_run=true"),
        ("PATCH", "/v1/schedules/a"),
        ("POST", "/no"),
    ]:
        code, answer = status(readers, method, path, b'{"when": "@daily", "topic": "%s"}' % TOPIC.encode())
        assert (code, answer["error"]["kind"], answer["error"]["exit_code"]) == (403, "ReadOnly", 1), path
        assert f"{method} {path.partition('?')[0]}" in answer["error"]["message"]
    assert daemon.call(daemon.service.get("a")).stored.revision == 1
    with daemon.client() as client:
        assert len(client.audit().changes) == 1


def test_a_reader_who_changes_something_is_told_in_a_sentence(daemon, capsys, monkeypatch):
    monkeypatch.setenv("CRONALLY_SOCKET", read_only_socket(daemon.socket))
    terminal = Terminal(daemon, capsys)
    assert terminal.json("ls")["schedules"][0]["name"] == "a"
    for words in (["rm", "a"], ["run", "a"], ["add", "b", "@daily", "--topic", TOPIC], ["pause", "a"]):
        err = terminal.bad(*words, code=1)
        assert "for reading alone" in err
        assert err.count("\n") == 1
    with pytest.raises(ReadOnly), Client(read_only_socket(daemon.socket)) as client:
        client.remove("a")


def test_without_a_group_there_is_none(tmp_path):
    with running_daemon(tmp_path / "run") as daemon:
        assert not Path(read_only_socket(daemon.socket)).exists()
        assert mode(tmp_path / "run") == 0o750


async def test_a_group_that_is_not_there_is_refused_and_nothing_is_left(tmp_path):
    server = AdminServer(None, None, None, socket_path=str(tmp_path / "x.sock"), read_only_group="no-such")
    with pytest.raises(UsageError, match="no group 'no-such'"):
        await server.start()
    assert list(tmp_path.iterdir()) == []


async def test_a_group_that_the_daemon_is_no_member_of_is_refused_with_what_to_do(tmp_path):
    directory = tmp_path / "run"
    directory.mkdir()
    server = AdminServer(
        None, None, None, socket_path=str(directory / "x.sock"), read_only_group=OTHER.gr_name
    )
    with unprivileged(directory), pytest.raises(CronallyError, match="SupplementaryGroups=") as caught:
        await server.start()
    assert caught.value.exit_code == 1
    assert list(directory.iterdir()) == []


async def test_a_directory_that_readers_cannot_pass_is_in_the_log(tmp_path, caplog):
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    server = AdminServer(
        None, None, None, socket_path=str(directory / "x.sock"), read_only_group=OTHER.gr_name
    )
    if os.geteuid() != 0:
        pytest.skip("only root gives a file to any group")
    for parent in (tmp_path, *tmp_path.parents[:-2]):
        parent.chmod(parent.stat().st_mode | 0o001)
    with caplog.at_level(logging.WARNING):
        await server.start()
    await server.close()
    assert f"{directory} is closed to them" in caplog.text
    assert mode(directory) == 0o700  # whoever made it has decided that
    directory.chmod(0o701)
    caplog.clear()
    await server.start()
    await server.close()
    assert caplog.text == ""
