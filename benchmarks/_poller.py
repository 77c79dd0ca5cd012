"""Asks the admin socket every 20 ms, as a process of its own, and prints how long the answers took, as JSON.

It ends with its standard input.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import sys
import time

EVERY_S = 0.02
PATHS = ("/healthz", "/v1/status")


def main() -> None:
    socket_path = sys.argv[1]
    took: dict[str, list[float]] = {path: [] for path in PATHS}
    turn = 0
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(socket_path)
    print("polling", flush=True)
    while not select.select([sys.stdin], [], [], EVERY_S)[0]:
        path = PATHS[turn % len(PATHS)]
        turn += 1
        began = time.perf_counter()
        connection.request("GET", path)
        connection.getresponse().read()
        took[path].append((time.perf_counter() - began) * 1000)
    connection.close()
    print(
        json.dumps(
            {
                path: {"asked": len(each), "median_ms": sorted(each)[len(each) // 2], "max_ms": max(each)}
                for path, each in took.items()
            }
        )
    )


if __name__ == "__main__":
    main()
