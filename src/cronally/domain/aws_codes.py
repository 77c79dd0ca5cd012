"""Codes of errors that each AWS API has, and how they are spelled."""

from __future__ import annotations

from typing import Final

DENIED: Final = frozenset({"AccessDenied", "UnauthorizedOperation"})
"""A permission is lacking. As ``plain_code`` has them; an API may have others beside."""


def plain_code(code: str) -> str:
    """Return an error code as the query protocol has it: ``NotFound`` for ``com.amazonaws#NotFoundException``."""
    return code.rpartition("#")[2].rpartition(".")[2].removesuffix("Exception")
