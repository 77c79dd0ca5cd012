"""What a Containerfile says, as far as ours goes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

CONTAINERFILE = Path(__file__).parents[2] / "Containerfile"


class Stage:
    """What is from one FROM to the next. Attributes: image. said: each instruction's texts, by its name, in order."""

    def __init__(self, image: str) -> None:
        self.image = image
        self.said: dict[str, list[str]] = {}

    def words(self, name: str) -> list[str]:
        """Return the words of the one instruction of that name, in the form of a shell or in that of JSON."""
        [text] = self.said[name]
        start = text.find("[")
        return json.loads(text[start:]) if start >= 0 else shlex.split(text)

    @property
    def environment(self) -> dict[str, str]:
        return dict(text.split("=", 1) for text in self.said["ENV"])


def stages() -> list[Stage]:
    """Read the Containerfile. Errors: ValueError for an instruction that goes on in the next line."""
    found: list[Stage] = []
    for line in CONTAINERFILE.read_text().splitlines():
        name, _, text = line.partition(" ")
        if not name or name.startswith("#"):
            continue
        if text.endswith("\\") or not name.isupper():
            raise ValueError(f"one instruction a line: {line!r}")
        if name == "FROM":
            found.append(Stage(text))
        else:
            found[-1].said.setdefault(name, []).append(text)
    return found
