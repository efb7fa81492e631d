"""HMAC of a request written down in the provider's own way, headers and all: Contentful, and Coinbase's CDP (Hook0).

The delivery names the headers that are signed; the list is signed with them, so it is the sender's.

Sources: @contentful/node-apps-toolkit (`requests`); CDP's "Verify signatures" and Hook0's documentation.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from chalicelib.postern.contract.deliveries import Delivery
from chalicelib.postern.contract.errors import InvalidSignature
from chalicelib.postern.receiving.naming import HEADER_NAME
from chalicelib.postern.receiving.schemes.base import (
    MAX_CANDIDATES,
    Draft,
    Fetch,
    Proof,
    Scheme,
    Signed,
    Unit,
    check_age,
    fetch_nothing,
    key_of,
    matching,
    required,
    wire,
    written,
)

_MAX_HEADERS = 64


class _Canonical(Scheme):
    @property
    def signs_id(self) -> bool:
        return True


def _hmac(message: bytes, secret: str) -> str:
    return hmac.digest(key_of(secret, "text"), message, "sha256").hex()


def _names(listed: str, separator: str) -> list[str]:
    """The names of headers in a list, each once and in lower case."""
    names = listed.split(separator)
    if len(names) > _MAX_HEADERS or len(set(names)) != len(names):
        raise InvalidSignature("headers_malformed")
    if any(not HEADER_NAME.fullmatch(name) or name != name.lower() or "." in name for name in names):
        raise InvalidSignature("headers_malformed")
    return names


@dataclass(frozen=True, kw_only=True)
class Contentful(_Canonical):
    """Contentful: method, path, the headers that it lists, and body, each on a line.

    `id`: the header with an id that is the proof's, if it is among the signed ones.
    """

    tolerance_seconds: int = 30
    id: str = "X-Contentful-Idempotency-Key"

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        given = required(delivery.headers, _SIGNATURE)
        timestamp = required(delivery.headers, _TIMESTAMP)
        check_age(timestamp, "ms", delivery.received_at, self.tolerance_seconds)
        listed = required(delivery.headers, _SIGNED_HEADERS)
        names = _names(listed, ",")
        if not {_SIGNED_HEADERS, _TIMESTAMP} <= set(names) or names != sorted(names):
            raise InvalidSignature("headers_malformed")
        values = {name: required(delivery.headers, name) for name in names}
        message = _request(delivery.method, delivery.url, values, delivery.body)
        secret = matching([given], [_hmac(message, each) for each in secrets])
        return Proof(secret, signed_id=values.get(self.id.lower()))

    def sign(self, draft: Draft, secret: str) -> Signed:
        """Its own headers are signed, as far as the draft has them."""
        own = {name.lower(): value for name, value in draft.headers.items() if name.lower().startswith("x-contentful-")}
        values = {**own, self.id.lower(): draft.event_id, _TIMESTAMP: written(draft.now, "ms"), _SIGNED_HEADERS: ""}
        values[_SIGNED_HEADERS] = ",".join(sorted(values))
        values = dict(sorted(values.items()))
        signature = _hmac(_request(draft.method, draft.url, values, draft.body), secret)
        added = {name: values[name] for name in (self.id.lower(), _TIMESTAMP, _SIGNED_HEADERS)}
        return Signed({**added, _SIGNATURE: signature}, draft.body)


_SIGNATURE = "x-contentful-signature"
_TIMESTAMP = "x-contentful-timestamp"
_SIGNED_HEADERS = "x-contentful-signed-headers"


def _request(method: str, url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = ";".join(f"{name}:{value}" for name, value in headers.items())
    return b"\n".join([method.encode(), _path(url).encode(), wire(lines), body])


def _path(url: str) -> str:
    """JavaScript's encodeURI of the path, and of the query after querystring.escape."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidSignature("url_malformed") from None
    query = quote(parts.query, safe="!~*'()-_.", errors="surrogatepass")
    path = f"{parts.path}?{query}" if query else parts.path
    return quote(path, safe=";,/?:@&=+$-_.!~*'()#", errors="surrogatepass")


@dataclass(frozen=True, kw_only=True)
class Hook0(_Canonical):
    """Hook0, as Coinbase's CDP has it: `t=…,h=names,v1=hex` over `{t}.{names}.{values}.{body}`.

    `v0`, which stands beside it and leaves the headers out, is not taken: the id stands in a header. `id_headers`: the
    headers with an id; the first that is signed is the proof's. Values are joined by dots, so one with a dot in it
    could be a piece of its neighbour's: up to the id there is none.
    """

    header: str = "X-Hook0-Signature"
    unit: Unit = "s"
    tolerance_seconds: int = 300
    id_headers: Sequence[str] = ("x-event-id", "x-hook0-id")

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        entries = required(delivery.headers, self.header).split(",", MAX_CANDIDATES)
        timestamp, listed = _entry(entries, "t="), _entry(entries, "h=")
        check_age(timestamp, self.unit, delivery.received_at, self.tolerance_seconds)
        values = {name: required(delivery.headers, name) for name in _names(listed, " ")}
        id = next((name for name in self.id_headers if name in values), None)
        if id is not None and any("." in values[name] for name in [*values][: [*values].index(id) + 1]):
            raise InvalidSignature("headers_malformed")
        message = self._message(timestamp, values, delivery.body)
        given = [entry.removeprefix("v1=") for entry in entries if entry.startswith("v1=")]
        secret = matching(given, [_hmac(message, each) for each in secrets])
        return Proof(secret, signed_id=values[id] if id is not None else None)

    def sign(self, draft: Draft, secret: str) -> Signed:
        known = {name.lower(): value for name, value in draft.headers.items()}
        known = {**known, self.id_headers[0]: draft.event_id}
        values = {name: known[name] for name in ("content-type", self.id_headers[0], "x-event-type") if name in known}
        timestamp = written(draft.now, self.unit)
        signature = _hmac(self._message(timestamp, values, draft.body), secret)
        entries = f"t={timestamp},h={' '.join(values)},v1={signature}"
        return Signed({self.header: entries, self.id_headers[0]: draft.event_id}, draft.body)

    def _message(self, timestamp: str, values: Mapping[str, str], body: bytes) -> bytes:
        return wire(f"{timestamp}.{' '.join(values)}.{'.'.join(values.values())}.") + body


def _entry(entries: Sequence[str], prefix: str) -> str:
    found = [entry.removeprefix(prefix) for entry in entries if entry.startswith(prefix)]
    if len(found) != 1 or not found[0]:
        raise InvalidSignature("signature_malformed")
    return found[0]
