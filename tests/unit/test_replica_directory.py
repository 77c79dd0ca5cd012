"""Where the replicas of a daemon lie."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cronally.errors import StoreError
from cronally.store.replica_directory import replica_directory

HOLDER = """
import sys
from cronally.store.replica_directory import replica_directory

with replica_directory(sys.argv[1], "jobs") as path:
    print(path, flush=True)
    sys.stdin.read()
"""


def test_it_is_there_for_as_long_as_it_is_used(tmp_path):
    with replica_directory(str(tmp_path), "jobs") as path:
        assert Path(path).is_dir()
        assert Path(path).stat().st_mode & 0o777 == 0o750
        (Path(path) / "own.db").touch()
    assert list(tmp_path.iterdir()) == []


def test_what_a_daemon_that_was_killed_has_left_goes_and_what_another_uses_stays(tmp_path):
    holder = [sys.executable, "-c", HOLDER, str(tmp_path)]
    killed = subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    living = subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with killed, living:
        left, used = (Path(one.stdout.readline().strip()) for one in (killed, living))
        killed.kill()
        killed.wait()
        others = [tmp_path / "jobs-x", tmp_path / "jobs-eu-7", tmp_path / "other-7"]
        for other in others:
            other.mkdir()
        assert left.is_dir()
        with replica_directory(str(tmp_path), "jobs") as path:
            there = {tmp_path / f"jobs-{os.getpid()}", used, *others}
            assert {Path(path), *tmp_path.iterdir()} == there
        living.stdin.close()
        assert living.wait(20) == 0
    assert not used.exists()


def test_a_place_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"), replica_directory(str(tmp_path / "file"), "jobs"):
        pass
