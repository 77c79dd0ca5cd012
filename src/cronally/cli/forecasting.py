"""forecast: how many messages each minute of the coming day has, and what the quota of SNS makes of the busiest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from cronally.admin.wire import to_plain
from cronally.cli import options as o
from cronally.cli.output import columns, out, out_json
from cronally.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cronally.admin.wire import Forecast, Load

EXAMPLES: Final = {
    "forecast": """
        cronally forecast
        cronally forecast --svg forecast.svg
        cronally forecast --json | jq '.loads[].minutes | max'
        """,
}

SHADES: Final = " .:-=+*#%@"  # of a minute: none, then ever nearer to the busiest
_HOUR: Final = len("09:00 ")
_BUSIEST: Final = 5
_SPREADS: Final = ("10s", "30s", "1m", "2m", "5m", "10m", "15m", "30m", "1h", "2h", "6h")
_CELL: Final = 12  # SVG units
_LEFT: Final = 60
_TOP: Final = 30


def forecast_command(
    svg: Annotated[
        str | None,
        typer.Option(
            "--svg", metavar="FILE", help="Draw it into a file, too; one that is there is replaced."
        ),
    ] = None,
    json: o.Json = False,
    socket: o.Socket = None,
) -> None:
    """Show how many messages are due in each minute of the next 24 hours, and what the busiest minutes need of the SNS quota.

    A row is an hour, a character a minute (on a narrow terminal the busiest of a few); times are UTC. For the busiest minutes of each region: how long they take to leave
    if all is due at once, as most rules are, and which --spread would let them leave as they come, at half of the quota.
    Paused schedules are left out.
    """
    with o.connect(socket) as client:
        forecast = client.forecast()
    if svg is not None:
        try:
            Path(svg).write_text(svg_text(forecast), encoding="utf-8")
        except OSError as exc:
            reason = (exc.strerror or str(exc)).lower()
            raise UsageError(f"--svg: the file {svg} cannot be written: {reason}") from None
    if json:
        out_json(to_plain(forecast))
    else:
        out("\n".join(lines(forecast, each=minutes_each(columns()))))


def minutes_each(width: int | None) -> int:
    """Return how many minutes a character stands for, so that an hour fits in *width* columns. None: there is no limit."""
    fitting = (each for each in (1, 2, 5) if width is None or _HOUR + 60 // each <= width)
    return next(fitting, 10)


def lines(forecast: Forecast, *, each: int = 1) -> Iterator[str]:
    """Yield the heat map, a character for *each* so many minutes (1, 2, 5 or 10), and what there is to know of each region."""
    from cronally.cli.render import table

    minutes = _together(forecast.loads)
    total, most = sum(minutes), max(minutes, default=0)
    yield f"messages in each minute of the 24 hours from {forecast.starts_at}: {total:,}, at most {most:,}"
    if not total:
        return
    yield ""
    first = Minute.of(forecast.starts_at, 0)
    offset = int(first.text[3:])
    padded = [0] * offset + minutes
    step = 10 if each < 5 else 30
    marks = "".join(f"{f':{minute:02}':<{step // each}}" for minute in range(0, 60, step))
    yield " " * _HOUR + marks
    for row in range(math.ceil(len(padded) / 60)):
        hour = (int(first.text[:2]) + row) % 24
        of_hour = padded[60 * row : 60 * row + 60]
        cells = "".join(
            _shade(max(of_hour[start : start + each]), most) for start in range(0, len(of_hour), each)
        )
        yield f"{hour:02}:00 {cells}".rstrip()
    for load in forecast.loads:
        yield ""
        quota = f"{load.quota_per_s:,.0f} messages/s" if load.quota_per_s else "none"
        yield f"{load.region}{' FIFO' if load.is_fifo else ''}: quota {quota}"
        yield table(("MINUTE (UTC)", "MESSAGES", "LEAVE WITHIN", "SPREAD"), list(_busiest(forecast, load)))


def _busiest(forecast: Forecast, load: Load) -> Iterator[tuple[str, ...]]:
    order = sorted(range(len(load.minutes)), key=lambda minute: (-load.minutes[minute], minute))
    for minute in order[:_BUSIEST]:
        count = load.minutes[minute]
        if count:
            within = count / load.quota_per_s if load.quota_per_s else 0.0
            leave = "at once" if within <= 1 else f"{within:,.0f} s"
            yield (
                Minute.of(forecast.starts_at, minute).whole,
                f"{count:,}",
                leave,
                spread_for(count, load.quota_per_s) or "-",
            )


def spread_for(count: int, quota_per_s: float) -> str | None:
    """Return the shortest usual spread over which *count* messages need no more than half of the quota; None if none is needed."""
    from cronally.domain.durations import parse_duration

    if not quota_per_s or count <= quota_per_s:
        return None
    enough = (text for text in _SPREADS if count / (parse_duration(text) / 1000) <= quota_per_s / 2)
    return next(enough, _SPREADS[-1])


class Minute(NamedTuple):
    """One of the forecast. text: ``09:30``. whole: with its date."""

    text: str
    whole: str

    @classmethod
    def of(cls, starts_at: str, number: int) -> Minute:
        """Return the minute *number*, from 0, of those from *starts_at* on."""
        from cronally.domain.durations import MINUTE_MS
        from cronally.instants import UtcMs, format_utc, parse_rfc3339

        whole = format_utc(UtcMs(parse_rfc3339(starts_at) + number * MINUTE_MS))
        return cls(whole[11:16], f"{whole[:10]} {whole[11:16]}")


def _together(loads: Sequence[Load]) -> list[int]:
    return [sum(counts) for counts in zip(*(load.minutes for load in loads), strict=True)]


def _shade(count: int, most: int) -> str:
    return SHADES[0] if not count else SHADES[math.ceil(count / most * (len(SHADES) - 1))]


def svg_text(forecast: Forecast) -> str:
    """Return a picture of the forecast: a row for each hour, a cell for each minute, darker the more is due."""
    minutes = _together(forecast.loads)
    most = max(minutes, default=0)
    first = Minute.of(forecast.starts_at, 0).text
    offset = int(first[3:])
    rows = math.ceil((len(minutes) + offset) / 60) or 1
    width, height = _LEFT + 60 * _CELL + 10, _TOP + rows * _CELL + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="14">messages in each minute from {forecast.starts_at}; at most {most:,}</text>',
    ]
    parts += [
        f'<text x="4" y="{_TOP + row * _CELL + 10}">{(int(first[:2]) + row) % 24:02}:00 UTC</text>'
        for row in range(rows)
    ]
    for number, count in enumerate(minutes):
        if count:
            row, column = divmod(number + offset, 60)
            minute = Minute.of(forecast.starts_at, number).whole
            parts.append(
                f'<rect x="{_LEFT + column * _CELL}" y="{_TOP + row * _CELL}" width="{_CELL - 1}" height="{_CELL - 1}" '
                f'fill="#b3001b" fill-opacity="{0.1 + 0.9 * count / most:.2f}"><title>{minute}: {count:,}</title></rect>'
            )
    return "\n".join([*parts, "</svg>", ""])
