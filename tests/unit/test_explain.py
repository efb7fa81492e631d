"""Each known cause of a refusal is found, and named so that somebody can act on it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from chalicelib.postern.contract.deliveries import REDACTED, Delivery, Headers
from chalicelib.postern.receiving.explain import Known, explain
from chalicelib.postern.receiving.schemes.hmacs import Hmac
from chalicelib.postern.receiving.sources import Sources
from tests.certificates import certificate, fetching
from tests.schemes import URL, signed
from tests.support import EVERY_SOURCE

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SOURCES = Sources(EVERY_SOURCE)
SECRET = "s3cret-canary"
WHSEC = "whsec_" + base64.b64encode(b"canary-" * 5).decode()
BODY = b'{"id": "a", "name": "Zo\xc3\xab", "path": "a/b"}'


def delivery(source: str, body: bytes = BODY, secret: str = SECRET, *, now: datetime = NOW, url: str = URL) -> Delivery:
    """Signed with this secret over this body."""
    made = signed(SOURCES[source].scheme, body, secret, now=now, url=url)
    return Delivery(source, Headers(made.headers.items()), made.body, NOW, url=URL)


def causes(
    sent: Delivery,
    secrets: Sequence[str] = (SECRET,),
    *,
    previous: Sequence[str] = (),
    others: Mapping[str, Sequence[str]] | None = None,
) -> set[str]:
    found = explain(sent, SOURCES[sent.source], Known(secrets, previous, others or {}))
    text = " ".join(finding.sentence for finding in found)
    assert "canary" not in text
    assert found
    return {finding.cause for finding in found}


def test_a_secret_that_was_put_in_since_verifies_now() -> None:
    assert causes(delivery("github"), ["other", SECRET]) == {"verifies_now"}


def test_a_source_without_a_secret() -> None:
    assert causes(delivery("github"), []) == {"no_secret"}


def test_the_secret_of_another_source() -> None:
    assert causes(delivery("github"), ["other"], others={"shop": ["x", SECRET]}) == {"other_source"}


def test_the_secret_that_was_listed_before_the_last_change() -> None:
    assert causes(delivery("github"), ["new"], previous=["new", SECRET]) == {"previous_secret"}
    late = delivery("stripe", now=NOW - timedelta(days=1))
    assert causes(late, ["new"], previous=[SECRET]) == {"previous_secret"}


@pytest.mark.parametrize("seconds", [-3600, 3600, 100_000])
def test_a_clock_that_is_off_says_by_how_much_and_which_way(seconds: int) -> None:
    for source, secret in (("stripe", SECRET), ("standard-webhooks", WHSEC), ("zendesk", SECRET), ("workos", SECRET)):
        sent = delivery(source, secret=secret, now=NOW - timedelta(seconds=seconds))
        [finding] = explain(sent, SOURCES[source], Known([secret]))
        assert finding.cause == "clock_skew"
        assert f"{abs(seconds):,} s {'old' if seconds > 0 else 'ahead'}" in finding.sentence


def test_a_time_within_the_body_counts_as_well() -> None:
    body = json.dumps({"webhookTimestamp": int((NOW.timestamp() - 90_000) * 1000)}).encode()
    [finding] = explain(delivery("linear", body), SOURCES["linear"], Known([SECRET]))
    assert "90,000 s old" in finding.sentence


@pytest.mark.parametrize(
    ("source", "listed", "signs_with"),
    [
        ("stripe", "whsec_canary", "canary"),
        ("stripe", "canary", "whsec_canary"),
        ("github", " canary\n", "canary"),
        ("github", "canary", "canary\n"),
    ],
)
def test_a_secret_that_was_copied_otherwise(source: str, listed: str, signs_with: str) -> None:
    assert causes(delivery(source, secret=signs_with), [listed]) == {"secret_encoding"}


def test_a_secret_that_was_read_as_text_and_is_base64() -> None:
    listed = base64.b64encode(b"canary-canary").decode()
    digest = hmac.digest(b"canary-canary", BODY, "sha256").hex()
    sent = Delivery("github", Headers([("X-Hub-Signature-256", f"sha256={digest}")]), BODY, NOW)
    assert causes(sent, [listed]) == {"secret_encoding"}


def test_a_secret_that_was_read_as_hexadecimal() -> None:
    listed = b"canary-canary".hex()
    digest = hmac.digest(b"canary-canary", BODY, "sha256").hex()
    sent = Delivery("github", Headers([("X-Hub-Signature-256", f"sha256={digest}")]), BODY, NOW)
    assert causes(sent, [listed]) == {"secret_encoding"}


def test_a_standard_webhooks_secret_that_was_used_as_text() -> None:
    timestamp = str(int(NOW.timestamp()))
    mac = hmac.digest(WHSEC.encode(), f"m.{timestamp}.".encode() + BODY, "sha256")
    headers = {"webhook-id": "m", "webhook-timestamp": timestamp}
    headers["webhook-signature"] = "v1," + base64.b64encode(mac).decode()
    assert causes(Delivery("standard-webhooks", Headers(headers.items()), BODY, NOW), [WHSEC]) == {"secret_encoding"}


@pytest.mark.parametrize(
    ("signed_body", "arrived", "cause"),
    [
        (BODY + b"\n", BODY, "trailing_newline"),
        (BODY, BODY + b"\n", "trailing_newline"),
        (BODY + b"\r\n", BODY, "trailing_newline"),
        (BODY, b"\xef\xbb\xbf" + BODY, "byte_order_mark"),
        (b'{\r\n"a": 1}', b'{\n"a": 1}', "line_breaks"),
        (b'{\n"a": 1}', b'{\r\n"a": 1}', "line_breaks"),
        (json.dumps(json.loads(BODY), separators=(",", ":")).encode(), BODY, "reserialised"),
        (BODY, json.dumps(json.loads(BODY), indent=4).encode(), "reserialised"),
        (BODY, gzip.compress(BODY, mtime=0), "gzip"),
        (gzip.compress(BODY, mtime=0), BODY, "gzip"),
        (b"", BODY, "empty_body"),
    ],
)
def test_a_body_that_was_changed_on_the_way(signed_body: bytes, arrived: bytes, cause: str) -> None:
    assert cause in causes(replace(delivery("github", signed_body), body=arrived))


@pytest.mark.parametrize(
    "registered",
    [
        "http://hooks.example.com/webhooks/shop",
        "https://hooks.example.com/webhooks/shop/",
        "https://hooks.example.com:443/webhooks/shop",
    ],
)
@pytest.mark.parametrize("source", ["square", "trello", "hubspot"])
def test_an_address_behind_a_proxy(source: str, registered: str) -> None:
    body = b"[]"
    sent = delivery(source, body, url=registered)
    [finding] = explain(sent, SOURCES[source], Known([SECRET]))
    assert finding.cause == "url"
    assert registered in finding.sentence


def test_an_address_without_the_stage() -> None:
    made = delivery("square", url="https://x.example.com/webhooks/square")
    sent = replace(made, url="https://x.example.com/prod/webhooks/square")
    assert causes(sent) == {"url"}


@pytest.mark.parametrize("named", ["Host", "X-Forwarded-Host"])
def test_an_address_at_another_host_that_a_header_names(named: str) -> None:
    sent = delivery("square", url="https://public.example.com/webhooks/shop")
    headers = [*((name, sent.headers[name]) for name in sent.headers), (named, "public.example.com")]
    assert causes(replace(sent, headers=Headers(headers), url="http://10.0.0.7:8080/webhooks/shop")) == {"url"}


def test_an_address_whose_parameters_were_written_otherwise() -> None:
    """Most spellings verify by themselves; one that nobody uses does not."""
    sent = delivery("square", url=f"{URL}?name=a%20b")
    assert causes(replace(sent, url=f"{URL}?name=a+b", query=[("name", "a b")])) == {"verifies_now"}
    odd = delivery("square", url=f"{URL}?")
    assert causes(replace(odd, url=URL)) != {"verifies_now"}


def test_no_advice_names_the_query_of_one_call() -> None:
    """As `url`, it would break every other."""
    sent = delivery("square", url="https://public.example.com/webhooks/shop?order=42")
    headers = [*((name, sent.headers[name]) for name in sent.headers), ("X-Forwarded-Host", "public.example.com")]
    came = replace(sent, headers=Headers(headers), url=f"{URL}?order=42", query=[("order", "42")])
    [finding] = explain(came, SOURCES["square"], Known([SECRET]))
    assert finding.cause == "url"
    assert "https://public.example.com/webhooks/shop, and" in finding.sentence
    assert "order=42" not in finding.sentence


def test_a_time_that_is_far_ahead_is_told_too() -> None:
    [finding] = explain(delivery("stripe", now=NOW + timedelta(days=2)), SOURCES["stripe"], Known([SECRET]))
    assert (finding.cause, "172,800 s ahead" in finding.sentence) == ("clock_skew", True)


def test_an_address_that_is_configured_wrongly() -> None:
    configured = replace(SOURCES["square"], url="https://old.example.com/webhooks/shop")
    [finding] = explain(delivery("square"), configured, Known([SECRET]))
    assert (finding.cause, URL in finding.sentence) == ("url", True)


def test_a_signature_in_another_header() -> None:
    made = delivery("github")
    headers = [("X-Signature", made.headers["X-Hub-Signature-256"])]
    assert causes(replace(made, headers=Headers(headers))) == {"wrong_header"}


def test_only_the_sha1_signature_is_there() -> None:
    sha1 = "sha1=" + hmac.digest(SECRET.encode(), BODY, "sha1").hex()
    sent = Delivery("github", Headers([("X-Hub-Signature", sha1)]), BODY, NOW)
    [finding] = explain(sent, SOURCES["github"], Known([SECRET]))
    assert finding.cause == "other_form"
    assert "'x-hub-signature'" in finding.sentence and "HMAC-SHA1" in finding.sentence


@pytest.mark.parametrize("how", ["base64", "capitals", "sha512", "bare"])
def test_a_signature_in_another_form(how: str) -> None:
    mac = hmac.digest(SECRET.encode(), BODY, "sha512" if how == "sha512" else "sha256")
    text = {"base64": base64.b64encode(mac).decode(), "capitals": mac.hex().upper()}.get(how, mac.hex())
    prefix = "" if how == "bare" else "sha256="
    sent = Delivery("github", Headers([("X-Hub-Signature-256", prefix + text)]), BODY, NOW)
    assert causes(sent) == {"other_form"}


@pytest.mark.parametrize("how", ["base64", "capitals", "sha1", "standard"])
def test_a_signature_over_time_and_body_in_another_form(how: str) -> None:
    at = int(NOW.timestamp())
    mac = hmac.digest(SECRET.encode(), f"{at}.".encode() + BODY, "sha1" if how == "sha1" else "sha256")
    text = {"base64": base64.b64encode(mac).decode(), "capitals": mac.hex().upper()}.get(how, mac.hex())
    headers = [("Stripe-Signature", f"t={at},v1={text}")]
    if how == "standard":
        headers = [("Stripe-Signature", f"t={at},v1=00"), ("X-Signature", f"sha256={text}")]
    assert causes(Delivery("stripe", Headers(headers), BODY, NOW)) == {"other_form"}


def test_a_key_of_another_form_than_text_counts_in_other_forms_as_well() -> None:
    scheme = Hmac(header="X-Signature", secret_encoding="hex")
    text = hmac.digest(b"canary", BODY, "sha256").hex().upper()
    sent = Delivery("hmac", Headers([("X-Signature", text)]), BODY, NOW)
    found = explain(sent, replace(SOURCES["hmac"], scheme=scheme), Known([b"canary".hex()]))
    assert [finding.cause for finding in found] == ["other_form"]


def test_a_plain_hash() -> None:
    digest = hashlib.sha256(SECRET.encode() + BODY).hexdigest()
    assert causes(Delivery("hmac", Headers([("X-Signature", digest)]), BODY, NOW)) == {"plain_hash"}


def test_a_header_that_is_not_there_and_one_that_looks_like_it() -> None:
    sent = Delivery("github", Headers([("X-Other-Signature", "x")]), BODY, NOW)
    found = explain(sent, SOURCES["github"], Known([SECRET]))
    assert [finding.cause for finding in found] == ["header_missing", "unknown"]
    assert "x-other-signature" in found[0].sentence


@pytest.mark.parametrize(
    ("source", "headers", "cause"),
    [
        ("github", [("X-Hub-Signature-256", "sha256=00"), ("X-Hub-Signature-256", "sha256=01")], "header_repeated"),
        ("github", [("X-Hub-Signature-256", "")], "header_missing"),
        ("standard-webhooks", [("webhook-signature", "v1,00")], "header_missing"),
        ("stripe", [("Stripe-Signature", "v1=00")], "timestamp_missing"),
        ("stripe", [("Stripe-Signature", "t=yesterday,v1=00")], "timestamp_malformed"),
        ("stripe", [("Stripe-Signature", f"t={int(NOW.timestamp())},v0=00")], "signature_missing"),
        ("stripe", [("Stripe-Signature", f"t={int(NOW.timestamp())}" + ",v1=0" * 17)], "too_many_signatures"),
    ],
)
def test_what_is_amiss_before_anything_is_compared_is_said(
    source: str, headers: list[tuple[str, str]], cause: str
) -> None:
    assert causes(Delivery(source, Headers(headers), BODY, NOW), [WHSEC]) == {cause, "unknown"}


def test_a_secret_that_is_not_of_its_providers_form_is_said_and_not_quoted() -> None:
    sent = delivery("standard-webhooks", secret=WHSEC)
    assert causes(sent, ["whsec_canary is no base64"]) == {"secret_malformed", "unknown"}


def test_a_certificate_that_has_to_be_fetched_is_fetched() -> None:
    topic = "arn:aws:sns:eu-central-1:123456789012:orders"
    theirs = certificate("https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a1b.pem", NOW)
    message = {"Type": "Notification", "MessageId": "m", "TopicArn": topic, "Message": "x"}
    message["Timestamp"] = "2026-11-23T12:00:00.000Z"
    sent = delivery("sns", json.dumps(message).encode(), theirs.signing(topic))
    found = explain(sent, SOURCES["sns"], Known([topic]), fetching(theirs))
    assert [finding.cause for finding in found] == ["verifies_now"]


def test_a_hint_at_the_test_mode() -> None:
    assert causes(delivery("stripe", b'{"livemode": false}', "other")) == {"test_mode", "unknown"}


def test_credentials_that_are_not_kept() -> None:
    sent = Delivery("token", Headers([("X-Webhook-Token", REDACTED)]), BODY, NOW)
    assert causes(sent) == {"credentials", "unknown"}


def test_a_forgery_has_no_cause() -> None:
    assert causes(delivery("github", secret="somebody else's")) == {"unknown"}


@pytest.mark.parametrize("source", list(SOURCES))
def test_nothing_makes_it_fall_whatever_came(source: str) -> None:
    for body, url in product((b"", b"\xff", b"[" * 10_000, b"{}", b"\x1f\x8b\x08junk"), ("not a url", "https://[/x")):
        sent = Delivery(source, Headers([("x-a", "\ud800"), ("host", "[é")]), body, NOW, url=url)
        assert explain(sent, SOURCES[source], Known(["x"], ["v"], {"y": ["z"]}))
