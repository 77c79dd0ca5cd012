"""What the single executable runs: it mends what being unpacked changes for a program, and then is ``cronally``.

The executable is two processes. The first, PyInstaller's, unpacks Python and Cronally into a directory, starts the second,
which is this program, passes signals on to it, and removes the directory after it. A user knows the first alone:

1. When the first is killed, the second ends too: it is the daemon that ``kill -9`` was meant for.
2. A signal that reaches both (Ctrl-C, a stop by cgroup) comes here twice, and counts once.
3. Programs that are started from here (editors, ``credential_process``) find the environment that the user gave.
4. Nobody who cleans up temporary files takes the directory from a daemon that runs for weeks; what those have left that
   were killed goes when a daemon starts.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cronally.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable

HOME = Path(sys._MEIPASS)  # type: ignore[attr-defined] # noqa: SLF001 - what PyInstaller documents
MARK = "cronally/LICENSE"  # tells our directories from those of other programs that PyInstaller made
_PR_SET_PDEATHSIG = 1  # prctl(2)
_TWICE_S = 1.0  # passing on takes less than a millisecond, or as long as a busy machine keeps the first process waiting
_UNPACKING_S = 120.0  # a directory that young may be one that is still being filled


def _end_with_the_first() -> None:
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - on Linux alone

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        ours = Path("/proc/self/exe").readlink()
        is_orphan = Path(f"/proc/{os.getppid()}/exe").readlink() != ours
    except OSError:  # no /proc, or one that shows no other processes
        return
    if is_orphan:  # it was killed before we asked
        os._exit(128 + signal.SIGKILL)


def _take_signals_once() -> None:
    set_handler = signal.signal

    def once(handler: Callable[..., object]) -> Callable[..., object]:
        last = -_TWICE_S

        def handle(number: int, frame: Any) -> None:
            nonlocal last
            before, last = last, time.monotonic()
            if last - before >= _TWICE_S:
                handler(number, frame)

        return handle

    def replacement(number: int, handler: Any) -> Any:
        return set_handler(number, once(handler) if callable(handler) else handler)

    signal.signal = replacement  # type: ignore[assignment] # whoever sets a handler from now on
    signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT))


def _restore_environment() -> None:
    for name in [name for name in os.environ if name.startswith("_PYI_")]:
        del os.environ[name]
    for name in (
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
    ):  # the loader has read it; ours would mislead other programs
        before = os.environ.pop(f"{name}_ORIG", None)
        if before is not None:
            os.environ[name] = before
        elif os.environ.get(name) == str(HOME):
            del os.environ[name]


def _keep_directory() -> None:
    """Lock it for as long as we live: tmpfiles.d(5) leaves alone what is locked, and so do the others of our kind."""
    lock = os.open(HOME, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_SH)


def _remove_left_directories() -> None:
    for directory in HOME.parent.glob("_MEI*"):
        try:
            found = directory.lstat()
            if (
                directory == HOME
                or found.st_uid != os.getuid()
                or time.time() - found.st_mtime < _UNPACKING_S
                or not (directory / MARK).is_file()
            ):
                continue
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)
        except OSError:  # it is in use, or somebody else was quicker
            continue


sys.path.append(str(HOME / "zones.zip"))  # tzdata: see cronally.spec
_end_with_the_first()
_take_signals_once()
_restore_environment()
_keep_directory()
if sys.argv[1:2] == ["serve"]:
    _remove_left_directories()
code = main()
# Python gives up its handlers as it ends: the second of two signals would then make another end of it.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
sys.exit(code)
