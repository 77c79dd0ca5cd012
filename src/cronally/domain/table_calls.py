"""The table that several machines share: how it is made, and what AWS must allow who uses it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from cronally.domain.aws_calls import Call, command_line

if TYPE_CHECKING:
    from collections.abc import Mapping

EXPIRES: Final = "expires"
"""The attribute that says when an item may go, in seconds since the epoch."""

_KEY: Final = (("pk", "HASH"), ("sk", "RANGE"))
_ACTIONS: Final = (
    "DescribeTable",
    "GetItem",
    "Query",
    "PutItem",
    "UpdateItem",
    "DeleteItem",
    "BatchWriteItem",
)


def create_table(name: str) -> Call:
    """Return the call that makes the table, paid by request."""
    return Call(
        service="dynamodb",
        operation="CreateTable",
        resource=name,
        parameters={
            "TableName": name,
            "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key, _ in _KEY],
            "KeySchema": [{"AttributeName": key, "KeyType": kind} for key, kind in _KEY],
            "BillingMode": "PAY_PER_REQUEST",
        },
    )


def foreign_key(table: Mapping[str, Any]) -> str | None:
    """Return the key of a table that is not one of ours, as DescribeTable has it; None for one that is."""
    found = [(key["AttributeName"], key["KeyType"]) for key in table["KeySchema"]]
    return None if found == list(_KEY) else ", ".join(name for name, _ in found)


def let_items_expire(name: str) -> Call:
    """Return the call after which items that are over go by themselves, at no cost."""
    return Call(
        service="dynamodb",
        operation="UpdateTimeToLive",
        resource=name,
        parameters={
            "TableName": name,
            "TimeToLiveSpecification": {"Enabled": True, "AttributeName": EXPIRES},
        },
    )


def create_lines(name: str) -> list[str]:
    """Return the lines for the AWS CLI that make the table."""
    wait = shlex.join(["aws", "dynamodb", "wait", "table-exists", "--table-name", name])
    return [command_line(create_table(name)), wait, command_line(let_items_expire(name))]


def cloudformation(name: str) -> dict[str, Any]:
    """Return a template that makes the same table. It stays when its stack goes."""
    parameters = dict(create_table(name).parameters)
    expiry = let_items_expire(name).parameters["TimeToLiveSpecification"]
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "The table that the machines of cronally share",
        "Resources": {
            "CronallyTable": {
                "Type": "AWS::DynamoDB::Table",
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                "Properties": parameters
                | {
                    "TimeToLiveSpecification": expiry,
                    "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
                },
            }
        },
    }


def table_policy(name: str, *, region: str = "*", account: str = "*") -> dict[str, Any]:
    """Return the least IAM policy of a machine that uses the table."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "CronallyTable",
                "Effect": "Allow",
                "Action": [f"dynamodb:{action}" for action in _ACTIONS],
                "Resource": f"arn:aws:dynamodb:{region}:{account}:table/{name}",
            }
        ],
    }
