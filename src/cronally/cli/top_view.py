"""What ``top`` shows, as lines. No I/O and no clock: both instants and the daemon's answers are arguments."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

from cronally.cli.render import counted, late_text, local_text, printable, refusing_lines, span_text, table
from cronally.instants import UtcMs, format_utc, parse_rfc3339

if TYPE_CHECKING:
    from cronally.admin.wire import Coming, Overview

Line = tuple[str, str]
"""A line and its style: ``bold``, ``red``, ``dim``, or none."""

_MINUTE_S: Final = 60.0
_PLANNED_AHEAD_MS: Final = 4_000  # what is due within it the daemon no longer names: it has been planned


class _Sample(NamedTuple):
    """How many messages the daemon had published by when (monotonic, seconds)."""

    at_s: float
    published: int


class TopView:
    """What has been heard from the daemon so far."""

    def __init__(self) -> None:
        self._overview: Overview | None = None
        self._heard_at_s = 0.0
        self._samples: deque[_Sample] = deque()
        self._coming: dict[str, Coming] = {}
        self._trouble: str | None = None

    def take(self, overview: Overview, at_s: float) -> None:
        """Take in an answer that came at *at_s*, monotonic."""
        if self._overview is None or self._overview.started_at != overview.started_at:
            self._samples.clear()
        self._overview, self._heard_at_s, self._trouble = overview, at_s, None
        self._samples.append(_Sample(at_s, overview.ended["published"]))
        while len(self._samples) > 2 and self._samples[1].at_s <= at_s - _MINUTE_S:
            self._samples.popleft()
        now = parse_rfc3339(overview.now)
        planned = {
            name: one
            for name, one in self._coming.items()
            if now < parse_rfc3339(one.due) <= now + _PLANNED_AHEAD_MS
        }
        self._coming = {one.schedule: one for one in overview.coming} | planned

    def miss(self, trouble: Exception) -> None:
        """Take in that the daemon gave no answer."""
        self._trouble = str(trouble)

    def lines(self, now_s: float, width: int, height: int) -> list[Line]:
        """Return the screen at *now_s*, monotonic: at most *height* lines of *width* characters."""
        assert self._overview is not None
        overview = self._overview
        now = UtcMs(parse_rfc3339(overview.now) + round((now_s - self._heard_at_s) * 1000))
        lines = [self._state_line(overview, now), *self._figures(overview, now)]
        if overview.refusing:
            refusing = refusing_lines(overview)
            lines += [("", ""), ("REFUSED BY SNS", "bold"), *((printable(line), "red") for line in refusing)]
        lines.append(("", ""))
        lines += self._coming_lines(now, height - len(lines))
        return [(_cut(line, width), style) for line, style in lines[:height]]

    def _state_line(self, overview: Overview, now: UtcMs) -> Line:
        up = f"up {span_text((now - parse_rfc3339(overview.started_at)) / 1000)}"
        about = f"cronally {overview.version}  {up}  {format_utc(now)[:19].replace('T', ' ')} UTC"
        if self._trouble is not None:
            return f"{about}  NO ANSWER: {printable(self._trouble)}", "bold red"
        if overview.not_ready_because is not None:
            return f"{about}  NOT READY: {printable(overview.not_ready_because)}", "bold red"
        return f"{about}  ready", "bold"

    def _figures(self, overview: Overview, now: UtcMs) -> list[Line]:
        schedules = counted(overview.schedules, paused=overview.paused, failing=overview.failing)
        waits = ""
        if overview.oldest_pending_due is not None:
            late_ms = now - parse_rfc3339(overview.oldest_pending_due)
            waits = f", the oldest due {span_text(late_ms / 1000)} ago" if late_ms > 0 else ""
        ended = ", ".join(f"{count:,} {state}" for state, count in overview.ended.items())
        lateness = overview.lateness_us
        late = (
            "nothing has fired yet"
            if lateness is None
            else ", ".join(f"{key} {late_text(lateness[key])}" for key in ("p50", "p99", "max"))
            + f" (last {lateness['count']:,} fires)"
        )
        return [
            (f"schedules  {schedules}", ""),
            (f"rate       {self._rates()}", ""),
            (f"lateness   {late}", ""),
            (f"pending    {overview.pending:,}{waits}", "red" if waits else ""),
            (f"in flight  {overview.in_flight:,}, settled up to {overview.watermark}", ""),
            (f"ended      {ended} (since it started)", ""),
        ]

    def _rates(self) -> str:
        last = self._samples[-1]
        rates = {}
        for first in (self._samples[0], self._samples[max(len(self._samples) - 2, 0)]):
            if (span_s := last.at_s - first.at_s) > 0:
                rates[span_text(round(span_s))] = (last.published - first.published) / span_s
        parts = [f"{rate:,.1f}/s over {span}" for span, rate in reversed(rates.items())]
        return f"{', '.join(parts)} (messages published)" if parts else "not measured yet"

    def _coming_lines(self, now: UtcMs, most: int) -> list[Line]:
        coming = sorted((parse_rfc3339(one.due), one.schedule, one) for one in self._coming.values())
        rows = [
            (
                span_text(-((now - due) // 1000)),
                local_text(one.due, one.tz),
                name,
                one.topic.rpartition(":")[2],
            )
            for due, name, one in coming
            if due > now
        ]
        if not rows:
            return [("no schedule has a slot to come", "")]
        heads, *lines = table(("IN", "DUE (LOCAL)", "SCHEDULE", "TOPIC"), rows[: max(most - 1, 0)]).split(
            "\n"
        )
        return [(heads, "bold"), *((line, "") for line in lines)]


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"
