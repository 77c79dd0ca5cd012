"""What IAM has to say so that a message gets to its topic, and from there to its target.

1. A policy that is there keeps every statement that is not ours: ours has a ``Sid`` made from the topic's ARN.
2. Pure: policies come and go as JSON text.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from cronally.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_VERSION: Final = "2012-10-17"  # IAM User Guide, Version: the present policy language


def statement_id(topic: str) -> str:
    """Return the id of our statement about *topic*, the same at every run: letters and digits, as SQS and Lambda take them."""
    return f"Cronally{hashlib.sha256(topic.encode()).hexdigest()[:16]}"


def queue_statement(topic: str, queue: str) -> dict[str, Any]:
    """Return what lets SNS put messages of *topic*, and of no other, into *queue* (both ARNs)."""
    return {
        "Sid": statement_id(topic),
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }


def merged_policy(present: str | None, statement: dict[str, Any]) -> str | None:
    """Return the policy *present* (None or empty: there is none) with *statement* in it; None if it is in it already.

    A statement with its ``Sid`` is replaced; the others stay, in their order. Errors: UsageError if *present* cannot be read.
    """
    policy = _read(present) if present else {"Version": _VERSION, "Statement": []}
    statements = _statements(policy)
    if statement in statements:
        return None
    others = [one for one in statements if not (isinstance(one, dict) and one.get("Sid") == statement["Sid"])]
    return json.dumps({**policy, "Statement": [*others, statement]}, separators=(",", ":"))


def has_permission(present: str | None, topic: str) -> bool:
    """Whether the policy *present* of a Lambda function has our statement about *topic*. Errors: as ``merged_policy``."""
    if not present:
        return False
    sid = statement_id(topic)
    return any(isinstance(one, dict) and one.get("Sid") == sid for one in _statements(_read(present)))


def publish_policy(topics: Iterable[str], *, keys: Iterable[str] = ()) -> str:
    """Return the least policy that lets a daemon publish to *topics* (ARNs), as JSON to paste.

    keys: ARNs of the KMS keys of those that are encrypted with one of the account's own.
    Source: SNS Developer Guide, *AWS KMS permissions*: the publisher makes a data key, and reads it.
    """
    statements = [{"Effect": "Allow", "Action": "sns:Publish", "Resource": sorted(topics)}]
    if of_keys := sorted(keys):
        actions = ["kms:GenerateDataKey*", "kms:Decrypt"]
        statements.append({"Effect": "Allow", "Action": actions, "Resource": of_keys})
    return json.dumps({"Version": _VERSION, "Statement": statements})


def _read(text: str) -> dict[str, Any]:
    try:
        policy = json.loads(text)
    except ValueError:
        policy = None
    if not isinstance(policy, dict):
        raise UsageError(
            f"the policy that is there is not a JSON object ({text[:100]!r}); correct or remove it first"
        )
    return policy


def _statements(policy: dict[str, Any]) -> list[Any]:
    found = policy.get("Statement", [])
    return found if isinstance(found, list) else [found]
