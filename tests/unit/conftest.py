"""Properties are tried without a stopwatch: a busy machine is no failure. And on the same samples each time: a run
that fails, fails again.
"""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", deadline=None, derandomize=True)
settings.load_profile("unit")
