"""Signatures by a certificate that the delivery names: AWS SNS and PayPal.

Who may name one is the question. The URL must be one of the provider's own, spelled plainly, and nothing is fetched
before all else was checked. What the provider's host answers over TLS is trusted; the certificate's dates are checked.

The secret's first line says whose deliveries are meant: SNS's topic, PayPal's webhook. An installation that fetches
nothing (no way out of its network, or a local run) has two more parts below it: the certificate's URL on a line, and
the certificate as PEM. Only this one is then accepted. Samples are signed with the same, the certificate's private
key in its place.

Sources: AWS's "Verifying the signatures of Amazon SNS messages" and sns-validator 0.3.5; PayPal's "Verify webhook
signature" and paypalrestsdk 1.13.3. `cryptography` is imported with this module.
"""

from __future__ import annotations

import json
import re
from binascii import crc32
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature as Mismatch
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

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
    decode,
    encode,
    fetch_nothing,
    matching,
    present,
    required,
    wire,
    written,
)

# Whole URLs: no user, port, escape or fragment has a place in them.
# A region, and not the s3-… that S3 once had there.
_SNS_HOST = r"https://sns\.[a-z]{2,3}(?:-[a-z]+){1,3}-[0-9]{1,2}\.amazonaws\.com(?:\.cn)?"
_SNS_CERTIFICATE = re.compile(_SNS_HOST + r"/[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}\.pem", re.ASCII)
_SNS_ACTION = re.compile(_SNS_HOST + r"/(?:\?[A-Za-z0-9._~:/?@!$&'()*+,;=%-]{0,2000})?", re.ASCII)
_PAYPAL_CERTIFICATE = re.compile(
    r"https://api\.(?:sandbox\.)?paypal\.com/v1/notifications/certs/[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}", re.ASCII
)


def checked_sns_url(url: object) -> str:
    """`url`, if it is one of AWS SNS's own that a subscription is confirmed at. Raises InvalidSignature."""
    if not isinstance(url, str) or not _SNS_ACTION.fullmatch(url):
        raise InvalidSignature("subscribe_url")
    return url


@dataclass(frozen=True)
class _Named:
    """A secret: a name, and what belongs to the certificate at this URL where it is known in advance."""

    name: str
    url: str
    pem: str

    @classmethod
    def parse(cls, secret: str) -> _Named:
        name, _, rest = present(secret).strip().partition("\n")
        url, _, pem = rest.strip().partition("\n")
        return cls(name.strip(), url.strip(), pem)


def _check(
    known: _Named,
    url: str,
    signature: bytes,
    message: bytes,
    algorithm: hashes.HashAlgorithm,
    now: datetime,
    fetch: Fetch,
) -> None:
    """Raises InvalidSignature, or SecretUnavailable where the certificate cannot be had."""
    if known.url and url != known.url:
        raise InvalidSignature("certificate_unknown")
    try:
        certificate = x509.load_pem_x509_certificate(known.pem.encode() if known.url else fetch(url))
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        # A host that is ill answers 200 with a page, and is well the next time.
        raise SecretUnavailable("secret_is_no_certificate" if known.url else "certificate_malformed") from None
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise InvalidSignature("certificate_out_of_date")
    if not isinstance(key, rsa.RSAPublicKey):
        raise InvalidSignature("certificate_malformed")
    try:
        key.verify(signature, message, padding.PKCS1v15(), algorithm)
    except Mismatch:
        raise InvalidSignature("signature_mismatch") from None


def _checked(
    known: Sequence[tuple[int, _Named, bytes]],
    url: str,
    signature: bytes,
    algorithm: hashes.HashAlgorithm,
    now: datetime,
    fetch: Fetch,
) -> int:
    """The position whose text this is the signature of. Raises as `_check` does."""
    failure = InvalidSignature("signature_mismatch")
    for position, each, message in known:
        try:
            _check(each, url, signature, message, algorithm, now, fetch)
        except InvalidSignature as exc:
            failure = exc
            continue
        return position
    raise failure


def _signature(known: _Named, message: bytes) -> str:
    key = load_pem_private_key(known.pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return encode(key.sign(message, padding.PKCS1v15(), hashes.SHA256()), "base64")


_CONFIRMATION = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_SIGNED_FIELDS = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": _CONFIRMATION,
    "UnsubscribeConfirmation": _CONFIRMATION,
}


class _Public(Scheme):
    def confidential(self, secret: str) -> str:
        """A topic's or webhook's name and a certificate: whoever has them verifies, and signs nothing."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Sns(_Public):
    """AWS SNS: RSA over the named fields of the JSON body; the secret is the topic's ARN.

    Anybody can have a topic, and AWS signs for everybody: the ARN is what makes a message ours. `SignatureVersion` is
    not signed, and says which hash was; `versions` are those that are accepted.
    """

    tolerance_seconds: int = 3600
    versions: Sequence[str] = ("1", "2")

    @property
    def covers_body(self) -> bool:
        # All that a message says is signed; MessageAttributes, UnsubscribeURL and white space are not.
        return False

    @property
    def signs_id(self) -> bool:
        return True

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        message = _object(delivery.body)
        text = _text_to_sign(message)
        version = message.get("SignatureVersion")
        if version not in self.versions:
            raise InvalidSignature("signature_version")
        check_age(message["Timestamp"], "iso", delivery.received_at, self.tolerance_seconds)
        known = [_Named.parse(secret) for secret in secrets]
        topic = known[matching([as_wire(message["TopicArn"])], [each.name for each in known])].name
        url, given = message.get("SigningCertURL"), message.get("Signature")
        if not isinstance(url, str) or not _SNS_CERTIFICATE.fullmatch(url):
            raise InvalidSignature("certificate_url")
        if not isinstance(given, str):
            raise InvalidSignature("signature_missing")
        algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()  # nosec B303  # noqa: S303 -- SNS's version 1
        signature = decode(given, "base64")
        of_topic = [(position, each, text) for position, each in enumerate(known) if each.name == topic]
        position = _checked(of_topic, url, signature, algorithm, delivery.received_at, fetch)
        return Proof(position, signed_id=message["MessageId"])

    def sign(self, draft: Draft, secret: str) -> Signed:
        """The body becomes a message from the secret's topic, with what it lacks for one."""
        known = _Named.parse(secret)
        message = {
            "Type": "Notification",
            "MessageId": draft.event_id,
            "Message": "",
            "Timestamp": written(draft.now, "iso"),
            **json.loads(draft.body),
            "TopicArn": known.name,
            "SignatureVersion": "2",
            "SigningCertURL": known.url,
        }
        message["Signature"] = _signature(known, _text_to_sign(message))
        return Signed({}, json.dumps(message, indent=2, ensure_ascii=False).encode())


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InvalidSignature("body_malformed") from None
    if not isinstance(found, dict):
        raise InvalidSignature("body_malformed")
    return found


def _text_to_sign(message: Mapping[str, Any]) -> bytes:
    """A line with its name before each field's text; a subject is the one that may be missing.

    A message may have lines in it that look like the next fields'. No other field has a line break, so that where the
    message ends is told from behind, and nobody can have it end sooner and another MessageId follow.
    """
    type = message.get("Type")
    lines = []
    for name in _SIGNED_FIELDS.get(type if isinstance(type, str) else "", ()):
        value = message.get(name)
        if value is None and name == "Subject":
            continue
        if not isinstance(value, str) or not (value or name in ("Message", "Subject")):
            raise InvalidSignature("body_malformed")
        if name != "Message" and "\n" in value:
            raise InvalidSignature("body_malformed")
        lines.append(f"{name}\n{value}\n")
    if not lines:
        raise InvalidSignature("body_malformed")
    return "".join(lines).encode("utf-8", "surrogatepass")


@dataclass(frozen=True, kw_only=True)
class PayPal(_Public):
    """PayPal: RSA-SHA256 over `{transmission id}|{time}|{webhook id}|{CRC-32 of the body}`.

    The secret is the webhook's id. A CRC-32 is no hash: to a captured delivery anybody finds another body with the same
    one. So the proof's id is the transmission's, which is signed: such a body is the same event as the one it was made
    from, and has no effect beside it. PayPal sends again for three days, and does not say whether under a new time:
    that is the tolerance.
    """

    tolerance_seconds: int = 259_200

    @property
    def covers_body(self) -> bool:
        return False

    @property
    def signs_id(self) -> bool:
        return True

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        id, time, given, url, algorithm = (required(delivery.headers, f"PAYPAL-{name}") for name in _PAYPAL_HEADERS)
        if algorithm != "SHA256withRSA":
            raise InvalidSignature("signature_version")
        check_age(time, "iso", delivery.received_at, self.tolerance_seconds)
        if not _PAYPAL_CERTIFICATE.fullmatch(url):
            raise InvalidSignature("certificate_url")
        signature = decode(given, "base64")
        known = [_Named.parse(secret) for secret in secrets]
        each = [(at, one, _transmission(id, time, one.name, delivery.body)) for at, one in enumerate(known)]
        position = _checked(each, url, signature, hashes.SHA256(), delivery.received_at, fetch)
        return Proof(position, signed_id=id)

    def sign(self, draft: Draft, secret: str) -> Signed:
        known = _Named.parse(secret)
        time = written(draft.now, "iso")
        signature = _signature(known, _transmission(draft.event_id, time, known.name, draft.body))
        values = (draft.event_id, time, signature, known.url, "SHA256withRSA")
        return Signed(
            {f"PAYPAL-{name}": value for name, value in zip(_PAYPAL_HEADERS, values, strict=True)}, draft.body
        )


_PAYPAL_HEADERS = ("TRANSMISSION-ID", "TRANSMISSION-TIME", "TRANSMISSION-SIG", "CERT-URL", "AUTH-ALGO")


def _transmission(id: str, time: str, webhook: str, body: bytes) -> bytes:
    return b"|".join([wire(id), wire(time), webhook.encode(), str(crc32(body)).encode()])
