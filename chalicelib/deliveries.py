"""What arrives (`Headers`, `Delivery`) and what it becomes (`Event`): values only, no behaviour of their own."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID


class Headers(Mapping[str, str]):
    """Request headers: names in any case, repeated ones kept apart.

    `headers[name]` is the value of a header that came once. A repeated header has no single value, and
    picking one lets a sender show one value to the check and another to the reader: it counts as absent
    here, and `all` gives every value.
    """

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            self._values.setdefault(name.lower(), []).append(value)

    def __getitem__(self, name: str) -> str:
        values = self._values[name.lower()]
        if len(values) != 1:
            raise KeyError(name)
        return values[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def all(self, name: str) -> list[str]:
        return self._values.get(name.lower(), [])

    def as_stored(self, hidden: Iterable[str] = ()) -> dict[str, str | list[str]]:
        """Lower-case names to a value, or to a list where one was repeated; credentials are blanked out."""
        concealed = CREDENTIAL_HEADERS.union(hidden)
        return {
            name: REDACTED if name in concealed else values[0] if len(values) == 1 else values
            for name, values in self._values.items()
        }


REDACTED = "[redacted]"

# Headers that are a password in themselves. Signatures are not: they prove one body, and re-verifying needs them.
CREDENTIAL_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "x-api-key",
        "x-amz-security-token",
        "x-gitlab-token",
        "x-telegram-bot-api-secret-token",
        "cf-webhook-auth",
        "x-hook-secret",
    }
)


@dataclass(frozen=True)
class Delivery:
    """One HTTP request from a provider, exactly as it came.

    `url` is the address that the provider knows, `query` the parameters in it, decoded, in their order. `request_id`
    is API Gateway's name for the request, `trace` the header of X-Ray's trace that it belongs to.
    """

    source: str
    headers: Headers
    body: bytes
    received_at: datetime
    request_id: str | None = None
    trace: str | None = None
    method: str = "POST"
    url: str = ""
    query: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Greeting:
    """The answer to a delivery that is no event, a handshake: a status, a text or JSON object, and headers.

    `kept_as`: it holds what the operator has to see, and is kept under this reason.
    """

    status: int = 200
    body: str | Mapping[str, Any] = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    kept_as: str | None = None


@dataclass(frozen=True)
class Reply:
    """What a sender wants to hear of an accepted delivery. `{id}` in `body` is the first event's."""

    status: int
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def of(cls, value: int | Mapping[str, Any]) -> Reply:
        """Of a status, whose answer is then empty, or of all three."""
        return cls(value) if isinstance(value, int) else cls(**value)

    def __eq__(self, other: object) -> bool:
        """A status is the empty answer with it."""
        if isinstance(other, int):
            return (self.status, self.body) == (other, "")
        return isinstance(other, Reply) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.status, self.body))


@dataclass(frozen=True)
class Event:
    """What a delivery announced; handlers get one.

    `payload` is the parsed body (JSON, or the fields of a form; None where it is neither), `body` its exact bytes. An
    event of a delivery that brought several has its own part of that as its body. `attempt` counts the tries at
    processing this event, from 1; `replayed` says that a person asked for this one, `dry_run` that whatever it does to
    the database will be undone. `request_id` is API Gateway's id of the request that brought it, where there was one.
    """

    id: UUID
    source: str
    type: str
    dedup_key: str
    received_at: datetime
    headers: Mapping[str, str | list[str]]
    payload: Any
    body: bytes
    attempt: int = 1
    request_id: str | None = None
    replayed: bool = False
    dry_run: bool = False


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_event_id(at: datetime) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    The id carries the time, so the events table is partitioned and pruned by it.
    """
    milliseconds = (at - _EPOCH) // timedelta(milliseconds=1)  # whole numbers: a float would round
    value = milliseconds << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)
