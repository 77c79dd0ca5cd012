"""The daemon's log: one line for each event."""

from __future__ import annotations

import logging

import pytest

from cronally.logs import OneLine, escaped


def record(message, *args, exc_info=None):
    return logging.LogRecord("cronally", logging.INFO, __file__, 1, message, args, exc_info)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ready: store /var/lib/é.db", "ready: store /var/lib/é.db"),
        ("a\ncronally: ready", r"a\ncronally: ready"),
        ("\x1b[2J\r\0\x7f\x9b", r"\x1b[2J\r\x00\x7f\x9b"),
        ("a\u202eb\u2028\u2066", r"a\u202eb\u2028\u2066"),
        ("\ud800😀", "\\ud800😀"),
    ],
)
def test_no_text_can_pass_for_another_line_or_be_obeyed_by_a_terminal(text, shown):
    assert escaped(text) == shown
    assert OneLine().format(record("%s", text)) == f"cronally: {shown}"


def test_a_traceback_stands_indented_below_its_line():
    error = ValueError("a\ncronally: ready\x1b[2J")
    line = record("admin.bug path=%s", "/a\nb", exc_info=(ValueError, error, None))
    assert OneLine().format(line).split("\n") == [
        r"cronally: admin.bug path=/a\nb",
        "    ValueError: a",
        r"    cronally: ready\x1b[2J",
    ]
