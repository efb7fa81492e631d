"""HMAC: most providers, each with small differences.

Sources: the providers' documentation and official libraries; Standard Webhooks specification 1.0.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace

from chalicelib.postern.contract.deliveries import Delivery
from chalicelib.postern.contract.errors import InvalidSignature
from chalicelib.postern.receiving.schemes.base import (
    Algorithm,
    Draft,
    Fetch,
    Proof,
    Scheme,
    SecretEncoding,
    Signed,
    encode,
    fetch_nothing,
    key_of,
    matching,
)
from chalicelib.postern.receiving.schemes.templated import Templated


@dataclass(frozen=True, kw_only=True)
class Hmac(Templated):
    """HMAC of the template, keyed with the secret as `secret_encoding` reads what follows `secret_prefix`.

    `any_case`: hexadecimal digits may be capitals.
    """

    algorithm: Algorithm = "sha256"
    secret_encoding: SecretEncoding = "text"
    secret_prefix: str = ""
    any_case: bool = False

    def _matching(self, message: bytes, candidates: Sequence[str], secrets: Sequence[str]) -> int:
        if self.any_case and self.encoding == "hex":
            at = len(self.prefix)
            candidates = [given[:at] + given[at:].lower() for given in candidates]
        return matching(candidates, [self._signature(message, secret) for secret in secrets])

    def _signature(self, message: bytes, secret: str) -> str:
        key = key_of(secret.removeprefix(self.secret_prefix), self.secret_encoding)
        return self.prefix + encode(hmac.digest(key, message, self.algorithm), self.encoding)


@dataclass(frozen=True, kw_only=True)
class SecretFirst(Templated):
    """A plain SHA-256 of the secret and the template behind it, as HubSpot had it before its version 3.

    No HMAC: whoever has one signature can append bytes to what was signed, behind a padding that no UTF-8 has in it. So
    it is for JSON alone.
    """

    def _matching(self, message: bytes, candidates: Sequence[str], secrets: Sequence[str]) -> int:
        return matching(candidates, [self._signature(message, secret) for secret in secrets])

    def _signature(self, message: bytes, secret: str) -> str:
        return self.prefix + encode(hashlib.sha256(key_of(secret, "text") + message).digest(), self.encoding)


@dataclass(frozen=True, kw_only=True)
class StandardWebhooks(Scheme):
    """Standard Webhooks 1.0 and Svix: `v1,<base64>[ v1,…]` over `{id}.{timestamp}.{body}`.

    The headers are `webhook-…` or `svix-…`, all three from one family. The key is the base64 behind `whsec_`, or the
    whole secret (`secret_encoding`). A secret that begins with `whpk_` is a public key (Ed25519) and verifies `v1a`.
    Stricter than the official library: base64 must be canonical and the timestamp a whole number; a malformed
    entry is skipped rather than an error.
    """

    tolerance_seconds: int = 300
    secret_encoding: SecretEncoding = "base64"

    @property
    def signs_id(self) -> bool:
        return True

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        """One secret after the other: which kind of key it is, is the secret's to say and not the request's."""
        family = self._family(delivery)
        failure = InvalidSignature("signature_mismatch")
        for position, secret in enumerate(secrets):
            try:
                return replace(self._scheme(family, secret).verify(delivery, [_shown(secret)]), secret=position)
            except InvalidSignature as exc:
                failure = exc
        raise failure

    def sign(self, draft: Draft, secret: str) -> Signed:
        return self._scheme("webhook", secret).sign(draft, _shown(secret))

    def _family(self, delivery: Delivery) -> str:
        for family in ("svix", "webhook"):
            if all(delivery.headers.get(f"{family}-{part}", "") for part in ("id", "timestamp", "signature")):
                return family
        raise InvalidSignature("header_missing")

    def _scheme(self, family: str, secret: str) -> Templated:
        common = Hmac(
            header=f"{family}-signature",
            signed="{id}.{timestamp}.{body}",
            encoding="base64",
            prefix="v1,",
            separator=" ",
            timestamp=f"header:{family}-timestamp",
            tolerance_seconds=self.tolerance_seconds,
            id=f"{family}-id",
            secret_encoding=self.secret_encoding,
            secret_prefix="whsec_" if self.secret_encoding == "base64" else "",
        )
        if not secret.startswith(("whpk_", "whsk_")):
            return common
        from chalicelib.postern.receiving.schemes.public_keys import Ed25519

        return Ed25519(
            header=common.header,
            signed=common.signed,
            encoding="base64",
            prefix="v1a,",
            separator=" ",
            timestamp=common.timestamp,
            tolerance_seconds=self.tolerance_seconds,
            id=common.id,
            key_encoding="base64",
        )


def _shown(secret: str) -> str:
    """Some dashboards show a secret with the version of the signatures that it makes."""
    return secret.removeprefix("v1,")
