"""The sources' secrets of a local run: the user's own file, or development secrets made on the first run."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chalicelib.sources import Source
from devstack.errors import StartError
from devstack.processes import write_atomically

_MAKERS: dict[str, Callable[[], str]] = {
    "stripe": lambda: f"whsec_{secrets.token_hex(24)}",
    "standard-webhooks": lambda: f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
    "basic": lambda: f"postern:{secrets.token_urlsafe(24)}",
}


def read_secrets(file: Path) -> dict[str, str | list[str]]:
    """Source name -> secret, or list of secrets. Raises StartError; its sentence quotes no secret."""
    try:
        found: Any = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise StartError(f"The secrets file {file} is not readable JSON ({type(exc).__name__}).") from None
    if not isinstance(found, dict):
        raise StartError(f"The secrets file {file} is not a JSON object of source name to secret.")
    for source, value in found.items():
        for secret in value if isinstance(value, list) else [value]:
            if not isinstance(secret, str) or not secret:
                raise StartError(f"The secrets file {file}: '{source}' is not a secret or a list of secrets.")
    return found


def ensure_development_secrets(file: Path, sources: Mapping[str, Source]) -> None:
    """Makes a secret for each source that needs one and has none yet; those that are there stay as they are."""
    known = read_secrets(file) if file.exists() else {}
    missing = [source for source in sources.values() if source.needs_secret and source.name not in known]
    if missing:
        made = {s.name: _MAKERS.get(s.provider, lambda: secrets.token_urlsafe(32))() for s in missing}
        write_atomically(file, json.dumps({**known, **made}, indent=2) + "\n")
