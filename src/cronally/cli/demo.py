"""The live table of ``cronally demo``: what arrived on the queue, when it was due, and how late it was."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cronally import app
from cronally.admin.client import Client
from cronally.clock import SystemClock
from cronally.domain.recurrence import Recurrence
from cronally.instants import UtcMs, format_utc, parse_rfc3339, to_datetime

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPIC = "arn:aws:sns:us-east-1:123456789012:demo"
AT_AHEAD_MS = 4_000
ARRIVAL_TIMEOUT_S = 5.0  # how long the end waits for the last messages; a local one takes milliseconds
_REFRESH_S = 0.25
_ROWS = 14


class Arrival(NamedTuple):
    """A message on the queue. late_us: how long after its due time it left Cronally; None until the journal says."""

    schedule: str
    fire_id: str
    fire_time: UtcMs
    arrived_at: UtcMs
    late_us: int | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """A schedule of the demo. effective_from: it has no slots at or before it."""

    name: str
    when: str
    effective_from: UtcMs

    def due(self, through: UtcMs) -> int:
        """Return how many of its slots are due by *through*."""
        return Recurrence.parse(self.when).count_ms(self.effective_from, through)


def run(for_s: float) -> int:
    """Run the demo for *for_s* seconds; return 0 if all that was due arrived."""
    return app.run(_demo(for_s))


async def _demo(for_s: float) -> int:
    clock = SystemClock()
    console = Console()
    stop = asyncio.Event()
    with _interrupts(stop):
        console.print("Starting a local SNS and SQS and the daemon…", style="dim")
        async with app.demo_stage() as stage:
            with Client(stage.socket) as client:
                view = _View(client)
                reading = asyncio.create_task(view.read(stage.messages(TOPIC)))
                shown = await asyncio.to_thread(_add_schedules, client, clock.wall())
                _introduce(console, shown)
                end = UtcMs(clock.wall() + round(for_s * 1000))
                await _watch(view, console, clock, end, stop, reading)
                end = min(end, clock.wall())
                await _last_arrivals(view, shown, clock, end)
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
                await asyncio.to_thread(view.look_up)
        console.print(_summary(view.arrivals, shown, end), soft_wrap=True)
        is_complete = all(_arrived(view.arrivals, one, end) == one.due(end) for one in shown)
    return 0 if is_complete else 1


def _add_schedules(client: Client, now: UtcMs) -> list[Shown]:
    whole_second = UtcMs(now - now % 1000 + AT_AHEAD_MS)
    rules = {
        "every-minute": "* * * * *",
        "every-second": "@every 1s",
        "once": f"@at {format_utc(whole_second)}",
    }
    shown = []
    for name, when in rules.items():
        reply = client.put(name, {"when": when, "topic": TOPIC})
        shown.append(Shown(name, when, parse_rfc3339(str(reply.schedule.effective_from))))
    return shown


def _introduce(console: Console, shown: list[Shown]) -> None:
    for one in shown:
        console.print(
            f"  cronally add {one.name} {one.when!r} --topic {TOPIC}",
            style="dim",
            highlight=False,
            soft_wrap=True,
        )
    console.print()


class _View:
    """What has arrived so far."""

    def __init__(self, client: Client) -> None:
        self.arrivals: list[Arrival] = []
        self._client = client
        self._late_us: dict[str, int] = {}

    async def read(self, messages: app.Messages) -> None:
        """Take in the messages of the queue as they come."""
        async for message in messages:
            attributes = message.attributes
            self.arrivals.append(
                Arrival(
                    attributes["cronally.schedule"],
                    attributes["cronally.fire_id"],
                    parse_rfc3339(attributes["cronally.fire_time"]),
                    message.sent_at,
                )
            )

    def look_up(self) -> None:
        """Ask the journal how late each fire left."""
        for fire in self._client.fires(limit="200").fires:
            if fire.lateness_us is not None:
                self._late_us[fire.fire_id] = fire.lateness_us
        self.arrivals = [one._replace(late_us=self._late_us.get(one.fire_id)) for one in self.arrivals]

    def table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("SCHEDULE", "DUE (UTC)", "LEFT AFTER", "ON THE QUEUE AFTER", "FIRE ID"):
            table.add_column(heading, justify="right" if "AFTER" in heading else "left", no_wrap=True)
        for one in self.arrivals[-_ROWS:]:
            table.add_row(*_cells(one))
        return table


def _cells(one: Arrival) -> tuple[str, ...]:
    left = "" if one.late_us is None else f"{one.late_us / 1000:.2f} ms"
    return (
        one.schedule,
        f"{to_datetime(one.fire_time):%H:%M:%S}",
        left,
        f"{one.arrived_at - one.fire_time} ms",
        one.fire_id,
    )


async def _watch(
    view: _View,
    console: Console,
    clock: SystemClock,
    end: UtcMs,
    stop: asyncio.Event,
    reading: asyncio.Task[None],
) -> None:
    """Show what arrives until *end*, *stop*, or the queue cannot be read."""
    if not console.is_terminal:
        await _print_rows(view, console, clock, end, stop, reading)
        return
    with Live(view.table(), console=console, refresh_per_second=8, transient=False) as live:
        while clock.wall() < end and not stop.is_set() and not reading.done():
            await asyncio.to_thread(view.look_up)
            live.update(view.table())
            await _pause(clock, stop)


async def _print_rows(
    view: _View,
    console: Console,
    clock: SystemClock,
    end: UtcMs,
    stop: asyncio.Event,
    reading: asyncio.Task[None],
) -> None:
    printed = 0
    while clock.wall() < end and not stop.is_set() and not reading.done():
        await asyncio.to_thread(view.look_up)
        for one in view.arrivals[printed:]:
            if one.late_us is None:
                break
            cells = _cells(one)
            row = f"{cells[0]:<14} due {cells[1]}  left after {cells[2]:>9}  on the queue after {cells[3]:>6}"
            console.print(row, highlight=False, soft_wrap=True)
            printed += 1
        await _pause(clock, stop)


async def _pause(clock: SystemClock, stop: asyncio.Event) -> None:
    """Wait for the next refresh, or until the demo is to stop."""
    stopping = asyncio.ensure_future(stop.wait())
    refresh = asyncio.ensure_future(clock.sleep(_REFRESH_S))
    await asyncio.wait((stopping, refresh), return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, refresh):
        task.cancel()


async def _last_arrivals(view: _View, shown: list[Shown], clock: SystemClock, end: UtcMs) -> None:
    deadline = clock.mono() + ARRIVAL_TIMEOUT_S
    due = sum(one.due(end) for one in shown)
    while sum(_arrived(view.arrivals, one, end) for one in shown) < due and clock.mono() < deadline:
        await clock.sleep(_REFRESH_S / 5)


def _arrived(arrivals: list[Arrival], shown: Shown, end: UtcMs) -> int:
    """Return how many distinct fires of a schedule arrived that were due by *end*."""
    return len({one.fire_id for one in arrivals if one.schedule == shown.name and one.fire_time <= end})


def _summary(arrivals: list[Arrival], shown: list[Shown], end: UtcMs) -> str:
    lines = [""]
    for one in shown:
        due, arrived = one.due(end), _arrived(arrivals, one, end)
        following = Recurrence.parse(one.when).next_ms(end)
        tail = "" if following is None else f", next at {to_datetime(following):%H:%M:%S} UTC"
        lines.append(f"  {one.name:<13} {arrived} of {due} due arrived{tail}")
    due = sum(one.due(end) for one in shown)
    arrived = sum(_arrived(arrivals, one, end) for one in shown)
    late_us = sorted(one.late_us for one in arrivals if one.late_us is not None)
    early = sum(one.arrived_at < one.fire_time for one in arrivals)
    sign = "=" if due == arrived else "≠"
    lateness = ""
    if late_us:
        middle = late_us[(len(late_us) - 1) // 2]
        lateness = (
            f"; left {middle / 1000:.2f} ms after its time in the middle, {late_us[-1] / 1000:.2f} ms at most"
        )
    lines.append(f"due {due} {sign} arrived {arrived}, {early} early{lateness}")
    return "\n".join(lines)


@contextmanager
def _interrupts(stop: asyncio.Event) -> Iterator[None]:
    """Ctrl-C and a closed terminal end the demo in order."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
