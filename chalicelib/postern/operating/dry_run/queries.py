"""An event as it is stored, for those who only look."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from chalicelib.postern.adapters.event_store import EventTransaction, stored_event
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.processing.order import Entity
from chalicelib.postern.processing.turns import Stored


class StoredEvents:
    """Each question in a transaction of its own; raises DatabaseUnavailable and StatementFailed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def stored(self, id: UUID) -> Stored | None:
        """An event as it is stored, without locking it."""
        with self._database.transaction() as session:
            rows = session.run("stored_event", {"id": id})
            return stored_event(rows[0]) if rows else None

    def versions(self, entities: Sequence[Entity]) -> dict[Entity, Decimal]:
        """How far these have come, without locking them."""
        with self._database.transaction() as session:
            return EventTransaction(session).versions(entities)
