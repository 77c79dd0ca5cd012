import pytest

from cronally.cli import second_opinion as opinions
from cronally.cli.explaining import explanation, explanation_text
from cronally.cli.second_opinion import Difference, Opinion, second_opinion
from cronally.domain.recurrence import Recurrence
from cronally.instants import parse_rfc3339, to_datetime

NOW = parse_rfc3339("2026-01-01T00:00:00Z")


def rule(when, tz="UTC", **choices):
    return Recurrence.parse(when, tz=tz, **choices)


def lines(*words, **choices):
    return explanation_text(explanation(rule(*words, **choices), NOW)).split("\n")


def test_a_fixed_rule_on_the_days_the_clocks_change():
    assert lines("30 1 * * *", "Europe/London") == [
        "At 01:30, every day, Europe/London time.",
        "",
        "fixed: it fires once for each of its local times, also on the days the clocks change.",
        "",
        "when the clocks change",
        "  01:30 does not exist on 2026-03-29 in Europe/London: the slot is at 02:00",
        "  01:30 comes twice on 2026-10-25 in Europe/London: a slot the first time only",
        "  01:30 does not exist on 2027-03-28 in Europe/London: the slot is at 02:00",
        "  01:30 comes twice on 2027-10-31 in Europe/London: a slot the first time only",
        "",
        "a tool built on croniter",
        "  Sun 2026-10-25 01:30:00 +00:00  2026-10-25T01:30:00Z  croniter fires, Cronally does not",
    ]


def test_a_wild_rule_with_remarks():
    text = lines("*/7 * 31 * *")
    assert text[2].startswith("wild: its minute or hour field begins with *")
    assert "  the clock of UTC does not change any more" in text
    assert any(line.startswith("  it never runs in February, April") for line in text)
    assert any(line.startswith("  */7 begins anew with each hour") for line in text)
    assert text[-1].startswith("  fires at the same instants for a year (the first slot of each day")


def test_a_warning_is_a_remark():
    codes = [remark["code"] for remark in explanation(rule("0 0 */2 * fri"), NOW)["remarks"]]
    assert codes == ["warning", "uneven-step"]


@pytest.mark.parametrize(
    ("when", "kind"), [("@every 90s", "every"), ("@at 2026-12-24T18:00", "at"), ("@hourly", "wild")]
)
def test_the_class_of_a_rule(when, kind):
    plain = explanation(rule(when, "Europe/London"), NOW)
    assert plain["class"] == kind
    assert bool(plain["dst_changes"]) == (kind == "wild")
    assert plain["means"].endswith(".")


def test_a_rule_is_told_from_its_start_on():
    starts = to_datetime(parse_rfc3339("2030-01-01T00:00:00Z"))
    plain = explanation(rule("30 1 * * *", "Europe/London", starts=starts), NOW)
    assert plain["dst_changes"][0]["at"] == "2030-03-31T01:00:00Z"
    assert plain["croniter"]["differences"] == [{"at": "2030-10-27T01:30:00Z", "fires": "croniter"}]


def test_what_both_choices_change_in_the_words():
    assert "on_repeat: both" in explanation(rule("30 1 * * *", on_repeat="both"), NOW)["class_means"]


@pytest.mark.parametrize(
    ("when", "choices", "part"),
    [
        ("@every 5m", {}, "no such rules"),
        ("@at 2026-12-24T18:00", {}, "no such rules"),
        ("0 0 9 ? * MON-FRI", {"dialect": "quartz"}, "quartz dialect"),
        ("0 9 ? * MON-FRI *", {"dialect": "eventbridge"}, "eventbridge dialect"),
        ("0 0 LW * *", {}, "cannot read it"),
        ("0 0 L-3 * *", {}, "cannot read it"),
        ("H H * * *", {"name": "a"}, "cannot read it"),
    ],
)
def test_rules_that_croniter_does_not_know_are_not_compared(when, choices, part):
    opinion = second_opinion(rule(when, **choices), NOW)
    assert part in opinion.refusal
    assert opinion.differences == ()


def test_the_first_three_differences_are_named():
    opinion = second_opinion(rule("0 0 */2 * fri"), NOW)
    days = ("2026-01-02", "2026-01-03", "2026-01-05")  # to croniter either day field will do
    assert [found.at for found in opinion.differences] == [parse_rfc3339(f"{day}T00:00:00Z") for day in days]
    assert not any(found.is_ours for found in opinion.differences)


@pytest.mark.parametrize("when", ["0 9 * * mon-fri", "@hourly", "*/15 * * * *", "0 0 1 * *", "0 0 29 2 *"])
def test_croniter_agrees_where_the_clock_stands(when):
    assert second_opinion(rule(when), NOW).differences == ()


def test_a_frequent_rule_is_compared_by_days_and_around_changes():
    opinion = second_opinion(rule("*/5 * */2 * fri", "Europe/London"), NOW)
    assert not opinion.is_whole
    assert len(opinion.differences) == 3


def test_slots_that_croniter_lacks_are_named_too(monkeypatch):
    monkeypatch.setattr(opinions, "_stepper", lambda _: lambda after: None if after > NOW else NOW + 1)
    found = second_opinion(rule("0 0 1 */6 *"), NOW)
    assert found.differences[:2] == (
        Difference(NOW + 1, is_ours=False),
        Difference(parse_rfc3339("2026-07-01T00:00:00Z"), is_ours=True),
    )


def test_a_croniter_that_stumbles_is_no_error(monkeypatch):
    def stumbling(_):
        asked = []

        def step(after):
            asked.append(after)
            if len(asked) > 2:
                raise IndexError("oops")
            return after + 1

        return step

    monkeypatch.setattr(opinions, "_stepper", stumbling)
    assert second_opinion(rule("0 0 * * *"), NOW).refusal == "croniter fails at it (IndexError: oops)"
    monkeypatch.setattr(opinions, "_stepper", lambda _: lambda after: NOW + 1)
    assert "does not move on" in second_opinion(rule("0 0 * * *"), NOW).refusal


def test_years_far_away_are_not_compared():
    far = parse_rfc3339("9999-06-01T00:00:00Z")
    assert second_opinion(rule("0 0 * * *"), far) == Opinion(
        refusal="croniter is not asked about years so far away"
    )
