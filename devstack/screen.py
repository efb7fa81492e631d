"""What a person sees of a run: short lines made of the app's wide ones; the wide ones stand in `.local/logs/`."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devstack.settings import PROCESSOR_TIMEOUT_SECONDS
from devstack.worker import READY

# A batch says nothing to them that its events have not said; maintenance, what it found.
_NOT_FOR_PEOPLE = (READY, "batch.consumed", "maintenance.done", "ledger.checked")

# Of lines that are alike, within so many seconds of the first: how many are printed.
_SHOWN = 5
_WINDOW_SECONDS = 5.0


def say(text: str) -> None:
    print(text, flush=True)


def exit_reason(code: int | None) -> str:
    if code == -signal.SIGALRM:
        return f"a batch took longer than {PROCESSOR_TIMEOUT_SECONDS} s, so it was killed as Lambda would"
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


class Tail:
    """Follows log files and prints what is new in them. Of equal lines, but for their ids and times, it prints a few,
    and then how many more there were. `clock` counts seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._positions: dict[Path, int] = {}
        self._clock = clock
        self._alike: dict[str, _Alike] = {}

    def follow(self, log: Path) -> None:
        self._positions[log] = 0

    def print_new(self) -> None:
        for log, position in self._positions.items():
            with log.open("rb") as file:
                file.seek(position)
                new = file.read()
            # A line that is still being written is left for the next time.
            whole = new[: new.rfind(b"\n") + 1]
            self._positions[log] = position + len(whole)
            for line in whole.decode("utf-8", "replace").splitlines():
                if short := short_line(line):
                    self._print(short)
        self._tell_of_more(_WINDOW_SECONDS)

    def end(self) -> None:
        """Nothing is printed any more; what was counted is told."""
        self._tell_of_more(0)

    def _print(self, short: Line) -> None:
        if not short.kind:
            say(short.text)
            return
        alike = self._alike.setdefault(short.kind, _Alike(self._clock()))
        if alike.shown < _SHOWN:
            alike.shown += 1
            say(short.text)
        else:
            alike.more += 1

    def _tell_of_more(self, after: float) -> None:
        now = self._clock()
        for kind, alike in list(self._alike.items()):
            seconds = now - alike.since
            if seconds < after:
                continue
            if alike.more:
                rate = f", {alike.more / seconds:,.0f} a second" if alike.more >= seconds > 0 else ""
                say(f"{_now()}  {kind}  … {alike.more:,} more in {seconds:.0f} s{rate}")
                alike.since, alike.more = now, 0
            else:
                del self._alike[kind]


@dataclass
class _Alike:
    """Lines of one kind: since when, how many of them were printed, and how many more there were."""

    since: float
    shown: int = 0
    more: int = 0


@dataclass(frozen=True)
class Line:
    """`kind`: what it has in common with others that say the same of another event; none of a line that is no app's."""

    text: str
    kind: str = ""


def short_line(line: str) -> Line | None:
    """A log line as a person wants to see it; None for one that says nothing to them."""
    try:
        entry: dict[str, Any] = json.loads(line)
        message = str(entry["message"])
    except (ValueError, KeyError, TypeError):
        # Not one of ours: a warning or a traceback of a library's, which somebody had better see.
        return Line(line) if line.strip() else None
    if message in _NOT_FOR_PEOPLE:
        return None
    facts = [str(entry[key]) for key in ("source", "type", "status", "reason", "detail") if entry.get(key) is not None]
    if entry.get("level") != "INFO" and entry.get("attempts"):
        facts.append(f"attempt {entry['attempts']}")
    own = [f"{entry[key]} ms" for key in ("ack_ms", "duration_ms") if key in entry]
    own += [str(entry[key]) for key in ("id", "message_id") if key in entry][:1]
    kind = f"{message:<18} {'  '.join(facts)}"
    return Line(_printable(f"{_now()}  {'  '.join([kind, *own])}"), _printable(kind))


def _now() -> str:
    return time.strftime("%H:%M:%S")


def _printable(text: str) -> str:
    """Types and reasons come from senders: nothing of theirs may steer the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)
