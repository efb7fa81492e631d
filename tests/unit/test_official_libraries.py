"""Ours and the official libraries agree, both ways; where theirs is laxer, ours is strict."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks
import stripe
import svix
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.deliveries import Headers
from chalicelib.errors import InvalidSignature
from chalicelib.signatures import StandardWebhooks, Stripe

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300)
keys = st.binary(min_size=24, max_size=64)
stripe_secrets = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=64).map("whsec_".__add__)


def now() -> datetime:
    return datetime.now(UTC)


def stripe_header(secret: str, body: str, timestamp: int) -> str:
    mac = stripe.WebhookSignature._compute_signature(f"{timestamp}.{body}", secret)
    return f"t={timestamp},v1={mac}"


@given(secret=stripe_secrets, body=texts)
def test_stripe_accepts_what_we_sign(secret: str, body: str) -> None:
    header = Stripe().sign(body.encode(), secret, event_id="", now=now())["Stripe-Signature"]
    assert stripe.WebhookSignature.verify_header(body, header, secret, tolerance=300)


@given(secret=stripe_secrets, body=texts, age=st.integers(-300, 300))
def test_we_accept_what_stripe_signs_and_nothing_altered(secret: str, body: str, age: int) -> None:
    at = now()
    header = stripe_header(secret, body, int(at.timestamp()) - age)
    headers = Headers([("Stripe-Signature", header)])
    assert Stripe(tolerance_seconds=301).verify(headers, body.encode(), [secret], at).secret == 0
    with pytest.raises(InvalidSignature):
        Stripe(tolerance_seconds=301).verify(headers, body.encode() + b" ", [secret], at)


def test_stripe_takes_any_future_time_and_we_do_not() -> None:
    future = int(time.time()) + 86_400
    header = stripe_header("whsec_x", "{}", future)
    assert stripe.WebhookSignature.verify_header("{}", header, "whsec_x", tolerance=300)
    with pytest.raises(InvalidSignature):
        Stripe().verify(Headers([("Stripe-Signature", header)]), b"{}", ["whsec_x"], now())


@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.Webhook], ids=["standardwebhooks", "svix"])
@given(key=keys, body=texts)
def test_the_libraries_accept_what_we_sign(library: type[standardwebhooks.Webhook], key: bytes, body: str) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    headers = StandardWebhooks().sign(body.encode(), secret, event_id="msg_1", now=now())
    try:
        library(secret).verify(body, headers)
    except ValueError as exc:  # it has verified, and then parses
        assert "JSON" in type(exc).__name__


@pytest.mark.parametrize("family", ["webhook", "svix"])
@given(key=keys, body=texts)
def test_we_accept_what_the_libraries_sign_and_nothing_altered(family: str, key: bytes, body: str) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    at = now()
    library = {"webhook": standardwebhooks.Webhook, "svix": svix.Webhook}[family](secret)
    headers = {
        f"{family}-id": "msg_1",
        f"{family}-timestamp": str(int(at.timestamp())),
        f"{family}-signature": library.sign("msg_1", at, body),
    }
    proof = StandardWebhooks().verify(Headers(headers.items()), body.encode(), [secret], at)
    assert proof.signed_id == "msg_1"
    for altered in ({f"{family}-id": "msg_2"}, {f"{family}-timestamp": str(int(at.timestamp()) - 1)}):
        with pytest.raises(InvalidSignature):
            StandardWebhooks().verify(Headers({**headers, **altered}.items()), body.encode(), [secret], at)
    with pytest.raises(InvalidSignature):
        StandardWebhooks().verify(Headers(headers.items()), body.encode() + b" ", [secret], at)


def test_the_library_ignores_junk_in_base64_and_we_do_not() -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    headers = StandardWebhooks().sign(b"{}", secret, event_id="msg_1", now=now())
    lax = {**headers, "webhook-signature": headers["webhook-signature"] + "!"}
    standardwebhooks.Webhook(secret).verify("{}", lax)
    with pytest.raises(InvalidSignature):
        StandardWebhooks().verify(Headers(lax.items()), b"{}", [secret], now())


def test_the_library_takes_a_fractional_time_and_we_do_not() -> None:
    secret = "whsec_" + base64.b64encode(b"k" * 32).decode()
    headers = StandardWebhooks().sign(b"{}", secret, event_id="msg_1", now=now() - timedelta(seconds=1))
    lax = {**headers, "webhook-timestamp": headers["webhook-timestamp"] + ".9"}
    standardwebhooks.Webhook(secret).verify("{}", lax)
    with pytest.raises(InvalidSignature):
        StandardWebhooks().verify(Headers(lax.items()), b"{}", [secret], now())
