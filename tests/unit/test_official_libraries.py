"""Ours and the official libraries agree, both ways; where theirs is laxer, ours is strict."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import standardwebhooks
import stripe
import svix
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.postern.contract.deliveries import Headers
from chalicelib.postern.contract.errors import InvalidSignature, SecretUnavailable
from chalicelib.postern.receiving.schemes import Scheme
from tests.schemes import scheme_of, signature, verify

texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=300)
keys = st.binary(min_size=24, max_size=64).filter(any)  # one of zeros is the empty one
whsecs = keys.map(lambda key: "whsec_" + base64.b64encode(key).decode())
stripe_secrets = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", min_size=1, max_size=64).map("whsec_".__add__)
# Not the whole five minutes: the libraries look at the real clock, which goes on meanwhile.
ages = st.integers(-290, 290)

WHSEC = "whsec_" + base64.b64encode(b"k" * 32).decode()
LIBRARIES: dict[str, Callable[[str], Any]] = {"webhook": standardwebhooks.Webhook, "svix": svix.Webhook}

each_library = pytest.mark.parametrize("family", LIBRARIES)


def now() -> datetime:
    return datetime.now(UTC)


def verifies(scheme: Scheme, headers: dict[str, str], body: str | bytes, secret: str) -> bool:
    content = body.encode() if isinstance(body, str) else body
    try:
        verify(scheme, Headers(headers.items()), content, [secret], now())
    except InvalidSignature:
        return False
    return True


# Stripe


def stripe_header(secret: str, body: str, timestamp: int | str) -> str:
    mac = stripe.WebhookSignature._compute_signature(f"{timestamp}.{body}", secret)
    return f"t={timestamp},v1={mac}"


@given(secret=stripe_secrets, body=texts)
def test_stripe_accepts_what_we_sign(secret: str, body: str) -> None:
    header = signature(scheme_of("stripe"), body.encode(), secret, event_id="", now=now())["Stripe-Signature"]
    assert stripe.WebhookSignature.verify_header(body, header, secret, tolerance=300)


@given(secret=stripe_secrets, note=texts)
def test_stripe_makes_an_event_of_what_we_sign(secret: str, note: str) -> None:
    body = json.dumps({"id": "evt_1", "object": "event", "type": "invoice.paid", "note": note})
    header = signature(scheme_of("stripe"), body.encode(), secret, event_id="", now=now())["Stripe-Signature"]
    event = stripe.Webhook.construct_event(body, header, secret)  # type: ignore[no-untyped-call]
    assert (event["id"], event["note"]) == ("evt_1", note)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body + " ", header, secret)  # type: ignore[no-untyped-call]


@given(secret=stripe_secrets, body=texts, age=st.integers(-300, 300))
def test_we_accept_what_stripe_signs_and_nothing_altered(secret: str, body: str, age: int) -> None:
    at = now()
    header = stripe_header(secret, body, int(at.timestamp()) - age)
    headers = Headers([("Stripe-Signature", header)])
    assert verify(scheme_of("stripe", tolerance_seconds=301), headers, body.encode(), [secret], at).secret == 0
    for altered in (body.encode() + b" ", b" " + body.encode()):
        with pytest.raises(InvalidSignature):
            verify(scheme_of("stripe", tolerance_seconds=301), headers, altered, [secret], at)


@given(body=texts, age=st.integers(1, 250))
def test_a_fresher_time_before_an_old_signature_is_refused_by_stripe_and_by_us(body: str, age: int) -> None:
    timestamp = int(time.time()) - 250
    header = stripe_header("whsec_x", body, timestamp).replace(f"t={timestamp}", f"t={timestamp + age}")
    assert not verifies(scheme_of("stripe"), {"Stripe-Signature": header}, body, "whsec_x")
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header(body, header, "whsec_x", tolerance=300)


def test_while_a_secret_is_rolled_stripe_signs_with_both_and_either_is_enough() -> None:
    timestamp = int(time.time())
    old, new = (stripe_header(secret, "{}", timestamp) for secret in ("whsec_old", "whsec_new"))
    rolled = f"{old},{new.split(',')[1]},v0=unknown"
    for secret in ("whsec_old", "whsec_new"):
        assert stripe.WebhookSignature.verify_header("{}", rolled, secret, tolerance=300)
        assert verifies(scheme_of("stripe"), {"Stripe-Signature": rolled}, "{}", secret)


def test_a_stale_time_is_refused_by_stripe_and_by_us() -> None:
    header = stripe_header("whsec_x", "{}", int(time.time()) - 310)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header("{}", header, "whsec_x", tolerance=300)
    assert not verifies(scheme_of("stripe"), {"Stripe-Signature": header}, "{}", "whsec_x")


def test_stripe_takes_any_future_time_and_we_do_not() -> None:
    header = stripe_header("whsec_x", "{}", int(time.time()) + 86_400)
    assert stripe.WebhookSignature.verify_header("{}", header, "whsec_x", tolerance=300)
    assert not verifies(scheme_of("stripe"), {"Stripe-Signature": header}, "{}", "whsec_x")


@pytest.mark.parametrize("spelling", ["+{}", " {}", "0_{}"])
def test_stripe_takes_a_time_in_any_spelling_of_python_and_we_do_not(spelling: str) -> None:
    timestamp = int(time.time())
    mac = stripe.WebhookSignature._compute_signature(f"{timestamp}.{{}}", "whsec_x")  # it signs the number
    header = f"t={spelling.format(timestamp)},v1={mac}"
    assert stripe.WebhookSignature.verify_header("{}", header, "whsec_x", tolerance=300)
    assert not verifies(scheme_of("stripe"), {"Stripe-Signature": header}, "{}", "whsec_x")


def test_stripe_trips_over_a_signature_beyond_ascii_and_we_refuse_it() -> None:
    header = f"t={int(time.time())},v1=é"
    with pytest.raises(TypeError):
        stripe.WebhookSignature.verify_header("{}", header, "whsec_x", tolerance=300)
    assert not verifies(scheme_of("stripe"), {"Stripe-Signature": header}, "{}", "whsec_x")


def test_stripes_key_is_the_whole_text_and_not_the_base64_in_it() -> None:
    headers = signature(scheme_of("stripe"), b"{}", WHSEC, event_id="", now=now())
    assert stripe.WebhookSignature.verify_header("{}", headers["Stripe-Signature"], WHSEC, tolerance=300)
    assert not verifies(scheme_of("stripe"), headers, "{}", WHSEC.removeprefix("whsec_"))


# Standard Webhooks, and Svix, which they come from


def signed_by(library: Any, family: str, body: str, at: datetime, message_id: str = "msg_1") -> dict[str, str]:
    return {
        f"{family}-id": message_id,
        f"{family}-timestamp": str(int(at.timestamp())),
        f"{family}-signature": library.sign(message_id, at, body),
    }


def signed_by_us(family: str, body: str, secret: str, at: datetime) -> dict[str, str]:
    headers = signature(scheme_of("standard-webhooks"), body.encode(), secret, event_id="msg_1", now=at)
    return {name.replace("webhook-", f"{family}-"): value for name, value in headers.items()}


@each_library
@given(secret=whsecs, payload=texts, age=ages)
def test_the_libraries_accept_what_we_sign_and_nothing_altered(
    family: str, secret: str, payload: str, age: int
) -> None:
    library = LIBRARIES[family](secret)
    body = json.dumps({"text": payload}, ensure_ascii=False)
    headers = signed_by_us(family, body, secret, now() - timedelta(seconds=age))
    library.verify(body, headers)
    other_time = str(int(headers[f"{family}-timestamp"]) + 1)
    altered = {f"{family}-id": "msg_2"}, {f"{family}-timestamp": other_time}
    for other_headers, other_body in [({**headers, **change}, body) for change in altered] + [(headers, body + " ")]:
        with pytest.raises((standardwebhooks.WebhookVerificationError, svix.WebhookVerificationError)):
            library.verify(other_body, other_headers)


@each_library
@given(secret=whsecs, body=texts, age=ages, message_id=st.text("abcXYZ019_-", min_size=1))
def test_we_accept_what_the_libraries_sign_and_nothing_altered(
    family: str, secret: str, body: str, age: int, message_id: str
) -> None:
    at = now() - timedelta(seconds=age)
    headers = signed_by(LIBRARIES[family](secret), family, body, at, message_id)
    proof = verify(scheme_of("standard-webhooks"), Headers(headers.items()), body.encode(), [secret], now())
    assert (proof.secret, proof.signed_id) == (0, message_id)
    for altered in (
        {f"{family}-id": message_id + "2"},
        {f"{family}-timestamp": str(int(at.timestamp()) + (1 if age > 0 else -1))},
        {f"{family}-signature": headers[f"{family}-signature"].swapcase()},
    ):
        assert not verifies(scheme_of("standard-webhooks"), {**headers, **altered}, body, secret)
    assert not verifies(scheme_of("standard-webhooks"), headers, body + " ", secret)
    assert not verifies(scheme_of("standard-webhooks"), headers, body, WHSEC)


@each_library
@pytest.mark.parametrize("seconds", [-310, 310], ids=["stale", "in the future"])
def test_a_time_too_far_away_is_refused_by_the_libraries_and_by_us(family: str, seconds: int) -> None:
    library = LIBRARIES[family](WHSEC)
    headers = signed_by(library, family, "{}", now() + timedelta(seconds=seconds))
    with pytest.raises((standardwebhooks.WebhookVerificationError, svix.WebhookVerificationError)):
        library.verify("{}", headers)
    assert not verifies(scheme_of("standard-webhooks"), headers, "{}", WHSEC)


def test_svix_may_send_both_families_of_headers() -> None:
    headers = signed_by(svix.Webhook(WHSEC), "svix", "{}", now())
    both = headers | {name.replace("svix-", "webhook-"): value for name, value in headers.items()}
    svix.Webhook(WHSEC).verify("{}", both)
    assert verifies(scheme_of("standard-webhooks"), both, "{}", WHSEC)


@each_library
def test_the_libraries_ignore_junk_in_base64_and_we_do_not(family: str) -> None:
    headers = signed_by_us(family, "{}", WHSEC, now())
    for junk in ("!", "\n", "-"):
        lax = {**headers, f"{family}-signature": headers[f"{family}-signature"] + junk}
        LIBRARIES[family](WHSEC).verify("{}", lax)
        assert not verifies(scheme_of("standard-webhooks"), lax, "{}", WHSEC)


@each_library
@pytest.mark.parametrize("spelling", ["{}.9", " {}", "{} ", "+{}", "0_{}", "{}e0"])
def test_the_libraries_take_a_time_that_is_no_whole_number_and_we_do_not(family: str, spelling: str) -> None:
    headers = signed_by_us(family, "{}", WHSEC, now() - timedelta(seconds=1))
    lax = {**headers, f"{family}-timestamp": spelling.format(headers[f"{family}-timestamp"])}
    LIBRARIES[family](WHSEC).verify("{}", lax)
    assert not verifies(scheme_of("standard-webhooks"), lax, "{}", WHSEC)


@each_library
def test_an_empty_key_is_refused_by_the_libraries_and_by_us(family: str) -> None:
    """Anybody can sign with it."""
    at = now()
    mac = hmac.new(b"", f"msg_1.{int(at.timestamp())}.{{}}".encode(), hashlib.sha256).digest()
    forged = signed_by_us(family, "{}", WHSEC, at)
    forged[f"{family}-signature"] = "v1," + base64.b64encode(mac).decode()
    with pytest.raises(standardwebhooks.webhooks.EmptyWebhookSecretError):
        LIBRARIES[family]("whsec_").verify("{}", forged)
    with pytest.raises(SecretUnavailable):
        verifies(scheme_of("standard-webhooks"), forged, "{}", "whsec_")


@each_library
def test_the_libraries_trip_over_an_entry_that_they_cannot_split_and_we_skip_it(family: str) -> None:
    headers = signed_by_us(family, "{}", WHSEC, now())
    headers[f"{family}-signature"] = "v2  " + headers[f"{family}-signature"]
    with pytest.raises(ValueError, match="unpack"):
        LIBRARIES[family](WHSEC).verify("{}", headers)
    assert verifies(scheme_of("standard-webhooks"), headers, "{}", WHSEC)


@each_library
def test_the_libraries_cannot_read_a_body_that_is_no_text_and_we_can(family: str) -> None:
    headers = signature(scheme_of("standard-webhooks"), b"\xff", WHSEC, event_id="msg_1", now=now())
    with pytest.raises(UnicodeDecodeError):
        LIBRARIES[family](WHSEC).verify(b"\xff", headers)
    assert verifies(scheme_of("standard-webhooks"), headers, b"\xff", WHSEC)
