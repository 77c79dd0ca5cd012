from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from support.processes import Installation


@pytest.fixture
def installation():
    # Not tmp_path: a Unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as home:
        installation = Installation(Path(home))
        yield installation
        installation.clear()
