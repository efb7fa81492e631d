"""What the commands' arguments may be; argparse shows why one is refused."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol


class Commands(Protocol):
    """What argparse's add_subparsers gives."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser: ...


def count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("must lie between 1 and 1000")
    return number


def moment(text: str) -> datetime:
    """`90m`, `24h` and `7d` mean that long ago; or a time in ISO 8601, which is UTC where it says nothing else."""
    if found := re.fullmatch(r"(\d{1,5})([mhd])", text, re.ASCII):
        unit = {"m": "minutes", "h": "hours", "d": "days"}[found[2]]
        return datetime.now(UTC) - timedelta(**{unit: int(found[1])})
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be such as 90m, 24h, 7d or 2026-11-23T12:00:00Z") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
