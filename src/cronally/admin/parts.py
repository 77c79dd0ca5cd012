"""Changes that concern schedules of several machines: each machine makes its part.

All of it is looked at first, here, so that what is wrong with it is found before anything is done. The parts are done one
after the other: if a machine fails in the middle, those before it are done, and the error says so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from cronally.admin import wire
from cronally.admin.answers import retry_answer
from cronally.admin.parcels import Parcel
from cronally.domain.documents import load_json
from cronally.domain.shards import SHARDS, shard_of
from cronally.domain.spec import from_document
from cronally.engine.applying import ApplyResult
from cronally.errors import CronallyError, NotReady

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import Any

    from cronally.admin.routing import Routing
    from cronally.clock import Clock
    from cronally.engine.service import Service

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
        names = [fire_id.partition("@")[0] for fire_id in fire_ids]
        shards = await self._routing.shards_of(sorted(set(names)))
        owners = {
            shard: owner
            for owner, some in (await self._routing.groups(shards.values())).items()
            for shard in some
        }
        parts: dict[str, list[str]] = {}
        for fire_id, name in zip(fire_ids, names, strict=True):
            owner = owners[shards[name]] if name in shards else self._routing.machine
            parts.setdefault(owner, []).append(fire_id)
        looked = [await self._retry_part(owner, ids, by, is_dry_run=True) for owner, ids in parts.items()]
        if is_dry_run:
            done = looked
        else:
            done = [await self._retry_part(owner, ids, by, is_dry_run=False) for owner, ids in parts.items()]
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
        return wire.from_plain(wire.RetryReply, plain)

    async def apply(
        self, lines: AsyncIterator[bytes], *, owner: str, by: str, is_pruning: bool
    ) -> ApplyResult:
        """Apply lines, as ``Service.apply`` does, but machine by machine. Errors: as there; NotReady if a machine does not answer."""
        kept = [line async for line in lines]
        looked = await self._service.preview_apply(_again(kept), owner=owner, is_pruning=is_pruning, most=0)
        if looked.problem_count:
            return looked
        parts = await self._parted(kept, is_pruning=is_pruning)
        counts = dict.fromkeys(_COUNTS, 0)
        done: list[str] = []
        for machine, some in parts.items():
            try:
                made = await self._apply_part(machine, some, owner=owner, by=by, is_pruning=is_pruning)
            except CronallyError as exc:
                if not done:
                    raise
                raise NotReady(
                    f"only a part was applied, by {len(done)} of {len(parts)} machines: {exc}; apply the file again"
                ) from exc
            done.append(machine)
            for key in _COUNTS:
                counts[key] += made[key]
        return ApplyResult(
            created=counts["created"],
            changed=counts["changed"],
            removed=counts["removed"],
            unchanged=counts["unchanged"],
        )

    async def _apply_part(
        self, machine: str, lines: list[bytes], *, owner: str, by: str, is_pruning: bool
    ) -> dict[str, int]:
        if machine == self._routing.machine:
            result = await self._service.apply(_again(lines), owner=owner, by=by, is_pruning=is_pruning)
            problems: Sequence[Any] = [problem.reason for problem in result.problems]
            made = {key: getattr(result, key) for key in _COUNTS}
        else:
            query = urlencode({"owner": owner, "prune": str(is_pruning).lower()})
            parcel = Parcel("POST", f"/v1/apply?{query}", {}, b"\n".join(lines), by)
            reply = await self._routing.elsewhere(machine, parcel)
            problems = [problem["reason"] for problem in reply["problems"]]
            made = {key: reply[key] for key in _COUNTS}
        if problems:  # it has changed since it was looked at
            raise NotReady(f"nothing of its part was applied: {problems[0]}")
        return made

    async def _parted(self, lines: Sequence[bytes], *, is_pruning: bool) -> dict[str, list[bytes]]:
        """Return *lines* by the machine that makes them; with pruning each machine has a part, if an empty one."""
        living = await self._routing.living_shards()
        shards: list[int] = []
        for number, line in enumerate(lines):
            if number % _AT_ONCE == _AT_ONCE - 1:
                await self._clock.sleep(0)
            document = load_json(line) if line.strip() else {"name": None}
            assert isinstance(document, dict)  # it was looked at
            name = document.pop("name")
            if name is None:
                shards.append(-1)
            else:
                shard = living.get(name)
                shards.append(shard_of(from_document(name, document)) if shard is None else shard)
        groups = await self._routing.groups(range(SHARDS) if is_pruning else set(shards) - {-1})
        owners = {shard: machine for machine, some in groups.items() for shard in some}
        parts: dict[str, list[bytes]] = {machine: [] for machine in groups}
        for line, shard in zip(lines, shards, strict=True):
            if shard >= 0:
                parts[owners[shard]].append(line)
        return parts


async def _again(lines: Sequence[bytes]) -> AsyncIterator[bytes]:
    for line in lines:
        yield line
