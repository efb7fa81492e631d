"""What comes in at the door as it is sent: compressed, empty, a line at a time, under an address in another spelling;
and what its sender hears.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from chalicelib.postern.contract.deliveries import Delivery, Greeting, Headers, Reply
from chalicelib.postern.contract.envelope import Accepted, Rejected
from chalicelib.postern.contract.errors import InvalidPayload, InvalidSignature, PayloadTooLarge, SourcesFileError
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.contract.payloads import content_of
from chalicelib.postern.processing.attempts import Trigger, Try, Work, event_of
from chalicelib.postern.receiving import http
from chalicelib.postern.receiving.ingest import Inbox, Receipt, accept
from chalicelib.postern.receiving.naming import Place
from chalicelib.postern.receiving.providers import provider, provider_names
from chalicelib.postern.receiving.schemes.urls import MAX_SPELLINGS, spellings, with_and_without_port
from chalicelib.postern.receiving.sources import Source, load_sources
from tests.schemes import scheme_of, signature
from tests.support import EVERY_SOURCE

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
SECRET = "s3cret"
URL = "https://hooks.example.com/webhooks/shop"
SHIPPED = load_sources(EVERY_SOURCE)


@dataclass
class Door:
    sources: dict[str, Source]
    events: list[Accepted] = field(default_factory=list)
    kept: list[Rejected] = field(default_factory=list)

    def send(self, message: str, *, group: str, trace: str | None) -> None:
        found = from_message(message)
        if isinstance(found, Accepted):
            self.events.append(found)
        elif isinstance(found, Rejected):
            self.kept.append(found)

    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None) -> None:
        for message in messages:
            self.send(message, group=group, trace=trace)

    def put(self, key: str, body: bytes) -> None:
        raise AssertionError("nothing here is that large")

    def come(self, body: bytes, signed: bytes | None = None, **headers: str) -> Receipt | Greeting:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given["X-Signature"] = hmac.digest(SECRET.encode(), body if signed is None else signed, "sha256").hex()
        delivery = Delivery("shop", Headers(given.items()), body, NOW, url=URL)
        return accept(delivery, Inbox(self.sources, lambda _: [SECRET], self, self, may_keep=lambda *_: True))


Make = Callable[[str], Door]


@pytest.fixture
def door(tmp_path: Path) -> Make:
    def make(settings: str = "") -> Door:
        file = tmp_path / "sources.toml"
        file.write_text(f'[shop]\nprovider = "hmac"\n{settings}\n', "utf-8")
        return Door(load_sources(file))

    return make


def payload_of(event: Accepted) -> Any:
    """As its handlers get it."""
    assert event.body is not None
    return event_of(Try(Work(event, event.body), 1, Trigger.FIRST)).payload


# Compressed bodies

INSIDE = b'{"type": "message.new", "text": "hello"}'


@pytest.mark.parametrize("signed", ["what is sent", "what is inside"])
@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_a_compressed_body_is_verified_either_way_read_and_kept_as_it_came(
    door: Make, signed: str, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    at, packed = door(""), pack(INSIDE)
    at.come(packed, packed if signed == "what is sent" else INSIDE, Content_Encoding=encoding)
    [event] = at.events
    assert (event.body, event.type) == (packed, "message.new")
    assert payload_of(event) == json.loads(INSIDE)


def test_its_identity_is_what_was_signed(door: Make) -> None:
    """A sender may compress it anew for each attempt, where he signs what is inside. Where he signs what he sends, the
    header beside it is anybody's to leave out.
    """
    at, inside = door(""), INSIDE + b" " * 5_000
    for level in (1, 9):
        at.come(gzip.compress(inside, level), inside, Content_Encoding="gzip")
    first, second = at.events
    assert first.body != second.body
    assert first.dedup_key == second.dedup_key
    raw = door('format = "bytes"')
    for headers in ({"Content_Encoding": "gzip"}, {}):
        raw.come(gzip.compress(inside), **headers)
    assert len({event.dedup_key for event in raw.events}) == 1


def test_all_members_of_a_gzip_file_are_read_and_nothing_rides_along(door: Make) -> None:
    """RFC 1952 lets several follow each other, as log shippers write them."""
    lines = door('format = "json-lines"')
    lines.come(gzip.compress(b'{"id": 1}\n') + gzip.compress(b'{"id": 2}\n'), Content_Encoding="gzip")
    assert [payload_of(event) for event in lines.events] == [{"id": 1}, {"id": 2}]
    for behind in (gzip.compress(b"EVIL"), b"EVIL"):
        with pytest.raises(InvalidSignature):
            door("").come(gzip.compress(INSIDE) + behind, INSIDE, Content_Encoding="gzip")


def test_members_that_hold_nothing_are_counted(door: Make) -> None:
    """Each costs a little: half a million of them would hold up the function, before any signature."""
    empty = zlib.compress(b"")
    many = empty * 500_000
    assert content_of(many, {"content-encoding": "deflate"}) == many
    assert content_of(empty * 1_000, {"content-encoding": "deflate"}) == b""
    with pytest.raises(InvalidSignature):
        door("").come(many, b"forged", Content_Encoding="deflate")
    long = b"[" + b"1," * 300_000 + b"1]"
    parts = [gzip.compress(long[at : at + 7_001], mtime=0) for at in range(0, len(long), 7_001)]
    assert content_of(b"".join(parts), {"content-encoding": "gzip"}) == long


def test_what_is_compressed_twice_is_unpacked_once(door: Make) -> None:
    with pytest.raises(InvalidPayload):
        door("").come(gzip.compress(gzip.compress(INSIDE)), Content_Encoding="gzip")


def test_the_events_of_a_compressed_delivery_are_its_parts(door: Make) -> None:
    at = door('items = ""')
    at.come(gzip.compress(b'[{"type": "a"}, {"type": "b"}]'), Content_Encoding="gzip")
    assert [(event.type, payload_of(event)) for event in at.events] == [("a", {"type": "a"}), ("b", {"type": "b"})]


def test_a_bomb_is_refused_within_bounds(door: Make) -> None:
    bomb = gzip.compress(b"0" * 100_000_000)
    at = door("")
    with pytest.raises(InvalidSignature):
        at.come(bomb, b"forged", Content_Encoding="gzip")
    assert at.kept == []
    with pytest.raises(PayloadTooLarge):
        at.come(bomb, Content_Encoding="gzip")  # its own sender's: 413, and kept
    assert [kept.reason for kept in at.kept] == ["too_large_inside"]


@pytest.mark.parametrize(
    "body",
    [b"", b"\x1f\x8b", gzip.compress(INSIDE)[:-4], b"x\x9c", b"80", INSIDE],
    ids=["empty", "two bytes", "cut off", "zlib's first", "a number", "JSON"],
)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip", "identity"])
def test_what_is_only_called_compressed_is_what_it_is(body: bytes, encoding: str) -> None:
    assert content_of(body, {"content-encoding": encoding}) == body


# Formats


def test_json_lines_are_an_event_a_line(door: Make) -> None:
    at = door('format = "json-lines"\ncontent_types = ["application/x-ndjson"]\ndedup = "body:id"')
    at.come(b'{"id": 1, "type": "a"}\r\n\n{"id": 2, "type": "b"}\n', Content_Type="application/x-ndjson")
    assert [(event.dedup_key, event.type) for event in at.events] == [("1", "a"), ("2", "b")]
    with pytest.raises(InvalidPayload):
        at.come(b'{"id": 3}\n{"id":', Content_Type="application/x-ndjson")
    assert (len(at.events), [kept.reason for kept in at.kept]) == (2, ["not_json"])


def test_bytes_are_an_event_whatever_they_are(door: Make) -> None:
    at = door('format = "bytes"')
    at.come(b'{"half')
    [event] = at.events
    assert (event.body, event.format, payload_of(event)) == (b'{"half', "bytes", None)


def test_an_empty_body_is_an_event_where_the_source_says_so_and_no_other_ones_echo(door: Make) -> None:
    at = door('empty_body = true\ntype = "header:X-Goog-Resource-State"')
    for number in ("1", "2"):
        at.come(b"", X_Goog_Message_Number=number, X_Goog_Resource_State="exists")
    assert [event.type for event in at.events] == ["exists"] * 2
    assert len({event.dedup_key for event in at.events}) == 2
    with pytest.raises(InvalidPayload):
        door("").come(b"")


def test_a_provider_that_sends_lists_may_send_one_object_or_a_heartbeat(door: Make) -> None:
    at = door('items = ""')
    at.come(b' {"type": "workflow"} ')
    assert [(event.type, event.body) for event in at.events] == [("workflow", b'{"type": "workflow"}')]
    for other in (b"{}", b'{"other": []}'):
        strict = door('items = "events"')
        with pytest.raises(InvalidPayload):
            strict.come(other)
        assert len(strict.kept) == 1


@pytest.mark.parametrize("heartbeat", [b"{}", b'{"events": []}'])
def test_asanas_heartbeat_is_answered_and_no_event(heartbeat: bytes) -> None:
    at = Door(dict(SHIPPED))
    headers = signature(scheme_of("asana"), heartbeat, SECRET, now=NOW)
    sent = Delivery("asana", Headers(headers.items()), heartbeat, NOW)
    assert accept(sent, Inbox(SHIPPED, lambda _: [SECRET], at, at)) == Greeting(200)
    assert at.events == []


def test_a_source_may_take_a_list_whole(tmp_path: Path) -> None:
    file = tmp_path / "sources.toml"
    file.write_text('[shop]\nprovider = "sendgrid"\nitems = false\n')
    assert load_sources(file)["shop"].items is None


@pytest.mark.parametrize(
    "settings", ['format = "xml"', "items = true", "items = 7", 'empty_body = "yes"', "format = 1"]
)
def test_a_mistake_in_them_is_named(door: Make, settings: str) -> None:
    with pytest.raises(SourcesFileError, match=settings.partition(" ")[0]):
        door(settings)


# Signatures as some write them


@pytest.mark.parametrize("separator", [",", ", ", ",  "])
@pytest.mark.parametrize("name", [n for n in provider_names() if "," in provider(n).settings.get("separator", "")])
def test_blanks_after_commas_are_the_senders_to_choose(name: str, separator: str) -> None:
    scheme: Any = scheme_of(name)
    headers = dict(signature(scheme, b"{}", SECRET, now=NOW))
    header = next(n for n in headers if n.lower() == scheme.header.lower())
    entries = [entry.strip() for entry in headers[header].split(",")]
    headers[header] = separator.join(entries)
    assert scheme.verify(Delivery("shop", Headers(headers.items()), b"{}", NOW), [SECRET]).secret == 0


def test_capital_hexadecimal_is_taken_of_a_sender_of_ones_own(door: Make) -> None:
    at = door("")
    digest = hmac.digest(SECRET.encode(), b"{}", "sha256").hex().upper()
    delivery = Delivery("shop", Headers([("X-Signature", digest)]), b"{}", NOW)
    assert accept(delivery, Inbox(at.sources, lambda _: [SECRET], at, at))


def test_shopifys_newer_header_is_taken_too() -> None:
    headers = dict(signature(scheme_of("shopify"), b"{}", SECRET, now=NOW))
    [value] = headers.values()
    for name in ("X-Shopify-Hmac-Sha256", "Shopify-Hmac-Sha256"):
        assert scheme_of("shopify").verify(Delivery("s", Headers([(name, value)]), b"{}", NOW), [SECRET]).secret == 0


@pytest.mark.parametrize("what", ["message", "postback", "read", "delivery", "reaction", "optin", "referral"])
def test_what_messenger_sends_has_its_kind_for_a_type(what: str) -> None:
    place = SHIPPED["meta"].type
    assert place is not None
    entry = {"messaging": [{"sender": {"id": 1}, what: {"mid": "m"}}]}
    assert place.find(Headers([]), entry) == what
    assert place.find(Headers([]), {"changes": [{"field": "feed"}]}) == "feed"
    assert place.find(Headers([]), {"messaging": [{"new": 1}]}) == "messaging"


def test_hubspots_older_signatures_are_those_of_its_documentation() -> None:
    """The examples of "Validating requests": a plain SHA-256, of the secret and what is behind it."""
    secret, body = "yyyyyyyy-yyyy-yyyy-yyyy-yyyyyyyyyyyy", b'[{"eventId": 1}]'
    first = hashlib.sha256(secret.encode() + body).hexdigest()
    second = hashlib.sha256(f"{secret}POST{URL}".encode() + body).hexdigest()
    for name, right, wrong in (("hubspot-v1", first, second), ("hubspot-v2", second, first)):
        sent = Delivery("s", Headers([("X-HubSpot-Signature", right)]), body, NOW, url=URL)
        assert scheme_of(name).verify(sent, [secret]).secret == 0
        with pytest.raises(InvalidSignature):
            scheme_of(name).verify(replace(sent, headers=Headers([("X-HubSpot-Signature", wrong)])), [secret])
        with pytest.raises(InvalidSignature):
            scheme_of(name).verify(replace(sent, body=body + b" "), [secret])


# Addresses

QUERIES = [
    ("order=42", [("order", "42")]),
    ("name=a+b", [("name", "a b")]),
    ("name=a%20b", [("name", "a b")]),
    ("flag", [("flag", "")]),
    ("to=me@example.com&at=10:30/2", [("to", "me@example.com"), ("at", "10:30/2")]),
    ("name=Jo%c3%abl", [("name", "Joël")]),
    ("tags[]=1&tags[]=2", [("tags[]", "1"), ("tags[]", "2")]),
    ("who=O'Brien (jr)", [("who", "O'Brien (jr)")]),
    ("a=1&b=2", [("b", "2"), ("a", "1")]),
]


# From the catalogue: whoever signs the URL.
SIGNERS_OF_URLS = [
    name
    for name in provider_names()
    if provider(name).scheme == "url-and-form" or "{url}" in provider(name).settings.get("signed", "")
]


def test_five_and_more_sign_the_url() -> None:
    assert {"twilio", "mandrill", "square", "trello", "hubspot", "hubspot-v2"} <= set(SIGNERS_OF_URLS)


@pytest.mark.parametrize(("written", "pairs"), QUERIES)
@pytest.mark.parametrize("name", SIGNERS_OF_URLS)
def test_a_query_is_verified_in_the_spelling_that_its_sender_signed(
    name: str, written: str, pairs: list[tuple[str, str]]
) -> None:
    """API Gateway hands on what it means; we write it anew, as `urlencode` does."""
    form = {"Content-Type": "application/x-www-form-urlencoded"} if provider(name).scheme == "url-and-form" else {}
    body = b"MessageSid=SM1&MessageStatus=sent" if form else b"{}"
    url = f"{URL}?{written.replace(' ', '%20')}"
    headers = {**form, **signature(scheme_of(name), body, SECRET, now=NOW, url=url, headers=form)}
    seen = Delivery("s", Headers(headers.items()), body, NOW, url=f"{URL}?{urlencode(pairs)}", query=pairs)
    assert scheme_of(name).verify(seen, [SECRET]).secret == 0
    for other in ([*pairs, ("x", "1")], [(n, v + "1") for n, v in pairs]):
        with pytest.raises(InvalidSignature):
            scheme_of(name).verify(replace(seen, url=f"{URL}?{urlencode(other)}", query=other), [SECRET])


def test_there_are_never_more_than_sixteen_spellings() -> None:
    pairs = [(f"n {i}", "é @:/'[]") for i in range(50)]
    found = with_and_without_port(spellings(f"{URL}?{urlencode(pairs)}", pairs))
    assert 8 <= len(found) <= MAX_SPELLINGS
    assert spellings(URL, []) == [URL]
    assert spellings(f"{URL}?configured=1", pairs) == [f"{URL}?configured=1"]


def test_a_sources_own_address_keeps_the_query_of_each_request(tmp_path: Path) -> None:
    file = tmp_path / "sources.toml"
    for own, public in ((URL, f"{URL}?order=42"), (f"{URL}?fixed=1", f"{URL}?fixed=1")):
        file.write_text(f'[shop]\nprovider = "square"\nurl = "{own}"\n')
        at = Door(load_sources(file))
        headers = signature(scheme_of("square"), b"{}", SECRET, now=NOW, url=public)
        came = "https://a1b2.execute-api.eu-central-1.amazonaws.com/prod/webhooks/shop?order=42"
        sent = Delivery("shop", Headers(headers.items()), b"{}", NOW, url=came, query=[("order", "42")])
        assert accept(sent, Inbox(at.sources, lambda _: [SECRET], at, at))


# Answers


def test_each_provider_hears_what_it_wants_and_the_event_is_named_in_a_header() -> None:
    for name in provider_names():
        reply = provider(name).answer
        receipt = Receipt([new_id()], "t", "k", 0, answer=reply)
        answer = http.accepted(receipt)
        assert answer.headers[http.EVENT_ID] == str(receipt.id)
        if reply is None:
            assert (answer.status, answer.body) == (202, {"status": "accepted", "id": str(receipt.id)})
        else:
            assert 200 <= answer.status <= 204
            assert isinstance(answer.body, str)


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [("mailgun", 200, ""), ("okta", 200, ""), ("airtable", 200, ""), ("zoom", 200, ""), ("slack", 200, ""),
     ("adyen", 200, "[accepted]"), ("twilio", 204, ""), ("discord-events", 204, ""), ("xero", 200, "")],
)  # fmt: skip
def test_those_that_take_no_202(name: str, status: int, body: str) -> None:
    assert provider(name).answer == Reply(status, body)


def test_a_source_says_what_its_sender_wants(door: Make) -> None:
    ack = "<Ack><id>{id}</id></Ack>"
    at = door(f'answer = {{status = 200, body = "{ack}", content_type = "text/xml"}}')
    receipt = at.come(b"{}")
    assert isinstance(receipt, Receipt)
    answer = http.accepted(receipt)
    assert (answer.status, answer.body) == (200, f"<Ack><id>{receipt.id}</id></Ack>")
    assert answer.headers["Content-Type"] == "text/xml"
    assert door("answer = 204").sources["shop"].answer == 204


@pytest.mark.parametrize(
    "value", ["500", "302", "true", '"200"', '{body = "x"}', '{status = 204, body = "x"}', "{status = 200, x = 1}",
              '{status = 200, content_type = "a\\nb"}', "[200]"],
)  # fmt: skip
def test_an_answer_that_would_be_none_is_named(door: Make, value: str) -> None:
    with pytest.raises(SourcesFileError, match="'answer'"):
        door(f"answer = {value}")


# Times


@pytest.mark.parametrize("name", [n for n in provider_names() if provider(n).resigns is False])
def test_who_repeats_with_the_first_attempts_time_is_heard_for_as_long_as_he_repeats(name: str) -> None:
    kind, scheme = provider(name), SHIPPED[name].scheme
    assert kind.retries is not None
    assert getattr(scheme, "tolerance_seconds") >= kind.retries  # noqa: B009 -- not every scheme has one


def test_linear_is_heard_seven_hours_later() -> None:
    for minutes in (0, 2, 61, 421):
        body = json.dumps({"webhookTimestamp": int((NOW - timedelta(minutes=minutes)).timestamp() * 1000)}).encode()
        headers = signature(scheme_of("linear"), body, SECRET, now=NOW)
        assert scheme_of("linear").verify(Delivery("s", Headers(headers.items()), body, NOW), [SECRET]).secret == 0


# Identity, of each provider as the catalogue has it

WITH_ID_IN_HEADER = [
    name
    for name in provider_names()
    if isinstance(place := provider(name).dedup, Place) and place.parts[0][0].where == "header"
]


@pytest.mark.parametrize("name", WITH_ID_IN_HEADER)
def test_equal_bytes_under_another_id_are_another_event_and_known_by_their_bytes(name: str) -> None:
    rule = SHIPPED[name].identity
    assert isinstance(rule.place, Place)
    body = json.dumps({"id": 1}).encode()

    def identity(id: str, topic: str | None = "a") -> Any:
        headers = Headers(
            (at.path, id if n == 0 else "t") for n, part in enumerate(rule.place.parts) for at in part[:1]
        )
        return rule.of(new_id(), headers, json.loads(body), body, signed_id=None, topic=topic)

    first, second, again = identity("id-1"), identity("id-2"), identity("id-1")
    assert first.key == again.key != second.key
    assert first.same_bytes == second.same_bytes
    assert (first.same_bytes is None) == rule.header_is_safe
    assert first.window is None


@pytest.mark.parametrize("name", [n for n in provider_names() if provider(n).dedup is None])
def test_without_an_id_bytes_are_an_echo_for_a_window_alone(name: str) -> None:
    rule = SHIPPED[name].identity if name in SHIPPED else load_sources(EVERY_SOURCE)["hmac"].identity
    made = [rule.of(new_id(), Headers([]), {}, b"{}", signed_id=None, topic=None) for _ in range(2)]
    assert made[0] == made[1]
    assert made[0].window is not None
    topics = [rule.of(new_id(), Headers([]), {}, b"{}", signed_id=None, topic=topic).key for topic in ("a", "b")]
    assert topics[0] != topics[1]
    signed = rule.of(new_id(), Headers([]), {}, b"{}", signed_id="msg_1", topic=None)
    assert (signed.key, signed.window) == ("msg_1", None)


# Handshakes


def asked(source: str, method: str, **headers: str) -> Greeting:
    def no_secrets(name: str) -> list[str]:
        raise AssertionError("the secret was fetched")

    at = Door(dict(SHIPPED))
    given = Headers((name.replace("_", "-"), value) for name, value in headers.items())
    result = accept(Delivery(source, given, b"", NOW, method=method), Inbox(SHIPPED, no_secrets, at, at))
    assert isinstance(result, Greeting)
    return result


@pytest.mark.parametrize(("rate", "allowed"), [("120", "120"), ("*", "*"), ("1e9", "*"), ("\u0661", "*")])
def test_cloudevents_may_be_sent_by_whoever_asks(rate: str, allowed: str) -> None:
    origin = "eventgrid.azure.net"
    answer = asked("cloudevents", "OPTIONS", WebHook_Request_Origin=origin, WebHook_Request_Rate=rate)
    assert answer.status == 200
    assert answer.headers["WebHook-Allowed-Origin"] == origin
    assert answer.headers["WebHook-Allowed-Rate"] == allowed


def test_bitbuckets_test_of_the_connection_is_answered() -> None:
    assert asked("bitbucket", "POST", X_Event_Key="diagnostics:ping") == Greeting(200)


def new_id() -> Any:
    from chalicelib.postern.contract.deliveries import new_event_id

    return new_event_id(NOW)
