from __future__ import annotations

import logging
import os
import select

import pytest

from cronally.log import PatientHandler


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def handler_on(descriptor):
    handler = PatientHandler(descriptor)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


def say(handler, text):
    handler.handle(logging.makeLogRecord({"msg": text}))


def fill(descriptor):
    room = select.poll()
    room.register(descriptor, select.POLLOUT)
    while room.poll(0):
        os.write(descriptor, b"x" * select.PIPE_BUF)


def test_a_line_is_written_where_there_is_room(pipe):
    say(handler_on(pipe[1]), "fünf")
    assert os.read(pipe[0], 100).decode() == "fünf\n"


def test_what_finds_no_room_is_dropped_at_once_and_counted_in_the_next_line(pipe):
    handler = handler_on(pipe[1])
    fill(pipe[1])
    say(handler, "one")
    say(handler, "two")
    while select.select([pipe[0]], [], [], 0)[0]:
        assert set(os.read(pipe[0], 65_536)) == {ord("x")}
    say(handler, "three")
    say(handler, "four")
    said = os.read(pipe[0], 1_000).decode()
    assert said == "cronally: lines of the log that nobody took: 2\nthree\nfour\n"


def test_a_long_line_is_written_as_far_as_there_is_room(pipe):
    handler = handler_on(pipe[1])
    say(handler, "y" * 1_000_000)
    say(handler, "more")
    assert len(os.read(pipe[0], 1_000_000)) <= 65_536


def test_a_reader_that_has_gone_is_as_one_that_does_not_read(capfd):
    reader, writer = os.pipe()
    handler = handler_on(writer)
    os.close(reader)
    say(handler, "one")
    os.close(writer)
    assert capfd.readouterr() == ("", "")
