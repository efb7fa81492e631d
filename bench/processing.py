"""What processing costs beside the least that PostgreSQL could do with the same events.

By turns, in one run: a batch without handlers against COPY into the same tables, and a batch whose handler makes one
upsert an event against hand-written statements that do as much. And the memory of a batch of large bodies. Prints
medians and their ratios.
"""

from __future__ import annotations

import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras

from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.adapters.migrations import migrate
from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.contract.deliveries import Event, new_event_id
from chalicelib.postern.contract.envelope import Accepted
from chalicelib.postern.processing.attempts import Runner, Work
from chalicelib.postern.processing.engine import Processor
from chalicelib.postern.processing.handling import Handler
from chalicelib.postern.processing.settling import RetryPolicy
from devstack.postgres import Server

ROUNDS = 40
BATCH = 100
POLICY = RetryPolicy(3, 1, 1)


def works(number: int, body: bytes | None = None) -> list[Work]:
    at = datetime.now(UTC)
    made = []
    for n in range(number):
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


def processor(url: str, *functions: Callable[[Event, Any], object]) -> Processor:
    handlers = [Handler("shop", "*", function) for function in functions]
    runner = Runner(handlers, POLICY, lambda: datetime.now(UTC), 10)
    return Processor(EventStore(Database(lambda fresh: url)), runner)


def by_copy(connection: Any, batch: list[Work]) -> None:
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


def by_hand(connection: Any, batch: list[Work]) -> None:
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


def compare(name: str, ours: Callable[[list[Work]], object], theirs: Callable[[list[Work]], object]) -> None:
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(ROUNDS + 3):
        for who, do in (("ours", ours), ("theirs", theirs)):
            batch = works(BATCH)
            started = time.perf_counter()
            do(batch)
            times[who].append((time.perf_counter() - started) * 1000)
    mine, other = (statistics.median(times[who][3:]) for who in ("ours", "theirs"))
    print(
        f"{name}: {mine:.1f} ms for {BATCH} events, against {other:.1f} ms: {other / mine:.2f} of the speed", flush=True
    )


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
    """In this process, which does nothing else."""
    before = peak_kilobytes()
    body = json.dumps({"n": 1, "x": ["word " * 20] * (size // 104)}).encode()
    batch = [replace(work, body=bytes(bytearray(body))) for work in works(number, body)]
    outcomes = processor(url, lambda event, db: db.execute("SELECT 1")).process(batch)
    assert {outcome.kind for outcome in outcomes.values()} == {"processed"}, outcomes
    after = peak_kilobytes()
    print(f"memory of {number} x {size / 1e6:g} MB: {after / 1024:.0f} MB at its peak, {before / 1024:.0f} before")


def main() -> None:
    if len(sys.argv) > 1:
        memory(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(Path(scratch) / "postgres")
        server.start()
        try:
            migrate(server.url)
            connection = psycopg2.connect(server.url)
            with connection.cursor() as cursor:
                cursor.execute("CREATE TABLE tallies (n integer PRIMARY KEY, times integer NOT NULL)")
            connection.commit()
            url = server.url
            plain, handled = processor(url), processor(url, upsert)
            compare("without handlers, against COPY", plain.process, lambda batch: by_copy(connection, batch))
            compare("a handler with an upsert, against the same by hand", handled.process,
                    lambda batch: by_hand(connection, batch))  # fmt: skip
            connection.close()
            calm(url)
            for number, size in ((10, 6_000_000), (100, 250_000)):
                command = [sys.executable, "-m", "bench.processing", url, str(number), str(size)]
                subprocess.run(command, check=True, timeout=300, env=dict(os.environ))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
