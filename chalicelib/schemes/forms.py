"""Signatures over the fields of a form: Twilio, Mandrill and Braintree. The form is parsed for it, and only for it.

Sources: PyPI twilio 9.13.0 (request_validator), PyPI braintree 4.48.0 (webhook_notification_gateway).
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import parse_qsl, urlencode, urlsplit

from chalicelib.deliveries import Delivery
from chalicelib.errors import InvalidPayload, InvalidSignature, SecretUnavailable
from chalicelib.payloads import form_of
from chalicelib.schemes.base import (
    MOST_CANDIDATES,
    Algorithm,
    Draft,
    Fetch,
    Proof,
    Scheme,
    Signed,
    encode,
    fetch_nothing,
    key_of,
    matching,
    required,
)


class _Fields(Scheme):
    @property
    def covers_body(self) -> bool:
        # The fields are covered, and not the bytes that they are written in.
        return False


@dataclass(frozen=True, kw_only=True)
class UrlAndForm(_Fields):
    """HMAC over the URL, then each field's name and value, sorted; base64, in a header.

    `digest`: the parameter of the URL that holds the hex SHA-256 of a body that is no form; the URL alone is signed
    then, and both have to be right. Names and values are joined without anything between them, so a signature also
    fits a form whose border between a name and its value was moved: what Twilio defines cannot be helped.
    """

    header: str
    algorithm: Algorithm = "sha1"
    digest: str = ""

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        given = required(delivery.headers, self.header)
        message = self._message(delivery.url, delivery.body)
        return Proof(matching([given], [self._signature(message, secret) for secret in secrets]))

    def sign(self, draft: Draft, secret: str) -> Signed:
        content_type = next((v for name, v in draft.headers.items() if name.lower() == "content-type"), "")
        query = {}
        url = draft.url
        if self.digest and not content_type.startswith("application/x-www-form-urlencoded"):
            query = {self.digest: sha256(draft.body).hexdigest()}
            url += "?" + urlencode(query)
        return Signed({self.header: self._signature(self._message(url, draft.body), secret)}, draft.body, query)

    def _message(self, url: str, body: bytes) -> bytes:
        digests = [value for name, value in parse_qsl(urlsplit(url).query) if self.digest and name == self.digest]
        if digests:
            if len(digests) > 1 or not hmac.compare_digest(digests[0].encode(), sha256(body).hexdigest().encode()):
                raise InvalidSignature("body_digest_mismatch")
            return url.encode()
        try:
            fields = form_of(body.decode("utf-8"))
        except (UnicodeDecodeError, InvalidPayload):
            raise InvalidSignature("not_a_form") from None
        # A repeated field: each of its values once, in their order.
        return (url + "".join(name + value for name, value in sorted(set(fields)))).encode()

    def _signature(self, message: bytes, secret: str) -> str:
        return encode(hmac.digest(key_of(secret, "text"), message, self.algorithm), "base64")


_PAYLOAD = re.compile(r"[A-Za-z0-9+/=\n]+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Braintree(_Fields):
    """Braintree: fields `bt_signature` (`public key|hex`, several joined by `&`) and `bt_payload` (base64 of XML).

    HMAC-SHA1 of the payload's text, keyed with the SHA-1 of the private key. The secret is `public_key:private_key`.
    """

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        signature, payload = self._fields(delivery.body)
        pairs = [pair.partition("|") for pair in signature.split("&")[:MOST_CANDIDATES]]
        expected, candidates = [], []
        for secret in secrets:
            public, private = _keys(secret)
            candidates += [given for name, _, given in pairs if name == public]
            expected.append(self._digest(payload, private))
        return Proof(matching(candidates[:MOST_CANDIDATES], expected))

    def sign(self, draft: Draft, secret: str) -> Signed:
        public, private = _keys(secret)
        payload = base64.encodebytes(draft.body).decode()
        form = {"bt_signature": f"{public}|{self._digest(payload, private)}", "bt_payload": payload}
        return Signed({}, urlencode(form).encode())

    def _fields(self, body: bytes) -> tuple[str, str]:
        try:
            fields = form_of(body.decode("utf-8"))
        except (UnicodeDecodeError, InvalidPayload):
            raise InvalidSignature("not_a_form") from None
        signatures = [value for name, value in fields if name == "bt_signature"]
        texts = [value for name, value in fields if name == "bt_payload"]
        # No other field is signed, so there is to be none.
        if len(fields) != 2 or len(signatures) != 1 or len(texts) != 1 or not _PAYLOAD.fullmatch(texts[0]):
            raise InvalidSignature("signature_missing")
        return signatures[0], texts[0]

    def _digest(self, payload: str, private: str) -> str:
        return hmac.digest(key_of(private, "sha1"), payload.encode(), "sha1").hex()


def _keys(secret: str) -> tuple[str, str]:
    public, colon, private = secret.partition(":")
    if not (colon and public and private.strip()):
        raise SecretUnavailable("secret_is_not_public_colon_private_key")
    return public, private
