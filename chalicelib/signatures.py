"""The ways in which senders prove who they are: one class a scheme, touching nothing but its arguments.

`verify` takes the raw bytes and every secret that is valid at the moment, and returns a `Proof`, or raises
`InvalidSignature` with a reason for the log. Texts are compared whole and in constant time, so nothing but
the one canonical spelling of a signature passes. `sign` makes the headers that `verify` accepts; samples and
tests use it. An empty list of secrets never verifies.

Sources: the providers' documentation and official libraries; Standard Webhooks specification 1.0.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from chalicelib.deliveries import Headers
from chalicelib.errors import InvalidSignature, SecretUnavailable

Encoding = Literal["hex", "base64"]
SecretEncoding = Literal["text", "hex", "base64"]
Algorithm = Literal["sha1", "sha256", "sha512"]

# Seconds since 1970 as senders write them. int() alone would also take ' 1', '+1', '1_0' and other scripts' digits.
_SECONDS = re.compile(r"[0-9]{1,13}", re.ASCII)

# A list of signatures costs one comparison per entry and secret; nobody rotates more secrets than this.
_MOST_CANDIDATES = 16


@dataclass(frozen=True)
class Proof:
    """A delivery is verified: by the secret at this position, with this id under the signature (if one is)."""

    secret: int | None = None
    signed_id: str | None = None


class Scheme(Protocol):
    """How one kind of sender signs. `credentials`: headers that hold the secret itself and are never stored."""

    @property
    def credentials(self) -> frozenset[str]: ...

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str], now: datetime) -> Proof: ...

    def sign(self, body: bytes, secret: str, *, event_id: str, now: datetime) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class HmacBody:
    """HMAC over the body, in one header: GitHub, and most others with small differences."""

    header: str
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    secret_encoding: SecretEncoding = "text"
    credentials: frozenset[str] = frozenset()

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
        given = _required(headers, self.header)
        return Proof(_matching([given], [self._signature(body, secret) for secret in secrets]))

    def sign(self, body: bytes, secret: str, *, event_id: str, now: datetime) -> dict[str, str]:
        return {self.header: self._signature(body, secret)}

    def _signature(self, body: bytes, secret: str) -> str:
        key = _key(secret, self.secret_encoding)
        return self.prefix + _encode(hmac.digest(key, body, self.algorithm), self.encoding)


@dataclass(frozen=True)
class Stripe:
    """Stripe: `t=<seconds>,v1=<hex>[,v1=…]` over `{t}.{body}`; other labels are skipped.

    The key is the whole `whsec_…` text. Stricter than Stripe's own library, which takes any future time.
    """

    tolerance_seconds: int = 300
    header: str = "Stripe-Signature"
    credentials: frozenset[str] = frozenset()

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
        timestamps: list[str] = []
        candidates: list[str] = []
        for entry in _required(headers, self.header).split(","):
            label, _, value = entry.partition("=")
            if label == "t":
                timestamps.append(value)
            elif label == "v1":
                candidates.append(value)
        if len(timestamps) != 1:
            raise InvalidSignature("timestamp_missing")
        _check_age(timestamps[0], now, self.tolerance_seconds)
        expected = [self._signature(timestamps[0], body, secret) for secret in secrets]
        return Proof(_matching(candidates, expected))

    def sign(self, body: bytes, secret: str, *, event_id: str, now: datetime) -> dict[str, str]:
        timestamp = str(int(now.timestamp()))
        return {self.header: f"t={timestamp},v1={self._signature(timestamp, body, secret)}"}

    def _signature(self, timestamp: str, body: bytes, secret: str) -> str:
        key = _key(secret, "text")
        return hmac.digest(key, timestamp.encode() + b"." + body, "sha256").hex()


@dataclass(frozen=True)
class StandardWebhooks:
    """Standard Webhooks 1.0 and Svix: `v1,<base64>[ v1,…]` over `{id}.{timestamp}.{body}`.

    The headers are `webhook-…` or `svix-…`, all three from one family. The key is the base64 behind `whsec_`.
    Stricter than the official library: base64 must be canonical and the timestamp a whole number; a malformed
    entry is skipped rather than an error.
    """

    tolerance_seconds: int = 300
    credentials: frozenset[str] = frozenset()

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
        message_id, timestamp, signatures = self._family(headers)
        _check_age(timestamp, now, self.tolerance_seconds)
        candidates = [entry.removeprefix("v1,") for entry in signatures.split(" ") if entry.startswith("v1,")]
        expected = [self._signature(message_id, timestamp, body, secret) for secret in secrets]
        return Proof(_matching(candidates, expected), signed_id=message_id)

    def sign(self, body: bytes, secret: str, *, event_id: str, now: datetime) -> dict[str, str]:
        timestamp = str(int(now.timestamp()))
        return {
            "webhook-id": event_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": "v1," + self._signature(event_id, timestamp, body, secret),
        }

    def _family(self, headers: Headers) -> tuple[str, str, str]:
        for family in ("svix", "webhook"):
            found = [headers.get(f"{family}-{part}", "") for part in ("id", "timestamp", "signature")]
            if all(found):
                return found[0], found[1], found[2]
        raise InvalidSignature("header_missing")

    def _signature(self, message_id: str, timestamp: str, body: bytes, secret: str) -> str:
        key = _key(secret.removeprefix("whsec_"), "base64")
        signed = b".".join((_wire(message_id), timestamp.encode(), body))
        return _encode(hmac.digest(key, signed, "sha256"), "base64")


@dataclass(frozen=True)
class Token:
    """A shared secret in a header, behind an optional prefix such as `Bearer `. The body is not covered."""

    header: str
    prefix: str = ""

    @property
    def credentials(self) -> frozenset[str]:
        return frozenset({self.header.lower()})

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
        given = _required(headers, self.header)
        return Proof(_matching([given], [self.prefix + _present(secret) for secret in secrets]))

    def sign(self, body: bytes, secret: str, *, event_id: str, now: datetime) -> dict[str, str]:
        # As it looks after the wire, which carries UTF-8 and is read as Latin-1.
        return {self.header: (self.prefix + _present(secret)).encode().decode("latin-1")}


@dataclass(frozen=True)
class Basic:
    """HTTP Basic authentication (RFC 7617); the secret is `user:password`. The body is not covered."""

    credentials: frozenset[str] = frozenset({"authorization"})

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
        scheme, _, given = _required(headers, "Authorization").partition(" ")
        if scheme.lower() != "basic":
            raise InvalidSignature("not_basic_authentication")
        return Proof(_matching([given.strip(" ")], [self._token(secret) for secret in secrets]))

    def sign(self, body: bytes, secret: str, *, event_id: str, now: datetime) -> dict[str, str]:
        return {"Authorization": f"Basic {self._token(secret)}"}

    def _token(self, secret: str) -> str:
        user, colon, password = _present(secret).partition(":")
        if not colon or not (user.strip() or password.strip()):
            raise SecretUnavailable("secret_is_not_user_colon_password")
        return _encode(secret.encode(), "base64")


@dataclass(frozen=True)
class Unverified:
    """No verification at all, for sources whose network is the check; it must be asked for by name."""

    credentials: frozenset[str] = frozenset()

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
        return Proof()

    def sign(self, body: bytes, secret: str, *, event_id: str, now: datetime) -> dict[str, str]:
        return {}


def _required(headers: Headers, name: str) -> str:
    values = headers.all(name)
    if not values or not values[0]:
        raise InvalidSignature("header_missing")
    if len(values) > 1:
        raise InvalidSignature("header_repeated")
    return values[0]


def _check_age(timestamp: str, now: datetime, tolerance_seconds: int) -> None:
    """Both ways: a time far ahead would make a captured delivery valid for as long as its thief likes."""
    if not _SECONDS.fullmatch(timestamp):
        raise InvalidSignature("timestamp_malformed")
    age = now.timestamp() - int(timestamp)
    if age > tolerance_seconds:
        raise InvalidSignature("timestamp_stale")
    if age < -tolerance_seconds:
        raise InvalidSignature("timestamp_in_future")


def _matching(candidates: Sequence[str], expected: Sequence[str]) -> int:
    """The position of the first expected text that a candidate equals."""
    if not candidates:
        raise InvalidSignature("signature_missing")
    if len(candidates) > _MOST_CANDIDATES:
        raise InvalidSignature("too_many_signatures")
    for position, right in enumerate(expected):
        for given in candidates:
            # Bytes, because compare_digest raises on text that is not ASCII.
            if hmac.compare_digest(_wire(given), right.encode()):
                return position
    raise InvalidSignature("signature_mismatch")


def _wire(text: str) -> bytes:
    """The header's bytes: HTTP carries Latin-1; what cannot have come over HTTP still gets bytes, not an error."""
    return text.encode("latin-1", "backslashreplace")


def _encode(digest: bytes, encoding: Encoding) -> str:
    return digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()


def _present(secret: str) -> str:
    # Anybody can compute an HMAC with an empty key: an empty secret is a missing one.
    if not secret.strip():
        raise SecretUnavailable("secret_is_empty")
    # Half a surrogate pair, which JSON can hold and bytes cannot. Asked rather than tried, because the error
    # that encoding it raises quotes it.
    if any("\ud800" <= character <= "\udfff" for character in secret):
        raise SecretUnavailable("secret_is_not_text")
    return secret


def _key(secret: str, encoding: SecretEncoding) -> bytes:
    text = _present(secret)
    try:
        if encoding == "hex":
            return bytes.fromhex(text)
        if encoding == "base64":
            padded = text + "=" * (-len(text) % 4)
            key = binascii.a2b_base64(padded, strict_mode=True)
            if not key:
                raise SecretUnavailable("secret_is_empty")
            return key
    except ValueError:
        raise SecretUnavailable(f"secret_is_not_{encoding}") from None
    return text.encode()
