"""What the commands' arguments may be; argparse shows why one is refused."""

from __future__ import annotations

import argparse
from typing import Any, Protocol


class Commands(Protocol):
    """What argparse's add_subparsers gives."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser: ...


def count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("must lie between 1 and 1000")
    return number
