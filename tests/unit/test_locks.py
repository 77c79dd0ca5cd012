"""requirements.lock and requirements-build.lock: that they say what constraints.txt says, and leave nothing out."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-build.lock"]
_LINE = re.compile(r"([A-Za-z0-9._-]+)==(\S+)")


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()  # PEP 503


def pins(file):
    """Return the version that *file* gives each package."""
    found = map(_LINE.match, (ROOT / file).read_text().splitlines())
    return {plain(each[1]): each[2] for each in found if each}


def needed(requirements):
    """Return the names of what *requirements* come to on this machine, with what those need in turn."""
    names = set()
    coming = list(requirements)
    while coming:
        text, _, marker = coming.pop().partition(";")
        name = plain(re.match(r"[A-Za-z0-9._-]+", text)[0])
        if name in names or "extra ==" in marker or re.search(r"win32|Windows|python_version <|PyPy", marker):
            continue
        names.add(name)
        coming += requires(name) or []
    return names


@pytest.mark.parametrize("file", LOCKS)
def test_a_lock_pins_what_is_tested_as_make_lock_writes_it(file):
    pinned = pins("constraints.txt")
    assert pins(file).items() <= pinned.items()


def test_all_that_cronally_needs_is_locked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert needed(project["dependencies"]) <= pins("requirements.lock").keys()


def test_what_the_wheel_is_built_with_is_locked():
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    built_with = document["build-system"]["requires"]
    assert set(built_with) <= set(document["dependency-groups"]["wheel"])
    locked = pins("requirements-build.lock").keys()
    assert {plain(re.split(r"[<>=]", each)[0]) for each in document["dependency-groups"]["wheel"]} <= locked


@pytest.mark.parametrize("file", LOCKS)
def test_a_lock_has_hashes_for_all_and_names_no_index(file):
    text = (ROOT / file).read_text()
    entries = re.split(r"\n(?=[A-Za-z])", text.partition("\n#    make lock\n")[2])
    assert len(entries) == len(pins(file))
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert "://" not in text
    assert "--index" not in text
    # What is compiled has files for each Python on Linux and macOS.
    assert all(entry.count("--hash") > 20 for entry in entries if entry.startswith(("aiohttp==", "uvloop==")))
