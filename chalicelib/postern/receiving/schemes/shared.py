"""A shared secret that is sent along, or none at all. The body is not covered: who sees one delivery makes others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.postern.contract.deliveries import Delivery
from chalicelib.postern.contract.errors import InvalidSignature, SecretUnavailable
from chalicelib.postern.receiving.schemes.base import (
    Draft,
    Fetch,
    Proof,
    Scheme,
    Signed,
    as_wire,
    encode,
    fetch_nothing,
    matching,
    present,
    required,
)

_MAX_ITEMS = 10_000


class _Uncovering(Scheme):
    @property
    def covers_body(self) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class Token(_Uncovering):
    """A shared secret in a header, behind an optional prefix such as `Bearer `."""

    header: str
    prefix: str = ""

    @property
    def credentials(self) -> frozenset[str]:
        return frozenset({self.header.lower()})

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        given = required(delivery.headers, self.header)
        return Proof(matching([given], [self.prefix + present(secret) for secret in secrets]))

    def sign(self, draft: Draft, secret: str) -> Signed:
        # As it looks after the wire, which carries UTF-8 and is read as Latin-1.
        return Signed({self.header: (self.prefix + present(secret)).encode().decode("latin-1")}, draft.body)


@dataclass(frozen=True, kw_only=True)
class QueryToken(_Uncovering):
    """A shared secret in a parameter of the URL, for senders that have no other place for one.

    It stands in the sender's settings and in every log on the way there; nothing of the query is logged or stored here.
    """

    name: str

    @property
    def credential_parameters(self) -> frozenset[str]:
        return frozenset({self.name})

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        given = [value for name, value in delivery.query if name == self.name]
        if len(given) != 1 or not given[0]:
            raise InvalidSignature("token_missing")
        return Proof(matching([as_wire(given[0])], [present(secret) for secret in secrets]))

    def sign(self, draft: Draft, secret: str) -> Signed:
        return Signed({}, draft.body, {self.name: present(secret)})


@dataclass(frozen=True, kw_only=True)
class BodyToken(_Uncovering):
    """A shared secret in the body, once in every object of the list at `each`: Microsoft Graph's `clientState`."""

    each: str
    field: str

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        """Every item by the same secret; the body has to be read for it, and nothing of it is used before."""
        try:
            payload = json.loads(delivery.body, strict=False)
        except (ValueError, RecursionError):
            raise InvalidSignature("token_missing") from None
        items = payload.get(self.each) if isinstance(payload, dict) else None
        if not isinstance(items, list):
            raise InvalidSignature("token_missing")
        given = [item.get(self.field) if isinstance(item, dict) else None for item in items[:_MAX_ITEMS]]
        token = given[0] if given else None
        if not isinstance(token, str) or given != [token] * len(items):
            raise InvalidSignature("token_missing")
        known = [present(secret) for secret in secrets]
        return Proof(matching([as_wire(token)], known))

    def sign(self, draft: Draft, secret: str) -> Signed:
        payload = json.loads(draft.body)
        for item in payload[self.each]:
            item[self.field] = present(secret)
        return Signed({}, json.dumps(payload).encode())


@dataclass(frozen=True, kw_only=True)
class Basic(_Uncovering):
    """HTTP Basic authentication (RFC 7617); the secret is `user:password`."""

    @property
    def credentials(self) -> frozenset[str]:
        return frozenset({"authorization"})

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        scheme, _, given = required(delivery.headers, "Authorization").partition(" ")
        if scheme.lower() != "basic":
            raise InvalidSignature("not_basic_authentication")
        return Proof(matching([given.strip(" ")], [self._token(secret) for secret in secrets]))

    def sign(self, draft: Draft, secret: str) -> Signed:
        return Signed({"Authorization": f"Basic {self._token(secret)}"}, draft.body)

    def _token(self, secret: str) -> str:
        user, colon, password = present(secret).partition(":")
        if not colon or not (user.strip() or password.strip()):
            raise SecretUnavailable("secret_is_not_user_colon_password")
        return encode(secret.encode(), "base64")


@dataclass(frozen=True, kw_only=True)
class Unverified(_Uncovering):
    """No verification at all, for sources whose network is the check; it must be asked for by name."""

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        return Proof()

    def sign(self, draft: Draft, secret: str) -> Signed:
        return Signed({}, draft.body)


@dataclass(frozen=True, kw_only=True)
class VerifiedBefore(_Uncovering):
    """Of a delivery that was verified when it came, and then refused; with the id that its signature held."""

    signed_id: str | None

    def verify(self, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> Proof:
        return Proof(signed_id=self.signed_id)

    def sign(self, draft: Draft, secret: str) -> Signed:
        return Signed({}, draft.body)
