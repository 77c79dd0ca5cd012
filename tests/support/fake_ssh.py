"""An ``ssh`` for a PATH: takes what ours is called with, and carries the socket of ``-L`` to another one of this machine.

FAKE_SSH_LOG: the file into which it writes its arguments, a JSON line each time, and "ended" when it is told to go.
FAKE_SSH_SAYS: what it says on stderr before it ends with status 255, without having made a way.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

WITH_VALUE = {"-L", "-S", "-o", "-p", "-l"}


def install(directory: Path) -> None:
    """Put it into *directory* as ``ssh``."""
    directory.mkdir(exist_ok=True)
    script = directory / "ssh"
    script.write_text(f"#!{sys.executable}\n{Path(__file__).read_text()}")
    script.chmod(0o755)


def parsed(arguments: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the options and the words behind them, as getopt(3) does."""
    options: dict[str, list[str]] = {}
    words = [*arguments]
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "--":
            break
        options.setdefault(word, []).append(words.pop(0) if word in WITH_VALUE else "")
    return options, words


def _carry(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _serve(local: str, remote: str) -> None:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(local)
    listening.listen()
    while True:
        near, _ = listening.accept()
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(remote)
        except OSError:
            sys.stderr.write("channel 2: open failed: connect failed: open failed\r\n")
            sys.stderr.flush()
            near.close()
            continue
        for ends in ((near, far), (far, near)):
            threading.Thread(target=_carry, args=ends, daemon=True).start()


def _main() -> None:
    def log(value: object) -> None:
        with Path(os.environ["FAKE_SSH_LOG"]).open("a") as file:
            file.write(f"{json.dumps(value)}\n")

    def end(*_: object) -> None:
        log("ended")
        os._exit(255)

    signal.signal(signal.SIGTERM, end)
    log(sys.argv[1:])
    sys.stdin.read()  # what a real one may do at any time
    said = os.environ.get("FAKE_SSH_SAYS")
    if said is not None:
        sys.stderr.write(said)
        sys.exit(255)
    options, _ = parsed(sys.argv[1:])
    local, _, remote = options["-L"][0].partition(":")
    _serve(local, remote)


if __name__ == "__main__":
    _main()
