"""Certificates as AWS and PayPal have them, made for a test; and what a source's secret and a sender's look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from chalicelib.postern.contract.errors import SecretUnavailable


@dataclass(frozen=True)
class Certificate:
    url: str
    key: rsa.RSAPrivateKey
    key_pem: str
    pem: str

    def pinned(self, name: str) -> str:
        """The secret of a source that fetches nothing."""
        return f"{name}\n{self.url}\n{self.pem}"

    def signing(self, name: str) -> str:
        """What the sender has."""
        return f"{name}\n{self.url}\n{self.key_pem}"


def certificate(url: str, now: datetime, *, before: timedelta = timedelta(days=1), days: int = 365) -> Certificate:
    """Valid from `before` now, for so many days."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signer.example.com")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - before)
        .not_valid_after(now - before + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return Certificate(url, key, key_pem, made.public_bytes(serialization.Encoding.PEM).decode())


def fetching(*known: Certificate) -> Callable[[str], bytes]:
    """Gets these, and nothing else."""
    pems = {each.url: each.pem.encode() for each in known}

    def fetch(url: str) -> bytes:
        if url not in pems:
            raise SecretUnavailable("fetch_failed")
        return pems[url]

    return fetch
