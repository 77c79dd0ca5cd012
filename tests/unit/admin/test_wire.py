import json

import pytest

from cronally import errors
from cronally.admin import wire
from cronally.admin.answer_types import keys_of
from cronally.admin.answers import _DEFAULTS
from cronally.domain.spec import DOCUMENT_KEYS, from_document

ERRORS = [
    errors.UsageError("no"),
    errors.WhenError("61 is out of range", hint="write 0 to 59", field="minute", column=1),
    errors.ZoneError("Lndon", suggestion="Europe/London"),
    errors.FieldError("topic", "is missing"),
    errors.ConfigError("store", "--store", "must be text"),
    errors.ScheduleNotFound("a", suggestion="b"),
    errors.Conflict("exists"),
    errors.RevisionConflict("a", expected=1, found=2),
    errors.StoreBusy("busy"),
    errors.StoreFull("full"),
    errors.StoreCorrupt("/x", "page 3"),
    errors.NotReady("starting"),
    errors.InternalError("a bug"),
    errors.CronallyError("failed"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_arrives_as_what_it_was(error):
    plain = json.loads(json.dumps(wire.error_to_plain(error)))["error"]
    again = wire.error_from_plain(plain)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.exit_code == error.exit_code == plain["exit_code"]
    assert again.is_retryable == error.is_retryable == plain["retryable"]
    assert vars(again) == vars(error)


@pytest.mark.parametrize(
    ("exit_code", "kind"),
    [
        (2, errors.UsageError),
        (3, errors.AdminError),
        (4, errors.ScheduleNotFound),
        (5, errors.Conflict),
        (70, errors.InternalError),
        (1, errors.CronallyError),
        (99, errors.CronallyError),
        (None, errors.CronallyError),
    ],
)
def test_an_error_of_a_later_version_keeps_its_message_and_exit_code(exit_code, kind):
    again = wire.error_from_plain({"kind": "Novelty", "message": "what is new", "exit_code": exit_code})
    assert type(again) is kind
    assert str(again) == "what is new"


@pytest.mark.parametrize("kind", ["Exception", "SystemExit", "annotations", "", None, "TYPE_CHECKING"])
def test_only_our_own_errors_are_raised(kind):
    again = wire.error_from_plain({"kind": kind, "message": "m", "exit_code": 1})
    assert type(again) is errors.CronallyError


def test_answers_survive_the_way():
    schedule = wire.Schedule(name="a", when="@daily", tz="UTC", topic="t", tags=["x"], attributes={"k": "v"})
    fire = wire.Fire(fire_id="a@x", schedule="a", fire_time="x", kind="scheduled", state="published")
    for answer in (
        schedule,
        wire.SchedulesPage(schedules=[schedule, schedule], next="b", now="n"),
        wire.PutReply(outcome="created", schedule=schedule),
        wire.PauseReply(schedule=schedule, pending=3),
        wire.RemoveReply(name="a", pending=0),
        wire.FiresPage(fires=[fire], next=None),
        wire.ApplyReply(problems=[wire.Problem(line=1, reason="r", name=None)], problem_count=1),
    ):
        plain = json.loads(json.dumps(wire.to_plain(answer)))
        assert wire.from_plain(type(answer), plain) == answer


def test_keys_that_a_later_version_adds_are_left_out():
    assert wire.from_plain(wire.RunReply, {"fire_id": "a@x", "novelty": 1}) == wire.RunReply(fire_id="a@x")


@pytest.mark.parametrize("plain", [{}, [], None, "text", {"name": "a"}])
def test_an_answer_that_lacks_keys_is_refused(plain):
    with pytest.raises(errors.AdminError, match="not understood"):
        wire.from_plain(wire.RemoveReply, plain)


@pytest.mark.parametrize("theirs", [None, "2", "", "1.0", "x" * 1000])
def test_another_version_is_refused_with_both_named(theirs):
    with pytest.raises(errors.WireVersionMismatch, match="version 1;") as caught:
        wire.check_version(theirs)
    assert caught.value.exit_code == 3
    assert len(str(caught.value)) < 300


def test_a_schedule_travels_with_every_key_of_a_file():
    assert set(DOCUMENT_KEYS) <= set(keys_of(wire.Schedule))
    assert {*keys_of(wire.Schedule)} - {*DOCUMENT_KEYS} == {*wire.STATE_KEYS} - {"paused"}


def test_the_defaults_written_out_are_the_defaults():
    plain = {"when": "@daily", "topic": "arn:aws:sns:us-east-1:123456789012:t"}
    written = {key: value for key, value in _DEFAULTS.items() if key not in plain}
    assert from_document("a", plain | written) == from_document("a", plain)
    assert set(_DEFAULTS) == set(DOCUMENT_KEYS) - {"paused"}
