"""What an import comes to, for tests of one schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cronally.cli.importing.planning import Choices, Item, Placed, plan

if TYPE_CHECKING:
    from cronally.cli.importing.found import Findings, Found
    from cronally.instants import UtcMs


def the_only(findings: Findings) -> Found:
    """Return the one schedule that was found, nothing being refused."""
    assert findings.refusals == []
    [found] = findings.found
    return found


def the_item(findings: Findings, now: UtcMs, **choices: Any) -> Item:
    """Return what becomes of the one schedule that was found."""
    [one] = plan([Placed("f", findings)], Choices(**choices), now).items
    return one
