"""What a person sees of a run: short lines made of the app's wide ones; the wide ones stand in `.local/logs/`."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from devstack.settings import PROCESSOR_TIMEOUT_SECONDS
from devstack.worker import READY

# A batch says nothing to them that its events have not said; maintenance, what it found.
_NOT_FOR_PEOPLE = (READY, "batch.consumed", "maintenance.done", "ledger.checked")


def say(text: str) -> None:
    print(text, flush=True)


def exit_reason(code: int | None) -> str:
    if code == -signal.SIGALRM:
        return f"a batch took longer than {PROCESSOR_TIMEOUT_SECONDS} s, so it was killed as Lambda would"
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"


class Tail:
    """Follows log files and prints what is new in them."""

    def __init__(self) -> None:
        self._positions: dict[Path, int] = {}

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
                    say(short)


def short_line(line: str) -> str | None:
    """A log line as a person wants to see it; None for one that says nothing to them."""
    try:
        entry: dict[str, Any] = json.loads(line)
        message = str(entry["message"])
    except (ValueError, KeyError, TypeError):
        # Not one of ours: a warning or a traceback of a library's, which somebody had better see.
        return line if line.strip() else None
    if message in _NOT_FOR_PEOPLE:
        return None
    facts = [str(entry[key]) for key in ("source", "type", "status", "reason", "detail") if entry.get(key) is not None]
    if entry.get("level") != "INFO" and entry.get("attempts"):
        facts.append(f"attempt {entry['attempts']}")
    facts += [f"{entry[key]} ms" for key in ("ack_ms", "duration_ms") if key in entry]
    facts += [str(entry[key]) for key in ("id", "message_id") if key in entry][:1]
    text = f"{time.strftime('%H:%M:%S')}  {message:<18} {'  '.join(facts)}"
    # Types and reasons come from senders: nothing of theirs may steer the terminal.
    return "".join(c if c.isprintable() else "?" for c in text)
