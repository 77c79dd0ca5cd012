"""What holds for all tests."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

from support.processes import Installation
from support.table_servers import table_server

# How long an example takes says more of the machine than of the code; what must be fast is counted or benchmarked.
settings.register_profile("cronally", deadline=None)
settings.load_profile("cronally")


@pytest.fixture
def installation():
    """The installed command in a home of its own."""
    # Not tmp_path: a Unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as home:
        installation = Installation(Path(home))
        yield installation
        installation.clear()


@pytest.fixture
def aws_files(tmp_path, monkeypatch):
    """Where the files of AWS tools would be; nothing of this machine's user is found."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


@pytest.fixture(scope="session")
def table_url():
    """Return the URL of a server that speaks DynamoDB, by its kind."""

    def url(kind):
        found = table_server(kind)
        if found is None:
            pytest.skip(f"{kind} is not installed (make {kind})")
        return found

    return url
