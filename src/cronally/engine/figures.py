"""What the daemon measures, at one moment: the figures behind ``/metrics``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cronally.engine.histogram import Distribution
    from cronally.engine.measures import FateKey, HandOverWay
    from cronally.engine.membership import Sharing
    from cronally.engine.records import StoreCounts
    from cronally.engine.views import Refusing
    from cronally.instants import UtcMs


class QuotaUse(NamedTuple):
    """How the quota of a region is used, by standard or by FIFO topics.

    quota: messages a second that SNS takes, or this machine's part of them. rate: at which messages leave now; below the quota after SNS has throttled.
    left: messages that may leave at once; below 0 when more have left. sent: messages that have left. throttled: how often
    SNS has taken no more. All since the start.
    """

    region: str
    is_fifo: bool
    quota: float
    rate: float
    left: float
    sent: int
    throttled: int


class LeaseFigures(NamedTuple):
    """As in ``LeaseCounts``."""

    renewed: int
    failed: int
    refused: Mapping[str, int]
    lost: int


class ClusterFigures(NamedTuple):
    """How this machine stands among those that share its table.

    Fields: sharing: None before it has joined. undriven_for_s: what ``ShardWatch.look`` says. following_age_s: how long ago all that the others had
        committed was read last; None before it has joined. read_units, write_units: what its calls have consumed.
    """

    lease_ms: int
    sharing: Sharing | None
    undriven_for_s: float
    following_age_s: float | None
    leases: LeaseFigures
    read_units: float
    write_units: float


class CredentialsState(NamedTuple):
    """What signs our calls. expires_at: None if they do not expire, or nobody says when."""

    is_usable: bool
    expires_at: UtcMs | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A moment of the daemon. Counts are since its start.

    Attributes: fates, attempts and the distributions: as in ``Measures``. counts, size_bytes: None while the store cannot be
        read. refusing: the first 20 of refusing_count topics; pending is 0 while the store cannot be read. quotas: of what has
        been sent to. watermark: None before the first recovery. credentials: None with a stand-in. hand_overs: shards, as in ``Measures``.
        cluster: None if the store is not shared.
    """

    version: str
    tzdata: str
    now: UtcMs
    is_ready: bool
    fates: Mapping[FateKey, int]
    attempts: Mapping[str, int]
    retries: int
    lateness: Distribution
    answer: Distribution
    commit: Distribution
    lag: Distribution
    commit_failures: int
    store_failures: int
    in_flight: int
    watermark: UtcMs | None
    counts: StoreCounts | None
    size_bytes: int | None
    max_size_bytes: int
    refusing: tuple[Refusing, ...]
    refusing_count: int
    quotas: tuple[QuotaUse, ...]
    credentials: CredentialsState | None
    hand_overs: Mapping[HandOverWay, int]
    cluster: ClusterFigures | None
