"""Settling with the queue: what is deleted, what comes again and when, and what ends in the dead letters."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from chalicelib.postern.adapters import aws as aws_clients
from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.adapters.s3 import S3Bodies
from chalicelib.postern.adapters.sqs import SqsQueue
from chalicelib.postern.contract.deliveries import Event, new_event_id
from chalicelib.postern.contract.envelope import Accepted, Rejected, to_message
from chalicelib.postern.contract.errors import ConfigurationError, QueueUnavailable, RetryLater
from chalicelib.postern.processing import handling
from chalicelib.postern.processing.consume import BatchIncomplete, Consumer
from chalicelib.postern.processing.engine import Processor
from devstack.aws import EmulatedAws, Resources
from devstack.event_source import event_of
from tests.integration.world import POLICY, World, effect, fails_for, now, numbered, work
from tests.support import eventually


@dataclass
class Lambda:
    """The event source mapping and the function, one batch at a time, on the emulated queue."""

    sqs: Any
    resources: Resources
    consumer: Consumer

    def send(self, *events: Accepted) -> None:
        for event in events:
            self.send_text(to_message(event))

    def send_text(self, text: str, **options: Any) -> str:
        return str(self.sqs.send_message(QueueUrl=self.resources.queue_url, MessageBody=text, **options)["MessageId"])

    def receive(self) -> list[dict[str, Any]]:
        answer = self.sqs.receive_message(
            QueueUrl=self.resources.queue_url,
            MaxNumberOfMessages=10,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return list(answer.get("Messages", []))

    def invoke(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        return self.consumer.consume(event_of(messages, "arn:aws:sqs:us-east-1:000000000000:q")["Records"])

    def turn(self) -> list[dict[str, Any]]:
        """Receives and invokes once, and deletes what the mapping would: with and without its flag."""
        messages = self.receive()
        if not messages:
            return []
        try:
            failed = {item["itemIdentifier"] for item in self.invoke(messages)["batchItemFailures"]}
        except BatchIncomplete:
            assert not self.consumer.partial_responses
            return messages
        for message in messages:
            if message["MessageId"] not in failed:
                self.sqs.delete_message(QueueUrl=self.resources.queue_url, ReceiptHandle=message["ReceiptHandle"])
        return messages

    def end_wait(self, messages: list[dict[str, Any]]) -> None:
        """As if the time had passed for which these are hidden."""
        for message in messages:
            with contextlib.suppress(ClientError):  # it is deleted
                self.sqs.change_message_visibility(
                    QueueUrl=self.resources.queue_url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
                )

    def until(self, check: Callable[[], bool]) -> None:
        def turn_and_check() -> bool:
            self.end_wait(self.turn())
            return check()

        eventually(turn_and_check, timeout=30)

    def dead(self) -> list[dict[str, Any]]:
        """Takes the dead letters out."""
        found: list[dict[str, Any]] = []
        while messages := self.sqs.receive_message(
            QueueUrl=self.resources.dead_letter_queue_url,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        ).get("Messages", []):
            found += messages
        return found

    def left(self) -> int:
        """How many messages are on the queue, hidden ones included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.sqs.get_queue_attributes(QueueUrl=self.resources.queue_url, AttributeNames=names)
        return sum(int(value) for value in answer["Attributes"].values())


@pytest.fixture
def function(
    aws: EmulatedAws, resources: Resources, world: World, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Lambda]:
    for name, value in aws.environ().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    aws_clients._clients.clear()

    def make(processor: Processor | None = None, *, partial: bool = True, **changes: Any) -> Lambda:
        consumer = Consumer(
            keep=EventStore(world.database()).keep,
            processor=lambda: processor or world.processor(effect),
            queue=SqsQueue(resources.queue_url),
            dead_letters=SqsQueue(resources.dead_letter_queue_url),
            bodies=S3Bodies(resources.bodies_bucket),
            policy=POLICY,
            partial_responses=partial,
            sources={"shop"},
            random=lambda: 1.0,
            now=now,
            log=lambda name, /, **fields: None,
        )
        return Lambda(aws.client("sqs"), resources, replace(consumer, **changes))

    return make


Makes = Callable[..., Lambda]
both_modes = pytest.mark.parametrize("partial", [True, False], ids=["partial-responses", "safe-mode"])


@both_modes
def test_a_batch_of_ten_with_two_poisoned_leaves_eight_rows_and_two_dead_letters(
    function: Makes, world: World, partial: bool
) -> None:
    fn = function(world.processor(fails_for(3, 7)), partial=partial)
    fn.send(*(w.event for w in numbered(*range(10))))
    fn.until(lambda: fn.left() == 0)
    assert sorted(world.rows()) == [("dead", 3)] * 2 + [("processed", 1)] * 8
    assert world.effects() == 8
    letters = fn.dead()
    assert len(letters) == 2
    assert {m["MessageAttributes"]["postern-attempts"]["StringValue"] for m in letters} == {"3"}
    reasons = sorted(m["MessageAttributes"]["postern-reason"]["StringValue"] for m in letters)
    assert reasons == ["ValueError: 3 is poisoned", "ValueError: 7 is poisoned"]


def test_a_partial_response_names_exactly_what_has_to_come_again(function: Makes, world: World) -> None:
    fn = function(world.processor(fails_for(2)))
    fn.send(*(w.event for w in numbered(1, 2, 3)))
    messages = fn.receive()
    failing = next(m["MessageId"] for m in messages if b'{"n": 2}' in body_of(m))
    assert fn.invoke(messages) == {"batchItemFailures": [{"itemIdentifier": failing}]}


def test_complete_success_is_an_empty_list(function: Makes) -> None:
    fn = function()
    fn.send(work().event)
    assert fn.invoke(fn.receive()) == {"batchItemFailures": []}


def test_in_safe_mode_what_is_done_is_deleted_and_then_the_invocation_fails(function: Makes, world: World) -> None:
    fn = function(world.processor(fails_for(2)), partial=False)
    fn.send(*(w.event for w in numbered(1, 2, 3)))
    with pytest.raises(BatchIncomplete, match="1 of 3"):
        fn.invoke(fn.receive())
    assert fn.left() == 1


def test_in_safe_mode_complete_success_is_left_to_the_mapping(function: Makes) -> None:
    fn = function(partial=False)
    fn.send(work().event)
    fn.invoke(fn.receive())
    assert fn.left() == 1


GARBAGE = ["garbage", '{"v": 1, "id": "01a2', '{"v": 99}', "[]", json.dumps({"Type": "Notification", "Message": "x"})]


@both_modes
def test_garbage_fails_alone_and_ends_in_the_dead_letters_with_its_id_in_the_log(
    function: Makes, world: World, partial: bool
) -> None:
    """Plain text, a truncated message, another version's, and other senders'."""
    logged: list[dict[str, Any]] = []
    fn = function(partial=partial, log=lambda name, /, **fields: logged.append({"name": name, **fields}))
    ids = [fn.send_text(garbage) for garbage in GARBAGE]
    fn.send(work().event)
    fn.until(lambda: fn.left() == 0)
    assert world.rows() == [("processed", 1)]
    assert sorted(letter["Body"] for letter in fn.dead()) == sorted(GARBAGE)
    for id in ids:
        about = [line for line in logged if line.get("message_id") == id]
        assert [line["name"] for line in about] == ["event.failed", "event.failed", "event.dead"]
    assert "Notification" not in str(logged)


@both_modes
def test_what_was_verified_is_not_let_go_because_the_database_does_not_take_it(
    function: Makes, world: World, partial: bool
) -> None:
    """A migration is still to come, say. A forgery is let go; the others are tried again, and are dead letters then."""
    logged: list[str] = []
    fn = function(partial=partial, log=lambda name, /, **fields: logged.append(name))
    at = now()

    def refused(n: int, **changes: Any) -> Rejected:
        made = Rejected(new_event_id(at + timedelta(milliseconds=n)), "shop", at, "not_json", "POST", "", [], {}, b"{")
        return replace(made, **changes)

    good, forged = refused(1, verified=True), refused(2, reason="signature_mismatch")
    world.query("ALTER TABLE postern.rejected RENAME COLUMN verified TO later")
    for each in (good, forged):
        fn.send_text(to_message(each))
    fn.end_wait(fn.turn())
    assert (logged.count("rejected.lost"), fn.left()) == (1, 1)
    world.query("ALTER TABLE postern.rejected RENAME COLUMN later TO verified")
    fn.until(lambda: fn.left() == 0)
    assert world.query("SELECT id::text FROM postern.rejected") == [(str(good.id),)]

    world.query("ALTER TABLE postern.rejected RENAME COLUMN verified TO later")
    fn.send_text(to_message(refused(3, verified=True)))
    fn.until(lambda: fn.left() == 0)
    assert len(fn.dead()) == 1


NO_PAYLOAD = {
    "not-utf-8": b"\xff\xfe",
    "empty": b"",
    "nul": b"\0",
    "text": b"hello",
    "truncated": b'{"n": ',
    "nested": b"[" * 100_000,
}


@pytest.mark.parametrize("name", NO_PAYLOAD)
def test_an_envelope_around_bytes_that_we_would_not_have_accepted_fails_alone(
    function: Makes, world: World, name: str
) -> None:
    """The API function lets none of these through; a damaged object in the bucket could."""
    fn = function()
    fn.send(*(w.event for w in numbered(1, 2)), work(body=NO_PAYLOAD[name]).event)
    fn.until(lambda: fn.left() == 0)
    assert sorted(world.rows()) == [("dead", 3), ("processed", 1), ("processed", 1)]
    assert len(fn.dead()) == 1
    assert world.query("SELECT payload, body FROM postern.events WHERE status = 'dead'")[0][0] is None


def test_a_form_without_the_field_that_we_read_fails_alone(function: Makes, world: World) -> None:
    fn = function()
    fn.send(work().event, work(body=b"other=1", form_field="payload").event)
    fn.until(lambda: fn.left() == 0)
    assert sorted(world.rows()) == [("dead", 3), ("processed", 1)]


def test_a_redriven_message_runs_again(function: Makes, world: World) -> None:
    """A redrive makes a new message of the same body and attributes; the emulator has none of its own."""
    fn = function(world.processor(fails_for(1)))
    fn.send(numbered(1)[0].event)
    fn.until(lambda: fn.left() == 0)
    [letter] = fn.dead()
    fn.sqs.send_message(
        QueueUrl=fn.resources.queue_url, MessageBody=letter["Body"], MessageAttributes=letter["MessageAttributes"]
    )
    mended = replace(fn, consumer=replace(fn.consumer, processor=lambda: world.processor(effect)))
    mended.until(lambda: fn.left() == 0)
    assert (world.rows(), world.effects()) == ([("processed", 4)], 1)


def test_waits_are_asked_for_by_message_and_double(function: Makes, world: World) -> None:
    asked: list[int] = []
    fn = function(world.processor(fails_for(1)), policy=replace(POLICY, base_seconds=30, max_seconds=300))
    aws_clients.sqs().meta.events.register(
        "provide-client-params.sqs.ChangeMessageVisibilityBatch",
        lambda params, **_: asked.extend(entry["VisibilityTimeout"] for entry in params["Entries"]),
    )
    fn.send(numbered(1)[0].event)
    fn.until(lambda: fn.left() == 0)
    assert asked == [30, 60]


def test_a_failed_event_comes_again_after_its_own_wait(function: Makes, world: World) -> None:
    policy = replace(POLICY, base_seconds=600, max_seconds=3600)
    fn = function(world.processor(fails_for(1)), policy=policy)
    fn.send(*(w.event for w in numbered(1, 2)))
    fn.turn()
    # The other is gone; this one is hidden for longer than any test waits, whatever the queue's own timeout is.
    assert (fn.left(), fn.receive()) == (1, [])


def test_while_the_database_is_away_nothing_is_charged_and_nothing_is_dead(function: Makes, world: World) -> None:
    away = replace(world, url="postgresql://u:p@127.0.0.1:1/d")
    fn = function(away.processor(effect))
    fn.send(*(w.event for w in numbered(1, 2, 3)))
    received: dict[str, int] = {}

    def often_enough() -> bool:
        messages = fn.receive()
        for message in messages:
            received[message["MessageId"]] = int(message["Attributes"]["ApproximateReceiveCount"])
        if messages:
            assert len(fn.invoke(messages)["batchItemFailures"]) == len(messages)
            fn.end_wait(messages)
        return len(received) == 3 and min(received.values()) > 4

    eventually(often_enough, timeout=40)
    assert fn.dead() == []
    fn = replace(fn, consumer=replace(fn.consumer, processor=lambda: world.processor(effect)))
    fn.until(lambda: fn.left() == 0)
    assert (world.rows(), world.effects()) == ([("processed", 1)] * 3, 3)


def test_handlers_that_cannot_be_imported_blame_no_event(function: Makes, world: World) -> None:
    def broken() -> Processor:
        raise ConfigurationError("Handlers in x cannot be imported")

    fn = function()
    fn = replace(fn, consumer=replace(fn.consumer, processor=broken))
    fn.send(work().event)
    assert len(fn.invoke(fn.receive())["batchItemFailures"]) == 1
    assert world.rows() == []


def test_handlers_that_can_be_imported_the_second_time_run_once(
    function: Makes, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "flaky_handlers"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "first.py").write_text(
        "from chalicelib.postern import on\n"
        "from tests.integration.world import effect\n"
        "on('shop', 'order')(effect)\n"
        "open('mended').close()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def processor() -> Processor:
        return world.processor(handlers=handling.discover("flaky_handlers"))

    fn = function()
    fn = replace(fn, consumer=replace(fn.consumer, processor=processor))
    fn.send(work().event)
    fn.end_wait(fn.turn())
    assert world.rows() == []
    (tmp_path / "mended").touch()
    try:
        fn.until(lambda: fn.left() == 0)
        assert (world.rows(), world.effects()) == ([("processed", 1)], 1)
    finally:
        handling._registered[:] = [h for h in handling._registered if h.function is not effect]


def test_a_dead_letter_that_cannot_be_moved_is_kept_and_moved_later(function: Makes, world: World) -> None:
    class Away(SqsQueue):
        def send(self, *args: Any, **kwargs: Any) -> None:
            raise QueueUnavailable("away")

    fn = function(world.processor(fails_for(1)))
    stuck = replace(fn, consumer=replace(fn.consumer, dead_letters=Away("x")))
    fn.send(numbered(1)[0].event)
    stuck.until(lambda: world.rows() == [("dead", 3)])
    stuck.turn()
    assert (fn.left(), fn.dead()) == (1, [])
    fn.until(lambda: fn.left() == 0)
    assert len(fn.dead()) == 1
    assert world.rows() == [("dead", 3)]


def test_a_body_in_the_bucket_comes_back_byte_for_byte(function: Makes, world: World) -> None:
    fn = function()
    body = b'"' + os.urandom(1_000_000).hex().encode() + b'"'
    key = f"shop/{uuid.uuid4()}"
    fn.consumer.bodies.put(key, body)  # type: ignore[attr-defined]
    large = replace(work().event, body=None, body_key=key)
    missing = replace(work().event, body=None, body_key="shop/none")
    fn.send(large, missing)
    messages = fn.receive()
    assert len(fn.invoke(messages)["batchItemFailures"]) == 1
    [(stored,)] = world.query("SELECT body FROM postern.events")
    assert bytes(stored) == body


def test_two_copies_of_a_dying_event_are_one_dead_letter(function: Makes, world: World) -> None:
    fn = function(world.processor(fails_for(1)))
    [w] = numbered(1)
    fn.send(w.event, w.event)
    fn.until(lambda: fn.left() == 0)
    assert world.rows() == [("dead", 3)]
    assert len(fn.dead()) == 1


def body_of(message: dict[str, Any]) -> bytes:
    return base64.b64decode(json.loads(message["Body"])["body"])


TRACE = "1-5759e988-bd862e3fe1be46a994272793"


def test_a_trace_is_in_every_line_of_its_event_and_goes_along_to_the_dead_letters(
    function: Makes, world: World
) -> None:
    logged: list[dict[str, Any]] = []
    fn = function(world.processor(fails_for(1)), log=lambda name, /, **fields: logged.append({"name": name, **fields}))
    header = f"Root={TRACE};Parent=53995c3f42cd8ad8;Sampled=1"
    traced = {"AWSTraceHeader": {"DataType": "String", "StringValue": header}}
    event = replace(numbered(1)[0].event, request_id="r-1")
    fn.send_text(to_message(event), MessageSystemAttributes=traced)
    fn.until(lambda: fn.left() == 0)
    lines = [line for line in logged if line["name"].startswith("event.")]
    assert [line["name"] for line in lines] == ["event.failed", "event.failed", "event.dead"]
    assert {(line["trace_id"], line["request_id"], line["id"]) for line in lines} == {(TRACE, "r-1", str(event.id))}
    [letter] = fn.dead()
    assert letter["Attributes"]["AWSTraceHeader"] == header


def test_what_a_handler_wants_later_is_no_failure_and_its_words_are_not_logged(function: Makes, world: World) -> None:
    logged: list[dict[str, Any]] = []

    def wait(event: Event, db: Any) -> None:
        raise RetryLater(3600, "order 4711 of Jane has not come")

    fn = function(world.processor(wait), log=lambda name, /, **fields: logged.append({"name": name, **fields}))
    fn.send(work().event)
    messages = eventually(fn.turn)
    [line, batch] = logged
    assert (line["name"], line["failed"], line["reason"]) == ("event.postponed", False, "RetryLater")
    assert (line["metrics"], batch["outcomes"]) == ({}, {"postponed": 1})
    assert fn.receive() == []
    assert fn.left() == 1
    fn.end_wait(messages)
    assert len(fn.turn()) == 1
    assert world.query("SELECT times FROM postern.postponed") == [(2,)]


def test_what_the_databases_absence_keeps_for_too_long_is_sent_anew_before_sqs_gives_up(
    function: Makes, world: World, tmp_path: Path
) -> None:
    """`maxReceiveCount` counts receives, and an outage may last longer than they do."""
    away = Processor(EventStore(Database(lambda fresh: f"host={tmp_path} dbname=none")), world.processor().runner)
    fn = function(away, policy=replace(POLICY, max_receives=3))
    event = work().event
    fn.send(event)
    seen: list[tuple[str, int]] = []
    for _ in range(9):
        for message in (messages := eventually(fn.turn)):
            seen.append((message["MessageId"], int(message["Attributes"]["ApproximateReceiveCount"])))
        fn.end_wait(messages)
    assert max(receives for _, receives in seen) == 2
    assert len({id for id, _ in seen}) == 5
    fn = function(policy=replace(POLICY, max_receives=3))
    fn.until(lambda: fn.left() == 0)
    assert world.rows() == [("processed", 1)]
    assert fn.dead() == []


def test_a_renewed_message_keeps_its_group_its_trace_and_its_attempts(function: Makes, tmp_path: Path) -> None:
    def refuse(*arguments: object) -> Processor:
        raise ConfigurationError("not to be had")

    fn = function(policy=replace(POLICY, max_receives=2))
    fn = replace(fn, consumer=replace(fn.consumer, processor=refuse))
    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    fn.send_text(
        to_message(work().event),
        MessageAttributes={"postern-attempts": {"DataType": "String", "StringValue": "3"}},
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": header}},
    )
    [first] = fn.turn()
    [second] = eventually(fn.receive)
    assert second["MessageId"] != first["MessageId"]
    assert second["Attributes"]["AWSTraceHeader"] == header
    assert second["Attributes"]["MessageGroupId"] == "shop"
    assert second["MessageAttributes"]["postern-attempts"]["StringValue"] == "3"


def test_when_the_queue_had_an_event_is_kept_unless_its_message_was_sent_later(function: Makes, world: World) -> None:
    fn = function()

    def queued_at(event: Accepted, sent_at: datetime) -> Any:
        attributes = {"ApproximateReceiveCount": "1", "SentTimestamp": str(round(sent_at.timestamp() * 1000))}
        record = {"messageId": "1", "receiptHandle": "1", "body": to_message(event), "attributes": attributes}
        assert fn.consumer.consume([record]) == {"batchItemFailures": []}
        [[found]] = world.query("SELECT queued_at FROM postern.events WHERE id = %s", event.id)
        return found

    at = datetime(2026, 11, 24, 4, 5, 6, 789_000, tzinfo=UTC)
    first, second, third = (replace(work().event, received_at=at) for _ in range(3))
    assert queued_at(first, at + timedelta(milliseconds=12)) == at + timedelta(milliseconds=12)
    # After an outage, or let through by a person: nobody waited for that.
    assert queued_at(second, at + timedelta(hours=3)) is None
    # Two machines' clocks.
    assert queued_at(third, at - timedelta(milliseconds=3)) == at - timedelta(milliseconds=3)
    acks = world.query("SELECT ack FROM postern.latency ORDER BY ack")
    assert acks == [(timedelta(0),), (timedelta(milliseconds=12),), (None,)]


def test_a_body_that_is_gone_waits_for_a_while_and_is_dead_then(function: Makes, world: World) -> None:
    """A role that was spoilt looks the same, and is given time to be mended."""
    policy = replace(POLICY, max_uncharged=1)
    processor = world.processor(effect)
    fn = function(replace(processor, runner=replace(processor.runner, policy=policy)), policy=policy)
    text = to_message(replace(work().event, body=None, body_key="shop/none"))

    def consume(receives: int) -> int:
        record = {
            "messageId": "1",
            "receiptHandle": "1",
            "body": text,
            "attributes": {"ApproximateReceiveCount": str(receives)},
        }
        return len(fn.consumer.consume([record])["batchItemFailures"])

    patience = policy.max_attempts + policy.max_uncharged
    assert [consume(receives) for receives in (1, patience, patience + 1)] == [1, 1, 0]
    [letter] = fn.dead()
    assert letter["MessageAttributes"]["postern-reason"]["StringValue"] == "body: NoSuchKey"
