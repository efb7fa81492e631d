"""Where the local run is: `.local/run.json`, as `make run` leaves it there while it runs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chalicelib.config import SHIPPED_SOURCES, SIGNING_KEY

_STATE = Path(__file__).parent.parent / ".local"


class NotRunning(Exception):
    """There is no local run to talk to."""


@dataclass(frozen=True)
class LocalRun:
    url: str
    database_url: str
    sources_file: Path
    secrets_file: Path

    @classmethod
    def find(cls) -> LocalRun:
        """Raises NotRunning with a sentence."""
        state = Path(os.environ.get("POSTERN_STATE_DIR") or _STATE)
        try:
            run: dict[str, Any] = json.loads((state / "run.json").read_text("utf-8"))
        except FileNotFoundError:
            raise NotRunning("Postern does not run here. Start it with `make run` in another terminal.") from None
        return cls(
            url=run["url"],
            database_url=run["database_url"],
            sources_file=Path(run.get("sources_file") or SHIPPED_SOURCES),
            secrets_file=Path(run.get("secrets_file") or state / "secrets.json"),
        )

    def secret(self, source: str) -> str:
        """What the source's sender signs with: its first secret, mostly; empty when it has none."""
        try:
            secrets = json.loads(self.secrets_file.read_text("utf-8"))
        except FileNotFoundError:
            secrets = {}
        found = secrets.get(source + SIGNING_KEY) or secrets.get(source, "")
        return str(found[0] if isinstance(found, list) and found else found or "")
