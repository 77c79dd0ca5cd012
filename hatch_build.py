"""What a build of the wheel adds to the sources: the man pages, in ``share/man/man1`` of wherever it is installed."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManPages(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        sys.path.insert(0, str(Path(self.root, "src")))
        from cronally.cli.manual import write  # it is found there only now

        self._directory = TemporaryDirectory()
        write(Path(self._directory.name))
        build_data["shared_data"][self._directory.name] = "share/man/man1"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        self._directory.cleanup()
