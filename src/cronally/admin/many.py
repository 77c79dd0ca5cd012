"""A change of many schedules at once, carried out by the machine that drives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cronally.admin import wire
from cronally.admin.answers import schedule_answer
from cronally.admin.requests import to_come

if TYPE_CHECKING:
    from cronally.admin.requests import ManyWish
    from cronally.clock import Clock
    from cronally.domain.zones import Zone
    from cronally.engine.service import Service
    from cronally.instants import UtcMs

_AT_ONCE: Final = 50  # answers made between two yields to the event loop, as of a list


async def many_done(service: Service, clock: Clock, wish: ManyWish, *, by: str) -> wire.ManyReply:
    """Do what is wished; return what became of each schedule. Errors: StoreError, NotReady, ShardElsewhere; then nothing is done."""
    given, now = wish.until, clock.wall()

    def until(zone: Zone) -> UtcMs:
        assert given is not None
        return to_come("until", given, zone, now=now)

    match wish.action:
        case "remove":
            done = await service.remove_many(wish.names, by=by, drop_pending=wish.drop_pending)
        case "pause":
            done = await service.pause_many(
                wish.names,
                by=by,
                until=None if given is None else until,
                note=wish.note,
                drop_pending=wish.drop_pending,
            )
        case "resume":
            done = await service.resume_many(wish.names, by=by)
    made: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for number, one in enumerate(done, start=1):
        if number % _AT_ONCE == 0:
            await clock.sleep(0)
        if one.error is not None:
            refused.append({"name": one.name, **wire.error_to_plain(one.error)})
            continue
        schedule = None if one.view is None else schedule_answer(one.view)
        made.append({"name": one.name, "pending": one.pending, "schedule": schedule})
    return wire.ManyReply(done=made, refused=refused)
