"""Signatures of a form's fields rather than of its bytes: Twilio and Mandrill, and Braintree's two fields.

Sources: twilio 9.13.0 (`request_validator.py`), braintree 4.48.0 (`webhook_notification_gateway.py`), Mandrill's
"Authenticating webhook requests".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from chalicelib.postern.contract.deliveries import Delivery, Headers
from chalicelib.postern.contract.errors import InvalidPayload, InvalidSignature, SecretUnavailable
from chalicelib.postern.contract.payloads import FORM_TYPE, form_of
from chalicelib.postern.receiving.schemes.base import (
    MAX_CANDIDATES,
    Algorithm,
    Draft,
    Encoding,
    Fetch,
    Proof,
    Scheme,
    Signed,
    as_wire,
    encode,
    fetch_nothing,
    key_of,
    matching,
    present,
    required,
)
from chalicelib.postern.receiving.schemes.urls import spellings, with_and_without_port


def fields_of(body: bytes) -> list[tuple[str, str]]:
    """The fields of a form, blank ones too. Raises InvalidSignature."""
    try:
        return form_of(body.decode("utf-8"))
    except (UnicodeDecodeError, InvalidPayload):
        raise InvalidSignature("form_malformed") from None


def written_form(fields: Sequence[tuple[str, str]]) -> bytes:
    return urlencode(fields).encode()


def sent_as_form(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == FORM_TYPE


@dataclass(frozen=True, kw_only=True)
class UrlAndForm(Scheme):
    """HMAC of the URL and every field's name and value after it, sorted; of a repeated name each value once.

    Nothing stands between a name and its value, and a form has many spellings: what was signed can be written as other
    forms. They all have the same id in their proof, a hash of what was signed, and are one event.

    - `body_hash`: the parameter of the URL with the body's SHA-256 in hex, where the sender sends other things than
      forms; the URL alone is signed then.
    - `settings`: a header that says with `algorithm=HMAC_SHA256` that the sender uses the newer of two algorithms; it
      chooses between these two and nothing else.
    - The URL is tried in some spellings (`receiving.schemes.urls`).
    """

    header: str
    algorithm: Algorithm = "sha1"
    encoding: Encoding = "base64"
    body_hash: str = ""
    settings: str = ""

    @property
    def signs_id(self) -> bool:
        return True

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        given = required(delivery.headers, self.header)
        messages = self._messages(delivery)
        newer = "algorithm=HMAC_SHA256" in delivery.headers.get(self.settings, "").replace(" ", "").split(",")
        algorithm: Algorithm = "sha256" if self.settings and newer else self.algorithm
        expected = [self._signature(message, secret, algorithm) for secret in secrets for message in messages]
        secret, message = divmod(matching([given], expected), len(messages))
        return Proof(secret, signed_id=f"sha256:{hashlib.sha256(messages[message]).hexdigest()}")

    def sign(self, draft: Draft, secret: str) -> Signed:
        if sent_as_form(Headers(draft.headers.items())):
            message, query = draft.url + _sorted(fields_of(draft.body)), {}
        elif self.body_hash:
            query = {self.body_hash: hashlib.sha256(draft.body).hexdigest()}
            message = _with(draft.url, query)
        else:
            raise InvalidSignature("not_a_form")
        return Signed({self.header: self._signature(message.encode(), secret, self.algorithm)}, draft.body, query)

    def _messages(self, delivery: Delivery) -> list[bytes]:
        """What may have been signed: one of these."""
        if sent_as_form(delivery.headers):
            url, form = delivery.url, _sorted(fields_of(delivery.body))
        elif self.body_hash:
            hashes = [value for name, value in delivery.query if name == self.body_hash]
            if len(hashes) != 1:
                raise InvalidSignature("body_hash_missing")
            matching([as_wire(hashes[0])], [hashlib.sha256(delivery.body).hexdigest()])
            url, form = _with(delivery.url, {self.body_hash: hashes[0]}), ""
        else:
            raise InvalidSignature("not_a_form")
        urls = with_and_without_port(spellings(url, delivery.query))
        return [(each + form).encode("utf-8", "surrogatepass") for each in urls]

    def _signature(self, message: bytes, secret: str, algorithm: Algorithm) -> str:
        return encode(hmac.digest(key_of(secret, "text"), message, algorithm), self.encoding)


def _sorted(fields: Sequence[tuple[str, str]]) -> str:
    return "".join(name + value for name, value in sorted(set(fields)))


def _with(url: str, query: dict[str, str]) -> str:
    """The URL with this parameter: a source's own `url` has none of a single request's."""
    text = urlencode(query)
    if text in url.partition("?")[2].split("&"):
        return url
    return f"{url}{'&' if '?' in url else '?'}{text}"


_PAYLOAD = re.compile(r"[A-Za-z0-9+/=\n]+", re.ASCII)
# What the handshake signs for whoever asks can be no event.
_CHALLENGE = re.compile(r"[0-9a-f]{20,32}\n?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Braintree(Scheme):
    """Braintree: `bt_signature` is a list of `public key|HMAC-SHA1` of the text of `bt_payload`, base64 of XML.

    The secret is `public_key:private_key`, and the key the SHA-1 of the private one. The time in the XML is that of
    the event, which stays through the retries of a day; that the same payload is the same event is what keeps a
    captured one from having a second effect.
    """

    @property
    def covers_body(self) -> bool:
        # Another field beside the two is nobody's.
        return False

    @property
    def signs_id(self) -> bool:
        return True

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        fields = fields_of(delivery.body)
        signatures = [value for name, value in fields if name == "bt_signature"]
        payloads = [value for name, value in fields if name == "bt_payload"]
        if len(signatures) != 1 or len(payloads) != 1 or not signatures[0]:
            raise InvalidSignature("signature_missing")
        if not _PAYLOAD.fullmatch(payloads[0]) or _CHALLENGE.fullmatch(payloads[0]):
            raise InvalidSignature("payload_malformed")
        # The library has a form that lost its last line break verified, too.
        texts = [payloads[0], payloads[0] + "\n"]
        pairs = as_wire(signatures[0]).split("&", MAX_CANDIDATES)
        position = matching(pairs, [self._pair(text, secret) for secret in secrets for text in texts])
        secret, text = divmod(position, len(texts))
        return Proof(secret, signed_id=f"sha256:{hashlib.sha256(texts[text].encode()).hexdigest()}")

    def sign(self, draft: Draft, secret: str) -> Signed:
        """A payload that is still XML is written as Braintree writes it."""
        fields = dict(fields_of(draft.body))
        payload = fields["bt_payload"]
        if payload.startswith("<"):
            payload = base64.encodebytes(payload.encode()).decode()
        signed = {**fields, "bt_signature": self._pair(payload, secret), "bt_payload": payload}
        return Signed({}, written_form(list(signed.items())))

    def _pair(self, text: str, secret: str) -> str:
        public, _, private = present(secret).partition(":")
        if not public.strip() or not private.strip():
            raise SecretUnavailable("secret_is_not_public_key_colon_private_key")
        return f"{public}|{hmac.digest(key_of(private, 'sha1'), text.encode(), 'sha1').hex()}"
