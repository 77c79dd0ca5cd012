"""Crontabs as they are found on machines: Debian's own, and what people write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronally.cli.importing.crontab import split_percent, translate
from cronally.cli.importing.planning import Choices, Placed, plan
from cronally.instants import parse_rfc3339

DEBIAN = """\
# /etc/crontab: system-wide crontab
# Unlike any other crontab you don't have to run the `crontab'
# command to install the new version when you edit this file

SHELL=/bin/sh
# You can also override PATH, but by default, newer versions inherit it from the environment
#PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

# Example of job definition:
# .---------------- minute (0 - 59)
# |  .------------- hour (0 - 23)
# |  |  .---------- day of month (1 - 31)
# |  |  |  .------- month (1 - 12) OR jan,feb,mar,apr ...
# |  |  |  |  .---- day of week (0 - 6) (Sunday=0 or 7) OR sun,mon,tue,wed,thu,fri,sat
# |  |  |  |  |
# *  *  *  *  * user-name command to be executed
17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly
25 6\t* * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }
47 6\t* * 7\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.weekly; }
52 6\t1 * *\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.monthly; }
#
"""

SYSSTAT = """\
# The first element of the path is a directory where the debian-sa1
# script is located
PATH=/usr/lib/sysstat:/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin

# Activity reports every 10 minutes everyday
5-55/10 * * * * root command -v debian-sa1 > /dev/null && debian-sa1 1 1

# Additional run at 23:59 to rotate the statistics file
59 23 * * * root command -v debian-sa1 > /dev/null && debian-sa1 60 2
"""

USERS = r"""
MAILTO="ops@example.com"
CRON_TZ=Europe/London
# run five minutes after midnight, every day
5 0 * * *       $HOME/bin/daily.job >> $HOME/tmp/out 2>&1
# run at 10 pm on weekdays, annoy Joe
0 22 * * 1-5    mail -s "It's 10pm" joe%Joe,%%Where are your kids?%
23 0-23/2 * * * echo "run 23 minutes after midn, 2am, 4am \% ..., everyday"
CRON_TZ=
-@daily /opt/quiet
@reboot /opt/agent
"""


def found(text, *, has_users=False, tz="UTC"):
    return translate(text, has_users=has_users, tz=tz)


def documents(text, **options):
    findings = found(text, **options)
    assert findings.refusals == []
    return [one.document for one in findings.found]


def only(text, **options):
    [document] = documents(text, **options)
    return document


def refusal(text, **options):
    findings = found(text, **options)
    assert findings.found == []
    [one] = findings.refusals
    return one


def test_debians_own():
    findings = found(DEBIAN, has_users=True)
    assert [(one.line, one.name, one.document["when"]) for one in findings.found] == [
        (17, "cron.hourly", "17 * * * *"), (18, "cron.daily", "25 6 * * *"), (19, "cron.weekly", "47 6 * * 7"), (20, "cron.monthly", "52 6 1 * *"),
    ]  # fmt: skip
    first = findings.found[0].document
    assert first["message"] == "cd / && run-parts --report /etc/cron.hourly"
    assert first["attributes"] == {"crontab.user": "root"}
    assert "note" not in first  # the drawing of the fields is not about it
    assert next((line, text.partition(":")[0]) for line, text in findings.remarks) == (5, "SHELL=/bin/sh")


def test_a_comment_right_above_is_the_note():
    first, second = documents(SYSSTAT, has_users=True)
    assert first["note"] == "Activity reports every 10 minutes everyday"
    assert second["note"] == "Additional run at 23:59 to rotate the statistics file"
    assert first["message"] == "command -v debian-sa1 > /dev/null && debian-sa1 1 1"


def test_the_example_of_the_manual():
    findings = found(USERS, tz="Asia/Tokyo")
    daily, joe, echo, quiet = (one.document for one in findings.found)
    assert (daily["tz"], joe["tz"], quiet["tz"]) == ("Europe/London", "Europe/London", "Asia/Tokyo")
    assert daily["message"] == "$HOME/bin/daily.job >> $HOME/tmp/out 2>&1"
    assert (joe["message"], joe["attributes"]) == (
        'mail -s "It\'s 10pm" joe', {"crontab.stdin": "Joe,\n\nWhere are your kids?\n"},
    )  # fmt: skip
    assert echo["message"] == 'echo "run 23 minutes after midn, 2am, 4am % ..., everyday"'
    assert (quiet["when"], quiet["message"]) == ("@daily", "/opt/quiet")
    assert any("standard input" in text for text in findings.found[1].differs)
    assert any("system's log" in text for text in findings.found[3].remarks)
    assert [line for line, *_ in findings.refusals] == [11]
    said = {text.partition(":")[0]: text for _, text in findings.remarks}
    assert "mailed the output" in said["MAILTO=ops@example.com"]
    assert "Debian's cron ignores it" in said["CRON_TZ=Europe/London"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [("a", ("a", None)), ("a%b", ("a", "b")), ("a%b%c", ("a", "b\nc")), (r"a\%b", ("a%b", None)), (r"date +\%F%x\%y", ("date +%F", "x%y")),
     ("a%", ("a", "")), ("%a", ("", "a"))],
)  # fmt: skip
def test_percent(command, expected):
    assert split_percent(command) == expected


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("@reboot /opt/agent", "@reboot is no time"),
        ("* * * * *", "must follow the rule"),
        ("0 5 * * 1 ", "must follow the rule"),
        ("0~30 4 * * * x", "write H"),
        ("0 4 L * * x", "cron itself refuses"),
        ("0 4 ? * 1 x", "cron itself refuses"),
        ("H 4 * * * x", "cron itself refuses"),
        ("0 4 15W * * x", "cron itself refuses"),
        ("0 4 * * friL x", "cron itself refuses"),
        ("hello world", "no variable, comment or rule"),
        ("* * * * * %x", "empty"),
    ],
)
def test_what_cannot_be_imported_says_why(line, part):
    assert part in refusal(f"{line}\n").reason


def test_a_user_without_a_command():
    assert "user and command" in refusal("* * * * * root\n", has_users=True).reason


@pytest.mark.parametrize(
    ("line", "part"),
    [("22-2 * * * * x", "22-59"), ("0 0 30 2 * x", "no date ever matches"), ("61 * * * * x", "out of range"), ("@fortnightly x", "not known"),
     ("@Daily x", "small letters"), ("5/15 * * * * x", "5-59/15")],
)  # fmt: skip
def test_what_our_rules_refuse_is_not_importable(line, part):
    planned = plan([Placed("f", found(f"{line}\n"))], Choices(), parse_rfc3339("2026-11-24T00:00:00Z"))
    assert planned.items == []
    [(place, one)] = planned.refused
    assert (place, one.line) == ("f", 1)
    assert part in one.reason


def planned(text, now="2026-11-24T00:00:00Z", **choices):
    [item] = plan(
        [Placed("f", found(text, tz="America/New_York"))], Choices(**choices), parse_rfc3339(now)
    ).items
    return item


@pytest.mark.parametrize(
    "rule",
    ["*/5 * * * *", "0 9 * * mon-fri", "0 0 13 * fri", "0 0 */2 * fri", "30 2 * * *", "30 1 * * *", "15 * * * *", "*/30 1,2 * * *",
     "@hourly", "@daily", "@weekly", "@monthly", "@yearly", "0 0 29 2 *", "0 0 * * 5-7", "0 0 * * sat-sun", "0 0 */1 * fri",
     "0 12 1,15 */3 *", "5 4 * * *,5"],
)  # fmt: skip
def test_what_debian_runs_keeps_its_fires(rule):
    item = planned(f"{rule} x\n")
    assert item.found.old is not None
    assert all(fire.is_old and fire.is_ours for fire in item.comparison.next_fires)
    assert item.comparison.later == ()
    assert item.comparison.failure is None


def test_the_nth_weekday_that_debian_ignores_is_marked_fire_by_fire():
    item = planned("0 4 * * 1#2 x\n")
    assert "every week" in item.differs[0]
    assert [fire.is_ours for fire in item.comparison.next_fires[:3]] == [False, False, True]


def test_an_unknown_zone_is_asked_for_once():
    remarks = found("0 1 * * * a\n0 2 * * * b\n", tz=None).remarks
    assert [text.count("--tz ZONE") for _, text in remarks] == [1]
    assert found("0 1 * * * a\n", tz="UTC").remarks == []
    assert documents("0 1 * * * a\n", tz=None)[0]["tz"] == "UTC"


def test_a_user_column_that_was_not_expected_is_noticed():
    text = "0 1 * * * root /a\n0 2 * * * root /b\n"
    assert any("--system" in said for _, said in found(text).remarks)
    assert not any("--system" in said for _, said in found(text, has_users=True).remarks)


def test_lines_that_end_as_windows_ends_them_and_a_last_one_that_does_not_end():
    findings = found("0 1 * * * a\r\n")
    assert findings.found[0].document["message"] == "a"
    assert "CR LF" in findings.remarks[0].text
    assert "last line" in found("0 1 * * * a").remarks[0].text


@pytest.mark.parametrize(
    "comment",
    [
        "# m h  dom mon dow   command",
        "#0 4 * * * /old",
        "#",
        "# .--- minute",
        "# *  *  *  *  * user command",
        "#@daily x",
        "#PATH=/bin",
    ],
)
def test_what_is_no_remark_about_the_line_is_no_note(comment):
    assert "note" not in only(f"{comment}\n0 1 * * * a\n")


def test_a_comment_belongs_to_one_line_only_and_fits():
    assert ["note" in document for document in documents("# x\n0 1 * * * a\n0 2 * * * b\n# y\n\n0 3 * * * c\n")] == [
        True, False, False,
    ]  # fmt: skip
    assert len(only(f"# {'long ' * 200}\n0 1 * * * a\n")["note"]) == 500


FIELDS = [
    st.sampled_from(("*", "*/5", "0", "1,31", "5-55/10", "59")),
    st.sampled_from(("*", "*/2", "0", "9-17", "23", "3,15")),
    st.sampled_from(("*", "*/2", "1", "13", "1-7", "28,29")),
    st.sampled_from(("*", "*/3", "1", "jan-mar", "12")),
    st.sampled_from(("*", "*/2", "0", "7", "mon-fri", "sat,SUN", "5-7", "1#2")),
]
RULES = st.one_of(
    st.tuples(*FIELDS).map(" ".join),
    st.sampled_from(("@daily", "@hourly", "@reboot", "@monthly", "@nonsense")),
)
COMMANDS = st.text(st.characters(codec="utf-8", exclude_characters="\n\0"), max_size=40)
LINES = st.one_of(
    st.tuples(RULES, COMMANDS).map(" ".join),
    st.tuples(st.sampled_from("ABC"), COMMANDS).map("=".join),
    COMMANDS.map(lambda text: f"#{text}"),
    COMMANDS,
)


@given(st.lists(LINES, max_size=8), st.booleans())
def test_every_line_becomes_a_schedule_or_has_a_reason(lines, has_users):
    text = "\n".join(lines) + "\n"
    findings = translate(text, has_users=has_users, tz="Europe/London")
    result = plan([Placed("f", findings)], Choices(), parse_rfc3339("2026-11-24T00:00:00Z"))
    made = [item.found.line for item in result.items]
    refused = [one.refusal.line for one in result.refused]
    assert len(set(made + refused)) == len(made + refused)
    told = {*made, *refused, *(line for line, _ in findings.remarks)}
    for number, line in enumerate(text.split("\n")[:-1], 1):
        assert number in told or not line.strip(" \t\r") or line.strip(" \t\r").startswith("#"), line
    assert all(one.refusal.reason for one in result.refused)
