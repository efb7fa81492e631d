"""What every scheme is made of: its promise, and the comparisons that must not be written twice.

`verify` takes a delivery as it came and every secret that is valid at the moment, and returns a `Proof`, or raises
`InvalidSignature` with a reason for the log. Texts are compared whole and in constant time, so nothing but the one
canonical spelling of a signature passes. `sign` makes the request that `verify` accepts; samples and tests use it.
An empty list of secrets never verifies.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha1
from typing import Literal

from chalicelib.postern.contract.deliveries import Delivery, Headers
from chalicelib.postern.contract.errors import InvalidSignature, SecretUnavailable

Encoding = Literal["hex", "base64", "base64url"]
SecretEncoding = Literal["text", "hex", "base64", "sha1"]
Algorithm = Literal["sha1", "sha256", "sha512"]
Unit = Literal["s", "ms", "iso"]

# Numbers as senders write them. int() alone would also take ' 1', '+1', '1_0' and other scripts' digits.
_NUMBER = {"s": re.compile(r"[0-9]{1,13}", re.ASCII), "ms": re.compile(r"[0-9]{1,16}", re.ASCII)}
# RFC 3339; Python reads no more than six digits of a second.
_ISO = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)

# A provider's clock is right to the second; ours is AWS's.
_MAX_AHEAD_SECONDS = 3_600

# The tolerance that takes any time, for who asks whether all else is right.
AGELESS = 10**12

# A list of signatures costs one comparison per entry and secret; nobody rotates more secrets than this.
MAX_CANDIDATES = 16


@dataclass(frozen=True)
class Proof:
    """A delivery is verified: by the secret at this position, with this id under the signature (if one is)."""

    secret: int | None = None
    signed_id: str | None = None


@dataclass(frozen=True)
class Draft:
    """A request to be signed, as a provider would send it. `url` is where it goes, as the provider knows it."""

    body: bytes
    event_id: str
    now: datetime
    url: str = ""
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Signed:
    """The headers that a signature adds, and the body and the URL's parameters: some providers put it there."""

    headers: Mapping[str, str]
    body: bytes
    query: Mapping[str, str] = field(default_factory=dict)


# Gets what lies at a URL, which the scheme has checked; raises SecretUnavailable where nothing can be got now.
Fetch = Callable[[str], bytes]


def fetch_nothing(url: str) -> bytes:
    raise SecretUnavailable("nothing_to_fetch_with")


class Scheme(ABC):
    """How one kind of sender signs. It touches nothing but its arguments."""

    @property
    def credentials(self) -> frozenset[str]:
        """Headers, in lower case, that hold the secret itself and are never stored."""
        return frozenset()

    @property
    def credential_parameters(self) -> frozenset[str]:
        """The URL's parameters that hold the secret itself and are never stored."""
        return frozenset()

    @property
    def covers_body(self) -> bool:
        """Whether an altered body is refused. If not, who sees one delivery can make others, headers and all."""
        return True

    @property
    def signs_id(self) -> bool:
        """Whether its proof holds an id that nobody can change."""
        return False

    def confidential(self, secret: str) -> str:
        """What of a secret nobody else may know; empty where its holder verifies with what is public."""
        return secret

    def signed_time(self, delivery: Delivery) -> str:
        """The time under the signature, as it came; empty where there is none."""
        return ""

    @abstractmethod
    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof: ...

    @abstractmethod
    def sign(self, draft: Draft, secret: str) -> Signed: ...


def required(headers: Headers, name: str) -> str:
    """The value of a header that came once, and not empty."""
    values = headers.all(name)
    if not values or not values[0]:
        raise InvalidSignature("header_missing")
    if len(values) > 1:
        raise InvalidSignature("header_repeated")
    return values[0]


def check_age(timestamp: str, unit: Unit, now: datetime, tolerance_seconds: int) -> None:
    """Both ways: a time far ahead would make a captured delivery valid for as long as its thief likes. A sender that
    repeats with its first attempt's time may be late, and is never early.
    """
    age = now.timestamp() - _seconds(timestamp, unit)
    if age > tolerance_seconds:
        raise InvalidSignature("timestamp_stale")
    if age < -(tolerance_seconds if tolerance_seconds == AGELESS else min(tolerance_seconds, _MAX_AHEAD_SECONDS)):
        raise InvalidSignature("timestamp_in_future")


def _seconds(timestamp: str, unit: Unit) -> float:
    if unit == "iso":
        found = _ISO.fullmatch(timestamp)
        try:
            if found is None:
                raise ValueError
            time, fraction, zone = found.groups()
            moment = datetime.fromisoformat(
                f"{time}.{(fraction or '0')[:6].ljust(6, '0')}{zone.replace('Z', '+00:00')}"
            )
            return moment.timestamp()
        except (ValueError, OverflowError):
            raise InvalidSignature("timestamp_malformed") from None
    if not _NUMBER[unit].fullmatch(timestamp):
        raise InvalidSignature("timestamp_malformed")
    return int(timestamp) / (1 if unit == "s" else 1000)


def written(now: datetime, unit: Unit) -> str:
    """This time as a sender would write it."""
    if unit == "iso":
        return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return str(int(now.timestamp()) if unit == "s" else int(now.timestamp() * 1000))


def matching(candidates: Sequence[str], expected: Sequence[str]) -> int:
    """The position of the first expected text that a candidate equals."""
    if not candidates:
        raise InvalidSignature("signature_missing")
    if len(candidates) > MAX_CANDIDATES:
        raise InvalidSignature("too_many_signatures")
    for position, right in enumerate(expected):
        for given in candidates:
            # Bytes, because compare_digest raises on text that is not ASCII.
            if hmac.compare_digest(wire(given), right.encode()):
                return position
    raise InvalidSignature("signature_mismatch")


def wire(text: str) -> bytes:
    """The header's bytes: HTTP carries Latin-1; what cannot have come over HTTP still gets bytes, not an error."""
    return text.encode("latin-1", "backslashreplace")


def as_wire(text: str) -> str:
    """A text that came in the body or the URL, the way a header with it reads: for `matching`."""
    return text.encode("utf-8", "surrogatepass").decode("latin-1")


def encode(digest: bytes, encoding: Encoding) -> str:
    if encoding == "hex":
        return digest.hex()
    if encoding == "base64":
        return base64.b64encode(digest).decode()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def decode(text: str, encoding: Encoding) -> bytes:
    """The bytes that exactly this text stands for; any other spelling of them is refused."""
    try:
        data = bytes.fromhex(text) if encoding == "hex" else base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        raise InvalidSignature("signature_malformed") from None
    if encode(data, encoding) != text:
        raise InvalidSignature("signature_malformed")
    return data


def present(secret: str) -> str:
    # Anybody can compute an HMAC with an empty key: an empty secret is a missing one.
    if not secret.strip():
        raise SecretUnavailable("secret_is_empty")
    # Half a surrogate pair, which JSON can hold and bytes cannot. Asked rather than tried, because the error
    # that encoding it raises quotes it.
    if any("\ud800" <= character <= "\udfff" for character in secret):
        raise SecretUnavailable("secret_is_not_text")
    return secret


def key_of(secret: str, encoding: SecretEncoding) -> bytes:
    """The HMAC key that a secret stands for."""
    key = bytes_of(secret, encoding)
    # HMAC fills a key up with zeros: one of nothing else is the empty key, with which anybody can sign.
    if not key.strip(b"\0"):
        raise SecretUnavailable("secret_is_empty")
    return key


def bytes_of(secret: str, encoding: SecretEncoding) -> bytes:
    """The bytes that a secret stands for."""
    text = present(secret)
    try:
        if encoding == "hex":
            return bytes.fromhex(text)
        if encoding == "base64":
            return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:
        raise SecretUnavailable(f"secret_is_not_{encoding}") from None
    return sha1(text.encode(), usedforsecurity=False).digest() if encoding == "sha1" else text.encode()
