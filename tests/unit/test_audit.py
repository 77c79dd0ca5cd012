"""What ``make audit`` makes of what pip-audit says."""

from __future__ import annotations

import json
from subprocess import CompletedProcess

import pytest

from deploy import audit

KNOWN = {"name": "yarl", "version": "1.25.1", "vulns": []}
SKIPPED = {"name": "rich", "skip_reason": "Dependency not found on PyPI and could not be audited"}
VULNERABLE = {
    "name": "idna",
    "version": "3.20",
    "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["3.21"], "aliases": [], "description": ""}],
}


def said(*packages):
    return json.dumps({"dependencies": packages, "fixes": []})


@pytest.mark.parametrize(
    ("stdout", "stderr", "code", "words"),
    [
        (said(KNOWN), "", 0, "1 packages, 0 known vulnerabilities"),
        (said(KNOWN, VULNERABLE), "", 1, "idna 3.20: PYSEC-2026-1, fixed in 3.21"),
        (said(KNOWN, SKIPPED), "", 75, "it knows nothing of 1 of 2 packages, such as rich"),
        (said(VULNERABLE, SKIPPED), "", 75, "PYSEC-2026-1"),
        (
            "",
            "Traceback\nConnectionError: no route",
            75,
            "out of reach, so nothing is known: ConnectionError",
        ),
        ("", "", 75, "it said nothing"),
        (said(), "", 75, "it looked at no package"),
    ],
)
def test_nothing_known_and_not_knowing_are_told_apart(monkeypatch, capsys, stdout, stderr, code, words):
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: CompletedProcess([], 1, stdout, stderr))
    assert audit.main() == code
    out, err = capsys.readouterr()
    assert words in out + err
