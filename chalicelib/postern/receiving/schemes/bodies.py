"""Signatures in the body, of some of its fields: Mailgun, and Adyen's payments.

The body has to be read for it, and nothing of it is used before. The other fields are not signed.

Sources: Mailgun's "Securing webhooks" and mailgun 1.10.0 (`security.py`); Adyen 16.0.0 (`util.py`) and its Node
library 32.1.0 (`hmacValidator.js`).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chalicelib.postern.contract.deliveries import Delivery, Headers
from chalicelib.postern.contract.errors import InvalidSignature
from chalicelib.postern.receiving.naming import at
from chalicelib.postern.receiving.schemes.base import (
    Algorithm,
    Draft,
    Encoding,
    Fetch,
    Proof,
    Scheme,
    SecretEncoding,
    Signed,
    Unit,
    as_wire,
    check_age,
    encode,
    fetch_nothing,
    key_of,
    matching,
    written,
)
from chalicelib.postern.receiving.schemes.forms import fields_of, sent_as_form, written_form

# Each costs a signature for every secret; Adyen sends one.
_MAX_ITEMS = 100


def _json(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8"), strict=False)
    except (ValueError, RecursionError):
        raise InvalidSignature("body_malformed") from None


@dataclass(frozen=True, kw_only=True)
class BodyFields(Scheme):
    """HMAC of a time and a token, all three in the body: in the JSON object at `within`, or fields of a form.

    Nothing else is signed, so whoever sees one delivery can make any other with its time and token. The token is the
    proof's id: such a body is the same event, and has no effect beside the real one.
    """

    within: str
    timestamp: str = "timestamp"
    token: str = "token"
    signature: str = "signature"
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    unit: Unit = "s"
    tolerance_seconds: int = 300

    @property
    def covers_body(self) -> bool:
        return False

    @property
    def signs_id(self) -> bool:
        return True

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        fields = self._fields(delivery)
        timestamp = fields.get(self.timestamp)
        if isinstance(timestamp, int) and not isinstance(timestamp, bool):
            timestamp = str(timestamp)
        token, given = fields.get(self.token), fields.get(self.signature)
        if not isinstance(timestamp, str) or not isinstance(token, str) or not isinstance(given, str):
            raise InvalidSignature("signature_missing")
        if not token or not given:
            raise InvalidSignature("signature_missing")
        check_age(timestamp, self.unit, delivery.received_at, self.tolerance_seconds)
        secret = matching([as_wire(given)], [self._signature(timestamp, token, each) for each in secrets])
        return Proof(secret, signed_id=token)

    def sign(self, draft: Draft, secret: str) -> Signed:
        timestamp, token = written(draft.now, self.unit), draft.event_id
        signed = {
            self.timestamp: timestamp,
            self.token: token,
            self.signature: self._signature(timestamp, token, secret),
        }
        if sent_as_form(Headers(draft.headers.items())):
            return Signed({}, written_form([*fields_of(draft.body), *signed.items()]))
        body = {**json.loads(draft.body), self.within: signed}
        return Signed({}, json.dumps(body, indent=2, ensure_ascii=False).encode())

    def _fields(self, delivery: Delivery) -> Mapping[str, Any]:
        if not sent_as_form(delivery.headers):
            found = at(_json(delivery.body), self.within)
            return found if isinstance(found, dict) else {}
        fields = fields_of(delivery.body)
        names = [name for name, _ in fields]
        if any(names.count(name) > 1 for name in (self.timestamp, self.token, self.signature)):
            raise InvalidSignature("signature_repeated")
        return dict(fields)

    def _signature(self, timestamp: str, token: str, secret: str) -> str:
        message = (timestamp + token).encode("utf-8", "surrogatepass")
        return encode(hmac.digest(key_of(secret, "text"), message, self.algorithm), self.encoding)


_ADYEN_ITEMS = "notificationItems"
_ADYEN_ITEM = "NotificationRequestItem"
_ADYEN_FIELDS = (
    "pspReference",
    "originalReference",
    "merchantAccountCode",
    "merchantReference",
    "amount.value",
    "amount.currency",
    "eventCode",
    "success",
)


@dataclass(frozen=True, kw_only=True)
class Adyen(Scheme):
    """Adyen's payments: HMAC-SHA256 of eight fields of each item, in the item; every item is checked.

    The fields are joined by colons. The merchant's own reference may have colons in it; one in another field could
    be a piece of a neighbour's, which would be another event under the same signature, and is refused.
    """

    key_encoding: SecretEncoding = "hex"

    @property
    def covers_body(self) -> bool:
        return False

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        """The secret is the first item's; another item may have been signed with another."""
        items = at(_json(delivery.body), _ADYEN_ITEMS)
        if not isinstance(items, list) or not items:
            raise InvalidSignature("signature_missing")
        if len(items) > _MAX_ITEMS:
            raise InvalidSignature("too_many_signatures")
        positions = []
        for each in items:
            given = at(each, f"{_ADYEN_ITEM}.additionalData.hmacSignature")
            if not isinstance(given, str) or not given:
                raise InvalidSignature("signature_missing")
            message = _message(at(each, _ADYEN_ITEM))
            positions.append(matching([as_wire(given)], [self._signature(message, secret) for secret in secrets]))
        return Proof(positions[0])

    def sign(self, draft: Draft, secret: str) -> Signed:
        payload = json.loads(draft.body)
        for each in payload[_ADYEN_ITEMS]:
            item = each[_ADYEN_ITEM]
            signature = self._signature(_message(item), secret)
            item["additionalData"] = {**item.get("additionalData", {}), "hmacSignature": signature}
        return Signed({}, json.dumps(payload, indent=2, ensure_ascii=False).encode())

    def _signature(self, message: bytes, secret: str) -> str:
        return encode(hmac.digest(key_of(secret, self.key_encoding), message, "sha256"), "base64")


def _message(item: Any) -> bytes:
    values = {name: _text(at(item, name)) for name in _ADYEN_FIELDS}
    if any(":" in value for name, value in values.items() if name != "merchantReference"):
        raise InvalidSignature("body_malformed")
    return ":".join(values.values()).encode("utf-8", "surrogatepass")


def _text(value: Any) -> str:
    """A value as Adyen signs it: what is missing is empty, and an amount is a whole number."""
    if value is None:
        return ""
    # A truth value would sign as the text does, and name another event.
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise InvalidSignature("body_malformed")
