"""Accepting a delivery: the order of the checks, and what is durable when."""

from __future__ import annotations

import base64
import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from marshmallow import Schema, fields, pre_load

from chalicelib.postern.contract.deliveries import REDACTED, Delivery, Headers
from chalicelib.postern.contract.envelope import Accepted
from chalicelib.postern.contract.errors import (
    InvalidPayload,
    InvalidSignature,
    PayloadTooLarge,
    QueueUnavailable,
    Refusal,
    SecretUnavailable,
    UnknownSource,
    UnsupportedMediaType,
)
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.receiving.http import refused
from chalicelib.postern.receiving.identity import Rule
from chalicelib.postern.receiving.ingest import Inbox, Receipt, accept
from chalicelib.postern.receiving.naming import Place
from chalicelib.postern.receiving.sources import load_sources
from tests.schemes import signature, verify
from tests.support import EVERY_SOURCE

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
    groups: list[str] = field(default_factory=list)
    traces: list[str | None] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    queue_away: bool = False
    bucket_away: bool = False

    def send(self, message: str, *, group: str, trace: str | None) -> None:
        if self.queue_away:
            raise QueueUnavailable("away")
        self.done.append(("send", message))
        self.groups.append(group)
        self.traces.append(trace)

    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None) -> None:
        for message in messages:
            self.send(message, group=group, trace=trace)

    def put(self, key: str, body: bytes) -> None:
        if self.bucket_away:
            raise QueueUnavailable("away")
        self.done.append(("put", key))
        self.bodies[key] = body


@pytest.fixture
def durable() -> Durable:
    return Durable()


@pytest.fixture
def inbox(durable: Durable, tmp_path: Path) -> Inbox:
    file = tmp_path / "sources.toml"
    shipped = EVERY_SOURCE.read_text("utf-8")
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
            given = {**signature(scheme, body, secret or "", event_id="msg_1", now=NOW), **given}
        return accept(Delivery(source, Headers(given.items()), body, NOW), inbox)

    return send


Deliver = Callable[..., Receipt]


def queued(durable: Durable) -> Accepted:
    """The event in the last message."""
    return from_message([message for kind, message in durable.done if kind == "send"][-1])


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


@pytest.mark.parametrize("source", [*SECRETS, "open"])
def test_what_is_told_to_the_sender_is_what_is_queued(deliver: Deliver, durable: Durable, source: str) -> None:
    receipt = deliver(source, b'{"id": "evt_1", "type": "a.b"}')
    event = queued(durable)
    assert (receipt.id, receipt.type, receipt.dedup_key) == (event.id, event.type, event.dedup_key)
    assert (event.received_at, event.id.int >> 80) == (NOW, int(NOW.timestamp() * 1000))
    assert durable.groups == [source]


def test_a_redelivery_is_another_delivery_of_the_same_event(deliver: Deliver) -> None:
    """Which of the two is stored, the database decides; here, both are accepted."""
    for source in (*SECRETS, "open"):
        first, second = (deliver(source, b'{"id": "evt_1"}', X_GitHub_Delivery="d-1") for _ in range(2))
        assert first.id != second.id
        assert first.dedup_key == second.dedup_key


def test_stripes_key_is_in_the_body_and_not_in_a_header_that_anybody_can_add(deliver: Deliver) -> None:
    body = b'{"id": "evt_1", "type": "invoice.paid"}'
    assert deliver("stripe", body, webhook_id="forged", X_GitHub_Delivery="forged").dedup_key == "evt_1"


def test_a_signed_id_goes_before_any_other_place(deliver: Deliver, inbox: Inbox) -> None:
    """The id under the signature is the only one that nobody on the way could change."""
    for first, key in ((False, "msg_1"), (True, "x")):  # unless the team says where the id is
        rule = Rule(Place.parse("body:id"), first=first)
        elsewhere = replace(inbox.sources["standard-webhooks"], identity=rule)
        of = replace(inbox, sources={"standard-webhooks": elsewhere})
        assert deliver("standard-webhooks", b'{"id": "x"}', inbox=of).dedup_key == key


@pytest.mark.parametrize(
    ("id", "key"),
    [
        ("evt_1", "evt_1"),
        (7, "7"),
        ("", "sha256:"),
        (None, "sha256:"),
        (["a"], "sha256:"),
        (True, "sha256:"),
        ("x" * 201, "id-sha256:"),
        ("a\0b", "id-sha256:"),
        ("\ud800", "id-sha256:"),
    ],
    ids=["text", "number", "empty", "null", "list", "truth", "long", "NUL", "surrogate"],
)
def test_every_event_has_a_key_whatever_its_id_is(deliver: Deliver, durable: Durable, id: Any, key: str) -> None:
    receipt = deliver("stripe", json.dumps({"id": id}).encode())
    assert receipt.dedup_key == key or (key.endswith(":") and receipt.dedup_key.startswith(key))
    assert queued(durable).dedup_key == receipt.dedup_key


@pytest.mark.parametrize("type", ["", "a\0b", "line\nbreak", "x" * 201, None, {"a": 1}, False, 1.5])
def test_a_type_that_is_no_name_is_unknown(deliver: Deliver, type: Any) -> None:
    assert deliver("hmac", json.dumps({"type": type}).encode()).type == "unknown"


def test_a_repeated_id_header_names_nothing(inbox: Inbox, durable: Durable) -> None:
    """Which of two ids would count is nothing that a sender should choose per reader."""
    scheme = inbox.sources["github"].scheme
    headers = [*signature(scheme, b"{}", "new", event_id="", now=NOW).items(), ("X-GitHub-Delivery", "a")]
    receipt = accept(Delivery("github", Headers([*headers, ("x-github-delivery", "b")]), b"{}", NOW), inbox)
    assert receipt.dedup_key.startswith("sha256:")
    assert queued(durable).headers["x-github-delivery"] == ["a", "b"]


def test_the_previous_secret_is_good_too(deliver: Deliver) -> None:
    assert deliver("github", b"{}", "old").secret == 1


@pytest.mark.parametrize("source", SECRETS)
@pytest.mark.parametrize(
    "body", [b"", b"not json", b"NaN", b"[" * 1_000_000, b"\xff"], ids=["empty", "text", "NaN", "brackets", "binary"]
)
def test_an_unverified_body_is_never_parsed(deliver: Deliver, durable: Durable, source: str, body: bytes) -> None:
    wrong = {"standard-webhooks": "whsec_d3Jvbmc=", "basic": "user:wrong"}.get(source, "wrong")
    with pytest.raises(InvalidSignature):
        deliver(source, body, wrong)
    assert durable.done == []


def test_an_unverified_form_is_never_parsed(deliver: Deliver) -> None:
    with pytest.raises(InvalidSignature):
        deliver("github", b"%FF", "wrong", Content_Type="application/x-www-form-urlencoded")


class Suspicious(Schema):
    @pre_load
    def remember(self, data: Any, **kwargs: Any) -> Any:
        raise AssertionError("the payload was looked at")


def test_an_unverified_payload_never_reaches_the_schema(deliver: Deliver, inbox: Inbox) -> None:
    careful = replace(inbox, sources={"hmac": replace(inbox.sources["hmac"], schema=Suspicious())})
    with pytest.raises(InvalidSignature):
        deliver("hmac", b"{}", "wrong", inbox=careful)
    with pytest.raises(AssertionError, match="looked at"):
        deliver("hmac", b"{}", inbox=careful)


def test_the_very_bytes_are_verified_and_kept(deliver: Deliver, durable: Durable) -> None:
    body = b'\xef\xbb\xbf {"b" : 1.10,\r\n "a":"\\u00e9\\/", "a": 2}\n'
    deliver("hmac", body)
    assert queued(durable).body == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"not json",
        b'{"a": NaN}',
        b"[Infinity]",
        '{"a": "é"}'.encode("latin-1"),
        '{"a": 1}'.encode("utf-16"),
        b"[" * 100_000,
        b"[" * 513 + b"]" * 513,
    ],
    ids=["empty", "blank", "text", "NaN", "Infinity", "latin-1", "UTF-16", "100,000 brackets", "513 levels"],
)
def test_a_verified_body_that_is_not_json_is_refused_and_not_queued(
    deliver: Deliver, durable: Durable, body: bytes
) -> None:
    with pytest.raises(InvalidPayload) as caught:
        deliver("hmac", body)
    answer = refused(caught.value)
    assert (answer.status, answer.body["error"]) == (400, "invalid_payload")
    assert durable.done == []


@pytest.mark.parametrize(
    "body",
    [
        rb'{"a": "\u0000"}',
        rb'{"a": "\ud800"}',
        b'{"a": ' + b"9" * 400 + b"}",
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"a": 1e999999}',
        b'{"a": 1, "a": 2}',
        b'{"a": "' + b"x" * 1_000_000 + b'"}',
        '{"🦊": "🦊"}'.encode(),
        b"[" * 512 + b"]" * 512,
    ],
    ids=["NUL", "surrogate", "400 digits", "5,000 digits", "exponent", "twice", "1 MB", "emoji", "512 levels"],
)
def test_odd_but_legal_json_is_accepted_byte_for_byte(deliver: Deliver, durable: Durable, body: bytes) -> None:
    deliver("hmac", body)
    assert queued(durable).body == body


def test_cheap_checks_come_before_the_secret_is_even_fetched(deliver: Deliver, inbox: Inbox) -> None:
    def no_secrets(source: str) -> list[str]:
        raise AssertionError("the secret was fetched")

    careful = replace(inbox, secrets_of=no_secrets)
    for source, body, headers, error in (
        ("nobody", b"{}", {}, UnknownSource),
        ("hmac", b"x" * 6_000_001, {}, PayloadTooLarge),
    ):
        with pytest.raises(error):
            deliver(source, body, inbox=careful, **headers)


def test_the_largest_body_is_taken_and_one_byte_more_is_not(deliver: Deliver) -> None:
    deliver("hmac", b'"' + b"x" * 5_999_998 + b'"')
    with pytest.raises(PayloadTooLarge):
        deliver("hmac", b'"' + b"x" * 5_999_999 + b'"')


def test_an_unknown_source_is_told_before_anything_about_it_is(deliver: Deliver) -> None:
    for source in ("nobody", "", "GitHub", "github ", "../github"):
        with pytest.raises(UnknownSource):
            deliver(source, b"x" * 6_000_001, Content_Type="text/plain")


def test_size_goes_before_content_type(deliver: Deliver) -> None:
    with pytest.raises(PayloadTooLarge):
        deliver("hmac", b"x" * 6_000_001, Content_Type="text/plain")


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


def test_the_reason_for_a_401_is_in_the_refusal_for_the_log(deliver: Deliver) -> None:
    with pytest.raises(InvalidSignature) as caught:
        deliver("hmac", b"{}", X_Signature="00")
    assert caught.value.reason == "signature_mismatch"
    assert "mismatch" not in json.dumps(refused(caught.value).body)


@pytest.mark.parametrize(
    "value",
    [
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "Application/JSON",
        "application/json ;x",
        " application/json ",
        None,
    ],
)
def test_json_is_taken_under_any_spelling_or_none(deliver: Deliver, value: str | None) -> None:
    deliver("hmac", b"{}", **({"Content_Type": value} if value else {}))


def test_githubs_form_is_taken(deliver: Deliver, durable: Durable) -> None:
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    deliver("github", b"payload=%7B%22a%22%3A1%7D", **form)
    assert from_message(durable.done[0][1]).form_field == "payload"
    with pytest.raises(UnsupportedMediaType):
        deliver("hmac", b"payload=%7B%7D", **form)


@pytest.mark.parametrize(
    "value",
    [
        "text/plain",
        "application/xml",
        "application/json5",
        "application/vnd.x+json",
        "application/json, text/plain",
        "applicatıon/json",
        "multipart/form-data; boundary=x",
        "json",
        "*/*",
        "",
        ";charset=utf-8",
    ],
    ids=ascii,
)
def test_another_content_type_is_refused_and_told_what_is_taken(deliver: Deliver, durable: Durable, value: str) -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        deliver("hmac", b"{}", Content_Type=value)
    assert "application/json" in caught.value.message
    assert (caught.value.status, durable.done) == (415, [])


def test_a_repeated_content_type_is_refused_even_when_both_are_right(inbox: Inbox) -> None:
    headers = [
        *signature(inbox.sources["hmac"].scheme, b"{}", "s3cret", event_id="", now=NOW).items(),
        ("Content-Type", "application/json"),
        ("content-type", "application/json"),
    ]
    with pytest.raises(UnsupportedMediaType):
        accept(Delivery("hmac", Headers(headers), b"{}", NOW), inbox)


def test_a_source_may_take_a_content_type_of_its_own(deliver: Deliver, inbox: Inbox) -> None:
    own = replace(inbox.sources["hmac"], content_types=frozenset({"application/vnd.shop+json"}))
    inbox = replace(inbox, sources={"hmac": own})
    deliver("hmac", b"{}", inbox=inbox, Content_Type="application/vnd.shop+json; v=1")
    with pytest.raises(UnsupportedMediaType):
        deliver("hmac", b"{}", inbox=inbox, Content_Type="application/json")


def test_a_form_under_json_and_json_under_a_form_are_not_valid(deliver: Deliver, durable: Durable) -> None:
    with pytest.raises(InvalidPayload):
        deliver("github", b"payload=%7B%7D", Content_Type="application/json")
    with pytest.raises(InvalidPayload):
        deliver("github", b"{}", Content_Type="application/x-www-form-urlencoded")
    assert durable.done == []


def test_no_verification_is_only_where_it_is_spelled_out(deliver: Deliver, inbox: Inbox, durable: Durable) -> None:
    def no_secrets(source: str) -> list[str]:
        raise AssertionError("there is no secret to fetch")

    assert deliver("open", b"{}", inbox=replace(inbox, secrets_of=no_secrets)).secret is None
    for source in SECRETS:
        with pytest.raises(InvalidSignature):
            accept(Delivery(source, Headers([]), b"{}", NOW), inbox)
    assert len(durable.done) == 1


def test_a_source_whose_secret_cannot_be_had_verifies_nothing(deliver: Deliver, inbox: Inbox, durable: Durable) -> None:
    def away(source: str) -> list[str]:
        raise SecretUnavailable("secrets_unreachable")

    with pytest.raises(SecretUnavailable):
        deliver("hmac", b"{}", inbox=replace(inbox, secrets_of=away))
    with pytest.raises(InvalidSignature):
        deliver("hmac", b"{}", inbox=replace(inbox, secrets_of=lambda source: []))
    assert durable.done == []


def test_a_source_without_its_secret_is_our_mistake(deliver: Deliver, inbox: Inbox) -> None:
    with pytest.raises(SecretUnavailable) as caught:
        deliver("hmac", b"{}", inbox=replace(inbox, secrets_of=lambda source: [""]))
    assert caught.value.status == 503


class Item(Schema):
    sku = fields.String(required=True)


class Order(Schema):
    number = fields.Integer(required=True, strict=True)
    items = fields.List(fields.Nested(Item))


@pytest.mark.parametrize(
    ("payload", "details"),
    [
        ({"number": "x"}, {"number": ["Not a valid integer."]}),
        ({}, {"number": ["Missing data for required field."]}),
        ([], {"_schema": ["Invalid input type."]}),
        (None, {"_schema": ["Invalid input type."]}),
        ("text", {"_schema": ["Invalid input type."]}),
        (
            {"number": 1, "items": [{"sku": "a"}, {"sku": 7}]},
            {"items": {1: {"sku": ["Not a valid string."]}}},
        ),
    ],
    ids=["wrong", "missing", "a list", "null", "a text", "deep inside"],
)
def test_field_errors_come_back_in_details(
    deliver: Deliver, durable: Durable, inbox: Inbox, payload: Any, details: dict[str, Any]
) -> None:
    strict = replace(inbox, sources={"hmac": replace(inbox.sources["hmac"], schema=Order())})
    with pytest.raises(InvalidPayload) as caught:
        deliver("hmac", json.dumps(payload).encode(), inbox=strict)
    assert refused(caught.value).body["details"] == details
    assert durable.done == []


def test_a_payload_that_fits_its_schema_is_queued_as_it_came(deliver: Deliver, durable: Durable, inbox: Inbox) -> None:
    body = b'{"number": 1, "items": [{"sku": "a"}]}'
    deliver("hmac", body, inbox=replace(inbox, sources={"hmac": replace(inbox.sources["hmac"], schema=Order())}))
    assert queued(durable).body == body


def test_a_large_body_that_compresses_goes_by_message_alone(deliver: Deliver, durable: Durable) -> None:
    deliver("hmac", b'"' + b"x" * 5_000_000 + b'"')
    assert [kind for kind, _ in durable.done] == ["send"]


@pytest.mark.parametrize("size", [900_000, *range(950_000, 956_000, 500), 1_000_000, 5_900_000])
def test_no_message_is_larger_than_the_queue_takes_and_no_body_is_lost(
    deliver: Deliver, durable: Durable, size: int
) -> None:
    """With room for the attributes that a dead letter gets."""
    letters = "".join(chr(33 + n % 90) for n in range(256)).replace('"', "x").replace("\\", "x")
    body = b'"' + random.Random(size).randbytes(size).decode("latin-1").translate(letters).encode() + b'"'
    deliver("hmac", body)
    message = durable.done[-1][1]
    assert len(message.encode()) <= 1_048_576 - 4_096
    event = queued(durable)
    assert (event.body if event.body_key is None else durable.bodies[event.body_key]) == body


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
    assert not [message for kind, message in durable.done if kind == "send"]


def test_a_queue_that_is_away_is_told_as_such(deliver: Deliver, durable: Durable) -> None:
    durable.queue_away = True
    with pytest.raises(QueueUnavailable) as caught:
        deliver("hmac", b"{}")
    answer = refused(caught.value)
    assert (answer.status, answer.body["error"]) == (503, "queue_unavailable")
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize("source", ["token", "basic"])
def test_a_credential_is_in_no_message(deliver: Deliver, durable: Durable, source: str) -> None:
    deliver(source, b"{}", Cookie="session=canary", X_Api_Key="canary")
    assert "canary" not in durable.done[0][1]
    assert base64.b64encode(b"user:canary").decode() not in durable.done[0][1]
    assert REDACTED in queued(durable).headers.values()


@pytest.mark.parametrize("source", SECRETS)
def test_a_secret_is_neither_in_a_message_nor_in_what_is_told(
    deliver: Deliver, durable: Durable, inbox: Inbox, source: str
) -> None:
    secret = {"standard-webhooks": "whsec_canarycanary", "basic": "user:canary"}.get(source, "canary")
    careful = replace(inbox, secrets_of=lambda source: [secret])
    receipt = deliver(source, b"{}", secret, inbox=careful)
    assert "canary" not in f"{durable.done} {receipt}"


def test_the_headers_that_prove_a_delivery_are_kept_to_verify_it_again(
    deliver: Deliver, inbox: Inbox, durable: Durable
) -> None:
    for source in ("github", "stripe", "standard-webhooks", "hmac"):
        durable.done.clear()
        deliver(source, b"{}")
        event = queued(durable)
        headers = Headers((name, value) for name, value in event.headers.items() if isinstance(value, str))
        assert event.body is not None
        assert verify(inbox.sources[source].scheme, headers, event.body, SECRETS[source], NOW).secret == 0


def test_a_refusal_answers_nothing_but_its_code_and_sentence() -> None:
    answer = refused(InvalidSignature("signature_mismatch"))
    assert answer.body == {
        "error": "invalid_signature",
        "message": "The delivery could not be verified.",
        "details": {},
    }
    assert issubclass(QueueUnavailable, Refusal)


def test_the_request_and_the_trace_of_a_delivery_go_along_with_its_event(inbox: Inbox, durable: Durable) -> None:
    """The request in the message, where the row finds it; the trace beside it, where X-Ray does."""
    headers = Headers(signature(inbox.sources["hmac"].scheme, b"{}", "s3cret", event_id="", now=NOW).items())
    accept(
        Delivery("hmac", headers, b"{}", NOW, request_id="r-1", trace="Root=1-5759e988-bd862e3fe1be46a994272793"), inbox
    )
    accept(Delivery("hmac", headers, b"{}", NOW), inbox)
    events = [from_message(message) for _, message in durable.done]
    assert [event.request_id for event in events] == ["r-1", None]
    assert durable.traces == ["Root=1-5759e988-bd862e3fe1be46a994272793", None]
    assert "5759e988" not in durable.done[0][1]
