"""What the daemon's log says."""

from cronally.domain.durations import DAY_MS, HOUR_MS
from cronally.engine.journalist import Journalist
from cronally.engine.records import Machine
from cronally.engine.retention import Keep
from cronally.errors import StoreBusy
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


def test_what_becomes_of_machines_and_shards_is_said(caplog):
    caplog.set_level("INFO")
    journalist = Journalist(FakeClock(), Keep(keep_ms=2 * DAY_MS, max_bytes=512 << 20))
    gone = Machine("b-1", "b", 7, 0, None, {}, 8_000, 0, T)
    journalist.machine_joined(gone)
    journalist.machine_gone(gone._replace(is_retired=True))
    journalist.machine_gone(gone._replace(is_retired=True, has_left=True))
    journalist.shards_taken([3, 17], gone)
    journalist.shards_taken([4], None)
    journalist.shard_given(4)
    journalist.table_failed(StoreBusy("no answer"))
    journalist.table_answers(2.34)
    journalist.lease_lost("another machine has retired this one")
    assert [record.action for record in caplog.records] == [
        "machine.joined",
        "machine.retired",
        "machine.left",
        "shard.taken",
        "shard.taken",
        "shard.given",
        "table.unreachable",
        "table.answers",
        "lease.lost",
    ]
    assert "silent for 8s, its whole lease" in caplog.messages[1]
    assert "shards 3, 17 from now on; b had them" in caplog.messages[3]
    assert caplog.messages[4] == "this machine drives shard 4 from now on"
    assert caplog.records[3].fields == {"shards": [3, 17], "of": "b"}
    assert "after 2.3 s" in caplog.messages[7]
