"""What ``doctor`` says of a table that machines share: on moto's server, and with AWS that does not allow everything."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from cronally.domain.table_calls import EXPIRES, table_policy
from cronally.store.dynamodb import DynamodbStore
from cronally.store.dynamodb_table import DynamodbTable
from cronally.store.filling import Filling
from cronally.store.table_examination import examine_table
from support.fake_clock import FakeClock
from support.table_servers import new_table_name

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
REGION = "us-east-1"
DENIABLE = {
    "DescribeTable": "describe_table",
    "GetItem": "get_item",
    "Query": "query",
    "PutItem": "put_item",
    "UpdateItem": "update_item",
    "DeleteItem": "delete_item",
    "BatchWriteItem": "batch_write_item",
}


class Denying:
    """A client of an account whose policies do not allow some operations."""

    def __init__(self, client, denied):
        self._client = client
        self._denied = denied

    def __getattr__(self, name):
        if name not in self._denied:
            return getattr(self._client, name)

        async def refuse(**_):
            raise ClientError(
                {"Error": {"Code": "AccessDeniedException", "Message": "User is not authorized"}}, name
            )

        return refuse


@pytest.fixture
async def clock():
    return FakeClock("2026-11-23T10:00:00Z")


@pytest.fixture
async def table(table_client, clock):
    table = DynamodbTable(new_table_name(), table_client, clock)
    await table.create()
    return table


@pytest.fixture
def look(table, table_client, clock):
    """Return the findings by their checks."""

    async def examined(name=table.name, *, denied=()):
        async def denying():
            return Denying(await table_client(), [DENIABLE.get(one, one) for one in denied])

        found = await examine_table(DynamodbTable(name, denying, clock), clock, region=REGION)
        assert all((one.fix is None) == (one.health == "ok") for one in found)
        return {one.check: one for one in found}

    return examined


def policy_in(finding):
    return json.loads(re.search(r"\{.*", finding.fix)[0])


async def items(table):
    client = await table._client()
    return (await client.scan(TableName=table.name))["Items"]


async def test_a_new_table_is_as_it_should_be(look, table):
    found = await look()
    assert list(found) == ["store", "permissions", "store expiry", "store clock", "machines"]
    assert {check: one.health for check, one in found.items() if one.health != "ok"} == {
        "store clock": "failed"  # of this test, which is another one than that of the server
    }
    assert "none is alive" in found["machines"].text
    assert await items(table) == []


async def test_a_table_that_is_not_there(look):
    found = await look("nowhere")
    assert list(found) == ["store"]
    assert found["store"].health == "failed"
    assert "cronally store create dynamodb:nowhere" in found["store"].fix


async def test_a_table_of_another_program(look, table_client):
    name = new_table_name()
    await (await table_client()).create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    found = await look(name)
    assert list(found) == ["store"]
    assert "its key is id" in found["store"].text


@pytest.mark.parametrize("action", DENIABLE)
async def test_each_action_that_is_not_allowed_is_named_with_the_policy(look, table, action):
    found = (await look(denied=[action]))["permissions"]
    assert found.health == "failed"
    assert f"AWS does not allow dynamodb:{action} on" in found.text
    account = "*" if action == "DescribeTable" else "123456789012"
    assert policy_in(found) == table_policy(table.name, region=REGION, account=account)
    assert await items(table) == []


def test_what_is_tried_is_what_the_policy_has():
    [statement] = table_policy("x")["Statement"]
    assert statement["Action"] == [f"dynamodb:{action}" for action in DENIABLE]


def test_the_policy_is_the_same_in_deploy_and_on_the_page():
    expected = table_policy("cronally", region=REGION, account="123456789012")
    assert json.loads((ROOT / "deploy" / "iam" / "table.json").read_text()) == expected
    page = (ROOT / "docs" / "machines.md").read_text()
    [shown] = re.findall(r"<!-- policy: table -->\n```json\n(.*?)```", page, re.DOTALL)
    assert json.loads(shown) == expected


async def test_a_daemon_needs_no_right_to_see_whether_items_expire(look):
    found = await look(denied=["describe_time_to_live"])
    assert found["permissions"].health == "ok"
    assert found["store expiry"].health == "ok"
    assert "not tested" in found["store expiry"].text


async def test_items_that_stay_forever_are_told_of(look, table, table_client):
    await (await table_client()).update_time_to_live(
        TableName=table.name, TimeToLiveSpecification={"Enabled": False, "AttributeName": EXPIRES}
    )
    found = (await look())["store expiry"]
    assert found.health == "warning"
    assert found.fix.startswith(f"aws dynamodb update-time-to-live --table-name {table.name}")


@pytest.fixture
async def machine(table, table_client, clock, tmp_path):
    store = DynamodbStore(
        table.name, table_client, clock, directory=str(tmp_path), host="web-1", lease_ms=8000
    )
    await store.open()
    yield store
    await store.close(watermark=None)


async def watching(look, clock, meanwhile=None):
    """Return what is found; three seconds pass when it waits for that."""
    running = asyncio.create_task(look())
    while not any(not waiter.done() and at > clock._mono_us + 2_500_000 for at, _, waiter in clock._waiters):
        await asyncio.wait([running], timeout=0.001)
    if meanwhile is not None:
        await meanwhile()
    await clock.advance(3)
    return await running


async def test_a_machine_that_lives_is_named(look, clock, machine):
    await clock.advance(3)
    found = (await watching(look, clock, machine.renew))["machines"]
    assert (found.health, found.text) == ("ok", "web-1 is alive")


async def test_one_that_says_nothing_is_told_of(look, clock, machine):
    found = (await watching(look, clock))["machines"]
    assert found.health == "warning"
    assert found.text == "none is alive; not heard for 3 s: web-1 (lease 8 s)"


async def test_a_table_that_is_being_filled_is_told_of(look, table, clock):
    await Filling(table, clock).begin(print)
    found = (await look())["machines"]
    assert found.health == "failed"
    assert "fills the DynamoDB table" in found.text
