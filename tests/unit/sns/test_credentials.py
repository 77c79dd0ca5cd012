"""The chain is asked ahead and in the background; whoever signs gets what is held."""

from __future__ import annotations

import asyncio

import pytest

from cronally.errors import CredentialsInvalid
from cronally.sns.credentials import Credentials
from support.fake_clock import FakeClock


def write_keys(path, key, profile="default"):
    (path / "credentials").write_text(
        f"[{profile}]\naws_access_key_id = {key}\naws_secret_access_key = secret-of-{key}\n"
    )


async def signing_key(credentials):
    found = await credentials.session.get_credentials()
    frozen = await found.get_frozen_credentials()
    return frozen.access_key, frozen.secret_key


class SleepySource:
    """A source of credentials that answers when it is told to."""

    def __init__(self):
        self.asked = asyncio.Event()
        self.go_on = asyncio.Event()

    async def get_frozen_credentials(self):
        self.asked.set()
        await self.go_on.wait()
        raise OSError("the metadata service is gone")


async def test_the_environment_is_found(aws_files, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    credentials = Credentials(FakeClock())
    assert not credentials.is_resolved
    await credentials.start()
    assert credentials.is_resolved
    assert await signing_key(credentials) == ("AKIDENV", "hidden")


async def test_a_profile_is_found(aws_files):
    write_keys(aws_files, "AKIDPROFILE", "team")
    credentials = Credentials(FakeClock(), profile="team")
    await credentials.start()
    assert (await signing_key(credentials))[0] == "AKIDPROFILE"


async def test_no_credentials_say_what_to_do(aws_files):
    credentials = Credentials(FakeClock())
    with pytest.raises(
        CredentialsInvalid, match=r"no AWS credentials were found; set AWS_PROFILE, or .* --local"
    ):
        await credentials.start()
    assert credentials.error
    assert not credentials.is_resolved


async def test_an_unknown_profile_is_named(aws_files):
    write_keys(aws_files, "AKID")
    credentials = Credentials(FakeClock(), profile="nobody")
    with pytest.raises(CredentialsInvalid, match="nobody"):
        await credentials.start()


async def test_half_a_pair_of_keys_is_explained(aws_files):
    (aws_files / "credentials").write_text("[default]\naws_access_key_id = AKID\n")
    with pytest.raises(CredentialsInvalid, match="aws_secret_access_key"):
        await Credentials(FakeClock()).start()


async def turns():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_refused_credentials_are_read_again_and_not_more_than_once_in_five_seconds(aws_files):
    clock = FakeClock()
    write_keys(aws_files, "OLD")
    credentials = Credentials(clock)
    await credentials.start()
    running = asyncio.create_task(credentials.run())
    write_keys(aws_files, "NEW")
    await turns()
    assert (await signing_key(credentials))[0] == "OLD"
    credentials.refresh_soon()
    await turns()
    assert (await signing_key(credentials))[0] == "NEW"
    write_keys(aws_files, "NEWER")
    credentials.refresh_soon()
    await turns()
    assert (await signing_key(credentials))[0] == "NEW"
    await clock.advance(5)
    await turns()
    assert (await signing_key(credentials))[0] == "NEWER"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_credentials_that_come_later_are_found_by_the_next_look(aws_files):
    clock = FakeClock()
    credentials = Credentials(clock)
    with pytest.raises(CredentialsInvalid):
        await credentials.start()
    running = asyncio.create_task(credentials.run())
    await turns()
    write_keys(aws_files, "LATE")
    await clock.advance(60)
    await turns()
    assert (await signing_key(credentials))[0] == "LATE"
    assert credentials.error is None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_signing_never_waits_for_the_chain_and_a_failed_refresh_keeps_the_old_ones(aws_files):
    clock = FakeClock()
    write_keys(aws_files, "HELD")
    credentials = Credentials(clock)
    await credentials.start()
    credentials._source = source = SleepySource()
    running = asyncio.create_task(credentials.run())
    await turns()
    await clock.advance(60)
    await source.asked.wait()
    assert (await signing_key(credentials))[0] == "HELD"
    source.go_on.set()
    await turns()
    assert (await signing_key(credentials))[0] == "HELD"
    assert "the metadata service is gone" in credentials.error
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_fixed_ones_never_look_at_the_chain(aws_files, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    credentials = Credentials.fixed(FakeClock(), "DUMMY", "dummy")
    await credentials.start()
    assert await signing_key(credentials) == ("DUMMY", "dummy")


def test_it_tells_whether_they_can_be_used_and_until_when():
    assert Credentials(FakeClock()).state() == (False, None)
    held = Credentials.fixed(FakeClock(), "AKIDEXAMPLE", "secret")
    assert held.state() == (True, None)
    held.error = "the role is gone"
    assert not held.state().is_usable
