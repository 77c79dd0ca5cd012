"""The distribution of lateness of a burst, as an SVG: the share of messages that have arrived over time, on a log scale.

``python -m benchmarks._picture RESULT.json FILE.svg`` draws what ``burst --json`` printed, without measuring again.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.sax.saxutils import escape

from benchmarks._harness import BenchmarkError
from benchmarks._ledger import CURVE

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH, _HEIGHT = 760, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 24, 74, 52
_SIZES = (1_000, 10_000, 100_000)
_OURS, _THEIRS = "#2f81f7", "#d9730d"  # 3:1 or more on white and on the dark grey of code hosts
_INK = "#7d8590"  # the same
_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"


class _Line(NamedTuple):
    size: int
    is_ours: bool
    points: list[tuple[float, float]]
    """(milliseconds, per cent)"""


def draw(result: dict[str, Any]) -> str:
    """Return the picture of a result of ``burst``."""
    lines = list(_lines(result))
    if not lines:
        sizes = ", ".join(f"{size:,}" for size in _SIZES)
        raise BenchmarkError(
            f"there is nothing to draw: the picture shows the part plain at {sizes} messages"
        )
    low = math.floor(math.log10(max(0.1, min(line.points[0][0] for line in lines))))
    high = math.ceil(math.log10(max(line.points[-1][0] for line in lines) * 1.02))
    scale = _Scale(low, max(high, low + 1))
    title = "Messages due at one instant: how many have arrived, and when"
    description = "; ".join(
        f"{_name(line)}: half after {_span(_median(line))}, the last after {_span(line.points[-1][0])}"
        for line in lines
    )
    return "\n".join(
        [
            _svg("title desc"),
            f'<title id="title">{title}</title>',
            f'<desc id="desc">{escape(description)}.</desc>',
            f'<text x="{_LEFT}" y="22" font-size="16" font-weight="600">{title}</text>',
            *_legend(lines),
            *_axes(scale),
            *(element for line in lines for element in _curve(line, scale)),
            _footnote(result),
            "</svg>",
            "",
        ]
    )


def _svg(labels: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-labelledby="{labels}" font-family="{_FONT}" font-size="13" fill="{_INK}">'
    )


def _footnote(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return (
        f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 8}" text-anchor="end" font-size="11">'
        f"Python {machine['python']}, {machine['cpus']} cores, receiver on the same machine; "
        f"the middle one of {result['runs']} runs</text>"
    )


def _lines(result: dict[str, Any]) -> Iterator[_Line]:
    for part, is_ours in (("plain", True), ("peer", False)):
        for row in result["parts"].get(part, []):
            curve = row["curve_us"]
            if row["size"] in _SIZES and curve:
                points = [(max(us, 1) / 1000, float(share)) for us, share in zip(curve, CURVE, strict=True)]
                yield _Line(row["size"], is_ours, points)


class _Scale:
    def __init__(self, low: int, high: int) -> None:
        """low, high: powers of ten, of a millisecond."""
        self.low, self.high = low, high

    def x(self, ms: float) -> float:
        share = (math.log10(max(ms, 10**self.low)) - self.low) / (self.high - self.low)
        return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(self, per_cent: float) -> float:
        return round(_HEIGHT - _BOTTOM - per_cent / 100 * (_HEIGHT - _TOP - _BOTTOM), 1)


def _legend(lines: list[_Line]) -> Iterator[str]:
    x = _LEFT
    for is_ours, text in ((True, "Cronally"), (False, "APScheduler + aiobotocore")):
        if any(line.is_ours is is_ours for line in lines):
            yield f'<path d="M{x} 45h22" stroke="{_colour(is_ours)}" stroke-width="3"{_dashes(is_ours)}/>'
            yield f'<text x="{x + 30}" y="49.5">{text}</text>'
            x += 120


def _axes(scale: _Scale) -> Iterator[str]:
    for per_cent in (0, 25, 50, 75, 100):
        y = scale.y(per_cent)
        yield f'<path d="M{_LEFT} {y}H{_WIDTH - _RIGHT}" stroke="{_INK}" stroke-opacity=".3"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4.5}" text-anchor="end">{per_cent} %</text>'
    for power in range(scale.low, scale.high + 1):
        x = scale.x(10**power)
        yield f'<path d="M{x} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="{_INK}" stroke-opacity=".3"/>'
        yield f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{_span(10**power)}</text>'
    yield (
        f'<text x="{_LEFT}" y="{_HEIGHT - 8}" font-size="11">time since the instant, on a log scale</text>'
    )


def _curve(line: _Line, scale: _Scale) -> Iterator[str]:
    steps = " ".join(f"{scale.x(ms)},{scale.y(share)}" for ms, share in line.points)
    colour = _colour(line.is_ours)
    yield (
        f'<polyline points="{steps}" fill="none" stroke="{colour}" stroke-width="2.5" '
        f'stroke-linejoin="round"{_dashes(line.is_ours)}/>'
    )
    x, y = scale.x(line.points[-1][0]), scale.y(100)
    yield f'<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>'
    # Theirs stand on another height, since theirs of 1,000 end near ours of 100,000.
    if line.is_ours:
        place = f'x="{x}" y="{y - 9}" text-anchor="middle"'
    elif x < _WIDTH - 90:
        place = f'x="{x + 8}" y="{scale.y(88)}"'
    else:
        place = f'x="{x - 12}" y="{scale.y(88)}" text-anchor="end"'
    yield f'<text {place} font-weight="600" fill="{colour}">{line.size:,}</text>'


def _colour(is_ours: bool) -> str:  # noqa: FBT001
    return _OURS if is_ours else _THEIRS


def _dashes(is_ours: bool) -> str:  # noqa: FBT001 - so that the two can be told apart without colours
    return "" if is_ours else ' stroke-dasharray="6 4"'


def _name(line: _Line) -> str:
    return f"{'Cronally' if line.is_ours else 'APScheduler with aiobotocore'}, {line.size:,} messages"


def _median(line: _Line) -> float:
    return next(ms for ms, share in line.points if share >= 50)


def _span(ms: float) -> str:
    if ms >= 1000:
        return f"{ms / 1000:.3g} s"
    return f"{ms:.3g} ms"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(draw(json.loads(Path(sys.argv[1]).read_text())))
