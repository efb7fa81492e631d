"""Signatures that stand in the body, over some of its members only: Mailgun and Adyen. The body is read for it.

Sources: documentation.mailgun.com "Securing webhooks", PyPI mailgun 1.10; PyPI Adyen 16.0.0 (util.py).
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chalicelib.deliveries import Delivery
from chalicelib.errors import InvalidPayload, InvalidSignature
from chalicelib.naming import at
from chalicelib.payloads import form_of
from chalicelib.schemes.base import (
    Draft,
    Fetch,
    Proof,
    Scheme,
    Signed,
    check_age,
    encode,
    fetch_nothing,
    key_of,
    matching,
    written,
)

_MOST_ITEMS = 1_000


@dataclass(frozen=True, kw_only=True)
class Mailgun(Scheme):
    """Mailgun: HMAC-SHA256, hex, of `timestamp` and `token`, all three in `signature` or fields of a form.

    The event is not covered: who sees one delivery can make another with its signature. The token is the signed id,
    so that each is good for one event, and the time has to be fresh.
    """

    tolerance_seconds: int = 900

    @property
    def covers_body(self) -> bool:
        return False

    @property
    def signs_id(self) -> bool:
        return True

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        found = self._found(delivery)
        timestamp, token, given = (_text(found.get(name)) for name in ("timestamp", "token", "signature"))
        check_age(timestamp, "s", delivery.received_at, self.tolerance_seconds)
        position = matching([given], [self._signature(timestamp, token, secret) for secret in secrets])
        return Proof(position, signed_id=token)

    def sign(self, draft: Draft, secret: str) -> Signed:
        timestamp, token = written(draft.now, "s"), draft.event_id.replace("-", "")
        signature = self._signature(timestamp, token, secret)
        payload = json.loads(draft.body)
        payload["signature"] = {"timestamp": timestamp, "token": token, "signature": signature}
        return Signed({}, json.dumps(payload, indent=2).encode())

    def _found(self, delivery: Delivery) -> Mapping[str, Any]:
        if (delivery.headers.get("content-type") or "").lower().startswith("application/x-www-form-urlencoded"):
            try:
                return dict(form_of(delivery.body.decode("utf-8")))
            except (UnicodeDecodeError, InvalidPayload):
                raise InvalidSignature("not_a_form") from None
        payload = _json(delivery.body)
        found = payload.get("signature") if isinstance(payload, dict) else None
        if not isinstance(found, dict):
            raise InvalidSignature("signature_missing")
        return found

    def _signature(self, timestamp: str, token: str, secret: str) -> str:
        return hmac.digest(key_of(secret, "text"), f"{timestamp}{token}".encode(), "sha256").hex()


@dataclass(frozen=True, kw_only=True)
class Adyen(Scheme):
    """Adyen's payment webhooks: each item holds a signature of eight of its members; HMAC-SHA256, base64, hex key.

    All items are checked, unlike Adyen's own library, which checks the first. What is not among the eight members is
    not covered; these name the event, so a forged remainder cannot make another of it.
    """

    _MEMBERS = (
        "pspReference",
        "originalReference",
        "merchantAccountCode",
        "merchantReference",
        "amount.value",
        "amount.currency",
        "eventCode",
        "success",
    )

    @property
    def covers_body(self) -> bool:
        return False

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        items = at(_json(delivery.body), "notificationItems")
        if not isinstance(items, list) or not 0 < len(items) <= _MOST_ITEMS:
            raise InvalidSignature("signature_missing")
        return Proof(max(self._verify(at(item, "NotificationRequestItem"), secrets) for item in items))

    def sign(self, draft: Draft, secret: str) -> Signed:
        payload = json.loads(draft.body)
        for item in payload["notificationItems"]:
            inner = item["NotificationRequestItem"]
            inner.setdefault("additionalData", {})["hmacSignature"] = self._signature(self._signed(inner), secret)
        return Signed({}, json.dumps(payload, indent=2).encode())

    def _verify(self, item: Any, secrets: Sequence[str]) -> int:
        given = _text(at(item, "additionalData.hmacSignature"))
        signed = self._signed(item)
        return matching([given], [self._signature(signed, secret) for secret in secrets])

    def _signed(self, item: Any) -> bytes:
        texts = []
        for member in self._MEMBERS:
            value = at(item, member)
            if isinstance(value, bool | float | list | dict):
                raise InvalidSignature("member_malformed")
            texts.append("" if value is None else str(value))
        try:
            return ":".join(texts).encode()
        except UnicodeEncodeError:
            raise InvalidSignature("member_malformed") from None

    def _signature(self, signed: bytes, secret: str) -> str:
        return encode(hmac.digest(key_of(secret, "hex"), signed, "sha256"), "base64")


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidSignature("signature_missing") from None


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**15:
        value = str(value)
    if not isinstance(value, str) or not value or not value.isascii():
        raise InvalidSignature("signature_missing")
    return value
