"""How much memory there is."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def available_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes this process may still take: what Linux calls available, or what its cgroups leave; None elsewhere."""
    found: list[int] = []
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/meminfo").read_text().splitlines()
        found.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10)
    with suppress(OSError, ValueError):
        if (
            not found
        ):  # a service with ProcSubset=pid does not see that file: take it that half of the machine's is
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    for group in _own_cgroups(root):
        with suppress(OSError, ValueError):
            limit = int((group / "memory.max").read_text())  # "max" where there is none
            found.append(max(0, limit - int((group / "memory.current").read_text())))
    return min(found, default=None)


def _own_cgroups(root: Path) -> Iterator[Path]:
    """Yield the directories of the cgroup of this process and those above it; in a container the root is its own."""
    groups = root / "sys/fs/cgroup"
    own = "/"
    with suppress(OSError):
        own = (root / "proc/self/cgroup").read_text().rpartition("::")[
            2
        ].strip() or "/"  # cgroups(7): 0::/PATH
    group = groups / own.lstrip("/")
    yield group
    yield from (above for above in group.parents if above.is_relative_to(groups))
