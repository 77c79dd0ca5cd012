"""The judge of edits: what it lets pass and what it does not."""

from __future__ import annotations

import pytest

from cronally.domain.model import Fire, Kind, State
from cronally.engine.settle import unsent_entry
from support.edit_checker import Edit, edit_faults, is_calm, times
from support.edit_checker import Kind as Wish
from support.slot_lives import Life, Rest, Rule

T = 1_000_000
DAILY = {"when": "@daily", "topic": "t", "deadline": "1m30s"}


def asked(kind, began, answered=None, **fields):
    return Edit("a", kind, "m", began, answered, **fields)


def life(*rules, **fields):
    return Life(
        "a", [Rule(after, number, document) for number, (after, document) in enumerate(rules)], **fields
    )


def faults(lives, *edits, fires=(), through=T + 10**6):
    return edit_faults(lives, edits, [("a", row) for row in fires], through)


PUT = asked(Wish.PUT, T, T + 10, expects={"when": "@daily", "deadline": "90s"})
MADE = (T + 5, DAILY)


def test_what_was_answered_and_done_in_between_is_right_however_a_duration_is_written():
    assert faults([life(MADE)], PUT) == []


@pytest.mark.parametrize(
    ("lives", "edits"),
    [
        ([], [PUT]),
        ([life((T + 11, DAILY))], [PUT]),
        ([life((T + 5, {**DAILY, "when": "@hourly"}))], [PUT]),
        ([life(MADE)], [PUT, asked(Wish.RM, T + 20, T + 30)]),
        ([life(MADE)], [PUT, asked(Wish.PAUSE, T + 20, T + 30)]),
        ([life(MADE, rests=[Rest(T + 22)])], [PUT, asked(Wish.PAUSE, T + 20, T + 30), asked(Wish.RESUME, T + 40, T + 50)]),
    ],
    ids=["not made", "made later", "another rule", "not removed", "not paused", "not resumed"],
)  # fmt: skip
def test_what_was_answered_holds(lives, edits):
    assert any("does not hold" in wrong for wrong in faults(lives, *edits))


def test_what_was_not_answered_may_have_been_done_or_not():
    doubtful = [asked(Wish.PAUSE, T + 20), asked(Wish.RM, T + 40)]
    assert faults([life(MADE)], PUT, *doubtful) == []
    assert faults([life(MADE, rests=[Rest(T + 5_000)], removed_at=T + 9_000)], PUT, *doubtful) == []


def test_what_was_not_answered_is_done_soon_or_never():
    wrong = faults([life(MADE, removed_at=T + 500_000)], PUT, asked(Wish.RM, T + 40))
    assert [text.partition(" of ")[0] for text in wrong] == ["rm"]


def test_what_was_refused_is_not_done():
    assert faults([life(MADE, removed_at=T + 50)], PUT, asked(Wish.RM, T + 40, was_refused=True)) != []


def test_nothing_is_done_twice_or_unasked():
    twice = life(MADE, (T + 8, DAILY))
    assert len(faults([twice], PUT)) == 1
    assert len(faults([life(MADE, rests=[Rest(T + 20)])], PUT)) == 1


def test_a_pause_that_ends_by_itself_is_no_resume_and_one_that_ends_early_is():
    pause = asked(Wish.PAUSE, T + 20, T + 30)
    by_itself = Rest(T + 25, T + 7_000, T + 6_999)
    assert faults([life(MADE, rests=[by_itself])], PUT, pause) == []
    early = Rest(T + 25, T + 7_000, T + 3_000)
    assert len(faults([life(MADE, rests=[early])], PUT, pause)) == 1


def test_a_resume_of_what_is_not_paused_and_a_name_that_is_used_again_are_right():
    again = asked(Wish.PUT, T + 60, T + 70, expects=DAILY)
    lives = [life(MADE, removed_at=T + 50), life((T + 65, DAILY))]
    assert faults(lives, PUT, asked(Wish.RESUME, T + 20, T + 30), asked(Wish.RM, T + 40, T + 55), again) == []


def row(at, kind, **fields):
    return unsent_entry(Fire(1, 1, at, at, kind), State.PENDING)._replace(**fields)


def test_each_fire_that_was_asked_for_is_made_once():
    run = asked(Wish.RUN, T + 20, T + 30)
    first, second = row(T + 22, Kind.MANUAL), row(T + 24, Kind.MANUAL)
    assert faults([life(MADE)], PUT, run, fires=[first]) == []
    assert len(faults([life(MADE)], PUT, run, fires=[first, second])) == 1
    assert len(faults([life(MADE)], PUT, run, fires=[row(T + 40, Kind.MANUAL)])) == 1


def test_what_was_to_be_retried_was():
    retry = asked(Wish.RETRY, T + 20, T + 30, fires=["a@1970-01-01T00:16:40Z"])
    assert faults([life(MADE)], PUT, retry, fires=[row(T, Kind.SCHEDULED, asked_at=T + 25)]) == []
    assert len(faults([life(MADE)], PUT, retry, fires=[row(T, Kind.SCHEDULED)])) == 1


def test_only_what_no_trouble_touches_counts_as_away_from_faults():
    assert is_calm(10, 20, [(0, 9), (21, 30)])
    assert not is_calm(10, 20, [(20, 30)])
    lines = times([asked(Wish.RM, 10, 20), asked(Wish.RM, 10, 300), asked(Wish.RM, 10)], [(100, 200)])
    assert lines[0] == "edits 3, answered 2, refused 0, not known to be done 1"
    assert "1 edits: p50 10 ms" in lines[1]
    assert "1 edits: p50 290 ms" in lines[3]
