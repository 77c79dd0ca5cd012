"""What kind of file system a store lies on, as far as that matters: locks and mapped memory must work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

# SQLite's log needs memory that all who have the file open share, which a network does not give (sqlite.org/wal.html).
NETWORK: Final = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse.ceph",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "smb3",
        "smbfs",
    }
)


def network_warning(path: str, *, mountinfo: str = "/proc/self/mountinfo") -> str | None:
    """Return what to tell an operator if the store at *path* lies on a network file system, else None.

    mountinfo: a file as proc(5) describes it; where there is none, nothing is said.
    """
    kind = filesystem_of(os.path.realpath(path), mountinfo)
    if kind not in NETWORK:
        return None
    return (
        f"the store {path} lies on a network file system ({kind}), where locks and the write-ahead log cannot be relied on: "
        "move it to a local disk and name that with --store"
    )


def filesystem_of(path: str, mountinfo: str) -> str | None:
    """Return the type of the file system that the real path *path* lies on, None if it cannot be told."""
    try:
        lines = Path(mountinfo).read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    found, kind = "", None
    for line in lines:
        mount, _, about = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) < 5 or not about:
            continue
        point = _unescaped(fields[4])
        # Of two at one place the later one is on top.
        if len(point) >= len(found) and (path == point or path.startswith(f"{point.rstrip('/')}/")):
            found, kind = point, about.split(" ")[0]
    return kind


def _unescaped(text: str) -> str:
    r"""Return a path as it is: mountinfo writes blanks, tabs, line ends and backslashes as ``\040``, say."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        text = text.replace(code, chr(int(code[1:], 8)))
    return text
