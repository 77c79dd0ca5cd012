"""Daemons that share a table, as processes."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from cronally.clock import SystemClock
from cronally.domain.shards import SHARDS
from cronally.store.dynamodb_table import DynamodbTable
from cronally.store.shared_items import MACHINES, SHARDS_KEY
from support.fake_subscriptions import SubscribedSns
from support.processes import Installation, free_port
from support.raw_client import RawClient, request
from support.table_servers import TableClient, new_table_name

TASKS = "arn:aws:sns:us-east-1:123456789012:tasks"
ON_CALL = "arn:aws:sns:us-east-1:123456789012:on-call"
MOST_S = 20.0  # less than the lease, for which the start would wait; alone it takes half a second


class Several:
    """Machines over one table, which is made with the first one."""

    def __init__(self, url):
        self.url = url
        self.table = new_table_name()
        self.installations = []

    @contextmanager
    def machine(self, name, *, sns_url=None, **settings):
        """settings: variables of its environment."""
        with tempfile.TemporaryDirectory(prefix="c-", ignore_cleanup_errors=True) as home:
            installation = Installation(
                Path(home),
                receiver_url=sns_url or f"http://127.0.0.1:{free_port()}",  # nobody: nothing is sent here
                extra={
                    **settings,
                    "AWS_REGION": "us-east-1",
                    "AWS_ENDPOINT_URL_DYNAMODB": self.url,
                    "CRONALLY_STORE": f"dynamodb:{self.table}",
                    "CRONALLY_LEASE": "30s",
                    "CRONALLY_MACHINE": name,
                },
            )
            if not self.installations:
                made = installation.run("store", "create", f"dynamodb:{self.table}")
                assert made.returncode == 0, made.stderr
            self.installations.append(installation)
            try:
                yield installation
            finally:
                installation.clear()

    def at_table(self, work):
        """Return what *work* comes to, a function that is given the table."""

        async def at_table():
            client = TableClient(self.url)
            try:
                return await work(DynamodbTable(self.table, client, SystemClock()))
            finally:
                await client.close()

        return asyncio.run(at_table())

    def items(self, pk):
        return self.at_table(lambda table: table.all_of(pk))


def scraped(installation):
    """Return the samples of ``/metrics`` by name and values of labels."""
    with RawClient(str(installation.socket), request("GET", "/metrics")) as client:
        client.sock.settimeout(MOST_S)
        text = b""
        while b'cronally_table_units_total{kind="write"}' not in text or not text.endswith(b"\n"):
            text += client.sock.recv(1 << 20)
    families = parse(text.partition(b"\r\n\r\n")[2].decode())
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


@pytest.fixture
def several(table_url):
    return Several(table_url("moto"))


def test_a_stop_is_heard_while_a_start_waits_for_shards_that_nobody_drives_yet(several):
    """Half of them are another machine's to take, and it takes none: it is waited for."""
    with several.machine("a") as a, several.machine("b") as b:
        a.start()
        found = scraped(a)
        assert found["cronally_machines",] == 1
        assert found["cronally_shards", "this"] == SHARDS
        assert found["cronally_shard_undriven_seconds",] == 0
        assert found["cronally_hand_overs_total", "taken"] == SHARDS
        assert found["cronally_lease_seconds",] == 30
        assert 0 < found["cronally_lease_left_seconds",] < 30
        assert found["cronally_lease_renewals_total", "renewed"] > 0
        assert (
            found["cronally_table_units_total", "write"] > SHARDS
        )  # a unit for each of their items at least
        assert found["cronally_table_units_total", "read"] > 0
        assert a.stop() == 0
        [left] = several.items(MACHINES)
        silent = left | {"sk": "silent-0", "host": "silent", "retired": False, "has_left": False}
        several.at_table(lambda table: table.put(silent))
        b.begin()
        b.wait_for("the machine b has joined")
        began_at = time.monotonic()
        assert b.stop() == 0
        assert time.monotonic() - began_at < MOST_S
        assert not any("daemon.ready" in line for line in b.log)
        has_left = {item["host"]: item["has_left"] for item in several.items(MACHINES)}
        assert has_left == {"a": True, "silent": False, "b": True}
        assert {item["owner"] for item in several.items(SHARDS_KEY)} == {None}


@pytest.mark.long
@pytest.mark.timeout(180)  # a minute between two messages
async def test_trouble_that_one_machine_has_told_is_over_by_what_the_next_one_says(several):
    async with SubscribedSns() as sns:
        sns.topics[ON_CALL] = {}
        sns.faults.fail_entries = {"broken": ("InvalidParameter", True)}

        keys = {"sns_url": sns.url, "CRONALLY_ALERTS_TOPIC": ON_CALL}
        with several.machine("a", **keys) as a, several.machine("b", **keys) as b:
            await asyncio.to_thread(a.start)
            with a.client() as client:
                document = {"when": "@every 1s", "topic": TASKS, "message": "broken"}
                await asyncio.to_thread(client.put, "job", document)
            await sns.wait_for_topic(ON_CALL)
            await asyncio.to_thread(b.start)
            assert await asyncio.to_thread(a.stop) == 0
            sns.faults.fail_entries = {}
            alerts = await sns.wait_for_topic(ON_CALL, 2)
            assert await asyncio.to_thread(b.stop) == 0
    assert [alert.attributes["cronally.alert"][1] for alert in alerts] == ["failing", "recovered"]
    assert alerts[1].message.startswith("job has recovered: job@")
