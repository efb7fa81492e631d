"""Signatures by a certificate that the sender names and we fetch: AWS SNS and PayPal.

Everything that can be checked without the certificate is checked before it is fetched, the host above all: a URL that a
stranger chose would make us his client. The fetching itself follows no redirect (chalicelib.adapters.web).

Sources: docs.aws.amazon.com/sns "Verifying the signatures of Amazon SNS messages", npm sns-validator 0.3.5;
developer.paypal.com "Webhooks: verify a message", PyPI paypalrestsdk 1.13.3.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature as Mismatch
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from chalicelib.deliveries import Delivery
from chalicelib.errors import InvalidSignature, SecretUnavailable
from chalicelib.schemes.base import (
    Draft,
    Fetch,
    Proof,
    Scheme,
    Signed,
    check_age,
    decode,
    fetch_nothing,
    matching,
    present,
    required,
    wire,
    written,
)

# Whole: no user, no port, no other host before or behind it, nothing that another reader could take for one.
_SNS_HOST = r"https://sns\.[a-z0-9-]{3,30}\.amazonaws\.com(?:\.cn)?"
_SNS_CERTIFICATE = re.compile(rf"{_SNS_HOST}/[A-Za-z0-9._-]{{1,200}}\.pem", re.ASCII)
_SNS_SUBSCRIBE = re.compile(rf"{_SNS_HOST}/\?[A-Za-z0-9._~%=&:+-]{{1,2000}}", re.ASCII)
_PAYPAL_CERTIFICATE = re.compile(
    r"https://api(?:\.sandbox)?\.paypal\.com/v1/notifications/certs/[A-Za-z0-9_-]{1,200}", re.ASCII
)


def checked_sns_url(url: object) -> str:
    """The URL that confirms a subscription, if it is AWS's own; raises InvalidSignature."""
    if not isinstance(url, str) or not _SNS_SUBSCRIBE.fullmatch(url):
        raise InvalidSignature("foreign_url")
    return url


@dataclass(frozen=True, kw_only=True)
class Sns(Scheme):
    """AWS SNS over HTTP, not in raw delivery, which is unsigned. The source's secrets are the ARNs of its topics.

    RSA (PKCS #1 v1.5) over the body's own members; SignatureVersion 1 is SHA-1, 2 is SHA-256.
    """

    tolerance_seconds: int = 3600

    @property
    def covers_body(self) -> bool:
        # Its members are covered, and not the bytes around them.
        return False

    _NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
    _CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")

    @property
    def signs_id(self) -> bool:
        return True

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        message = _object(delivery.body)
        topic = _text(message, "TopicArn")
        position = matching([topic.encode().decode("latin-1")], [present(secret) for secret in secrets])
        check_age(_text(message, "Timestamp"), "iso", delivery.received_at, self.tolerance_seconds)
        url, signature = _text(message, "SigningCertURL"), decode(_text(message, "Signature"), "base64")
        if not _SNS_CERTIFICATE.fullmatch(url):
            raise InvalidSignature("foreign_url")
        algorithm = self._algorithm(message)
        signed = self._signed(message)
        _check(fetch(url), signature, signed, algorithm, delivery.received_at)
        return Proof(position, signed_id=_text(message, "MessageId"))

    def sign(self, draft: Draft, secret: str) -> Signed:
        """`secret`: the topic's ARN, then a private key in PEM."""
        topic, _, pem = secret.partition("\n")
        message: dict[str, Any] = {
            "Type": "Notification",
            "MessageId": draft.event_id,
            "Subject": "Order",
            "Timestamp": written(draft.now, "iso"),
            "SigningCertURL": "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0000.pem",
            **json.loads(draft.body),
            "TopicArn": topic,
            "SignatureVersion": "2",
        }
        message["Signature"] = base64.b64encode(_sign(pem, self._signed(message), hashes.SHA256())).decode()
        return Signed({}, json.dumps(message, indent=2).encode())

    def _algorithm(self, message: Mapping[str, Any]) -> hashes.HashAlgorithm:
        version = message.get("SignatureVersion")
        if version == "1":
            return hashes.SHA1()  # noqa: S303 -- what AWS signs with where the topic does not ask for version 2
        if version == "2":
            return hashes.SHA256()
        raise InvalidSignature("unknown_signature_version")

    def _signed(self, message: Mapping[str, Any]) -> bytes:
        names = self._NOTIFICATION if message.get("Type") == "Notification" else self._CONFIRMATION
        # A subject that is null stands for none.
        given = [name for name in names if message.get(name) is not None]
        return "".join(f"{name}\n{_text(message, name)}\n" for name in given).encode()


@dataclass(frozen=True, kw_only=True)
class PayPal(Scheme):
    """PayPal: RSA-SHA256 over `{id}|{time}|{webhook id}|{CRC32 of the body}`. The source's secret is the webhook's id.

    A CRC32 can be forged: who holds one delivery can make another body with the same signature. So the body counts as
    uncovered, the signed id is the key, which a forged body cannot change, and the time has to be fresh.
    """

    tolerance_seconds: int = 3600

    @property
    def covers_body(self) -> bool:
        return False

    @property
    def signs_id(self) -> bool:
        return True

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        headers = delivery.headers
        id, time = required(headers, "PAYPAL-TRANSMISSION-ID"), required(headers, "PAYPAL-TRANSMISSION-TIME")
        check_age(time, "iso", delivery.received_at, self.tolerance_seconds)
        if required(headers, "PAYPAL-AUTH-ALGO") != "SHA256withRSA":
            raise InvalidSignature("unknown_algorithm")
        signature = decode(required(headers, "PAYPAL-TRANSMISSION-SIG"), "base64")
        url = required(headers, "PAYPAL-CERT-URL")
        if not _PAYPAL_CERTIFICATE.fullmatch(url):
            raise InvalidSignature("foreign_url")
        signed = [self._signed(id, time, present(secret), delivery.body) for secret in secrets]
        if not signed:
            raise InvalidSignature("signature_mismatch")
        pem = fetch(url)
        for position, message in enumerate(signed):
            try:
                _check(pem, signature, message, hashes.SHA256(), delivery.received_at)
            except InvalidSignature:
                continue
            return Proof(position, signed_id=id)
        raise InvalidSignature("signature_mismatch")

    def sign(self, draft: Draft, secret: str) -> Signed:
        """`secret`: the webhook's id, then a private key in PEM."""
        webhook_id, _, pem = secret.partition("\n")
        time = written(draft.now, "iso")
        signature = _sign(pem, self._signed(draft.event_id, time, webhook_id, draft.body), hashes.SHA256())
        headers = {
            "PAYPAL-TRANSMISSION-ID": draft.event_id,
            "PAYPAL-TRANSMISSION-TIME": time,
            "PAYPAL-TRANSMISSION-SIG": base64.b64encode(signature).decode(),
            "PAYPAL-AUTH-ALGO": "SHA256withRSA",
            "PAYPAL-CERT-URL": "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-00000000-00000000",
        }
        return Signed(headers, draft.body)

    def _signed(self, id: str, time: str, webhook_id: str, body: bytes) -> bytes:
        return b"|".join((wire(id), wire(time), webhook_id.encode(), str(zlib.crc32(body)).encode()))


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidSignature("signature_missing") from None
    if not isinstance(found, dict):
        raise InvalidSignature("signature_missing")
    return found


def _text(message: Mapping[str, Any], name: str) -> str:
    found = message.get(name)
    if not isinstance(found, str) or not found:
        raise InvalidSignature(f"{name.lower()}_missing")
    try:
        found.encode()
    except UnicodeEncodeError:
        raise InvalidSignature(f"{name.lower()}_malformed") from None
    return found


def _check(pem: bytes, signature: bytes, message: bytes, algorithm: hashes.HashAlgorithm, at: datetime) -> None:
    """That the certificate is in force and its key made the signature. That it is the sender's, its host says."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except ValueError:
        raise SecretUnavailable("certificate_malformed") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise InvalidSignature("certificate_of_another_kind")
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise InvalidSignature("certificate_out_of_date")
    try:
        key.verify(signature, message, padding.PKCS1v15(), algorithm)
    except Mismatch:
        raise InvalidSignature("signature_mismatch") from None


def _sign(pem: str, message: bytes, algorithm: hashes.HashAlgorithm) -> bytes:
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.sign(message, padding.PKCS1v15(), algorithm)
