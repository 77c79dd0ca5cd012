"""docs/cost.md: the tables are what the formulas above them say."""

from __future__ import annotations

import re
from math import ceil
from pathlib import Path

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "cost.md").read_text()
SMALL_KB = 1


def rows(heading):
    """Return the rows of the table with this heading: millions of fires, and the dollars beside them."""
    table = TEXT.partition(heading)[2].partition("\n\n")[0]
    found = re.findall(r"^\| (\d+) million \| (.+) \|$", table, re.MULTILINE)
    return [(int(fires), [float(cell.strip(" $")) for cell in cells.split("|")]) for fires, cells in found]


def scheduler(fires):
    return max(0, fires - 14) * 1.00


def sns(fires, batch):
    return max(0, fires / batch * ceil(batch * SMALL_KB / 64) - 1) * 0.50


def test_the_costs_are_what_the_formulas_say():
    found = rows("| fires a month | Scheduler alone |")
    assert [fires for fires, _ in found] == [1, 10, 100]
    for fires, cells in found:
        expected = [scheduler(fires), scheduler(fires) + sns(fires, 1), sns(fires, 1), sns(fires, 10)]
        assert cells == expected


def test_a_machine_may_cost_the_difference():
    found = rows("| fires a month | b = 1 |")
    assert [fires for fires, _ in found] == [1, 10, 100]
    for fires, cells in found:
        there = scheduler(fires) + sns(fires, 1)
        assert cells == [there - sns(fires, 1), there - sns(fires, 10)]


def test_the_numbers_beside_them_hold():
    assert round(100e6 / (30 * 86_400)) == 39
    assert "39 a second" in TEXT
    assert 365 * 24 * 60 // 12 == 43_800
    assert "43,800 messages a month" in TEXT
