"""What ``doctor`` says about a table that machines share. Nothing in it is changed: what is tried has a condition that nothing meets."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from cronally.domain.findings import Finding, failed, offset_finding, warning
from cronally.domain.table_findings import (
    Seen,
    expiry_finding,
    machines_finding,
    permissions_finding,
    table_finding,
)
from cronally.errors import StoreError
from cronally.instants import from_datetime
from cronally.store.filling import refuse_filling
from cronally.store.shared_items import MACHINES
from cronally.store.table_refusals import NotAllowed

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from cronally.clock import Clock
    from cronally.store.attribute_values import Item, Key
    from cronally.store.dynamodb_table import DynamodbTable

_WATCHED_S: Final = 3.0  # a machine renews its lease, of 8 s unless somebody says otherwise, each third of it
_NOTHING: Final[Key] = ("doctor", "-")
_NEVER: Final = "attribute_exists(pk) AND attribute_not_exists(pk)"


async def examine_table(table: DynamodbTable, clock: Clock, *, region: str) -> list[Finding]:
    """Return what there is to say of *table*, within some seconds."""
    try:
        before, begun = clock.wall(), clock.mono()
        reply = await table.describe()
        trip_s = clock.mono() - begun
    except NotAllowed:
        denied = ["dynamodb:DescribeTable", *await _denied(table)]
        return [permissions_finding(table.name, denied, region=region, account="*")]
    except StoreError as exc:
        text, _, fix = str(exc).partition("; ")
        return [
            failed(
                "store", text, fix or "look at the network, at AWS_ENDPOINT_URL_DYNAMODB and AWS_ENDPOINT_URL"
            )
        ]
    found = [table_finding(table.name, reply["Table"], region=region)]
    if found[0].fix is not None:
        return found
    account = str(reply["Table"]["TableArn"]).split(":")[4]
    try:
        denied = await _denied(table)
        found.append(permissions_finding(table.name, denied, region=region, account=account))
        found.append(expiry_finding(table.name, expires=await _expires(table)))
        found.append(_clock_finding(reply, before, trip_s, region))
        if not denied:
            found += await _use(table, clock)
    except StoreError as exc:
        text, _, fix = str(exc).partition("; ")
        found.append(warning("store", text, fix or "ask again"))
    return found


async def _denied(table: DynamodbTable) -> list[str]:
    """Return the actions that AWS does not allow. Errors: StoreError."""
    pk, sk = _NOTHING
    denied: list[str] = []

    async def attempt(asked: Awaitable[object]) -> None:
        try:
            await asked
        except NotAllowed as exc:
            denied.append(f"dynamodb:{exc.operation}")

    await attempt(table.get(_NOTHING))
    await attempt(table.all_of(pk))
    await attempt(table.put({"pk": pk, "sk": sk}, condition=_NEVER))
    await attempt(table.update(_NOTHING, {"none": 0}, condition=_NEVER, values={}))
    await attempt(table.delete(_NOTHING, condition=_NEVER, values={}))
    await attempt(table.write_all([], deletes=[_NOTHING]))  # there is no such item
    return denied


async def _expires(table: DynamodbTable) -> bool | None:
    try:
        return await table.has_expiry()
    except StoreError:
        return None


def _clock_finding(reply: Item, before: int, trip_s: float, region: str) -> Finding:
    try:
        date = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
    except (KeyError, ValueError):
        return warning("store clock", "DynamoDB does not say what time it is", "see what answers there")
    offset_s = (from_datetime(date) + 500 - before) / 1000 - trip_s / 2  # a Date header is cut to the second
    finding = offset_finding(region, f"DynamoDB in {region}", offset_s=offset_s, trip_s=trip_s)
    return finding._replace(check="store clock")


async def _use(table: DynamodbTable, clock: Clock) -> list[Finding]:
    """Say who uses the table. Errors: StoreError."""
    try:
        await refuse_filling(table)
    except StoreError as exc:
        text, _, fix = str(exc).partition("; ")
        return [failed("machines", text, fix)]
    first = {item["sk"]: item for item in await table.all_of(MACHINES) if not item["retired"]}
    if not first:
        return [machines_finding([], watched_s=0)]
    await clock.sleep(_WATCHED_S)
    seen = [
        Seen(
            item["host"],
            item["lease_ms"],
            item["sk"] not in first or item["version"] != first[item["sk"]]["version"],
        )
        for item in await table.all_of(MACHINES)
        if not item["retired"]
    ]
    return [machines_finding(seen, watched_s=_WATCHED_S)]
