"""docs/faults.md is kept honest: all the faults are there, and so are the tests it names."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
FAULTS = range(1, 64)

ROW = re.compile(r"\| (\d+) \|")
NAMED = re.compile(r"`(tests/[^`:]+\.py)::(test_[^`]+)`")


def rows():
    """Return the cells of the page's rows that have a number: number, fault, what Cronally does, tests."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if ROW.match(line)]


@cache
def defined_in(path):
    if not (ROOT / path).exists():
        return set()
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_fault_has_its_row_in_order():
    assert [int(cells[0]) for cells in rows()] == [*FAULTS]
    assert all(len(cells) == 4 and all(cells) for cells in rows())


def test_all_tests_that_the_page_names_exist():
    named = NAMED.findall(PAGE.read_text(encoding="utf-8"))
    assert [f"{path}::{name}" for path, name in named if name not in defined_in(path)] == []


@pytest.mark.parametrize("cells", rows(), ids=lambda cells: cells[0])
def test_the_tests_a_row_names_exist(cells):
    *_, shown_by = cells
    named = NAMED.findall(shown_by)
    assert named
    assert NAMED.sub("", shown_by).strip(" `") == "", "it holds something else than tests"
    missing = [f"{path}::{name}" for path, name in named if name not in defined_in(path)]
    assert missing == []
