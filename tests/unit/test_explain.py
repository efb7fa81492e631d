"""Each known cause of a refusal is found, and named so that somebody can act on it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chalicelib.config import SHIPPED_SOURCES
from chalicelib.deliveries import REDACTED, Delivery, Headers
from chalicelib.explain import explain
from chalicelib.sources import Sources
from tests.schemes import URL, signed

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SOURCES = Sources(SHIPPED_SOURCES)
SECRET = "s3cret-canary"
WHSEC = "whsec_" + base64.b64encode(b"canary-" * 5).decode()
BODY = b'{"id": "a", "name": "Zo\xc3\xab", "path": "a/b"}'


def delivery(source: str, body: bytes = BODY, secret: str = SECRET, *, now: datetime = NOW, url: str = URL) -> Delivery:
    """Signed with this secret over this body."""
    made = signed(SOURCES[source].scheme, body, secret, now=now, url=url)
    return Delivery(source, Headers(made.headers.items()), made.body, NOW, url=URL)


def causes(sent: Delivery, secrets: list[str] | None = None, others: Mapping[str, list[str]] | None = None) -> set[str]:
    found = explain(sent, SOURCES[sent.source], [SECRET] if secrets is None else secrets, others or {})
    text = " ".join(finding.sentence for finding in found)
    assert "canary" not in text
    assert found
    return {finding.cause for finding in found}


def test_a_secret_that_was_put_in_since_verifies_now() -> None:
    assert causes(delivery("github"), ["other", SECRET]) == {"verifies_now"}


def test_a_source_without_a_secret() -> None:
    assert causes(delivery("github"), []) == {"no_secret"}


def test_the_secret_of_another_source() -> None:
    assert causes(delivery("github"), ["other"], {"shop": ["x", SECRET]}) == {"other_source"}


def test_the_previous_secret() -> None:
    [finding] = explain(delivery("github"), SOURCES["github"], ["new"], {}, [SECRET])
    assert finding.cause == "previous_secret"


@pytest.mark.parametrize("seconds", [-3600, 3600, 100_000])
def test_a_clock_that_is_off_says_by_how_much_and_which_way(seconds: int) -> None:
    for source, secret in (("stripe", SECRET), ("standard-webhooks", WHSEC), ("zendesk", SECRET), ("workos", SECRET)):
        sent = delivery(source, secret=secret, now=NOW - timedelta(seconds=seconds))
        [finding] = explain(sent, SOURCES[source], [secret], {})
        assert finding.cause == "clock_skew"
        assert f"{abs(seconds):,} s {'old' if seconds > 0 else 'ahead'}" in finding.sentence


def test_a_time_within_the_body_counts_as_well() -> None:
    body = json.dumps({"webhookTimestamp": int((NOW.timestamp() - 600) * 1000)}).encode()
    [finding] = explain(delivery("linear", body), SOURCES["linear"], [SECRET], {})
    assert "600 s old" in finding.sentence


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
        (BODY, gzip.compress(BODY), "gzip"),
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
    [finding] = explain(sent, SOURCES[source], [SECRET], {})
    assert finding.cause == "url"
    assert registered in finding.sentence


def test_an_address_without_the_stage() -> None:
    made = delivery("square", url="https://x.example.com/webhooks/square")
    sent = replace(made, url="https://x.example.com/prod/webhooks/square")
    assert causes(sent) == {"url"}


def test_a_signature_in_another_header() -> None:
    made = delivery("github")
    headers = [("X-Signature", made.headers["X-Hub-Signature-256"])]
    assert causes(replace(made, headers=Headers(headers))) == {"wrong_header"}


def test_only_the_sha1_signature_is_there() -> None:
    sha1 = "sha1=" + hmac.digest(SECRET.encode(), BODY, "sha1").hex()
    sent = Delivery("github", Headers([("X-Hub-Signature", sha1)]), BODY, NOW)
    [finding] = explain(sent, SOURCES["github"], [SECRET], {})
    assert finding.cause == "other_form"
    assert "'x-hub-signature'" in finding.sentence and "HMAC-SHA1" in finding.sentence


@pytest.mark.parametrize("how", ["base64", "capitals", "sha512", "bare"])
def test_a_signature_in_another_form(how: str) -> None:
    mac = hmac.digest(SECRET.encode(), BODY, "sha512" if how == "sha512" else "sha256")
    text = {"base64": base64.b64encode(mac).decode(), "capitals": mac.hex().upper()}.get(how, mac.hex())
    prefix = "" if how == "bare" else "sha256="
    sent = Delivery("github", Headers([("X-Hub-Signature-256", prefix + text)]), BODY, NOW)
    assert causes(sent) == {"other_form"}


def test_a_plain_hash() -> None:
    digest = hashlib.sha256(SECRET.encode() + BODY).hexdigest()
    assert causes(Delivery("hmac", Headers([("X-Signature", digest)]), BODY, NOW)) == {"plain_hash"}


def test_a_header_that_is_not_there_and_one_that_looks_like_it() -> None:
    sent = Delivery("github", Headers([("X-Other-Signature", "x")]), BODY, NOW)
    found = explain(sent, SOURCES["github"], [SECRET], {})
    assert [finding.cause for finding in found] == ["header_missing", "unknown"]
    assert "x-other-signature" in found[0].sentence


def test_a_hint_at_the_test_mode() -> None:
    assert causes(delivery("stripe", b'{"livemode": false}', "other")) == {"test_mode", "unknown"}


def test_credentials_that_are_not_kept() -> None:
    sent = Delivery("token", Headers([("X-Webhook-Token", REDACTED)]), BODY, NOW)
    assert causes(sent) == {"credentials", "unknown"}


def test_a_forgery_has_no_cause() -> None:
    assert causes(delivery("github", secret="somebody else's")) == {"unknown"}


@pytest.mark.parametrize("source", list(SOURCES))
def test_nothing_makes_it_fall_whatever_came(source: str) -> None:
    for body in (b"", b"\xff", b"[" * 10_000, b"{}", b"\x1f\x8b\x08junk"):
        sent = Delivery(source, Headers([("x-a", "\ud800"), ("x-b", "é")]), body, NOW, url="not a url")
        assert explain(sent, SOURCES[source], ["x"], {"y": ["z"]})
