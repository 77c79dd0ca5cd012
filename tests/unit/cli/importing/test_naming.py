import pytest
from hypothesis import given
from hypothesis import strategies as st

from cronally.cli.importing.naming import MAX_CHARS, Names, legal_name
from cronally.cli.importing.programs import name_of_command
from cronally.domain.spec import parse_name


@pytest.mark.parametrize(
    ("text", "expected"),
    [("backup", "backup"), ("schedule:run", "schedule-run"), ("odd fridays!", "odd-fridays"), ("-x", "x"), ("", "imported"),
     ("日本", "imported"), ("_a", "a"), ("prod.hello", "prod.hello"), ("a" * 80, "a" * 80)],
)  # fmt: skip
def test_legal_names(text, expected):
    assert legal_name(text) == expected


def test_a_long_name_ends_in_a_hash_so_that_two_stay_two():
    one, other = legal_name("a" * 90), legal_name("a" * 91)
    assert one != other
    assert (len(one), one[:20]) == (MAX_CHARS, "a" * 20)


def test_the_second_of_a_name_is_numbered_and_no_number_is_taken_twice():
    names = Names()
    assert [names.next(text) for text in ("a", "a", "a-2", "a", "b")] == ["a", "a-2", "a-2-2", "a-3", "b"]
    long = "x" * 80
    assert [len(names.next(long)) for _ in range(12)] == [80] * 12


@given(st.lists(st.text(max_size=100), max_size=30))
def test_names_are_legal_distinct_and_the_same_each_time(texts):
    def run():
        names = Names()
        return [names.next(text) for text in texts]

    found = run()
    assert len(set(found)) == len(found)
    assert [parse_name(name) for name in found] == found == run()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/local/bin/backup.sh -q", "backup"),
        ("cd / && run-parts --report /etc/cron.hourly", "cron.hourly"),
        ("test -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.daily; }", "cron.daily"),
        ("[ -x /usr/lib/php/sessionclean ] && if [ ! -d /run/systemd/system ]; then /usr/lib/php/sessionclean; fi", "sessionclean"),
        ("/usr/bin/php /var/www/artisan schedule:run >> /dev/null 2>&1", "schedule:run"),
        ("cd /srv/app && RAILS_ENV=production bundle exec rake reports:nightly", "reports:nightly"),
        ("test -e /run/systemd/system || SERVICE_MODE=1 /usr/lib/x86_64-linux-gnu/e2fsprogs/e2scrub_all_cron", "e2scrub_all_cron"),
        ("flock -n /tmp/x.lock /opt/report.py", "report"),
        ("test -x /usr/bin/certbot -a \\! -d /run/systemd/system && perl -e 'sleep int(rand(43200))' && certbot -q renew", "certbot"),
        ("sudo -u www-data php /var/www/nextcloud/cron.php", "cron"),
        ("mail -s 'It is 10pm' joe%Joe,%%Where are your kids?%", "mail"),
        ('echo "hi"', "echo"),
        ("true", "true"),
    ],
)  # fmt: skip
def test_a_command_is_called_by_its_program(command, name):
    assert name_of_command(command) == name


@given(st.text(max_size=200))
def test_every_command_has_a_name(command):
    assert name_of_command(command)
