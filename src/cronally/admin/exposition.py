"""The daemon's figures as metrics, in the words of Prometheus.

1. ``CATALOGUE`` names every metric with its labels; docs/metrics.md is checked against it.
2. A label has few values: states, reasons, kinds, regions, and the first 20 topics that SNS refuses. No schedule is named, and no other machine.
3. Base units: seconds, bytes. What a process has anyway (``process_…``) is the library's.
"""

from __future__ import annotations

import platform
from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from cronally.domain.model import Kind, SkipReason, State
from cronally.engine.lease_counts import REFUSED
from cronally.engine.measures import ATTEMPT_ENDS, FateKey, HandOverWay
from cronally.engine.shard_watch import driven_elsewhere, undriven

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from cronally.engine.figures import ClusterFigures, Figures
    from cronally.engine.histogram import Distribution
    from cronally.engine.membership import Sharing

    Values = Iterable[tuple[tuple[str, ...], float]]


class Described(NamedTuple):
    """A metric. name: as it is exported, ``_total`` and ``_info`` included."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


CATALOGUE: Final = {
    one.name: one
    for one in (
        Described(
            "cronally_build_info", "info", "What runs: its version, and those of Python and of the time zone data.",
            ("version", "python", "tzdata"),
        ),
        Described(
            "cronally_ready", "gauge",
            "1 when all is well; 0 while changes are refused and fires may be held back: it starts, stops, cannot write its "
            "store, or does not believe the clock. 'cronally status' says why.",
        ),
        Described(
            "cronally_fires_total", "counter",
            "Fires by what became of them, once that is on record; reason is that of the skipped ones. The slots of a pause "
            "are counted when it is over.",
            ("state", "reason", "kind"),
        ),
        Described(
            "cronally_fire_lateness_seconds", "histogram",
            "How long after its due time the message of a scheduled fire was written to SNS, at the first attempt.",
        ),
        Described(
            "cronally_sns_answer_seconds", "histogram",
            "How long SNS took to answer a request of which it accepted something; to the millisecond.",
        ),
        Described(
            "cronally_attempts_total", "counter",
            "Attempts to send a message by what they came to: published; retry (an error that may pass); hold (somebody has to "
            "repair it: topic gone, access denied); rejected (it can never go); throttled (quota); unknown (no answer came: "
            "it goes again, so the receiver may get it twice).",
            ("outcome",),
        ),
        Described("cronally_retries_total", "counter", "Attempts that were not the first of their fire."),
        Described("cronally_in_flight_fires", "gauge", "Fires that are on the wire, and whose outcome is not known yet."),
        Described(
            "cronally_pending_fires", "gauge", "Fires that are due and wait in the store: for SNS, for quota, for their turn."
        ),
        Described(
            "cronally_oldest_pending_seconds", "gauge", "How long ago the oldest of them was due; 0 if there is none."
        ),
        Described(
            "cronally_watermark_lag_seconds", "gauge",
            "How long ago the first fire was due of which nothing is on record yet; near 0 when all is well.",
        ),
        Described("cronally_schedules", "gauge", "Schedules: active or paused.", ("state",)),
        Described("cronally_schedules_failing", "gauge", "Schedules whose last attempt failed."),
        Described("cronally_topics_refusing", "gauge", "Topics for which SNS refuses everything."),
        Described(
            "cronally_topic_refusing_seconds", "gauge",
            "For how long SNS has refused everything for a topic; the 20 refused longest.",
            ("topic",),
        ),
        Described(
            "cronally_topic_refusing_pending_fires", "gauge", "Fires that wait for such a topic.", ("topic",)
        ),
        Described(
            "cronally_quota_messages_per_second", "gauge",
            "Messages that SNS takes in a second, as AWS publishes it or [sns.quota] says; of machines that "
            "share a table the part of this one. way: standard or fifo topics.",
            ("region", "way"),
        ),
        Described(
            "cronally_quota_rate_messages_per_second", "gauge",
            "At most how many messages leave in a second now: less than the quota after SNS has throttled.",
            ("region", "way"),
        ),
        Described(
            "cronally_quota_available_messages", "gauge",
            "Messages that may leave at once, a second of quota at most; 0 or less: what is due waits for quota.",
            ("region", "way"),
        ),
        Described("cronally_quota_messages_total", "counter", "Messages that have used quota.", ("region", "way")),
        Described(
            "cronally_quota_throttled_total", "counter", "Requests that SNS refused as too many.", ("region", "way")
        ),
        Described(
            "cronally_loop_lag_seconds", "histogram",
            "How much later the event loop woke than it was to, looked at once a second.",
        ),
        Described(
            "cronally_commit_seconds", "histogram", "How long the store took to make journal entries durable."
        ),
        Described("cronally_commit_failures_total", "counter", "Commits of the journal that the store refused."),
        Described(
            "cronally_store_failures_total", "counter", "Whatever the store refused to the engine, those commits included."
        ),
        Described(
            "cronally_store_readable", "gauge",
            "1 if the store could be read for these figures; at 0 the metrics of pending fires, schedules and the store's size are missing.",
        ),
        Described("cronally_store_size_bytes", "gauge", "What the store uses of its file."),
        Described("cronally_store_max_size_bytes", "gauge", "The size beyond which the journal is pruned early (journal.max_size)."),
        Described(
            "cronally_credentials_usable", "gauge",
            "1 if AWS credentials were there when they were last looked for; missing with --local.",
        ),
        Described(
            "cronally_credentials_expiry_timestamp_seconds", "gauge",
            "When the AWS credentials expire, Unix time; missing if they do not, or nobody says when.",
        ),
        Described(
            "cronally_machines", "gauge",
            "Machines that share the table and live, this one among them, as this one sees it. This metric and all below it are missing with a store in a file.",
        ),
        Described(
            "cronally_heartbeat_age_seconds", "gauge",
            "For how long nothing has been heard of that living machine which has been silent longest; retired after its lease. 0 if there is no other.",
        ),
        Described(
            "cronally_shards", "gauge",
            "The 64 shards by who drives them: this machine, another one that lives, or nobody, as during a hand-over. As this machine sees it.",
            ("driver",),
        ),
        Described(
            "cronally_shard_undriven_seconds", "gauge",
            "For how long nobody has driven the shard of which that is true longest, as this machine sees it; 0 if each is driven.",
        ),
        Described("cronally_lease_seconds", "gauge", "The setting lease: how long a machine may be silent before others take over."),
        Described(
            "cronally_lease_left_seconds", "gauge",
            "For how long this machine may still send if it cannot renew its lease; at 0 it sends nothing.",
        ),
        Described(
            "cronally_lease_renewals_total", "counter",
            "Heartbeats by what became of them: renewed, with a commit or without; failed: the table did not answer, or refused for the time being, and it was tried again.",
            ("outcome",),
        ),
        Described(
            "cronally_leases_lost_total", "counter",
            "Leases that ended because they could not be renewed in time, or another machine had retired this one; it then joins anew.",
        ),
        Described(
            "cronally_hand_overs_total", "counter",
            "Shards that changed hands here: taken, after the machine before had given them; taken_over, from one that was retired; given.",
            ("way",),
        ),
        Described(
            "cronally_refused_writes_total", "counter",
            "Writes that the table refused because another machine had written there since, by what they were to: this machine's heartbeat (it "
            "was retired), or a shard (somebody else has it now). So no two drive one.",
            ("item",),
        ),
        Described(
            "cronally_following_age_seconds", "gauge",
            "How long ago all that the other machines had on record by then was read here; what listings say of their schedules is as old.",
        ),
        Described(
            "cronally_table_answers", "gauge", "1 if the table has done what it was asked last; 0 while it does not answer, or refuses.",
        ),
        Described(
            "cronally_table_units_total", "counter",
            "Request units of DynamoDB that calls have consumed, as it says: write units of 1 KB, read units of 4 KB, half of one if eventually consistent.",
            ("kind",),
        ),
    )
}  # fmt: skip

_FATES: Final = (
    *(FateKey(state, None, kind) for state in (State.PUBLISHED, State.EXPIRED, State.REJECTED) for kind in Kind),
    *(FateKey(State.SKIPPED, reason, Kind.SCHEDULED) for reason in SkipReason),
)  # fmt: skip
"""What is counted from 0 on, so that a first one is an increase."""


class Collector:
    """Makes metrics of *figures*."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics, in the order of the catalogue but for those that are missing now."""
        of = self._figures
        yield InfoMetricFamily(
            "cronally_build",
            CATALOGUE["cronally_build_info"].help,
            {"version": of.version, "python": platform.python_version(), "tzdata": of.tzdata},
        )
        yield _gauge("cronally_ready", of.is_ready)
        yield from self._fires()
        yield from self._backlog()
        yield from self._topics()
        yield from self._quotas()
        yield _histogram("cronally_loop_lag_seconds", of.lag)
        yield from self._store()
        yield from self._credentials()
        if self._figures.cluster is not None:
            yield from self._cluster(self._figures.cluster)

    def _fires(self) -> Iterator[Metric]:
        of = self._figures
        fates: Mapping[FateKey, int] = dict.fromkeys(_FATES, 0) | dict(of.fates)
        yield _counter("cronally_fires_total", ((_labels(key), count) for key, count in fates.items()))
        yield _histogram("cronally_fire_lateness_seconds", of.lateness)
        yield _histogram("cronally_sns_answer_seconds", of.answer)
        attempts = dict.fromkeys(ATTEMPT_ENDS, 0) | dict(of.attempts)
        yield _counter("cronally_attempts_total", (((end,), count) for end, count in attempts.items()))
        yield _counter("cronally_retries_total", [((), of.retries)])

    def _backlog(self) -> Iterator[Metric]:
        of, counts = self._figures, self._figures.counts
        yield _gauge("cronally_in_flight_fires", of.in_flight)
        if counts is not None:
            oldest = counts.oldest_pending_due
            age_ms = 0 if oldest is None else max(0, of.now - oldest)
            yield _gauge("cronally_pending_fires", sum(counts.journal.values()))
            yield _gauge("cronally_oldest_pending_seconds", age_ms / 1000)
        if of.watermark is not None:
            yield _gauge("cronally_watermark_lag_seconds", max(0, of.now - of.watermark) / 1000)
        if counts is not None:
            active = counts.schedules - counts.paused
            yield _gauges("cronally_schedules", [(("active",), active), (("paused",), counts.paused)])
            yield _gauge("cronally_schedules_failing", counts.failing)

    def _topics(self) -> Iterator[Metric]:
        of = self._figures
        yield _gauge("cronally_topics_refusing", of.refusing_count)
        yield _gauges(
            "cronally_topic_refusing_seconds",
            (((one.topic,), max(0, of.now - one.since) / 1000) for one in of.refusing),
        )
        yield _gauges(
            "cronally_topic_refusing_pending_fires", (((one.topic,), one.pending) for one in of.refusing)
        )

    def _quotas(self) -> Iterator[Metric]:
        uses = [((use.region, "fifo" if use.is_fifo else "standard"), use) for use in self._figures.quotas]
        yield _gauges("cronally_quota_messages_per_second", ((key, use.quota) for key, use in uses))
        yield _gauges("cronally_quota_rate_messages_per_second", ((key, use.rate) for key, use in uses))
        yield _gauges("cronally_quota_available_messages", ((key, use.left) for key, use in uses))
        yield _counter("cronally_quota_messages_total", ((key, use.sent) for key, use in uses))
        yield _counter("cronally_quota_throttled_total", ((key, use.throttled) for key, use in uses))

    def _store(self) -> Iterator[Metric]:
        of = self._figures
        yield _histogram("cronally_commit_seconds", of.commit)
        yield _counter("cronally_commit_failures_total", [((), of.commit_failures)])
        yield _counter("cronally_store_failures_total", [((), of.store_failures)])
        yield _gauge("cronally_store_readable", of.size_bytes is not None)
        if of.size_bytes is not None:
            yield _gauge("cronally_store_size_bytes", of.size_bytes)
        yield _gauge("cronally_store_max_size_bytes", of.max_size_bytes)

    def _credentials(self) -> Iterator[Metric]:
        found = self._figures.credentials
        if found is None:
            return
        yield _gauge("cronally_credentials_usable", found.is_usable)
        if found.expires_at is not None:
            yield _gauge("cronally_credentials_expiry_timestamp_seconds", found.expires_at / 1000)

    def _cluster(self, of: ClusterFigures) -> Iterator[Metric]:
        if of.sharing is not None and of.sharing.machines:
            yield from self._machines(of.sharing, of.undriven_for_s)
        yield _gauge("cronally_lease_seconds", of.lease_ms / 1000)
        if of.sharing is not None:
            yield _gauge("cronally_lease_left_seconds", max(0.0, of.sharing.trusted_for_s))
        leases = of.leases
        renewals = (("renewed", leases.renewed), ("failed", leases.failed))
        yield _counter("cronally_lease_renewals_total", (((end,), count) for end, count in renewals))
        yield _counter("cronally_leases_lost_total", [((), leases.lost)])
        hand_overs = self._figures.hand_overs
        yield _counter(
            "cronally_hand_overs_total", (((way.value,), hand_overs.get(way, 0)) for way in HandOverWay)
        )
        yield _counter(
            "cronally_refused_writes_total", (((item,), leases.refused.get(item, 0)) for item in REFUSED)
        )
        if of.following_age_s is not None:
            yield _gauge("cronally_following_age_seconds", of.following_age_s)
        if of.sharing is not None:
            yield _gauge("cronally_table_answers", of.sharing.error is None)
        units = (("read", of.read_units), ("write", of.write_units))
        yield _counter("cronally_table_units_total", (((kind,), count) for kind, count in units))

    @staticmethod
    def _machines(sharing: Sharing, undriven_for_s: float) -> Iterator[Metric]:
        living = [one for one in sharing.machines if not one.is_retired]
        yield _gauge("cronally_machines", len(living))
        ages_s = [one.heartbeat_age_s for one in living if not one.is_self]
        yield _gauge("cronally_heartbeat_age_seconds", max(ages_s, default=0.0))
        drivers = (
            ("this", len(sharing.driven)),
            ("other", len(driven_elsewhere(sharing))),
            ("nobody", len(undriven(sharing))),
        )
        yield _gauges("cronally_shards", (((driver,), count) for driver, count in drivers))
        yield _gauge("cronally_shard_undriven_seconds", undriven_for_s)


_PROCESS: Final = ProcessCollector(registry=CollectorRegistry())


CONTENT_TYPES: Final = {False: CONTENT_TYPE_PLAIN_0_0_4, True: openmetrics.CONTENT_TYPE_LATEST}
"""Of the text format of Prometheus, and of that of OpenMetrics."""
_EOF: Final = b"# EOF\n"  # OpenMetrics: the last line


class _One:
    """A registry with one metric."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> list[Metric]:
        return [self._metric]


def exposed(figures: Figures, *, is_openmetrics: bool) -> Iterator[bytes]:
    """Yield *figures* as text, metric by metric: with 20 topics and 30 regions all of it takes 6 ms."""
    for metric in chain(Collector(figures).collect(), _PROCESS.collect()):
        one = _One(metric)
        if is_openmetrics:
            text: bytes = openmetrics.generate_latest(one)  # type: ignore[no-untyped-call]  # the library has types for the other format alone
            yield text.removesuffix(_EOF)
        else:
            yield generate_latest(one)
    if is_openmetrics:
        yield _EOF


def _labels(key: FateKey) -> tuple[str, str, str]:
    return str(key.state), "" if key.reason is None else str(key.reason), str(key.kind)


def _gauge(name: str, value: float) -> Metric:
    return GaugeMetricFamily(name, CATALOGUE[name].help, value=value)


def _gauges(name: str, values: Values) -> Metric:
    family = GaugeMetricFamily(name, CATALOGUE[name].help, labels=CATALOGUE[name].labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def _counter(name: str, values: Values) -> Metric:
    described = CATALOGUE[name]
    family = CounterMetricFamily(name.removesuffix("_total"), described.help, labels=described.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def _histogram(name: str, distribution: Distribution) -> Metric:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound_s, count in distribution.buckets:
        total += count
        buckets.append(("+Inf" if bound_s is None else str(bound_s), total))
    return HistogramMetricFamily(name, CATALOGUE[name].help, buckets=buckets, sum_value=distribution.sum_s)
