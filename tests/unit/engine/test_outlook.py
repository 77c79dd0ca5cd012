"""What is to come of all schedules, where a machine drives only some of them."""

from __future__ import annotations

from cronally.engine.outlook import FRESH_S, Outlook
from support.rig import running_engine


async def test_it_names_what_comes_next_as_the_engine_itself_does_and_lets_go_of_what_has_gone_by():
    async with running_engine() as rig:
        await rig.add("every-hour", "0 * * * *")
        await rig.add("every-day", "30 9 * * *")
        await rig.add("rests", "* * * * *")
        await rig.service.pause("rests", by="test")
        outlook = Outlook(rig.store, rig.clock)
        core = await outlook.core()
        assert core.coming(5) == rig.engine.core.coming(5)
        assert len(core.coming(5)) == 2
        await rig.clock.advance(25)
        await rig.clock.advance(10)
        assert [fire.fire_time for fire in (await outlook.core()).coming(2)] == [
            fire.fire_time for fire in rig.engine.core.coming(2)
        ]


async def test_a_change_shows_after_a_while_and_it_is_loaded_no_more_often():
    async with running_engine() as rig:
        await rig.add("a", "0 * * * *")
        outlook = Outlook(rig.store, rig.clock)
        first = await outlook.core()
        await rig.add("b", "0 * * * *")
        await rig.clock.advance(FRESH_S / 2)
        assert await outlook.core() is first
        await rig.clock.advance(FRESH_S / 2)
        assert len((await outlook.core()).coming(5)) == 2
