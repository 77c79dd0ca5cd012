"""Schedules by chance: every kind of rule, zone and policy, so thin or so dense as a story wants."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING

from cronally.instants import UtcMs, format_utc, parse_rfc3339, to_datetime
from support.slots_oracle import zone_info

if TYPE_CHECKING:
    import random

_DAY = timedelta(days=1)
_FIRST, _LAST = datetime(2027, 1, 1, tzinfo=UTC), datetime(2029, 12, 31, tzinfo=UTC)
# Half an hour, two hours, midnight, 45 minutes ahead, negative DST, four changes a year, and plain ones.
ZONES = (
    "America/New_York",
    "Europe/London",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "America/Havana",
    "Asia/Beirut",
    "Africa/Cairo",
    "America/Santiago",
    "Africa/Casablanca",
    "Pacific/Chatham",
    "Europe/Dublin",
    "America/Nuuk",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "UTC",
)
TOPICS = tuple(
    f"arn:aws:sns:{region}:123456789012:{name}"
    for region, name in (("us-east-1", "reports"), ("us-east-1", "mails"), ("eu-west-1", "backups"))
)
FIFO_TOPICS = tuple(f"arn:aws:sns:us-east-1:123456789012:{name}.fifo" for name in ("orders", "bills"))
_DAYS = ("L", "L-1", "LW", "1W", "15W", "1,15", "1-7", "*/2", "H", "31W,L", "28-31")
_WEEKDAYS = ("mon-fri", "sun", "sat-sun", "7-tue", "fri#2", "1#5", "friL", "7L", "H", "TUE,THU", "0-7/3")
_WEEKDAYS_FROM_1 = ("MON-FRI", "SUN", "6#2", "6L", "2/2", "1,7")


@cache
def changes(tz: str) -> list[datetime]:
    """Return the days, by UTC, on which the clocks of a zone change."""
    zone, day, found = zone_info(tz), _FIRST, []
    before = day.astimezone(zone).utcoffset()
    while day < _LAST:
        after = (day + _DAY).astimezone(zone).utcoffset()
        if after != before:
            found.append(day)
        day, before = day + _DAY, after
    return found


def change_instant(tz: str, day: datetime) -> datetime:
    """Return the minute of *day* in which the clocks change."""
    zone = zone_info(tz)
    before = day.astimezone(zone).utcoffset()
    while (day + timedelta(minutes=1)).astimezone(zone).utcoffset() == before:
        day += timedelta(minutes=1)
    return day + timedelta(minutes=1)


class Drawn:
    """Draws documents for a story that lasts *span_s* seconds from *start*. per_schedule: slots that one has, about."""

    def __init__(self, rng: random.Random, start: UtcMs, span_s: int, tz: str, per_schedule: float) -> None:
        self._rng = rng
        self._start = start
        self._span_s = span_s
        self._tz = tz
        self._per_schedule = per_schedule

    def document(self, now: UtcMs) -> dict[str, object]:
        """Return a schedule's document; most of its slots lie in the story."""
        rng = self._rng
        tz = rng.choice(("UTC", "UTC", self._tz, self._tz, self._tz, rng.choice(ZONES)))
        is_fifo = rng.random() < 0.25
        document: dict[str, object] = {
            "topic": rng.choice(FIFO_TOPICS if is_fifo else TOPICS),
            "catch_up": rng.choice(("latest", "all", "skip")),
            **self._rule(tz, now),
        }
        if tz != "UTC":
            document["tz"] = tz
        if rng.random() < 0.5:
            document["message"] = f"<cronally.fire-id> {rng.randrange(1000)}"
        if rng.random() < 0.2:
            document["spread"] = rng.choice(("5s", "30s", "90s", "10m" if self._span_s > 3_600 else "20s"))
        if rng.random() < 0.3:
            document["deadline"] = rng.choice(("2s", "30s", "3m", "1h"))
        if is_fifo and rng.random() < 0.6:
            document["group"] = rng.choice(("shared", "a", "b"))
        if rng.random() < 0.3:
            document["priority"] = rng.randrange(10)
        if rng.random() < 0.2:
            document["on_gap"] = "skip"
        if rng.random() < 0.2:
            document["on_repeat"] = "both"
        if rng.random() < 0.1:
            document["starts"] = format_utc(self._moment())
        if rng.random() < 0.1:
            ends = self._moment()
            if "starts" not in document or ends > parse_rfc3339(str(document["starts"])):
                document["ends"] = format_utc(ends)
        return document

    def _moment(self) -> UtcMs:
        """An instant of the story, often a whole second."""
        at = self._start + self._rng.randrange(self._span_s * 1000)
        return UtcMs(at if self._rng.random() < 0.3 else at // 1000 * 1000)

    def _rule(self, tz: str, now: UtcMs) -> dict[str, object]:
        rng = self._rng
        if rng.random() < 0.1:
            return self._single(tz, now)
        most = 3 * self._per_schedule
        slots = math.exp(rng.uniform(0, math.log(most)))
        if rng.random() < 0.25:
            slots = most
        period_s = self._span_s / slots
        if period_s < 45:
            return self._seconds(max(1, round(period_s)))
        if period_s < 2_700:
            return self._minutes(max(1, round(period_s / 60)), tz)
        return self._hours(round(86_400 / period_s), tz)

    def _single(self, tz: str, now: UtcMs) -> dict[str, object]:
        at = UtcMs(
            now + self._rng.choice((500, 1500, 3_000, 30_000, self._rng.randrange(self._span_s * 1000)))
        )
        local = to_datetime(at).astimezone(zone_info(tz))
        wall = local.replace(tzinfo=None, microsecond=0)
        shown = {wall.replace(tzinfo=zone_info(tz), fold=fold).utcoffset() for fold in (0, 1)}
        if len(shown) > 1 or at + 1_000 < now + 2_000 or self._rng.random() < 0.5:
            return {"when": f"@at {format_utc(at)}"}
        if self._rng.random() < 0.5:
            return {"when": f"at({wall.isoformat()})", "dialect": "eventbridge"}
        return {"when": f"@at {wall.isoformat()}"}

    def _seconds(self, period_s: int) -> dict[str, object]:
        kind = self._rng.randrange(4)
        if kind == 0:
            return {"when": f"*/{period_s} * * * * ?", "dialect": "quartz"}
        if kind == 1:
            first = self._rng.randrange(min(period_s, 20))
            return {"when": f"{first}/{period_s} * * ? * *", "dialect": "quartz"}
        return {"when": f"@every {period_s}s"}

    def _minutes(self, step: int, tz: str) -> dict[str, object]:
        rng = self._rng
        local = to_datetime(self._moment()).astimezone(zone_info(tz))
        first = rng.randrange(min(step, 60))
        hours = sorted({(local.hour + number) % 24 for number in range(rng.choice((2, 4, 9)))})
        some = ",".join(map(str, hours))
        minutes = ",".join(map(str, range(first, 60, step)))
        return rng.choice(
            (
                {"when": f"*/{step} * * * *"},
                {"when": f"{first}-59/{step} * * * *"},
                {"when": f"{minutes} {some} * * *"},
                {"when": f"{first}-59/{step} {some} * * *"},
                {"when": f"*/{step} {some} * * *"},
                {"when": f"H/{step} * * * *"},
                {"when": f"H(0-{max(first, 1)})/{step} * * * *"},
                {"when": f"rate({step} minute{'s' if step > 1 else ''})", "dialect": "eventbridge"},
                {"when": f"{first}/{step} * * * ? *", "dialect": "eventbridge"},
                {"when": f"0 {first}/{step} * * * ?", "dialect": "quartz"},
                {"when": f"15 */{step} * ? * *", "dialect": "quartz"},
                {"when": f"@every {step}m"},
            )
        )

    def _hours(self, per_day: int, tz: str) -> dict[str, object]:
        rng = self._rng
        local = to_datetime(self._moment()).astimezone(zone_info(tz))
        minute, hour = local.minute, local.hour
        day, weekday = local.day, local.isoweekday() % 7
        if per_day >= 2:
            step = max(1, round(24 / per_day))
            hours = ",".join(map(str, range(hour % step, 24, step)))
            return rng.choice(
                (
                    {"when": f"{minute} {hours} * * *"},
                    {"when": f"{minute} */{step} * * *"},
                    {"when": f"{minute} H/{step} * * *"},
                    {"when": f"{minute} * * * *"},
                    {"when": f"@every {step}h"},
                    {"when": f"rate({step} hour{'s' if step > 1 else ''})", "dialect": "eventbridge"},
                    {"when": "@hourly"},
                )
            )
        days = rng.choice((rng.choice(_DAYS), str(day)))
        weekdays = rng.choice((rng.choice(_WEEKDAYS), str(weekday)))
        weekdays_from_1 = rng.choice((rng.choice(_WEEKDAYS_FROM_1), str(weekday + 1)))
        return rng.choice(
            (
                {"when": f"{minute} {hour} * * *"},
                {"when": f"{minute} {hour} {days} * *"},
                {"when": f"{minute} {hour} * * {weekdays}"},
                {"when": f"{minute} {hour} {days} {local.month} {weekdays}"},
                {"when": f"H {hour} * * *"},
                {"when": f"H H(0-{max(hour, 1)}) * * *"},
                {"when": f"{minute} {hour} ? * {weekdays_from_1} *", "dialect": "eventbridge"},
                {"when": f"{minute} {hour} {day} * ? {local.year}", "dialect": "eventbridge"},
                {"when": f"30 {minute} {hour} LW * ?", "dialect": "quartz"},
                {"when": f"0 {minute} {hour} ? {local.month} {weekdays_from_1}", "dialect": "quartz"},
                {"when": rng.choice(("@daily", "@midnight", "@weekly", "@monthly", "@yearly"))},
            )
        )
