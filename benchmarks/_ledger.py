"""What the receiver got: the signature of every request checked, every message booked at its fire time.

It shares no code with the daemon: the SigV4 below is written from AWS's documentation (Signature Version 4, "Create a
signed AWS API request"), with the standard library.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from array import array
from collections import Counter
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ACCESS_KEY = "AKIDBENCHMARK"
SECRET_KEY = "benchmark/secret"
MAX_SKEW_S = 15 * 60  # SNS: "Signature expired … (… - 15 min.)"
MOST_EXAMPLES = 5
# Where a curve has its points, in per cent: the tail is what one looks at.
CURVE = (*range(100), 99.5, 99.9, 100)

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)


def signature_fault(request: bytes, arrived_us: int) -> str | None:
    """Say what is wrong with the signature of a whole HTTP request, or None.

    Args: arrived_us: wall clock at its arrival, to judge its date by.
    """
    end = request.index(b"\r\n\r\n")
    first, *lines = request[:end].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    match = _AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if match is None:
        return "there is no whole Authorization"
    key, day, region, service, signed, signature = match.groups()
    names = signed.split(";")
    stamp = headers.get("x-amz-date", "")
    if key != ACCESS_KEY:
        return f"the key is {key}"
    if service != "sns" or names != sorted(names) or not {"host", "x-amz-date"} <= set(names):
        return f"the scope is {service}, signed are {signed}"
    try:
        instant = _stamp_s(stamp)
    except ValueError:
        return f"the date is {stamp!r}"
    if stamp[:8] != day or abs(arrived_us / 1e6 - instant) > MAX_SKEW_S:
        return f"the date {stamp} is not now"
    url = urlsplit(target)
    query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(parse_qsl(url.query, keep_blank_values=True))
    )
    canonical = "\n".join(
        [
            method,
            quote(url.path or "/", safe="/-_.~"),
            query,
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in names),
            "",
            signed,
            hashlib.sha256(memoryview(request)[end + 4 :]).hexdigest(),
        ]
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    wanted = hmac.new(_signing_key(day, region, service), text.encode(), hashlib.sha256).hexdigest()
    return None if hmac.compare_digest(wanted, signature) else "the signature does not match"


@lru_cache(maxsize=64)
def _stamp_s(stamp: str) -> float:
    return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


@lru_cache(maxsize=64)
def _signing_key(day: str, region: str, service: str) -> bytes:
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


class _Slot:
    """The messages of one fire time. seen: for each schedule, how often."""

    __slots__ = ("doubled", "early", "fire_time", "instant_us", "lateness_us", "seen")

    def __init__(self, fire_time: str) -> None:
        self.fire_time = fire_time
        self.instant_us = round(datetime.fromisoformat(fire_time).timestamp() * 1000) * 1000
        self.lateness_us = array("q")
        self.seen = bytearray()
        self.early = 0
        self.doubled: list[bytes] = []

    def add(self, number: int, fire_id: bytes, arrived_us: int) -> None:
        if number >= len(self.seen):
            self.seen.extend(bytes(number - len(self.seen) + 4096))
        lateness_us = arrived_us - self.instant_us
        self.lateness_us.append(lateness_us)
        if lateness_us < 0:
            self.early += 1
        if self.seen[number]:
            self.doubled.append(fire_id)
        else:
            self.seen[number] = 1


class Ledger:
    """Books requests. Attributes: requests, messages: booked so far. bad_signatures: requests that AWS would refuse.

    unidentified: messages without a fire id. mismatched: messages that are not the text of their schedule.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.messages = 0
        self.bad_signatures = 0
        self.unidentified = 0
        self.mismatched = 0
        self._examples: list[str] = []
        self._slots: dict[bytes, _Slot] = {}
        self._numbers: dict[bytes, int] = {}
        self._seconds: Counter[int] = Counter()

    def take(self, arrived_us: int, request: bytes) -> None:
        """Book one whole HTTP request that was accepted at *arrived_us*."""
        self.requests += 1
        fault = signature_fault(request, arrived_us)
        if fault is not None:
            self.bad_signatures += 1
            self._note(fault)
        count = 0
        for fire_id, message in fires_in(request[request.index(b"\r\n\r\n") + 4 :]):
            count += 1
            name, at, fire_time = fire_id.rpartition(b"@")
            if not at:
                self.unidentified += 1
                continue
            if name not in message:
                self.mismatched += 1
                self._note(f"{fire_id!r} has the message {message[:100]!r}")
            slot = self._slots.get(fire_time)
            if slot is None:
                slot = self._slots[fire_time] = _Slot(fire_time.decode())
            slot.add(self._numbers.setdefault(name, len(self._numbers)), fire_id, arrived_us)
        self.messages += count
        self._seconds[arrived_us // 1_000_000] += count

    def _note(self, text: str) -> None:
        if len(self._examples) < MOST_EXAMPLES:
            self._examples.append(text)

    def summary(
        self, expected: Sequence[str] = (), between_s: tuple[float, float] | None = None
    ) -> dict[str, Any]:
        """Return what was booked.

        Args: expected: names of the schedules that have a message at every fire time. between_s: leave other fire times
            out of ``slots`` and of what is counted from them; a <= fire time < b, Unix seconds.
        """
        low, high = between_s or (float("-inf"), float("inf"))
        wanted = [slot for slot in self._slots.values() if low <= slot.instant_us / 1e6 < high]
        numbers = [self._numbers.get(name.encode(), -1) for name in expected]
        slots = [
            self._slot_summary(slot, expected, numbers)
            for slot in sorted(wanted, key=lambda slot: slot.instant_us)
        ]
        everything = array("q")
        for slot in wanted:
            everything.extend(slot.lateness_us)
        return {
            "requests": self.requests,
            "messages": self.messages,
            "bad_signatures": self.bad_signatures,
            "unidentified": self.unidentified,
            "mismatched": self.mismatched,
            "examples": self._examples,
            "early": sum(slot["early"] for slot in slots),
            "doubled": sum(slot["doubled"] for slot in slots),
            "lost": sum(slot["lost"] for slot in slots),
            "slots": slots,
            "curve_us": curve(everything),
            "per_second": sorted(self._seconds.items()),
        }

    def _slot_summary(self, slot: _Slot, expected: Sequence[str], numbers: list[int]) -> dict[str, Any]:
        seen = slot.seen
        lost = [
            name
            for name, number in zip(expected, numbers, strict=True)
            if not 0 <= number < len(seen) or not seen[number]
        ]
        return {
            "fire_time": slot.fire_time,
            "instant_us": slot.instant_us,
            "messages": len(slot.lateness_us),
            "early": slot.early,
            "doubled": len(slot.doubled),
            "doubled_ids": [fire_id.decode() for fire_id in slot.doubled[:MOST_EXAMPLES]],
            "lost": len(lost),
            "lost_names": lost[:MOST_EXAMPLES],
            "curve_us": curve(slot.lateness_us),
        }


def curve(values: Sequence[int] | array[int]) -> list[int]:
    """Return the values at the shares of ``CURVE``, nearest rank; empty if there are none."""
    ordered = sorted(values)
    if not ordered:
        return []
    return [ordered[min(len(ordered) - 1, int(share * len(ordered) / 100))] for share in CURVE]


def fires_in(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield fire id (empty if there is none) and message, still in its escapes, of each entry of a Publish or PublishBatch.

    It is called for every request of a run that goes on, beside the daemon: so it looks at no more than it needs.
    """
    try:
        form = dict([pair.split(b"=", 1) for pair in body.split(b"&")])
    except ValueError:  # no form
        yield b"", b""
        return
    missing = body.count(b".Message=") + body.startswith(b"Message=") + body.count(b"&Message=")
    for key, name in form.items():
        if name == b"cronally.fire_id" and key.endswith(b".Name"):
            fire_id = form.get(key[:-4] + b"Value.StringValue", b"")
            fire_id = unquote_to_bytes(fire_id.replace(b"%40", b"@").replace(b"%3A", b":"))
            yield fire_id, form.get(key[: key.index(b"MessageAttributes.")] + b"Message", b"")
            missing -= 1
    for _ in range(missing):
        yield b"", b""
