"""What arrives (`Headers`, `Delivery`) and what it becomes (`Event`): values only, no behaviour of their own."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, TypeVar, overload
from urllib.parse import unquote, unquote_plus
from uuid import UUID

from chalicelib.postern.contract import payloads

_D = TypeVar("_D")


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

    @overload
    def get(self, name: str) -> str | None: ...
    @overload
    def get(self, name: str, default: _D) -> str | _D: ...
    def get(self, name: str, default: Any = None) -> Any:
        """As a Mapping has it, without an exception for each that is absent."""
        values = self._values.get(name.lower())
        return values[0] if values is not None and len(values) == 1 else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def all(self, name: str) -> list[str]:
        return self._values.get(name.lower(), [])

    def as_stored(self, hidden: Iterable[str] = (), spellings: Sequence[str] = ()) -> dict[str, str | list[str]]:
        """Lower-case names to a value, or to a list where one was repeated.

        Credentials are blanked out: by their names, those in `hidden`, and whatever has one of these `spellings` in it.
        """
        concealed = frozenset(hidden)
        return {
            name: REDACTED
            if name in concealed or is_credential(name) or any(holds(value, spellings) for value in values)
            else values[0]
            if len(values) == 1
            else values
            for name, values in self._values.items()
        }


REDACTED = "[redacted]"

# A secret that is shorter stands in too much by chance.
_MIN_SECRET_LENGTH = 8


def spellings_of(secrets: Iterable[str]) -> list[str]:
    """How secrets may be written in a header or a URL: as they are, or in base64; without a name before a `:`, or their
    kind's prefix.
    """
    found: list[str] = []
    for secret in secrets:
        for part in (secret, secret.partition(":")[2], secret.removeprefix("whsec_")):
            if len(part) >= _MIN_SECRET_LENGTH:
                data = part.encode("utf-8", "surrogatepass")
                found += [part, data.decode("latin-1"), base64.b64encode(data).decode().rstrip("=")]
    return list(dict.fromkeys(found))


def holds(text: str, spellings: Sequence[str]) -> bool:
    """Whether a secret stands in it, in one of these spellings, escaped or not."""
    if not spellings:
        return False
    texts = {text, unquote(text), unquote_plus(text)} if "%" in text or "+" in text else (text,)
    for each in texts:
        for spelling in spellings:
            if spelling in each:
                return True
    return False


# Headers and parameters that are a password in themselves, by the words in their names. Signatures are not: they prove
# one body, and re-verifying needs them.
_ENDINGS = (
    "token", "tokens", "secret", "password", "passwd", "passphrase", "passcode", "apikey", "accesskey", "secretkey",
    "authorization", "authentication", "cookie", "jwt", "assertion", "credential", "credentials", "session",
    "sessionid",
)  # fmt: skip
_WORDS = frozenset({"auth", "bearer", "cookie2", "csrf", "dpop", "otp", "pass", "pin", "pwd", "sid", "totp", "xsrf"})
# A key of whom or what.
_KEYS_OF = frozenset(
    {
        "access", "account", "admin", "api", "app", "auth", "client", "consumer", "functions", "insert", "license",
        "master", "private", "rapidapi", "secret", "server", "service", "shared", "signing", "subscription", "webhook",
        "x",
    }
)  # fmt: skip
# What is said about one is none; but a session's id is one.
_REMEMBERED_CHARACTERS = 64
_ABOUT = frozenset({"id", "type", "algo", "algorithm", "expires", "expiry", "version", "name"})


def is_credential(name: str) -> bool:
    """Whether a header or parameter of this name, in lower case, is a password or like one."""
    # Senders use the same few names again and again; a long one may be made up, and is not remembered.
    return _is_credential(name) if len(name) <= _REMEMBERED_CHARACTERS else _is_credential.__wrapped__(name)


@lru_cache(maxsize=1000)
def _is_credential(name: str) -> bool:
    words = [word for word in re.split(r"[-_.\[\]]", name) if word]
    if not words or "idempotency" in words:
        return False
    last = words[-1]
    if any("signature" in word for word in words) and not last.endswith(("secret", "key", "token")):
        return False
    if last in _ABOUT and words[-2:] != ["session", "id"]:
        return False
    if last == "key" and (len(words) == 1 or words[-2] in _KEYS_OF or "signature" in words[-2]):
        return True
    return any(word.endswith(_ENDINGS) or word in _WORDS for word in words)


@dataclass(frozen=True)
class Delivery:
    """One HTTP request from a provider, exactly as it came.

    `url` is the address that the provider knows, `query` the parameters in it, decoded, in their order. `request_id`
    is API Gateway's name for the request, `trace` the header of X-Ray's trace that it belongs to. `origin` says how it
    came, where its sender did not bring it.
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
    origin: str | None = None


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

    `payload` is the parsed body (JSON, or the fields of a form; None where it is neither), `body` its exact bytes,
    `format` and `form_field` how it was read. A number with a fraction is a float, or a Decimal where a float would
    lose digits of it; `json` reads it otherwise. An event of a delivery that brought several has its own part of that
    as its body. `attempt` counts the tries at
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
    format: str = payloads.Format.JSON
    form_field: str | None = None

    def json(self, **options: Any) -> Any:
        """The payload, read anew by json.loads with these options: `event.json(parse_float=Decimal)` has every number
        with a fraction as a Decimal.
        """
        content = payloads.content_of(self.body, self.headers)
        text = payloads.text_of(content, self.form_field, self.format)
        return None if text is None else payloads.loads(text, **options)


# The handler that runs, by its name, and its event: for what it logs.
at_work: ContextVar[tuple[str, Event] | None] = ContextVar("at_work", default=None)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def first_event_id(at: datetime) -> UUID:
    """The smallest that an event of this moment can have (postern.uuid7_floor)."""
    return UUID(int=max(0, (at - _EPOCH) // timedelta(milliseconds=1)) << 80)


def moment_of(id: UUID) -> datetime:
    """When an event of this id was received, to the millisecond (postern.uuid7_time)."""
    try:
        return _EPOCH + timedelta(milliseconds=id.int >> 80)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def new_event_id(at: datetime) -> UUID:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then 74 random bits.

    The id carries the time, so the events table is partitioned and pruned by it.
    """
    milliseconds = (at - _EPOCH) // timedelta(milliseconds=1)  # whole numbers: a float would round
    value = milliseconds << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)
