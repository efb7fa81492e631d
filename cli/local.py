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
    queue_url: str
    aws_endpoint_url: str

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
            queue_url=run["queue_url"],
            aws_endpoint_url=run["aws_endpoint_url"],
        )

    def secrets(self) -> dict[str, list[str]]:
        """The secrets of each source, by its name."""
        try:
            found = json.loads(self.secrets_file.read_text("utf-8"))
        except FileNotFoundError:
            found = {}
        return {name: known if isinstance(known, list) else [known] for name, known in found.items()}

    def secret(self, source: str) -> str:
        """What the source's sender signs with: its first secret, mostly; empty when it has none."""
        known = self.secrets()
        return (known.get(source + SIGNING_KEY) or known.get(source) or [""])[0]
