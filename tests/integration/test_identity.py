"""Which deliveries are one event, to the row: ids, topics, bytes and windows; and what was there before the rule."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib.postern.adapters.migrations import FOLDERS, migrate
from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.envelope import Accepted, to_message
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.processing.attempts import Work
from chalicelib.postern.processing.settling import Kind
from tests.integration.pipe import SECRET, Pipe
from tests.integration.world import World, now
from tests.schemes import scheme_of, signature

SOURCES = """
[shop]
provider = "hmac"
dedup = "header:X-Id"

[strict]
provider = "hmac"
dedup = "header:X-Id"
same_body = "duplicate"

[strict-github]
provider = "github"
same_body = "duplicate"

[bells]
provider = "hmac"

[hourly]
provider = "hmac"
dedup_window = "1h"

[each]
provider = "hmac"
dedup = "none"

[topics]
provider = "hmac"
type = "header:X-Topic"

[named]
provider = "hmac"
dedup = "body:id"
dedup_window = "1s"

[batches]
provider = "hmac"
items = ""
dedup = "header:X-Batch"

[ticks]
provider = "hmac"
items = ""
"""
PROCESSED, DUPLICATE = Kind.PROCESSED, Kind.DUPLICATE


@pytest.fixture
def pipe(world: World, tmp_path: Path) -> Pipe:
    return Pipe.with_sources(world, tmp_path, SOURCES)


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


def repeats(pipe: Pipe) -> list[tuple[str, str | None]]:
    """Why each repetition was taken for one, and what it had for an id."""
    return pipe.world.query("SELECT why, dedup_key FROM postern.duplicates ORDER BY id")


# An id that nobody signed


def test_equal_bytes_under_other_ids_are_events_of_their_own_that_are_marked(pipe: Pipe) -> None:
    """GitHub's `member added`, removed, added again. Or what a thief sends again under fresh ids."""
    sent = body(order=1)
    first = pipe.deliver("shop", sent, X_Id="evt-1")
    pipe.deliver("shop", sent, X_Id="evt-2")
    assert pipe.process() == [PROCESSED] * 2
    pipe.deliver("shop", sent, X_Id="evt-3")
    pipe.deliver("shop", body(order=2), X_Id="evt-4")
    assert pipe.process() == [PROCESSED] * 2
    ids = [None, str(first.id), str(first.id), None]
    assert pipe.rows("same_body_as::text") == ids
    assert pipe.world.effects() == 4


def test_the_attack_of_a_fresh_id_is_refused_where_the_source_says_so(pipe: Pipe) -> None:
    captured = body(order=1)
    pipe.deliver("strict", captured, X_Id="evt-1")
    for n in range(3):
        pipe.deliver("strict", captured, X_Id=f"forged-{n}")
    assert pipe.process() == [PROCESSED, *[DUPLICATE] * 3]
    pipe.deliver("strict", captured, X_Id="forged-later")
    assert pipe.process() == [DUPLICATE]
    assert (pipe.rows("dedup_key"), pipe.world.effects()) == (["evt-1"], 1)
    assert repeats(pipe) == [("same_bytes", f"forged-{n}") for n in (0, 1, 2, "later")]


def test_there_what_was_refused_takes_no_id_from_the_event_to_come(pipe: Pipe) -> None:
    pipe.deliver("strict", body(order=1), X_Id="evt-1")
    pipe.deliver("strict", body(order=1), X_Id="evt-2")
    assert pipe.process() == [PROCESSED, DUPLICATE]
    pipe.deliver("strict", body(order=2), X_Id="evt-2")
    assert pipe.process() == [PROCESSED]
    assert pipe.rows("dedup_key, payload ->> 'order'") == [("evt-1", "1"), ("evt-2", "2")]


def test_in_one_batch_as_well(pipe: Pipe) -> None:
    for order, id in ((1, "evt-1"), (1, "evt-2"), (1, "evt-2"), (2, "evt-3")):
        pipe.deliver("strict", body(order=order), X_Id=id)
    assert pipe.process() == [PROCESSED, DUPLICATE, DUPLICATE, PROCESSED]
    assert set(pipe.world.query("SELECT event_id::text FROM postern.duplicates")) == {(pipe.rows("id::text")[0],)}


def test_one_under_an_id_that_is_taken_is_kept_with_its_own_bytes_and_seen(pipe: Pipe) -> None:
    """The attack: an old delivery, or one that never arrived, goes out under the id that the next event will have."""
    old, real = body(order=1), body(order=2)
    pipe.deliver("shop", old, X_Id="evt-2")
    pipe.deliver("shop", real, X_Id="evt-2")
    assert pipe.process() == [PROCESSED, DUPLICATE]
    assert repeats(pipe) == [("same_id_other_bytes", "evt-2")]
    [(kept,)] = pipe.world.query("SELECT body FROM postern.duplicates")
    assert bytes(kept) == real


def test_the_providers_own_redelivery_is_the_same_event(pipe: Pipe) -> None:
    for _ in range(3):
        pipe.deliver("shop", body(order=1), X_Id="evt-1")
    assert pipe.process() == [PROCESSED, DUPLICATE, DUPLICATE]
    pipe.deliver("shop", body(order=1), X_Id="evt-1")
    assert pipe.process() == [DUPLICATE]
    assert repeats(pipe) == [("same_id", "evt-1")] * 3
    assert pipe.world.query("SELECT DISTINCT body FROM postern.duplicates") == [(None,)]  # they are the event's


def test_a_repetition_keeps_its_own_headers_and_type(pipe: Pipe) -> None:
    pipe.deliver("topics", body(order=1), X_Topic="created")
    pipe.process()
    pipe.deliver("topics", body(order=1), X_Topic="created", X_Attempt="2")
    assert pipe.process() == [DUPLICATE]
    [(type, headers)] = pipe.world.query("SELECT type, headers FROM postern.duplicates")
    assert (type, headers["x-attempt"]) == ("created", "2")


def test_an_id_is_its_own_where_the_body_can_be_anything(pipe: Pipe) -> None:
    """Sanity's users choose what is in it; a captured delivery under a fresh id is marked."""
    sanity, sent = scheme_of("sanity"), b'{"_id": "a"}'
    first, second = (signature(sanity, sent, SECRET, now=now() - timedelta(seconds=s)) for s in (2, 1))
    for headers, id in ((first, "op-1"), (second, "op-2"), (first, "op-1")):
        pipe.deliver("sanity", sent, **headers, idempotency_key=id)
    assert pipe.process() == [PROCESSED, PROCESSED, DUPLICATE]


def test_a_captured_delivery_gains_nothing_by_losing_its_headers(pipe: Pipe) -> None:
    """Without its id, under topics of the thief's choice: marked by default, and refused where the source says so."""
    for source, kind in (("github", PROCESSED), ("strict-github", DUPLICATE)):
        sent = body(order=1, source=source)
        signed = {"X_Hub_Signature_256": "sha256=" + hmac.digest(SECRET.encode(), sent, "sha256").hex()}
        pipe.deliver(source, sent, **signed, X_GitHub_Delivery="d1", X_GitHub_Event="push")
        assert pipe.process() == [PROCESSED]
        for topic in ("evil1", "evil2"):
            pipe.deliver(source, sent, **signed, X_GitHub_Event=topic)
            assert pipe.process() == [kind]
    marks = pipe.rows("source, type, same_body_as IS NOT NULL")
    assert marks == [
        ("github", "push", False),
        ("github", "evil1", True),
        ("github", "evil2", True),
        ("strict-github", "push", False),
    ]


def test_a_mate_that_repeats_an_event_takes_no_bytes_from_one_that_is_new(pipe: Pipe) -> None:
    pipe.deliver("strict", body(y=1), X_Id="evt-1")
    pipe.process()
    pipe.deliver("strict", body(x=1), X_Id="evt-1")  # a repetition by its id, with bytes of its own
    pipe.deliver("strict", body(x=1), X_Id="evt-2")
    assert pipe.process() == [DUPLICATE, PROCESSED]


def test_a_mate_that_is_refused_takes_no_id_from_one_that_is_new(pipe: Pipe) -> None:
    pipe.deliver("strict", body(x=1), X_Id="evt-1")
    pipe.process()
    pipe.deliver("strict", body(x=1), X_Id="evt-2")  # refused for its bytes
    pipe.deliver("strict", body(y=1), X_Id="evt-2")
    assert pipe.process() == [DUPLICATE, PROCESSED]


def test_a_senders_id_is_never_taken_for_a_hash_or_a_claim_of_ours(pipe: Pipe) -> None:
    for id in ("duplicate:1", "sha256:" + hashlib.sha256(body(n=1)).hexdigest(), "id-sha256:x"):
        for kind in (PROCESSED, DUPLICATE):
            pipe.deliver("shop", body(n=1, id=id), X_Id=id)
            assert pipe.process() == [kind]
    assert all(key.startswith("id:") for key in pipe.rows("dedup_key"))


# Topics


def test_what_shopify_says_of_one_change_under_two_topics_are_two_events(pipe: Pipe) -> None:
    sent = body(id=1)
    signed = signature(scheme_of("shopify"), sent, SECRET, now=now())
    for topic, webhook in (("orders/create", "w1"), ("orders/updated", "w2"), ("orders/create", "w3")):
        names = {"X_Shopify_Topic": topic, "X_Shopify_Event_Id": "e1", "X_Shopify_Webhook_Id": webhook}
        pipe.deliver("shopify", sent, **signed, **names)
    assert pipe.process() == [PROCESSED, PROCESSED, DUPLICATE]
    assert pipe.rows("type") == ["orders/create", "orders/updated"]


def test_what_changes_in_a_woocommerce_within_one_second_are_events_of_their_own(pipe: Pipe) -> None:
    """Its delivery id is made of the webhook and the second."""
    for number, topic in ((1, "order.updated"), (2, "order.updated"), (2, "order.created"), (1, "order.updated")):
        sent = body(id=number)
        signed = signature(scheme_of("woocommerce"), sent, SECRET, now=now())
        pipe.deliver("woocommerce", sent, **signed, X_WC_Webhook_Delivery_ID="d1", X_WC_Webhook_Topic=topic)
    assert pipe.process() == [PROCESSED, PROCESSED, PROCESSED, DUPLICATE]


def test_two_names_that_clickup_has_for_one_change_are_two_events(pipe: Pipe) -> None:
    for event in ("taskUpdated", "taskStatusUpdated", "taskUpdated"):
        sent = body(event=event, history_items=[{"id": "h1"}])
        pipe.deliver("clickup", sent, **signature(scheme_of("clickup"), sent, SECRET, now=now()))
    assert pipe.process() == [PROCESSED, PROCESSED, DUPLICATE]


def test_without_an_id_equal_bytes_under_two_topics_are_two_events(pipe: Pipe) -> None:
    for topic in ("created", "updated", "created"):
        pipe.deliver("topics", body(order=1), X_Topic=topic)
    assert pipe.process() == [PROCESSED, PROCESSED, DUPLICATE]


# Bytes, for a window


def test_the_same_words_are_an_echo_today_and_news_tomorrow(pipe: Pipe) -> None:
    ring, begin = body(type="door.opened"), now()
    for hours, kind in ((0, PROCESSED), (23.9, DUPLICATE), (24.1, PROCESSED), (30, DUPLICATE), (49, PROCESSED)):
        pipe.at = begin + timedelta(hours=hours)
        pipe.deliver("bells", ring)
        assert pipe.process() == [kind], hours
    assert repeats(pipe)[0][0] == "same_bytes"


def test_in_one_batch_the_window_counts_from_receipt_to_receipt(pipe: Pipe) -> None:
    """What waited through an outage of days is told apart by when it came."""
    ring, begin = body(type="door.opened"), now() - timedelta(days=3)
    for minutes in (0, 1, 59, 60.5, 61, 130, 500, 501):
        pipe.at = begin + timedelta(minutes=minutes)
        pipe.deliver("hourly", ring)
    expected = [PROCESSED, DUPLICATE, DUPLICATE, PROCESSED, DUPLICATE, PROCESSED, PROCESSED, DUPLICATE]
    assert pipe.process() == expected
    owners = pipe.world.query("SELECT event_id::text FROM postern.duplicates ORDER BY id")
    ids = pipe.rows("id::text")
    assert [owner for (owner,) in owners] == [ids[0], ids[0], ids[1], ids[3]]


def test_what_came_long_before_and_is_processed_later_is_no_repetition(pipe: Pipe) -> None:
    ring = body(type="door.opened")
    pipe.deliver("bells", ring)
    pipe.process()
    pipe.at = now() - timedelta(days=2)
    pipe.deliver("bells", ring)
    assert pipe.process() == [PROCESSED]


def test_an_event_whose_key_was_taken_over_is_still_itself_when_it_is_tried_again(pipe: Pipe) -> None:
    ring = body(type="door.opened")
    pipe.at = now() - timedelta(days=2)
    pipe.deliver("bells", ring)
    again = list(pipe.messages)
    pipe.process()
    pipe.at = None
    pipe.deliver("bells", ring)
    assert pipe.process() == [PROCESSED]
    pipe.world.query(
        "UPDATE postern.events SET status = 'failed', processed_at = NULL, error = 'x' WHERE same_body_as"
        " IS NULL AND id = (SELECT min(id::text)::uuid FROM postern.events)"
    )
    pipe.messages += again
    assert pipe.process() == [PROCESSED]
    assert (pipe.world.effects(), repeats(pipe)) == (3, [])


def test_two_at_once_that_find_the_window_passed_are_one_event(pipe: Pipe) -> None:
    ring = body(type="door.opened")
    pipe.at = now() - timedelta(days=2)
    pipe.deliver("bells", ring)
    pipe.process()
    pipe.at = None
    works = []
    for _ in range(4):
        pipe.deliver("bells", ring)
        [message] = pipe.messages
        pipe.messages.clear()
        event = from_message(message)
        assert isinstance(event, Accepted)
        works.append(Work(event, ring))
    processors = [pipe.world.processor() for _ in works]
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda p, w: p.process([w])[w.event.id].kind, processors, works))
    assert Counter(outcomes) == {PROCESSED: 1, DUPLICATE: 3}


def test_a_thousand_equal_bodies_at_once_are_one_event(pipe: Pipe) -> None:
    for _ in range(1_000):
        pipe.deliver("bells", body(type="door.opened"))
    counted: Counter[Kind] = Counter()
    messages, pipe.messages = pipe.messages, []
    for at in range(0, 1_000, 100):
        pipe.messages = messages[at : at + 100]
        counted.update(pipe.process())
    assert counted == {PROCESSED: 1, DUPLICATE: 999}


def test_a_window_bounds_bytes_and_never_an_id(pipe: Pipe) -> None:
    """A provider that repeats an event a week later means the same event."""
    for days, kind in ((0, PROCESSED), (1, DUPLICATE), (8, DUPLICATE)):
        pipe.at = now() + timedelta(days=days)
        pipe.deliver("named", body(id="w1"))
        assert pipe.process() == [kind], days


def test_the_parts_of_one_delivery_are_no_repetitions_of_each_other(pipe: Pipe) -> None:
    """Whether they share the delivery's id, which stands in a header, or have equal bytes and no id."""
    for source, headers in (("batches", {"X_Batch": "b1"}), ("ticks", {})):
        for expected in (PROCESSED, DUPLICATE):
            pipe.deliver(source, b'[{"type": "tick"}, {"type": "tick"}, {"type": "tock"}]', **headers)
            assert pipe.process() == [expected] * 3


def test_where_each_delivery_is_an_event_nothing_is_a_repetition(pipe: Pipe) -> None:
    for _ in range(3):
        pipe.deliver("each", body(type="door.opened"))
    assert pipe.process() == [PROCESSED] * 3
    assert len(set(pipe.rows("dedup_key"))) == 3


# What was there before


def test_what_came_before_the_rule_is_known_by_it(empty_database_url: str, tmp_path: Path) -> None:
    """No event is processed again by the change, and none becomes a repetition: rows and keys are as 0.1 wrote them."""
    older = tmp_path / "older"
    shutil.copytree(FOLDERS["postern"], older)
    for file in older.glob("*.sql"):
        if file.name >= "0012":
            file.unlink()
    migrate(empty_database_url, {"postern": older})
    world = World(empty_database_url, [])
    world.query("CREATE TABLE effects (event uuid, n integer)")
    pipe = Pipe.with_sources(world, tmp_path, SOURCES)
    woo = {"X_WC_Webhook_Delivery_ID": "d1", "X_WC_Webhook_Topic": "order.created"}
    shopify = {"X_Shopify_Event_Id": "e1", "X_Shopify_Webhook_Id": "w1", "X_Shopify_Topic": "orders/create"}
    clickup = body(event="taskUpdated", history_items=[{"id": "h1"}])
    sent: list[tuple[str, bytes, dict[str, str], str, str]] = [
        ("shop", body(n=1), {"X_Id": "evt-1"}, "evt-1", "unknown"),
        ("bells", body(n=1), {}, "", "unknown"),
        ("topics", body(n=1), {"X_Topic": "created"}, "", "created"),
        ("woocommerce", body(id=1), woo, "d1", "order.created"),
        ("shopify", body(id=1), shopify, "w1", "orders/create"),
        ("clickup", clickup, {}, "h1", "taskUpdated"),
    ]
    for source, content, headers, id, type in sent:
        _as_before(world, source, content, headers, id, type)
    migrate(empty_database_url)

    own = ("woocommerce", "shopify", "clickup")
    for source, content, headers, _, _ in sent:
        signed = signature(scheme_of(source), content, SECRET, now=now()) if source in own else {}
        pipe.deliver(source, content, **headers, **signed)
    assert pipe.process() == [DUPLICATE] * len(sent)
    pipe.deliver("shop", body(n=1), X_Id="evt-2")
    assert pipe.process() == [PROCESSED]  # by the bytes alone it was a repetition
    assert world.query("SELECT same_body_as IS NOT NULL FROM postern.events WHERE dedup_key = 'evt-2'") == [(True,)]
    for database in world.open:
        database.close()


def _as_before(world: World, source: str, content: bytes, headers: dict[str, str], id: str, type: str) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    event_id, hashed = str(new_event_id(at)), f"sha256:{hashlib.sha256(content).hexdigest()}"
    stored = {name.lower().replace("_", "-"): value for name, value in headers.items()}
    world.query(
        "INSERT INTO postern.events (id, source, type, dedup_key, status, attempts, received_at, processed_at, headers,"
        " payload, body) VALUES (%s, %s, %s, %s, 'processed', 1, %s, %s, %s, %s, %s)",
        event_id, source, type, id or hashed, at, at, json.dumps(stored), content.decode(), content,
    )  # fmt: skip
    claimed = id if source == "clickup" else hashed
    world.query("INSERT INTO postern.dedup_keys (source, key, event_id) VALUES (%s, %s, %s)", source, claimed, event_id)


def test_a_message_of_before_is_claimed_by_its_id(pipe: Pipe) -> None:
    """It lay in the queue when the new processor came; its provider repeats it to the new one."""
    pipe.deliver("shop", body(n=1), X_Id="evt-1")
    old = json.loads(pipe.messages.pop())
    old["claim"] = old.pop("same")
    pipe.messages.append(json.dumps(old))
    pipe.deliver("shop", body(n=1), X_Id="evt-1")
    pipe.deliver("shop", body(n=1), X_Id="evt-2")
    assert pipe.process() == [PROCESSED, DUPLICATE, PROCESSED]


def test_a_message_says_all_of_it(pipe: Pipe) -> None:
    pipe.deliver("strict", body(n=1), X_Id="evt-1")
    pipe.deliver("hourly", body(n=1))
    for message in pipe.messages:
        event = from_message(message)
        assert isinstance(event, Accepted)
        assert from_message(to_message(event)) == event
