"""One DynamoDB table: its calls.

1. With ``table_refusals``, the only file of the store that knows aiobotocore. What leaves it is plain values and StoreErrors.
2. An item is a dict; ``pk`` and ``sk`` are its key. A call is tried once; whoever calls knows what a lost answer means for it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError

from cronally.clock import within
from cronally.domain import table_calls
from cronally.errors import StoreBusy, StoreError
from cronally.store.attribute_values import encoded, item_of, key_values
from cronally.store.table_refusals import (
    AlreadyThere,
    ConditionFailed,
    UnknownOperation,
    busy,
    refusal,
    unusable,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from cronally.clock import Clock
    from cronally.store.attribute_values import Item, Key

T = TypeVar("T")

MOST_ITEM_BYTES: Final = 390_000  # of one value; DynamoDB takes items of 400 KB, names and keys included
CALL_TIMEOUT_S: Final = 2.0  # a call takes some milliseconds; in a lease of 8 s three may be lost
_MOST_BATCH: Final = 25  # BatchWriteItem
_READ_ATTEMPTS: Final = 4
_PAUSE_S: Final = 0.05
_CREATE_TIMEOUT_S: Final = 120.0


class Units:
    """What the calls have consumed. write: units of 1 KB. read: units of 4 KB, half of one if eventually consistent."""

    def __init__(self) -> None:
        self.write = 0.0
        self.read = 0.0


class DynamodbTable:
    """The table *name*, called with the client that *client* gives.

    Attributes: name. units: what its calls have consumed so far.
    """

    def __init__(self, name: str, client: Callable[[], Awaitable[Any]], clock: Clock) -> None:
        """client: called for each call, so that it may keep one and make it anew."""
        self.name = name
        self.units = Units()
        self._client = client
        self._clock = clock

    async def create(self) -> bool:
        """Create the table, paid by request, whose items expire; return whether it is new. Returns when it can be used.

        Errors: StoreError.
        """
        try:
            await self._call("CreateTable", **table_calls.create_table(self.name).parameters)
        except AlreadyThere:
            is_new = False
        else:
            is_new = True
        until_s = self._clock.mono() + _CREATE_TIMEOUT_S
        while (await self.describe())["Table"]["TableStatus"] != "ACTIVE":
            if self._clock.mono() > until_s:
                raise StoreBusy(
                    f"the DynamoDB table {self.name!r} is not active yet after {_CREATE_TIMEOUT_S:g} s; run it again later"
                )
            await self._clock.sleep(_PAUSE_S)
        await self.check()
        with suppress(UnknownOperation):  # a stand-in that keeps everything
            if is_new or not await self.has_expiry():  # whoever made it may have been interrupted right then
                await self._call("UpdateTimeToLive", **table_calls.let_items_expire(self.name).parameters)
        return is_new

    async def check(self) -> None:
        """Make sure that the table is there and is one of ours. Errors: StoreError."""
        described = (await self.describe())["Table"]
        key = table_calls.foreign_key(described)
        if key is not None:
            raise StoreError(
                f"the DynamoDB table {self.name!r} is not one of cronally's (its key is {key}); name another with --store"
            )

    async def has_expiry(self) -> bool:
        """Whether items that are over go by themselves. Errors: StoreError."""
        reply = await self._read("DescribeTimeToLive")
        return reply["TimeToLiveDescription"]["TimeToLiveStatus"] in ("ENABLED", "ENABLING")

    async def describe(self) -> dict[str, Any]:
        """Return what AWS says of the table, as its whole answer. Errors: StoreError."""
        return await self._read("DescribeTable")

    async def put(
        self,
        item: Mapping[str, Any],
        *,
        condition: str | None = None,
        values: Mapping[str, Any] | None = None,
    ) -> bool:
        """Write *item* if *condition* holds, and return whether it does. In it ``#name`` is an attribute and ``:name`` one of *values*.

        Errors: StoreBusy: perhaps it was written; StoreError.
        """
        return await self._write(
            "PutItem", condition, values, {"Item": {name: encoded(value) for name, value in item.items()}}
        )

    async def update(
        self,
        key: Key,
        changed: Mapping[str, Any],
        *,
        removed: Sequence[str] = (),
        condition: str,
        values: Mapping[str, Any],
    ) -> bool:
        """Set attributes of an item, and take others away, if *condition* holds, as in ``put``."""
        sets = ", ".join(f"#{name} = :new_{name}" for name in changed)
        expression = f"SET {sets}" + (
            f" REMOVE {', '.join(f'#{name}' for name in removed)}" if removed else ""
        )
        return await self._write(
            "UpdateItem",
            condition,
            {**values, **{f"new_{name}": value for name, value in changed.items()}},
            {"Key": key_values(key), "UpdateExpression": expression},
        )

    async def delete(self, key: Key, *, condition: str, values: Mapping[str, Any]) -> bool:
        """Delete an item if *condition* holds, as in ``put``."""
        return await self._write("DeleteItem", condition, values, {"Key": key_values(key)})

    async def get(self, key: Key) -> Item | None:
        """Return an item as it is now, or None. Errors: StoreError."""
        reply = await self._read("GetItem", Key=key_values(key), ConsistentRead=True)
        return item_of(reply["Item"]) if "Item" in reply else None

    async def query(
        self,
        pk: str,
        *,
        first: str = " ",
        last: str = "~",
        is_consistent: bool = True,
        is_reversed: bool = False,
        at_once: int | None = None,
    ) -> AsyncIterator[list[Item]]:
        """Yield the items of *pk* with first <= sk <= last, in the order of sk, so many at a time, or a megabyte. Errors: StoreError."""
        more: dict[str, Any] = {} if at_once is None else {"Limit": at_once}
        while True:
            reply = await self._read(
                "Query",
                KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :last",
                ExpressionAttributeValues={
                    name: encoded(value) for name, value in ((":pk", pk), (":first", first), (":last", last))
                },
                ConsistentRead=is_consistent,
                ScanIndexForward=not is_reversed,
                **more,
            )
            yield [item_of(found) for found in reply["Items"]]
            if "LastEvaluatedKey" not in reply:
                return
            more |= {"ExclusiveStartKey": reply["LastEvaluatedKey"]}

    async def all_of(self, pk: str, *, is_consistent: bool = True) -> list[Item]:
        """Return the items of *pk*, which are few."""
        return [item async for page in self.query(pk, is_consistent=is_consistent) for item in page]

    async def write_all(self, puts: Sequence[Mapping[str, Any]], *, deletes: Sequence[Key] = ()) -> None:
        """Write items and delete others, without conditions and in any order. Errors: StoreError, perhaps with some of it done."""
        asked: list[dict[str, Any]] = [
            {"PutRequest": {"Item": {name: encoded(value) for name, value in item.items()}}} for item in puts
        ]
        asked += [{"DeleteRequest": {"Key": key_values(key)}} for key in deletes]
        attempts = 0
        while asked:
            reply = await self._call("BatchWriteItem", RequestItems={self.name: asked[:_MOST_BATCH]})
            left = reply.get("UnprocessedItems", {}).get(self.name, [])
            attempts = attempts + 1 if left else 0
            if attempts == _READ_ATTEMPTS:
                raise busy(self.name, "BatchWriteItem", "it takes no more at the moment")
            asked = left + asked[_MOST_BATCH:]
            if left:
                await self._clock.sleep(_PAUSE_S * 2**attempts)

    async def _write(
        self,
        operation: str,
        condition: str | None,
        values: Mapping[str, Any] | None,
        parameters: dict[str, Any],
    ) -> bool:
        if condition is not None:
            parameters["ConditionExpression"] = condition
        texts = f"{condition or ''} {parameters.get('UpdateExpression', '')}"
        if names := set(re.findall(r"#(\w+)", texts)):
            parameters["ExpressionAttributeNames"] = {f"#{name}": name for name in names}
        if values:
            parameters["ExpressionAttributeValues"] = {
                f":{name}": encoded(value) for name, value in values.items()
            }
        try:
            await self._call(operation, **parameters)
        except ConditionFailed:
            return False
        return True

    async def _read(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Make a call that changes nothing, a few times if need be."""
        for attempt in range(_READ_ATTEMPTS - 1):
            try:
                return await self._call(operation, **parameters)
            except StoreBusy:
                await self._clock.sleep(_PAUSE_S * 2**attempt)
        return await self._call(operation, **parameters)

    async def _call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        if operation != "BatchWriteItem":
            parameters["TableName"] = self.name
        if "Table" not in operation and "TimeToLive" not in operation:
            parameters["ReturnConsumedCapacity"] = "TOTAL"
        try:
            reply = await self._answer(operation, parameters)
        except ClientError as exc:
            error = exc.response.get("Error", {})
            raise refusal(
                self.name, operation, str(error.get("Code", "")), str(error.get("Message", ""))
            ) from exc
        except (NoCredentialsError, NoRegionError) as exc:
            raise unusable(self.name, exc) from exc
        except TimeoutError as exc:
            raise busy(self.name, operation, f"no answer within {CALL_TIMEOUT_S:g} s") from exc
        except (BotoCoreError, OSError, ValueError, LookupError, AttributeError, RuntimeError) as exc:
            # Those after OSError are what botocore makes of an answer that is none of DynamoDB.
            raise busy(self.name, operation, " ".join(str(exc).split())[:300] or type(exc).__name__) from exc
        self._count(operation, reply)
        return reply

    async def _answer(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Errors: TimeoutError, after ``CALL_TIMEOUT_S``; those of the client."""
        asking = await within(self._clock, CALL_TIMEOUT_S, self._ask(operation, parameters))
        if not asking.done():
            raise TimeoutError
        return asking.result()

    async def _ask(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        client = await self._client()
        reply: dict[str, Any] = await getattr(client, _METHODS[operation])(**parameters)
        return reply

    def _count(self, operation: str, reply: Mapping[str, Any]) -> None:
        consumed = reply.get("ConsumedCapacity", ())
        for one in consumed if isinstance(consumed, list) else [consumed] if consumed else []:
            units = float(one.get("CapacityUnits", 0))
            if operation in ("Query", "GetItem"):
                self.units.read += units
            else:
                self.units.write += units


_METHODS: Final = {
    "BatchWriteItem": "batch_write_item",
    "CreateTable": "create_table",
    "DeleteItem": "delete_item",
    "DescribeTable": "describe_table",
    "DescribeTimeToLive": "describe_time_to_live",
    "GetItem": "get_item",
    "PutItem": "put_item",
    "Query": "query",
    "UpdateItem": "update_item",
    "UpdateTimeToLive": "update_time_to_live",
}
