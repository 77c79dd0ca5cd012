"""The peer of ``burst``: APScheduler 3 and aiobotocore, put together as their documentations show.

One date job per message at one instant, each a ``publish`` of one client whose pool has 50 connections (botocore's default is
10). What would count against it for no fault of its own is out of the way: uvloop as in Cronally, no logging, the client
made ahead, and no job dropped for being late (its default lets a job go after one second).

Standard input has a line per run, the instant in Unix seconds; "armed" is printed once all jobs are there.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import logging
import sys
from typing import Any

import uvloop
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from benchmarks._harness import NAMES, TOPIC, message
from benchmarks._ledger import ACCESS_KEY, SECRET_KEY

CONNECTIONS = 50


async def serve(url: str, count: int) -> None:
    async with get_session().create_client(
        "sns",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=AioConfig(max_pool_connections=CONNECTIONS),
    ) as client:
        scheduler = AsyncIOScheduler(timezone=dt.UTC)
        scheduler.start()
        commands = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
        )
        while line := await commands.readline():
            instant = dt.datetime.fromtimestamp(int(line), dt.UTC)
            scheduler.pause()  # else it would look for work after every job
            for number in range(count):
                scheduler.add_job(
                    publish,
                    "date",
                    run_date=instant,
                    args=(client, number, f"{instant:%Y-%m-%dT%H:%M:%SZ}"),
                    misfire_grace_time=None,
                )
            scheduler.resume()
            print("armed", flush=True)


async def publish(client: Any, number: int, fire_time: str) -> None:
    name = NAMES.format(number)
    attributes = {
        "cronally.schedule": name,
        "cronally.fire_time": fire_time,
        "cronally.fire_id": f"{name}@{fire_time}",
        "team": "reports",
    }
    await client.publish(
        TopicArn=TOPIC,
        Message=message(number),
        MessageAttributes={
            key: {"DataType": "String", "StringValue": value} for key, value in attributes.items()
        },
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="APScheduler and aiobotocore, for comparison.")
    parser.add_argument("--url", required=True)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    logging.disable()
    uvloop.run(serve(options.url, options.count))


if __name__ == "__main__":
    main()
