"""A backup in the place of a store: shown first, whole or not at all, with the old file kept."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from cronally.cli.main import main
from cronally.engine.records import JournalFilter
from cronally.errors import BackupUnusable, SchemaMismatch, StoreError, StoreLocked, UsageError
from cronally.store import restoring
from cronally.store.sqlite import SqliteStore
from support.store_files import NOBODY, T, asked, creation, damage, published, run_python


@pytest.fixture
async def backup(path, tmp_path):
    """A backup of a store that went on afterwards, and was stopped in order."""
    store = SqliteStore(path)
    await store.open()
    for name in ("kept", "changed-since", "removed-since"):
        await store.change(creation(name))
    await store.commit([published(T)], watermark=T)
    target = tmp_path / "b.db"
    await store.backup(str(target), replace=False)
    spec = creation("changed-since", "30 9 * * *")
    await store.change(
        spec.__class__(id=2, at=T + 1, by="x", action="set", new_spec=spec.new_spec, effective_from=T)
    )
    await store.change(spec.__class__(id=3, at=T + 1, by="x", action="rm", is_removal=True, effective_from=T))
    await store.change(creation("new-since"))
    await store.commit([published(T + n) for n in range(1, 501)], watermark=T + 500)
    await store.close(watermark=T + 500)
    return target


def names_in(directory):
    return sorted(entry.name for entry in directory.iterdir())


async def opened(path):
    store = SqliteStore(path)
    return store, await store.open()


async def is_the_backup(path):
    """Whether the store at *path* is the backup, wholly; it must be either that or what was there."""
    store, found = await opened(path)
    try:
        names = [stored.spec.name for stored in await store.schedules()]
        rows = len(await store.history(JournalFilter(limit=1000)))
    finally:
        await store.close(watermark=None)
    assert asked(path, "PRAGMA integrity_check") == [("ok",)]
    state = (names, rows, found.watermark)
    assert state in (
        (["changed-since", "kept", "removed-since"], 1, T),
        (["changed-since", "kept", "new-since"], 501, T + 500),
        (["changed-since", "kept", "new-since"], 601, T + 1100),
    )
    return rows == 1


def restore(file, path):
    with restoring.restoring(str(file), str(path)) as ready:
        return ready.commit()


def killed(path):
    """Let a daemon go on with the store for 100 commits and be killed: they are in the log alone."""
    script = (
        "import asyncio, os\n"
        "from cronally.store.sqlite import SqliteStore; from support.store_files import published, T\n"
        "async def main():\n"
        "    store = SqliteStore(sys.argv[1]); await store.open()\n"
        "    await store.commit([published(T + n) for n in range(1000, 1100)], watermark=T + 1100); os._exit(9)\n"
        "asyncio.run(main())"
    )
    assert run_python(script, path).returncode == 9
    assert (path.parent / "cronally.db-wal").stat().st_size > 0


# --- what it does -------------------------------------------------------------------------------------------------


async def test_it_shows_what_would_change(backup, path):
    with restoring.restoring(str(backup), str(path)) as ready:
        assert (ready.backup.schedules, ready.backup.journal, ready.backup.watermark) == (3, 1, T)
        assert (ready.present.schedules, ready.present.journal, ready.present.watermark) == (3, 501, T + 500)
        difference = ready.difference
        assert (difference.gone, difference.back, difference.changed, difference.entries) == (1, 1, 1, 500)
        assert difference.names == {
            "gone": ["new-since"],
            "back": ["removed-since"],
            "changed": ["changed-since"],
        }
    assert names_in(path.parent) == ["cronally.db", "cronally.db.lock"]
    assert not await is_the_backup(path)


async def test_the_backup_is_in_place_the_old_file_is_kept_and_the_start_counts_as_one_after_a_crash(
    backup, path
):
    kept = restore(backup, path)
    assert names_in(path.parent) == ["cronally.db", Path(kept).name, "cronally.db.lock"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert asked(kept, "SELECT count(*) FROM journal") == [(501,)]
    store, found = await opened(path)
    assert (found.was_clean, found.watermark) == (False, T)
    await store.close(watermark=None)
    assert await is_the_backup(path)


async def test_a_log_that_the_old_store_left_is_kept_beside_it_and_is_not_applied_to_the_new_one(
    backup, path, tmp_path
):
    killed(path)
    kept = restore(backup, path)
    assert await is_the_backup(path)
    assert asked(kept, "SELECT count(*) FROM journal") == [(601,)]
    # And back again: a kept file can be restored, with what is in its log.
    with restoring.restoring(kept, str(path)) as ready:
        assert ready.backup.journal == 601
        ready.commit()
    assert asked(path, "SELECT count(*) FROM journal") == [(601,)]


@pytest.mark.parametrize("fault", ["pages", "head", "log", "empty", "missing"])
async def test_a_damaged_store_can_be_replaced_and_is_kept_as_it_was(backup, path, fault):
    match fault:
        case "pages":
            damage(path)
        case "head":
            path.write_bytes(b"no database" * 1000)
        case "log":
            (path.parent / "cronally.db-wal").write_bytes(b"no log" * 1000)
        case "empty":
            path.write_bytes(b"")
        case "missing":
            path.unlink()
    before = path.read_bytes() if path.exists() else None
    with restoring.restoring(str(backup), str(path)) as ready:
        assert (ready.damage is not None) is (fault in ("pages", "head", "empty"))
        assert (ready.present is None) is (fault != "log")
        kept = ready.commit()
    assert await is_the_backup(path)
    assert (kept is None) is (before is None)
    if kept is not None:
        assert (path.parent / Path(kept).name).read_bytes() == before


async def test_a_store_that_was_never_there_is_made(backup, tmp_path):
    new = tmp_path / "other" / "place.db"
    assert restore(backup, new) is None
    assert await is_the_backup(new)


async def test_a_store_named_by_a_link_is_replaced_where_it_lies(backup, path, tmp_path):
    link = tmp_path / "link.db"
    link.symlink_to(path)
    restore(backup, link)
    assert link.is_symlink()
    assert await is_the_backup(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root restores for another user")
async def test_root_leaves_the_files_to_the_owner_of_the_store(backup, path, tmp_path):
    os.chown(path, NOBODY, NOBODY)
    restore(backup, path)
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    new = tmp_path / "new" / "cronally.db"
    new.parent.mkdir()
    os.chown(new.parent, NOBODY, NOBODY)
    restore(backup, new)
    for file in (new, new.with_name("cronally.db.lock")):
        assert file.stat().st_uid == NOBODY, file


# --- what it refuses ----------------------------------------------------------------------------------------------


async def test_a_store_in_use_is_left_alone_and_the_holder_named(backup, path, capsys):
    store, _ = await opened(path)
    with pytest.raises(StoreLocked, match=f"pid {os.getpid()}.*stop it first"):
        restore(backup, path)
    assert main(["restore", str(backup), "--store", f"sqlite:{path}", "--yes"]) == 1
    assert f"pid {os.getpid()}" in capsys.readouterr().err
    await store.close(watermark=None)
    assert not await is_the_backup(path)


async def test_a_file_that_is_no_sound_backup_changes_nothing(backup, path, tmp_path):
    def copy(name):
        return shutil.copyfile(backup, tmp_path / name)

    letter = tmp_path / "letter"
    letter.write_text("dear reader")
    asked(other := tmp_path / "other.db", "CREATE TABLE t (x)")
    damage(broken := copy("broken.db"))
    cut = copy("cut.db")
    os.truncate(cut, cut.stat().st_size // 2)
    newer = copy("newer.db")
    asked(newer, "PRAGMA user_version = 99")
    cases = (
        (tmp_path / "none", UsageError, "cannot be read"),
        (tmp_path, UsageError, "is no file"),
        (letter, UsageError, "no backup"),
        (other, UsageError, "no backup"),
        (path, UsageError, "the store itself"),
        (broken, BackupUnusable, "damaged"),
        (cut, BackupUnusable, "damaged"),
        (newer, SchemaMismatch, "schema version 99"),
    )
    for file, kind, words in cases:
        with pytest.raises(kind, match=words):
            restore(file, path)
        assert names_in(path.parent) == ["cronally.db", "cronally.db.lock"]
    assert not await is_the_backup(path)


async def test_a_store_of_a_running_daemon_is_no_backup(backup, path, tmp_path):
    other, _ = await opened(tmp_path / "other.db")
    with pytest.raises(StoreLocked, match="cronally backup"):
        restore(tmp_path / "other.db", path)
    await other.close(watermark=None)
    assert not await is_the_backup(path)


async def test_a_file_of_another_program_is_not_replaced(backup, tmp_path):
    asked(other := tmp_path / "other.db", "PRAGMA application_id = 7")
    asked(other, "CREATE TABLE t (x)")
    with pytest.raises(UsageError, match="another program"):
        restore(backup, other)
    assert asked(other, "SELECT count(*) FROM t") == [(0,)]


# --- interrupted --------------------------------------------------------------------------------------------------

STEPS = ("rename", "unlink", "fsync")


class Interrupted(BaseException):
    pass


async def test_interrupted_at_any_step_it_has_happened_wholly_or_not_at_all_and_can_be_run_again(
    backup, path, tmp_path, monkeypatch
):
    """The process stops before the Nth rename, removal or sync, for every N."""
    killed(path)
    pristine = shutil.copytree(path.parent, tmp_path / "pristine")
    outcomes = set()
    for stop_at in range(100):
        shutil.rmtree(path.parent)
        shutil.copytree(pristine, path.parent)
        steps = 0
        with monkeypatch.context() as patch:

            def step(real, most=stop_at):
                def counted(*args, **keys):
                    nonlocal steps
                    if steps >= most:
                        raise Interrupted
                    steps += 1
                    return real(*args, **keys)

                return counted

            for name in STEPS:
                patch.setattr(os, name, step(getattr(os, name)))
            with suppress(Interrupted):
                restore(backup, path)
        is_whole = steps < stop_at
        shutil.copytree(path.parent, tmp_path / f"after-{stop_at}")
        # A daemon that is started finds the one or the other.
        outcomes.add(await is_the_backup(path))
        # Run again, it is done; and what was there first is still there.
        shutil.rmtree(path.parent)
        shutil.copytree(tmp_path / f"after-{stop_at}", path.parent)
        restore(backup, path)
        assert await is_the_backup(path)
        kept = [
            entry for entry in path.parent.iterdir() if ".before-" in entry.name and entry.name.endswith("Z")
        ]
        assert (601,) in [row for file in kept for row in asked(file, "SELECT count(*) FROM journal")]
        if is_whole:
            break
    else:
        raise AssertionError("it never came to its end")
    assert stop_at > 8
    assert outcomes == {False, True}


async def test_a_step_that_fails_is_said_in_a_sentence(backup, path, monkeypatch):
    def refuse(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, restoring.restoring(str(backup), str(path)) as ready:
        patch.setattr(os, "rename", refuse)
        with pytest.raises(StoreError, match="no space is left"):
            ready.commit()
    assert not await is_the_backup(path)


async def test_a_kill_in_the_middle_leaves_nothing_half_done(backup, path):
    """The process itself, killed where the restore is decided and nothing of it is done."""
    script = (
        "import os, signal, sys\nfrom cronally.store import restoring\n"
        "with restoring.restoring(*sys.argv[1:]) as ready:\n"
        "    restoring.finish_restore = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    ready.commit()\n"
    )
    assert run_python(script, backup, path).returncode == -signal.SIGKILL
    assert (path.parent / "cronally.db.restore").exists()
    store, _ = await opened(path)
    assert store.kept_by_restore.startswith(f"{path}.before-")
    await store.close(watermark=None)
    assert await is_the_backup(path)


# --- the command --------------------------------------------------------------------------------------------------


def test_off_a_terminal_it_needs_yes_and_a_dry_run_changes_nothing(backup, path, capsys):
    words = ["restore", str(backup), "--store", f"sqlite:{path}"]
    assert main(words) == 2
    assert "--yes" in capsys.readouterr().err
    before = {entry.name: entry.read_bytes() for entry in path.parent.iterdir()}
    assert main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    for line in (
        "schedules not in the backup, which will be gone (1): new-since",
        "schedules only in the backup, which will be back (1): removed-since",
        "schedules different in the backup, which will be as they were (1): changed-since",
        "journal entries about slots after the backup, which will be gone: 500",
        "Slots due after 2026-11-24T09:00:00Z are decided by each schedule's catch_up when the daemon starts;",
        "what was published since then may be published once more, with the same fire id.",
        "nothing was changed (--dry-run)",
    ):
        assert line in out.splitlines()
    assert {entry.name: entry.read_bytes() for entry in path.parent.iterdir()}.keys() == before.keys()
    assert path.read_bytes() == before["cronally.db"]


def test_with_yes_it_says_what_it_did(backup, path, capsys):
    words = ["restore", str(backup), "--store", f"sqlite:{path}", "--yes"]
    assert main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["store"], said["restored"], said["damage"]) == (str(path), True, None)
    assert said["kept"].startswith(f"{path}.before-")
    assert said["backup"]["file"] == str(backup)
    assert (said["backup"]["schedules"], said["present"]["journal"], said["difference"]["entries"]) == (
        3,
        501,
        500,
    )
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "The schedules are the same." in out
    assert f"restored {path}; the store before it is kept as {path}.before-" in out


@pytest.mark.parametrize("answer", ["y\n", "\n"])
def test_on_a_terminal_it_shows_and_asks(backup, path, capsys, monkeypatch, answer):
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    code = main(["restore", str(backup), "--store", f"sqlite:{path}"])
    out, err = capsys.readouterr()
    assert code == (0 if answer == "y\n" else 1)
    assert f"Replace {path}? [y/N]" in err
    assert "new-since" in out + err
    assert ("nothing was changed" in err) is (answer != "y\n")
