"""Settings: what may be written where, and what is said of a slip."""

from __future__ import annotations

import pytest

from cronally.config import load_config
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
