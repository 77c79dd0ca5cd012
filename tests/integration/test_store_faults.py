"""Faults of the disk under a store that is in use, and what is left of one that was killed: said in a sentence, and healed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import suppress

import pytest

from cronally.domain.model import State
from cronally.errors import BackupFailed, StoreCorrupt, StoreError, StoreFull
from cronally.store import database
from cronally.store.filesystem import filesystem_of, network_warning
from cronally.store.sqlite import SqliteStore
from support.disk import recording, unavailable
from support.store_files import T, asked, creation, published, run_python

needs_disk = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

KILLED = """
import asyncio, os
from cronally.store.sqlite import SqliteStore
from support.store_files import T, creation, published

async def main():
    store = SqliteStore(sys.argv[1])
    await store.open()
    for number in range(200):
        await store.commit([published(T + number)], watermark=T + number)
    os._exit(9)

asyncio.run(main())
"""


# --- while it runs ------------------------------------------------------------------------------------------------

FAULTS = {
    "no space": (sqlite3.SQLITE_FULL, StoreFull, "no space is left", True),
    "a write that fails": (sqlite3.SQLITE_IOERR_WRITE, StoreFull, "no space is left", True),
    "a sync that fails": (sqlite3.SQLITE_IOERR_FSYNC, StoreError, "failed: disk I/O error", False),
    "read-only": (sqlite3.SQLITE_READONLY, StoreError, "cannot be opened for writing by uid", False),
    "damage": (sqlite3.SQLITE_CORRUPT, StoreCorrupt, "cronally restore FILE", False),
}


@needs_disk
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_disk_that_fails_for_a_while_refuses_with_the_reason_and_then_goes_on(path, fault):
    code, kind, words, is_retryable = FAULTS[fault]
    failing = "sync" if fault == "a sync that fails" else "write"
    with recording() as disk:
        store = SqliteStore(path)
        await store.open()
        await store.commit([published(T)], watermark=T)
        disk.fails = lambda event: code if event.kind == failing else 0
        for _ in range(3):
            with pytest.raises(StoreError, match=words) as caught:
                await store.commit([published(T + 1)], watermark=T + 1)
            assert (type(caught.value), caught.value.is_retryable) == (kind, is_retryable)
            assert str(path) in str(caught.value)
            with pytest.raises(StoreError, match=words):
                await store.change(creation("nightly"))
        assert (await store.counts()).journal == {State.PUBLISHED: 1}
        disk.fails = lambda _event: 0
        await store.commit([published(T + 1)], watermark=T + 1)
        await store.change(creation("nightly"))
        await store.close(watermark=T + 2)
    assert asked(path, "SELECT count(*) FROM journal") == [(2,)]
    assert asked(path, "PRAGMA integrity_check") == [("ok",)]


@needs_disk
async def test_a_read_that_fails_is_said_and_the_next_one_may_succeed(path):
    with recording() as disk:
        store = SqliteStore(path)
        await store.open()
        await store.change(creation("nightly"))
        disk.fails = lambda event: sqlite3.SQLITE_IOERR_READ if event.kind == "read" else 0
        with pytest.raises(StoreError, match="SQLITE_IOERR_READ"):
            await store.counts()
        disk.fails = lambda _event: 0
        assert (await store.counts()).schedules == 1
        await store.close(watermark=T)


@pytest.mark.parametrize("removed", [("-wal",), ("-shm",), ("-wal", "-shm")])
async def test_a_log_removed_while_the_store_is_in_use_is_made_anew_with_nothing_lost(
    store, path, tmp_path, removed
):
    await store.change(creation("nightly"))
    await store.commit([published(T)], watermark=T)
    for suffix in removed:
        path.with_name(f"{path.name}{suffix}").unlink()
    await store.commit([published(T + 1)], watermark=T + 1)
    await store.commit([published(T + 2)], watermark=T + 2)
    assert await store.schedule("nightly")
    # What a kill now would leave.
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{tmp_path}/left.db{suffix}")
    assert asked(tmp_path / "left.db", "SELECT count(*) FROM journal") == [(3,)]
    assert asked(tmp_path / "left.db", "SELECT name FROM schedule") == [("nightly",)]
    assert (await store.backup(str(tmp_path / "b.db"), replace=False)).journal == 3


async def test_a_store_that_is_removed_or_replaced_while_in_use_takes_nothing_until_it_is_back(
    store, path, tmp_path
):
    await store.commit([published(T)], watermark=T)
    path.rename(tmp_path / "moved.db")
    with pytest.raises(StoreError, match="was removed or replaced") as caught:
        await store.commit([published(T + 1)], watermark=T + 1)
    assert not caught.value.is_retryable
    asked(path, "CREATE TABLE other (x)")
    with pytest.raises(StoreError, match="was removed or replaced"):
        await store.change(creation("nightly"))
    (tmp_path / "moved.db").rename(path)
    await store.commit([published(T + 1)], watermark=T + 1)
    assert (await store.counts()).journal == {State.PUBLISHED: 2}


async def test_a_log_that_cannot_be_made_anew_is_tried_again_at_the_next_commit(store, path, monkeypatch):
    await store.commit([published(T)], watermark=T)
    path.with_name(f"{path.name}-wal").unlink()

    async def refuse(_path, **_keys):
        raise StoreError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(database, "_connect", refuse)
        for _ in range(2):
            with pytest.raises(StoreError, match="not now"):
                await store.commit([published(T + 1)], watermark=T + 1)
        with pytest.raises(StoreError, match="not open"):
            await store.counts()
    await store.commit([published(T + 1)], watermark=T + 1)
    assert (await store.counts()).journal == {State.PUBLISHED: 2}


def mount(*words):
    """Run mount; return what it says against it, or nothing."""
    if shutil.which("mount") is None:
        return "there is no mount"
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB, with 1 MB taken by a file named ``filler``; where none can be mounted, RLIMIT_FSIZE elsewhere has to do."""
    disk = tmp_path / "disk"
    disk.mkdir()
    refusal = mount("-t", "tmpfs", "-o", "size=3m", "cronally-test", disk)
    if refusal:
        pytest.skip(f"no disk can be mounted here: {refusal}")
    try:
        (disk / "filler").write_bytes(bytes(1 << 20))
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


async def test_on_a_disk_that_is_really_full_commits_fail_until_there_is_room(small_disk, tmp_path):
    path = small_disk / "cronally.db"
    store = SqliteStore(path)
    await store.open()

    async def commit(number):
        await store.commit([published(T + number, id_) for id_ in range(100)], watermark=T + number)

    number = 0
    with suppress(StoreFull):
        while True:
            await commit(number)
            number += 1
    assert number > 10
    with pytest.raises(StoreFull, match="no space is left"):
        await commit(number)
    with pytest.raises(StoreFull):
        await store.change(creation("nightly", message="m" * 250_000))  # more than what is left for a commit
    assert (await store.counts()).journal == {State.PUBLISHED: number * 100}
    with pytest.raises(BackupFailed, match="no space is left"):
        await store.backup(str(small_disk / "b.db"), replace=False)
    copy = tmp_path / "b.db"
    assert (await store.backup(str(copy), replace=False)).journal == number * 100
    (small_disk / "filler").unlink()
    await commit(number)
    await store.change(creation("nightly"))
    await store.close(watermark=T + number)
    assert asked(path, "PRAGMA integrity_check") == [("ok",)]
    assert asked(path, "SELECT count(*) FROM journal") == [((number + 1) * 100,)]


async def test_on_a_disk_that_is_read_only_the_start_is_refused_and_on_one_that_is_not_any_more_it_works(
    small_disk,
):
    path = small_disk / "cronally.db"
    store = SqliteStore(path)
    await store.open()
    await store.commit([published(T)], watermark=T)
    await store.close(watermark=T)
    mount("-o", "remount,ro", small_disk)
    with pytest.raises(StoreError, match=f"by uid {os.geteuid()}: Read-only file system"):
        await store.open()
    mount("-o", "remount,rw", small_disk)
    assert (await store.open()).was_clean


# --- after a kill -------------------------------------------------------------------------------------------------


def killed(path):
    """A store whose daemon was killed, with much in its log; it had been stopped in order before."""
    path.parent.mkdir(exist_ok=True)
    done = run_python(KILLED, path)
    assert done.returncode == 9, done.stderr


async def stopped_in_order(path):
    store = SqliteStore(path)
    await store.open()
    await store.change(creation("nightly"))
    await store.close(watermark=T - 1)


@pytest.mark.parametrize(
    "loss", ["nothing", "-shm", "-wal", "half of the log", "noise in the log", "noise in -shm"]
)
async def test_what_a_kill_left_is_read_as_far_as_it_goes_and_never_taken_for_a_stop_in_order(path, loss):
    await stopped_in_order(path)
    killed(path)
    log = path.with_name("cronally.db-wal")
    match loss:
        case "-shm" | "-wal":
            path.with_name(f"{path.name}{loss}").unlink()
        case "half of the log":
            os.truncate(log, log.stat().st_size // 2)
        case "noise in the log":
            with log.open("r+b") as file:
                file.seek(log.stat().st_size // 2)
                file.write(os.urandom(100_000))
        case "noise in -shm":
            path.with_name("cronally.db-shm").write_bytes(os.urandom(32_768))
    store = SqliteStore(path)
    opened = await store.open()
    rows = (await store.counts()).journal.get(State.PUBLISHED, 0)
    assert not opened.was_clean
    assert opened.watermark == T + rows - 1, "the watermark goes with its rows"
    if loss in ("nothing", "-shm", "noise in -shm"):
        assert rows == 200
    elif loss == "-wal":
        assert rows == 0
    else:
        assert 0 < rows < 200
    assert (await store.schedule("nightly")) is not None
    await store.close(watermark=None)
    assert asked(path, "PRAGMA integrity_check") == [("ok",)]


# --- where it lies ------------------------------------------------------------------------------------------------

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
28 27 0:26 / /var/lib/docker rw - overlay overlay rw,lowerdir=/a
30 27 0:30 / /mnt/share rw,relatime shared:2 master:1 - nfs4 server:/x rw
31 27 0:31 / /mnt/share/local rw - ext4 /dev/vdb rw
32 27 0:32 / /mnt/with\\040blank rw - cifs //server/x rw
33 27 0:33 / /home rw - ext4 /dev/vdc rw
34 27 0:34 / /home rw - fuse.sshfs host: rw
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/cronally/cronally.db", "ext4"),
        ("/var/lib/docker/x.db", "overlay"),
        ("/mnt/share/x.db", "nfs4"),
        ("/mnt/shared.db", "ext4"),
        ("/mnt/share/local/x.db", "ext4"),
        ("/mnt/with blank/x.db", "cifs"),
        ("/home/anna/x.db", "fuse.sshfs"),
    ],
)
def test_a_network_file_system_is_known_by_the_mount_that_a_store_lies_on(tmp_path, path, kind):
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(MOUNTS)
    assert filesystem_of(path, str(mountinfo)) == kind
    warning = network_warning(path, mountinfo=str(mountinfo))
    assert (warning is not None) is (kind not in ("ext4", "overlay"))
    if warning is not None:
        assert kind in warning
        assert path in warning


def test_where_nothing_is_known_of_mounts_nothing_is_said(tmp_path):
    assert network_warning("/x.db", mountinfo=str(tmp_path / "none")) is None
