"""What another version of the time zone data is found to have moved."""

import pytest

from cronally.domain.recurrence import Recurrence
from cronally.domain.zones import Zone, load_zone
from cronally.engine.hooks import Hooks
from cronally.engine.records import ZoneRecord
from cronally.engine.zone_watch import MOST_NAMES, ZoneWatch, differing, has_moved
from cronally.errors import StoreBusy
from cronally.instants import format_utc, parse_rfc3339
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.rig import running_engine
from support.work import count_calls

LONDON = {"tz": "Europe/London"}
NOW = parse_rfc3339("2026-11-23T09:00:00Z")
IN_TWO_YEARS = parse_rfc3339("2028-11-22T09:00:00Z")


class Listener(Hooks):
    def __init__(self):
        self.changes = []

    def zones_changed(self, change):
        self.changes.append(change)


def watch(rig, version, hooks=None):
    return ZoneWatch(rig.engine.core, rig.store, rig.clock, hooks or Listener(), version=version)


def shifted(zone, hours, since="0001-01-01T00:00:00Z", until="9999-01-01T00:00:00Z"):
    """Return *zone* with clocks that go *hours* ahead of it, from one instant to another."""
    since_s, until_s = parse_rfc3339(since) // 1000, parse_rfc3339(until) // 1000
    starts = sorted({*zone.starts[:-1], since_s, until_s})
    offsets = [
        zone.offset_at(start) + (hours * 3600 if since_s <= start < until_s else 0) for start in starts
    ]
    return Zone(zone.name, starts, offsets)


async def say(rig, version, zone):
    """Let the record say that *zone* was like that under *version*."""
    await rig.store.keep_zone_records(
        [ZoneRecord(zone.name, version, tuple(zone.starts[:-1]), tuple(zone.offsets))]
    )


def recorded(store):
    return {name: row.tzdata for name, row in store._zones.items()}


async def test_zones_are_put_on_record_once():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *", **LONDON)
        await rig.add("b", "0 10 * * *", **LONDON)
        await rig.add("c", "0 9 * * *")
        await rig.add("d", "@every 1h", tz="Asia/Tokyo")
        zones = watch(rig, "2026a")
        await zones.look()
        assert recorded(rig.store) == {"Europe/London": "2026a"}
        [row] = rig.store._zones.values()
        london = load_zone("Europe/London")
        again = Zone(row.name, [*row.starts], [*row.offsets])
        assert (again.starts, again.offsets, again.high) == (london.starts, london.offsets, london.high)
        await rig.add("e", "0 10 * * *", tz="Europe/Paris")
        await zones.look()
        assert recorded(rig.store) == {"Europe/London": "2026a", "Europe/Paris": "2026a"}
        assert zones.change is None


async def test_schedules_whose_next_fires_moved_are_reported_once():
    async with running_engine() as rig:
        for name, when, spread in (
            ("a", "0 9 * * *", "0s"),
            ("b", "0 9 * * *", "1h"),
            ("c", "*/5 * * * *", "0s"),
        ):
            await rig.add(name, when, spread=spread, **LONDON)
        await rig.add("d", "0 9 * * *", tz="Europe/Paris")
        await watch(rig, "2026a").look()
        await say(rig, "2026a", shifted(load_zone("Europe/London"), 1, since="2027-06-01T00:00:00Z"))
        hooks = Listener()
        zones = watch(rig, "2026b", hooks)
        await zones.look()
        assert (zones.change.old, zones.change.new) == ("2026a", "2026b")
        assert (zones.change.names, zones.change.count) == (("a", "b"), 2)
        assert hooks.changes == [zones.change]
        await zones.look()
        assert len(hooks.changes) == 1
        assert recorded(rig.store) == {"Europe/London": "2026b", "Europe/Paris": "2026b"}
        again = watch(rig, "2026b", hooks)
        await again.look()
        assert again.change is None


async def test_a_report_names_the_first_and_counts_all():
    async with running_engine() as rig:
        for number in range(MOST_NAMES + 5):
            tz = ("Europe/London", "Europe/Paris")[number % 2]
            await rig.add(f"s-{number:02}", f"{number % 3} 9 * * *", tz=tz)
        for tz in ("Europe/London", "Europe/Paris"):
            await say(rig, "2026a", shifted(load_zone(tz), 1))
        zones = watch(rig, "2026b")
        await zones.look()
        first = tuple(f"s-{number:02}" for number in range(MOST_NAMES))
        assert (zones.change.names, zones.change.count) == (first, MOST_NAMES + 5)


async def test_another_version_that_moves_nothing_is_no_news_and_forgets_what_is_gone():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *", **LONDON)
        await watch(rig, "2026a").look()
        await rig.set("a", when="0 11 * * *", tz="Europe/Paris")
        zones = watch(rig, "2026b")
        await zones.look()
        assert zones.change is None
        assert recorded(rig.store) == {"Europe/Paris": "2026b"}


async def test_many_zones_are_kept_in_parts():
    names = [f"Etc/GMT{number:+}" for number in range(-14, 13) if number]
    async with running_engine() as rig:
        for number, name in enumerate(names):
            await rig.add(f"s-{number}", "0 9 * * *", tz=name)
        await watch(rig, "2026a").look()
        assert recorded(rig.store) == dict.fromkeys(names, "2026a")


async def test_a_store_that_refuses_is_asked_again_later():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("a", "0 9 * * *", **LONDON)
        await say(rig, "2026a", shifted(load_zone("Europe/London"), 1))
        hooks = Listener()
        zones = watch(rig, "2026b", hooks)
        store.fail("keep_zone_records")
        with pytest.raises(StoreBusy):
            await zones.look()
        task = rig.start(zones.run())
        await clock.advance(1)
        assert recorded(store.inner) == {"Europe/London": "2026a"}
        assert hooks.changes == []
        store.fail()
        await clock.advance(600)
        assert recorded(store.inner) == {"Europe/London": "2026b"}
        assert [change.count for change in hooks.changes] == [1]
        task.cancel()


async def test_what_was_moved_is_told_by_status():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *", **LONDON)
        assert (await rig.reporting.status()).zone_change is None
        await say(rig, "2026a", shifted(load_zone("Europe/London"), 1))
        rig.reporting._zone_watch = watch(rig, "2026b")
        await rig.reporting._zone_watch.look()
        assert (await rig.reporting.status()).zone_change.names == ("a",)


def test_spans_that_differ_are_those_to_come():
    new = load_zone("Europe/London")
    assert differing(new, shifted(new, 0), NOW, IN_TWO_YEARS) == []
    past = shifted(new, 1, until="2026-11-01T00:00:00Z")
    far = shifted(new, 1, since="2029-01-01T00:00:00Z")
    assert differing(past, new, NOW, IN_TWO_YEARS) == differing(far, new, NOW, IN_TWO_YEARS) == []
    spans = differing(shifted(new, 1, "2027-02-01T00:00:00Z", "2027-05-01T00:00:00Z"), new, NOW, IN_TWO_YEARS)
    shown = [(format_utc(start), format_utc(end)) for start, end in spans]
    assert shown == [("2027-02-01T00:00:00Z", "2027-05-01T00:00:00Z")]
    assert differing(shifted(new, 1), new, NOW, IN_TWO_YEARS) == [(NOW, IN_TWO_YEARS)]


# In the old data, London had summer time from 2027-02-01 on, two months before it has it now.
EARLY_SUMMER = ("2027-02-01T01:00:00Z", "2027-03-28T01:00:00Z")


@pytest.mark.parametrize(
    ("when", "is_moved"),
    [
        ("0 9 * * *", True),
        ("0 9 15 2 *", True),
        ("0 9 27 3 *", True),
        ("0 9 28 3 *", False),
        ("0 9 1 6 *", False),
        ("*/15 * * * *", False),
        ("@hourly", False),
        ("* 9 * * *", True),
        ("0 9 31 1 *", False),
    ],
)
def test_a_rule_has_moved_if_a_slot_to_come_is_elsewhere(when, is_moved):
    new = load_zone("Europe/London")
    old = shifted(new, 1, *EARLY_SUMMER)
    rule = Recurrence.parse(when, tz="Europe/London").slots
    spans = differing(old, new, NOW, IN_TWO_YEARS)
    slots, were = (list(one.between_ms(NOW, IN_TWO_YEARS)) for one in (rule, rule.in_zone(old)))
    assert has_moved(rule, old, spans) == (slots != were) == is_moved


def test_a_rule_is_compared_in_few_steps():
    new = load_zone("Europe/London")
    rule = Recurrence.parse("* * * * *", tz="Europe/London").slots
    spans = differing(shifted(new, 1), new, NOW, IN_TWO_YEARS)
    assert count_calls(lambda: has_moved(rule, shifted(new, 1), spans)) < 60_000
