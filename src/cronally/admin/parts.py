"""Changes that concern schedules of several machines: each machine makes its part.

Of an apply and a retry all is looked at first, so that what is wrong with it is found before anything is done. The machines make
their parts at the same time, of an apply one after the other: if one fails, others have done theirs, and the error says so. What has
changed hands meanwhile is not done, and asked for again where it is then.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlencode

from cronally.admin import wire
from cronally.admin.answers import retry_answer
from cronally.admin.many import many_done
from cronally.admin.parcels import Parcel
from cronally.admin.routing import LOOK_AGAIN_S, PATIENCE_S
from cronally.domain.documents import load_json
from cronally.domain.shards import SHARDS, shard_of
from cronally.domain.spec import from_document
from cronally.engine.applying import ApplyResult
from cronally.errors import CronallyError, NotReady, ShardElsewhere

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
    from typing import Any

    from cronally.admin.requests import ManyWish
    from cronally.admin.routing import Routing
    from cronally.clock import Clock
    from cronally.engine.service import Service

_T = TypeVar("_T")

_AT_ONCE: Final = 50  # lines between two turns of the event loop: 3 ms
_MOST_FIRES: Final = 20  # that a dry run of retry shows
_COUNTS: Final = ("created", "changed", "removed", "unchanged")


class Parts:
    """Makes changes part by part, its own by *service*."""

    def __init__(self, routing: Routing, service: Service, clock: Clock) -> None:
        self._routing = routing
        self._service = service
        self._clock = clock

    async def retry(self, fire_ids: Sequence[str], *, by: str, is_dry_run: bool) -> wire.RetryReply:
        """Retry fires, as ``Service.retry`` does. Errors: as there; NotReady if a machine does not answer."""
        name_of = {fire_id: fire_id.partition("@")[0] for fire_id in fire_ids}
        owners = await self._routing.owners_of(name_of.values())
        parts: dict[str, list[str]] = {}
        for fire_id in fire_ids:
            parts.setdefault(owners[name_of[fire_id]], []).append(fire_id)
        done, errors = await _together(
            self._retry_part(owner, ids, by, is_dry_run=True) for owner, ids in parts.items()
        )
        if not errors and not is_dry_run:
            done, errors = await _together(
                self._retry_part(owner, ids, by, is_dry_run=False) for owner, ids in parts.items()
            )
            if errors and done:
                raise NotReady(f"only a part goes again: {errors[0]}; see which with 'cronally history'")
        if errors:
            raise errors[0]
        return wire.RetryReply(
            retried=[fire_id for one in done for fire_id in one.retried],
            pending=[fire_id for one in done for fire_id in one.pending],
            fires=[fire for one in done for fire in one.fires][:_MOST_FIRES],
        )

    async def _retry_part(
        self, owner: str, fire_ids: list[str], by: str, *, is_dry_run: bool
    ) -> wire.RetryReply:
        if owner == self._routing.machine:
            done = await self._service.retry(fire_ids, by=by, is_dry_run=is_dry_run)
            return retry_answer(done, with_fires=is_dry_run)
        body = json.dumps({"fires": fire_ids, "dry_run": is_dry_run}).encode()
        plain = await self._routing.elsewhere(owner, Parcel("POST", "/v1/retry", {}, body, by))
        if plain is None:
            raise NotReady(
                "a shard changed hands meanwhile; see with 'cronally history' what was done, and do the rest again"
            )
        return wire.from_plain(wire.RetryReply, plain)

    async def many(self, wish: ManyWish, *, by: str) -> wire.ManyReply:
        """Change many schedules, machine by machine. Errors: as of ``many_done``; NotReady if a machine does not answer."""
        parts: dict[str, list[str]] = {}
        for name, owner in (await self._routing.owners_of(wish.names)).items():
            parts.setdefault(owner, []).append(name)
        replies, errors = await _together(
            self._many_part(owner, names, wish, by) for owner, names in parts.items()
        )
        is_told = any(reply.done or reply.refused for reply in replies)
        if errors and not is_told:
            raise errors[0]
        if not is_told:  # shards change hands
            await self._clock.sleep(LOOK_AGAIN_S)
        return wire.ManyReply(
            done=[one for reply in replies for one in reply.done],
            refused=[one for reply in replies for one in reply.refused],
            **(wire.error_to_plain(errors[0]) if errors else {}),
        )

    async def _many_part(self, owner: str, names: list[str], wish: ManyWish, by: str) -> wire.ManyReply:
        if owner == self._routing.machine:
            try:
                return await many_done(self._service, self._clock, wish._replace(names=names), by=by)
            except ShardElsewhere:  # they are asked for again
                return wire.ManyReply()
        parcel = Parcel("POST", "/v1/many", {}, wish.of(names), by)
        plain = await self._routing.elsewhere(owner, parcel)
        return wire.ManyReply() if plain is None else wire.from_plain(wire.ManyReply, plain)

    async def apply(
        self, lines: AsyncIterator[bytes], *, owner: str, by: str, is_pruning: bool
    ) -> ApplyResult:
        """Apply lines, as ``Service.apply`` does, but machine by machine. Errors: as there; NotReady if a machine does not answer."""
        kept = [line async for line in lines]
        looked = await self._service.preview_apply(_again(kept), owner=owner, is_pruning=is_pruning, most=0)
        if looked.problem_count:
            return looked
        lines_of = await self._by_shard(kept)
        left = {*range(SHARDS)} if is_pruning else {*lines_of}
        counts = dict.fromkeys(_COUNTS, 0)
        is_begun = False
        until_s = self._clock.mono() + PATIENCE_S
        while left:
            made: list[tuple[dict[str, int], set[int]]] = []
            errors: list[CronallyError] = []
            for machine, shards in (await self._routing.groups(left)).items():
                part = {shard: lines_of.get(shard, []) for shard in sorted(shards)}
                try:  # one after the other: each holds the locks of the names that it gives
                    made.append(
                        await self._apply_part(machine, part, owner=owner, by=by, is_pruning=is_pruning)
                    )
                except CronallyError as exc:
                    errors.append(exc)
                    break
            for counted, done in made:
                is_begun = is_begun or bool(done)
                left -= done
                for key in _COUNTS:
                    counts[key] += counted[key]
            is_stuck = not errors and not any(done for _, done in made)
            if is_stuck and self._clock.mono() > until_s:
                errors.append(NotReady("shards change hands all the time"))
            if errors and is_begun:
                raise NotReady(f"only a part was applied: {errors[0]}; apply the file again") from errors[0]
            if errors:
                raise errors[0]
            if left:
                await self._clock.sleep(LOOK_AGAIN_S)
        return ApplyResult(
            created=counts["created"],
            changed=counts["changed"],
            removed=counts["removed"],
            unchanged=counts["unchanged"],
        )

    async def _apply_part(
        self, machine: str, part: Mapping[int, list[bytes]], *, owner: str, by: str, is_pruning: bool
    ) -> tuple[dict[str, int], set[int]]:
        """Apply a part, lines by shard; return what that did, and the shards that *machine* still drove."""
        lines = [line for some in part.values() for line in some]
        shards = {shard: len(some) for shard, some in part.items()}
        if machine == self._routing.machine:
            result = await self._service.apply(
                _again(lines), owner=owner, by=by, is_pruning=is_pruning, shards=shards
            )
            problems: Sequence[Any] = [problem.reason for problem in result.problems]
            made = {key: getattr(result, key) for key in _COUNTS}
            done = set(result.shards or ())
        else:
            told = ",".join(f"{shard}:{count}" for shard, count in shards.items())
            query = urlencode({"owner": owner, "prune": str(is_pruning).lower(), "shards": told}, safe=":,")
            parcel = Parcel("POST", f"/v1/apply?{query}", {}, b"\n".join(lines), by)
            reply = await self._routing.elsewhere(machine, parcel)
            if reply is None:
                return dict.fromkeys(_COUNTS, 0), set()
            problems = [problem["reason"] for problem in reply["problems"]]
            made = {key: reply[key] for key in _COUNTS}
            done = set(reply.get("shards", ()))
        if problems:  # it has changed since it was looked at
            raise NotReady(f"nothing of its part was applied: {problems[0]}")
        return made, done

    async def _by_shard(self, lines: Sequence[bytes]) -> dict[int, list[bytes]]:
        """Return *lines* by the shard that each is of."""
        living = await self._routing.living_shards()
        found: dict[int, list[bytes]] = {}
        for number, line in enumerate(lines):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await self._clock.sleep(0)
            if not line.strip():
                continue
            document = load_json(line)
            assert isinstance(document, dict)  # it was looked at
            name = document.pop("name")
            shard = living.get(name)
            found.setdefault(shard_of(from_document(name, document)) if shard is None else shard, []).append(
                line
            )
        return found


def read_shards(told: str) -> dict[int, int]:
    """Return what a part says of its lines: how many there are of each shard, in order."""
    return {int(shard): int(count) for shard, _, count in (one.partition(":") for one in told.split(","))}


async def _together(parts: Iterable[Awaitable[_T]]) -> tuple[list[_T], list[CronallyError]]:
    """Return what came of *parts*, all of them: the results, and the errors of Cronally's. Errors: others, as they are."""
    results, errors = [], []
    for one in await asyncio.gather(*parts, return_exceptions=True):
        if isinstance(one, CronallyError):
            errors.append(one)
        elif isinstance(one, BaseException):
            raise one
        else:
            results.append(one)
    return results, errors


async def _again(lines: Sequence[bytes]) -> AsyncIterator[bytes]:
    for line in lines:
        yield line
