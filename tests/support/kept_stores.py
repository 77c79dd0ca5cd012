"""A store with a bit of everything, as an engine fills it, in SQL: what is kept of each version of the schema.

``make kept-store`` writes that of the present version to ``tests/fixtures/``. It stays there as it is, whatever later
versions write: ``integration/test_migrations.py`` brings each of them up to date.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

import aiosqlite

from cronally.engine.records import ZoneRecord
from cronally.instants import parse_rfc3339
from cronally.store.schema import APPLICATION_ID, MIGRATIONS
from cronally.store.sqlite import SqliteStore
from support.fake_clock import FakeClock
from support.recording_publisher import PUBLISHED, REJECTED, TIMED_OUT, TOPIC_GONE, Answer
from support.rig import FIFO_TOPIC, TOPIC, Rig, running_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cronally.domain.message import Entry
    from cronally.instants import UtcMs

_T = TypeVar("_T")

GONE = "arn:aws:sns:us-east-1:123456789012:gone"
STUCK_FIFO = "arn:aws:sns:us-east-1:123456789012:stuck.fifo"
UNHEARD = "arn:aws:sns:us-east-1:123456789012:unheard"


FIXTURES = Path(__file__).parent.parent / "fixtures"


def kept(version: int) -> Path:
    """Return where the store of a version of the schema is kept."""
    return FIXTURES / f"schema_{version}.sql"


@contextmanager
def answers_at_once() -> Iterator[None]:
    """Have no threads between a store and its file, for the block: a clock that stands still does not wait for them."""
    with patch.multiple(aiosqlite.Connection, _connect=_connect_here, _execute=_execute_here):
        yield


async def _connect_here(connection: Any) -> Any:
    connection._connection = connection._connector()
    return connection


async def _execute_here(_: object, function: Callable[..., _T], *arguments: object, **keys: object) -> _T:
    return function(*arguments, **keys)


async def vanish(store: SqliteStore) -> None:
    """Let go of the file without a word, as a killed process does."""
    await store._database.close()
    store._opened = None


def dump(path: Path) -> str:
    """Return the store at *path* as SQL, with its version; a row a line."""
    with closing(sqlite3.connect(path)) as connection:
        [[version]] = connection.execute("PRAGMA user_version")
        marks = [f"PRAGMA application_id = {APPLICATION_ID};", f"PRAGMA user_version = {version};"]
        return "\n".join([*marks, *connection.iterdump(), ""])


def restore(sql: str, path: Path) -> None:
    """Make the store again that *sql* is of."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(sql)


async def write(path: Path) -> None:
    """Write the store at *path*: two lives of an engine, both of which end in a crash, the second after its clock was set back."""
    clock = FakeClock("2026-11-23T08:59:30Z")
    store = SqliteStore(path)
    with answers_at_once():
        async with running_engine(clock=clock, store=store, script=_answer, crash=True) as rig:
            await _first_life(rig)
        await vanish(store)
        await clock.advance_to("2026-11-23T09:20:30Z")
        async with running_engine(clock=clock, store=store, script=_answer, crash=True) as rig:
            await _second_life(rig)
            await store.keep_zone_records(
                [ZoneRecord("Europe/Berlin", "2025b", (-1, 1_795_000_000), (7200, 3600))]
            )
            await store.prune(_at("09:00:30"))
            rig.clock.step_wall(-100_000)
            await rig.clock.advance(5)
        await vanish(store)


def _answer(entry: Entry, attempt: int) -> Answer:
    if entry.topic in (GONE, STUCK_FIFO):
        return TOPIC_GONE
    if entry.topic == UNHEARD:
        return TIMED_OUT
    return REJECTED if entry.name == "refused" and attempt == 1 else PUBLISHED


async def _first_life(rig: Rig) -> None:
    clock, service = rig.clock, rig.service
    await rig.add("nightly", "0 10 * * 1-5", tz="Europe/Berlin", note="Grüße", tags=["team:munich", "daily"])
    changed = {"tz": "Europe/Berlin", "message": '{"report": "täglich"}', "attributes": {"kind": "a"}}
    await rig.set("nightly", when="2 10 * * 1-5", subject="Report", **changed)
    await rig.add("spread", "*/2 * * * *", spread="40s", catch_up="all")
    await rig.add("quartz", "0 0/5 * ? * MON-FRI", dialect="quartz", catch_up="skip")
    await rig.add("every", "@every 90s", starts="2026-11-23T09:00:00Z", ends="2026-11-23T09:30:00Z")
    await rig.add("once", "@at 2026-11-23T09:01:30Z")
    await rig.add("later", "@at 2026-12-24T18:00", tz="Europe/Berlin")
    await rig.add("gap", "30 2 * * *", tz="America/New_York", on_gap="skip", on_repeat="both")
    await rig.add("orders", "* * * * *", topic=FIFO_TOPIC, group="eu")
    await rig.add("stuck", "* * * * *", topic=STUCK_FIFO, group="eu", catch_up="all")
    await rig.add("refused", "3 9 * * *", late_after="60s", priority=9)
    await rig.add("brief", "* * * * *", topic=GONE, deadline="90s", catch_up="all", priority=8)
    await rig.add("held", "* * * * *", topic=GONE, catch_up="all", priority=3)
    await rig.add("newest", "* * * * *", topic=GONE)
    await rig.add("unheard", "*/2 * * * *", topic=UNHEARD)
    for name in ("resting", "back", "until"):
        await rig.add(name, "* * * * *")
    for name in ("old", "old-held", "old-dropped"):
        await rig.add(name, "* * * * *", topic=TOPIC if name == "old" else GONE, catch_up="all")
    files = [_of_a_file(name) for name in ("of-a-file", "of-a-file-too")]
    await rig.apply(*files, owner="files")
    await clock.advance_to(_at("09:01:10"))
    await service.pause("resting", by="uid 1000 (anna)", note="über Nacht")
    await service.pause("back", by="uid 1000 (anna)")
    await service.pause("until", by="uid 1000 (anna)", until=_at("09:06:00"))
    await clock.advance_to(_at("09:03:20"))
    await service.resume("back", by="uid 1001")
    await service.remove("old", by="uid 1001")
    await service.remove("old-held", by="uid 1001")
    await service.remove("old-dropped", by="uid 1001", drop_pending=True)
    assert await service.run("nightly", by="uid 1001", idempotency_key="by-hand")
    await rig.apply({**files[0], "note": "changed"}, owner="files")
    await clock.advance_to(_at("09:04:30"))


async def _second_life(rig: Rig) -> None:
    clock, service = rig.clock, rig.service
    await clock.settle()
    await service.run("gap", by="uid 1001")
    await rig.add("old", "0 0 * * *")
    await service.move("once", "one-time", by="uid 1000 (anna)")
    await service.retry(["refused@2026-11-23T09:03:00Z"], by="uid 1001")
    await service.backfill(
        "of-a-file", first="2026-06-01", last="2026-08-02", by="uid 1001", idempotency_key="past"
    )
    await service.backfill("held", first="2026-11-23 08:00", last="2026-11-23 08:02", by="uid 1001")
    await rig.apply({**_of_a_file("of-a-file"), "note": "changed"}, owner="files", is_pruning=True)
    await clock.advance_to(_at("09:22:10"))
    await service.pause("quartz", by="uid 1000 (anna)", until=_at("12:00:00"), note="until noon")
    await clock.advance_to(_at("09:23:10"))


def _at(time: str) -> UtcMs:
    """Return an instant of the day."""
    return parse_rfc3339(f"2026-11-23T{time}Z")


def _of_a_file(name: str) -> dict[str, object]:
    """Return a schedule of a file."""
    return {"name": name, "when": "0 0 1 * *", "topic": TOPIC}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        made = Path(directory, "cronally.db")
        asyncio.run(write(made))
        kept(len(MIGRATIONS)).write_text(dump(made), encoding="utf-8")
