"""A few refused deliveries are kept, if their source asks for it, and nothing about that is the sender's to notice."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from marshmallow import ValidationError

from chalicelib.postern.contract.deliveries import REDACTED, Delivery, Greeting, Headers
from chalicelib.postern.contract.envelope import Rejected, to_message
from chalicelib.postern.contract.errors import (
    InvalidPayload,
    InvalidSignature,
    QueueUnavailable,
    SecretUnavailable,
    UnsupportedMediaType,
)
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.receiving.ingest import Inbox, accept
from chalicelib.postern.receiving.quarantine import MAX_KEPT_BYTES, RateCap
from chalicelib.postern.receiving.sources import load_sources
from tests.schemes import hmac_body, signature
from tests.unit.envelope_schema import ENVELOPE

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@dataclass
class Sent:
    messages: list[Rejected] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    fails: Exception | None = None

    def send(self, message: str, *, group: str, trace: str | None) -> None:
        if self.fails:
            raise self.fails
        found = from_message(message)
        assert isinstance(found, Rejected)
        self.messages.append(found)
        self.groups.append(group)

    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None) -> None:
        raise AssertionError

    def put(self, key: str, body: bytes) -> None:
        raise AssertionError


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def inbox(sent: Sent, tmp_path: Path) -> Inbox:
    file = tmp_path / "sources.toml"
    file.write_text(
        """
        [keeps]
        provider = "hmac"
        quarantine = true
        [keeps-tokens]
        provider = "token"
        quarantine = true
        [keeps-parameters]
        provider = "docker-hub"
        quarantine = true
        [keeps-elsewhere]
        provider = "square"
        url = "https://hooks.example.com/configured"
        quarantine = true
        [keeps-nothing]
        provider = "hmac"
        [notion]
        provider = "notion"
        """,
        "utf-8",
    )

    def secrets_of(source: str) -> list[str]:
        if source == "notion":
            raise SecretUnavailable("secret_missing")
        return ["2999-01-01T00:00:00Z"] if source == "notion.awaited_until" else ["s3cret"]

    cap = RateCap(lambda: 0.0, most=3)
    return Inbox(load_sources(file), secrets_of, sent, sent, may_keep=lambda source, verified: cap.allows(source))


def refuse(inbox: Inbox, source: str, body: bytes = b"{}", **headers: str) -> InvalidSignature:
    given = {name.replace("_", "-"): value for name, value in headers.items()} or {"X-Signature": "00"}
    delivery = Delivery(source, Headers(given.items()), body, NOW, "req-1", url="https://x/y", query=[("a", "b")])
    with pytest.raises(InvalidSignature) as caught:
        accept(delivery, inbox)
    return caught.value


def test_what_is_kept_is_the_whole_delivery_and_the_reason(inbox: Inbox, sent: Sent) -> None:
    refusal = refuse(inbox, "keeps", b'\x00{"a":\xff', X_Signature="00")
    [kept] = sent.messages
    assert kept.id == refusal.kept
    assert (kept.source, kept.reason, kept.method, kept.url) == ("keeps", "signature_mismatch", "POST", "https://x/y")
    assert (kept.body, kept.query, kept.request_id) == (b'\x00{"a":\xff', [("a", "b")], "req-1")
    assert kept.headers == {"x-signature": "00"}
    assert kept.received_at == NOW


def test_a_source_that_does_not_ask_for_it_keeps_nothing(inbox: Inbox, sent: Sent) -> None:
    refusal = refuse(inbox, "keeps-nothing")
    assert (refusal.kept, refusal.not_kept, sent.messages) == (None, None, [])


def test_a_flood_is_kept_in_small_part_and_delays_no_event(inbox: Inbox, sent: Sent) -> None:
    refusals = [refuse(inbox, "keeps") for _ in range(100)]
    assert len([refusal for refusal in refusals if refusal.kept]) == len(sent.messages) == 3
    assert [refusal.not_kept for refusal in refusals] == [None] * 3 + ["too_many"] * 97
    assert set(sent.groups) == {"keeps.rejected"}


def test_each_source_has_a_share_of_its_own(inbox: Inbox, sent: Sent) -> None:
    for _ in range(10):
        refuse(inbox, "keeps")
    assert refuse(inbox, "keeps-tokens", X_Webhook_Token="wrong").kept is not None


def test_credentials_are_not_kept(inbox: Inbox, sent: Sent) -> None:
    refuse(inbox, "keeps-tokens", X_Webhook_Token="canary", Authorization="Bearer canary")
    assert sent.messages[0].headers == {"x-webhook-token": REDACTED, "authorization": REDACTED}
    assert "canary" not in to_message(sent.messages[0])


def test_a_token_in_the_url_is_not_kept(inbox: Inbox, sent: Sent) -> None:
    url = "https://x/webhooks/keeps-parameters?token=canary&a=b"
    query = [("token", "canary"), ("a", "b")]
    with pytest.raises(InvalidSignature):
        accept(Delivery("keeps-parameters", Headers([]), b"{}", NOW, url=url, query=query), inbox)
    [kept] = sent.messages
    assert (kept.query[0], kept.query[1]) == (("token", REDACTED), ("a", "b"))
    assert kept.url == "https://x/webhooks/keeps-parameters?token=%5Bredacted%5D&a=b"
    assert "canary" not in to_message(kept)


def test_the_url_is_kept_as_it_came_and_not_as_it_is_configured(inbox: Inbox, sent: Sent) -> None:
    """Or nobody could tell a wrong setting from what it should have been."""
    refuse(inbox, "keeps-elsewhere", x_square_hmacsha256_signature="00")
    assert sent.messages[0].url == "https://x/y"


def test_a_large_one_is_not_kept(inbox: Inbox, sent: Sent) -> None:
    refusal = refuse(inbox, "keeps", b"x" * (MAX_KEPT_BYTES + 1))
    assert (refusal.kept, refusal.not_kept) == (None, "too_large")
    assert refuse(inbox, "keeps", b"x" * MAX_KEPT_BYTES).kept is not None


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        (QueueUnavailable("EndpointConnectionError"), "queue_unavailable: EndpointConnectionError"),
        (TypeError("a mistake of ours"), "TypeError"),
    ],
)
def test_that_it_cannot_be_kept_changes_nothing_for_the_sender(
    inbox: Inbox, sent: Sent, fails: Exception, why: str
) -> None:
    sent.fails = fails
    refusal = refuse(inbox, "keeps")
    assert (refusal.status, refusal.kept, refusal.not_kept) == (401, None, why)


def test_an_older_processor_takes_it_for_no_event(inbox: Inbox, sent: Sent) -> None:
    """It ends among the dead letters, after three receives, and a newer one keeps it when it is redriven."""
    refuse(inbox, "keeps")
    with pytest.raises(ValidationError):
        ENVELOPE.loads(to_message(sent.messages[0]))  # the one kind of message that it knows


@pytest.mark.parametrize("source", ["keeps", "keeps-nothing"])
def test_a_verified_delivery_that_is_no_good_is_kept_whatever_the_source_says(
    inbox: Inbox, sent: Sent, source: str
) -> None:
    """Who signs is no stranger, and may never come again."""
    for body, reason in (
        (b"{", "not_json"),
        (b"\xff", "not_utf8"),
        (b"", "empty"),
        (b"[" * 600 + b"]" * 600, "too_deep"),
    ):
        headers = signature(hmac_body("X-Signature"), body, "s3cret", now=NOW)
        sent.messages.clear()
        with pytest.raises(InvalidPayload) as caught:
            accept(Delivery(f"{source}", Headers(headers.items()), body, NOW), replace(inbox, may_keep=lambda *_: True))
        [kept] = sent.messages
        assert (kept.reason, kept.verified, kept.body, kept.id) == (reason, True, body, caught.value.kept)
        assert from_message(to_message(kept)) == kept


def test_one_whose_content_type_is_not_taken_is_verified_to_be_kept(inbox: Inbox, sent: Sent) -> None:
    for signed, kept in ((b"<a/>", 1), (b"<b/>", 0)):
        headers = {**signature(hmac_body("X-Signature"), signed, "s3cret", now=NOW), "Content-Type": "application/xml"}
        sent.messages.clear()
        with pytest.raises(UnsupportedMediaType):
            accept(Delivery("keeps-nothing", Headers(headers.items()), b"<a/>", NOW), inbox)
        assert len(sent.messages) == kept


def test_one_of_its_kind_that_fits_no_message_is_not_kept_and_said_so(inbox: Inbox, sent: Sent) -> None:
    body = b"{" + os.urandom(1_200_000)
    headers = signature(hmac_body("X-Signature"), body, "s3cret", now=NOW)
    with pytest.raises(InvalidPayload) as caught:
        accept(Delivery("keeps", Headers(headers.items()), body, NOW), inbox)
    assert (caught.value.kept, caught.value.not_kept) == (None, "too_large")


def test_the_token_that_notion_sends_is_kept_for_the_operator_to_read(inbox: Inbox, sent: Sent) -> None:
    body = b'{"verification_token": "secret_abc"}'
    assert accept(Delivery("notion", Headers([]), body, NOW), inbox) == Greeting(200, kept_as="verification_token")
    assert [(kept.reason, kept.body) for kept in sent.messages] == [("verification_token", body)]


def test_the_cap_fills_again_with_time() -> None:
    now = 0.0
    cap = RateCap(lambda: now, most=2, seconds=60)
    assert [cap.allows("a") for _ in range(3)] == [True, True, False]
    now = 30.0
    assert [cap.allows("a") for _ in range(2)] == [True, False]
    now = 10_000.0
    assert [cap.allows("a") for _ in range(3)] == [True, True, False]
