"""Somebody who types commands and reads what is printed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cronally.cli.main import main

if TYPE_CHECKING:
    import pytest


class Terminal:
    """A daemon, and somebody at a terminal who types commands."""

    def __init__(self, daemon: Any, capsys: pytest.CaptureFixture[str]) -> None:
        self.daemon = daemon
        self.capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Return exit code, stdout, stderr."""
        self.capsys.readouterr()
        code = main([*words])
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    def ok(self, *words: str) -> str:
        code, out, err = self(*words)
        assert code == 0, err
        return out

    def json(self, *words: str) -> Any:
        return json.loads(self.ok(*words, "--json"))

    def bad(self, *words: str, code: int = 2) -> str:
        found, out, err = self(*words)
        assert found == code, (out, err)
        assert out == ""
        return err
