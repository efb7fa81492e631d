"""The ways in which senders prove who they are: a class a scheme, by name, each imported when a source needs it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from chalicelib.postern.receiving.schemes.base import Scheme

_MODULES = {
    "hmac": "hmacs:Hmac",
    "secret-first": "hmacs:SecretFirst",
    "standard-webhooks": "hmacs:StandardWebhooks",
    "token": "shared:Token",
    "body-token": "shared:BodyToken",
    "query-token": "shared:QueryToken",
    "basic": "shared:Basic",
    "none": "shared:Unverified",
    "ed25519": "public_keys:Ed25519",
    "ecdsa": "public_keys:Ecdsa",
    "url-and-form": "forms:UrlAndForm",
    "braintree": "forms:Braintree",
    "body-fields": "bodies:BodyFields",
    "adyen": "bodies:Adyen",
    "contentful": "canonical:Contentful",
    "hook0": "canonical:Hook0",
    "jwt": "jwts:Jwt",
    "sns": "certificates:Sns",
    "paypal": "certificates:PayPal",
}


def scheme_class(name: str) -> type[Any]:
    """The class of a scheme; its parameters are those that the catalogue and a source may set."""
    module, _, attribute = _MODULES[name].partition(":")
    found: type[Any] = getattr(import_module(f"chalicelib.postern.receiving.schemes.{module}"), attribute)
    return found


__all__ = ["Scheme", "scheme_class"]
