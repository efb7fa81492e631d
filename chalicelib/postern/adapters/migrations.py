"""Numbered migrations: Postern's own in postern/migrations, the team's in handlers/migrations.

Each runs once, in a transaction of its own, in the order of its number; a lock keeps two runs apart.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from chalicelib.postern.adapters.teams_room import TEAMS_MIGRATIONS
from chalicelib.postern.contract.errors import DatabaseUnavailable, MigrationError

# Owner -> folder; Postern's come first, because the team's may refer to them.
FOLDERS = {
    "postern": Path(__file__).parent.parent / "migrations",
    "handlers": TEAMS_MIGRATIONS,
}

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql", re.ASCII)

_BOOTSTRAP = """
CREATE SCHEMA IF NOT EXISTS postern;
CREATE TABLE IF NOT EXISTS postern.migrations (
  owner       text        NOT NULL,
  name        text        NOT NULL,
  checksum    text        NOT NULL,
  applied_at  timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT migrations_pkey PRIMARY KEY (owner, name)
);
"""


@dataclass(frozen=True)
class Migration:
    owner: str
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrate(dsn: str, folders: dict[str, Path] | None = None) -> list[str]:
    """Brings the database to this version; the names of the migrations that it took, in order.

    Raises DatabaseUnavailable, or MigrationError when a migration fails (the ones before it stay), or when one
    that was applied has since been changed or removed.
    """
    known = _known(folders)
    try:
        connection = psycopg2.connect(dsn, connect_timeout=5, application_name="postern-migrate")
    except psycopg2.Error as exc:
        raise DatabaseUnavailable(str(exc).strip()) from exc
    with closing(connection):
        try:
            with connection, connection.cursor() as cursor:
                # For the session, so that it spans the migrations' own transactions.
                cursor.execute("SELECT pg_advisory_lock(hashtext('postern.migrations'))")
                cursor.execute(_BOOTSTRAP)
                cursor.execute("SELECT owner, name, checksum FROM postern.migrations")
                applied = {(owner, name): checksum for owner, name, checksum in cursor}
        except psycopg2.Error as exc:
            raise MigrationError(f"The schema cannot be made: {exc}") from exc
        return [m.name for m in _pending(known, applied) if _apply(connection, m)]


def pending(applied: Mapping[tuple[str, str], str], folders: dict[str, Path] | None = None) -> list[str]:
    """The names of the migrations that are still to come, where these were applied, by owner and name with their
    checksums. Raises MigrationError as migrate does.
    """
    return [m.name for m in _pending(_known(folders), applied)]


def _pending(known: list[Migration], applied: Mapping[tuple[str, str], str]) -> Iterator[Migration]:
    present = {(m.owner, m.name) for m in known}
    for owner, name in applied:
        # The team may drop a handler and its migration, such as the example's; Postern's own are never dropped.
        if owner == "postern" and (owner, name) not in present:
            raise MigrationError(
                f"Migration {name} was applied to this database, but this version does not have it: "
                "the database is newer than the code."
            )
    for migration in known:
        checksum = applied.get((migration.owner, migration.name))
        if checksum is None:
            yield migration
        elif checksum != migration.checksum:
            raise MigrationError(f"Migration {migration.name} was changed after it was applied; add a new one instead.")


def _apply(connection: psycopg2.extensions.connection, migration: Migration) -> bool:
    try:
        with connection, connection.cursor() as cursor:
            # Rather give up than queue every reader and writer behind a lock that does not come.
            cursor.execute("SET LOCAL lock_timeout = '10s'")
            cursor.execute(migration.sql)
            cursor.execute(
                "INSERT INTO postern.migrations (owner, name, checksum) VALUES (%s, %s, %s)",
                (migration.owner, migration.name, migration.checksum),
            )
    except psycopg2.Error as exc:
        raise MigrationError(f"Migration {migration.name} failed: {str(exc).strip()}") from exc
    return True


def _known(folders: dict[str, Path] | None) -> list[Migration]:
    return [m for owner, folder in (folders or FOLDERS).items() for m in _read(owner, folder)]


def _read(owner: str, folder: Path) -> list[Migration]:
    if not folder.is_dir():
        return []
    files = sorted(folder.glob("*.sql"))
    for number, file in enumerate(files, start=1):
        match = _FILE.fullmatch(file.name)
        if match is None or int(match[1]) != number:
            raise MigrationError(
                f"{file.name} is not the name of migration {number:04}: "
                "they are numbered without gaps, such as 0001_events.sql."
            )
    return [Migration(owner, file.stem, file.read_text("utf-8")) for file in files]
