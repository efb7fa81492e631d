"""The processor against a model: whatever is delivered, repeated, killed, replayed, redriven or cut short, in whatever
order, each event has its effect once, and nothing is lost.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import psycopg2
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.contract.envelope import Replay
from chalicelib.postern.processing.attempts import Runner, Work
from chalicelib.postern.processing.engine import Processor
from chalicelib.postern.processing.handling import Handler, PermanentError
from chalicelib.postern.processing.settling import Again, Bury, Done, Kind, RetryPolicy, settle
from chalicelib.postern.processing.turns import Job, ReplayRequest, key_of
from tests.integration.world import World, effect, now, work

POLICY = RetryPolicy(max_attempts=3, base_seconds=1, max_seconds=1, max_uncharged=2)
EXAMPLES, STEPS = 40, 50  # 2,000 steps

BEHAVIOURS = ["works", "works", "works", "raises", "gives up", "loses its connection", "finds a lock taken", "sets"]


@dataclass
class Fate:
    """What the model knows of one dedup key."""

    behaviour: str = "works"
    effects: int = 0


class Inbox(RuleBasedStateMachine):
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.connection = psycopg2.connect(self.world.url)
        self.connection.autocommit = True
        self.query(
            "TRUNCATE postern.events, postern.dedup_keys, postern.duplicates, postern.attempts, postern.issues, "
            "postern.replays, postern.replay_items, postern.open_tries, effects"
        )
        self.fates: dict[str, Fate] = {}
        self.accepted: dict[UUID, str] = {}
        self.queue: list[Job] = []
        self.letters: list[Work] = []
        self.purged: set[UUID] = set()
        self.left = 60.0
        self.database = self.world.database()

    def teardown(self) -> None:
        self.database.close()
        self.connection.close()

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return cursor.fetchall() if cursor.description else []

    def handle(self, event: Event, db: Any) -> None:
        effect(event, db)
        behaviour = self.fates[event.dedup_key].behaviour
        if behaviour == "raises":
            raise ValueError("no")
        if behaviour == "gives up":
            raise PermanentError("never")
        if behaviour == "loses its connection":
            db.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        if behaviour == "finds a lock taken":
            db.execute("DO $$ BEGIN RAISE EXCEPTION 'busy' USING ERRCODE = '55P03'; END $$")
        if behaviour == "sets":
            db.execute("SET LOCAL search_path = nowhere")

    def processor(self, database: Database) -> Processor:
        return Processor(EventStore(database), Runner([Handler("shop", "*", self.handle)], POLICY, now, 10))

    # What happens

    @rule(behaviour=st.sampled_from(BEHAVIOURS))
    def deliver(self, behaviour: str) -> None:
        key = f"k{len(self.fates)}"
        self.fates[key] = Fate(behaviour)
        self._accept(key)

    @precondition(lambda self: self.fates)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        self._accept(data.draw(st.sampled_from(sorted(self.fates))))

    def _accept(self, key: str) -> None:
        item = replace(work(key, body=json.dumps({"n": len(self.accepted)}).encode()), receives=0)
        self.accepted[item.event.id] = key
        self.queue.append(item)

    @precondition(lambda self: self.queue)
    @rule(data=st.data(), twice=st.booleans(), seconds=st.sampled_from([60.0, 60.0, 60.0, 4.5, 3.5]))
    def invoke(self, data: st.DataObject, twice: bool, seconds: float) -> None:
        """With `twice`, SQS brings what is done once more."""
        batch = self._batch(data)
        outcomes = self.processor(self.database).process(batch, lambda: seconds)
        assert set(outcomes) == {key_of(message) for message in batch}
        for message in batch:
            outcome = outcomes[key_of(message)]
            id = message.event.id if isinstance(message, Work) else message.replay.id
            if outcome.kind in (Kind.PROCESSED, Kind.REPLAYED):
                self.fates[self.accepted[id]].effects += 1
            decision = settle(outcome, message.receives, POLICY, lambda: 1.0)
            if isinstance(decision, Bury):
                assert isinstance(message, Work)
                self.letters.append(replace(message, attempts_before=decision.attempts, receives=0))
            if isinstance(decision, Again) or (twice and isinstance(decision, Done) and isinstance(message, Work)):
                self.queue.append(message)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def invoke_while_the_database_is_away(self, data: st.DataObject) -> None:
        batch = self._batch(data)
        away = self.processor(Database(lambda fresh: "postgresql://nobody@127.0.0.1:1/none"))
        assert {(o.kind, o.attempts) for o in away.process(batch).values()} == {(Kind.RETRY, 0)}
        self.queue += batch

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def the_function_is_killed(self, data: st.DataObject) -> None:
        """Before it commits: all of the batch comes again, received once more."""
        self.queue += self._batch(data)

    def _batch(self, data: st.DataObject) -> list[Job]:
        size = data.draw(st.integers(1, min(10, len(self.queue))))
        batch = [replace(message, receives=message.receives + 1) for message in self.queue[:size]]
        del self.queue[:size]
        return batch

    @precondition(lambda self: self.fates)
    @rule(data=st.data(), behaviour=st.sampled_from(BEHAVIOURS))
    def change_the_handler(self, data: st.DataObject, behaviour: str) -> None:
        self.fates[data.draw(st.sampled_from(sorted(self.fates)))].behaviour = behaviour

    @precondition(lambda self: self.letters)
    @rule()
    def redrive(self) -> None:
        self.queue.append(self.letters.pop(0))

    @precondition(lambda self: self.letters)
    @rule()
    def purge(self) -> None:
        self.purged.add(self.letters.pop(0).event.id)

    @rule()
    def replay(self) -> None:
        found = self.query("SELECT id FROM postern.events ORDER BY random() LIMIT 1")
        if found:
            id, replay_id = UUID(str(found[0][0])), uuid4()
            self.query(
                "INSERT INTO postern.replays (id, kind, trigger, filter, total, rate)"
                " VALUES (%s, 'replay', 'replay', '{}', 1, 1)",
                str(replay_id),
            )
            self.query(
                "INSERT INTO postern.replay_items (replay_id, event_id, state) VALUES (%s, %s, 'queued')",
                str(replay_id),
                str(id),
            )
            self.queue.append(ReplayRequest(Replay(id, "shop", "order", replay_id), receives=0))

    # What has to be so

    @invariant()
    def keys_have_their_events(self) -> None:
        assert self.query(
            "SELECT count(*) FROM postern.dedup_keys AS held FULL JOIN postern.events ON events.id = held.event_id"
            " WHERE held.event_id IS NULL OR events.id IS NULL"
        ) == [(0,)]

    @invariant()
    def effects_are_counted_once(self) -> None:
        counted = Counter(self.accepted[UUID(str(id))] for (id,) in self.query("SELECT event FROM effects"))
        assert counted == Counter({key: fate.effects for key, fate in self.fates.items() if fate.effects})

    @invariant()
    def nothing_is_lost(self) -> None:
        stored = {UUID(str(id)) for (id,) in self.query("SELECT id FROM postern.events")}
        repeated = {UUID(str(id)) for (id,) in self.query("SELECT id FROM postern.duplicates")}
        waiting = {m.event.id for m in [*self.queue, *self.letters] if isinstance(m, Work)}
        assert set(self.accepted) <= stored | repeated | waiting | self.purged

    @invariant()
    def what_failed_comes_again_and_what_is_dead_lies_among_the_letters(self) -> None:
        waiting = {m.event.id for m in self.queue if isinstance(m, Work)}
        lettered = {work.event.id for work in self.letters} | self.purged
        for id, status in self.query("SELECT id, status FROM postern.events WHERE status IN ('failed', 'dead')"):
            assert UUID(str(id)) in (waiting if status == "failed" else waiting | lettered)


def test_the_processor_does_what_the_model_says(world: World) -> None:
    machine = type("OnThisDatabase", (Inbox,), {"world": world})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
