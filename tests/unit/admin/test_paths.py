from pathlib import Path

import pytest

from cronally.admin.paths import check_path, default_socket, find_socket, state_directory
from cronally.errors import UsageError
from support.store_files import unprivileged

HOME = {"HOME": "/home/anna"}


def made(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return str(path)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (HOME, "/home/anna/.local/state/cronally"),
        (HOME | {"XDG_STATE_HOME": "/state"}, "/state/cronally"),
        (HOME | {"XDG_STATE_HOME": ""}, "/home/anna/.local/state/cronally"),
        (HOME | {"XDG_STATE_HOME": "relative"}, "/home/anna/.local/state/cronally"),
    ],
)
def test_state_directory(environ, expected):
    assert state_directory(environ) == expected


def test_state_directory_without_a_home_variable():
    assert state_directory({}) == str(Path.home() / ".local/state/cronally")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (HOME, "/home/anna/.local/state/cronally/cronally.sock"),
        (HOME | {"XDG_RUNTIME_DIR": "/run/user/7"}, "/run/user/7/cronally/cronally.sock"),
        (HOME | {"XDG_RUNTIME_DIR": "/run/user/7", "CRONALLY_SOCKET": "x.sock"}, "x.sock"),
        (HOME | {"CRONALLY_SOCKET": ""}, "/home/anna/.local/state/cronally/cronally.sock"),
    ],
)
def test_where_a_daemon_puts_its_socket_is_where_a_client_looks(environ, expected):
    assert default_socket(environ) == expected
    assert find_socket(environ, system_socket="/nowhere/cronally.sock") == expected


def test_the_system_socket_goes_before_the_users(tmp_path):
    system = made(tmp_path / "run/cronally.sock")
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "user"), **HOME}
    made(tmp_path / "user/cronally/cronally.sock")
    assert find_socket(environ, system_socket=system) == system
    assert find_socket(environ | {"CRONALLY_SOCKET": "mine"}, system_socket=system) == "mine"


def test_a_socket_in_the_state_directory_is_found_when_the_runtime_directory_has_none(tmp_path):
    socket = made(tmp_path / "cronally/cronally.sock")
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_STATE_HOME": str(tmp_path)}
    assert find_socket(environ, system_socket="/nowhere/x") == socket


def test_a_directory_that_may_not_be_read_is_reported_not_skipped(monkeypatch):
    def refuse(_):
        raise PermissionError

    monkeypatch.setattr(Path, "stat", refuse)
    assert find_socket(HOME, system_socket="/run/cronally/cronally.sock") == "/run/cronally/cronally.sock"


def test_a_path_is_at_most_107_bytes():
    assert check_path("/" + "x" * 106)
    with pytest.raises(UsageError, match=r"has 108 bytes .* at most 107"):
        check_path("/" + "x" * 107)
    with pytest.raises(UsageError, match="has 109 bytes"):
        check_path("/" + "é" * 54)
    with pytest.raises(UsageError, match="empty"):
        check_path("")


def test_who_may_only_read_is_led_to_the_socket_for_that(tmp_path, monkeypatch):
    system = made(tmp_path / "run/cronally.sock")
    closed = {system}

    def may_use(path):
        return path not in closed and Path(path).exists()

    monkeypatch.setattr("cronally.admin.paths._may_use", may_use)
    assert find_socket(HOME, system_socket=system) == system  # there is no other
    readers = made(tmp_path / "run/cronally-ro.sock")
    assert find_socket(HOME, system_socket=system) == readers
    closed.clear()
    assert find_socket(HOME, system_socket=system) == system
    closed |= {system, readers}
    assert find_socket(HOME, system_socket=system) == system


def test_who_may_use_a_socket_is_asked_of_the_system(tmp_path):
    system, readers = made(tmp_path / "run/cronally.sock"), made(tmp_path / "run/cronally-ro.sock")
    with unprivileged(tmp_path / "run"):
        Path(system).chmod(0o440)
        Path(readers).chmod(0o660)
        assert find_socket(HOME, system_socket=system) == readers
