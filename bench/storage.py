"""What stored events cost: their room, reading them when there are many, and letting go of a day of them.

Reading is measured against itself, by turns in two databases of one server, one of 50 thousand events and one of five
million over ten days, both with the indexes and counts that maintenance keeps. A day of a million goes as maintenance
has it go, and by DELETE and VACUUM, for its room to be used again.
"""

from __future__ import annotations

import atexit
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from typing import Any

import psycopg2

from bench.processing import postgres, processor, works
from bench.turns import Line, Measured, Target, measured, timed
from chalicelib.postern.adapters.migrations import migrate
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
from chalicelib.postern.operating.counts import actions as counts
from chalicelib.postern.operating.counts.queries import Counts
from chalicelib.postern.operating.duplicates import actions as duplicates
from chalicelib.postern.operating.duplicates.queries import Duplicates
from chalicelib.postern.operating.events import actions as events
from chalicelib.postern.operating.events.queries import Events
from chalicelib.postern.operating.ledger.queries import Ledger
from chalicelib.postern.operating.operator import Operator
from chalicelib.postern.operating.quiet.queries import Hours
from chalicelib.postern.operating.status import actions as status
from chalicelib.postern.operating.status.queries import Status
from chalicelib.postern.operating.storage.actions import Retention, Upkeep
from chalicelib.postern.operating.storage.queries import Storage
from chalicelib.postern.receiving.sources import load_sources
from cli.samples import sample
from devstack.postgres import Server, administer, url_of

_FEW, _MANY = 50_000, 5_000_000
_DAYS = 10
_DAY = 1_000_000
_ASKED = 60

# The id of a moment, and chance in the rest of it.
_EVENTS = """
INSERT INTO postern.events (id, source, type, dedup_key, status, attempts, error, received_at, processed_at,
                            duration_ms, headers, payload, body, format)
SELECT id, 'shop-' || n %% 5, 'order.' || n %% 20, 'key-' || %(day)s || '-' || n,
       CASE WHEN n %% 1000 = 0 THEN 'dead' ELSE 'processed' END, 1,
       CASE WHEN n %% 1000 = 0 THEN 'ValueError: no' END, at,
       CASE WHEN n %% 1000 <> 0 THEN at + interval '200 ms' END, 2.5,
       '{"content-type": "application/json"}', payload, convert_to(payload::text, 'UTF8'), 'json'
FROM (
  SELECT n, at, (left(postern.uuid7_floor(at)::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid AS id,
         jsonb_build_object('n', n, 'customer', 'cus_' || %(day)s || '_' || n %% 20000, 'amount', n * 7 %% 9999,
                            'text', repeat(md5(n::text), 8)) AS payload
  FROM (SELECT n, %(since)s + n * (interval '1 day' / %(number)s) AS at
        FROM generate_series(0, %(number)s - 1) AS n) AS moment
) AS made
"""
_KEYS = """
INSERT INTO postern.dedup_keys (source, key, event_id, claimed_at)
SELECT source, dedup_key, id, received_at FROM postern.events
WHERE id >= postern.uuid7_floor(%(since)s) AND id < postern.uuid7_floor(%(since)s + interval '1 day')
"""


def _today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _upkeep(url: str) -> Upkeep:
    retention = Retention.of(days=90, dedup_days=180, unresolved_days=365)
    return Upkeep(
        Storage(Database(lambda fresh: url)), retention, lambda: datetime.now(UTC), time.monotonic, random.random
    )


def _fill(url: str, day: datetime, number: int) -> None:
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT postern.make_partition('events', %s)", (day.date(),))
        connection.commit()  # nobody else makes one meanwhile
        values = {"since": day, "day": day.strftime("%d"), "number": number}
        cursor.execute(_EVENTS, values)
        cursor.execute(_KEYS, values)
    connection.close()


def _fill_both(server: Server) -> None:
    """Two databases with so many events each, ended yesterday, and all that maintenance makes for them."""
    for number in (_FEW, _MANY):
        administer(server, f"CREATE DATABASE of_{number}")
        _fill_days(url_of(server, f"of_{number}"), number)


def _fill_days(url: str, number: int) -> None:
    migrate(url)
    days = [_today() - timedelta(days=back) for back in range(_DAYS, 0, -1)]
    with ThreadPoolExecutor(os.cpu_count()) as several:
        list(several.map(lambda day: _fill(url, day, number // _DAYS), days))
    upkeep = _upkeep(url)
    while upkeep.index_payloads()["payload_indexes_made"]:
        pass
    counter = counts.Counter(Counts(Database(lambda fresh: url)), time.monotonic)
    while counter.count()["hours_counted"] > 1:  # the hour that goes on is counted each time
        pass
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    connection.close()


@dataclass(frozen=True)
class _Inbox:
    """One filled database, and what is asked of it."""

    ask: Callable[[Mapping[str, Any]], Any]
    known: Sequence[Mapping[str, Any]]


@cache
def _both() -> tuple[_Inbox, _Inbox]:
    """Made once, for every line that reads."""
    stack = ExitStack()
    atexit.register(stack.close)
    server = stack.enter_context(postgres(_fill_both))
    return _inbox(url_of(server, f"of_{_FEW}")), _inbox(url_of(server, f"of_{_MANY}"))


def _inbox(url: str) -> _Inbox:
    database = Database(lambda fresh: url)
    now = _today  # when the last of them came
    sources = [f"shop-{n}" for n in range(5)]
    views = {
        **events.views(Events(database)),
        **duplicates.views(Duplicates(database)),
        **counts.views(Counts(database), now),
        **status.views(Status(database), Ledger(database), Hours(database), lambda: sources, now),
    }
    ask = Operator(views, {}).perform
    connection = psycopg2.connect(url)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id::text, source, dedup_key, payload->>'customer'"
            " FROM postern.events TABLESAMPLE BERNOULLI (1) ORDER BY random() LIMIT 2000"
        )
        found = [dict(zip(("id", "source", "key", "customer"), row, strict=True)) for row in cursor.fetchall()]
    connection.close()
    return _Inbox(ask, found)


def _lists(one: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{"action": "events", "limit": 50, "source": one["source"]}]


def _details(one: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{"action": "show", "id": one["id"]}]


def _finds(one: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{"action": "find", "key": one["key"]}]


def _searches(one: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{"action": "events", "limit": 50, "contains": {"customer": one["customer"]}}]


def _overviews(one: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{"action": "status"}, {"action": "stats", "step": "hour"}]


def _reading(questions: Callable[[Mapping[str, Any]], list[Mapping[str, Any]]], is_speed: bool) -> Measured:
    few, many = _both()
    chance = random.Random(7)  # nosec B311  # noqa: S311

    def p95(inbox: _Inbox) -> float:
        def asked(one: Mapping[str, Any]) -> float:
            return timed(lambda: [inbox.ask(question) for question in questions(one)])

        return sorted(map(asked, chance.choices(inbox.known, k=_ASKED)))[int(_ASKED * 0.95)]

    pairs = [(p95(many), p95(few)) for _ in range(6)][1:]
    return measured(pairs, is_speed=is_speed, unit="ms (p95)", scale=1000)


def _dropping(is_speed: bool) -> Measured:
    """Two days of a million each; one goes as maintenance has it go."""
    deleted, dropped = (_today() - timedelta(days=back) for back in (120, 119))

    def fill(server: Server) -> None:
        migrate(server.url)
        for day in (deleted, dropped):
            _fill(server.url, day, _DAY)
        connection = psycopg2.connect(server.url)
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "UPDATE postern.events SET status = 'processed', error = NULL, processed_at = received_at"
                " WHERE status = 'dead'"
            )
        connection.close()

    with postgres(fill) as server:
        connection = psycopg2.connect(server.url)
        span = (deleted, deleted + timedelta(days=1))

        def delete() -> None:
            with connection, connection.cursor() as cursor:
                cursor.execute(
                    "DELETE FROM postern.events WHERE id >= postern.uuid7_floor(%s) AND id < postern.uuid7_floor(%s)",
                    span,
                )

        def vacuum() -> None:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("VACUUM postern.events")

        theirs = timed(delete) + timed(vacuum)
        connection.close()
        storage = Storage(Database(lambda fresh: server.url))
        [partition] = [each for each in storage.partitions() if each.since == dropped and each.table == "events"]

        def drop() -> None:
            assert storage.retire_partition(partition, [], unresolved=False) == 0
            storage.drop_retired(datetime.now(UTC))

        return measured([(timed(drop), theirs)], is_speed=is_speed, unit="ms", scale=1000)


def _room(is_speed: bool) -> Measured:
    """Of 10,000 pushes of GitHub, of a day that is over, keys and indexes included, beside their bodies' bytes."""
    with postgres() as server:
        migrate(server.url)
        processing, day = processor(server.url), _today() - timedelta(hours=36)
        source = load_sources(SHIPPED_SOURCES)["github"]
        number = bytes_sent = 0
        for _ in range(1_000):
            body = sample(source, "push", "secret", day).body
            batch = works(10, body, at=day)
            number, bytes_sent = number + len(batch), bytes_sent + len(body) * len(batch)
            processing.process(batch)
        upkeep = _upkeep(server.url)
        upkeep.make_partitions()
        assert upkeep.index_payloads()["payload_indexes_made"] >= 1
        connection = psycopg2.connect(server.url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("VACUUM")
            cursor.execute(
                "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
                "WHERE nspname = 'postern' AND relkind = 'r'"
                " AND (relname = 'events_' || %s OR relname LIKE 'dedup_keys%%')",
                (day.strftime("%Y%m%d"),),
            )
            size = float(cursor.fetchall()[0][0])
        connection.close()
        return measured([(size / number, bytes_sent / number)], is_speed=is_speed, unit="bytes an event")


_GROWS = Target.of("<= 2")

LINES = [
    *(
        Line(
            f"read-{name}",
            f"{what}, of five million events",
            "of 50 thousand",
            _GROWS,
            partial(_reading, questions),
        )
        for name, what, questions in (
            ("list", "the newest 50 of a source", _lists),
            ("detail", "one event", _details),
            ("find", "an event by its provider's id", _finds),
            ("search", "events with a value in their payload", _searches),
            ("overview", "the overview's figures", _overviews),
        )
    ),
    Line("drop-day", "letting go of a day of a million events", "DELETE and VACUUM", Target.of(">= 100"), _dropping),
    Line("room", "a stored push of GitHub's, with its key and indexes", "its body's bytes", Target.of("<= 2"), _room),
]
