"""What the tests share: waiting for a condition, and never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_Value = TypeVar("_Value")


def eventually(check: Callable[[], _Value], *, timeout: float = 20.0, every: float = 0.05) -> _Value:
    """The first truthy value that `check` returns; fails with its last one after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"Not within {timeout:.0f} s; the last value was {value!r}.")
        time.sleep(every)
