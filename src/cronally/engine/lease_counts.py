"""What became of the leases of a process that is one of several machines, over all its terms."""

from __future__ import annotations

from collections import Counter
from typing import Final


class LeaseCounts:
    """Attributes: renewed: heartbeats that were written, with a commit or without. failed: attempts to write one that the table did not answer, or refused for the time being.

    refused: writes that were refused for good, because another machine had written there since, by what they were to: ``REFUSED``.
    lost: leases that ended before their machine had left.
    """

    def __init__(self) -> None:
        self.renewed = 0
        self.failed = 0
        self.refused: Counter[str] = Counter()
        self.lost = 0


HEARTBEAT: Final = "heartbeat"
SHARD: Final = "shard"
REFUSED: Final = (HEARTBEAT, SHARD)
