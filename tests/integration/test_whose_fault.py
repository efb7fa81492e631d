"""What is an event's fault, what is nobody's, and how much time there is: one event never holds up another."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import threading
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest

from chalicelib.postern.adapters.children import in_child
from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.contract.deliveries import Event
from chalicelib.postern.contract.errors import FunctionEnded
from chalicelib.postern.processing.attempts import Runner, Work
from chalicelib.postern.processing.engine import Processor, TryRecord
from chalicelib.postern.processing.handling import Handler
from chalicelib.postern.processing.settling import Kind, Outcome
from chalicelib.postern.processing.turns import key_of
from devstack.postgres import Server
from tests.chaos.proxies import FINE, DatabaseRelay
from tests.integration.world import POLICY, World, effect, fails_for, now, numbered, work


def kinds(outcomes: dict[Any, Outcome], batch: list[Work]) -> list[tuple[Kind, int]]:
    return [(outcomes[item.event.id].kind, outcomes[item.event.id].attempts) for item in batch]


class Clocked:
    """An invocation's time, which handlers use up by saying so."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def __call__(self) -> float:
        return self.left


# Whose fault


@pytest.mark.parametrize("sqlstate", ["40001", "55P03"])
def test_events_that_always_find_a_lock_taken_do_not_starve_their_mates(world: World, sqlstate: str) -> None:
    def contended(event: Event, db: Any) -> None:
        effect(event, db)
        if event.payload["n"] < 0:
            db.execute(f"DO $$ BEGIN RAISE EXCEPTION 'busy' USING ERRCODE = '{sqlstate}'; END $$")

    batch = numbered(-1, -2, *range(1, 9))
    outcomes = world.processor(contended).process(batch)
    assert kinds(outcomes, batch) == [(Kind.RETRY, 0)] * 2 + [(Kind.PROCESSED, 1)] * 8


def test_what_is_nobodys_fault_is_charged_once_it_has_happened_too_often(world: World) -> None:
    def contended(event: Event, db: Any) -> None:
        db.execute("DO $$ BEGIN RAISE EXCEPTION 'busy' USING ERRCODE = '55P03'; END $$")

    [item] = numbered(1)
    processor = world.processor(contended)
    patience = POLICY.max_attempts + POLICY.max_uncharged
    charged = []
    for receives in range(1, patience + 4):
        item = replace(item, receives=receives)
        charged.append(processor.process([item])[item.event.id])
    assert [o.attempts for o in charged] == [0] * patience + [1, 2, 3]
    assert charged[-1].kind is Kind.DEAD


def test_a_permission_that_a_trigger_lacks_for_one_event_is_that_events_own(world: World) -> None:
    """Almost any SQLSTATE once counted as an absent database."""
    world.query(
        "CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.payload ->> 'n' = '2' THEN PERFORM NEW.no_such_column; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER picky BEFORE INSERT ON postern.events FOR EACH ROW EXECUTE FUNCTION picky()"
    )
    batch = numbered(1, 2, 3)
    for receives in (1, 2, 3):
        left = [replace(item, receives=receives) for item in batch]
        outcomes = world.processor(effect).process(left)
    assert [outcomes[item.event.id].kind for item in batch] == [
        Kind.ALREADY_PROCESSED,
        Kind.DEAD,  # by its receives: not even its failure can be written
        Kind.ALREADY_PROCESSED,
    ]
    assert world.rows() == [("processed", 1)] * 2
    assert world.query("SELECT count(*) FROM postern.dedup_keys") == [(2,)]


def test_an_absent_database_is_tried_once_an_invocation(world: World) -> None:
    tried: list[bool] = []

    def nowhere(fresh: bool) -> str:
        tried.append(fresh)
        return "postgresql://nobody@127.0.0.1:1/none"

    processor = Processor(EventStore(Database(nowhere)), Runner([], POLICY, now, 10))
    outcomes = processor.process(numbered(*range(10)))
    assert {(o.kind, o.attempts) for o in outcomes.values()} == {(Kind.RETRY, 0)}
    assert len(tried) == 2  # the attempt, and the proof


@pytest.fixture
def frozen_server(tmp_path: Any) -> Any:
    server = Server(tmp_path / "postgres")
    server.start()
    yield server
    server.stop()


def test_a_database_that_freezes_under_a_handler_is_not_the_handlers_fault(frozen_server: Server) -> None:
    from chalicelib.postern.adapters.migrations import migrate

    migrate(frozen_server.url)
    world = World(frozen_server.url, [])
    processes = [psutil.Process(frozen_server.child.pid)]

    def freeze() -> None:
        everyone = [*processes, *processes[0].children(recursive=True)]
        for process in everyone:
            process.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        for process in everyone:
            process.send_signal(signal.SIGCONT)

    def slow(event: Event, db: Any) -> None:
        thread = threading.Thread(target=freeze)
        thread.start()
        try:
            db.execute("SELECT pg_sleep(0.3)")
        finally:
            thread.join()

    [item] = numbered(1)
    database = world.database()
    handlers = [Handler("shop", "*", slow, timeout=0.6)]
    outcome = world.processor(handlers=handlers, database=database).process([item])[item.event.id]
    assert (outcome.kind, outcome.attempts) == (Kind.RETRY, 0)
    assert "did not answer for" in outcome.reason
    database.close()


# Time


def test_a_handlers_time_limit_does_not_apply_to_the_insert_of_its_event(world: World) -> None:
    body = json.dumps({"n": 1, "x": base64.b64encode(os.urandom(4_300_000)).decode()}).encode()
    for limit in (0.2, 0.05):
        item = work(body=body)
        processor = world.processor(handlers=[Handler("shop", "*", lambda event, db: None, timeout=limit)])
        assert processor.process([item])[item.event.id].kind is Kind.PROCESSED


def test_entity_and_version_functions_have_a_time_limit(world: World) -> None:
    def entity(event: Event) -> str:
        time.sleep(30)
        return "x"

    processor = world.processor(handlers=[Handler("shop", "*", effect, timeout=0.3, entity=entity)])
    [item] = numbered(1)
    started = time.monotonic()
    outcome = processor.process([item])[item.event.id]
    assert time.monotonic() - started < 10
    assert (outcome.attempts, outcome.reason.partition(":")[0]) == (1, "HandlerTimeout")


def test_a_handlers_statements_together_take_no_longer_than_it_may(world: World) -> None:
    def handler(event: Event, db: Any) -> None:
        db.execute("SELECT pg_sleep(0.8)")
        db.execute("SELECT pg_sleep(30)")

    processor = world.processor(handlers=[Handler("shop", "*", handler, timeout=1)])
    [item] = numbered(1)
    started = time.monotonic()
    outcome = processor.process([item])[item.event.id]
    assert time.monotonic() - started < 10
    assert outcome.reason.startswith("HandlerTimeout: It took longer than 1 s.")


def test_a_dedup_key_is_never_committed_without_its_event(world: World) -> None:
    clock = Clocked(8.0)

    def slow(event: Event, db: Any) -> None:
        effect(event, db)
        clock.left -= 1.2

    batch = numbered(*range(6))
    processor = Processor(EventStore(world.database()), Runner([Handler("shop", "*", slow)], POLICY, now, 2))
    outcomes = processor.process(batch, clock)
    late = [item for item in batch if outcomes[item.event.id].kind is Kind.RETRY]
    assert 0 < len(late) < 6
    assert world.query("SELECT count(*) FROM postern.dedup_keys") == [(6 - len(late),)]
    # The provider delivers it once more, meanwhile.
    again = work(late[-1].event.dedup_key)
    assert world.processor(effect).process([again])[again.event.id].kind is Kind.PROCESSED


def test_an_event_whose_handlers_may_take_longer_than_there_is_runs_all_the_same(world: World) -> None:
    """Two handlers of ten seconds, and an invocation of twenty."""
    two = [Handler("shop", "two", effect), Handler("shop", "two", effect)]
    batch = [work(), work(type="two"), work(), work(type="two"), work()]
    processor = world.processor(effect, handlers=two)
    outcomes = processor.process(batch, lambda: 20.0)
    assert {outcome.kind for outcome in outcomes.values()} == {Kind.PROCESSED}


def test_whom_the_invocations_end_cuts_short_is_not_charged_unless_it_had_all_of_it(world: World) -> None:
    clock = Clocked(60.0)

    def handler(event: Event, db: Any) -> None:
        if event.payload["n"] == 1:
            clock.left = 4.5
            effect(event, db)
        else:
            time.sleep(30)

    processor = world.processor(handlers=[Handler("shop", "*", handler, timeout=20)])
    batch = numbered(1, 2)
    assert kinds(processor.process(batch, clock), batch) == [(Kind.PROCESSED, 1), (Kind.RETRY, 0)]
    outcome = processor.process(batch[1:], lambda: 4.5)[batch[1].event.id]
    assert (outcome.attempts, outcome.reason.partition(":")[0]) == (1, "HandlerTimeout")


def test_progress_is_made_though_a_commit_is_refused_and_handlers_need_most_of_the_time(world: World) -> None:
    world.query("CREATE TABLE strict (n integer UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    clock = Clocked(20.0)

    def handler(event: Event, db: Any) -> None:
        clock.left -= 2.0
        effect(event, db)
        if event.payload["n"] == 3:
            db.execute("INSERT INTO strict VALUES (1), (1)")

    left = numbered(*range(10))
    done: list[Kind] = []
    for receives in range(1, 8):
        clock.left = 20.0
        left = [replace(item, receives=receives) for item in left]
        outcomes = world.processor(handler).process(left, clock)
        done += [o.kind for o in outcomes.values() if o.kind is not Kind.RETRY]
        left = [item for item in left if outcomes[item.event.id].kind is Kind.RETRY]
    assert sorted(done) == [Kind.DEAD] + [Kind.PROCESSED] * 9
    assert world.effects() == 9


# What is whose


def test_an_unqualified_table_is_the_teams_before_it_is_posterns(world: World) -> None:
    """Also where the role is called like the schema, as here."""
    world.query("CREATE TABLE public.issues (state text); INSERT INTO public.issues VALUES ('theirs')")
    [item] = numbered(1)
    processor = world.processor(lambda event, db: db.execute("UPDATE issues SET state = 'mended'"))
    assert processor.process([item])[item.event.id].kind is Kind.PROCESSED
    assert world.query("SELECT state FROM public.issues") == [("mended",)]


def test_a_column_of_ones_own_does_not_keep_a_day_from_getting_its_partition(world: World) -> None:
    world.query(
        "ALTER TABLE postern.events ADD COLUMN customer text GENERATED ALWAYS AS (payload ->> 'customer') STORED"
    )
    world.processor(effect).process(numbered(1, 2))
    day = "(now() AT TIME ZONE 'UTC')::date"
    [(name,)] = world.query(f"SELECT 'events_' || to_char({day}, 'YYYYMMDD')")
    world.query(f"DROP TABLE postern.{name}")
    batch = [work(body=b'{"customer": "zoe"}')]
    world.processor(effect).process(batch)
    assert world.query(f"SELECT postern.make_partition('events', {day})") == [(1,)]
    [(id,)] = world.query(f"SELECT id::text FROM postern.{name}")
    assert world.query(f"SELECT postern.retire_partition('events', '{name}', ARRAY[%s]::uuid[], false)", id) == [(1,)]
    assert world.query("SELECT customer FROM postern.events") == [("zoe",)]
    world.query(f"DELETE FROM postern.events; SELECT postern.drop_retired('events', '{name}_retired', '-infinity')")
    assert world.query("SELECT customer FROM postern.events") == [("zoe",)]


def test_the_seal_holds_only_while_handlers_are_at_work(world: World) -> None:
    with pytest.raises(psycopg2.errors.InvalidTransactionTermination):
        world.query("INSERT INTO postern.seals DEFAULT VALUES")
    world.processor(effect).process(numbered(1))
    assert world.query("SELECT count(*) FROM postern.seals") == [(0,)]


# What ends the function


def isolating(world: World, *handlers: Handler) -> Processor:
    return Processor(EventStore(world.database()), Runner(handlers, POLICY, now, 1), in_child)


def test_a_replay_that_ends_the_function_is_charged_and_does_not_hold_up_others(world: World) -> None:
    [item] = numbered(1)
    world.processor(effect).process([item])
    exits = Handler("shop", "order", lambda event, db: os._exit(3))
    asked = world.asked_for(item)
    mate = work(type="mate")
    seen = []
    for receives in (2, 3, 4):
        batch = [replace(asked, receives=receives), replace(mate, receives=receives)]
        outcomes = isolating(world, exits).process(batch)
        seen.append(outcomes[key_of(asked)].kind)
    assert seen == [Kind.RETRY, Kind.RETRY, Kind.REPLAY_FAILED]
    assert world.query("SELECT state FROM postern.replay_items") == [("failed",)]
    assert sorted(world.rows()) == [("processed", 1), ("processed", 4)]


def test_an_entity_function_that_ends_the_function_is_charged_without_being_run_again(world: World) -> None:
    exits = Handler("shop", "*", effect, entity=lambda event: os._exit(3))
    item = numbered(1)[0]
    outcome = isolating(world, exits).process([replace(item, receives=2)])[item.event.id]
    assert (outcome.kind, outcome.attempts) == (Kind.RETRY, 1)
    assert "exit code 3" in outcome.reason


def test_an_open_try_that_was_left_once_is_tried_again_and_charged_the_second_time(world: World) -> None:
    """Once it may have been an outage."""
    [item] = numbered(1)
    item = replace(item, receives=5)
    store = EventStore(world.database())
    outcomes = []
    for _ in range(2):
        assert store.open_try(item.event.id, 60) is TryRecord.NOW
        outcomes.append(isolating(world, Handler("shop", "*", effect)).process([item])[item.event.id])
        world.query("UPDATE postern.open_tries SET ends_at = now()")
    assert [(o.kind, o.reason) for o in outcomes] == [(Kind.RETRY, "another function is at it")] * 2
    outcome = isolating(world, Handler("shop", "*", effect)).process([item])[item.event.id]
    assert (outcome.attempts, outcome.reason.partition(":")[0]) == (1, "FunctionEnded")
    outcome = isolating(world, Handler("shop", "*", effect)).process([item])[item.event.id]
    assert (outcome.kind, world.query("SELECT count(*) FROM postern.open_tries")) == (Kind.PROCESSED, [(0,)])


def test_who_cannot_write_its_failure_for_a_lock_is_not_charged(world: World) -> None:
    [item] = numbered(1)
    world.processor(fails_for(1)).process([item])
    with contextlib.closing(psycopg2.connect(world.url)) as other, other.cursor() as cursor:
        cursor.execute("SELECT FROM postern.events FOR UPDATE")
        outcome = world.processor(fails_for(1)).process([replace(item, receives=7)])[item.event.id]
    assert (outcome.kind, outcome.attempts) == (Kind.RETRY, 0)


def test_what_waited_for_the_database_is_processed_together_by_who_was_there(world: World) -> None:
    """Nothing is a suspect for having come in an outage; whoever was not there cannot know that."""
    url = ["postgresql://nobody:no@127.0.0.1:1/none"]
    isolated: list[float] = []

    def isolate(work: Any, seconds: float) -> bytes:
        isolated.append(seconds)
        return in_child(work, seconds)

    def container() -> Processor:
        database = Database(lambda fresh: url[0])
        world.open.append(database)
        return Processor(EventStore(database), Runner([Handler("shop", "*", effect)], POLICY, now, 10), isolate)

    there, batch = container(), numbered(*range(5))
    away = there.process(batch)
    assert {outcome.reason.partition(":")[0] for outcome in away.values()} == {"database"}
    url[0] = world.url
    again = [replace(item, receives=40) for item in batch]
    assert {outcome.kind for outcome in there.process(again[:3]).values()} == {Kind.PROCESSED}
    assert isolated == []
    assert {outcome.kind for outcome in container().process(again[3:]).values()} == {Kind.PROCESSED}
    assert len(isolated) == 2
    assert (world.effects(), len(world.rows())) == (5, 5)


def test_what_ends_the_function_after_an_outage_ends_each_container_once(world: World) -> None:
    """Its memory goes with it: the next one takes the event for what it is."""

    def exits(event: Event, db: Any) -> None:
        if event.payload["n"] == 2:
            os._exit(3)
        effect(event, db)

    batch = [replace(item, receives=2) for item in numbered(1, 2, 3)]
    handler = Handler("shop", "*", exits)

    def in_a_container_that_was_there() -> bytes:
        processing = isolating(world, handler)
        processing.outages.note()
        processing.process(batch)
        return b""

    with pytest.raises(FunctionEnded, match="exit code 3"):
        in_child(in_a_container_that_was_there, 20)
    outcomes = isolating(world, handler).process([replace(item, receives=3) for item in batch])
    assert [outcomes[item.event.id].kind for item in batch] == [Kind.PROCESSED, Kind.RETRY, Kind.PROCESSED]
    assert outcomes[batch[1].event.id].attempts == 1


def full(world: World) -> None:
    """As PostgreSQL says it; what is small still fits somewhere."""
    world.query(
        "CREATE FUNCTION public.no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;"
        "CREATE TRIGGER no_room BEFORE INSERT ON postern.events FOR EACH ROW WHEN (octet_length(NEW.body) > 5)"
        " EXECUTE FUNCTION public.no_room()"
    )


NO_ROOM = "DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"


@pytest.mark.parametrize("receives", [1, 3, 50])
@pytest.mark.parametrize("statements", [[], [NO_ROOM]], ids=["ours", "a handler's"])
def test_a_full_disk_charges_nobody_however_long_it_lasts(world: World, receives: int, statements: list[str]) -> None:
    def handle(event: Event, db: Any) -> None:
        for statement in statements:
            db.execute(statement)

    full(world)
    batch = [replace(item, receives=receives) for item in numbered(1, 2)]
    outcomes = world.processor(handle).process(batch)
    assert {(o.kind, o.attempts, o.reason.partition(":")[0]) for o in outcomes.values()} == {
        (Kind.RETRY, 0, "database")
    }
    world.query("DROP TRIGGER no_room ON postern.events")
    outcomes = world.processor(effect).process([replace(item, receives=receives + 1) for item in batch])
    assert {outcome.kind for outcome in outcomes.values()} == {Kind.PROCESSED}


def test_a_handler_that_fills_the_disk_by_itself_is_charged_for_it(world: World) -> None:
    item = numbered(1)[0]
    outcome = world.processor(lambda event, db: db.execute(NO_ROOM)).process([item])[item.event.id]
    assert (outcome.kind, outcome.attempts) == (Kind.RETRY, 1)
    assert world.rows() == [("failed", 1)]


def test_a_try_is_charged_once_though_nobody_hears_that_it_was_written(world: World) -> None:
    address = urlsplit(world.url)
    assert address.hostname is not None
    assert address.port is not None
    relay = DatabaseRelay(address.hostname, address.port)
    left = ["after", "after"]
    relay.harm = lambda: left.pop() if left else FINE
    try:
        through = world.url.replace(f":{address.port}/", f":{relay.port}/")
        [item] = numbered(1)
        outcome = World(through, world.open).processor(fails_for(1)).process([item])[item.event.id]
    finally:
        relay.close()
    assert (outcome.kind, outcome.attempts, relay.done["COMMIT after"]) == (Kind.RETRY, 1, 2)
    assert world.rows() == [("failed", 1)]
    assert world.query("SELECT count(*) FROM postern.attempts") == [(1,)]
