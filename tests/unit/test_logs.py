"""The log: a line per event, whatever it quotes, and nobody waits for its reader."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from pathlib import Path

import pytest

from cronally import logs
from cronally.logs import OneLine, logging_to

log = logging.getLogger("cronally.test")


def written(action):
    with tempfile.TemporaryFile("w+", encoding="utf-8") as stream:
        with logging_to(stream):
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
    assert OneLine().format(record) == f"cronally: said {shown}"


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
        with logging_to(stream):
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
        with logging_to(stream):
            log.info("é")
        stream.seek(0)
        assert stream.read() == "cronally: \\xe9\n"
