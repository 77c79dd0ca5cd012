"""How much of the daemon one client, or all of them together, may take: the numbers behind docs/limits.md.

Generous to whoever means well, and small beside what firing needs. The size of a body and of a page are in ``wire``,
because the client knows them, too.
"""

from __future__ import annotations

import resource
from typing import Final

# --- connections ----------------------------------------------------------------------------------------------------

MAX_CONNECTIONS: Final = 256  # at once, or fewer: see ``connection_limit``
MAX_READERS: Final = 24  # connections to the socket for reading alone, beside those; fewer than may listen
_SHARE_OF_DESCRIPTORS: Final = (
    4  # a quarter; publishing has up to 256 connections to a region, the store some files
)
IDLE_S: Final = 60.0  # a connection without a whole request this long is closed
MAX_HEADERS: Final = 64  # our client sends five
MAX_LINE_BYTES: Final = 8_190  # of the request line, and of one header; what web servers take
READ_AHEAD_BYTES: Final = 65_536  # twice as much waits in memory for its reader, then the client has to wait

MAX_METRICS_CONNECTIONS: Final = 8  # on the port for metrics, where anybody on the machine may come
METRICS_PACE_S: Final = 0.01  # between two requests there: 100 a second take a twelfth of a core

# --- requests -------------------------------------------------------------------------------------------------------

BODY_S: Final = 30.0  # in which a whole body has to come
ANSWER_S: Final = 30.0  # in which a whole answer has to be taken
MAX_HELD_BYTES: Final = (
    67_108_864  # of bodies of requests not yet done and answers not yet taken, all together
)
SMALL_BYTES: Final = (
    65_536  # a body or an answer up to here is not refused for it: with 256 connections 16 MiB
)
READS_AT_ONCE: Final = (
    2  # requests that read; others wait their turn, so that one pass of the loop stays short
)
CHANGES_AT_ONCE: Final = 2  # one is being made, one is read meanwhile
MAX_FIRES: Final = 1_000  # slots one answer names
MAX_PAGE_BYTES: Final = 4_194_304  # a page of long messages ends here
EVENTS_QUIET_S: Final = (
    10.0  # then those who listen are told that there is nothing, and we learn whether they are there
)
STOP_S: Final = 15.0  # for requests in hand when the daemon stops

# --- apply ----------------------------------------------------------------------------------------------------------

MAX_APPLIES: Final = 4  # at once; one is made, the others wait
MAX_APPLY_BYTES: Final = 4_294_967_296
MAX_APPLY_LINES: Final = 2_000_000  # twice the schedules a daemon is made for
MAX_LINE_LOOKED_AT_BYTES: Final = 16_777_216  # a line that goes on after this ends the apply, not only itself
APPLY_AHEAD_BYTES: Final = (
    4_194_304  # read before other changes have to wait: 13,000 schedules of the usual size
)
APPLY_STALL_S: Final = 60.0  # in which something more has to come until then
APPLY_PACE_S: Final = 10.0  # and in which READ_AHEAD_BYTES more have to come from then on


def connection_limit() -> int:
    """Return how many connections the admin socket takes at once: the rest of the descriptors is for publishing."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(8, min(MAX_CONNECTIONS, most // _SHARE_OF_DESCRIPTORS))
