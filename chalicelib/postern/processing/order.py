"""Order without a queue that keeps it: what an event is about, and whether something newer was handled before.

A handler with `entity` (and `version`) names both: `@on("shop", "order.*", entity=lambda event: event.payload["id"],
version=lambda event: event.payload["updated_at"])`. Events of one entity of a source are never processed at the same
time; one that is older than what was handled before is `stale` for this handler.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING
from uuid import UUID

from chalicelib.postern.contract.errors import PermanentError

if TYPE_CHECKING:
    from chalicelib.postern.contract.deliveries import Event
    from chalicelib.postern.processing.handling import Handler

_MAX_ENTITY_LENGTH = 1_000


@dataclass(frozen=True, order=True)
class Entity:
    """What events of a source are about."""

    source: str
    key: str


@dataclass(frozen=True)
class Version:
    """Where an event stands for one handler. `version` is None where any order will do."""

    entity: Entity
    version: Decimal | None


def version_of(handler: Handler, event: Event) -> Version | None:
    """None for a handler without an entity. Raises what the handler's own functions raise, and PermanentError."""
    if handler.entity is None:
        return None
    key = handler.entity(event)
    if key is None or isinstance(key, bool | float | bytes) or not str(key):
        raise PermanentError(f"The entity is {key!r:.100}, not a text or a number.")
    text = str(key)
    if len(text) > _MAX_ENTITY_LENGTH or "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise PermanentError("The entity is longer than 1,000 characters, or none that the database can hold.")
    version = None if handler.version is None else _version(handler.version(event))
    return Version(Entity(event.source, text), version)


def _version(value: object) -> Decimal:
    """As a number: of a number itself, of a time (ISO 8601, UTC unless it says) its seconds since 1970."""
    match value:
        case bool():
            pass
        case int() | Decimal():
            if Decimal(value).is_finite() and abs(Decimal(value).adjusted()) < 1_000:
                return Decimal(value)
        case float():
            if math.isfinite(value):
                return Decimal(repr(value))
        case datetime():
            return _seconds(value)
        case str():
            try:
                number = Decimal(value) if len(value) < 100 else Decimal("NaN")
                if number.is_finite() and abs(number.adjusted()) < 1_000:
                    return number
            except InvalidOperation:
                pass
            try:
                return _seconds(datetime.fromisoformat(value))
            except ValueError:
                pass
    raise PermanentError(f"The version is {value!r:.100}, not a number or a time.")


def _seconds(at: datetime) -> Decimal:
    since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return Decimal(since.days * 86_400 + since.seconds) + Decimal(since.microseconds) / 1_000_000


class Order:
    """How far each entity has come, within one transaction: `versions` is what was found, under locks."""

    def __init__(self, versions: Mapping[Entity, Decimal]) -> None:
        self._versions = dict(versions)
        self.advanced: dict[Entity, tuple[Decimal, UUID]] = {}

    def is_stale(self, place: Version | None) -> bool:
        """Whether something newer was handled before. What is just as new is not stale: a retry is."""
        if place is None or place.version is None:
            return False
        known = self._versions.get(place.entity)
        return known is not None and place.version < known

    def advance(self, place: Version | None, id: UUID) -> None:
        """Notes that this event was handled."""
        if place is not None and place.version is not None and not self.is_stale(place):
            self._versions[place.entity] = place.version
            self.advanced[place.entity] = (place.version, id)
