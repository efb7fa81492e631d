"""Signatures that are JSON Web Tokens (RFC 7519), by PyJWT. The algorithm is the catalogue's, never the token's."""

from __future__ import annotations

import hmac
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import jwt
from jwt.warnings import InsecureKeyLengthWarning

from chalicelib.deliveries import Delivery
from chalicelib.errors import InvalidSignature, SecretUnavailable
from chalicelib.schemes.base import (
    Draft,
    Fetch,
    Proof,
    Scheme,
    Signed,
    check_age,
    fetch_nothing,
    present,
    required,
)

# How long a provider makes its secrets is not ours to say.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)

# The clock is the delivery's own, so that what is verified later is judged as of its receipt.
_TIMES_ARE_OURS: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False}


@dataclass(frozen=True, kw_only=True)
class Jwt(Scheme):
    """A token in a header, behind `prefix`.

    - `body_claim`: the claim that holds the hex SHA-256 of the body; without one the body is not covered.
    - `issuer`: what `iss` has to be. `expires`: `exp` has to be there, and to come. `dated`: `iat` has to be there, and
      to lie within `tolerance_seconds`.
    - `algorithm`: HS256, keyed with the secret; or ES256, the secret then being the public key, a JWK as JSON.
    """

    header: str
    prefix: str = ""
    algorithm: str = "HS256"
    body_claim: str = ""
    issuer: str = ""
    expires: bool = False
    dated: bool = False
    tolerance_seconds: int = 300

    @property
    def credentials(self) -> frozenset[str]:
        # A token that does not say which body it is for is good for any.
        return frozenset() if self.body_claim else frozenset({self.header.lower()})

    @property
    def covers_body(self) -> bool:
        return bool(self.body_claim)

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        given = required(delivery.headers, self.header)
        if not given.startswith(self.prefix):
            raise InvalidSignature("token_missing")
        position, claims = self._decoded(given.removeprefix(self.prefix), secrets)
        self._check(claims, delivery)
        return Proof(position)

    def sign(self, draft: Draft, secret: str) -> Signed:
        """`secret`: for ES256 the private key, a JWK as JSON."""
        now = int(draft.now.timestamp())
        claims: dict[str, Any] = {"iat": now, "jti": draft.event_id}
        if self.expires:
            claims["exp"] = now + self.tolerance_seconds
        if self.issuer:
            claims["iss"] = self.issuer
        if self.body_claim:
            claims[self.body_claim] = sha256(draft.body).hexdigest()
        key, headers = self._key(secret)
        token = jwt.encode(claims, key, algorithm=self.algorithm, headers=headers)
        return Signed({self.header: self.prefix + token}, draft.body)

    def _decoded(self, token: str, secrets: Sequence[str]) -> tuple[int, dict[str, Any]]:
        for position, secret in enumerate(secrets):
            key, _ = self._key(secret)
            try:
                return position, jwt.decode(token, key, algorithms=[self.algorithm], options=_TIMES_ARE_OURS)
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
                continue
        raise InvalidSignature("signature_mismatch")

    def _key(self, secret: str) -> tuple[Any, dict[str, Any] | None]:
        """The key, and the header's members that name it."""
        if self.algorithm == "HS256":
            return present(secret), None
        try:
            key = json.loads(present(secret))
            return jwt.PyJWK(key, self.algorithm).key, {"kid": key["kid"]} if "kid" in key else None
        except (ValueError, TypeError, KeyError, jwt.PyJWTError):
            raise SecretUnavailable("secret_is_no_jwk") from None

    def _check(self, claims: dict[str, Any], delivery: Delivery) -> None:
        if self.issuer and claims.get("iss") != self.issuer:
            raise InvalidSignature("wrong_issuer")
        if self.dated:
            check_age(_seconds(claims, "iat"), "s", delivery.received_at, self.tolerance_seconds)
        if self.expires and int(_seconds(claims, "exp")) <= delivery.received_at.timestamp():
            raise InvalidSignature("token_expired")
        if self.body_claim:
            given = claims.get(self.body_claim)
            right = sha256(delivery.body).hexdigest()
            if not isinstance(given, str) or not hmac.compare_digest(given.encode("utf-8", "replace"), right.encode()):
                raise InvalidSignature("body_digest_mismatch")


def _seconds(claims: dict[str, Any], name: str) -> str:
    found = claims.get(name)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 10**13:
        raise InvalidSignature("timestamp_missing")
    return str(found)
