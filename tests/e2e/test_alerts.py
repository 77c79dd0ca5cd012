"""The installed daemon tells a topic of a schedule in trouble."""

from __future__ import annotations

import asyncio

import pytest

from support.fake_subscriptions import SubscribedSns

TASKS = "arn:aws:sns:us-east-1:123456789012:tasks"
ON_CALL = "arn:aws:sns:us-east-1:123456789012:on-call"


@pytest.mark.long
async def test_a_schedule_whose_messages_sns_rejects_is_told_of(installation):
    async with SubscribedSns() as sns:
        sns.topics[ON_CALL] = {}
        sns.faults.fail_entries = {"broken": ("InvalidParameter", True)}
        installation.receiver_url = sns.url
        installation.extra = {"CRONALLY_ALERTS_TOPIC": ON_CALL}
        await asyncio.to_thread(installation.start)
        with installation.client() as client:
            for name, message in (("bad", "broken"), ("good", "whole")):
                document = {"when": "@every 1s", "topic": TASKS, "message": message}
                await asyncio.to_thread(client.put, name, document)
        [alert] = await sns.wait_for_topic(ON_CALL)
        assert alert.message.startswith("bad fails: bad@")
        assert "was rejected: InvalidParameter" in alert.message
        assert "good" not in alert.message
        assert alert.attributes["cronally.alert"] == ("String", "failing")
        assert await asyncio.to_thread(installation.stop) == 0
