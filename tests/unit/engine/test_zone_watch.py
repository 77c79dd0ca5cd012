"""What another version of the time zone data is found to have moved."""

import pytest

from cronally.domain.recurrence import Recurrence
from cronally.engine.hooks import Hooks
from cronally.engine.ports import RuleFires
from cronally.engine.zone_watch import MOST_NAMES, ZoneWatch, has_moved, next_fires, rule_key
from cronally.errors import StoreBusy
from support.fake_clock import FakeClock
from support.faulty_store import FaultyStore
from support.rig import running_engine

LONDON = {"tz": "Europe/London"}


class Listener(Hooks):
    def __init__(self):
        self.changes = []

    def zones_changed(self, change):
        self.changes.append(change)


def watch(rig, version, hooks=None):
    return ZoneWatch(rig.engine.core, rig.store, rig.clock, hooks or Listener(), version=version)


async def moved_since(rig, when, **choices):
    """Let the record of a rule say that its fires were an hour later under another version."""
    rule = Recurrence.parse(when, tz="Europe/London", **choices)
    [row] = (await rig.store.rule_fires([rule_key(rule)])).values()
    later = tuple((probe, fire + 3_600_000) for probe, fire in row.fires)
    await rig.store.keep_rule_fires([row._replace(fires=later)])


async def test_rules_are_put_on_record_once():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *", **LONDON)
        await rig.add("b", "0 9 * * *", **LONDON)
        await rig.add("c", "0 9 * * *")
        await rig.add("d", "@every 1h", **LONDON)
        zones = watch(rig, "2026a")
        await zones.look()
        rule = Recurrence.parse("0 9 * * *", tz="Europe/London")
        expected = RuleFires(rule_key(rule), "2026a", next_fires(rule, rig.clock.wall()))
        assert rig.store._rule_fires == {expected.key: expected}
        assert len(expected.fires) == 25
        await rig.add("e", "0 10 * * *", **LONDON)
        await zones.look()
        assert len(rig.store._rule_fires) == 2
        assert zones.change is None


async def test_schedules_whose_next_fires_moved_are_reported_once():
    async with running_engine() as rig:
        for name, when, spread in (
            ("a", "0 9 * * *", "0s"),
            ("b", "0 9 * * *", "1h"),
            ("c", "0 10 * * *", "0s"),
        ):
            await rig.add(name, when, spread=spread, **LONDON)
        await watch(rig, "2026a").look()
        await moved_since(rig, "0 9 * * *")
        hooks = Listener()
        zones = watch(rig, "2026b", hooks)
        await zones.look()
        assert (zones.change.old, zones.change.new) == ("2026a", "2026b")
        assert (zones.change.names, zones.change.count) == (("a", "b"), 2)
        assert hooks.changes == [zones.change]
        await zones.look()
        assert len(hooks.changes) == 1
        assert {row.tzdata for row in rig.store._rule_fires.values()} == {"2026b"}
        again = watch(rig, "2026b", hooks)
        await again.look()
        assert again.change is None


async def test_a_report_names_the_first_and_counts_all():
    async with running_engine() as rig:
        for number in range(MOST_NAMES + 5):
            await rig.add(f"s-{number:02}", "0 9 * * *", **LONDON)
        await watch(rig, "2026a").look()
        await moved_since(rig, "0 9 * * *")
        zones = watch(rig, "2026b")
        await zones.look()
        assert (len(zones.change.names), zones.change.count) == (MOST_NAMES, MOST_NAMES + 5)


async def test_another_version_that_moves_nothing_is_no_news_and_forgets_what_is_gone():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *", **LONDON)
        await watch(rig, "2026a").look()
        await rig.set("a", when="0 11 * * *", **LONDON)
        zones = watch(rig, "2026b")
        await zones.look()
        assert zones.change is None
        assert [row.tzdata for row in rig.store._rule_fires.values()] == ["2026b"]


async def test_old_records_are_renewed():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *", **LONDON)
        await watch(rig, "2026a").look()
        [old] = rig.store._rule_fires.values()
        half_a_year = 181 * 86_400_000
        aged = tuple((probe - half_a_year, fire) for probe, fire in old.fires)
        await rig.store.keep_rule_fires([old._replace(fires=aged)])
        await watch(rig, "2026a").look()
        assert [*rig.store._rule_fires.values()] == [old]


async def test_many_rules_are_kept_in_parts():
    async with running_engine() as rig:
        for minute in range(60):
            for hour in (1, 2, 3, 4):
                await rig.service.put(
                    f"s-{hour}-{minute}",
                    {
                        "when": f"{minute} {hour} * * *",
                        "topic": "arn:aws:sns:us-east-1:123456789012:t",
                        **LONDON,
                    },
                    by="test",
                )
        await watch(rig, "2026a").look()
        assert len(rig.store._rule_fires) == 240


async def test_a_store_that_refuses_is_asked_again_later():
    clock = FakeClock()
    store = FaultyStore(clock)
    async with running_engine(clock=clock, store=store) as rig:
        await rig.add("a", "0 9 * * *", **LONDON)
        zones = watch(rig, "2026a")
        store.fail("keep_rule_fires")
        with pytest.raises(StoreBusy):
            await zones.look()
        task = rig.start(zones.run())
        await clock.advance(1)
        assert store.inner._rule_fires == {}
        store.fail()
        await clock.advance(600)
        assert len(store.inner._rule_fires) == 1
        task.cancel()


async def test_what_was_moved_is_told_by_status():
    async with running_engine() as rig:
        await rig.add("a", "0 9 * * *", **LONDON)
        assert (await rig.service.status()).zone_change is None
        await watch(rig, "2026a").look()
        await moved_since(rig, "0 9 * * *")
        rig.service._zone_watch = watch(rig, "2026b")
        await rig.service._zone_watch.look()
        assert (await rig.service.status()).zone_change.names == ("a",)


def test_only_fires_to_come_count():
    rule = Recurrence.parse("0 9 * * *", tz="Europe/London")
    now = 1_795_424_400_000
    fires = next_fires(rule, now)
    row = RuleFires("x", "2026a", ((now, fires[0][1] + 60_000), *fires[1:]))
    assert has_moved(rule, row, now)
    assert not has_moved(rule, row, fires[0][1] + 60_000)
    assert has_moved(rule, RuleFires("x", "2026a", ((now, None),)), now)


def test_rules_have_one_key_if_they_have_the_same_slots():
    key = rule_key(Recurrence.parse("0 9 * * 1-5", tz="Europe/London"))
    assert key == rule_key(Recurrence.parse("00 09 * * mon-fri", tz="Europe/London"))
    others = [
        Recurrence.parse("0 9 * * 1-5", tz="Europe/Paris"),
        Recurrence.parse("0 9 * * 1-4", tz="Europe/London"),
        Recurrence.parse("0 9 * * 1-5", tz="Europe/London", on_repeat="both"),
    ]
    assert len({key, *map(rule_key, others)}) == 4
