"""Headers as they came, what of them is stored, and ids that carry the time."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.postern.contract.deliveries import REDACTED, Headers, new_event_id, spellings_of

START = datetime(2026, 11, 23, tzinfo=UTC)
moments = st.integers(0, 4_102_444_800_000)  # to the year 2100


def at(milliseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


@given(moments)
def test_an_id_is_a_uuid7_of_its_time_to_the_millisecond(milliseconds: int) -> None:
    id = new_event_id(at(milliseconds))
    assert (id.version, id.variant) == (7, "specified in RFC 4122")
    assert id.int >> 80 == milliseconds


@given(moments, moments)
def test_ids_sort_by_time_as_numbers_as_texts_and_as_bytes(one: int, other: int) -> None:
    if one == other:
        return
    earlier, later = (new_event_id(at(ms)) for ms in sorted((one, other)))
    assert earlier < later
    assert str(earlier) < str(later)
    assert earlier.bytes < later.bytes


def test_an_id_is_of_the_moment_and_not_of_the_zone_that_tells_it() -> None:
    there = START.astimezone(timezone(timedelta(hours=9)))
    assert new_event_id(START).int >> 80 == new_event_id(there).int >> 80


def test_a_part_of_a_millisecond_does_not_count() -> None:
    assert new_event_id(START + timedelta(microseconds=999)).int >> 80 == new_event_id(START).int >> 80


def test_ids_of_one_moment_are_all_different() -> None:
    assert len({new_event_id(START) for _ in range(10_000)}) == 10_000


def test_every_random_bit_of_an_id_is_used() -> None:
    """74 of them: fewer would be a chance of two events with one id."""
    ids = [new_event_id(START).int for _ in range(200)]
    fixed = 0xFFFF_FFFF_FFFF << 80 | 0xF << 76 | 0x3 << 62
    ever_set = ever_clear = 0
    for id in ids:
        ever_set |= id
        ever_clear |= ~id
    assert ever_set & ever_clear & (2**128 - 1) == 2**128 - 1 - fixed


def test_a_header_is_found_in_any_case() -> None:
    headers = Headers([("X-One", "1")])
    assert [headers[name] for name in ("x-one", "X-ONE", "X-One")] == ["1"] * 3
    assert "x-oNe" in headers
    assert headers.all("x-ONE") == ["1"]


def test_a_repeated_header_has_no_single_value_and_keeps_all() -> None:
    headers = Headers([("x-two", "a"), ("X-Two", "b")])
    assert headers.get("X-Two") is None
    assert "X-Two" not in headers
    with pytest.raises(KeyError):
        headers["X-Two"]
    assert headers.all("X-TWO") == ["a", "b"]


def test_a_header_repeated_with_the_same_value_is_repeated_all_the_same() -> None:
    assert Headers([("X", "a"), ("x", "a")]).get("x") is None


def test_a_missing_header_is_missing() -> None:
    headers = Headers([])
    assert (headers.get("x"), headers.get("x", ""), headers.all("x"), len(headers)) == (None, "", [], 0)


def test_headers_are_stored_by_their_lower_case_names_a_repeated_one_as_a_list() -> None:
    headers = Headers([("X-One", "1"), ("X-Two", "a"), ("x-two", "b"), ("X-Empty", "")])
    assert headers.as_stored() == {"x-one": "1", "x-two": ["a", "b"], "x-empty": ""}


# As the field has them: gateways, clouds, frameworks, and the providers of the catalogue.
CREDENTIALS = [
    "authorization", "proxy-authorization", "x-forwarded-authorization", "x-original-authorization", "cookie",
    "set-cookie", "x-api-key", "api-key", "apikey", "x-apikey", "x-auth-token", "x-access-token", "x-webhook-token",
    "x-csrf-token", "x-xsrf-token", "x-amz-security-token", "x-gitlab-token", "x-telegram-bot-api-secret-token",
    "cf-webhook-auth", "cf-access-client-secret", "cf-access-jwt-assertion", "x-hook-secret",
    "x-goog-iap-jwt-assertion", "x-goog-channel-token", "ocp-apim-subscription-key", "x-functions-key",
    "x-shopify-access-token", "x-vault-token", "x-session-id", "x-user-password", "x-client-secret",
    "x-ms-token-aad-access-token", "x-auth-key", "private-token", "job-token", "x-id-token", "x-refresh-token",
    "x-jwt", "x-bearer-token",
]  # fmt: skip


# And as others spell them.
CREDENTIALS += [
    "authentication", "accesskey", "x-rapidapi-key", "x-csrftoken", "x-apitoken", "x-secretkey", "x-appsecret",
    "x-webhook-key", "x-signing-key", "x-consumer-key", "x-key", "x-pwd", "ok-access-passphrase", "x-sessiontoken",
    "dpop", "x-signature-secret", "x-signature-key", "key", "clientsecret", "refreshtoken", "auth[token]",
]  # fmt: skip


@pytest.mark.parametrize("name", CREDENTIALS)
def test_a_credential_is_redacted_in_any_case_and_when_it_is_repeated(name: str) -> None:
    for items in ([(name.title(), "canary")], [(name, "canary"), (name.upper(), "canary2")]):
        assert Headers(items).as_stored() == {name: REDACTED}


def test_a_sources_own_credential_is_redacted_and_its_neighbours_are_not() -> None:
    headers = Headers([("X-Webhook-Token", "canary"), ("X-Webhook-Token-Id", "7")])
    assert headers.as_stored(hidden={"x-webhook-token"}) == {"x-webhook-token": REDACTED, "x-webhook-token-id": "7"}


def test_whatever_holds_a_secret_of_the_source_is_redacted_in_any_spelling() -> None:
    secret = "merlin:p@ss wörd 1"
    spelled = [secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()]
    spelled += [secret.encode().decode("latin-1"), quote_plus(secret), quote(secret, safe="").lower(), "p@ss wörd 1"]
    for value in spelled:
        headers = Headers([("Referer", f"https://x/?a={value}&b"), ("X-Other", "merlin")])
        assert headers.as_stored(spellings=spellings_of([secret])) == {"referer": REDACTED, "x-other": "merlin"}
    assert spellings_of(["short"]) == []  # it would stand in too much by chance


# Those that a verification needs, of each provider's guide and scheme; what is a password itself is not kept.
SIGNED = [
    "x-hub-signature-256", "stripe-signature", "webhook-signature", "webhook-timestamp", "webhook-id",
    "paypal-auth-algo", "paypal-cert-url", "paypal-transmission-sig", "x-twilio-webhooks-signature-settings",
    "x-shopify-hmac-sha256", "plaid-verification", "x-zm-request-timestamp", "i-twilio-idempotency-token",
    "x-webhook-token-id", "idempotency-key", "x-goog-channel-id", "sentry-hook-timestamp",
    "x-contentful-signed-headers", "x-hook0-signature", "linear-signature",
    "x-event-key", "x-idempotency-key", "x-partition-key",
]  # fmt: skip


@pytest.mark.parametrize("name", SIGNED)
def test_a_signature_is_kept_because_verifying_again_needs_it(name: str) -> None:
    assert Headers([(name, "v1=00")]).as_stored() == {name: "v1=00"}


def test_what_is_stored_is_not_changed_by_storing() -> None:
    headers = Headers([("Authorization", "Bearer canary")])
    headers.as_stored()
    assert headers["authorization"] == "Bearer canary"
