"""The steps of the Containerfile, outside of a container: there is no engine where tests run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cronally import __version__
from support.containerfile import CONTAINERFILE, stages
from support.processes import Installation

ROOT = CONTAINERFILE.parent
TARGET, STATE = "/opt/cronally", "/var/lib"


def ignored():
    """Return what the build sees of the repository: the names after the ``!`` of .containerignore."""
    lines = (ROOT / ".containerignore").read_text().splitlines()
    return [line[1:] for line in lines if line.startswith("!")]


def test_it_runs_as_nobody_and_writes_to_its_volume_alone():
    build, last = stages()
    assert build.image.removesuffix(" AS build") == last.image  # of another, the environment would not run
    assert last.said["COPY"] == [f"--from=build {TARGET} {TARGET}"]
    user, group = last.words("USER")[0].split(":")
    assert int(user) > 0
    assert int(group) > 0
    assert last.words("VOLUME") == [f"{STATE}/cronally"]
    assert last.environment["XDG_STATE_HOME"] == STATE
    assert last.words("RUN")[:-1] == ["install", "-d", "-o", user, "-g", group, "-m", "0750"]
    assert last.words("RUN")[-1] == f"{STATE}/cronally"


def test_both_names_of_the_list_of_what_is_left_out_say_the_same():
    assert (ROOT / ".dockerignore").read_text() == (ROOT / ".containerignore").read_text()


@pytest.mark.long
@pytest.mark.timeout(300)
def test_its_steps_install_a_daemon_that_starts_is_healthy_and_stops(tmp_path, installation):
    build, last = stages()
    source, target = tmp_path / "source", tmp_path / "opt"
    source.mkdir()
    for pattern in ignored():
        for path in ROOT.glob(pattern):
            copy = shutil.copytree if path.is_dir() else shutil.copy
            copy(path, source / path.name)
    assert build.said["COPY"] == [". ."]
    step = build.words("RUN")
    assert step == ["sh", "deploy/container/install.sh", "/source", TARGET]
    done = subprocess.run(
        [*step[:2], source, target], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"cronally {__version__}"
    assert not list(target.glob("bin/pip*"))

    command = Path(shutil.which(last.words("ENTRYPOINT")[0], path=target / "bin"))
    assert last.words("CMD") == ["serve"]  # which start() says
    home = installation.home
    installed = Installation(home, receiver_url="http://127.0.0.1:9", extra={"XDG_STATE_HOME": str(home)})
    check = [command, *last.words("HEALTHCHECK")[1:]]
    before = subprocess.run(check, env=installed.environment, capture_output=True, check=False)
    assert before.returncode == 3  # no daemon
    installed.start(command=[command])
    try:
        assert subprocess.run(check, env=installed.environment, check=False).returncode == 0
        # Outside of the volume nothing was written, though all of it could be.
        assert [path.name for path in home.iterdir()] == ["cronally"]
    finally:
        assert installed.stop() == 0
