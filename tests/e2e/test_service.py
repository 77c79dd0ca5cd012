"""The daemon as a service: what it tells the service manager, and what SIGHUP does."""

from __future__ import annotations

import ctypes
import signal

import pytest

from support.service_manager import service_manager

TOPIC = "arn:aws:sns:us-east-1:123456789012:reports"
PR_SET_MDWE, PR_GET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 66, 1  # prctl(2), Linux 6.3
LIBC = ctypes.CDLL(None, use_errno=True)
KNOWS_MDWE = hasattr(LIBC, "prctl") and LIBC.prctl(PR_GET_MDWE, 0, 0, 0, 0) >= 0


@pytest.fixture
def daemon(installation):
    """An installation that publishes to nobody, and settings of its own."""
    installation.receiver_url = "http://127.0.0.1:9"
    settings = installation.home / "cronally.toml"
    settings.write_text('[journal]\nkeep = "30d"\n')
    return installation, settings


def reload(installation):
    """Send SIGHUP and return what the log says of it."""
    said = len(installation.log)
    installation.signal(signal.SIGHUP)
    installation.wait_for("settings are", since=said)
    return "".join(installation.log[said:])


def test_a_hangup_takes_over_what_can_be_and_refuses_what_is_wrong_entirely(daemon):
    installation, settings = daemon
    installation.start("--config", str(settings))
    settings.write_text(f'socket = "/run/x.sock"\n[journal]\nkeep = "90d"\n[sns]\ntopics = ["{TOPIC}*"]\n')
    said = reload(installation)
    assert f"reload: journal.keep: 30d -> 90d (from {settings})" in said
    assert f"reload: sns.topics: all -> {TOPIC}* (from {settings})" in said
    assert "reload: socket: " in said
    assert "but not before a restart" in said
    with installation.client() as client:
        assert client.status().journal_keep == "90d"
    refused = installation.run("add", "no", "0 9 * * *", "--topic", TOPIC.replace("reports", "other"))
    assert (refused.returncode, "sns.topics" in refused.stderr) == (2, True)
    settings.write_text('[journal]\nkeep = "1d"\nkep = "1h"\n')
    said = reload(installation)
    assert "the settings are not read again, and stay as they were: " in said
    assert "did you mean 'journal.keep'" in said
    with installation.client() as client:
        assert client.status().journal_keep == "90d"
    refused = installation.run("add", "no", "0 9 * * *", "--topic", TOPIC.replace("reports", "other"))
    assert refused.returncode == 2
    settings.unlink()
    assert "cannot be read" in reload(installation)
    assert installation.stop() == 0


def test_a_hangup_without_a_file_and_at_any_moment_ends_nothing(daemon):
    installation, _ = daemon
    installation.start()
    assert "the settings are read again: 0 changed" in reload(installation)
    for _ in range(20):
        installation.signal(signal.SIGHUP)
    installation.signal(signal.SIGTERM)
    installation.signal(signal.SIGHUP)
    assert installation.wait() == 0


def test_a_service_manager_is_told_of_start_reload_and_stop(daemon):
    installation, settings = daemon
    with service_manager(installation.home / "notify") as heard:
        installation.extra = {
            "NOTIFY_SOCKET": str(installation.home / "notify"),
            "WATCHDOG_USEC": "400000",
        }
        installation.begin("--config", str(settings))
        assert heard.next() == {"STATUS": "not ready: it is starting"}
        ready = heard.wait_for("READY")
        assert ready == {"READY": "1", "STATUS": "ready"}
        with installation.client() as client:  # not before the socket answers
            assert client.status().is_ready
        assert heard.wait_for("WATCHDOG") == {"WATCHDOG": "1"}
        assert heard.wait_for("WATCHDOG") == {"WATCHDOG": "1"}
        installation.signal(signal.SIGHUP)
        assert heard.wait_for("RELOADING")["MONOTONIC_USEC"].isdigit()
        assert heard.wait_for("READY")["STATUS"] == "ready"
        installation.signal(signal.SIGTERM)
        stopping = heard.wait_for("STOPPING")
        assert stopping["STATUS"] == "not ready: it is stopping"
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 10_000_000
        assert installation.wait() == 0


def refuse_to_gain_execution():
    """What MemoryDenyWriteExecute=yes comes to, for this process and those it becomes."""
    LIBC.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)


@pytest.mark.skipif(not KNOWS_MDWE, reason="the kernel is older than Linux 6.3")
def test_it_runs_where_no_memory_may_be_written_and_executed(daemon):
    installation, _ = daemon
    installation.begin(before=refuse_to_gain_execution)
    installation.wait_for("ready")
    added = installation.run("add", "job", "0 9 * * *", "--topic", TOPIC)
    assert (added.returncode, added.stderr) == (0, "")
    assert installation.stop() == 0


@pytest.mark.long
def test_a_daemon_that_does_not_turn_is_not_called_alive(daemon):
    installation, _ = daemon
    with service_manager(installation.home / "notify") as heard:
        installation.extra = {"NOTIFY_SOCKET": str(installation.home / "notify"), "WATCHDOG_USEC": "400000"}
        installation.begin()
        heard.wait_for("READY")
        installation.signal(signal.SIGSTOP)
        heard.until_silent(2)  # five times what the watchdog waits
        installation.signal(signal.SIGABRT)  # what systemd sends then
        installation.signal(signal.SIGCONT)
        assert installation.wait() == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in "".join(installation.log)
