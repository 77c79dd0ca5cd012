"""What ``doctor`` finds about a table that machines share, and how it is judged. Pure, as ``domain.findings``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cronally.domain.aws_calls import command_line
from cronally.domain.findings import Finding, failed, ok, warning
from cronally.domain.table_calls import foreign_key, let_items_expire, table_policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Seen(NamedTuple):
    """A machine that has not left. is_alive: its heartbeat has changed while it was watched."""

    host: str
    lease_ms: int
    is_alive: bool


def table_finding(name: str, table: Mapping[str, Any], *, region: str) -> Finding:
    """Judge what DescribeTable says."""
    key = foreign_key(table)
    if key is not None:
        return failed(
            "store",
            f"the DynamoDB table {name} is not one of cronally's: its key is {key}",
            "name another with --store; 'cronally store create' makes one",
        )
    if table["TableStatus"] not in ("ACTIVE", "UPDATING"):
        status = str(table["TableStatus"]).lower()
        return failed(
            "store", f"the DynamoDB table {name} in {region} is {status}", "wait until it is active"
        )
    return ok("store", f"the DynamoDB table {name} in {region} is there")


def expiry_finding(name: str, *, expires: bool | None) -> Finding:
    """Judge whether what is over goes by itself. expires: None if AWS does not tell."""
    if expires is None:
        text = "whether items that are over go was not tested (dynamodb:DescribeTimeToLive is not allowed; no daemon needs it)"
        return ok("store expiry", text)
    if not expires:
        text = "items that are over stay in the table, and are paid for"
        return warning("store expiry", text, command_line(let_items_expire(name)))
    return ok("store expiry", "items that are over go by themselves")


def permissions_finding(name: str, denied: Sequence[str], *, region: str, account: str) -> Finding:
    """Judge what the caller may do with the table. denied: actions of IAM that were refused."""
    if not denied:
        return ok("permissions", f"each action on the table {name} is allowed; nothing was changed")
    policy = json.dumps(table_policy(name, region=region, account=account))
    return failed(
        "permissions",
        f"AWS does not allow {', '.join(denied)} on the table {name}",
        f"attach this policy to the daemon's user or role: {policy}",
    )


def machines_finding(machines: Sequence[Seen], *, watched_s: float) -> Finding:
    """Judge who shares the table, after the heartbeats were watched for so long."""
    alive = sorted(one.host for one in machines if one.is_alive)
    silent = [one for one in machines if not one.is_alive]
    text = f"{', '.join(alive)} {'are' if len(alive) > 1 else 'is'} alive" if alive else "none is alive"
    if not silent:
        return ok("machines", text)
    hosts = ", ".join(f"{one.host} (lease {one.lease_ms / 1000:g} s)" for one in silent)
    fix = (
        "if that lasts, look at those machines; when its lease is over another one takes what such a machine had"
        if alive
        else "start 'cronally serve' on a machine: it takes over what those had, and fires what is due by the policies"
    )
    return warning("machines", f"{text}; not heard for {watched_s:g} s: {hosts}", fix)
