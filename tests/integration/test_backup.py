"""A copy of a store in use: consistent, checked, whole or not there, and never in the place of anything else."""

from __future__ import annotations

import asyncio
import json
import os
import threading

import pytest

from cronally.admin import changing
from cronally.admin.client import Client
from cronally.admin.unix_socket import Peer
from cronally.cli.main import main
from cronally.errors import BackupFailed, Conflict, FieldError, StoreCorrupt, UsageError
from cronally.store import copying
from cronally.store.schema import MIGRATIONS
from cronally.store.sqlite import SqliteStore
from support.daemon import running_daemon
from support.store_files import T, asked, creation, damage, published, run_python, unprivileged

MANY = 20_000


@pytest.fixture
async def store(store):
    await store.change(creation("nightly"))
    await store.commit([published(T + n) for n in range(MANY)], watermark=T + MANY)
    return store


def names_in(directory):
    return sorted(entry.name for entry in directory.iterdir())


async def test_a_copy_is_one_private_file_with_all_that_was_committed(store, tmp_path):
    (tmp_path / "to").mkdir()
    contents = await store.backup(str(tmp_path / "to" / "b.db"), replace=False)
    assert names_in(tmp_path / "to") == ["b.db"]
    copy = tmp_path / "to" / "b.db"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert (contents.path, contents.size_bytes) == (str(copy), copy.stat().st_size)
    assert (contents.schedules, contents.journal, contents.pending) == (1, MANY, 0)
    assert contents.watermark == T + MANY
    assert asked(copy, "PRAGMA integrity_check") == [("ok",)]
    assert asked(copy, "SELECT count(*) FROM journal") == [(MANY,)]
    assert names_in(tmp_path / "to") == ["b.db"]


async def test_a_copy_made_during_commits_is_one_state_of_the_store(store, tmp_path, monkeypatch):
    """Each commit writes a row for each of three schedules: no copy has one without the others."""
    monkeypatch.setattr(copying, "_PAGES", 2)
    is_done = False

    async def commit():
        number = MANY
        while not is_done:
            number += 1
            rows = [published(T + number, schedule_id) for schedule_id in (1, 2, 3)]
            await store.commit(rows, watermark=T + number)
        return number

    committing = asyncio.create_task(commit())
    for number in range(3):
        contents = await store.backup(str(tmp_path / f"{number}.db"), replace=False)
        through = contents.watermark - T
        journal = "SELECT schedule_id, count(*) FROM journal WHERE fire_time > "
        counts = dict(asked(tmp_path / f"{number}.db", f"{journal} {T + MANY} GROUP BY schedule_id"))
        expected = through - MANY
        assert counts == ({1: expected, 2: expected, 3: expected} if expected else {})
        assert asked(tmp_path / f"{number}.db", "PRAGMA integrity_check") == [("ok",)]
    is_done = True
    assert await committing > through + 1, "commits went on meanwhile"


async def test_a_copy_of_a_store_that_was_stopped_in_order_opens_as_one_that_was_not(store, path, tmp_path):
    """Between the copy and its use anything may have been published."""
    await store.close(watermark=T + MANY)
    assert asked(path, "SELECT value FROM meta WHERE key = 'clean_stop'") == [(1,)]
    assert main(["backup", str(tmp_path / "b.db"), "--store", f"sqlite:{path}"]) == 0
    copy = SqliteStore(tmp_path / "b.db")
    opened = await copy.open()
    assert (opened.was_clean, opened.watermark) == (False, T + MANY)
    await copy.close(watermark=None)


# --- where it may be written --------------------------------------------------------------------------------------


async def test_what_is_there_is_left_alone_and_only_an_earlier_backup_can_be_replaced(store, tmp_path):
    target = str(tmp_path / "b.db")
    await store.backup(target, replace=False)
    with pytest.raises(Conflict, match="--force"):
        await store.backup(target, replace=False)
    await store.commit([published(T - 1)], watermark=None)
    assert (await store.backup(target, replace=True)).journal == MANY + 1

    other = tmp_path / "letter.txt"
    other.write_text("dear reader")
    with pytest.raises(BackupFailed, match="no backup of cronally's"):
        await store.backup(str(other), replace=True)
    assert other.read_text() == "dear reader"

    link = tmp_path / "link.db"
    link.symlink_to(target)
    with pytest.raises(BackupFailed, match="no backup of cronally's"):
        await store.backup(str(link), replace=True)
    with pytest.raises(Conflict):
        await store.backup(str(link), replace=False)
    assert names_in(tmp_path) == ["b.db", "letter.txt", "link.db", "state"]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", ".lock", ".restore", ".restore.part"])
async def test_the_stores_own_files_are_never_written_whatever_they_are_called(store, path, tmp_path, suffix):
    (tmp_path / "elsewhere").symlink_to(path.parent)
    before = names_in(path.parent)
    for target in (f"{path}{suffix}", f"{tmp_path}/elsewhere/cronally.db{suffix}"):
        with pytest.raises(BackupFailed, match="the store itself"):
            await store.backup(target, replace=True)
    assert names_in(path.parent) == before
    os.link(path, tmp_path / "hard.db")
    with pytest.raises(BackupFailed, match="the store itself"):
        await store.backup(str(tmp_path / "hard.db"), replace=True)


@pytest.mark.parametrize("suffix", [".lock", "-wal", "-journal"])
async def test_another_store_is_never_overwritten(store, tmp_path, suffix):
    target = tmp_path / "other.db"
    await store.backup(str(target), replace=False)
    (tmp_path / f"other.db{suffix}").touch()
    before = target.read_bytes()
    with pytest.raises(BackupFailed, match="it is a store"):
        await store.backup(str(target), replace=True)
    assert target.read_bytes() == before


async def test_a_place_that_cannot_be_used_is_named_with_the_reason(store, tmp_path):
    with pytest.raises(BackupFailed, match=f"there is no directory {tmp_path}/none"):
        await store.backup(f"{tmp_path}/none/b.db", replace=False)
    (tmp_path / "directory").mkdir()
    with pytest.raises(Conflict):
        await store.backup(f"{tmp_path}/directory", replace=False)
    with pytest.raises(BackupFailed):
        await store.backup(f"{tmp_path}/directory", replace=True)
    with pytest.raises(BackupFailed, match="name too long"):
        await store.backup(f"{tmp_path}/{'x' * 300}", replace=False)


async def test_a_directory_that_may_not_be_written_is_named_with_the_uid(store, tmp_path):
    forbidden = tmp_path / "forbidden"
    forbidden.mkdir(mode=0o555)
    with unprivileged(tmp_path), pytest.raises(BackupFailed, match=r"permission denied .*uid \d+"):
        copying.write_copy(
            str(tmp_path / "x"), str(forbidden / "b.db"), replace=False, stop=threading.Event()
        )
    assert names_in(forbidden) == []


FULL = """
import asyncio, resource, sys
from cronally.errors import CronallyError
from cronally.store.sqlite import SqliteStore

async def run(path, target):
    store = SqliteStore(path)
    await store.open()
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
    try:
        await store.backup(target, replace=False)
    except CronallyError as exc:
        print(type(exc).__name__, exc)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print((await store.backup(target, replace=False)).journal)
    await store.close(watermark=None)

asyncio.run(run(*sys.argv[1:]))
"""


async def test_a_full_disk_leaves_nothing_of_a_copy_and_the_store_goes_on(store, path, tmp_path):
    await store.close(watermark=None)
    (tmp_path / "to").mkdir()
    done = run_python(FULL, path, tmp_path / "to" / "b.db")
    refusal, journal = done.stdout.splitlines()
    assert refusal.startswith("BackupFailed")
    assert "no space is left" in refusal
    assert int(journal) == MANY
    assert names_in(tmp_path / "to") == ["b.db"]


async def test_damage_in_the_store_is_found_in_the_copy_which_is_not_kept(store, path, tmp_path):
    await store.close(watermark=T + MANY)
    damage(path, from_page=40)
    await store.open()
    with pytest.raises(StoreCorrupt, match="cronally restore FILE"):
        await store.backup(str(tmp_path / "b.db"), replace=False)
    assert names_in(tmp_path) == ["state"]


# --- one at a time, and given up ----------------------------------------------------------------------------------


async def test_a_second_backup_waits_for_nobody_and_is_refused(store, tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "_PAGES", 1)
    first = asyncio.create_task(store.backup(str(tmp_path / "1.db"), replace=False))
    await asyncio.sleep(0)
    with pytest.raises(Conflict, match="another backup"):
        await store.backup(str(tmp_path / "2.db"), replace=False)
    assert (await first).journal == MANY


async def test_a_daemon_that_stops_gives_a_backup_up_and_leaves_nothing(store, tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "_PAGES", 1)
    monkeypatch.setattr(copying, "_PAUSE_S", 0.01)  # it would take minutes
    monkeypatch.setattr(copying, "_SYNC_SLICES", 1)
    begun = asyncio.Event()
    loop, sync = asyncio.get_running_loop(), copying.sync

    def tell(path):
        loop.call_soon_threadsafe(begun.set)
        sync(path)

    monkeypatch.setattr(copying, "sync", tell)
    backup = asyncio.create_task(store.backup(str(tmp_path / "b.db"), replace=False))
    await begun.wait()
    assert len(names_in(tmp_path)) == 2
    store.abandon_backup()
    with pytest.raises(BackupFailed, match="stopping"):
        await backup
    assert names_in(tmp_path) == ["state"]


# --- the socket and the command -----------------------------------------------------------------------------------


@pytest.fixture
def daemon(tmp_path):
    store = SqliteStore(tmp_path / "state" / "cronally.db")
    with running_daemon(tmp_path, backup_maker=store) as daemon:
        daemon.call(store.open())
        daemon.call(store.change(creation("nightly")))
        daemon.call(store.commit([published(T)], watermark=T))
        yield daemon
        daemon.call(store.close(watermark=None))


def test_the_command_prints_what_it_wrote_and_resolves_the_path_itself(daemon, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--socket", daemon.socket, "backup", "b.db"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"wrote {tmp_path}/b.db: 0.1 MB, schedules: 1, journal entries: 1, settled up to ")
    assert (tmp_path / "b.db").exists()
    assert main(["backup", "b.db", "--socket", daemon.socket]) == 5
    assert "--force" in capsys.readouterr().err
    assert main(["backup", "b.db", "--force", "--json", "--socket", daemon.socket]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "file": f"{tmp_path}/b.db",
        "size_bytes": (tmp_path / "b.db").stat().st_size,
        "schedules": 1,
        "journal": 1,
        "pending": 0,
        "watermark": "2026-11-24T09:00:00Z",
        "schema": len(MIGRATIONS),
    }
    assert main(["backup", f"{tmp_path}/", "--socket", daemon.socket]) == 2


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "absolute path"),
        ({"file": "relative.db"}, "absolute path"),
        ({"file": f"/{'x' * 5000}"}, "absolute path"),
        ({"file": "/tmp/a\0b"}, "cannot be printed"),
        ({"file": "/tmp/a\u202eb"}, "cannot be printed"),
        ({"file": "/tmp/.."}, "names a directory"),
        ({"file": "/tmp/"}, "names a directory"),
        ({"file": "/tmp/x", "force": "yes"}, "true or false"),
        ({"file": "/tmp/x", "replace": True}, "no such key"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(daemon, body, words):
    with Client(daemon.socket) as client, pytest.raises(FieldError, match=words):
        client._call("POST", "/v1/backup", body)


def test_another_user_cannot_have_a_file_made_whose_name_means_something_to_a_program(
    daemon, tmp_path, monkeypatch
):
    monkeypatch.setattr(changing, "peer_of", lambda _sock: Peer(os.geteuid() + 1000, 1))
    with Client(daemon.socket) as client:
        with pytest.raises(FieldError, match=r"must end in \.db"):
            client.backup(f"{tmp_path}/authorized_keys")
        assert client.backup(f"{tmp_path}/b.db").schedules == 1
        monkeypatch.setattr(changing, "peer_of", lambda _sock: Peer(0, 1))
        assert client.backup(f"{tmp_path}/of-root").schedules == 1
    assert names_in(tmp_path) == ["b.db", "cronally.sock", "of-root", "state"]


def test_a_daemon_whose_store_is_no_file_says_so(tmp_path):
    with (
        running_daemon(tmp_path) as daemon,
        Client(daemon.socket) as client,
        pytest.raises(UsageError, match="no file"),
    ):
        client.backup(f"{tmp_path}/b.db")


# --- without a daemon ---------------------------------------------------------------------------------------------


async def test_without_a_daemon_the_command_says_how_and_copies_a_store_that_is_named(
    store, path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("CRONALLY_SOCKET", str(tmp_path / "none.sock"))
    target = str(tmp_path / "b.db")
    assert main(["backup", target]) == 3
    assert "--store sqlite:PATH" in capsys.readouterr().err
    assert main(["backup", target, "--store", f"sqlite:{path}"]) == 1
    err = capsys.readouterr().err
    assert f"pid {os.getpid()}" in err
    assert "leave out --store" in err
    await store.close(watermark=T + MANY)
    assert main(["backup", target, "--store", f"sqlite:{path}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["journal"] == MANY
    assert main(["backup", target, "--store", f"sqlite:{tmp_path}/none.db", "--force"]) == 1
    assert "there is no store" in capsys.readouterr().err
    assert not (tmp_path / "none.db").exists()
