"""The publisher: requests made ready ahead, written at the instant, their replies turned into outcomes.

1. Every entry gets exactly one outcome: its call ends in one reply or one failure, which becomes outcomes, or, where one
   entry may be to blame for the others, a call for each.
2. ``release`` only writes. Whatever is known at once is settled in a later turn of the loop.
3. Writing goes first: replies wait while requests do, for at most 100 ms.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING

from cronally.actions import about
from cronally.engine.ports import Outcome, OutcomeClass
from cronally.errors import InternalError
from cronally.instants import MAX_UTC_MS, UtcMs
from cronally.sns.dialer import CONNECT_TIMEOUT_S
from cronally.sns.endpoint import Endpoints, NoEndpoint
from cronally.sns.lane import ANSWER_TIMEOUT_S, ATTEMPT_TIMEOUT_S, MAX_CONNECTIONS, Lane
from cronally.sns.outcome import Verdict
from cronally.sns.reply import ALL_PUBLISHED, Reply, reply_verdicts
from cronally.sns.request import Signer, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cronally.clock import Clock
    from cronally.domain.batching import Batch
    from cronally.domain.message import Entry
    from cronally.engine.ports import Armed
    from cronally.sns.credentials import Credentials
    from cronally.sns.dialer import Route
    from cronally.sns.pacing import Pacing
    from cronally.sns.request import Key, Site

    Settle = Callable[[Sequence[Outcome]], None]

SIGNED_FOR_S = 240  # AWS takes a signature for 5 minutes in general, SNS for 15
_SLICE_S = 0.004  # at a time, of arming and of settling
_MAX_WAIT_S = 0.08  # of a reply behind requests; with a slice or two before it that is under 0.1
_LOOK_AGAIN_S = 0.01
_SAY_EVERY_S = 60.0
_LEAST_WAIT_S = 0.001  # for quota: a timer takes about as long

_log = logging.getLogger(__name__)


def _always() -> bool:
    return True


_CLOSED = Verdict(OutcomeClass.RETRY, "the publisher was closed before this was sent")
_TOO_LATE = Verdict(OutcomeClass.RETRY, "its deadline passed before a connection was free for it")
_NOT_TRUSTED = Verdict(
    OutcomeClass.RETRY, "the lease of this machine had ended before a connection was free for it"
)
_NO_KEY = Verdict(
    OutcomeClass.RETRY,
    "no AWS credentials to sign with; see 'aws sts get-caller-identity' for what the AWS tools find",
    are_credentials_refused=True,
)


class _Target:
    """The SNS of one region. skew_s: what its clock is ahead of ours, as far as signing goes."""

    __slots__ = ("_signer", "lane", "site", "skew_s")

    def __init__(self, site: Site, lane: Lane) -> None:
        self.site = site
        self.lane = lane
        self.skew_s = 0
        self._signer: Signer | None = None

    def signer(self, key: Key, date_s: int) -> Signer:
        """Return what signs with *key* for *date_s*; a burst has one for all its calls."""
        signer = self._signer
        if signer is None or signer.key is not key or signer.date_s != date_s:
            signer = self._signer = Signer(self.site, key, date_s)
        return signer


class _Call:
    """A PublishBatch call: ``Armed`` for the engine, a ``Request`` for its lane.

    target: None if the region has no endpoint; problem says why. data: head and body, once it is signed. refused: entries
    that cannot be written, with the reasons. released_us: 0 until it is written. last_begin_at: the first deadline of its fires.
    """

    __slots__ = (
        "_batch",
        "body",
        "data",
        "entries",
        "last_begin_at",
        "owner",
        "problem",
        "refused",
        "released_us",
        "settle",
        "signer",
        "target",
        "topic",
    )

    def __init__(self, owner: SnsPublisher, batch: Batch | None, topic: str, target: _Target | None) -> None:
        self.owner = owner
        self._batch = batch
        self.topic = topic
        self.target = target
        self.problem: Verdict | None = None
        self.entries: tuple[Entry, ...] = ()
        self.refused: tuple[tuple[Entry, str], ...] = ()
        self.body = b""
        self.data = b""
        self.signer: Signer | None = None
        self.settle: Settle | None = None
        self.released_us = 0
        self.last_begin_at = MAX_UTC_MS

    @property
    def batch(self) -> Batch:
        assert self._batch is not None
        return self._batch

    @property
    def size_bytes(self) -> int:
        return len(self.data) or len(self.body)

    def sign(self, key: Key, date_s: int) -> None:
        assert self.target is not None
        body = self.body or self.data[self.data.index(b"\r\n\r\n") + 4 :]
        self.signer = self.target.signer(key, date_s)
        self.data = self.signer.head(body) + body
        self.body = b""  # a burst would keep everything twice

    def take(self, entries: Sequence[Entry]) -> None:
        """Hold the *entries* that can be written; the others are ``refused``."""
        self.body, self.entries, self.refused = encode(self.topic, entries)
        self.last_begin_at = min((entry.fire.deadline_at for entry in self.entries), default=MAX_UTC_MS)
        self.data, self.signer = b"", None

    def _leave_out(self, now: UtcMs) -> None:
        """Leave out the entries whose deadline has passed: the attempt begins only now (design §6)."""
        going = []
        for entry in self.entries:
            if now > entry.fire.deadline_at:
                self.owner.conclude_singly(self, entry, _TOO_LATE)
            else:
                going.append(entry)
        self.take(going)

    # --- a lane's request -----------------------------------------------------------------------------------------

    def begin(self) -> bytes | None:
        owner, target, signer = self.owner, self.target, self.signer
        now_us = owner.clock.wall_us()
        if now_us > self.last_begin_at * 1000:  # it waited for a connection
            self._leave_out(UtcMs(now_us // 1000))
            signer = None
            if not self.entries:
                return None
        key = owner.credentials.frozen
        assert target is not None
        date_s = now_us // 1_000_000 + target.skew_s
        if signer is None or signer.key is not key or abs(date_s - signer.date_s) > SIGNED_FOR_S:
            if key is None:
                owner.conclude(self, _NO_KEY)
                return None
            self.sign(key, date_s)
            now_us = owner.clock.wall_us()
        if not owner.may_send():
            owner.conclude(self, _NOT_TRUSTED)
            return None
        self.released_us = now_us
        return self.data

    def answered(self, reply: Reply) -> None:
        self.owner.conclude(self, reply)

    def failed(self, why: str, *, is_unknown: bool) -> None:
        self.owner.conclude(self, Verdict(OutcomeClass.RETRY, why, is_unknown=is_unknown))


class SnsPublisher:
    """A ``Publisher`` for real SNS topics, or for whatever ``AWS_ENDPOINT_URL_SNS`` names.

    Attributes: credentials, clock, may_send: its own, for its calls.
    """

    def __init__(
        self,
        credentials: Credentials,
        clock: Clock,
        *,
        endpoint_url: str | None = None,
        pacing: Pacing | None = None,
        may_send: Callable[[], bool] = _always,
        max_connections: int = MAX_CONNECTIONS,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        attempt_timeout_s: float = ATTEMPT_TIMEOUT_S,
    ) -> None:
        """endpoint_url: overrides what the environment and profile say. pacing: None for no quota.

        may_send: asked each time a request is about to be written; while it says no, none is, and the outcome is RETRY.
        max_connections: to one endpoint; also the most requests without an answer.
        """
        self.credentials = credentials
        self.clock = clock
        self.may_send = may_send
        self.on_room: Callable[[], None] = _nobody
        self._pacing = pacing
        self._make_lane = partial(
            Lane,
            clock=clock,
            on_free=self._note_free,
            max_connections=max_connections,
            connect_timeout_s=connect_timeout_s,
            answer_timeout_s=answer_timeout_s,
            attempt_timeout_s=attempt_timeout_s,
        )
        self._endpoints = Endpoints(credentials, endpoint_url=endpoint_url)
        self._targets: dict[str, _Target] = {}
        self._lanes: dict[Route, Lane] = {}
        self._ended: deque[tuple[_Call, Reply | Verdict, UtcMs, float]] = deque()
        self._digesting: asyncio.Handle | None = None
        self._is_digest_due = False
        self._is_waited_for = False
        self._silent_until: dict[str, float] = {}  # by region: throttling is said once in a while
        self._quota_timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    # --- arm ------------------------------------------------------------------------------------------------------

    async def arm(self, batches: Sequence[Batch], at: UtcMs) -> list[Armed]:
        targets: dict[str, _Target | Verdict] = {}
        for region in {_region(batch.topic) for batch in batches}:
            targets[region] = await self._target(region)
        self._reserve(batches, targets, at)
        armed: list[Armed] = []
        mono = self.clock.mono
        until = mono() + _SLICE_S
        for batch in batches:
            armed.append(self._armed(batch, targets[_region(batch.topic)], at))
            if mono() > until:
                await self.clock.sleep(0)
                until = mono() + _SLICE_S
        return armed

    async def _target(self, region: str) -> _Target | Verdict:
        target = self._targets.get(region)
        if target is not None:
            return target
        try:
            endpoint = await self._endpoints.get(region)
        except NoEndpoint as exc:
            return exc.verdict
        if region not in self._targets:
            lane = self._lanes.get(endpoint.route)
            if lane is None:
                lane = self._lanes[endpoint.route] = self._make_lane(endpoint.route)
            self._targets[region] = _Target(endpoint.site, lane)
        return self._targets[region]

    def _reserve(self, batches: Sequence[Batch], targets: dict[str, _Target | Verdict], at: UtcMs) -> None:
        if self._is_closed:
            return
        counts: dict[Lane, int] = {}
        for batch in batches:
            target = targets[_region(batch.topic)]
            if isinstance(target, _Target):
                counts[target.lane] = counts.get(target.lane, 0) + 1
        for lane, count in counts.items():
            lane.reserve(count, (at - self.clock.wall()) / 1000)

    def _armed(self, batch: Batch, target: _Target | Verdict, at: UtcMs) -> _Call:
        call = _Call(self, batch, batch.topic, None)
        call.take(batch.entries)
        if isinstance(target, Verdict):
            call.problem = target
            return call
        call.target = target
        key = self.credentials.frozen
        if key is not None and call.entries:
            now = self.clock.wall()
            date = at if abs(at - now) < SIGNED_FOR_S * 1000 else now
            call.sign(key, date // 1000 + target.skew_s)
        return call

    # --- release ----------------------------------------------------------------------------------------------------

    def has_room(self, topic: str, messages: int) -> bool:
        target = self._targets.get(_region(topic))
        has_room = target is None or target.lane.has_room
        if not has_room:
            self._is_waited_for = True
        if not has_room or self._pacing is None:
            return has_room
        wait_s = self._pacing.room_in_s(topic, messages, self.clock.mono())
        if wait_s > 0 and not self._is_closed:
            self._ask_again_in(wait_s)
        return wait_s <= 0

    def _ask_again_in(self, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        when = loop.time() + max(wait_s, _LEAST_WAIT_S)
        if self._quota_timer is not None:
            if self._quota_timer.when() <= when:
                return
            self._quota_timer.cancel()
        self._quota_timer = loop.call_at(when, self._quota_returns)

    def _quota_returns(self) -> None:
        self._quota_timer = None
        self.on_room()

    def wait_s(self, topic: str, messages: int) -> float:
        return 0.0 if self._pacing is None else self._pacing.wait_s(topic, messages, self.clock.mono())

    def release(self, armed: Sequence[Armed], settle: Settle) -> None:
        for call in armed:
            if not isinstance(call, _Call) or call.owner is not self or call.settle is not None:
                raise InternalError(f"a batch for {call.batch.topic} was released twice or by a stranger")
            call.settle = settle
            for entry, reason in call.refused:
                self.conclude_singly(call, entry, Verdict(OutcomeClass.REJECTED, reason))
            if call.entries:
                self._send(call)

    def _send(self, call: _Call) -> None:
        if self._is_closed:
            self.conclude(call, _CLOSED)
        elif call.target is None:
            assert call.problem is not None
            self.conclude(call, call.problem)
        else:
            if self._pacing is not None:
                self._pacing.take(call.topic, len(call.entries), self.clock.mono())
            call.target.lane.submit(call)

    def conclude_singly(self, call: _Call, entry: Entry, verdict: Verdict) -> None:
        """One entry of a call has come to its end by itself."""
        single = _Call(self, None, call.topic, call.target)
        single.entries = (entry,)
        single.settle = call.settle
        self.conclude(single, verdict)

    # --- settle -----------------------------------------------------------------------------------------------------

    def conclude(self, call: _Call, end: Reply | Verdict) -> None:
        """A call has come to its end; its outcomes follow."""
        self._ended.append((call, end, self.clock.wall(), self.clock.mono()))
        if self._digesting is None or not (self._is_digest_due or self._is_in_the_way()):
            self._digest_soon()

    def _note_free(self) -> None:
        self._is_waited_for = False  # unless somebody asks for room again, and in vain
        self.on_room()

    def _is_in_the_way(self) -> bool:
        """Whether settling would keep requests from being written."""
        return self._is_waited_for or any(lane.is_waited_for for lane in self._lanes.values())

    def _digest_soon(self) -> None:
        if self._digesting is not None:
            self._digesting.cancel()
        self._is_digest_due = True
        self._digesting = asyncio.get_running_loop().call_soon(self._digest)

    def _digest(self) -> None:
        """Turn what has ended into outcomes, for one slice of time."""
        self._is_digest_due = False
        self._digesting = None
        mono = self.clock.mono
        now = mono()
        until = now + _SLICE_S
        oldest = now - _MAX_WAIT_S if self._is_in_the_way() else now
        ended = self._ended
        try:
            while ended and ended[0][3] <= oldest and now < until:
                call, end, finished_at, _ = ended.popleft()
                self._settle(call, end, finished_at)
                now = mono()
        finally:
            if ended and self._digesting is None:
                if ended[0][3] <= oldest:
                    self._digest_soon()
                else:
                    self._digesting = asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._digest)

    def _settle(self, call: _Call, end: Reply | Verdict, finished_at: UtcMs) -> None:
        entries = call.entries
        verdicts = reply_verdicts(end, len(entries)) if isinstance(end, Reply) else end
        if isinstance(verdicts, Verdict):
            self._learn(call, verdicts, end)
            if verdicts.may_be_one_entry and len(entries) > 1:
                self._send_singly(call)
                return
            verdicts = (verdicts,) * len(entries)
        elif verdicts is not ALL_PUBLISHED[len(entries)]:
            throttled = next((verdict for verdict in verdicts if verdict.is_throttled), None)
            if throttled is not None:
                self._learn(call, throttled, end)
        released_us = call.released_us or self.clock.wall_us()
        assert call.settle is not None
        call.settle(
            [
                _new(
                    Outcome,
                    (entry[0], verdict[0], released_us, finished_at, verdict[1], verdict[2], verdict[5]),
                )
                for entry, verdict in zip(entries, verdicts, strict=True)
            ]
        )

    def _learn(self, call: _Call, verdict: Verdict, end: Reply | Verdict) -> None:
        """Draw from a call that failed what the next ones should do otherwise."""
        if verdict.are_credentials_refused:
            self.credentials.refresh_soon()
        if verdict.is_throttled:
            self._note_throttled(call.topic, verdict)
        if verdict.is_date_refused and call.target is not None and isinstance(end, Reply) and end.date:
            try:
                theirs = parsedate_to_datetime(end.date).astimezone(UTC).timestamp()
            except (ValueError, OverflowError):
                return
            skew_s = round(theirs) - self.clock.wall() // 1000
            call.target.skew_s = skew_s if abs(skew_s) > SIGNED_FOR_S else 0

    def _note_throttled(self, topic: str, verdict: Verdict) -> None:
        now, region = self.clock.mono(), _region(topic)
        if self._pacing is not None:
            self._pacing.throttled(topic, now)
        if now >= self._silent_until.get(region, now):
            self._silent_until[region] = now + _SAY_EVERY_S
            _log.warning(
                "SNS in %s takes no more messages for now (%s); they wait, and go more slowly; if [sns.quota] is right, "
                "somebody else uses the quota, too",
                region,
                verdict.error,
                extra=about("sns.throttled", region=region, error=verdict.error),
            )

    def _send_singly(self, call: _Call) -> None:
        for entry in call.entries:
            single = _Call(self, None, call.topic, call.target)
            single.take((entry,))
            single.settle = call.settle
            self._send(single)

    def drop_connections(self) -> None:
        for lane in self._lanes.values():
            lane.drop_idle()

    async def close(self) -> None:
        self._is_closed = True
        if self._quota_timer is not None:
            self._quota_timer.cancel()
            self._quota_timer = None
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        if self._digesting is not None:
            self._digesting.cancel()
        while self._ended:
            call, end, finished_at, _ = self._ended.popleft()
            self._settle(call, end, finished_at)
        self._digesting = None
        self._is_digest_due = False
        await self._endpoints.close()


_new = tuple.__new__  # what _make calls, and twice as fast as by name


def _nobody() -> None:
    """Nobody waits for room."""


def _region(topic: str) -> str:
    return topic.split(":", 4)[3]
