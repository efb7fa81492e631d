"""Replays of stored events, redrives and purges of dead letters, issues: nothing is stuck without a way out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest

from chalicelib.postern.adapters.children import in_child
from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.adapters.s3 import S3Bodies
from chalicelib.postern.adapters.sqs import SqsQueue
from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.contract.envelope import to_message
from chalicelib.postern.contract.errors import QueueUnavailable, UnknownAction
from chalicelib.postern.operating.dead_letters import DeadLetters
from chalicelib.postern.operating.events import actions as events
from chalicelib.postern.operating.events.queries import Events
from chalicelib.postern.operating.issues import actions as issues
from chalicelib.postern.operating.issues.queries import Issues
from chalicelib.postern.operating.operator import Operator
from chalicelib.postern.operating.replays import actions as replays
from chalicelib.postern.operating.replays.queries import ReplayStore
from chalicelib.postern.processing.attempts import Work
from chalicelib.postern.processing.consume import Consumer
from chalicelib.postern.processing.handling import Handler, PermanentError
from chalicelib.postern.processing.settling import Kind
from chalicelib.postern.processing.turns import ReplayRequest, key_of
from devstack.aws import Resources
from devstack.event_source import event_of
from tests.integration.world import POLICY, World, effect, now, numbered, work
from tests.support import eventually


@dataclass
class Stage:
    """The processor and the operator of one installation, on the emulated queues, a turn at a time."""

    world: World
    resources: Resources
    sqs: Any
    handlers: list[Callable[[Event, Any], object]]
    lines: list[dict[str, Any]] = field(default_factory=list)

    def operator(self) -> Operator:
        database = self.world.database()
        store = ReplayStore(database)
        stored, grouped = Events(database), Issues(database)

        def queue() -> SqsQueue:
            return SqsQueue(self.resources.queue_url)

        def letters() -> SqsQueue:
            return SqsQueue(self.resources.dead_letter_queue_url)

        return Operator(
            {
                **events.views(stored),
                **issues.views(grouped),
                **issues.actions(grouped),
                **replays.views(store),
                **replays.actions(store, queue, now),
                **DeadLetters(queue, letters, stored, store, now).actions(),
            },
            {},
        )

    def ask(self, action: str, **arguments: Any) -> dict[str, Any]:
        return self.operator().perform({"action": action, **arguments})

    def consumer(self) -> Consumer:
        processor = self.world.processor(*self.handlers)
        return Consumer(
            processor=lambda: processor,
            keep=EventStore(self.world.database()).keep,
            queue=SqsQueue(self.resources.queue_url),
            dead_letters=SqsQueue(self.resources.dead_letter_queue_url),
            bodies=S3Bodies(self.resources.bodies_bucket),
            policy=POLICY,
            partial_responses=True,
            sources={"shop"},
            random=lambda: 1.0,
            now=now,
            log=lambda name, /, **fields: self.lines.append({"name": name, **fields}),
        )

    def send(self, *works: Work) -> None:
        for item in works:
            self.sqs.send_message(QueueUrl=self.resources.queue_url, MessageBody=to_message(item.event))

    def turn(self) -> list[str]:
        """What became of a batch; whatever has to come again comes at once."""
        messages = self.sqs.receive_message(
            QueueUrl=self.resources.queue_url,
            MaxNumberOfMessages=10,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        ).get("Messages", [])
        if not messages:
            return []
        before = len(self.lines)
        records = event_of(messages, "arn:aws:sqs:us-east-1:000000000000:q")["Records"]
        failed = {each["itemIdentifier"] for each in self.consumer().consume(records)["batchItemFailures"]}
        for message in messages:
            handle = {"QueueUrl": self.resources.queue_url, "ReceiptHandle": message["ReceiptHandle"]}
            if message["MessageId"] in failed:
                self.sqs.change_message_visibility(**handle, VisibilityTimeout=0)
            else:
                self.sqs.delete_message(**handle)
        return [line["name"] for line in self.lines[before:] if line["name"].startswith("event.")]

    def drain(self) -> list[str]:
        """Turns until there is nothing left."""
        names: list[str] = []
        while turned := self.turn():
            names += turned
        return names

    def dead(self) -> int:
        return SqsQueue(self.resources.dead_letter_queue_url).waiting()


@pytest.fixture
def stage(world: World, resources: Resources, point_aws_at: Callable[..., None]) -> Iterator[Stage]:
    from chalicelib.postern.adapters import aws

    yield Stage(world, resources, aws.sqs(), [])


def poisoned(event: Event, db: Any) -> None:
    effect(event, db)
    if event.payload["n"] < 0:
        raise PermanentError("below nothing")


def of(stage: Stage, id: UUID) -> tuple[str, int, bool]:
    [(status, attempts, clean)] = stage.world.query(
        "SELECT status, attempts, error IS NULL FROM postern.events WHERE id = %s", str(id)
    )
    return status, attempts, clean


def triggers(stage: Stage, id: UUID) -> list[tuple[str, str]]:
    return stage.world.query("SELECT trigger, outcome FROM postern.tries WHERE event_id = %s ORDER BY number", str(id))  # type: ignore[return-value]


# One event


def test_an_event_is_replayed_through_todays_handlers_and_knows_it(stage: Stage) -> None:
    item = work()
    stage.send(item)
    stage.drain()
    seen: list[tuple[bool, int, Any]] = []
    stage.handlers = [lambda event, db: seen.append((event.replayed, event.attempt, event.payload))]
    started = stage.ask("start_replay", ids=[str(item.event.id)])["replay"]
    assert (started["trigger"], started["total"], started["state"]) == ("replay", 1, "running")
    stage.ask("advance_replay", id=started["id"])
    assert stage.drain() == ["event.replayed"]
    assert seen == [(True, 2, {"n": 1})]
    assert of(stage, item.event.id) == ("processed", 2, True)
    assert triggers(stage, item.event.id) == [("first", "processed"), ("replay", "processed")]
    done = stage.ask("show_replay", id=started["id"])["replay"]
    assert (done["state"], done["states"]) == ("done", {"processed": 1})


def replayed(stage: Stage, *ids: UUID, **filters: Any) -> dict[str, Any]:
    asked = {"ids": [str(id) for id in ids]} if ids else filters
    id = stage.ask("start_replay", **asked)["replay"]["id"]
    while (found := stage.ask("advance_replay", id=id)["replay"])["state"] == "running":
        stage.drain()
    return found


def test_a_replay_whose_message_comes_twice_is_done_once(stage: Stage) -> None:
    item = work()
    stage.send(item)
    stage.drain()
    stage.handlers = [effect]
    found = replayed(stage, item.event.id)
    stage.sqs.send_message(
        QueueUrl=stage.resources.queue_url,
        MessageBody=json.dumps(
            {"v": 1, "replay": found["id"], "id": str(item.event.id), "source": "shop", "type": "t"},
            separators=(",", ":"),
        ),
    )
    assert stage.drain() == ["event.replay_skipped"]
    assert stage.world.effects() == 1


def test_a_replay_that_fails_is_tried_again_and_leaves_a_processed_event_processed(stage: Stage) -> None:
    def refuse(event: Event, db: Any) -> None:
        effect(event, db)
        raise ValueError("not today")

    item = work()
    stage.send(item)
    stage.drain()
    stage.handlers = [refuse]
    found = replayed(stage, item.event.id)
    assert found["states"] == {"failed": 1}
    assert found["failures"] == [{"id": str(item.event.id), "tries": 3, "error": "ValueError: not today"}]
    assert of(stage, item.event.id) == ("processed", 4, True)
    assert stage.world.effects() == 0
    assert stage.dead() == 0
    assert triggers(stage, item.event.id) == [("first", "processed"), *[("replay", "failed")] * 3]


def test_a_dead_event_is_processed_by_its_replay_and_its_letter_swept(stage: Stage) -> None:
    [item] = numbered(-1)
    stage.handlers = [poisoned]
    stage.send(item)
    stage.drain()
    assert of(stage, item.event.id) == ("dead", 1, False)
    stage.handlers = [effect]
    replayed(stage, item.event.id)
    assert of(stage, item.event.id) == ("processed", 2, True)
    assert stage.world.effects() == 1
    assert stage.ask("sweep_dead_letters", most=100)["deleted"] == 1
    assert stage.dead() == 0


def test_a_letter_that_is_redriven_after_a_replay_changes_nothing(stage: Stage) -> None:
    [item] = numbered(-1)
    stage.handlers = [poisoned]
    stage.send(item)
    stage.drain()
    stage.handlers = [effect]
    replayed(stage, item.event.id)
    redriven(stage)
    assert stage.drain() == ["event.already_processed"]
    assert stage.world.effects() == 1


def test_an_older_event_that_is_replayed_does_not_regress_its_entity(stage: Stage) -> None:
    from chalicelib.postern.processing.handling import Handler

    handler = Handler("shop", "*", effect, entity=lambda e: "one", version=lambda e: e.payload["n"])
    batch = numbered(1, 2)
    processor = stage.world.processor(handlers=[handler])
    processor.process(batch)
    id = UUID(stage.ask("start_replay", ids=[str(batch[0].event.id)])["replay"]["id"])
    with ReplayStore(stage.world.database()).advancing(id) as step:
        assert step is not None
        [message] = step.take(10)
    [outcome] = processor.process([ReplayRequest(message)]).values()
    assert outcome.kind == "replayed"
    assert of(stage, batch[0].event.id) == ("stale", 2, True)
    assert stage.world.effects() == 2


def test_replaying_what_was_dropped_meanwhile_says_so(stage: Stage) -> None:
    item = work()
    stage.send(item)
    stage.drain()
    id = stage.ask("start_replay", ids=[str(item.event.id)])["replay"]["id"]
    stage.world.query("DELETE FROM postern.events")
    stage.ask("advance_replay", id=id)
    assert stage.drain() == ["event.replay_skipped"]
    assert stage.ask("show_replay", id=id)["replay"]["states"] == {"gone": 1}


def test_replaying_what_never_was_is_a_replay_of_nothing(stage: Stage) -> None:
    found = stage.ask("start_replay", ids=[str(uuid4())])["replay"]
    assert (found["total"], found["state"]) == (0, "done")


# All that match


def test_a_replay_is_planned_first(stage: Stage) -> None:
    stage.handlers = [poisoned]
    stage.send(*numbered(1, -2, -3))
    stage.drain()
    plan = stage.ask("plan_replay", status=["dead"])
    assert (plan["count"], plan["by_status"]) == (2, {"dead": 2})
    assert {each["error"] for each in plan["sample"]} == {"PermanentError: below nothing"}
    assert stage.ask("plan_replay")["count"] == 3
    assert stage.world.query("SELECT count(*) FROM postern.replays") == [(0,)]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"source": "shop"}, 3),
        ({"source": "market"}, 0),
        ({"type": "order"}, 3),
        ({"contains": {"n": -2}}, 1),
        ({"contains": {"n": 7}}, 0),
        ({"status": ["dead", "failed"]}, 2),
        ({"since": "2020-01-01T00:00:00Z"}, 3),
        ({"since": "2120-01-01T00:00:00Z"}, 0),
        ({"until": "2020-01-01T00:00:00+02:00"}, 0),
    ],
)
def test_filters_say_which(stage: Stage, filters: dict[str, Any], expected: int) -> None:
    stage.handlers = [poisoned]
    stage.send(*numbered(1, -2, -3))
    stage.drain()
    assert stage.ask("plan_replay", **filters)["count"] == expected
    assert len(stage.ask("events", **filters)["events"]) == expected


def test_all_of_an_issue_are_retried(stage: Stage) -> None:
    stage.handlers = [poisoned]
    batch = numbered(1, -2, -3)
    stage.send(*batch)
    stage.drain()
    [issue] = stage.ask("issues")["issues"]
    assert (issue["count"], issue["state"], issue["message"]) == (2, "open", "below nothing")
    stage.handlers = [effect]
    found = replayed(stage, issue=issue["id"], status=["failed", "dead"])
    assert (found["trigger"], found["states"]) == ("bulk", {"processed": 2})
    assert stage.world.effects() == 3
    assert stage.ask("show_issue", id=issue["id"][:6])["issue"]["events"] == {"processed": 2}
    assert stage.ask("set_issue", id=issue["id"], state="resolved")["issue"]["state"] == "resolved"
    assert stage.ask("issues", state="open")["issues"] == []


def test_an_issue_that_nobody_knows_is_said(stage: Stage) -> None:
    with pytest.raises(UnknownAction, match="There is no issue 'abcdef'"):
        stage.ask("show_issue", id="abcdef")


def test_a_replay_goes_no_faster_than_asked_for(stage: Stage) -> None:
    stage.send(*(work() for _ in range(30)))
    stage.drain()
    id = stage.ask("start_replay", source="shop", rate=2)["replay"]["id"]
    found = stage.ask("advance_replay", id=id)["replay"]
    assert found["states"]["waiting"] >= 20
    assert found["moved"] <= 10


def test_a_bulk_replay_waits_for_another_one_to_end(stage: Stage) -> None:
    stage.send(work())
    stage.drain()
    first = stage.ask("start_replay", source="shop")["replay"]["id"]
    with pytest.raises(UnknownAction, match=f"Replay {first} is still running"):
        stage.ask("start_replay", source="shop")
    stage.ask("cancel_replay", id=first)
    stage.ask("start_replay", source="shop")


def test_a_cancelled_replay_does_no_more(stage: Stage) -> None:
    stage.send(*(work() for _ in range(5)))
    stage.drain()
    stage.handlers = [effect]
    id = stage.ask("start_replay", source="shop", rate=3)["replay"]["id"]
    stage.ask("advance_replay", id=id)
    cancelled = stage.ask("cancel_replay", id=id)
    assert (cancelled["cancelled"], cancelled["replay"]["state"]) == (True, "cancelled")
    assert set(stage.drain()) <= {"event.replay_skipped"}
    assert stage.world.effects() == 0
    assert stage.ask("show_replay", id=id)["replay"]["states"] == {"cancelled": 5}
    assert stage.ask("advance_replay", id=id)["replay"]["moved"] == cancelled["replay"]["moved"]
    assert stage.ask("cancel_replay", id=id)["cancelled"] is False


def test_live_events_come_before_a_replays(stage: Stage) -> None:
    stage.send(work())
    stage.drain()

    class Busy:
        def waiting(self) -> int:
            return 10_000

        def send_all(self, *arguments: object, **options: object) -> None:
            raise AssertionError("it must not be sent")

    store = ReplayStore(stage.world.database())
    operator = Operator(replays.views(store) | replays.actions(store, Busy, now), {})
    id = operator.perform({"action": "start_replay", "source": "shop"})["replay"]["id"]
    answer = operator.perform({"action": "advance_replay", "id": id})
    assert (answer["held"], answer["replay"]["states"]) == ("live events come first", {"waiting": 1})


def test_what_could_not_be_sent_is_not_taken_for_sent(stage: Stage) -> None:
    stage.send(work())
    stage.drain()

    class Away:
        def waiting(self) -> int:
            return 0

        def send_all(self, *arguments: object, **options: object) -> None:
            raise QueueUnavailable("away")

    operator = Operator(replays.actions(ReplayStore(stage.world.database()), Away, now), {})
    id = operator.perform({"action": "start_replay", "source": "shop"})["replay"]["id"]
    with pytest.raises(QueueUnavailable):
        operator.perform({"action": "advance_replay", "id": id})
    assert stage.ask("show_replay", id=id)["replay"]["states"] == {"waiting": 1}
    stage.ask("advance_replay", id=id)
    assert stage.drain() == ["event.replayed"]


def test_a_form_is_replayed_as_a_form(stage: Stage) -> None:
    item = work(body=b"a=1&b=two")
    item = replace(item, event=replace(item.event, format="form"))
    stage.send(item)
    stage.drain()
    seen: list[Any] = []
    stage.handlers = [lambda event, db: seen.append((event.payload, event.body))]
    replayed(stage, item.event.id)
    assert seen == [({"a": "1", "b": "two"}, b"a=1&b=two")]


# Dead letters


def redriven(stage: Stage, **asked: Any) -> dict[str, Any]:
    id = stage.ask("start_redrive", rate=1000, **asked)["replay"]["id"]
    return eventually(lambda: (found := stage.ask("advance_redrive", id=id)["replay"])["state"] == "done" and found)  # type: ignore[no-any-return]


def test_dead_letters_are_redriven_to_success_after_the_fix(stage: Stage) -> None:
    stage.handlers = [poisoned]
    batch = numbered(1, -2, -3, -4)
    stage.send(*batch)
    stage.drain()
    assert stage.dead() == 3
    stage.handlers = [effect]
    assert redriven(stage)["moved"] == 3
    assert sorted(stage.drain()) == ["event.processed"] * 3
    assert stage.world.effects() == 4
    assert stage.dead() == 0
    assert triggers(stage, batch[1].event.id) == [("first", "dead"), ("redrive", "processed")]


def test_dead_letters_can_be_looked_at_and_are_there_afterwards(stage: Stage) -> None:
    stage.handlers = [poisoned]
    [item] = numbered(-1)
    stage.send(item)
    stage.drain()
    stage.sqs.send_message(QueueUrl=stage.resources.dead_letter_queue_url, MessageBody="garbage")
    for _ in range(2):
        found = stage.ask("dead_letters")
        assert found["waiting"] == 2
        letters = {letter["id"]: letter for letter in found["letters"]}
        assert letters[str(item.event.id)]["reason"] == "PermanentError: below nothing"
        assert letters[str(item.event.id)]["status"] == "dead"
        assert letters[None]["readable"] is False


def test_only_so_many_are_redriven_and_only_those_that_are_meant(stage: Stage) -> None:
    stage.handlers = [poisoned]
    batch = numbered(-1, -2, -3)
    refund = work(type="refund", body=b'{"n": -4}')
    stage.send(*batch, refund)
    stage.drain()
    stage.handlers = [effect]
    assert redriven(stage, type="refund")["moved"] == 1
    assert stage.drain() == ["event.processed"]
    assert of(stage, refund.event.id)[0] == "processed"
    assert redriven(stage, most=2)["moved"] == 2
    assert stage.drain() == ["event.processed"] * 2
    eventually(lambda: stage.dead() == 1)


def test_a_second_redrive_while_one_runs_is_refused_with_a_sentence(stage: Stage) -> None:
    stage.handlers = [poisoned]
    stage.send(*numbered(-1, -2))
    stage.drain()
    first = stage.ask("start_redrive")["replay"]["id"]
    with pytest.raises(UnknownAction, match=f"Redrive {first} is still running"):
        stage.ask("start_redrive")
    stage.ask("cancel_replay", id=first)
    assert redriven(stage)["moved"] == 2


def test_purging_deletes_letters_and_keeps_rows(stage: Stage) -> None:
    stage.handlers = [poisoned]
    batch = numbered(-1, -2, -3)
    stage.send(*batch)
    stage.drain()
    assert stage.ask("purge_dead_letters", most=2)["deleted"] == 2
    assert stage.dead() == 1
    assert stage.world.query("SELECT count(*) FROM postern.events WHERE status = 'dead'") == [(3,)]
    stage.handlers = [effect]
    assert replayed(stage, status=["dead"])["states"] == {"processed": 3}


# What it was


def test_an_events_timeline_has_each_try(stage: Stage) -> None:
    stage.handlers = [poisoned]
    [item] = numbered(-1)
    stage.send(item)
    stage.drain()
    event = stage.ask("show", id=str(item.event.id))["event"]
    [attempt] = event["attempts_made"]
    assert (attempt["number"], attempt["trigger"], attempt["outcome"]) == (1, "first", "dead")
    assert attempt["error_class"] == "PermanentError"
    assert "in poisoned" in attempt["traceback"]
    assert attempt["issue_id"] == stage.ask("issues")["issues"][0]["id"]


@pytest.mark.parametrize(
    "request_",
    [
        {"action": "start_replay", "ids": ["not-an-id"]},
        {"action": "start_replay", "rate": 0},
        {"action": "start_replay", "status": ["lost"]},
        {"action": "plan_replay", "since": "yesterday"},
        {"action": "set_issue", "id": "abcdef", "state": "gone"},
        {"action": "set_issue", "id": "'; DROP TABLE", "state": "open"},
        {"action": "advance_replay", "id": str(UUID(int=0))},
        {"action": "start_redrive", "most": 0},
        {"action": "purge_dead_letters"},
    ],
    ids=lambda request: json.dumps(request)[:50],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(stage: Stage, request_: dict[str, Any]) -> None:
    with pytest.raises(UnknownAction):
        stage.operator().perform(request_)


def always_fails(event: Event, db: Any) -> None:
    effect(event, db)
    raise ValueError("still broken")


def test_a_redrive_after_a_failed_replay_is_tried_at_once(stage: Stage) -> None:
    [item] = numbered(1)
    stage.handlers = [always_fails]
    stage.send(item)
    stage.drain()
    assert of(stage, item.event.id) == ("dead", 3, False)
    replayed(stage, item.event.id)
    stage.drain()
    stage.handlers = [effect]
    redriven(stage)
    assert stage.drain() == ["event.processed"]
    assert (of(stage, item.event.id)[0], stage.dead()) == ("processed", 0)


def test_a_redrive_has_all_attempts_again_and_no_more(stage: Stage) -> None:
    [item] = numbered(1)
    stage.handlers = [always_fails]
    stage.send(item)
    stage.drain()
    replayed(stage, item.event.id)
    stage.drain()
    redriven(stage)
    assert stage.drain() == ["event.failed", "event.failed", "event.dead"]
    assert stage.dead() == 1


def test_a_failed_replay_leaves_the_live_attempts_alone(stage: Stage) -> None:
    """Its live message is held back meanwhile, and then has its second attempt of three."""
    [item] = numbered(1)
    stage.handlers = [always_fails]
    processor = stage.world.processor(always_fails)
    assert processor.process([item])[item.event.id].attempts == 1
    replayed(stage, item.event.id)
    stage.drain()
    outcomes = [processor.process([replace(item, receives=n)])[item.event.id].kind for n in (2, 3)]
    assert outcomes == ["retry", "dead"]


def item_states(world: World) -> list[str]:
    return [state for (state,) in world.query("SELECT state FROM postern.replay_items ORDER BY state")]


def test_a_replay_that_comes_again_has_all_the_time_that_its_handlers_may_take(world: World) -> None:
    item = work()
    world.processor().process([item])

    def slow(event: Event, db: Any) -> None:
        time.sleep(0.8)
        effect(event, db)

    processor = world.processor(handlers=[Handler("shop", "order", slow, timeout=20), Handler("other", "*", slow)])
    quick = replace(processor.runner, timeout_seconds=0.1)
    processor = replace(processor, runner=quick, isolate=in_child, margin_seconds=0.3)
    [outcome] = processor.process([world.asked_for(item, receives=2)]).values()
    assert (outcome.kind, world.effects()) == (Kind.REPLAYED, 1)


def test_a_replay_finds_an_event_whose_day_gets_its_partition_meanwhile(world: World) -> None:
    item = work()
    [(id,)] = world.query("SELECT postern.uuid7_floor('2026-01-05 12:00+00')::text")
    item = replace(item, event=replace(item.event, id=UUID(id)))
    world.processor().process([item])
    asked = world.asked_for(item)
    with closing(psycopg2.connect(world.url)) as maker, ThreadPoolExecutor(1) as pool:
        with maker.cursor() as cursor:
            cursor.execute("SELECT postern.make_partition('events', '2026-01-05')")
        replaying = pool.submit(world.processor(effect).process, [asked])
        waiting = (
            "SELECT count(*) FROM pg_locks WHERE NOT granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        eventually(lambda: world.query(waiting) == [(1,)])
        maker.commit()
        [outcome] = replaying.result().values()
    assert (outcome.kind, world.effects(), item_states(world)) == (Kind.REPLAYED, 1, ["processed"])


def test_a_replay_whose_failure_cannot_be_written_ends_all_the_same(world: World) -> None:
    """Otherwise it would run for ever, and no other of its kind could begin."""
    item = work()
    world.processor().process([item])
    world.query("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$")
    world.query("CREATE TRIGGER no BEFORE UPDATE ON postern.events FOR EACH ROW EXECUTE FUNCTION no()")
    asked = world.asked_for(item)
    kinds = [
        world.processor(effect).process([replace(asked, receives=receives)])[key_of(asked)].kind
        for receives in range(1, POLICY.max_attempts + 1)
    ]
    assert kinds == [Kind.RETRY] * (POLICY.max_attempts - 1) + [Kind.REPLAY_FAILED]
    assert item_states(world) == ["failed"]
