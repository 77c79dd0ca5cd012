"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says more of the machine than of the code; what must be fast is counted or benchmarked.
settings.register_profile("cronally", deadline=None)
settings.load_profile("cronally")
