"""Answers as text for people. No I/O; what a command prints is put together here.

Columns are aligned by hand: rich takes 80 ms to import and wraps what is piped into grep.
"""

from __future__ import annotations

from datetime import UTC
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from cronally.domain.sizes import format_size
from cronally.instants import UtcMs, parse_rfc3339, to_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import tzinfo
    from typing import Any

    from cronally.admin.wire import Fire, Overview, Schedule, Status, Topic

_WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WIDEST: Final = 48  # characters of a column; --json has everything
_NARROW: Final = 80  # columns; on a terminal of as many, lines that are too long are left to it
_WIDEST_ARN: Final = 300  # what is copied into the next command is not cut
_SHOWN_MESSAGE: Final = 400
_BAR_CHARS: Final = 30
_MOST_REFUSING: Final = 5  # topics; --json names more
_UNPRINTABLE: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


# --- times ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def zone(name: str) -> tzinfo:
    """Return the zone from the tzdata package, as the daemon does; UTC if this one's has no such zone."""
    package = Path(next(iter(import_module("tzdata").__path__)))
    try:
        with (package / "zoneinfo" / name).open("rb") as file:
            return ZoneInfo.from_file(file, key=name)
    except (OSError, ValueError):
        return UTC


@lru_cache(maxsize=1_024)  # a table writes each instant in two ways, and counts all of them from one
def _parsed(instant: str) -> UtcMs:
    return parse_rfc3339(instant)


def local_text(instant: str, tz: str, *, with_offset: bool = True) -> str:
    """Write an instant on the wall clock of *tz*: ``Mon 2026-11-23 09:00:00 +00:00``."""
    moment = to_datetime(_parsed(instant))
    try:
        local = moment.astimezone(zone(tz))
    except OverflowError:  # the first and last hours that a date can hold
        local = moment
    text = local.isoformat(" ", "milliseconds")
    clock = f"{_WEEKDAYS[local.weekday()]} {text[:19] if text[19:23] == '.000' else text[:23]}"
    return f"{clock} {text[23:29]}" if with_offset else clock


def relative_text(instant: str, now: str | None) -> str:
    """Write how far off an instant is: ``in 3h 12m``, ``2m ago``."""
    if now is None:
        return ""
    seconds = (_parsed(instant) - _parsed(now)) / 1000
    span = span_text(abs(seconds))
    return f"in {span}" if seconds >= 0 else f"{span} ago"


def span_text(seconds: float) -> str:
    """Write a span with its two largest units: ``12s``, ``3h 12m``, ``5d 1h``."""
    whole = int(seconds)
    for unit, smaller, letters in ((86_400, 3_600, "dh"), (3_600, 60, "hm"), (60, 1, "ms")):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit}{letters[0]}{f' {rest}{letters[1]}' if rest else ''}"
    return f"{whole}s"


def fires_text(fires: Iterable[str], tz: str) -> str:
    """Return one line per fire: local time with its offset, and UTC."""
    return "\n".join(f"  {local_text(fire, tz)}  {fire}" for fire in fires)


def next_fires_text(schedule: Schedule) -> str:
    """Return the next three fires, or why there is none."""
    if schedule.next_fires:
        until = schedule.paused["until"] if schedule.paused else None
        intro = f"  it is paused until {until}; then\n" if until else ""
        return intro + fires_text(schedule.next_fires[:3], schedule.tz)
    if schedule.paused:
        return f"  it is paused, so nothing fires until 'cronally resume {schedule.name}'"
    return "  it has no fires left"


# --- schedules --------------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, widest: int = _WIDEST) -> str:
    """Return aligned columns, each at most *widest* characters; the last one is as long as it needs to be."""
    return Table(heads, widest=widest).part(rows)


class Table:
    """Aligned columns, printed a part at a time; they never get narrower. The last one is as long as it needs to be.

    Where they do not fit on a narrow terminal, each row is a few lines instead: its first cell, and the others below it.
    """

    def __init__(self, heads: Sequence[str], *, widest: int = _WIDEST, room: int | None = None) -> None:
        """widest: characters of a cell, but for those of the last column. room: columns of the terminal, None if there is no end to them."""
        self._room = room
        self._is_stacked: bool | None = None  # until there is a row
        self.has_rows = False
        self._widest = widest
        self._heads = heads
        self._widths = [0] * (len(heads) - 1)

    def part(self, rows: Sequence[Sequence[str]]) -> str:
        """Return the lines of *rows*; the first time below the heads."""
        cells = [*([_cut(cell, self._widest) for cell in row[:-1]] + [row[-1]] for row in rows)]
        if self._is_stacked is None and cells:
            self._is_stacked = self._is_too_wide(cells)
        if self._is_stacked:
            self.has_rows = True
            return "\n".join(map(self._stacked, cells))
        cells = cells if self.has_rows else [[*self._heads], *cells]
        self.has_rows = self.has_rows or bool(rows)
        longest = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
        self._widths = [max(pair) for pair in zip(self._widths, longest, strict=True)]
        line = "  ".join([*(f"{{:<{width}}}" for width in self._widths), "{}"])
        return "\n".join(line.format(*row).rstrip() for row in cells)

    def _is_too_wide(self, cells: Sequence[Sequence[str]]) -> bool:
        if self._room is None or self._room >= _NARROW:
            return False
        longest = [max(map(len, column)) for column in zip(self._heads, *cells, strict=True)]
        return sum(longest) + 2 * (len(longest) - 1) > self._room

    def _stacked(self, row: Sequence[str]) -> str:
        width = max(map(len, self._heads[1:]))
        pairs = zip(self._heads[1:], row[1:], strict=True)
        return "\n".join([row[0], *(f"  {head.lower():<{width}}  {cell}" for head, cell in pairs if cell)])


def schedules_rows(schedules: Sequence[Schedule], now: str | None) -> list[tuple[str, ...]]:
    """Return the rows that ``ls`` prints: name, when, tz, next (local), topic, state."""
    return [
        (
            schedule.name,
            " ".join(schedule.when.split()),
            schedule.tz,
            _next_text(schedule, now),
            short_topic(schedule.topic),
            state_text(schedule),
        )
        for schedule in schedules
    ]


def _next_text(schedule: Schedule, now: str | None) -> str:
    if schedule.next_fire is None:
        return "-"
    local = local_text(schedule.next_fire, schedule.tz, with_offset=False)
    return f"{local} ({relative_text(schedule.next_fire, now)})" if now else local


def short_topic(arn: str) -> str:
    """Return a topic's name and region: ``reports (us-east-1)``."""
    parts = arn.split(":")
    return f"{parts[-1]} ({parts[3]})" if len(parts) == 6 else arn


def state_text(schedule: Schedule) -> str:
    """Return how a schedule is, in a few words: ok, paused, done, its error, its pending fires."""
    states = []
    if schedule.error is not None:
        states.append(f"error: {printable(schedule.error)}")
    if schedule.paused:
        until = schedule.paused["until"]
        states.append(f"paused until {until}" if until else "paused")
    elif schedule.next_fire is None:
        states.append("done")
    if schedule.pending:
        states.append(f"{schedule.pending:,} pending")
    return ", ".join(states) or "ok"


def pause_text(schedule: Schedule) -> str:
    """Return ``paused`` with its end, if it has one."""
    until = schedule.paused["until"] if schedule.paused else None
    return f"paused until {until}:" if until else "paused"


def schedule_text(schedule: Schedule, meaning: str | None) -> str:
    """Return what ``show`` prints. meaning: the rule in English, if it could be read here."""
    lines: list[tuple[str, str]] = [("when", schedule.when)]
    if meaning:
        lines.append(("means", meaning))
    lines += [("tz", schedule.tz), ("topic", schedule.topic), ("state", state_text(schedule))]
    if schedule.paused:
        about = [f"since {schedule.paused['since']}"]
        about += [f"by {schedule.paused['by']}"] if schedule.paused["by"] else []
        about += [f"“{printable(schedule.paused['note'])}”"] if schedule.paused["note"] else []
        lines.append(("paused", ", ".join(about)))
    lines.append(("message", _message_text(schedule.message)))
    for key in ("dialect", "message_structure", "subject", "group", "catch_up", "deadline", "late_after", "on_gap",
                "on_repeat", "spread", "priority", "starts", "ends", "note"):  # fmt: skip
        value = getattr(schedule, key)
        if value is not None:
            lines.append((key.replace("_", "-"), printable(str(value))))
    lines += [("attribute", _attribute_text(name, value)) for name, value in schedule.attributes.items()]
    if schedule.tags:
        lines.append(("tags", " ".join(schedule.tags)))
    changed = f"{schedule.revision}, in effect since {schedule.effective_from}, owner {schedule.owner}"
    lines.append(("revision", changed))
    fires = next_fires_text(schedule).strip().split("\n")
    lines += [("next" if number == 0 else "", fire.strip()) for number, fire in enumerate(fires)]
    return "\n".join([schedule.name, *(f"  {key:<18}{text}".rstrip() for key, text in lines)])


def _message_text(message: str | None) -> str:
    if message is None:
        return "(default: JSON with schedule, fire_time and fire_id)"
    if len(message) <= _SHOWN_MESSAGE:
        return printable(message)
    return f"{printable(message[:_SHOWN_MESSAGE])}… ({len(message.encode()):,} bytes; --json shows all)"


def _attribute_text(name: str, value: object) -> str:
    if isinstance(value, dict):
        return f"{name}:{value.get('type')}={printable(str(value.get('value')))}"
    return f"{name}={printable(str(value))}"


# --- fires and state --------------------------------------------------------------------------------------------


FIRE_HEADS: Final = ("FIRE TIME", "SCHEDULE", "KIND", "STATE", "LATE", "TRIES", "ABOUT")


def fires_table(fires: Sequence[Fire]) -> str:
    """Return fires as ``history`` prints them."""
    return table(FIRE_HEADS, fires_rows(fires))


def fires_rows(fires: Sequence[Fire]) -> list[tuple[str, ...]]:
    """Return the rows below ``FIRE_HEADS``."""
    return [
        (
            fire.fire_time,
            fire.schedule,
            fire.kind,
            fire.state,
            late_text(fire.lateness_us),
            str(fire.attempts),
            _about(fire),
        )
        for fire in fires
    ]


def late_text(lateness_us: int | None) -> str:
    """Write a lateness: ``0.4 ms``, ``12 s``, ``3h 12m``."""
    if lateness_us is None:
        return "-"
    if lateness_us < 10_000_000:
        return f"{lateness_us / 1000:.1f} ms"
    return span_text(lateness_us / 1_000_000)


def _about(fire: Fire) -> str:
    about = []
    if fire.reason:
        about.append(fire.reason)
    if fire.count != 1:
        about.append(f"{fire.count:,} slots up to {fire.last_fire_time}")
    if fire.maybe_published:
        about.append("may have been published")
    if fire.last_error:
        about.append(printable(fire.last_error))
    return "; ".join(about)


def status_text(status: Status) -> str:
    """Return what ``status`` prints."""
    up = span_text((parse_rfc3339(status.now) - parse_rfc3339(status.started_at)) / 1000)
    lines = [
        ("daemon", "ready" if status.is_ready else f"NOT READY: {printable(status.not_ready_because or '')}"),
        ("version", f"{status.version}, tzdata {status.tzdata}"),
        ("up", f"{up}, since {status.started_at}"),
        ("store", status.store),
    ]
    if status.store_warning:
        lines.append(("", f"WARNING: {printable(status.store_warning)}"))
    if status.machines is not None:
        lines += _machine_lines(status)
    if status.stand_in:
        lines.append(("stand-in", f"local SNS and SQS at {status.stand_in}"))
    lines.append(("schedules", counted(status.schedules, paused=status.paused, failing=status.failing)))
    if status.next_fire:
        lines.append(("next fire", f"{status.next_fire} ({relative_text(status.next_fire, status.now)})"))
    lines.append(("in flight", f"{status.in_flight:,}"))
    lines.append(("slots", ", ".join(f"{count:,} {state}" for state, count in status.journal.items())))
    if status.watermark:
        lines.append(("settled up to", status.watermark))
    if status.journal_keep:
        since = f"after {status.pruned_through}" if status.pruned_through else "from the beginning"
        used = f"{format_size(status.size_bytes)} of {format_size(status.journal_max_bytes)} used"
        lines.append(("journal", f"{since}, kept for {status.journal_keep}; {used}"))
    lines += [("refused by SNS", printable(text)) for text in refusing_lines(status)]
    if status.lateness_us:
        words = [f"{key} {late_text(status.lateness_us[key])}" for key in ("p50", "p99", "max")]
        lines.append(("lateness", f"{', '.join(words)} (last {status.lateness_us['count']:,} fires)"))
        lines += [("", line) for line in histogram_lines(status.lateness_histogram)]
    if status.zone_change:
        change = status.zone_change
        more = "" if change["count"] <= len(change["names"]) else ", …"
        names = f"{', '.join(change['names'])}{more}"
        moved = f"of {change['count']:,} by tzdata {change['new']} (before: {change['old']}): {names}"
        lines.append(("moved fires", printable(moved)))
    return "\n".join(f"{key:<15}{text}".rstrip() for key, text in lines)


def _machine_lines(status: Status) -> list[tuple[str, str]]:
    """Return what is said of the machines that share a store."""
    assert status.machines is not None
    lines = []
    for number, machine in enumerate(_worth_a_line(status.machines)):
        lag = "" if machine["lag_ms"] is None else f", settled to {span_text(machine['lag_ms'] / 1000)} ago"
        age = f"heard of {span_text(machine['heartbeat_age_ms'] / 1000)} ago"
        state = "" if machine["state"] == "alive" else f", {machine['state'].upper()}"
        own = " (this one)" if machine["is_self"] else ""
        text = f"{printable(machine['host'])}{own}: {machine['shards']} shards, {age}{lag}{state}"
        lines.append(("" if number else "machines", text))
    if status.free_shards:
        lines.append(("", f"{status.free_shards} shards are driven by NOBODY"))
    if status.has_history is False:
        lines.append(("", "older entries of the journal are still being read, and cannot be listed here yet"))
    if status.table_error:
        left = span_text(max(0, status.trusted_for_ms or 0) / 1000)
        lines.append(("", f"WARNING: {printable(status.table_error)}; it goes on firing for {left}"))
    return lines


def _worth_a_line(machines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return *machines* without those that are over and were started again since: an hour of updates has many."""
    last: dict[str, Mapping[str, Any]] = {}
    for machine in machines:
        before = last.get(machine["host"])
        rank = (machine["state"] != "gone", machine["started_at"])
        if before is None or rank > (before["state"] != "gone", before["started_at"]):
            last[machine["host"]] = machine
    return [
        machine
        for machine in machines
        if machine["state"] != "gone" or machine["shards"] or last[machine["host"]] is machine
    ]


def counted(schedules: int, **of_them: int) -> str:
    """Write how many schedules there are, and how many of them are in a state, if any: ``12, 2 paused``."""
    return ", ".join([f"{schedules:,}", *(f"{count:,} {word}" for word, count in of_them.items() if count)])


def refusing_lines(status: Status | Overview) -> list[str]:
    """Return a line for each topic for which SNS refuses everything, up to some number."""
    lines = [
        f"{one['topic']} since {one['since']}: {one['error']}; {one['pending']:,} wait; "
        f"tried again {relative_text(one['next_probe'], status.now)}"
        for one in status.refusing[:_MOST_REFUSING]
    ]
    if status.refusing_count > len(lines):
        lines.append(f"and {status.refusing_count - len(lines):,} more topics")
    return lines


def topics_table(topics: Sequence[Topic], states: Sequence[str] | None) -> str:
    """Return what ``topics ls`` prints. states: what SNS says of each, if it was asked."""
    rows = [[one.topic, f"{one.schedules:,}", f"{one.pending:,}", _health_text(one)] for one in topics]
    heads = ["TOPIC", "SCHEDULES", "PENDING", "HEALTH"]
    if states is not None:
        heads.append("AT SNS")
        for row, state in zip(rows, states, strict=True):
            row.append(printable(state))
    return table(heads, rows, widest=_WIDEST_ARN)


def _health_text(topic: Topic) -> str:
    if topic.refusing is not None:
        return printable(f"refusing since {topic.refusing['since']}: {topic.refusing['error']}")
    if topic.failing:
        return printable(f"{topic.failing:,} of its schedules failing: {topic.error}")
    return "ok"


def histogram_lines(buckets: Sequence[Mapping[str, int | None]]) -> list[str]:
    """Return a line for each bucket from the first to the last that is not empty: its bound, a bar, its share and count."""
    counts = [bucket["count"] or 0 for bucket in buckets]
    total = sum(counts)
    filled = [place for place, count in enumerate(counts) if count]
    if not total:
        return []
    lines = []
    for place in range(filled[0], filled[-1] + 1):
        bound = buckets[place]["le_us"]
        name = f"<= {_bound_text(bound)}" if bound is not None else "more"
        share = counts[place] / total
        bar = "#" * max(round(share * _BAR_CHARS), 1 if counts[place] else 0)
        lines.append(f"{name:<11}{bar:<{_BAR_CHARS + 1}}{share:6.1%}  {counts[place]:,}")
    return lines


def _bound_text(us: int) -> str:
    return f"{us / 1_000_000:g} s" if us >= 1_000_000 else f"{us / 1_000:g} ms"


# --- text -------------------------------------------------------------------------------------------------------


def printable(text: str) -> str:
    """Return *text* on one line, without characters that steer a terminal."""
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t").translate(_UNPRINTABLE)


def _cut(text: str, widest: int) -> str:
    return text if len(text) <= widest else f"{text[: widest - 1]}…"
