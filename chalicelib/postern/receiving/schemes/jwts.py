"""JSON Web Tokens in a header: the signature is the token's own, and what it says of the request is checked.

The algorithm is the provider's entry's to say, and never the token's. The clock is the delivery's, and not PyJWT's.

Sources: RFC 7519; Plaid's "Webhook verification"; Atlassian's "Understanding JWT for Connect apps" and atlassian-jwt
3.0.0; vonage-jwt 1.1.5; monday.com's "Authorization header"; Netlify's "Payload signature". PyJWT is imported with
this module, and with it `cryptography`.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlsplit

from jwt import PyJWS
from jwt.algorithms import ECAlgorithm
from jwt.exceptions import InvalidKeyError, PyJWTError
from jwt.warnings import InsecureKeyLengthWarning

from chalicelib.postern.contract.deliveries import Delivery
from chalicelib.postern.contract.errors import InvalidSignature, SecretUnavailable
from chalicelib.postern.receiving.schemes.base import (
    Draft,
    Fetch,
    Proof,
    Scheme,
    Signed,
    as_wire,
    check_age,
    fetch_nothing,
    matching,
    present,
    required,
)

# A secret is as long as the provider makes it, and to say so in the log would help nobody.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)

_MAX_TOKEN_LENGTH = 8192
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_MAX_SEGMENTS = 8


@dataclass(frozen=True, kw_only=True)
class Jwt(Scheme):
    """A token in a header, behind an optional prefix such as `Bearer `.

    - `algorithm`: HS256, whose key is the secret's text, or ES256, whose key is the secret as a JWK; the token's `kid`
      must be the JWK's then, and one with an `expired_at` that is past is not used.
    - `required`: claims that must be there. Of these `iat` may lie `tolerance_seconds` from now, before or after; `exp`
      and `nbf` are kept wherever they are. `issuer` is the value of `iss`, and with `audience` "url" the request's
      address is that of `aud`.
    - `body_hash`: the claim with the body's SHA-256 in hex. Without it, who sees a token can send other bodies with it.
    - `request_hash`: the claim with the SHA-256 of method, path and query as Atlassian writes them. Its path begins
      where the app's base URL ends, which only the app knows: every tail of the path is one.
    - `id_claims`: claims whose values are the signed id.
    """

    header: str
    algorithm: Literal["HS256", "ES256"]
    prefix: str = ""
    required: Sequence[str] = ()
    issuer: str = ""
    audience: Literal["", "url"] = ""
    body_hash: str = ""
    request_hash: str = ""
    id_claims: Sequence[str] = ()
    tolerance_seconds: int = 300

    @property
    def credentials(self) -> frozenset[str]:
        return frozenset() if self.covers_body else frozenset({self.header.lower()})

    @property
    def covers_body(self) -> bool:
        return bool(self.body_hash)

    @property
    def signs_id(self) -> bool:
        return bool(self.id_claims)

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        given = required(delivery.headers, self.header)
        token = given.removeprefix(self.prefix)
        if not given.startswith(self.prefix) or len(token) > _MAX_TOKEN_LENGTH or not _TOKEN.fullmatch(token):
            raise InvalidSignature("signature_malformed")
        position, payload = self._opened(token, secrets, delivery.received_at)
        claims = _claims(payload)
        for name in self.required:
            if claims.get(name) is None:
                raise InvalidSignature("claim_missing")
        if self.issuer and claims.get("iss") != self.issuer:
            raise InvalidSignature("claim_mismatch")
        if self.audience and claims.get("aud") != delivery.url:
            raise InvalidSignature("claim_mismatch")
        self._check_times(claims, delivery.received_at)
        if self.body_hash:
            _check_claim(claims, self.body_hash, [hashlib.sha256(delivery.body).hexdigest()])
        if self.request_hash:
            _check_claim(claims, self.request_hash, _request_hashes(delivery.method, delivery.url, delivery.query))
        return Proof(position, signed_id=":".join(str(claims.get(name)) for name in self.id_claims) or None)

    def sign(self, draft: Draft, secret: str) -> Signed:
        now = int(draft.now.timestamp())
        known: dict[str, Any] = {
            "iss": self.issuer or "postern",
            "iat": now,
            "exp": now + 300,
            "aud": draft.url,
            "jti": draft.event_id,
        }
        wanted = {*self.required, *(("iss",) if self.issuer else ()), *(("aud",) if self.audience else ())}
        claims = {name: value for name, value in known.items() if name in wanted}
        if self.body_hash:
            claims[self.body_hash] = hashlib.sha256(draft.body).hexdigest()
        if self.request_hash:
            claims[self.request_hash] = _request_hashes(draft.method, draft.url, ())[0]
        kid = {} if self.algorithm == "HS256" else {"kid": _jwk(secret)["kid"]}
        token = self._jws.encode(json.dumps(claims).encode(), self._key(secret), self.algorithm, kid)
        return Signed({self.header: self.prefix + token}, draft.body)

    @cached_property
    def _jws(self) -> PyJWS:
        return PyJWS(algorithms=[self.algorithm])

    def _key(self, secret: str) -> Any:
        if self.algorithm == "HS256":
            return present(secret).encode()
        try:
            return ECAlgorithm.from_jwk(dict(_jwk(secret)))
        except (PyJWTError, ValueError, TypeError):
            raise SecretUnavailable("secret_is_no_jwk") from None

    def _opened(self, token: str, secrets: Sequence[str], now: datetime) -> tuple[int, bytes]:
        """The position of the secret that signed it, and what it says."""
        reason = "signature_mismatch"
        for position, secret in enumerate(secrets):
            key = self._key(secret)
            try:
                if self.algorithm != "HS256":
                    jwk = _jwk(secret)
                    if self._jws.get_unverified_header(token).get("kid") != jwk["kid"]:
                        reason = "unknown_key"
                        continue
                    if _expired(jwk, now):
                        reason = "key_expired"
                        continue
                payload: bytes = self._jws.decode(token, key, algorithms=[self.algorithm])
            except InvalidKeyError:
                raise SecretUnavailable("secret_is_no_key") from None
            except (PyJWTError, ValueError, TypeError, RecursionError):
                continue
            return position, payload
        raise InvalidSignature(reason)

    def _check_times(self, claims: Mapping[str, Any], now: datetime) -> None:
        times = {name: claims[name] for name in ("exp", "nbf", "iat") if claims.get(name) is not None}
        if any(isinstance(value, bool) or not isinstance(value, int) for value in times.values()):
            raise InvalidSignature("timestamp_malformed")
        if "exp" in times and times["exp"] <= now.timestamp():
            raise InvalidSignature("timestamp_stale")
        for name in ("nbf", "iat"):
            if name in times and times[name] > now.timestamp() + self.tolerance_seconds:
                raise InvalidSignature("timestamp_in_future")
        if "iat" in self.required:
            check_age(str(times["iat"]), "s", now, self.tolerance_seconds)


def _jwk(secret: str) -> Mapping[str, Any]:
    try:
        found = json.loads(present(secret))
    except (ValueError, RecursionError):
        raise SecretUnavailable("secret_is_no_jwk") from None
    if not isinstance(found, dict) or not isinstance(found.get("kid"), str):
        raise SecretUnavailable("secret_is_no_jwk")
    return found


def _expired(jwk: Mapping[str, Any], now: datetime) -> bool:
    until = jwk.get("expired_at")
    return isinstance(until, int) and until <= now.timestamp()


def _claims(payload: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InvalidSignature("claims_malformed") from None
    if not isinstance(found, dict):
        raise InvalidSignature("claims_malformed")
    return found


def _check_claim(claims: Mapping[str, Any], name: str, expected: Sequence[str]) -> None:
    value = claims.get(name)
    if not isinstance(value, str):
        raise InvalidSignature("claim_missing")
    matching([as_wire(value)], expected)


def _request_hashes(method: str, url: str, query: Sequence[tuple[str, str]]) -> list[str]:
    """For each tail of the path, the longest first. The URL's own query counts, if it has one."""
    try:
        parts = urlsplit(url)
        fields = parse_qsl(parts.query, keep_blank_values=True) or list(query)
    except ValueError:
        raise InvalidSignature("url_malformed") from None
    values: dict[str, list[str]] = {}
    for name, value in fields:
        if name != "jwt":
            values.setdefault(name, []).append(value)
    canonical = "&".join(
        f"{name}={value}"
        for name, value in sorted(
            (_quoted(name), ",".join(_quoted(value) for value in sorted(several))) for name, several in values.items()
        )
    )
    segments = parts.path.strip("/").replace("&", "%26").split("/")
    tails = ["/" + "/".join(segments[at:]) for at in range(len(segments))][-_MAX_SEGMENTS:]
    return [
        hashlib.sha256(f"{method.upper()}&{tail}&{canonical}".encode("utf-8", "surrogatepass")).hexdigest()
        for tail in tails
    ]


def _quoted(text: str) -> str:
    return quote(text, safe="~", errors="surrogatepass")
