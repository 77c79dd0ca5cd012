"""How fast a region takes messages: a token bucket each, which falls when SNS throttles and rises again.

SNS counts messages, not calls, per account and region; standard and FIFO topics have quotas of their own. Instants are
passed in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cronally.domain.topic import way_of
from cronally.engine.figures import QuotaUse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cronally.instants import MonoS

DEFAULT = "default"
"""The key, in a user's quotas, of the regions that are not named."""

BURST_S = 1.0  # design §6: a bucket holds one second of quota
_MIN_BURST = 10  # a whole batch must fit, however low the rate
_FALL = 0.7  # of the rate, when SNS throttles
_FALL_EVERY_S = 1.0  # one overload throttles many calls, and lowers the rate once
_RISE_PER_S = 0.05  # of the quota, each second without throttling
_LOWEST = 0.02  # of the quota: somebody else may use nearly all of it
_NOTHING = 1e-6  # of a token: what adding up floats leaves over


class Quota(NamedTuple):
    """Messages a second."""

    standard: float
    fifo: float


# AWS General Reference, Amazon SNS endpoints and quotas: Publish and PublishBatch, messages a second.
_MIDDLE = Quota(1_500, 3_000)
_QUOTAS = {
    "us-east-1": Quota(30_000, 30_000),
    "us-west-2": Quota(9_000, 9_000),
    "eu-west-1": Quota(9_000, 9_000),
    "us-east-2": _MIDDLE,
    "us-west-1": _MIDDLE,
    "ap-south-1": _MIDDLE,
    "ap-northeast-1": _MIDDLE,
    "ap-northeast-2": _MIDDLE,
    "ap-southeast-1": _MIDDLE,
    "ap-southeast-2": _MIDDLE,
    "eu-central-1": _MIDDLE,
}
_ELSEWHERE = Quota(300, 3_000)


def quota_per_s(region: str, *, is_fifo: bool, given: Mapping[str, float]) -> float:
    """Return the messages a second that *region* takes; 0 for no limit. given: the user's, by region or ``default``."""
    if region in given or DEFAULT in given:
        return given.get(region, given.get(DEFAULT, 0.0))
    published = _QUOTAS.get(region, _ELSEWHERE)
    return published.fifo if is_fifo else published.standard


class _Bucket:
    """One region's. tokens: messages that may leave now; below 0 when more was released than it had. sent: messages that left."""

    __slots__ = ("at", "fell_at", "quota", "rate", "sent", "throttled", "tokens")

    def __init__(self, quota: float, now: MonoS) -> None:
        self.quota = self.rate = quota
        self.tokens = self.most
        self.at = self.fell_at = now
        self.sent = self.throttled = 0

    @property
    def most(self) -> float:
        return max(self.rate * BURST_S, _MIN_BURST)

    def refill(self, now: MonoS) -> None:
        passed_s = now - self.at
        if passed_s <= 0:
            return
        self.at = now
        self.tokens = min(self.most, self.tokens + self.rate * passed_s)
        if self.rate < self.quota and now - self.fell_at > _FALL_EVERY_S:
            self.rate = min(self.quota, self.rate + self.quota * _RISE_PER_S * passed_s)

    def resize(self, quota: float) -> None:
        """Go by another quota; if the rate has fallen, it stays as far below."""
        self.rate *= quota / self.quota
        self.quota = quota
        self.tokens = min(self.most, self.tokens)

    def take(self, messages: int) -> None:
        self.tokens -= messages
        self.sent += messages

    def fall(self, now: MonoS) -> None:
        self.throttled += 1
        self.tokens = min(self.tokens, 0.0)
        if self.rate == self.quota or now - self.fell_at >= _FALL_EVERY_S:
            self.rate = max(self.rate * _FALL, self.quota * _LOWEST)
            self.fell_at = now

    def lack(self, messages: int) -> float:
        """Return how many tokens are missing for a batch of *messages* to leave; 0 if none."""
        missing = min(messages, self.most) - self.tokens
        return missing if missing > _NOTHING else 0.0


class Pacing:
    """The buckets of all regions. A topic's region and kind are read from its ARN."""

    def __init__(self, given: Mapping[str, float] | None = None) -> None:
        """given: messages a second by region, or by ``default`` for those not named; 0 for no pacing."""
        self._given = given or {}
        self._part = 1.0
        self._buckets: dict[tuple[str, bool], _Bucket | None] = {}
        self._by_topic: dict[str, _Bucket | None] = {}

    def replace(self, given: Mapping[str, float]) -> None:
        """Go by other quotas from now on. A region whose quota stays as it was keeps its bucket, fallen or not."""
        before, self._given = self._given, given
        kept = {
            (region, is_fifo): bucket
            for (region, is_fifo), bucket in self._buckets.items()
            if quota_per_s(region, is_fifo=is_fifo, given=before)
            == quota_per_s(region, is_fifo=is_fifo, given=given)
        }
        self._buckets, self._by_topic = kept, {}

    def share(self, part: float) -> None:
        """Use no more than *part* of each quota, 0 < part <= 1, from now on: machines that share the work share the quotas, too."""
        for bucket in self._buckets.values():
            if bucket is not None:
                bucket.resize(bucket.quota / self._part * part)
        self._part = part

    def room_in_s(self, topic: str, messages: int, now: MonoS) -> float:
        """Return when so many *messages* may leave, seconds from now; 0 if they may now."""
        bucket = self._bucket(topic, now)
        return 0.0 if bucket is None else bucket.lack(messages) / bucket.rate

    def wait_s(self, topic: str, messages: int, now: MonoS) -> float:
        """Return how long so many *messages* take to leave from now on at the present rate, seconds."""
        bucket = self._bucket(topic, now)
        return 0.0 if bucket is None else max(0.0, messages - bucket.tokens) / bucket.rate

    def take(self, topic: str, messages: int, now: MonoS) -> None:
        """So many *messages* leave."""
        bucket = self._bucket(topic, now)
        if bucket is not None:
            bucket.take(messages)

    def throttled(self, topic: str, now: MonoS) -> None:
        """SNS refused a call for *topic* because there are too many."""
        bucket = self._bucket(topic, now)
        if bucket is not None:
            bucket.fall(now)

    def uses(self, now: MonoS) -> list[QuotaUse]:
        """Return how each quota is used that has been asked for, by region; what is not paced is left out."""
        uses = []
        for (region, is_fifo), bucket in sorted(self._buckets.items()):
            if bucket is not None:
                bucket.refill(now)
                use = QuotaUse(
                    region, is_fifo, bucket.quota, bucket.rate, bucket.tokens, bucket.sent, bucket.throttled
                )
                uses.append(use)
        return uses

    def _bucket(self, topic: str, now: MonoS) -> _Bucket | None:
        try:
            bucket = self._by_topic[topic]
        except KeyError:
            bucket = self._by_topic[topic] = self._of_region(topic, now)
        if bucket is not None:
            bucket.refill(now)
        return bucket

    def _of_region(self, topic: str, now: MonoS) -> _Bucket | None:
        key = region, is_fifo = way_of(topic)
        if key not in self._buckets:
            quota = quota_per_s(region, is_fifo=is_fifo, given=self._given) * self._part
            self._buckets[key] = _Bucket(quota, now) if quota else None
        return self._buckets[key]
