"""What ``doctor`` says about stores in real files."""

from __future__ import annotations

import pytest

from cronally.domain.findings import Health
from cronally.store.examination import examine_store
from cronally.store.lock import locked
from support.store_files import PAGE, creation, damage

MOST = 2 << 30


def examined(path, *, is_daemon=False, is_late=lambda: False):
    return {
        one.check: one
        for one in examine_store(str(path), max_bytes=MOST, is_daemon=is_daemon, is_late=is_late)
    }


@pytest.fixture
async def filled(store, path):
    """The path of a store with schedules, closed in order."""
    for number in range(200):
        await store.change(creation(f"job-{number}", message="x" * 500))
    await store.close(watermark=None)
    return path


def listing(path):
    return sorted((one.name, one.stat().st_mtime_ns, one.stat().st_size) for one in path.parent.iterdir())


async def test_a_sound_store_is_called_that_and_not_touched(filled):
    before = listing(filled)
    found = examined(filled)
    assert [one.health for one in found.values()] == [Health.OK] * 3
    assert "is sound (quick_check)" in found["store"].text
    assert listing(filled) == before


def test_where_there_is_none_none_is_made(path):
    found = examined(path)
    assert [one.health for one in found.values()] == [Health.OK] * 3
    assert "'cronally serve' makes it" in found["store"].text
    assert "can be made" in found["permissions"].text
    assert not path.parent.exists()


async def test_damage_is_found_with_the_way_back(filled):
    damage(filled, from_page=filled.stat().st_size // PAGE // 2)
    found = examined(filled)["store"]
    assert found.health is Health.FAILED
    assert "is damaged" in found.text
    assert f"cronally restore FILE --store sqlite:{filled}" in found.fix


async def test_a_store_that_is_in_use_is_not_read(filled):
    damage(filled)
    with locked(str(filled), fix="wait"):
        assert "in use by a process" in examined(filled)["store"].text
    assert "in use by the daemon" in examined(filled, is_daemon=True)["store"].text
    assert examined(filled)["store"].health is Health.FAILED


async def test_a_daemon_may_start_while_its_store_is_examined(filled, monkeypatch):
    damage(filled)

    def taken():
        holding.__enter__()

    holding = locked(str(filled), fix="wait")
    monkeypatch.setattr("cronally.store.examination.check", lambda _: (taken(), 1 / 0)[1])
    monkeypatch.setattr("cronally.store.examination.is_damage", lambda _: True)
    monkeypatch.setattr("cronally.store.examination.sqlite3.Error", ZeroDivisionError)
    assert "has just been taken by a daemon" in examined(filled)["store"].text
    holding.__exit__(None, None, None)


async def test_a_check_that_takes_too_long_is_given_up(filled, monkeypatch):
    monkeypatch.setattr("cronally.store.examination._STEPS", 10)
    found = examined(filled, is_late=lambda: True)["store"]
    assert found.health is Health.WARNING
    assert "cronally backup FILE" in found.fix


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"", "no store of cronally's"), (b"x" * 5_000, "no store of cronally's"), (None, "cannot be read")],
    ids=["empty", "another file", "a directory"],
)
def test_what_is_no_store_is_called_that(path, content, part):
    path.parent.mkdir()
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    found = examined(path)["store"]
    assert found.health is Health.FAILED
    assert part in found.text


@pytest.mark.parametrize(
    ("file_mode", "directory_mode", "part"),
    [(0o644, 0o755, "everybody may read"), (0o600, 0o777, "everybody may write"), (0o644, 0o750, None)],
)
async def test_rights_that_are_too_wide(filled, file_mode, directory_mode, part):
    filled.chmod(file_mode)
    filled.parent.chmod(directory_mode)
    found = examined(filled)["permissions"]
    assert found.health is (Health.OK if part is None else Health.WARNING)
    if part is not None:
        assert part in found.text
        assert found.fix.startswith("chmod o-")


async def test_rights_that_are_missing(filled, monkeypatch):
    monkeypatch.setattr("cronally.store.examination.os.access", lambda place, _: place != str(filled))
    found = examined(filled)["permissions"]
    assert found.health is Health.FAILED
    assert f"may not read and write {filled}" in found.text
    assert (
        examined(filled, is_daemon=True)["permissions"].health is Health.OK
    )  # the daemon may, and it is another


async def test_a_file_in_the_place_of_the_directory(tmp_path):
    (tmp_path / "state").write_text("")
    found = examined(tmp_path / "state" / "cronally.db")
    assert found["permissions"].health is Health.FAILED
    assert (tmp_path / "state").is_file()
