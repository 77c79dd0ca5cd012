from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from support.processes import Installation
from support.receiver import start_receiver


@pytest.fixture
def home():
    # Not tmp_path: a Unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture
def receiver(home):
    running = start_receiver(Installation(home).environment)
    yield running
    running.stop()


@pytest.fixture
def installation(home, receiver):
    installation = Installation(home, receiver_url=receiver.url)
    yield installation
    installation.clear()
