"""However an event's handler fails, it fails alone: its mates are processed by the second invocation, and it is dead
after exactly its attempts. What a handler leaves in its session reaches nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

from chalicelib.postern.adapters.children import in_child
from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.contract.envelope import to_message
from chalicelib.postern.contract.errors import FunctionEnded
from chalicelib.postern.processing.attempts import Runner
from chalicelib.postern.processing.consume import BatchIncomplete, Consumer
from chalicelib.postern.processing.engine import Processor
from chalicelib.postern.processing.handling import Handler, PermanentError
from chalicelib.postern.processing.settling import RetryPolicy
from tests.integration.world import World, effect, now, work

POLICY = RetryPolicy(max_attempts=3, base_seconds=1, max_seconds=2, max_uncharged=2)
TIMEOUT_SECONDS = 0.25  # of the event that fails; on a busy machine its mates need longer
MATES_TIMEOUT_SECONDS = 10.0
INVOCATION_SECONDS = 60.0
MARGIN_SECONDS = 1.8
FIRST_IS_KILLED_AFTER_SECONDS = 4.0
MAX_INVOCATIONS = 12

Way = Callable[[Event, Any], object]


def raises(error: BaseException) -> Way:
    def way(event: Event, db: Any) -> None:
        raise error

    return way


def runs(*statements: str) -> Way:
    def way(event: Event, db: Any) -> None:
        for statement in statements:
            db.execute(statement)

    return way


def catches(statement: str) -> Way:
    def way(event: Event, db: Any) -> None:
        with contextlib.suppress(psycopg2.Error):
            db.execute(statement)

    return way


def an_unprintable_error(event: Event, db: Any) -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    raise Silent


def a_loop_in_python(event: Event, db: Any) -> None:
    while True:
        pass


def a_loop_that_catches_all(event: Event, db: Any) -> None:
    until = time.monotonic() + 1
    while time.monotonic() < until:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


def endless_recursion(event: Event, db: Any) -> None:
    endless_recursion(event, db)


def statements_one_after_the_other(event: Event, db: Any) -> None:
    for _ in range(20):
        db.execute("SELECT pg_sleep(0.3)")


def a_commit_past_the_guard(event: Event, db: Any) -> None:
    psycopg2.extensions.connection.commit(db.connection)
    raise ValueError("after a commit")


def a_closed_connection(event: Event, db: Any) -> None:
    psycopg2.extensions.connection.close(db.connection)


def an_error_of_another_database(event: Event, db: Any) -> None:
    other = psycopg2.connect(db.connection.dsn, password=db.connection.info.password)
    try:
        other.cursor().execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53300'; END $$")
    finally:
        other.close()


DEFERRED = (
    "INSERT INTO strict VALUES (1)",
    "INSERT INTO strict VALUES (1)",
)
FAILING: dict[str, Way] = {
    "an exception": raises(ValueError("no")),
    "an exception for good": raises(PermanentError("never")),
    "BaseException": raises(BaseException("out")),
    "SystemExit": raises(SystemExit(3)),
    "GeneratorExit": raises(GeneratorExit()),
    "CancelledError": raises(asyncio.CancelledError()),
    "MemoryError": raises(MemoryError()),
    "an error without a text": an_unprintable_error,
    "endless recursion": endless_recursion,
    "a syntax error": runs("SELEKT 1"),
    "a constraint": runs("INSERT INTO effects VALUES ('no uuid', 1)"),
    "a table that is not there": runs("SELECT * FROM nowhere"),
    "a permission": runs("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '42501'; END $$"),
    "an internal error": runs("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'XX000'; END $$"),
    "a full disk of its own": runs("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$"),
    "too many locks": runs("SELECT count(pg_advisory_xact_lock(n)) FROM generate_series(1, 200000) AS n"),
    "a lock that never comes": runs("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '55P03'; END $$"),
    "serialization": runs("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"),
    "an error that is swallowed": catches("SELECT 1/0"),
    "a deferred constraint": runs(*DEFERRED),
    "a deferred trigger's undefined column": runs("INSERT INTO watched VALUES (1)"),
    "a long statement": runs("SELECT pg_sleep(5)"),
    "many statements": statements_one_after_the_other,
    "a loop": a_loop_in_python,
    "a loop that catches all": a_loop_that_catches_all,
    "its backend": runs("SELECT pg_terminate_backend(pg_backend_pid())"),
    "its connection": a_closed_connection,
    "a commit past the guard": a_commit_past_the_guard,
    "another database's error": an_error_of_another_database,
    "a COMMIT": runs("COMMIT"),
    "a value that is none": lambda event, db: db.execute("SELECT %s", ("half\0way",)),
}


def leaves(*statements: str) -> Way:
    return runs(*statements)


LEAVING: dict[str, Way] = {
    "a search path": leaves("SET LOCAL search_path = nowhere"),
    "a search path, from a function": leaves("DO $$ BEGIN PERFORM set_config('search_path', 'nowhere', false); END $$"),
    "a tenant": leaves("SELECT set_config('app.tenant', 'red', true)"),
    "a statement timeout": leaves("SET LOCAL statement_timeout = '7s'"),
    "read only": leaves("SET TRANSACTION READ ONLY"),
    "a role": leaves("SET LOCAL ROLE pg_read_all_data"),
    "a temporary table": leaves("CREATE TEMP TABLE incoming (n integer) ON COMMIT DROP"),
    "a temporary table for good": leaves("CREATE TEMP TABLE incoming (n integer)"),
    "a prepared statement": leaves("PREPARE put AS SELECT 1"),
    "an open cursor": leaves("DECLARE c CURSOR WITH HOLD FOR SELECT 1"),
    "a session's lock": leaves("SELECT pg_advisory_lock(7)"),
    "a listen": leaves("LISTEN somebody"),
    "all constraints at once": leaves("SET CONSTRAINTS ALL IMMEDIATE"),
    "a kind of cursor": lambda event, db: setattr(db.connection, "cursor_factory", psycopg2.extras.RealDictCursor),
}


def exits(event: Event, db: Any) -> None:
    os._exit(3)


def is_killed(event: Event, db: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_a_segmentation_fault(event: Event, db: Any) -> None:
    faulthandler.disable()  # pytest's, which would print it all
    ctypes.string_at(0)


def never_returns_from_c(event: Event, db: Any) -> None:
    # As in a loop in C, no signal handler and no other thread runs; and nobody's processor is kept busy.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.PyDLL(None).sleep(1000)


ENDING: dict[str, Way] = {
    "exits": exits,
    "is killed": is_killed,
    "a segmentation fault": is_a_segmentation_fault,
}


@dataclass
class Letters:
    """A queue that remembers what it was sent."""

    sent: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def send(self, message: str, **_: Any) -> None:
        self.sent.append(json.loads(message)["id"])

    def hide(self, delays: Any) -> None:
        pass

    def delete(self, receipt_handles: Any) -> None:
        self.deleted += receipt_handles


@dataclass
class Function:
    """The processor function, invoked with what is left of one batch until nothing is."""

    world: World
    way: Way
    bad: int
    partial: bool
    forked: bool = False
    receives: dict[str, int] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)

    def handler(self, event: Event, db: Any) -> None:
        effect(event, db)
        if event.payload["n"] == self.bad:
            self.way(event, db)

    def invoke(self, texts: dict[str, str]) -> list[str]:
        """The ids of the messages that come again."""
        for id in texts:
            self.receives[id] = self.receives.get(id, 0) + 1
        records = [
            {
                "messageId": id,
                "receiptHandle": id,
                "body": text,
                "attributes": {"ApproximateReceiveCount": str(self.receives[id])},
            }
            for id, text in texts.items()
        ]
        if not self.forked:
            answer = self._consume(records)
        else:
            # Nobody has to wait for the end of the first one's time, which some never come back from.
            seconds = INVOCATION_SECONDS if max(self.receives.values()) > 1 else FIRST_IS_KILLED_AFTER_SECONDS
            try:
                answer = json.loads(in_child(lambda: json.dumps(self._consume(records)).encode(), seconds))
            except FunctionEnded:
                answer = {"again": list(texts), "dead": []}
        self.dead += answer["dead"]
        again: list[str] = answer["again"]
        return again

    def _consume(self, records: list[dict[str, Any]]) -> dict[str, list[str]]:
        queue, letters = Letters(), Letters()
        database = self.world.database()
        bad = Handler("shop", "bad", self.handler, timeout=TIMEOUT_SECONDS)
        good = Handler("shop", "good", self.handler, timeout=MATES_TIMEOUT_SECONDS)
        runner = Runner([bad, good], POLICY, now, MATES_TIMEOUT_SECONDS)
        consumer = Consumer(
            processor=lambda: Processor(EventStore(database), runner, in_child, MARGIN_SECONDS),
            keep=EventStore(database).keep,
            queue=queue,
            dead_letters=letters,
            bodies=None,  # type: ignore[arg-type]
            policy=POLICY,
            partial_responses=self.partial,
            sources={"shop"},
            random=lambda: 1.0,
            now=now,
            log=lambda name, /, **fields: None,
        )
        until = time.monotonic() + INVOCATION_SECONDS
        try:
            answer = consumer.consume(records, lambda: until - time.monotonic())
            again = [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]
        except BatchIncomplete:
            again = [record["messageId"] for record in records if record["messageId"] not in queue.deleted]
        finally:
            database.close()
        return {"again": again, "dead": letters.sent}


def drain(function: Function, expected: str) -> None:
    world = function.world
    batch = [work(body=b'{"n": %d}' % n, type="bad" if n == function.bad else "good") for n in range(10)]
    world.query("CREATE TABLE strict (n integer UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    world.query(
        "CREATE TABLE watched (n integer);"
        "CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM NEW.nothing; RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER watch AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION watch()"
    )
    texts = {str(item.event.id): to_message(item.event) for item in batch}
    bad = str(batch[function.bad].event.id)
    left = list(texts)
    for number in range(1, MAX_INVOCATIONS):
        left = function.invoke({id: texts[id] for id in left})
        if number == 2:
            assert set(left) <= {bad}
        if not left:
            break
    assert left == []
    statuses = dict(world.query("SELECT id::text, status FROM postern.events"))
    mates = set(texts) - {bad}
    assert {id: status for id, status in statuses.items() if id != bad} == dict.fromkeys(mates, "processed")
    assert statuses[bad] == expected
    effects = dict(world.query("SELECT event::text, count(*) FROM effects GROUP BY event"))
    assert {id: n for id, n in effects.items() if id != bad} == dict.fromkeys(mates, 1)
    assert world.query("SELECT count(*) FROM postern.dedup_keys") == [(10,)]
    tries = world.query("SELECT count(*) FROM postern.attempts WHERE event_id = %s AND outcome <> 'processed'", bad)
    if expected == "dead":
        permanent = function.way is FAILING["an exception for good"]
        assert tries == [(1 if permanent else 3,)]
        assert function.dead == [bad]
        assert bad not in effects
    else:
        assert (tries, function.dead, effects[bad]) == ([(0,)], [], 1)


places = pytest.mark.parametrize("bad", [0, 5, 9], ids=["first", "middle", "last"])
modes = pytest.mark.parametrize("partial", [True, False], ids=["partial", "safe"])


@modes
@places
@pytest.mark.parametrize("way", FAILING)
def test_what_fails_fails_alone(world: World, way: str, bad: int, partial: bool) -> None:
    drain(Function(world, FAILING[way], bad, partial), "dead")


@places
@pytest.mark.parametrize("way", LEAVING)
def test_what_is_left_behind_reaches_nobody_else(world: World, way: str, bad: int) -> None:
    seen = Function(world, LEAVING[way], bad, partial=True)
    drain(seen, "processed")


@modes
@places
@pytest.mark.parametrize("way", ENDING)
def test_what_ends_the_function_is_singled_out(world: World, way: str, bad: int, partial: bool) -> None:
    drain(Function(world, ENDING[way], bad, partial, forked=True), "dead")


@pytest.mark.parametrize(("bad", "partial"), [(0, True), (5, False), (9, True)])
def test_c_code_that_never_returns_is_singled_out(world: World, bad: int, partial: bool) -> None:
    drain(Function(world, never_returns_from_c, bad, partial, forked=True), "dead")
