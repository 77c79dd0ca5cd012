"""Settings: what may be written where, and what is said of a slip."""

from __future__ import annotations

import pytest

from cronally.config import MEANINGS, WHILE_RUNNING, load_config, reloaded, settings
from cronally.domain.durations import DAY_MS
from cronally.engine.retention import Keep
from cronally.errors import ConfigError


@pytest.fixture
def load(tmp_path):
    def loader(text="", environ=None, **flags):
        file = tmp_path / "cronally.toml"
        file.write_text(text)
        # A socket of its own: below a long TMPDIR the default one would not do.
        environ = {"HOME": str(tmp_path), "CRONALLY_SOCKET": "/run/x.sock", **(environ or {})}
        return load_config(environ, flags, config_file=str(file))

    return loader


def test_a_quota_is_what_aws_publishes_unless_it_is_named(load):
    config = load()
    assert config.sns_quota == {}
    assert config.sources["sns_quota"] == "default"


def test_quotas_are_a_table_of_the_file(load):
    config = load("[sns.quota]\nus-east-1 = 60000\neu-central-2 = 450.5\ndefault = 0\n")
    assert config.sns_quota == {"us-east-1": 60_000, "eu-central-2": 450.5, "default": 0}
    assert config.sources["sns_quota"].endswith("cronally.toml")


def test_quotas_may_stand_in_a_variable_that_beats_the_file(load):
    config = load("[sns.quota]\ndefault = 5\n", {"CRONALLY_SNS_QUOTA": "us-gov-west-1=300, default=0"})
    assert config.sns_quota == {"us-gov-west-1": 300, "default": 0}
    assert config.sources["sns_quota"] == "CRONALLY_SNS_QUOTA"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("east = 5", "sns.quota.east"),
        ("us-east-1 = -1", "sns.quota.us-east-1"),
        ("us-east-1 = 0.5", "0 or a number from 1 to 1,000,000"),
        ("us-east-1 = 2000000", "0 or a number from 1 to 1,000,000"),
        ("us-east-1 = nan", "0 or a number from 1 to 1,000,000"),
        ("us-east-1 = true", "0 or a number from 1 to 1,000,000"),
        ('us-east-1 = "many"', "'many' must be 0 or a number"),
    ],
)
def test_a_quota_that_is_none_is_refused(load, line, says):
    with pytest.raises(ConfigError, match=says):
        load(f"[sns.quota]\n{line}\n")


def test_topics_are_a_list_of_the_file_or_a_variable_and_all_without_one(load):
    here = "arn:aws:sns:us-east-1:123456789012:"
    assert load().sns_topics is None
    config = load(f'[sns]\ntopics = ["{here}reports*", "{here}mail", "{here}mail"]\n')
    assert config.sns_topics == (f"{here}reports*", f"{here}mail")
    config = load(f'[sns]\ntopics = ["{here}mail"]\n', {"CRONALLY_SNS_TOPICS": f"{here}a*, {here}b,"})
    assert config.sns_topics == (f"{here}a*", f"{here}b")
    assert config.sources["sns_topics"] == "CRONALLY_SNS_TOPICS"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "topics = []",
            "sns.topics from .*takes 1 to 1,000 topics and there are 0; leave it out to allow all",
        ),
        ('topics = ["*"]', "sns.topics from .*'\\*' is no pattern of topics; write the ARN of a topic"),
        ("topics = [5]", "5 is not text; write the ARN"),
        ("topics = 5", "must be a list such as"),
        ('topics = ","', "takes 1 to 1,000 topics and there are 0"),
        ('topic = ["a"]', "did you mean 'sns.topics'"),
    ],
)
def test_a_list_of_topics_that_is_none_is_refused(load, text, says):
    with pytest.raises(ConfigError, match=says):
        load(f"[sns]\n{text}\n")


def test_how_much_of_the_journal_is_kept_can_be_set(load):
    assert load().journal == Keep(keep_ms=30 * DAY_MS, max_bytes=2 << 30)
    config = load('[journal]\nkeep = "90d"\nmax_size = "500MiB"\n', {"CRONALLY_JOURNAL_KEEP": "1h"})
    assert config.journal == Keep(keep_ms=DAY_MS // 24, max_bytes=500 << 20)
    assert config.sources["journal_keep"] == "CRONALLY_JOURNAL_KEEP"
    assert config.sources["journal_max_size"].endswith("cronally.toml")
    assert load("", {"CRONALLY_JOURNAL_MAX_SIZE": "3 GiB"}).journal.max_bytes == 3 << 30


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('keep = "59m"', "journal.keep from .*'59m' must be 1h or more"),
        ('keep = "a month"', "journal.keep from .* is not a duration; write it as"),
        ("keep = 30", "journal.keep from .* must be text"),
        ('max_size = "2GB"', "journal.max_size from .*'2GB' is not a size; write it as 512MiB"),
        ('max_size = "15MiB"', "journal.max_size from .*must be 16 MiB or more"),
        ('size = "2GiB"', "journal.size from .*no such setting"),
    ],
)
def test_a_bound_of_the_journal_that_is_none_is_refused(load, line, says):
    with pytest.raises(ConfigError, match=says):
        load(f"[journal]\n{line}\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sns = 5", "the keys are store, .*sns.quota"),
        ("[sns]\nquote = 5", "did you mean 'sns.quota'"),
        ("[sns]\nquota = 5", "write REGION = messages a second"),
        ("loca = true", "did you mean 'local'"),
        ("sns_quota = 5", "did you mean 'sns.quota'"),
    ],
)
def test_an_unknown_setting_names_the_nearest(load, text, says):
    with pytest.raises(ConfigError, match=says):
        load(text)


def test_metrics_are_served_on_a_port_only_if_one_is_named(load):
    assert load().metrics_listen is None
    config = load('[metrics]\nlisten = "127.0.0.1:9464"\n')
    assert str(config.metrics_listen) == "127.0.0.1:9464"
    assert config.sources["metrics_listen"].endswith("cronally.toml")
    assert (
        load('[metrics]\nlisten = "[::1]:9464"\n', {"CRONALLY_METRICS_LISTEN": "off"}).metrics_listen is None
    )
    with pytest.raises(
        ConfigError, match=r"metrics\.listen from .*0\.0\.0\.0:9464' could be reached from other"
    ):
        load('[metrics]\nlisten = "0.0.0.0:9464"\n')


def test_a_group_for_readers_is_a_name(load):
    assert load().read_only_group is None
    assert load('read_only_group = "cronally-readers"').read_only_group == "cronally-readers"
    assert load(environ={"CRONALLY_READ_ONLY_GROUP": "staff"}).read_only_group == "staff"
    for name in ('""', '"a b"', '"-x"', '"a:b"', "7"):
        with pytest.raises(ConfigError, match="must be the name of a group"):
            load(f"read_only_group = {name}")


# --- settings that are read again -------------------------------------------------------------------------------------

OWN_SOCKET = {"CRONALLY_SOCKET": "", "XDG_RUNTIME_DIR": "/run/user/0"}
EVERYTHING = """
store = "sqlite:/srv/x.db"
socket = "/run/y.sock"
local = true
local_port = 5000
trust_clock = true
drain_timeout = "1m"
[sns]
topics = ["arn:aws:sns:us-east-1:123456789012:reports*"]
[sns.quota]
us-east-1 = 60000
[journal]
keep = "90d"
max_size = "3GiB"
"""


def test_what_can_change_while_it_runs_does_and_the_rest_waits_for_a_restart(load):
    running = load("", OWN_SOCKET)
    became = reloaded(running, load(EVERYTHING, OWN_SOCKET))
    assert [line.partition(":")[0] for line in became.applied] == [
        "sns.quota",
        "sns.topics",
        "journal.keep",
        "journal.max_size",
        "drain_timeout",
    ]
    assert [line.partition(":")[0] for line in became.waiting] == [
        "store",
        "socket",
        "local",
        "local_port",
        "trust_clock",
    ]
    assert became.applied[2].startswith("journal.keep: 30d -> 90d (from /")
    config = became.config
    assert (config.sns_quota, config.drain_timeout_s) == ({"us-east-1": 60_000}, 60)
    assert config.journal == Keep(keep_ms=90 * DAY_MS, max_bytes=3 << 30)
    assert config.sns_topics == ("arn:aws:sns:us-east-1:123456789012:reports*",)
    assert (config.store_path, config.socket, config.is_local) == (running.store_path, running.socket, False)
    assert config.sources["journal_keep"].endswith("cronally.toml")
    assert config.sources["local"] == "default"
    # What waits is said again each time, what is done is not.
    again = reloaded(config, load(EVERYTHING, OWN_SOCKET))
    assert (again.applied, again.waiting) == ((), became.waiting)


def test_settings_that_are_the_same_change_nothing(load):
    became = reloaded(load(EVERYTHING), load(EVERYTHING))
    assert (became.applied, became.waiting) == ((), ())


def test_a_setting_that_goes_returns_to_its_default(load):
    became = reloaded(load('[journal]\nkeep = "90d"\n'), load(""))
    assert became.applied == ("journal.keep: 90d -> 30d (from default)",)
    assert became.config.journal.keep_ms == 30 * DAY_MS


def test_each_setting_is_told_with_its_value_and_where_it_came_from(load, tmp_path):
    config = load(
        '[journal]\nkeep = "90d"\n[sns.quota]\nus-east-1 = 5\ndefault = 0\n',
        {"CRONALLY_DRAIN_TIMEOUT": "90s"},
        local=True,
    )
    told = {one.key: one for one in settings(config)}
    assert len(told) == len(MEANINGS)
    assert told["journal.keep"][1:] == ("90d", "file", str(tmp_path / "cronally.toml"))
    assert told["drain_timeout"][1:] == ("1m30s", "variable", "CRONALLY_DRAIN_TIMEOUT")
    assert told["local"][1:] == (True, "flag", "--local")
    assert told["journal.max_size"][1:] == ("2 GiB", "default", "default")
    assert told["sns.quota"].text == "us-east-1=5,default=0"
    assert (told["sns.topics"].value, told["sns.topics"].text, told["local"].text) == (None, "all", "true")


def test_what_is_told_of_a_setting_can_be_written_into_a_file(load):
    first = load(EVERYTHING)
    for one in settings(first):
        if one.value not in (None, {}):
            variable = f"CRONALLY_{one.key.replace('.', '_').upper()}"
            assert load("", {variable: one.text}).values == {
                **load("").values,
                one.key.replace(".", "_"): first.values[one.key.replace(".", "_")],
            }


def test_only_settings_are_taken_over_while_it_runs():
    assert set(WHILE_RUNNING) < set(MEANINGS)


def test_a_machine_among_several_may_be_given_a_name_of_its_own(load):
    assert load().machine is None
    assert load(environ={"CRONALLY_MACHINE": "rack-2.a"}).machine == "rack-2.a"


@pytest.mark.parametrize("name", ["two words", "-a", "a/b", "x" * 65])
def test_a_machine_is_not_called_what_no_host_could_be(load, name):
    with pytest.raises(ConfigError, match="machine"):
        load(environ={"CRONALLY_MACHINE": name})
