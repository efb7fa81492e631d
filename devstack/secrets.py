"""The sources' secrets of a local run: the user's own file, or development secrets made on the first run."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import ECAlgorithm

from chalicelib.postern.receiving.schemes.hmacs import Hmac, StandardWebhooks
from chalicelib.postern.receiving.schemes.shared import Basic, Token
from chalicelib.postern.receiving.sources import SIGNING_KEY, VERIFY_TOKEN, Source
from devstack.errors import StartError
from devstack.processes import write_atomically


def read_secrets(file: Path) -> dict[str, str | list[str]]:
    """Source name -> secret, or list of secrets. Raises StartError; its sentence quotes no secret."""
    try:
        found: Any = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError) as exc:
        raise StartError(f"The secrets file {file} is not readable JSON ({type(exc).__name__}).") from None
    if not isinstance(found, dict):
        raise StartError(f"The secrets file {file} is not a JSON object of source name to secret.")
    for source, value in found.items():
        for secret in value if isinstance(value, list) else [value]:
            if not isinstance(secret, str | dict) or not secret:
                raise StartError(f"The secrets file {file}: '{source}' is not a secret or a list of secrets.")
    return found


def ensure_development_secrets(file: Path, sources: Mapping[str, Source]) -> None:
    """Makes a secret for each source that needs one and has none yet; those that are there stay as they are."""
    known = read_secrets(file) if file.exists() else {}
    made: dict[str, str] = {}
    for source in sources.values():
        if source.needs_secret and source.name not in known:
            made |= {source.name + suffix: value for suffix, value in development_secrets(source).items()}
    if made:
        write_atomically(file, json.dumps({**known, **made}, indent=2) + "\n")


def development_secrets(source: Source) -> dict[str, str]:
    """Of the form that the source takes, by what follows its name: "" for the secret, SIGNING_KEY for the sender's."""
    scheme = source.scheme
    found = {"": secrets.token_urlsafe(32)}
    match scheme:
        case StandardWebhooks(secret_encoding="base64"):
            found = {"": f"whsec_{_base64(secrets.token_bytes(32))}"}
        case Hmac(secret_encoding="base64"):
            found = {"": scheme.secret_prefix + _base64(secrets.token_bytes(32))}
        case Hmac(secret_encoding="hex"):
            found = {"": secrets.token_hex(32)}
        case Basic():
            found = {"": f"postern:{secrets.token_urlsafe(24)}"}
        case Hmac() | StandardWebhooks() | Token():
            pass
        case _:
            found = _of_special(source)
    if source.provider == "stripe":
        found = {"": f"whsec_{secrets.token_hex(24)}"}
    if any(handshake["reply"] == "subscribe" for handshake in source.handshakes):
        found[VERIFY_TOKEN] = secrets.token_urlsafe(16)
    return found


def _of_special(source: Source) -> dict[str, str]:
    """For schemes whose modules are imported only where a source has one."""
    match type(source.scheme).__name__:
        case "Ed25519":
            return _ed25519(getattr(source.scheme, "key_encoding", "hex"))
        case "Ecdsa":
            return _ecdsa()
        case "Sns":
            topic = f"arn:aws:sns:us-east-1:000000000000:orders-{secrets.token_hex(4)}"
            return _certified(topic, "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0000.pem")
        case "PayPal":
            url = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-00000000-00000000"
            return _certified(f"WH-{secrets.token_hex(8)}", url)
        case "Adyen":
            return {"": secrets.token_hex(32)}
        case "Braintree":
            return {"": f"{secrets.token_hex(8)}:{secrets.token_hex(16)}"}
        case "Jwt" if getattr(source.scheme, "algorithm", "") == "ES256":
            return _jwk()
    return {"": secrets.token_urlsafe(32)}


def _ed25519(encoding: str) -> dict[str, str]:
    key = ed25519.Ed25519PrivateKey.generate()
    write = bytes.hex if encoding == "hex" else _base64
    return {"": write(key.public_key().public_bytes_raw()), SIGNING_KEY: write(key.private_bytes_raw())}


def _ecdsa() -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return {"": _base64(public), SIGNING_KEY: _base64(private)}


def _jwk() -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    private = {**ECAlgorithm.to_jwk(key, as_dict=True), "kid": secrets.token_hex(8), "alg": "ES256"}
    public = {name: value for name, value in private.items() if name != "d"}
    return {"": json.dumps(public), SIGNING_KEY: json.dumps(private)}


def _certified(name: str, url: str) -> dict[str, str]:
    """With a certificate in the secret, nothing is fetched."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "development")])
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2120, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return {"": f"{name}\n{url}\n{certificate}", SIGNING_KEY: f"{name}\n{url}\n{pem}"}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
