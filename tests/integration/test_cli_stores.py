"""``cronally store``, from its words to what is printed: moto's server for DynamoDB."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from cronally.domain.table_calls import EXPIRES
from cronally.store.sqlite import SqliteStore
from support.moto_server import free_port
from support.stores import T, creation, spec
from support.table_servers import new_table_name, table_server

pytestmark = pytest.mark.long

CLI = Path(__file__).parents[1] / "support" / "aws_cli.py"


@pytest.fixture
def dynamodb(aws_files, monkeypatch):
    """A client of the server that the commands find, too."""
    url = table_server("moto")
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("dynamodb", region_name="us-east-1")
    yield client
    client.close()


@pytest.fixture
def table():
    return new_table_name()


def shape(client, table):
    """Return what makes a table one of ours."""
    found = client.describe_table(TableName=table)["Table"]
    expiry = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    return {
        "keys": found["KeySchema"],
        "types": found["AttributeDefinitions"],
        "billing": found["BillingModeSummary"]["BillingMode"],
        "expires": (expiry["TimeToLiveStatus"], expiry.get("AttributeName")),
    }


def file_with(path, *names):
    async def write():
        store = SqliteStore(path)
        await store.open()
        for name in names:
            await store.change(creation(spec(name)))
        await store.close(watermark=T)

    asyncio.run(write())


# --- create -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("store", "create", "dynamodb:jobs"), "CreateTable"),
        (("store", "copy", "dynamodb:jobs", "sqlite:{}/new.db"), "DescribeTable"),
    ],
)
def test_where_nobody_listens_that_is_said_at_once(alone, dynamodb, tmp_path, monkeypatch, words, asked):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    code, out, err = alone(*(word.format(tmp_path) for word in words))
    assert (code, out) == (1, "")
    assert f"the DynamoDB table 'jobs' does not answer {asked}: " in err
    assert not (tmp_path / "new.db").exists()


def test_create_makes_the_table_once(alone, dynamodb, table):
    code, out, err = alone("store", "create", f"dynamodb:{table}")
    assert code == 0
    assert f"made the table {table}" in out
    assert f"cronally serve --store dynamodb:{table}" in err
    assert shape(dynamodb, table) == {
        "keys": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        "types": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        "billing": "PAY_PER_REQUEST",
        "expires": ("ENABLED", EXPIRES),
    }
    assert "there is already" in alone.ok("store", "create", f"dynamodb:{table}")
    assert alone.json("store", "create", f"dynamodb:{table}") == {
        "store": f"dynamodb:{table}",
        "created": False,
    }


def test_create_finishes_what_was_interrupted(alone, dynamodb, table):
    alone.ok("store", "create", f"dynamodb:{table}")
    dynamodb.update_time_to_live(
        TableName=table, TimeToLiveSpecification={"Enabled": False, "AttributeName": EXPIRES}
    )
    alone.ok("store", "create", f"dynamodb:{table}")
    assert shape(dynamodb, table)["expires"] == ("ENABLED", EXPIRES)


def test_a_table_of_another_program_is_refused(alone, dynamodb, table):
    dynamodb.create_table(
        TableName=table,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    assert "not one of cronally's (its key is id)" in alone.bad(
        "store", "create", f"dynamodb:{table}", code=1
    )


def test_the_lines_of_a_dry_run_make_the_same_table(alone, dynamodb, table):
    alone.ok("store", "create", f"dynamodb:{table}")
    other = new_table_name()
    lines = alone.ok("store", "create", f"dynamodb:{other}", "--dry-run").splitlines()
    assert lines == alone.json("store", "create", f"dynamodb:{other}", "--dry-run")["commands"]
    assert other not in dynamodb.list_tables()["TableNames"]
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["aws", "dynamodb"]
        if words[2] != "wait":
            subprocess.run(
                [sys.executable, CLI, *words[1:]],
                check=True,
                env=os.environ | {"AWS_DEFAULT_REGION": "us-east-1"},
                capture_output=True,
            )
    assert lines[1] == f"aws dynamodb wait table-exists --table-name {other}"
    assert shape(dynamodb, other) == shape(dynamodb, table)


def test_the_template_makes_the_same_table(alone, dynamodb, table):
    alone.ok("store", "create", f"dynamodb:{table}")
    other = new_table_name()
    template = alone.ok("store", "create", f"dynamodb:{other}", "--cloudformation")
    [resource] = json.loads(template)["Resources"].values()
    assert resource["DeletionPolicy"] == "Retain"
    assert resource["Properties"]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    stacks = boto3.client("cloudformation", region_name="us-east-1")
    stacks.create_stack(StackName=f"stack-of-{other}", TemplateBody=template)
    stacks.close()
    assert shape(dynamodb, other)["keys"] == shape(dynamodb, table)["keys"]
    assert shape(dynamodb, other)["billing"] == "PAY_PER_REQUEST"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["create", "sqlite:/tmp/x"], "which 'cronally serve' makes by itself"),
        (["create", "mongodb:x"], "write it as sqlite:PATH or dynamodb:TABLE"),
        (["create", "dynamodb:a b"], "cannot be a table's name"),
        (["copy", "sqlite:/a", "sqlite:/b"], "one of the two must be sqlite:PATH and the other dynamodb:TABLE"),
        (["copy", "dynamodb:abc", "dynamodb:abd"], "one of the two must be"),
        (["copy", "/a", "dynamodb:abc"], "write it as sqlite:PATH or dynamodb:TABLE"),
    ],
)  # fmt: skip
def test_words_that_are_not_understood(alone, words, part):
    assert part in alone.bad("store", *words)


def test_without_a_region_it_says_so(alone, dynamodb, monkeypatch):
    monkeypatch.delenv("AWS_REGION")
    assert "in which region is the table?" in alone.bad("store", "create", "dynamodb:abc")


# --- copy -------------------------------------------------------------------------------------------------------


def test_copy_there_and_back(alone, dynamodb, table, tmp_path):
    path = tmp_path / "cronally.db"
    file_with(path, "a", "b", "c")
    source, target = f"sqlite:{path}", f"dynamodb:{table}"
    assert "cronally store create" in alone.bad("store", "copy", source, target, code=1)
    alone.ok("store", "create", target)
    out = alone.ok("store", "copy", source, target)
    assert f"copied {source} to {target}: schedules: 3, journal entries: 0, pending: 0" in out
    back = f"sqlite:{tmp_path}/back.db"
    assert alone.json("store", "copy", target, back) == {
        "from": target,
        "to": back,
        "schedules": 3,
        "journal": 0,
        "pending": 0,
    }
    assert "already" in alone.bad("store", "copy", target, back, code=5)
    assert "has schedules" in alone.bad("store", "copy", source, target, code=5)
