"""A PublishBatch call on the wire: its form, its signature, its head.

Pure, and hot: a burst encodes a hundred thousand messages. The bytes are those botocore's serializer and ``urlencode`` write,
but for the order of the keys; the tests compare.

1. What is written decodes to exactly what the entry says; whatever the fast path does not know goes the slow way.
2. The ``Id`` of an entry is its place in the request, from 0.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import quote, quote_plus

from cronally.domain.model import Kind
from cronally.domain.spec import Attribute
from cronally.domain.topic import is_fifo_topic
from cronally.instants import UtcMs, format_utc, to_datetime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cronally.domain.message import Entry
    from cronally.domain.spec import ScheduleSpec

CONTENT_TYPE = "application/x-www-form-urlencoded; charset=utf-8"  # botocore's; it is signed

_SCHEDULED = Kind.SCHEDULED  # looked up in the Enum it costs more than all of an f-string
_MOST_IN_CACHE_CHARS = 2_000  # of the attributes of a schedule; larger ones would be kept for nothing


class Key(Protocol):
    """What signs. botocore's frozen credentials are one."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...


# --- the form -----------------------------------------------------------------------------------------------------


class Form(NamedTuple):
    """A body, the entries it holds, in order, and those that cannot be written, each with the reason."""

    body: bytes
    entries: tuple[Entry, ...]
    refused: tuple[tuple[Entry, str], ...] = ()


def encode(topic: str, entries: Sequence[Entry]) -> Form:
    """Return the form of one call that publishes *entries* (at most ten) to *topic*."""
    try:
        return Form(_body(topic, entries), tuple(entries))
    except ValueError:  # bad base64, a lone surrogate: find out whose
        good: list[Entry] = []
        refused: list[tuple[Entry, str]] = []
        for entry in entries:
            try:
                _body(topic, (entry,))
            except ValueError as exc:
                refused.append((entry, f"ValueError: {exc}"))
            else:
                good.append(entry)
        return Form(_body(topic, good) if good else b"", tuple(good), tuple(refused))


def _body(topic: str, entries: Sequence[Entry]) -> bytes:
    parts = [_beginning(topic)]
    is_fifo = is_fifo_topic(topic)
    messages = _quoted_all([spec.message or "" for _, spec, _, _ in entries])
    attributes: tuple[Attribute, ...] = ()
    texts: tuple[str, ...] = ()
    for (fire, spec, fire_id, _), text, keys in zip(entries, messages, _MEMBERS, strict=False):
        name = spec.name
        kind = fire.kind
        time = _quoted_time(fire.fire_time)
        if kind is _SCHEDULED:
            id_ = f"{name}%40{time}"
        else:
            id_ = fire_id.replace("@", "%40").replace(":", "%3A").replace("+", "%2B")
        if spec.message is None:
            message = f"{_DEFAULT_1}{name}{_DEFAULT_2}{time}{_DEFAULT_3}{id_}{_DEFAULT_4}"
        elif "%3C" in text:
            message = _filled(text, name, time, id_)
        else:
            message = text
        parts += (keys.message, message, keys.name, name, keys.time, time, keys.id, id_)
        if kind is not _SCHEDULED:
            more = _quoted_attributes(keys.number, (_kind(kind), *spec.attributes))
            parts.append(_filled(more, name, time, id_))
        elif spec.attributes:
            if spec.attributes is not attributes:  # those of a crowd mostly share them
                attributes = spec.attributes
                texts = _attribute_texts(attributes)
            more = texts[keys.number - 1]
            parts.append(_filled(more, name, time, id_) if "%3C" in more else more)
        if spec.subject is not None or spec.message_structure is not None:
            parts.append(_described(keys.number, spec))
        if is_fifo or spec.group is not None:
            parts.append(_grouped(keys.number, spec, id_))
    return "".join(parts).encode("ascii")


class _Member(NamedTuple):
    """The constant text before each value that every entry has. number: of the member, from 1."""

    number: int
    message: str
    name: str
    time: str
    id: str


def _member(number: int) -> _Member:
    prefix = f"&PublishBatchRequestEntries.member.{number}."

    def attribute(place: int, name: str) -> str:
        entry = f"{prefix}MessageAttributes.entry.{place}."
        return f"{entry}Name={name}{entry}Value.DataType=String{entry}Value.StringValue="

    return _Member(
        number,
        f"{prefix}Id={number - 1}{prefix}Message=",
        attribute(1, "cronally.schedule"),
        attribute(2, "cronally.fire_time"),
        attribute(3, "cronally.fire_id"),
    )


_MEMBERS = tuple(_member(number) for number in range(1, 11))

# ``domain.message``: {"schedule": "…", "fire_time": "…", "fire_id": "…"}, each value made of characters that JSON leaves alone.
_DEFAULT_1, _DEFAULT_2, _DEFAULT_3, _DEFAULT_4 = (
    quote_plus(text) for text in ('{"schedule": "', '", "fire_time": "', '", "fire_id": "', '"}')
)


@lru_cache(maxsize=4_096)
def _beginning(topic: str) -> str:
    return f"Action=PublishBatch&Version=2010-03-31&TopicArn={quote_plus(topic)}"


@lru_cache(maxsize=4_096)
def _quoted_time(fire_time: UtcMs) -> str:
    return format_utc(fire_time).replace(":", "%3A")


def _attribute_texts(attributes: tuple[Attribute, ...]) -> tuple[str, ...]:
    """Return what follows the three attributes that every message has, by the number of the member, from 1.

    Placeholders are still in it, quoted.
    """
    chars = 0
    for attribute in attributes:
        chars += len(attribute.value)
    return (_all_texts if chars <= _MOST_IN_CACHE_CHARS else _all_texts.__wrapped__)(attributes)


@lru_cache(maxsize=256)
def _all_texts(attributes: tuple[Attribute, ...]) -> tuple[str, ...]:
    return tuple(_quoted_attributes(member.number, attributes) for member in _MEMBERS)


def _kind(kind: Kind) -> Attribute:
    return Attribute("cronally.kind", str(kind))


def _quoted_attributes(number: int, attributes: tuple[Attribute, ...]) -> str:
    prefix = f"&PublishBatchRequestEntries.member.{number}.MessageAttributes.entry."
    parts: list[str] = []
    for place, (name, text, type_) in enumerate(attributes, 4):
        field, value = "StringValue", text
        if type_ == "Binary":
            field, value = "BinaryValue", base64.b64encode(base64.b64decode(text, validate=True)).decode()
        parts.append(
            f"{prefix}{place}.Name={quote_plus(name)}{prefix}{place}.Value.DataType={quote_plus(type_)}"
            f"{prefix}{place}.Value.{field}={quote_plus(value)}"
        )
    return "".join(parts)


def _described(number: int, spec: ScheduleSpec) -> str:
    prefix = f"&PublishBatchRequestEntries.member.{number}."
    subject = f"{prefix}Subject={quote_plus(spec.subject)}" if spec.subject is not None else ""
    if spec.message_structure is None:
        return subject
    return f"{subject}{prefix}MessageStructure={quote_plus(spec.message_structure)}"


def _grouped(number: int, spec: ScheduleSpec, id_: str) -> str:
    prefix = f"&PublishBatchRequestEntries.member.{number}."
    text = f"{prefix}MessageGroupId={quote_plus(spec.group_id or '')}"
    return f"{text}{prefix}MessageDeduplicationId={id_}" if spec.is_fifo else text


def _filled(quoted: str, name: str, time: str, id_: str) -> str:
    """Do as ``domain.message.filled``, with everything quoted: quoting goes character by character, so the two commute."""
    if "%3Ccronally." not in quoted and "%3Caws." not in quoted:
        return quoted
    day, _, clock = time[:-1].partition("T")
    return (
        quoted.replace("%3Ccronally.schedule%3E", name)
        .replace("%3Ccronally.fire-time%3E", time)
        .replace("%3Ccronally.fire-id%3E", id_)
        .replace("%3Ccronally.fire-time-utc%3E", f"{day}+{clock}+UTC")
        .replace("%3Caws.scheduler.scheduled-time%3E", time)
    )


# --- quoting ------------------------------------------------------------------------------------------------------

_SEPARATOR = "^"  # never in quoted text, and rare in what people write
_QUOTED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~%+"


def _quoted_all(texts: list[str]) -> list[str]:
    """Return each of *texts* as ``quote_plus`` writes it; together, since most of the cost is per call."""
    if len(texts) > 1:
        quoted = _replaced(_SEPARATOR.join(texts))
        if quoted is not None:
            parts = quoted.split(_SEPARATOR)
            if len(parts) == len(texts):
                return parts
    return [_quoted(text) for text in texts]


def _quoted(text: str) -> str:
    quoted = _replaced(text)
    return quote_plus(text) if quoted is None or _SEPARATOR in quoted else quoted


def _replaced(text: str) -> str | None:
    """Quote all but the separator; None if there is something in *text* that only ``quote_plus`` knows to quote.

    Replacements in C, one after the other, are three times as fast as a look at each character in Python.
    """
    if not text.isascii():
        return None
    text = (
        text.replace("%", "%25")  # before all that write one
        .replace("+", "%2B")
        .replace(" ", "+")
        .replace('"', "%22")
        .replace(":", "%3A")
        .replace(",", "%2C")
        .replace("{", "%7B")
        .replace("}", "%7D")
    )
    if not _unquoted(text):
        return text
    text = (
        text.replace("/", "%2F")
        .replace("=", "%3D")
        .replace("&", "%26")
        .replace("[", "%5B")
        .replace("]", "%5D")
        .replace("\n", "%0A")
        .replace("<", "%3C")
        .replace(">", "%3E")
        .replace("'", "%27")
        .replace("(", "%28")
        .replace(")", "%29")
        .replace("?", "%3F")
        .replace("!", "%21")
        .replace("@", "%40")
        .replace("#", "%23")
        .replace(";", "%3B")
        .replace("\\", "%5C")
        .replace("|", "%7C")
        .replace("*", "%2A")
        .replace("$", "%24")
        .replace("`", "%60")
    )
    return None if _unquoted(text) else text


def _unquoted(text: str) -> bool:
    """Whether something is left in *text* that must not stand in a form."""
    return bool(text.encode("ascii").translate(None, _QUOTED).strip(b"^"))


# --- signature and head -------------------------------------------------------------------------------------------


class Site(NamedTuple):
    """What a request says about where it goes.

    Fields: region: of the signature. host: as in the Host header. path: percent-encoded, from ``/``. target: what the
        request line asks for, the path or, for a plain proxy, the whole URL. extra: more header lines, each with its CRLF.
    """

    region: str
    host: str
    path: str
    target: str
    extra: str


class Signer:
    """Signs the calls to one site with one key and one date (Signature Version 4).

    Attributes: key. date_s: of the signature, seconds since the epoch.
    """

    __slots__ = ("_canonical", "_hmac", "_length", "_scoped", "_signature", "date_s", "key")

    def __init__(self, site: Site, key: Key, date_s: int) -> None:
        self.key = key
        self.date_s = date_s
        date = to_datetime(UtcMs(date_s * 1000)).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{date[:8]}/{site.region}/sns/aws4_request"
        token = f"x-amz-security-token:{key.token}\n" if key.token else ""
        names = "content-type;host;x-amz-date" + (";x-amz-security-token" if key.token else "")
        headers = f"content-type:{CONTENT_TYPE}\nhost:{site.host}\nx-amz-date:{date}\n{token}"
        path = quote(site.path, safe="/-_.~")  # the path as it is sent, encoded once more
        self._canonical = f"POST\n{path}\n\n{headers}\n{names}\n".encode()
        self._scoped = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n".encode()
        self._hmac = hmac.new(_day_key(key.secret_key, date[:8], site.region), digestmod="sha256")
        self._length = (
            f"POST {site.target} HTTP/1.1\r\nHost: {site.host}\r\nContent-Type: {CONTENT_TYPE}\r\n"
            f"{site.extra}Content-Length: "
        ).encode()
        token = f"X-Amz-Security-Token: {key.token}\r\n" if key.token else ""
        self._signature = (
            f"\r\nX-Amz-Date: {date}\r\n{token}Authorization: AWS4-HMAC-SHA256 "
            f"Credential={key.access_key}/{scope}, SignedHeaders={names}, Signature="
        ).encode()

    def head(self, body: bytes) -> bytes:
        """Return request line and headers for *body*, signed, to be written before it."""
        canonical = self._canonical + hashlib.sha256(body).hexdigest().encode()
        signature = self._hmac.copy()
        signature.update(self._scoped + hashlib.sha256(canonical).hexdigest().encode())
        return b"%b%d%b%b\r\n\r\n" % (
            self._length,
            len(body),
            self._signature,
            signature.hexdigest().encode(),
        )


@lru_cache(maxsize=64)
def _day_key(secret_key: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, "sns", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
