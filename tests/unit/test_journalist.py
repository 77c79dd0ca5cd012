"""What the daemon's log says."""

from cronally.domain.durations import DAY_MS, HOUR_MS
from cronally.engine.journalist import Journalist
from cronally.engine.retention import Keep
from cronally.instants import parse_rfc3339
from support.fake_clock import FakeClock

T = parse_rfc3339("2026-11-23T09:00:00Z")


def test_what_is_pruned_for_the_size_is_said_once_for_each_hour_of_the_journal(caplog):
    journalist = Journalist(FakeClock(), Keep(keep_ms=2 * DAY_MS, max_bytes=512 << 20))
    journalist.pruned(1_000, T - DAY_MS, for_size=False)
    assert caplog.messages == []
    for through in (T, T + HOUR_MS - 1, T + HOUR_MS, T + HOUR_MS + 1):
        journalist.pruned(250, through, for_size=True)
    first, _second = caplog.messages
    assert "journal.max_size (512 MiB): 250 journal entries, of slots due up to 2026-11-23T09:00:00Z" in first
    assert "before they are 2d old" in first
