"""What the commands' arguments may be; argparse shows why one is refused."""

from __future__ import annotations

import argparse
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlsplit


class Commands(Protocol):
    """What argparse's add_subparsers gives."""

    def add_parser(self, name: str, **options: Any) -> argparse.ArgumentParser: ...


def confirmed(question: str) -> bool:
    """Whether a person at the terminal says yes. Where there is none, nobody does."""
    if not sys.stdin.isatty():
        print(f"{question} Nobody is here to ask: say --yes.", file=sys.stderr)
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("must lie between 1 and 1000")
    return number


def url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise argparse.ArgumentTypeError("must be an http or https address")
    return text


_AGO = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str) -> datetime:
    """`90s`, `30m`, `24h`, `7d` and `1w` mean that long ago, `today` and `yesterday` their beginning; or a time in
    ISO 8601, which may be a day. UTC, where it says nothing else.
    """
    now = datetime.now(UTC)
    if found := re.fullmatch(r"(\d{1,5})([smhdw])", text, re.ASCII):
        return now - timedelta(**{_AGO[found[2]]: int(found[1])})
    if text in ("today", "yesterday"):
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=text == "yesterday")
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            "must be such as 90s, 30m, 24h, 7d, 1w, yesterday, 2026-11-23 or 2026-11-23T12:00:00Z"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
