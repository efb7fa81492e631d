"""The team's room: what an upgrade never touches. In a deployment it is the function's, and all else is the layer's."""

from __future__ import annotations

from pathlib import Path

import chalicelib

# The function's folder goes before the layer's (chalicelib/__init__.py).
_ROOM = Path(chalicelib.__path__[0])

SHIPPED_SOURCES = _ROOM / "sources.toml"
TEAMS_MIGRATIONS = _ROOM / "handlers" / "migrations"

# Not in the repository: who has a database on RDS puts RDS's bundle there (docs/database.md).
SHIPPED_AUTHORITIES = _ROOM / "certificates" / "database-ca.pem"
