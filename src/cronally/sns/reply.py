"""A reply of SNS, read: a verdict for each entry of the call."""

from __future__ import annotations

import re
from typing import NamedTuple
from xml.parsers import expat

from cronally.engine.ports import OutcomeClass
from cronally.sns.outcome import NOT_NAMED, PUBLISHED, Verdict, call_verdict, entry_verdict

ALL_PUBLISHED = tuple((PUBLISHED,) * count for count in range(11))
"""By the number of entries: what ``reply_verdicts`` returns when all went."""
_IDS = tuple(frozenset(b"%d" % place for place in range(count)) for count in range(11))
_ID = re.compile(rb"<Id>(\d)</Id>")
_UNREADABLE = Verdict(OutcomeClass.RETRY, "the reply of SNS cannot be read", is_unknown=True)


class Reply(NamedTuple):
    """An HTTP response. date: the value of its Date header, if it had one."""

    status: int
    body: bytes
    date: str | None = None


def reply_verdicts(reply: Reply, count: int) -> tuple[Verdict, ...] | Verdict:
    """Return a verdict for each of the *count* entries of a PublishBatch call, or one for the whole call.

    Entries are known by their place, from 0 (``request.encode``). One that is not named is unknown.
    """
    body = reply.body
    if reply.status == 200 and _names_only_successes(body):
        ids = _ID.findall(body)
        if len(ids) == count and _IDS[count].issuperset(ids) and len(set(ids)) == count:
            return ALL_PUBLISHED[count]
    found = _read(body)
    if reply.status != 200:
        code, message = ("", "") if found is None else found.error
        return call_verdict(code or str(reply.status), message, reply.status)
    if found is None:
        return _UNREADABLE
    verdicts = dict.fromkeys(found.published, PUBLISHED)
    for member in found.failed:
        fault = entry_verdict(
            member.get("Code") or "Unknown",
            member.get("Message", ""),
            is_sender_fault=member.get("SenderFault") == "true",
        )
        verdicts.setdefault(member.get("Id", ""), fault)
    return tuple(verdicts.get(str(place), NOT_NAMED) for place in range(count))


def _names_only_successes(body: bytes) -> bool:
    """Whether *body* is a whole PublishBatchResponse without a member of Failed; then each Id in it is one that went."""
    if not body.rstrip().endswith(b"</PublishBatchResponse>") or b"<PublishBatchResponse" not in body[:200]:
        return False
    failed = body.find(b"<Failed>")
    return (failed < 0 or body.startswith(b"</Failed>", failed + 8)) and b"<!" not in body


class _Found(NamedTuple):
    published: list[str]
    failed: list[dict[str, str]]
    error: tuple[str, str]


class _Doctype(Exception):  # noqa: N818 - it goes no further than this file
    pass


def _read(body: bytes) -> _Found | None:
    """Return what the XML in *body* says; None if it is none, or declares a document type (entities could be a bomb)."""
    published: list[str] = []
    failed: list[dict[str, str]] = []
    error: dict[str, str] = {}
    path: list[str] = []
    texts: dict[str, str] = {}

    def start(name: str, _attributes: object) -> None:
        path.append(name.rpartition(":")[2])
        if path[-1] == "member" or path[-1] == "Error":
            texts.clear()

    def text(data: str) -> None:
        if path:
            texts[path[-1]] = texts.get(path[-1], "") + data

    def end(_name: str) -> None:
        match path:
            case [*_, "Successful", "member"]:
                published.append(texts.get("Id", "").strip())
            case [*_, "Failed", "member"]:
                failed.append({key: value.strip() for key, value in texts.items()})
            case [*_, "Error"]:
                error.update(texts)
        path.pop()

    def refuse(*_: object) -> None:
        raise _Doctype

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, _Doctype, LookupError, ValueError):
        return None
    return _Found(published, failed, (error.get("Code", "").strip(), error.get("Message", "").strip()))
