"""Events a second by one processor, at so many milliseconds to the database and back; beside the same by hand, in one
transaction a batch, and beside an insert and a commit for each event.

The way is a relay on this machine that holds back what the database answers. What a round trip then really takes is
measured with it, and told.

The same run gives what an event costs the database: its CPU, and bytes of its log (WAL).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg2

from bench.processing import by_hand, one_by_one, postgres, processor, upsert, works
from bench.turns import timed
from chalicelib.postern.adapters.migrations import migrate
from chalicelib.postern.processing.attempts import Work

MILLISECONDS = (0, 1, 7)
SIZES = (1, 10, 100, 1000)
# Of each size, until so long.
_SECONDS = 1.0
_COUNTED = 6_000


@dataclass(frozen=True)
class Rates:
    """Events a second in batches of `size`, where a round trip takes so many milliseconds; `one_by_one` is the same for
    every size.
    """

    size: int
    round_trip: float
    ours: float
    by_hand: float
    one_by_one: float


@dataclass(frozen=True)
class Cost:
    """Of an event in batches of `size`: seconds of CPU of ours and of PostgreSQL's, bytes of its log."""

    size: int
    ours: float
    postgres: float
    log: float


def measure() -> tuple[list[Rates], list[Cost]]:
    rates: list[Rates] = []
    with postgres() as server:
        migrate(server.url)
        _run(server.url, "CREATE TABLE tallies (n integer PRIMARY KEY, times integer NOT NULL)")
        for milliseconds in MILLISECONDS:
            with delayed(server.url, milliseconds / 1000) as url:
                rates += _rates(url)
        costs = [_cost(server.url, server.child.pid, size) for size in (10, 100)]
    return rates, costs


def described() -> dict[str, Any]:
    rates, costs = measure()
    return {"rates": [asdict(each) for each in rates], "costs": [asdict(each) for each in costs]}


def _rates(url: str) -> list[Rates]:
    ours, trip = processor(url, upsert), _round_trip(url)
    with closing(psycopg2.connect(url)) as connection:
        singly = _speed(partial(one_by_one, connection), 10)
        return [
            Rates(size, trip * 1000, _speed(ours.process, size), _speed(partial(by_hand, connection), size), singly)
            for size in SIZES
        ]


def _speed(process: Callable[[Sequence[Work]], object], size: int) -> float:
    """The median of batches; the first warms up."""
    process(works(size))
    found, until = [], time.monotonic() + _SECONDS
    while time.monotonic() < until or len(found) < 3:
        batch = works(size)
        found.append(size / timed(partial(process, batch)))
    return statistics.median(found)


def _cost(url: str, pid: int, size: int) -> Cost:
    ours = processor(url, upsert)
    batches = [works(size) for _ in range(_COUNTED // size + 1)]
    ours.process(batches.pop())
    [[begun]] = _run(url, "SELECT pg_current_wal_insert_lsn()")
    theirs, mine = _seconds_of(pid), time.process_time()
    for batch in batches:
        ours.process(batch)
    mine, theirs = time.process_time() - mine, _seconds_of(pid) - theirs
    [[log]] = _run(url, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)::float8", begun)
    number = size * len(batches)
    return Cost(size, mine / number, theirs / number, log / number)


def _seconds_of(pid: int) -> float:
    """Of CPU, by all processes of a server that are there."""
    found = 0.0
    for process in psutil.Process(pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            found += times.user + times.system
    return found


def _round_trip(url: str) -> float:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        return statistics.median(timed(lambda: cursor.execute("SELECT 1")) for _ in range(50))


def _run(url: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            return list(cursor.fetchall()) if cursor.description else []


# The way


@contextmanager
def delayed(url: str, seconds: float) -> Iterator[str]:
    """The same database, whose answers come so much later. Without any delay it is asked directly."""
    if not seconds:
        yield url
        return
    address = urlsplit(url)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    relay = context.Process(target=_relay, args=(address.hostname, address.port, seconds, theirs), daemon=True)
    relay.start()
    try:
        port = ours.recv()
        yield url.replace(f":{address.port}/", f":{port}/")
    finally:
        relay.terminate()
        relay.join()


def _relay(host: str, port: int, seconds: float, ready: Any) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection(host, port)
        await asyncio.gather(_carry(reader, ahead, 0), _carry(behind, writer, seconds))

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Each piece so much later than it came, in their order."""
    loop = asyncio.get_running_loop()
    with suppress(ConnectionError):
        while piece := await reader.read(65_536):
            loop.call_later(seconds, writer.write, piece) if seconds else writer.write(piece)
        await asyncio.sleep(seconds)
    writer.close()
