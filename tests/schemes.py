"""Schemes as tests use them: apart from any app, source or secret store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from chalicelib.postern.contract.deliveries import Delivery, Headers
from chalicelib.postern.receiving.providers import provider
from chalicelib.postern.receiving.schemes import Scheme, scheme_class
from chalicelib.postern.receiving.schemes.base import Draft, Fetch, Proof, Signed, fetch_nothing
from chalicelib.postern.receiving.schemes.hmacs import Hmac
from chalicelib.postern.receiving.schemes.shared import Token

URL = "https://hooks.example.com/webhooks/shop"


def scheme_of(name: str, **options: Any) -> Scheme:
    """The scheme of this provider, with a source's options."""
    kind = provider(name)
    scheme: Scheme = scheme_class(kind.scheme)(**{**kind.settings, **options})
    return scheme


def hmac_body(
    header: str,
    algorithm: Any = "sha256",
    encoding: Any = "hex",
    prefix: str = "",
    secret_encoding: Any = "text",  # noqa: S107
) -> Hmac:
    return Hmac(header=header, algorithm=algorithm, encoding=encoding, prefix=prefix, secret_encoding=secret_encoding)


def token(header: str, prefix: str = "") -> Token:
    return Token(header=header, prefix=prefix)


def signed(
    scheme: Scheme, body: bytes, secret: str, *, event_id: str = "msg_1", now: datetime, url: str = URL
) -> Signed:
    return scheme.sign(Draft(body, event_id, now, url), secret)


def signature(
    scheme: Scheme,
    body: bytes,
    secret: str,
    *,
    event_id: str = "msg_1",
    now: datetime,
    url: str = URL,
    headers: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The headers alone; `headers` are those that go along."""
    return dict(scheme.sign(Draft(body, event_id, now, url, headers=headers or {}), secret).headers)


def verify(
    scheme: Scheme,
    headers: Headers,
    body: bytes,
    secrets: Sequence[str],
    now: datetime,
    *,
    url: str = URL,
    fetch: Fetch = fetch_nothing,
) -> Proof:
    return scheme.verify(Delivery("shop", headers, body, now, url=url), secrets, fetch)
