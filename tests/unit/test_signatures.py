"""What a scheme signs it verifies, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.deliveries import Headers
from chalicelib.errors import InvalidSignature, SecretUnavailable
from chalicelib.signatures import Basic, HmacBody, Scheme, StandardWebhooks, Stripe, Token, Unverified

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
BODY = b'{"id": "evt_1", "type": "invoice.paid"}'
WHSEC = "whsec_" + base64.b64encode(b"k" * 32).decode()

SCHEMES: dict[str, tuple[Scheme, str]] = {
    "github": (HmacBody("X-Hub-Signature-256", prefix="sha256="), "s3cret"),
    "hmac-sha1-base64": (HmacBody("X-Signature", "sha1", "base64"), "s3cret"),
    "hmac-sha512-hex-key": (HmacBody("X-Signature", "sha512", secret_encoding="hex"), "00ff10"),
    "hmac-base64-key": (HmacBody("X-Signature", secret_encoding="base64"), "c2VjcmV0"),
    "stripe": (Stripe(), "whsec_text"),
    "standard-webhooks": (StandardWebhooks(), WHSEC),
    "token": (Token("X-Webhook-Token"), "s3cret"),
    "bearer": (Token("Authorization", "Bearer "), "s3cret"),
    "basic": (Basic(), "user:pass:word"),
}
COVERING_THE_BODY = [name for name in SCHEMES if name not in ("token", "bearer", "basic")]

every_scheme = pytest.mark.parametrize("name", SCHEMES)


def signed(scheme: Scheme, secret: str, body: bytes = BODY, now: datetime = NOW) -> Headers:
    return Headers(scheme.sign(body, secret, event_id="msg_1", now=now).items())


def refused(scheme: Scheme, headers: Headers, secret: str, body: bytes = BODY, now: datetime = NOW) -> str:
    with pytest.raises(InvalidSignature) as caught:
        scheme.verify(headers, body, [secret], now)
    return caught.value.reason


@every_scheme
@given(body=st.binary(max_size=2000))
def test_what_is_signed_is_verified(name: str, body: bytes) -> None:
    scheme, secret = SCHEMES[name]
    assert scheme.verify(signed(scheme, secret, body), body, [secret], NOW).secret == 0


@every_scheme
def test_any_of_several_secrets_matches_and_it_is_said_which(name: str) -> None:
    scheme, secret = SCHEMES[name]
    other = {"stripe": "whsec_x", "standard-webhooks": "whsec_AAAA", "basic": "a:b"}.get(name, "abcd")
    assert scheme.verify(signed(scheme, secret), BODY, [other, secret], NOW).secret == 1


@every_scheme
def test_no_secret_at_all_verifies_nothing(name: str) -> None:
    scheme, secret = SCHEMES[name]
    with pytest.raises(InvalidSignature):
        scheme.verify(signed(scheme, secret), BODY, [], NOW)


@every_scheme
@pytest.mark.parametrize("empty", ["", " ", "whsec_"])
def test_an_empty_secret_is_a_missing_one(name: str, empty: str) -> None:
    """Anybody can sign with an empty key."""
    scheme, secret = SCHEMES[name]
    if empty == "whsec_" and name != "standard-webhooks":
        return  # a text like any other
    with pytest.raises(SecretUnavailable):
        scheme.verify(signed(scheme, secret), BODY, [empty], NOW)


@every_scheme
def test_a_missing_header_is_refused(name: str) -> None:
    scheme, secret = SCHEMES[name]
    assert refused(scheme, Headers([]), secret) == "header_missing"


@every_scheme
def test_a_repeated_header_is_refused(name: str) -> None:
    scheme, secret = SCHEMES[name]
    headers = signed(scheme, secret)
    for repeated in headers:
        doubled = Headers([*headers.items(), (repeated, headers[repeated])])
        refused(scheme, doubled, secret)


@every_scheme
def test_every_altered_character_of_a_header_is_refused(name: str) -> None:
    scheme, secret = SCHEMES[name]
    headers = signed(scheme, secret)
    for header, value in headers.items():
        for at in range(len(value)):
            for other in ("0", "A", "é", "\0", ""):
                altered = value[:at] + other + value[at + 1 :]
                if altered == value or (name == "basic" and altered.lower().startswith("basic ") and at < 6):
                    continue
                refused(scheme, Headers({**headers, header: altered}.items()), secret)


@pytest.mark.parametrize("name", COVERING_THE_BODY)
def test_every_altered_byte_of_the_body_is_refused(name: str) -> None:
    scheme, secret = SCHEMES[name]
    headers = signed(scheme, secret)
    for at in range(len(BODY)):
        assert refused(scheme, headers, secret, BODY[:at] + bytes([BODY[at] ^ 1]) + BODY[at + 1 :])
    for altered in (b"", BODY + b"\n", BODY[:-1], b"\xef\xbb\xbf" + BODY):
        refused(scheme, headers, secret, altered)


@every_scheme
@pytest.mark.parametrize(
    "junk",
    [
        "é" * 40,
        "\udcff",
        "\0",
        "=",
        ",",
        "v1,",
        "t=,v1=",
        "x" * 100_000,
        ",".join(["v1=00"] * 10_000),
        "sha256=",
        "Basic ",
    ],
    ids=lambda junk: repr(junk[:8]),
)
def test_junk_is_refused_and_raises_nothing_else(name: str, junk: str) -> None:
    scheme, secret = SCHEMES[name]
    for header in signed(scheme, secret):
        refused(scheme, Headers({**signed(scheme, secret), header: junk}.items()), secret)


@pytest.mark.parametrize("scheme", [Stripe(tolerance_seconds=300), StandardWebhooks(tolerance_seconds=300)])
@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(-301, "timestamp_stale"), (-300, None), (0, None), (300, None), (301, "timestamp_in_future")],
)
def test_the_time_may_lie_so_far_from_ours_and_no_farther(scheme: Scheme, seconds: int, reason: str | None) -> None:
    headers = signed(scheme, WHSEC, now=NOW + timedelta(seconds=seconds))
    if reason is None:
        scheme.verify(headers, BODY, [WHSEC], NOW)
    else:
        assert refused(scheme, headers, WHSEC) == reason


@pytest.mark.parametrize("time", [" 1", "+1", "-1", "1_0", "1e9", "nan", "inf", "", "٣", "1" * 20, "1.0", "0x1", "1\n"])
def test_a_time_that_is_no_whole_number_is_refused_even_when_signed(time: str) -> None:
    mac = hmac.new(WHSEC.encode(), time.encode() + b"." + BODY, hashlib.sha256).hexdigest()
    reason = refused(Stripe(), Headers([("Stripe-Signature", f"t={time},v1={mac}")]), WHSEC)
    assert reason == "timestamp_malformed"


def test_stripes_other_labels_are_skipped_and_any_v1_may_match() -> None:
    good = signed(Stripe(), WHSEC)["stripe-signature"]
    headers = Headers([("Stripe-Signature", good.replace(",v1=", ",v0=00,v1=00,unknown,v1="))])
    assert Stripe().verify(headers, BODY, [WHSEC], NOW).secret == 0


def test_two_times_in_one_stripe_header_are_refused() -> None:
    good = signed(Stripe(), WHSEC)["stripe-signature"]
    assert refused(Stripe(), Headers([("Stripe-Signature", f"{good},t=1")]), WHSEC) == "timestamp_missing"


def test_standard_webhooks_takes_all_three_headers_from_one_family() -> None:
    scheme = StandardWebhooks()
    headers = signed(scheme, WHSEC)
    as_svix = {name.replace("webhook-", "svix-"): value for name, value in headers.items()}
    assert scheme.verify(Headers(as_svix.items()), BODY, [WHSEC], NOW).signed_id == "msg_1"
    mixed = {"svix-id": "msg_1", "svix-timestamp": headers["webhook-timestamp"]}
    mixed["webhook-signature"] = headers["webhook-signature"]
    assert refused(scheme, Headers(mixed.items()), WHSEC) == "header_missing"


def test_an_unsigned_webhook_id_beside_signed_svix_headers_is_not_believed() -> None:
    scheme = StandardWebhooks()
    headers = signed(scheme, WHSEC)
    both = {name.replace("webhook-", "svix-"): value for name, value in headers.items()} | {"webhook-id": "forged"}
    assert scheme.verify(Headers(both.items()), BODY, [WHSEC], NOW).signed_id == "msg_1"


def test_malformed_entries_beside_a_good_one_are_skipped() -> None:
    good = signed(StandardWebhooks(), WHSEC)
    header = f"v1a,AAAA  v2 v1 v1,x,y {good['webhook-signature']}"
    assert StandardWebhooks().verify(Headers({**good, "webhook-signature": header}.items()), BODY, [WHSEC], NOW)


def test_a_padless_secret_is_the_same_secret() -> None:
    assert StandardWebhooks().verify(signed(StandardWebhooks(), WHSEC), BODY, [WHSEC.rstrip("=")], NOW)


@pytest.mark.parametrize("secret", ["whsec_canary!", "whsec_canaryAAA", "whsec_cänary"])
def test_a_malformed_secret_is_our_mistake_and_is_not_quoted(secret: str) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        StandardWebhooks().verify(signed(StandardWebhooks(), WHSEC), BODY, [secret], NOW)
    chain: BaseException | None = caught.value
    assert "nary" not in f"{chain!r}{caught.value.message}"
    assert caught.value.__suppress_context__


def test_the_sha1_header_that_github_sends_along_is_never_looked_at() -> None:
    scheme = HmacBody("X-Hub-Signature-256", prefix="sha256=")
    sha1 = hmac.new(b"s3cret", BODY, hashlib.sha1).hexdigest()
    headers = Headers([("X-Hub-Signature", f"sha1={sha1}"), ("X-Hub-Signature-256", f"sha1={sha1}")])
    assert refused(scheme, headers, "s3cret") == "signature_mismatch"


@pytest.mark.parametrize(
    "value", ["Basic", "Bearer dXNlcjpwYXNz", "Basic dXNlcjpwYXNz=", "dXNlcjpwYXNz", "Basic dXNlcjo="]
)
def test_wrong_basic_credentials_are_refused(value: str) -> None:
    refused(Basic(), Headers([("Authorization", value)]), "user:pass")


def test_the_word_basic_may_be_in_any_case() -> None:
    assert Basic().verify(Headers([("authorization", "bAsIc dXNlcjpwYXNz")]), BODY, ["user:pass"], NOW)


def test_a_basic_secret_without_a_colon_is_our_mistake() -> None:
    with pytest.raises(SecretUnavailable):
        Basic().verify(Headers([("Authorization", "Basic dXNlcg==")]), BODY, ["user"], NOW)


def test_credentials_are_named_so_that_they_are_never_stored() -> None:
    assert Token("X-Webhook-Token").credentials == {"x-webhook-token"}
    assert Basic().credentials == {"authorization"}


def test_no_verification_has_to_be_asked_for_by_name() -> None:
    assert Unverified().verify(Headers([]), BODY, [], NOW).secret is None
