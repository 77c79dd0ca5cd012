"""What carries messages is tested on asyncio's own loop and on the one the daemon uses."""

from __future__ import annotations

import asyncio
import sys

ON_BOTH_LOOPS = {"test_lane", "test_lane_routes", "test_publisher_aws"}


def pytest_asyncio_loop_factories(config, item):
    factories = {"asyncio": asyncio.new_event_loop}
    if item.path.stem in ON_BOTH_LOOPS and sys.platform == "linux":
        import uvloop

        factories["uvloop"] = uvloop.new_event_loop
    return factories
