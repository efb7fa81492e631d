"""Signatures that a public key verifies; the source's secret is that key, and knowing it lets nobody sign.

`cryptography` is imported with this module, which is imported for the sources that need it alone.
"""

from __future__ import annotations

import base64
import binascii
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature as Mismatch
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from chalicelib.postern.contract.errors import InvalidSignature, SecretUnavailable
from chalicelib.postern.receiving.schemes.base import MAX_CANDIDATES, SecretEncoding, bytes_of, decode, encode
from chalicelib.postern.receiving.schemes.templated import Templated


class _PublicKey(Templated):
    @abstractmethod
    def _public_key(self, secret: str) -> Any: ...

    @abstractmethod
    def _verify(self, key: Any, signature: bytes, message: bytes) -> None:
        """Raises cryptography's InvalidSignature."""

    def _matching(self, message: bytes, candidates: Sequence[str], secrets: Sequence[str]) -> int:
        if not candidates:
            raise InvalidSignature("signature_missing")
        if len(candidates) > MAX_CANDIDATES:
            raise InvalidSignature("too_many_signatures")
        keys = [self._public_key(secret) for secret in secrets]
        for position, key in enumerate(keys):
            for candidate in candidates:
                try:
                    self._verify(key, decode(candidate.removeprefix(self.prefix), self.encoding), message)
                except (Mismatch, InvalidSignature):
                    continue
                return position
        raise InvalidSignature("signature_mismatch")


@dataclass(frozen=True, kw_only=True)
class Ed25519(_PublicKey):
    """Ed25519 (RFC 8032); the key is its 32 bytes. Samples are signed with a private key: the 32 bytes of its seed."""

    key_encoding: SecretEncoding = "hex"

    def _public_key(self, secret: str) -> Any:
        try:
            return ed25519.Ed25519PublicKey.from_public_bytes(bytes_of(secret.removeprefix("whpk_"), self.key_encoding))
        except ValueError:
            raise SecretUnavailable("secret_is_no_public_key") from None

    def _verify(self, key: Any, signature: bytes, message: bytes) -> None:
        key.verify(signature, message)

    def _signature(self, message: bytes, secret: str) -> str:
        # A seed may have its public key behind it, as 64 bytes.
        seed = bytes_of(secret.removeprefix("whsk_"), self.key_encoding)[:32]
        return self.prefix + encode(ed25519.Ed25519PrivateKey.from_private_bytes(seed).sign(message), self.encoding)


@dataclass(frozen=True, kw_only=True)
class Ecdsa(_PublicKey):
    """ECDSA with P-256 and SHA-256, the signature in DER; the key is base64 of a SubjectPublicKeyInfo.

    Samples are signed with base64 of a PKCS #8 private key.
    """

    def _public_key(self, secret: str) -> Any:
        try:
            key = load_der_public_key(base64.b64decode(secret, validate=True))
        except (ValueError, UnsupportedAlgorithm):
            raise SecretUnavailable("secret_is_no_public_key") from None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise SecretUnavailable("secret_is_no_public_key")
        return key

    def _verify(self, key: Any, signature: bytes, message: bytes) -> None:
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))

    def _signature(self, message: bytes, secret: str) -> str:
        key = load_der_private_key(binascii.a2b_base64(secret), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return self.prefix + encode(key.sign(message, ec.ECDSA(hashes.SHA256())), self.encoding)
