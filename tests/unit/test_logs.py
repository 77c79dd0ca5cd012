"""The log: a line per event, whatever it quotes, and nobody waits for its reader."""

from __future__ import annotations

import ast
import json
import logging
import os
import queue
import re
import tempfile
import threading
from pathlib import Path

import pytest

from cronally import logs
from cronally.actions import ACTIONS, about
from cronally.logs import MOST_REPEATS, Json, Repeats, Text, logging_to

log = logging.getLogger("cronally.test")


def written(action, *, form="text"):
    with tempfile.TemporaryFile("w+", encoding="utf-8") as stream:
        with logging_to(stream, form=form):
            action()
        stream.seek(0)
        return stream.read()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain é 日本", "plain é 日本"),
        ("a\nb\rc\x00d", r"a\nb\rc\x00d"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x85\u2028\u2029", r"\x85\u2028\u2029"),
        ("\u202eevil\u2066", r"\u202eevil\u2066"),
        ("\ud800\U000e0001", r"\ud800\U000e0001"),
    ],
    ids=range(6),
)
def test_what_cannot_be_seen_is_written_as_its_code(said, shown):
    # Formatted here and not logged: pytest keeps what is logged, and half a surrogate pair is more than it can keep.
    record = logging.makeLogRecord({"msg": "said %s", "args": (said,)})
    assert Text().format(record) == f"cronally: said {shown}"


def test_an_event_is_one_line_of_bounded_length_also_with_a_traceback():
    def fail():
        try:
            int("first\nsecond" + "x" * 50_000)
        except ValueError:
            log.exception("it %s", "y" * 5_000)

    text = written(fail)
    assert text.count("\n") == 1
    assert "Traceback" in text
    assert r"first\nsecond" in text
    assert len(text) < 12_100


def test_only_our_own_events_below_a_warning_are_written():
    def say():
        log.info("ours")
        log.debug("small")
        logging.getLogger("asyncio").info("theirs")
        logging.getLogger("asyncio").warning("theirs, and it matters")

    assert written(say) == "cronally: ours\ncronally: theirs, and it matters\n"


def test_a_log_that_nobody_reads_holds_up_nobody_and_says_later_what_is_missing(monkeypatch):
    monkeypatch.setattr(logs, "_MAX_WAITING", 5)
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader) as reading:
        with logging_to(stream, form="text"):
            for _ in range(100):
                log.info("%s", "x" * 1_900)  # a pipe takes 64 KiB: the rest waits or is dropped
            texts = []
            collecting = threading.Thread(target=lambda: texts.extend(reading))
            collecting.start()
            while not any("dropped" in text for text in texts):
                log.info("more")
        stream.close()
        collecting.join(20)
    assert any(text.startswith("cronally: ") and "lines of the log were dropped" in text for text in texts)


def test_a_log_that_is_full_or_whose_reader_has_gone_is_no_reason_to_die():
    with Path("/dev/full").open("w") as full, logging_to(full):
        log.info("nobody hears this")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone, logging_to(gone):
        log.info("nobody hears this")


def test_what_the_encoding_of_the_log_lacks_is_written_as_its_code():
    with tempfile.TemporaryFile("w+", encoding="ascii") as stream:
        with logging_to(stream, form="text"):
            log.info("é")
        stream.seek(0)
        assert stream.read() == "cronally: \\xe9\n"


# --- JSON -----------------------------------------------------------------------------------------------------------


def lines(action):
    return [json.loads(line) for line in written(action, form="json").splitlines()]


def test_an_event_is_one_object_with_a_name_that_stays_and_its_fields():
    def say():
        log.warning("the store refuses: %s", "full", extra=about("store.refused", error="full"))

    [line] = lines(say)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", line.pop("time"))
    assert line == {
        "level": "warning",
        "action": "store.refused",
        "text": "the store refuses: full",
        "error": "full",
    }


def test_what_steers_a_terminal_is_escaped_and_what_is_long_is_cut():
    def say():
        log.info(
            "%s", "\x1b[2J\u202e\n\x85" + "x" * 9_000, extra=about("admin.bug", path="\x9b" + "p" * 9_000)
        )

    text = written(say, form="json")
    assert text.isascii()
    assert text.rstrip("\n").isprintable()
    assert len(text) < 4_300
    assert json.loads(text)["path"].startswith("\x9bppp")


def test_what_a_library_says_and_a_traceback_have_their_place():
    def say():
        logging.getLogger("asyncio").warning("slow")
        try:
            int("x")
        except ValueError:
            log.exception("failed", extra=about("admin.bug", method="GET", path="/"))

    theirs, ours = lines(say)
    assert (theirs["action"], theirs["logger"], theirs["text"]) == ("library.message", "asyncio", "slow")
    assert "ValueError" in ours["traceback"]


def test_it_is_text_on_a_terminal_and_json_elsewhere():
    leader, follower = os.openpty()
    with os.fdopen(follower, "w") as terminal, logging_to(terminal):
        log.info("said")
    assert os.read(leader, 1_000).decode().startswith("cronally: said")
    os.close(leader)
    assert json.loads(written(lambda: log.info("said"), form="auto"))["text"] == "said"


def test_lines_that_were_dropped_are_counted_in_json_too(monkeypatch):
    handler = logs._Waiting.__new__(logs._Waiting)
    logging.Handler.__init__(handler)
    handler.setFormatter(Json())
    handler._dropped, handler._lines = 3, queue.Queue()
    handler.emit(logging.makeLogRecord({"msg": "next"}))
    told, following = map(json.loads, handler._lines.get().splitlines())
    assert (told["action"], told["count"], following["text"]) == ("log.dropped", 3, "next")


# --- repeats --------------------------------------------------------------------------------------------------------


def record(text="it fails: %s", *args, at=0.0, level=logging.WARNING):
    return logging.makeLogRecord(
        {"name": "cronally", "msg": text, "args": args, "created": at, "levelno": level, "levelname": "X"}
    )


def test_a_warning_that_repeats_is_left_out_and_counted_when_it_comes_again():
    repeats = Repeats()
    passed = [repeats.filter(record("it fails: %s", number, at=number * 0.1)) for number in range(100)]
    assert passed == [True] * MOST_REPEATS + [False] * (100 - MOST_REPEATS)
    assert repeats.filter(record("another", at=11.0))
    again = record("it fails: %s", "x", at=61.0)
    assert repeats.filter(again)
    assert again.getMessage() == f"it fails: x ({100 - MOST_REPEATS} more of these were left out before)"
    assert not hasattr(again, "count")
    after = record("it fails: %s", "y", at=200.0)
    assert repeats.filter(after)
    assert after.getMessage() == "it fails: y"


def test_what_is_no_warning_and_what_comes_after_a_clock_was_set_back_is_never_left_out():
    repeats = Repeats()
    assert all(repeats.filter(record("changed", level=logging.INFO)) for _ in range(1_000))
    for _ in range(50):
        repeats.filter(record(at=1_000.0))
    assert repeats.filter(record(at=10.0))


def test_of_so_many_kinds_as_anybody_likes_few_are_remembered():
    repeats = Repeats()
    for number in range(5_000):
        assert repeats.filter(record(f"kind {number}"))
    assert len(repeats._seen) <= 1_000


# --- actions --------------------------------------------------------------------------------------------------------


def test_every_event_has_a_name_that_is_listed():
    used = set()
    for path in Path(logs.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and getattr(node.func, "attr", "") in LEVELS
                and is_log(node.func.value)
            ):
                [extra] = [keyword.value for keyword in node.keywords if keyword.arg == "extra"] or [None]
                assert isinstance(extra, ast.Call), (
                    f"{path}:{node.lineno} says what happened without about(…)"
                )
                used.add(extra.args[0].value)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "about":
                used.add(node.args[0].value)
    assert used | {"library.message"} == ACTIONS.keys()


LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def is_log(value):
    return isinstance(value, ast.Name) and value.id in ("log", "_log")


def test_every_action_is_on_the_page_of_the_log():
    page = (Path(__file__).parents[2] / "docs" / "log.md").read_text()
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+) \|$", page, re.MULTILINE))
    assert rows == ACTIONS
