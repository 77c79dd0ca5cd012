"""How results look: quantiles, tables, and the asked figure beside the measured one."""

from __future__ import annotations

import os
import platform
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cronally
from benchmarks._ledger import CURVE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def machine() -> dict[str, Any]:
    """Return what a figure depends on beside the code."""
    return {
        "cronally": cronally.__version__,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "kernel": f"{platform.system()} {platform.release()}",
        "load_average": os.getloadavg(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def machine_line(facts: dict[str, Any]) -> str:
    load = " ".join(f"{value:.2f}" for value in facts["load_average"])
    return (
        f"cronally {facts['cronally']}, Python {facts['python']}, {facts['cpus']} x {facts['cpu']}, {facts['kernel']}, "
        f"load before {load}"
    )


def at(curve: Sequence[int], share: float) -> float:
    """Return the value of a ledger's curve at *share* per cent; nan of an empty one."""
    return curve[CURVE.index(share)] if curve else float("nan")


def median(values: Iterable[float]) -> float:
    """Return the median; nan of nothing."""
    found = list(values)
    return statistics.median(found) if found else float("nan")


def at_most(what: str, limit: float, measured: float, unit: str) -> dict[str, Any]:
    """Return an asked figure beside the measured one, which is better when it is smaller."""
    return {
        "what": what,
        "asked": f"<= {limit:,g} {unit}".rstrip(),
        "measured": measured,
        "unit": unit,
        "is_ok": measured <= limit,
    }


def at_least(what: str, limit: float, measured: float, unit: str) -> dict[str, Any]:
    """As ``at_most``, for what is better when it is greater."""
    figure = at_most(what, limit, measured, unit)
    return figure | {"asked": f">= {limit:,g} {unit}".rstrip(), "is_ok": measured >= limit}


def none_of(what: str, measured: int) -> dict[str, Any]:
    """As ``at_most``, for what must not happen in any run."""
    return at_most(what, 0, measured, "") | {"asked": "0"}


def asked_table(figures: Sequence[dict[str, Any]]) -> str:
    """Write asked and measured figures, a line each."""
    rows = [
        (
            figure["what"],
            figure["asked"],
            f"{number(figure['measured'])} {figure['unit']}".rstrip(),
            "ok" if figure["is_ok"] else "short",
        )
        for figure in figures
    ]
    return table(("", "asked", "measured", ""), rows, left=(0, 3))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, left: Sequence[int] = (0,)) -> str:
    """Write a table. left: the columns that are set flush left; the others hold numbers."""
    cells = [list(head)] + [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]
    return "\n".join(lines)


def number(value: Any) -> str:
    """Write a number with as many digits as it is worth."""
    if value is None or value != value:  # noqa: PLR0124 - nan
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"
