"""Signed deliveries, accepted and processed by the real code on real PostgreSQL: the rows that they become."""

from __future__ import annotations

import hmac
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.contract.deliveries import Delivery, Greeting, Headers, new_event_id
from chalicelib.postern.contract.envelope import Rejected
from chalicelib.postern.contract.errors import InvalidPayload, InvalidSignature, QueueUnavailable
from chalicelib.postern.operating.refused.queries import Refused
from chalicelib.postern.processing.settling import Kind
from chalicelib.postern.receiving import naming
from chalicelib.postern.receiving.ingest import accept
from tests.integration.pipe import SECRET, Pipe
from tests.integration.world import World, now

SOURCES = """
[shop]
provider = "hmac"
dedup = "header:X-Id"

[batches]
provider = "hmac"
items = "data.events"
dedup = "body:id"

[list]
provider = "hmac"
items = ""

[forms]
provider = "hmac"
content_types = ["application/x-www-form-urlencoded"]
type = "body:kind"

[files]
provider = "hmac"
content_types = ["application/xml", "application/octet-stream", "application/json"]
"""


@pytest.fixture
def pipe(world: World, tmp_path: Path) -> Pipe:
    return Pipe.with_sources(world, tmp_path, SOURCES)


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


# Deliveries that bring several events


def test_a_delivery_of_several_events_becomes_a_row_each_with_its_own_part_as_body(pipe: Pipe) -> None:
    parts = '{"id": "a", "type":"x", "n": 1.00}', '{"id":"b","type":"y","t":"\\u00e9]},{"}'
    receipt = pipe.deliver("batches", f'{{"data": {{ "events" : [ {parts[0]} ,\n{parts[1]}]}}, "z": []}}'.encode())
    assert pipe.process() == [Kind.PROCESSED] * 2
    assert pipe.rows("id::text, dedup_key, type, convert_from(body, 'UTF8')") == [
        (str(receipt.ids[0]), "a", "x", parts[0]),
        (str(receipt.ids[1]), "b", "y", parts[1]),
    ]


def test_the_whole_delivery_is_kept_so_that_its_signature_can_be_verified_again(pipe: Pipe) -> None:
    sent = body(data={"events": [{"id": "a"}, {"id": "b"}]})
    receipt = pipe.deliver("batches", sent)
    pipe.process()
    [(id, kept, headers)] = pipe.world.query("SELECT id::text, body, headers FROM postern.deliveries")
    assert (id, bytes(kept)) == (str(receipt.id), sent)
    assert headers["x-signature"] == hmac.digest(SECRET.encode(), bytes(kept), "sha256").hex()
    assert set(pipe.rows("delivery_id::text")) == {id}


def test_an_event_that_comes_again_in_another_delivery_is_the_same_event(pipe: Pipe) -> None:
    pipe.deliver("batches", body(data={"events": [{"id": "a"}, {"id": "b"}]}))
    pipe.deliver("batches", body(data={"events": [{"id": "b"}, {"id": "c"}]}))
    assert pipe.process() == [Kind.PROCESSED, Kind.PROCESSED, Kind.DUPLICATE, Kind.PROCESSED]


def test_a_delivery_is_acknowledged_only_when_all_of_its_events_are_queued(pipe: Pipe) -> None:
    sent = body(data={"events": [{"id": "a"}, {"id": "b"}, {"id": "c"}]})
    pipe.fails_after = 2
    with pytest.raises(QueueUnavailable):
        pipe.deliver("batches", sent)
    pipe.fails_after = None
    pipe.deliver("batches", sent)  # the sender tries again
    pipe.process()
    assert (pipe.rows("dedup_key"), pipe.world.effects()) == (["a", "b", "c"], 3)


def test_a_list_is_taken_apart_as_well(pipe: Pipe) -> None:
    pipe.deliver("list", b'[{"type": "a"},{"type": "b"}]\r\n')
    pipe.process()
    assert pipe.rows("type") == ["a", "b"]


def test_a_list_without_events_is_answered_and_brings_none(pipe: Pipe) -> None:
    assert pipe.request("list", b"[]") == Greeting(200)
    assert pipe.messages == []


@pytest.mark.parametrize("sent", [b"{}", b'{"data": []}', b'{"data": {"events": {}}}', b"[]", b"7", b'{"data": {}}'])
def test_a_delivery_without_the_list_is_refused(pipe: Pipe, sent: bytes) -> None:
    with pytest.raises(InvalidPayload):
        pipe.deliver("batches", sent)


def test_of_a_list_that_stands_there_twice_the_last_counts_as_it_does_to_every_reader(pipe: Pipe) -> None:
    pipe.deliver("batches", b'{"data": {"events": [{"id": "a"}], "events": [{"id": "b"}]}}')
    pipe.process()
    assert pipe.rows("dedup_key") == ["b"]


def test_nothing_of_a_delivery_is_read_before_it_is_verified(pipe: Pipe) -> None:
    with pytest.raises(InvalidSignature):
        pipe.deliver("batches", b"{" * 5_000, X_Signature="0" * 64)


# Bodies that are no JSON


def test_a_form_is_an_object_of_its_fields(pipe: Pipe) -> None:
    sent = b"kind=sms&To=%2B49&empty=&media=a&media=b&z=%C3%A9"
    pipe.deliver("forms", sent, Content_Type="application/x-www-form-urlencoded")
    pipe.process()
    [(type, payload, kept)] = pipe.rows("type, payload, body")
    assert (type, payload) == ("sms", {"kind": "sms", "To": "+49", "empty": "", "media": ["a", "b"], "z": "é"})
    assert bytes(kept) == sent


@pytest.mark.parametrize("sent", [b"<a>\xff</a>", b"\x00\x01", b"", b"{}"])
@pytest.mark.parametrize("content_type", ["application/xml", "application/octet-stream"])
def test_other_bytes_are_kept_as_they_came_and_have_no_payload(pipe: Pipe, sent: bytes, content_type: str) -> None:
    pipe.deliver("files", sent, Content_Type=content_type)
    assert pipe.process() == [Kind.PROCESSED]
    [(payload, kept, type)] = pipe.rows("payload, body, type")
    assert (payload, bytes(kept), type) == (None, sent, "unknown")


# What was refused and kept


def rejected(**changes: Any) -> Rejected:
    made = Rejected(
        id=new_event_id(now()),
        source="shop",
        received_at=now(),
        reason="signature_mismatch",
        method="POST",
        url="https://x/y",
        query=[("a", "\0")],
        headers={"x-a": ["1", "\ud800"]},
        body=b"\xff\0",
    )
    return replace(made, **changes)


def test_what_was_refused_is_kept_once_apart_from_the_events(pipe: Pipe) -> None:
    each = rejected()
    store = EventStore(pipe.world.database())
    for _ in range(2):
        store.keep([each])
    found = pipe.world.query("SELECT id::text, source, reason, method, url, query, headers, body FROM postern.rejected")
    assert [(*row[:-1], bytes(row[-1])) for row in found] == [
        (
            str(each.id),
            "shop",
            "signature_mismatch",
            "POST",
            "https://x/y",
            [["a", "\ufffd"]],
            {"x-a": ["1", "\ufffd"]},
            b"\xff\0",
        )
    ]
    assert pipe.rows("id") == []


def test_one_that_the_driver_cannot_send_as_it_is_costs_the_others_nothing(pipe: Pipe) -> None:
    EventStore(pipe.world.database()).keep([rejected(), rejected(url="https://x/\0\ud800", method="\0")])
    found = pipe.world.query("SELECT url, method FROM postern.rejected")
    assert set(found) == {("https://x/y", "POST"), ("https://x/\ufffd?", "\ufffd")}


def test_what_was_kept_is_dropped_after_a_time_and_when_there_is_too_much_of_it(pipe: Pipe) -> None:
    store, refused = EventStore(pipe.world.database()), Refused(pipe.world.database())
    long_ago = now() - timedelta(days=31)
    flood = [rejected(id=new_event_id(now() + timedelta(milliseconds=n)), source="flooded") for n in range(5)]
    quiet = rejected(source="quiet")
    store.keep([quiet, rejected(id=new_event_id(long_ago)), *flood])
    assert refused.drop_rejected(days=30, most=3, bytes=1_000) == 3
    assert refused.drop_rejected(days=30, most=3, bytes=1_000) == 0
    kept = pipe.world.query("SELECT id::text FROM postern.rejected")
    assert {id for (id,) in kept} == {str(each.id) for each in [quiet, *flood[2:]]}


def test_what_was_verified_is_dropped_by_no_flood_of_forgeries_and_has_a_bound_of_its_own(pipe: Pipe) -> None:
    store, refused = EventStore(pipe.world.database()), Refused(pipe.world.database())
    ids = [new_event_id(now() + timedelta(milliseconds=n)) for n in range(3)]
    signed = [rejected(id=id, verified=True, body=b"x" * 400) for id in ids]
    flood = [rejected(id=new_event_id(now() + timedelta(milliseconds=10 + n))) for n in range(5)]
    store.keep([*signed, *flood])
    assert refused.drop_rejected(days=30, most=3, bytes=1_000) == 2 + 1
    kept = pipe.world.query("SELECT id::text FROM postern.rejected WHERE verified")
    assert {id for (id,) in kept} == {str(each.id) for each in signed[1:]}


def test_what_is_verified_later_becomes_one_event_however_often_that_is_done(pipe: Pipe) -> None:
    sent = body(order=1)
    signed = hmac.digest(SECRET.encode(), sent, "sha256").hex()
    delivery = Delivery("shop", Headers([("X-Signature", signed), ("X-Id", "evt-1")]), sent, now())
    id = new_event_id(delivery.received_at)
    for _ in range(2):
        accept(delivery, pipe.inbox, id=id)
    assert pipe.process() == [Kind.PROCESSED] * 2  # the two copies of one event are worked on once
    accept(delivery, pipe.inbox, id=id)
    assert pipe.process() == [Kind.ALREADY_PROCESSED]
    assert (pipe.rows("id"), pipe.world.effects()) == ([str(id)], 1)


def test_an_event_says_which_secret_verified_it(pipe: Pipe) -> None:
    pipe.deliver("shop", body(order=1))
    pipe.process()
    assert pipe.rows("secret") == [naming.fingerprint("shop", SECRET)]
