"""What processing costs beside the least that PostgreSQL could do with the same events.

Without handlers beside COPY into the same tables; with a handler that makes one upsert an event beside statements that
do as much, written by hand; the same, beside an insert and a commit for each; and with four workers whose handlers all
update the same six rows, beside one worker; a backlog; and memory. `calm` is a figure of its own.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras

from bench.ack import silent
from bench.turns import Line, Measured, Target, by_turns, measured, timed
from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.adapters.migrations import migrate
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.contract.deliveries import Event, new_event_id
from chalicelib.postern.contract.envelope import Accepted, to_message
from chalicelib.postern.processing.attempts import Runner, Work
from chalicelib.postern.processing.consume import Consumer
from chalicelib.postern.processing.engine import Processor
from chalicelib.postern.processing.handling import Handler
from chalicelib.postern.processing.settling import Kind, RetryPolicy
from chalicelib.postern.running import logs
from devstack.postgres import Server

POLICY = RetryPolicy(3, 1, 1)
_HURRIED = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "2GB",
    "maintenance_work_mem": "512MB",
    "autovacuum": "off",
    "jit": "off",
}
_HOT_ROWS = 6
_HOT_BATCHES = 400
_WORKERS = 4
_BACKLOG = 2_000
# .chalice/config.json
PROCESSOR_MEGABYTES = 512


@contextmanager
def postgres(fill: Callable[[Server], object] | None = None) -> Iterator[Server]:
    """A server of its own, durable as it is shipped, once it is filled: what nobody measures may be hurried."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "postgres"
        if fill is not None:
            hurried = Server(directory, _HURRIED)
            hurried.start()
            try:
                fill(hurried)
            finally:
                hurried.stop()
        server = Server(directory)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def database() -> Iterator[str]:
    """A migrated one, with a table for handlers."""
    with postgres() as server:
        migrate(server.url)
        connection = psycopg2.connect(server.url)
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE tallies (n integer PRIMARY KEY, times integer NOT NULL)")
        connection.close()
        yield server.url


def works(number: int, body: bytes | None = None, *, first: int = 0, at: datetime | None = None) -> list[Work]:
    """Events of an order each; `first` is the first one's number."""
    at = at or datetime.now(UTC)
    made = []
    for n in range(first, first + number):
        content = body or json.dumps({"type": "order", "n": n, "padding": "x" * 800}).encode()
        id = new_event_id(at)
        event = Accepted(id, "shop", "order", str(id), at, {"content-type": "application/json"}, content)
        made.append(Work(event, content))
    return made


def upsert(event: Event, db: Any) -> None:
    db.execute(
        "INSERT INTO tallies (n, times) VALUES (%s, 1) ON CONFLICT (n) DO UPDATE SET times = tallies.times + 1",
        (event.payload["n"],),
    )


def hot(event: Event, db: Any) -> None:
    db.execute("UPDATE tallies SET times = times + 1 WHERE n = %s", (event.payload["n"] % _HOT_ROWS,))


def processor(url: str, *functions: Callable[[Event, Any], object]) -> Processor:
    handlers = [Handler("shop", "*", function) for function in functions]
    runner = Runner(handlers, POLICY, lambda: datetime.now(UTC), 10)
    return Processor(EventStore(Database(lambda fresh: url)), runner)


# By hand


def by_copy(connection: Any, batch: Sequence[Work]) -> None:
    """Keys and events, as COPY takes them."""
    keys, events = io.StringIO(), io.StringIO()
    for work in batch:
        event = work.event
        keys.write(f"{event.source}\t{event.dedup_key}\t{event.id}\n")
        text = work.body.decode().replace("\\", "\\\\")
        at = event.received_at.isoformat()
        fields = [event.id, event.source, event.type, event.dedup_key, "processed", 1, at, at, "{}", text]
        events.write("\t".join(map(str, fields)) + f"\t\\\\x{work.body.hex()}\n")
    keys.seek(0)
    events.seek(0)
    with connection.cursor() as cursor:
        cursor.copy_expert("COPY postern.dedup_keys (source, key, event_id) FROM STDIN", keys)
        cursor.copy_expert(
            "COPY postern.events (id, source, type, dedup_key, status, attempts, received_at, processed_at, headers, "
            "payload, body) FROM STDIN",
            events,
        )
    connection.commit()


def by_hand(connection: Any, batch: Sequence[Work]) -> None:
    """What a careful engineer would write: one insert of all keys, one of all events, an upsert each."""
    with connection.cursor() as cursor:
        psycopg2.extras.execute_values(
            cursor,
            "INSERT INTO postern.dedup_keys (source, key, event_id) VALUES %s "
            "ON CONFLICT DO NOTHING RETURNING event_id",
            [(w.event.source, w.event.dedup_key, str(w.event.id)) for w in batch],
            page_size=len(batch),
        )
        for work in batch:
            cursor.execute(
                "INSERT INTO tallies (n, times) VALUES (%s, 1) ON CONFLICT (n) DO UPDATE SET times = tallies.times + 1",
                (json.loads(work.body)["n"],),
            )
        psycopg2.extras.execute_values(
            cursor,
            "INSERT INTO postern.events (id, source, type, dedup_key, status, attempts, received_at, processed_at, "
            "headers, payload, body) VALUES %s",
            [
                (
                    str(w.event.id), w.event.source, w.event.type, w.event.dedup_key, "processed", 1,
                    w.event.received_at, w.event.received_at, "{}", w.body.decode(), psycopg2.Binary(w.body),
                )
                for w in batch
            ],
            page_size=len(batch),
        )  # fmt: skip
    connection.commit()


def one_by_one(connection: Any, batch: Sequence[Work]) -> None:
    """An insert and a commit for each."""
    for work in batch:
        event = work.event
        with connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO postern.dedup_keys (source, key, event_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (event.source, event.dedup_key, str(event.id)),
            )
            cursor.execute(
                "INSERT INTO postern.events (id, source, type, dedup_key, status, attempts, received_at, processed_at,"
                " headers, payload, body) VALUES (%s, %s, %s, %s, 'processed', 1, %s, %s, '{}', %s, %s)",
                (
                    *(str(event.id), event.source, event.type, event.dedup_key, event.received_at, event.received_at),
                    *(work.body.decode(), psycopg2.Binary(work.body)),
                ),
            )


ByHand = Callable[[Any, Sequence[Work]], None]


def _batches(size: int, theirs: ByHand, *functions: Callable[[Event, Any], object], is_speed: bool) -> Measured:
    with database() as url:
        ours, connection = processor(url, *functions), psycopg2.connect(url)

        def mine() -> float:
            batch = works(size)
            return timed(lambda: ours.process(batch))

        def other() -> float:
            batch = works(size)
            return timed(lambda: theirs(connection, batch))

        rounds = 40 if size <= 100 else 12
        found = by_turns(mine, other, rounds=rounds, is_speed=is_speed, unit="ms", scale=1000)
        connection.close()
        return found


# Hot rows


def _hot_rows(is_speed: bool) -> Measured:
    """The time until all batches are done, by four workers at once and by one."""
    with database() as url:
        connection = psycopg2.connect(url)
        with connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO tallies SELECT n, 0 FROM generate_series(0, %s) AS n", (_HOT_ROWS - 1,))
        pairs = [(_drained(url, _WORKERS), _drained(url, 1)) for _ in range(4)][1:]
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT sum(times) FROM tallies")
            [(total,)] = cursor.fetchall()
        connection.close()
        assert total == 8 * _HOT_BATCHES * 10, total  # each counted once
        return measured(pairs, is_speed=is_speed, unit="s")


def _drained(url: str, workers: int) -> float:
    start = multiprocessing.get_context("fork")
    ready, go = start.Barrier(workers + 1), start.Event()
    each = _HOT_BATCHES // workers
    children = [start.Process(target=_work, args=(url, each, ready, go)) for _ in range(workers)]
    for child in children:
        child.start()
    ready.wait()
    began = time.perf_counter()
    go.set()
    for child in children:
        child.join()
        assert child.exitcode == 0
    return time.perf_counter() - began


def _work(url: str, batches: int, ready: Any, go: Any) -> None:
    processing = processor(url, hot)
    # In whatever order they come: two batches meet at two rows from both sides.
    chance = random.Random(os.getpid())  # nosec B311  # noqa: S311
    waiting = [chance.sample(works(10), 10) for _ in range(batches)]
    ready.wait()
    go.wait()
    while waiting:
        batch = waiting.pop(0)
        outcomes = processing.process(batch)
        again = [replace(w, receives=w.receives + 1) for w in batch if outcomes[w.event.id].kind is Kind.RETRY]
        if again:
            waiting.append(again)


# A backlog


class _Taken:
    """The queues, as whoever consumes them sees them."""

    def send(self, message: str, **_: Any) -> None: ...
    def hide(self, delays: Any) -> None: ...
    def delete(self, handles: Any) -> None: ...
    def get(self, key: str) -> bytes:
        raise KeyError(key)


def _backlog(is_speed: bool) -> Measured:
    """In batches of 10, by the consumer as Lambda calls it, and by the processor that is in it. SQS is in neither."""
    with database() as url:
        processing = processor(url, upsert)

        def consumed() -> float:
            return drain(processing, [works(10) for _ in range(_BACKLOG // 10)])

        def alone() -> float:
            batches = [works(10) for _ in range(_BACKLOG // 10)]
            return timed(lambda: [processing.process(batch) for batch in batches])

        return by_turns(consumed, alone, rounds=5, is_speed=is_speed, unit="ms", scale=1000)


def drain(processing: Processor, batches: Sequence[Sequence[Work]]) -> float:
    """Seconds, from messages as Lambda hands them over to the last commit."""
    queue = _Taken()
    consumer = Consumer(
        processor=lambda: processing, keep=lambda refused: None, queue=queue, dead_letters=queue, bodies=queue,
        policy=POLICY, partial_responses=True, sources={"shop"}, random=random.random,
        now=lambda: datetime.now(UTC), log=logs.line,
    )  # fmt: skip
    records = [[_record(work) for work in batch] for batch in batches]
    with silent():
        return timed(lambda: [consumer.consume(batch) for batch in records])


def _record(work: Work) -> dict[str, Any]:
    sent = str(round(work.event.received_at.timestamp() * 1000))
    attributes = {"ApproximateReceiveCount": "1", "SentTimestamp": sent}
    id = str(work.event.id)
    return {"messageId": id, "receiptHandle": id, "body": to_message(work.event), "attributes": attributes}


# Figures of their own


def calm(url: str) -> None:
    """900 events at 60 a second, taken ten at most at a time; every hundredth has two handlers. From its arrival to the
    commit that has its row.
    """
    arrived = [n / 60 for n in range(900)]
    batch = works(len(arrived))
    two = {work.event.id for n, work in enumerate(batch) if n % 100 == 50}
    handlers = [Handler("shop", "*", upsert), Handler("shop", "rare", upsert)]
    batch = [replace(w, event=replace(w.event, type="rare" if w.event.id in two else "order")) for w in batch]
    runner = Runner(handlers, POLICY, lambda: datetime.now(UTC), 10)
    processing = Processor(EventStore(Database(lambda fresh: url)), runner)
    processing.process(works(1))
    waited: dict[bool, list[float]] = {True: [], False: []}
    begun, at = time.perf_counter(), 0
    while at < len(batch):
        now = time.perf_counter() - begun
        if arrived[at] > now:
            time.sleep(arrived[at] - now)
            continue
        ready = min(at + 10, sum(moment <= now for moment in arrived))
        processing.process(batch[at:ready])
        done = time.perf_counter() - begun
        for n in range(at, ready):
            waited[batch[n].event.id in two].append((done - arrived[n]) * 1000)
        at = ready
    for has_two, name in ((False, "one handler"), (True, "two handlers")):
        several = sorted(waited[has_two])
        p99 = several[min(len(several) - 1, int(len(several) * 0.99))]
        print(
            f"calm, {name}: {statistics.median(several):.1f} ms, p99 {p99:.1f} ms ({len(several)} events)", flush=True
        )


def peak_kilobytes() -> int:
    """Of this program; ru_maxrss keeps that of the one that started it."""
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])  # type: ignore[index]


def memory(url: str, number: int, size: int) -> None:
    """In this process, which does nothing else: prints its peak in kilobytes."""
    body = json.dumps({"n": 1, "x": ["word " * 20] * (size // 104)}).encode()
    batch = [replace(work, body=bytes(bytearray(body))) for work in works(number, body)]
    outcomes = processor(url, lambda event, db: db.execute("SELECT 1")).process(batch)
    assert {outcome.kind for outcome in outcomes.values()} == {"processed"}, outcomes
    print(peak_kilobytes())


def _memory(number: int, size: int, is_speed: bool) -> Measured:
    """The peak of a process that does one batch, beside what the function has."""
    pairs = []
    with database() as url:
        for _ in range(3):
            command = [sys.executable, "-m", "bench.processing", url, str(number), str(size)]
            done = subprocess.run(command, check=True, timeout=300, capture_output=True, text=True)
            pairs.append((float(done.stdout) * 1024, PROCESSOR_MEGABYTES * 1024**2))
    return measured(pairs, is_speed=is_speed, unit="MB", scale=1 / 1024**2)


_SIZES = (10, 100, 1000)

LINES = [
    *(
        Line(
            f"copy-{size}",
            f"a batch of {size} without handlers",
            "COPY of the same rows into the same tables",
            Target.of(">= 0.6"),
            partial(_batches, size, by_copy),
        )
        for size in _SIZES
    ),
    Line(
        "one-by-one",
        "a batch of 100 without handlers",
        "an insert and a commit for each",
        Target.of(">= 15"),
        partial(_batches, 100, one_by_one),
    ),
    *(
        Line(
            f"upsert-{size}",
            f"a batch of {size}, a handler with one upsert",
            "the same by hand, in one transaction",
            Target.of(">= 0.5"),
            partial(_batches, size, by_hand, upsert),
        )
        for size in _SIZES
    ),
    Line(
        "hot-rows",
        "4,000 events that all update 6 rows, by four workers",
        "by one worker",
        Target.of(">= 0.8"),
        _hot_rows,
    ),
    Line(
        "backlog",
        f"{_BACKLOG:,} messages, read, processed with an upsert each, and settled",
        "the same events processed alone",
        Target.of(">= 0.7"),
        _backlog,
    ),
    *(
        Line(
            f"memory-{number}",
            f"the processor's peak with {number} bodies of {size / 1e6:g} MB",
            "its configured size",
            Target.of("<= 0.6"),
            partial(_memory, number, size),
        )
        for number, size in ((10, 6_000_000), (100, 250_000))
    ),
]


def main() -> None:
    if len(sys.argv) > 1:
        memory(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
        return
    with database() as url:
        calm(url)


if __name__ == "__main__":
    main()
