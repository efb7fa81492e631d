"""Seventeen traps that verifying webhooks has, each with what would have caught one who fell into it."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chalicelib.postern.contract.deliveries import Delivery, Headers
from chalicelib.postern.contract.envelope import Accepted
from chalicelib.postern.contract.errors import InvalidSignature, SecretUnavailable
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.contract.payloads import Format, text_of
from chalicelib.postern.receiving import http
from chalicelib.postern.receiving.explain import Known, explain
from chalicelib.postern.receiving.ingest import Inbox, Receipt, accept
from chalicelib.postern.receiving.schemes.base import MAX_CANDIDATES
from chalicelib.postern.receiving.sources import Sources
from tests.schemes import URL, scheme_of, signature, signed, verify
from tests.support import EVERY_SOURCE

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SECRET = "s3cret"
WHSEC = "whsec_" + base64.b64encode(b"k" * 32).decode()


def ours(provider: str, headers: Mapping[str, str], body: bytes, secret: str = SECRET, now: datetime = NOW) -> bool:
    try:
        verify(scheme_of(provider), Headers(headers.items()), body, [secret], now)
    except InvalidSignature:
        return False
    return True


def by(provider: str, body: bytes, secret: str = SECRET, now: datetime = NOW) -> dict[str, str]:
    return signature(scheme_of(provider), body, secret, now=now)


class Queued:
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.inbox = Inbox(Sources(EVERY_SOURCE), lambda source: [SECRET], self, self)

    def send(self, message: str, **kwargs: Any) -> None:
        self.messages.append(message)

    def send_all(self, messages: list[str], **kwargs: Any) -> None:
        self.messages += messages

    def put(self, key: str, body: bytes) -> None:
        raise AssertionError

    def take(self, provider: str, payload: Any, **headers: str) -> Receipt:
        body = json.dumps(payload).encode()
        given = {**by(provider, body), **{name.replace("_", "-"): value for name, value in headers.items()}}
        receipt = accept(Delivery(provider, Headers(given.items()), body, NOW, url=URL), self.inbox)
        assert isinstance(receipt, Receipt)
        return receipt


def test_trap_1_the_raw_bytes_are_what_is_signed() -> None:
    for body in (b'{"a": 1.00, "b": "\\u00e9\\/"}', b"\xff\xfe\x00", b'{"a":1}\r\n', b"", "Zoë".encode("utf-16")):
        for provider in ("github", "slack", "zoom", "workos", "line"):
            assert ours(provider, by(provider, body), body)
            assert not ours(provider, by(provider, body), body + b" ")


def test_trap_2_a_signature_beyond_ascii_is_refused_and_raises_nothing() -> None:
    for provider, secret in (("github", SECRET), ("stripe", SECRET), ("standard-webhooks", WHSEC), ("shopify", SECRET)):
        for name, value in by(provider, b"{}", secret).items():
            for text in (value[:-1] + "é", "é", value + "\ud800", "🦊"):
                assert not ours(provider, {**by(provider, b"{}", secret), name: text}, b"{}", secret)


def test_trap_3_one_header_means_what_the_provider_means_by_it() -> None:
    sha1, sha256 = (hmac.digest(SECRET.encode(), b"{}", name) for name in ("sha1", "sha256"))
    assert ours("intercom", {"X-Hub-Signature": f"sha1={sha1.hex()}"}, b"{}")
    assert ours("bitbucket", {"X-Hub-Signature": f"sha256={sha256.hex()}"}, b"{}")
    assert not ours("intercom", {"X-Hub-Signature": f"sha256={sha256.hex()}"}, b"{}")
    assert not ours("bitbucket", {"X-Hub-Signature": f"sha1={sha1.hex()}"}, b"{}")
    in_base64 = f"sha256={base64.b64encode(sha256).decode()}"
    assert ours("typeform", {"Typeform-Signature": in_base64}, b"{}")
    assert not ours("typeform", {"Typeform-Signature": f"sha256={sha256.hex()}"}, b"{}")
    assert not ours("github", {"X-Hub-Signature-256": in_base64}, b"{}")
    assert ours("gocardless", {"webhook-signature": sha256.hex()}, b"{}")
    assert not ours("standard-webhooks", {"webhook-signature": sha256.hex()}, b"{}", WHSEC)


def test_trap_4_a_secret_becomes_a_key_as_the_provider_says_and_not_as_it_looks() -> None:
    looks_like_base64 = base64.b64encode(b"k" * 32).decode()
    as_text = hmac.digest(looks_like_base64.encode(), b"{}", "sha256")
    assert ours("xero", {"x-xero-signature": base64.b64encode(as_text).decode()}, b"{}", looks_like_base64)
    decoded = hmac.digest(b"k" * 32, b"{}", "sha256")
    assert ours("airtable", {"X-Airtable-Content-MAC": f"hmac-sha256={decoded.hex()}"}, b"{}", looks_like_base64)
    in_hex = hmac.digest(bytes.fromhex("00ff"), b"{}", "sha256")
    assert ours("adyen-platform", {"HmacSignature": base64.b64encode(in_hex).decode()}, b"{}", "00ff")


@pytest.mark.parametrize("provider", ["stripe", "slack", "hubspot", "workos", "linear", "zendesk", "twitch", "sanity"])
def test_trap_5_a_time_is_checked_in_its_unit_both_ways_and_signed_as_it_came(provider: str) -> None:
    def sent(at: datetime) -> tuple[dict[str, str], bytes]:
        body = json.dumps({"webhookTimestamp": int(at.timestamp() * 1000)}).encode()
        return by(provider, body, now=at), body

    for seconds in (-90_000, 3601):
        assert not ours(provider, *sent(NOW + timedelta(seconds=seconds)))
    headers, body = sent(NOW)
    assert ours(provider, headers, body)
    for name, value in headers.items():
        for other in (value.replace("17", "017", 1), value.replace("2026", "+2026", 1)):
            assert value == other or not ours(provider, {**headers, name: other}, body)


@pytest.mark.parametrize("time", [" 1", "+1", "1_0", "nan", "1e9", "１", "", "-1", "0x1", "1.0", "99999999999999999"])
def test_trap_6_a_number_is_digits_and_nothing_that_python_takes_for_one(time: str) -> None:
    headers = by("slack", b"{}")
    assert not ours("slack", {**headers, "X-Slack-Request-Timestamp": time}, b"{}")
    digits = str(int(NOW.timestamp()))
    for spelled in (f" {digits}", f"+{digits}", f"{digits}.0", f"{digits[:4]}_{digits[4:]}"):
        mac = hmac.digest(SECRET.encode(), f"v0:{spelled}:{{}}".encode(), "sha256").hex()
        forged = {"X-Slack-Signature": f"v0={mac}", "X-Slack-Request-Timestamp": spelled}
        assert not ours("slack", forged, b"{}")


def test_trap_7_of_a_list_malformed_entries_are_skipped_and_their_number_is_capped() -> None:
    lists = {
        "stripe": ("Stripe-Signature", ",", "v1="),
        "pagerduty": ("X-PagerDuty-Signature", ",", "v1="),
        "paddle": ("Paddle-Signature", ";", "h1="),
        "standard-webhooks": ("webhook-signature", " ", "v1,"),
    }
    for provider, (name, separator, label) in lists.items():
        secret = WHSEC if provider == "standard-webhooks" else SECRET
        headers = by(provider, b"{}", secret)
        junk = separator.join(["junk", "", "=", f"{label}00"])
        assert ours(provider, {**headers, name: headers[name] + separator + junk}, b"{}", secret)
        flood = separator.join([f"{label}{n:064x}" for n in range(MAX_CANDIDATES)])
        assert not ours(provider, {**headers, name: headers[name] + separator + flood}, b"{}", secret)
    numbered = {"X-DocuSign-Signature-1": "junk", "X-DocuSign-Signature-7": by("docusign", b"{}").popitem()[1]}
    assert ours("docusign", numbered, b"{}")


@pytest.mark.parametrize("junk", ["!", "\n", "-", "="])
def test_trap_8_base64_is_compared_as_it_is_written(junk: str) -> None:
    for provider, secret in (("shopify", SECRET), ("line", SECRET), ("standard-webhooks", WHSEC), ("sanity", SECRET)):
        headers = by(provider, b"{}", secret)
        name = next(header for header in headers if "sign" in header.lower() or "hmac" in header.lower())
        assert not ours(provider, {**headers, name: headers[name] + junk}, b"{}", secret)


def test_trap_9_an_id_that_nobody_signed_is_an_events_own_and_its_bytes_are_remembered() -> None:
    """tests/integration/test_identity.py does it, attack by attack, to the row."""
    queued = Queued()
    for id in ("real", "forged"):
        queued.take("github", {"a": 1}, X_GitHub_Delivery=id)
    queued.take("github", {"a": 2}, X_GitHub_Delivery="real")
    events = [event for text in queued.messages if isinstance(event := from_message(text), Accepted)]
    assert events[0].same_bytes == events[1].same_bytes != events[2].same_bytes
    assert [event.dedup_key for event in events] == ["real", "forged", "real"]


def test_trap_10_a_redelivery_under_the_same_id_is_the_same_event() -> None:
    queued = Queued()
    for _ in range(2):
        queued.take("github", {"a": 1}, X_GitHub_Delivery="one")
    first, second = (from_message(text) for text in queued.messages)
    assert getattr(first, "dedup_key", 1) == getattr(second, "dedup_key", 2)


@pytest.mark.parametrize("provider", ["square", "trello", "hubspot"])
def test_trap_11_the_url_is_the_configured_one_to_the_last_slash(provider: str) -> None:
    headers = Headers(signed(scheme_of(provider), b"{}", SECRET, now=NOW).headers.items())
    verify(scheme_of(provider), headers, b"{}", [SECRET], NOW)
    for other in (URL + "/", URL.replace("https", "http"), URL.replace(".com", ".com:443"), URL + "?", URL + "?a=b"):
        with pytest.raises(InvalidSignature):
            verify(scheme_of(provider), headers, b"{}", [SECRET], NOW, url=other)


@pytest.mark.parametrize("empty", ["", " ", "\n"])
def test_trap_12_an_empty_secret_verifies_nothing(empty: str) -> None:
    for provider in ("github", "stripe", "slack", "token", "square"):
        with pytest.raises(SecretUnavailable):
            ours(provider, by(provider, b"{}"), b"{}", empty)
        with pytest.raises(InvalidSignature):
            verify(scheme_of(provider), Headers(by(provider, b"{}").items()), b"{}", [], NOW)


def test_trap_13_a_repeated_header_is_refused_unless_the_provider_sends_two() -> None:
    for provider in ("github", "stripe", "slack", "token"):
        headers = by(provider, b"{}")
        for name, value in headers.items():
            with pytest.raises(InvalidSignature):
                verify(scheme_of(provider), Headers([*headers.items(), (name, value)]), b"{}", [SECRET], NOW)
    [(name, value)] = by("mollie", b"{}").items()
    twice = Headers([(name, "sha256=" + "0" * 64), (name, value)])
    assert verify(scheme_of("mollie"), twice, b"{}", [SECRET], NOW).secret == 0
    assert ours("mollie", {name: f"sha256={'0' * 64},{value}"}, b"{}")


def test_trap_14_no_handshake_puts_a_secret_in_place_of_one() -> None:
    """tests/unit/test_handshakes.py has each of them; here, that what was echoed verifies nothing."""
    forged = hmac.digest(b"chosen-by-the-attacker", b"{}", "sha256").hex()
    assert not ours("asana", {"X-Hook-Signature": forged, "X-Hook-Secret": "chosen-by-the-attacker"}, b"{}")
    assert not ours("notion", {"X-Notion-Signature": f"sha256={forged}"}, b"{}")


def test_trap_15_a_wrong_signature_is_a_401_and_a_fault_of_ours_is_not() -> None:
    assert http.refused(InvalidSignature("x")).status == 401
    assert http.refused(SecretUnavailable("x")).status == 503


def test_trap_16_a_form_keeps_its_blank_fields_and_is_verified_before_its_json_is_read() -> None:
    assert json.loads(str(text_of(b"a=&b=1&b=", format=Format.FORM))) == {"a": "", "b": ["1", ""]}
    form = b"payload=%7B%22a%22%3A1%7D"
    assert ours("github", by("github", form), form)
    assert not ours("github", by("github", b'{"a":1}'), form)


def test_trap_17_a_batch_is_several_events_each_with_its_own_key() -> None:
    queued = Queued()
    receipt = queued.take("hubspot", [{"eventId": 1, "subscriptionType": "a"}, {"eventId": 2, "subscriptionType": "b"}])
    events = [event for text in queued.messages if isinstance(event := from_message(text), Accepted)]
    assert [event.id for event in events] == list(receipt.ids)
    assert [event.type for event in events] == ["a", "b"]
    assert len({event.dedup_key for event in events}) == 2


def test_a_trap_that_was_fallen_into_is_explained() -> None:
    sent = Delivery("github", Headers(by("github", b'{"a":1}').items()), b'{"a": 1}', NOW)
    assert [finding.cause for finding in explain(sent, Sources(EVERY_SOURCE)["github"], Known([SECRET]))] == [
        "reserialised"
    ]
