"""The catalogue: providers as data on top of the schemes in `chalicelib.signatures`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.naming import Locator
from chalicelib.signatures import (
    Basic,
    HmacBody,
    Scheme,
    StandardWebhooks,
    Stripe,
    Token,
    Unverified,
)

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
BODY_TYPE = Locator("body", "type")


@dataclass(frozen=True)
class Provider:
    """One kind of sender.

    `scheme` builds the scheme from the options that a source may set (`options`: the names of its
    parameters). `dedup` and `type` are None where the provider has no place for them; where the scheme signs an
    id (`signs_id`), that is the dedup key and nothing else can be. `form_field`: the field that holds the JSON when
    the provider sends a form.
    """

    scheme: Callable[..., Scheme]
    options: frozenset[str] = frozenset()
    dedup: Locator | None = None
    type: Locator | None = BODY_TYPE
    content_types: tuple[str, ...] = (JSON,)
    form_field: str | None = None
    needs_secret: bool = True
    signs_id: bool = False


def _github() -> Scheme:
    return HmacBody(header="X-Hub-Signature-256", prefix="sha256=")


def _hmac(header: str = "X-Signature", **options: str) -> Scheme:
    return HmacBody(header, **options)  # type: ignore[arg-type]  # checked by the sources file's schema


def _token(header: str = "X-Webhook-Token", prefix: str = "") -> Scheme:
    return Token(header, prefix)


PROVIDERS: dict[str, Provider] = {
    # Every header but the signature is unsigned; the SHA-1 header beside it is never looked at.
    "github": Provider(
        scheme=_github,
        dedup=Locator("header", "X-GitHub-Delivery"),
        type=Locator("header", "X-GitHub-Event"),
        content_types=(JSON, FORM),
        form_field="payload",
    ),
    "stripe": Provider(
        scheme=Stripe,
        options=frozenset({"tolerance_seconds"}),
        dedup=Locator("body", "id"),
    ),
    # The dedup key is the signed `webhook-id` (or `svix-id`).
    "standard-webhooks": Provider(scheme=StandardWebhooks, options=frozenset({"tolerance_seconds"}), signs_id=True),
    "hmac": Provider(
        scheme=_hmac,
        options=frozenset({"header", "algorithm", "encoding", "prefix", "secret_encoding"}),
    ),
    "token": Provider(scheme=_token, options=frozenset({"header", "prefix"})),
    "basic": Provider(scheme=Basic),
    "none": Provider(scheme=Unverified, needs_secret=False),
}
