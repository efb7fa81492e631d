"""What providers demand besides events: answered exactly as each does, refused to anybody else, and never queued."""

from __future__ import annotations

import base64
import hmac
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from chalicelib.postern.contract.deliveries import Delivery, Greeting, Headers
from chalicelib.postern.contract.errors import (
    InvalidPayload,
    InvalidSignature,
    MethodNotAllowed,
    QueueUnavailable,
    SecretUnavailable,
    UnsupportedMediaType,
)
from chalicelib.postern.receiving import http
from chalicelib.postern.receiving.ingest import Inbox, Receipt, accept
from chalicelib.postern.receiving.sources import AWAITED_UNTIL, VERIFY_TOKEN, Sources
from tests.schemes import URL, signature, signed
from tests.support import EVERY_SOURCE

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SOURCES = Sources(EVERY_SOURCE)
SECRET = "s3cret"


@dataclass
class Pipe:
    """An inbox that knows one secret for every source, unless it is told that there is none."""

    secrets: bool = True
    awaited: str = ""
    messages: list[str] = field(default_factory=list)

    def inbox(self) -> Inbox:
        return Inbox(SOURCES, self.secrets_of, self, self, may_keep=lambda source, verified: True)

    def secrets_of(self, name: str) -> list[str]:
        if self.awaited and name.endswith(AWAITED_UNTIL):
            return [self.awaited]
        if not self.secrets:
            raise SecretUnavailable("secret_missing")
        return ["tok-1"] if name.endswith(VERIFY_TOKEN) else [SECRET]

    def send(self, message: str, *, group: str, trace: str | None) -> None:
        self.messages.append(message)

    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None) -> None:
        self.messages += messages

    def put(self, key: str, body: bytes) -> None:
        raise AssertionError


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def ask(
    pipe: Pipe,
    source: str,
    method: str = "POST",
    body: bytes = b"",
    query: Mapping[str, str] | None = None,
    **headers: str,
) -> Greeting:
    given = [(name.replace("_", "-"), value) for name, value in headers.items()]
    delivery = Delivery(source, Headers(given), body, NOW, method=method, url=URL, query=list((query or {}).items()))
    answer = accept(delivery, pipe.inbox())
    assert isinstance(answer, Greeting)
    assert pipe.messages == []
    return answer


def signed_by(source: str, payload: Any, **headers: str) -> dict[str, Any]:
    body = json.dumps(payload).encode()
    made = signed(SOURCES[source].scheme, body, SECRET, now=NOW, url=URL)
    return {"body": body, **{name.replace("-", "_"): value for name, value in made.headers.items()}, **headers}


def assert_is_plain_text(answer: Greeting, text: str) -> None:
    """So that no browser takes an echo for a page."""
    assert (answer.status, answer.body) == (200, text)
    assert answer.headers == {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}


# An echo


def test_slacks_challenge_is_echoed_once_its_signature_is_right(pipe: Pipe) -> None:
    payload = {"type": "url_verification", "challenge": "3eZbrw1a", "token": "x"}
    assert_is_plain_text(ask(pipe, "slack", **signed_by("slack", payload)), "3eZbrw1a")
    with pytest.raises(InvalidSignature):
        ask(pipe, "slack", **{**signed_by("slack", payload), "X_Slack_Signature": "v0=" + "0" * 64})


def test_metas_challenge_is_echoed_to_who_knows_the_verify_token(pipe: Pipe) -> None:
    query = {"hub.mode": "subscribe", "hub.verify_token": "tok-1", "hub.challenge": "1158201444"}
    assert_is_plain_text(ask(pipe, "meta", "GET", query=query), "1158201444")
    for wrong in ("tok-2", "", SECRET, "tok-1 ", "é"):
        with pytest.raises(InvalidSignature):
            ask(pipe, "meta", "GET", query={**query, "hub.verify_token": wrong})
    with pytest.raises(InvalidSignature):
        ask(pipe, "meta", "GET", query={"hub.challenge": "1"})


def test_dropboxs_challenge_is_echoed(pipe: Pipe) -> None:
    assert_is_plain_text(ask(pipe, "dropbox", "GET", query={"challenge": "<script>"}), "<script>")


def test_graphs_token_is_echoed_to_a_post_without_a_body(pipe: Pipe) -> None:
    assert_is_plain_text(
        ask(pipe, "microsoft-graph", query={"validationToken": "Validation: 1 + 2"}), "Validation: 1 + 2"
    )


def test_twitchs_challenge_is_echoed_once_its_signature_is_right(pipe: Pipe) -> None:
    kind = {"Twitch_Eventsub_Message_Type": "webhook_callback_verification"}
    payload = {"challenge": "pogchamp-kappa", "subscription": {"type": "channel.follow"}}
    assert_is_plain_text(ask(pipe, "twitch", **signed_by("twitch", payload, **kind)), "pogchamp-kappa")
    with pytest.raises(InvalidSignature):
        ask(pipe, "twitch", body=json.dumps(payload).encode(), **kind)


def test_twitchs_revocation_is_answered_and_is_no_event(pipe: Pipe) -> None:
    kind = {"Twitch_Eventsub_Message_Type": "revocation"}
    assert ask(pipe, "twitch", **signed_by("twitch", {"subscription": {}}, **kind)).status == 200


def test_oktas_challenge_is_echoed_in_json(pipe: Pipe) -> None:
    answer = ask(pipe, "okta", "GET", X_Okta_Verification_Challenge="abc")
    assert (answer.status, answer.body) == (200, {"verification": "abc"})


def test_mondays_challenge_is_echoed_in_json(pipe: Pipe) -> None:
    answer = ask(pipe, "monday", body=b'{"challenge": "3eZbrw1a"}')
    assert (answer.status, answer.body) == (200, {"challenge": "3eZbrw1a"})


def test_asanas_secret_is_echoed_in_its_header_and_kept_nowhere(pipe: Pipe) -> None:
    """Whoever sends one gets it back, and nothing is verified with it: what verifies stays with the operator."""
    answer = ask(pipe, "asana", X_Hook_Secret="b537207f")
    assert (answer.status, answer.body, answer.headers) == (200, "", {"X-Hook-Secret": "b537207f"})
    with pytest.raises(InvalidSignature):
        forged = hmac.digest(b"b537207f", b'{"events":[]}', "sha256").hex()
        ask(pipe, "asana", body=b'{"events":[]}', X_Hook_Signature=forged)


@pytest.mark.parametrize("challenge", ["a" * 2_001, "a\r\nSet-Cookie: x", "\0", "a\u2028b"])
def test_a_challenge_that_could_be_something_else_is_refused(pipe: Pipe, challenge: str) -> None:
    with pytest.raises(InvalidSignature):
        ask(pipe, "dropbox", "GET", query={"challenge": challenge})
    with pytest.raises(InvalidSignature):
        ask(pipe, "slack", **signed_by("slack", {"type": "url_verification", "challenge": challenge}))


def test_a_challenge_that_is_no_text_is_refused(pipe: Pipe) -> None:
    for challenge in (None, 7, ["a"], {"a": 1}):
        with pytest.raises(InvalidSignature):
            ask(pipe, "slack", **signed_by("slack", {"type": "url_verification", "challenge": challenge}))


# A digest


def test_xs_token_is_answered_with_its_digest(pipe: Pipe) -> None:
    answer = ask(pipe, "x", "GET", query={"crc_token": "tok"})
    digest = base64.b64encode(hmac.digest(SECRET.encode(), b"tok", "sha256")).decode()
    assert answer.body == {"response_token": f"sha256={digest}"}


@pytest.mark.parametrize(
    "token", ['{"for_user_id":"1","tweet_create_events":[]}', "[]", "123", "true", "null", '"a"', " 1"]
)
def test_xs_digest_signs_no_event_for_who_asks(pipe: Pipe, token: str) -> None:
    """Anybody may ask, and X signs its events with the same digest: what could be one would come back signed."""
    with pytest.raises(InvalidSignature):
        ask(pipe, "x", "GET", query={"crc_token": token})


def test_zooms_token_is_answered_with_itself_and_its_digest_once_its_signature_is_right(pipe: Pipe) -> None:
    payload = {"event": "endpoint.url_validation", "payload": {"plainToken": "qgg8"}, "event_ts": 1}
    answer = ask(pipe, "zoom", **signed_by("zoom", payload))
    digest = hmac.digest(SECRET.encode(), b"qgg8", "sha256").hex()
    assert answer.body == {"plainToken": "qgg8", "encryptedToken": digest}
    with pytest.raises(InvalidSignature):
        ask(pipe, "zoom", body=json.dumps(payload).encode())


# An answer alone


@pytest.mark.parametrize(
    ("source", "method"),
    [("trello", "HEAD"), ("intercom", "HEAD"), ("mailchimp", "GET"), ("mailchimp", "HEAD"), ("mandrill", "HEAD")],
)
def test_a_call_that_asks_whether_somebody_is_there_is_answered(pipe: Pipe, source: str, method: str) -> None:
    assert ask(pipe, source, method) == Greeting(200)


def test_woocommerces_unsigned_ping_is_answered_and_is_no_event(pipe: Pipe) -> None:
    assert (
        ask(pipe, "woocommerce", body=b"webhook_id=7", Content_Type="application/x-www-form-urlencoded").status == 200
    )


def test_lines_and_asanas_deliveries_without_events_are_answered(pipe: Pipe) -> None:
    for source in ("line", "asana"):
        assert ask(pipe, source, **signed_by(source, {"events": []})).status == 200


def test_xero_gets_an_empty_200_for_the_good_and_401_for_the_bad(pipe: Pipe) -> None:
    given = signed_by("xero", {"events": [{"resourceId": "a", "eventDateUtc": "b", "eventType": "C"}]})
    headers = [(name.replace("_", "-"), value) for name, value in given.items() if name != "body"]
    delivery = Delivery("xero", Headers(headers), given["body"], NOW)
    receipt = accept(delivery, pipe.inbox())
    assert isinstance(receipt, Receipt)
    answer = http.accepted(receipt)
    assert (answer.status, answer.body) == (200, "")
    with pytest.raises(InvalidSignature) as caught:
        accept(replace(delivery, body=given["body"] + b" "), pipe.inbox())
    assert http.refused(caught.value).status == 401


# A secret that comes with the handshake


def test_notions_token_is_taken_while_it_is_awaited_and_there_is_no_secret(pipe: Pipe) -> None:
    """An attacker may send one as well: at any other time it is refused, and fills nothing."""
    body = b'{"verification_token": "secret_x"}'
    pipe.secrets = False
    pipe.awaited = "2026-11-23T13:30:00+01:00"
    delivery = Delivery("notion", Headers([]), body, NOW)
    assert accept(delivery, pipe.inbox()) == Greeting(200, kept_as="verification_token")
    pipe.secrets = True
    with pytest.raises(InvalidSignature, match="already_verified"):
        accept(delivery, pipe.inbox())
    pipe.secrets = False
    for over in ("", "2026-11-23T12:59:59+01:00"):
        pipe.awaited = over
        with pytest.raises(InvalidSignature, match="not_awaited"):
            accept(delivery, pipe.inbox())
    for no_time in ("tomorrow", "2026-11-24T12:00:00"):
        pipe.awaited = no_time
        with pytest.raises(SecretUnavailable, match="secret_malformed"):
            accept(delivery, pipe.inbox())


@pytest.mark.parametrize("source", ["notion", "monday", "woocommerce"])
def test_no_large_body_is_read_before_it_is_verified(pipe: Pipe, source: str) -> None:
    """Not even where a small one could be a handshake."""
    body = b"webhook_id=7&" if source == "woocommerce" else b'{"challenge": "a", "verification_token": "a"}'
    with pytest.raises((InvalidSignature, UnsupportedMediaType)):
        ask(pipe, source, body=body + b" " * 8_192, Content_Type="application/x-www-form-urlencoded")


def test_an_order_that_quotes_woocommerces_ping_is_an_order(pipe: Pipe) -> None:
    """What a customer writes must not make a real event a ping."""
    payload = {"id": 1, "customer_note": "ring twice &webhook_id=1& thanks"}
    given = signed_by("woocommerce", payload)
    headers = [(name.replace("_", "-"), value) for name, value in given.items() if name != "body"]
    assert isinstance(accept(Delivery("woocommerce", Headers(headers), given["body"], NOW), pipe.inbox()), Receipt)


def test_notions_token_that_cannot_be_kept_comes_again(pipe: Pipe) -> None:
    pipe.secrets, pipe.awaited = False, "2026-11-24T00:00:00Z"
    inbox = replace(pipe.inbox(), may_keep=lambda source, verified: False)
    with pytest.raises(QueueUnavailable):
        accept(Delivery("notion", Headers([]), b'{"verification_token": "x"}', NOW), inbox)


def test_forgeries_take_no_share_from_notions_token(pipe: Pipe) -> None:
    """Ten of a stranger's would fill what a source may keep, and the true one would be sent away."""
    pipe.secrets, pipe.awaited = False, "2026-11-24T00:00:00Z"
    asked: list[str] = []
    inbox = replace(pipe.inbox(), may_keep=lambda share, verified: not asked.append(share))  # type: ignore[func-returns-value]
    accept(Delivery("notion", Headers([]), b'{"verification_token": "x"}', NOW), inbox)
    assert asked == ["notion/verification_token"]


# A zlib stream in letters and digits, as they can be made; inside is JSON.
PACKED_WORD = (
    "hCD0Up0IZUnnnnnnnnnnnnnnnnnnnUU5nnnnnn3SUUnUUUwCiudIbEAt33wwwEtpDGDtpt03sDDttDwwtwwtDwtwwtt33333sG03"
    "333gFPWquSsykKUsymeqYqiqIquSsMUeqYqeUeeEEESeUSeUeeeUUeESSeeSEEUeeUeEUeeSUEUEUeSSeUEeeSeSUSUeeSeSSeEE"
    "SeSUSUUUSUeEeeUUEEUeeUSeSESUEeSSeEq7A41m"
)


def test_x_signs_no_word_that_could_be_a_compressed_event(pipe: Pipe) -> None:
    """The attack: have it signed as a challenge, then send it as a body that is called compressed."""
    inside = zlib.decompress(PACKED_WORD.encode())
    assert isinstance(json.loads(inside), dict)
    with pytest.raises(InvalidSignature):
        ask(pipe, "x", "GET", query={"crc_token": PACKED_WORD})
    # And were it signed, it would be no event: a source whose handshake signs unpacks nothing.
    given = signature(SOURCES["x"].scheme, PACKED_WORD.encode(), SECRET, now=NOW)
    for encoding in ("deflate", "gzip"):
        headers = Headers([*given.items(), ("Content-Encoding", encoding)])
        with pytest.raises(InvalidPayload):
            accept(Delivery("x", headers, PACKED_WORD.encode(), NOW), pipe.inbox())


# Everybody else


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("source", ["github", "stripe", "slack", "meta", "x", "dropbox", "asana"])
def test_a_method_that_no_handshake_has_is_not_taken(pipe: Pipe, source: str, method: str) -> None:
    with pytest.raises(MethodNotAllowed):
        ask(pipe, source, method)


def test_an_answer_in_text_is_sent_as_text() -> None:
    answer = http.greeted(Greeting(200, "abc"))
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert http.greeted(Greeting(200, {"a": 1})).headers == {}
