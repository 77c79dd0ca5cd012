"""Stands in for crontab(1): the user's crontab is a file in $HOME."""

from __future__ import annotations

import sys
from pathlib import Path


def main(words: list[str]) -> int:
    kept = Path.home() / "crontab"
    match words:
        case ["-l"] if kept.exists():
            print(kept.read_text(), end="")
        case ["-r"] if kept.exists():
            kept.unlink()
        case [file] if not file.startswith("-"):
            kept.write_text(Path(file).read_text())
        case _:
            print("no crontab, or words that nobody has taught this one", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
