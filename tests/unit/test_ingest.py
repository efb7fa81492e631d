"""Accepting a delivery: the order of the checks, and what is durable when."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from marshmallow import Schema, fields

from chalicelib.deliveries import Delivery, Headers
from chalicelib.envelope import from_message
from chalicelib.errors import (
    InvalidPayload,
    InvalidSignature,
    PayloadTooLarge,
    QueueUnavailable,
    Refusal,
    SecretUnavailable,
    UnknownSource,
    UnsupportedMediaType,
)
from chalicelib.http import refused
from chalicelib.ingest import Inbox, Receipt, accept
from chalicelib.sources import load_sources

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SECRETS = {
    "github": ["new", "old"],
    "stripe": ["whsec_x"],
    "standard-webhooks": ["whsec_" + base64.b64encode(b"k" * 32).decode()],
    "hmac": ["s3cret"],
    "token": ["canary-token"],
    "basic": ["user:canary"],
}


@dataclass
class Durable:
    """An in-memory queue and bucket, which remember in which order they were used."""

    done: list[tuple[str, str]] = field(default_factory=list)
    queue_away: bool = False
    bucket_away: bool = False

    def send(self, message: str, *, group: str) -> None:
        if self.queue_away:
            raise QueueUnavailable("away")
        self.done.append(("send", message))

    def put(self, key: str, body: bytes) -> None:
        if self.bucket_away:
            raise QueueUnavailable("away")
        self.done.append(("put", key))


@pytest.fixture
def durable() -> Durable:
    return Durable()


@pytest.fixture
def inbox(durable: Durable, tmp_path: Path) -> Inbox:
    file = tmp_path / "sources.toml"
    shipped = (Path(__file__).parents[2] / "chalicelib" / "sources.toml").read_text("utf-8")
    file.write_text(shipped + '\n[open]\nprovider = "none"\n', "utf-8")

    def secrets_of(source: str) -> list[str]:
        if source not in SECRETS:
            raise SecretUnavailable("secret_missing")
        return SECRETS[source]

    return Inbox(load_sources(file), secrets_of, durable, durable)


@pytest.fixture
def deliver(inbox: Inbox) -> Callable[..., Receipt]:
    def send(source: str, body: bytes, secret: str | None = None, /, inbox: Inbox = inbox, **headers: str) -> Receipt:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if secret is None and source in SECRETS:
            secret = SECRETS[source][0]
        if source in inbox.sources:
            scheme = inbox.sources[source].scheme
            given = {**scheme.sign(body, secret or "", event_id="msg_1", now=NOW), **given}
        return accept(Delivery(source, Headers(given.items()), body, NOW), inbox)

    return send


Deliver = Callable[..., Receipt]


@pytest.mark.parametrize(
    ("source", "body", "headers", "type", "key"),
    [
        ("github", b"{}", {"X_GitHub_Event": "push", "X_GitHub_Delivery": "d-1"}, "push", "d-1"),
        ("stripe", b'{"id": "evt_1", "type": "invoice.paid"}', {}, "invoice.paid", "evt_1"),
        ("standard-webhooks", b'{"type": "a.b"}', {}, "a.b", "msg_1"),
        ("hmac", b'{"type": "a.b"}', {}, "a.b", "sha256:"),
        ("token", b"[]", {}, "unknown", "sha256:"),
        ("basic", b'{"type": 7}', {}, "7", "sha256:"),
        ("open", b"{}", {}, "unknown", "sha256:"),
    ],
)
def test_type_and_key_come_from_where_the_provider_puts_them(
    deliver: Deliver, durable: Durable, source: str, body: bytes, headers: dict[str, str], type: str, key: str
) -> None:
    receipt = deliver(source, body, **headers)
    [(_, message)] = durable.done
    event = from_message(message)
    assert (event.id, event.source, event.type, event.body) == (receipt.id, source, type, body)
    assert event.dedup_key == key or (key == "sha256:" and event.dedup_key.startswith(key))


def test_the_previous_secret_is_good_too(deliver: Deliver) -> None:
    assert deliver("github", b"{}", "old").secret == 1


def test_an_unverified_body_is_never_parsed(deliver: Deliver, durable: Durable) -> None:
    for body in (b"not json", b"[" * 1_000_000, b"\xff"):
        with pytest.raises(InvalidSignature):
            deliver("hmac", body, "wrong")
    assert durable.done == []


def test_cheap_checks_come_before_the_secret_is_even_fetched(deliver: Deliver, inbox: Inbox) -> None:
    def no_secrets(source: str) -> list[str]:
        raise AssertionError("the secret was fetched")

    careful = replace(inbox, secrets_of=no_secrets)
    for source, body, headers, error in (
        ("nobody", b"{}", {}, UnknownSource),
        ("hmac", b"x" * 6_000_001, {}, PayloadTooLarge),
        ("hmac", b"{}", {"Content_Type": "text/plain"}, UnsupportedMediaType),
    ):
        with pytest.raises(error):
            deliver(source, body, inbox=careful, **headers)


def test_the_answer_to_every_failed_verification_is_the_same(deliver: Deliver) -> None:
    answers = []
    for source, headers in (
        ("hmac", {"X_Signature": ""}),
        ("hmac", {"X_Signature": "é"}),
        ("github", {"X_Hub_Signature_256": "sha256=00"}),
        ("stripe", {"Stripe_Signature": "t=1,v1=00"}),
        ("standard-webhooks", {"webhook_timestamp": "99999999999"}),
        ("basic", {"Authorization": "Bearer x"}),
    ):
        with pytest.raises(InvalidSignature) as caught:
            deliver(source, b"{}", **headers)
        answers.append(refused(caught.value))
    assert all(answer == answers[0] for answer in answers)


@pytest.mark.parametrize("value", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x", None])
def test_json_is_taken_under_any_spelling_or_none(deliver: Deliver, value: str | None) -> None:
    deliver("hmac", b"{}", **({"Content_Type": value} if value else {}))


def test_githubs_form_is_taken(deliver: Deliver, durable: Durable) -> None:
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    deliver("github", b"payload=%7B%22a%22%3A1%7D", **form)
    assert from_message(durable.done[0][1]).form_field == "payload"
    with pytest.raises(UnsupportedMediaType):
        deliver("hmac", b"payload=%7B%7D", **form)


def test_a_source_without_its_secret_is_our_mistake(deliver: Deliver, inbox: Inbox) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        deliver("hmac", b"{}", inbox=replace(inbox, secrets_of=lambda source: [""]))
    assert caught.value.status == 503


class Order(Schema):
    number = fields.Integer(required=True, strict=True)


@pytest.mark.parametrize(
    ("payload", "details"),
    [
        ({"number": "x"}, {"number": ["Not a valid integer."]}),
        ({}, {"number": ["Missing data for required field."]}),
        ([], {"_schema": ["Invalid input type."]}),
    ],
)
def test_field_errors_come_back_in_details(
    deliver: Deliver, durable: Durable, inbox: Inbox, payload: Any, details: dict[str, Any]
) -> None:
    strict = replace(inbox, sources={"hmac": replace(inbox.sources["hmac"], schema=Order())})
    with pytest.raises(InvalidPayload) as caught:
        deliver("hmac", json.dumps(payload).encode(), inbox=strict)
    assert refused(caught.value).body["details"] == details
    assert durable.done == []


def test_a_body_that_no_message_can_carry_is_in_the_bucket_before_its_message_is_sent(
    deliver: Deliver, durable: Durable
) -> None:
    body = json.dumps(os.urandom(1_000_000).hex()).encode()
    receipt = deliver("hmac", body)
    (first, key), (second, message) = durable.done
    assert (first, second) == ("put", "send")
    event = from_message(message)
    assert (event.body, event.body_key) == (None, key)
    assert key == f"hmac/2026/11/23/{receipt.id}"


@pytest.mark.parametrize("part", ["queue", "bucket"])
def test_nothing_is_accepted_that_is_not_durable(deliver: Deliver, durable: Durable, part: str) -> None:
    body = json.dumps(os.urandom(1_000_000).hex()).encode()
    setattr(durable, f"{part}_away", True)
    with pytest.raises(QueueUnavailable):
        deliver("hmac", body)
    assert ("send", body) not in durable.done
    assert not [message for kind, message in durable.done if kind == "send"]


@pytest.mark.parametrize("source", ["token", "basic"])
def test_a_credential_is_in_no_message(deliver: Deliver, durable: Durable, source: str) -> None:
    deliver(source, b"{}")
    assert "canary" not in durable.done[0][1]


def test_a_refusal_answers_nothing_but_its_code_and_sentence() -> None:
    answer = refused(InvalidSignature("signature_mismatch"))
    assert answer.body == {
        "error": "invalid_signature",
        "message": "The delivery could not be verified.",
        "details": {},
    }
    assert issubclass(QueueUnavailable, Refusal)
