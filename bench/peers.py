"""The same work, as somebody would do it who has no Postern: each as its own documentation advises.

A delivery is verified, read, put into a message and logged, by Powertools' resolver and parser, and by FastAPI behind
Mangum. And events with one upsert each are worked off by one process of procrastinate's, or of graphile-worker's.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from bench.ack import CALLS, Context, delivery, ours, silent, times
from bench.processing import database, drain, processor, upsert, works
from bench.turns import Line, Measured, Target, Unmeasured, by_turns, measured, timed

# Beside the libraries of everything else, and after them.
sys.path.append(str(Path(sys.prefix) / "peers"))

_UPSERT = "INSERT INTO tallies (n, times) VALUES (%s, 1) ON CONFLICT (n) DO UPDATE SET times = tallies.times + 1"
_JOBS = 2_000
_GRAPHILE = Path(__file__).parent / "graphile"


def _is_signed(secret: str, body: bytes, signature: str) -> bool:
    return hmac.compare_digest("sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest(), signature)


def _message(source: str, headers: dict[str, str], body: bytes) -> tuple[str, str]:
    id = str(uuid4())
    content = {
        "id": id, "source": source, "type": headers["x-github-event"], "key": headers["x-github-delivery"],
        "at": datetime.now(UTC).isoformat(), "headers": headers, "body": base64.b64encode(body).decode(),
    }  # fmt: skip
    return id, json.dumps(content)


def _powertools(secret: str, send: Callable[[str], None]) -> Callable[[Any, Any], dict[str, Any]]:
    from aws_lambda_powertools import Logger
    from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
    from aws_lambda_powertools.utilities.parser import BaseModel, parse

    class Push(BaseModel):
        ref: str
        repository: dict[str, Any]

    resolver, logger = APIGatewayRestResolver(), Logger(service="webhooks")

    @resolver.post("/webhooks/<source>")
    def receive(source: str) -> Response[str]:
        event = resolver.current_event
        body = (event.decoded_body or "").encode()
        headers = {name.lower(): value for name, value in event.headers.items()}
        if not _is_signed(secret, body, headers.get("x-hub-signature-256", "")):
            return Response(401, "application/json", "{}")
        parse(event.decoded_body, Push)
        id, message = _message(source, headers, body)
        send(message)
        logger.info("accepted", extra={"source": source, "id": id, "type": headers["x-github-event"]})
        return Response(202, "application/json", json.dumps({"id": id}))

    return resolver.resolve


def _fastapi(secret: str, send: Callable[[str], None]) -> Callable[[Any, Any], dict[str, Any]]:
    try:
        from fastapi import FastAPI, HTTPException, Request
        from mangum import Mangum
    except ImportError:
        raise Unmeasured("`make bench` installs FastAPI and Mangum") from None
    from pydantic import BaseModel

    class Push(BaseModel):
        ref: str
        repository: dict[str, Any]

    api, logger = FastAPI(), logging.getLogger("webhooks")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(sys.stdout))

    # Its annotations are read as it is declared: the names are local here.
    async def receive(source, request):  # type: ignore[no-untyped-def]
        body = await request.body()
        headers = dict(request.headers)
        if not _is_signed(secret, body, headers.get("x-hub-signature-256", "")):
            raise HTTPException(401)
        Push.model_validate_json(body)
        id, message = _message(source, headers, body)
        send(message)
        logger.info(json.dumps({"message": "accepted", "source": source, "id": id, "type": headers["x-github-event"]}))
        return {"id": id}

    receive.__annotations__ = {"source": str, "request": Request}
    api.post("/webhooks/{source}", status_code=202)(receive)
    return Mangum(api, lifespan="off")


def _beside(make: Callable[..., Callable[[Any, Any], dict[str, Any]]], is_speed: bool) -> Measured:
    with silent():
        (event, secret), context = delivery(), Context()
        sent: list[str] = []
        theirs, mine = make(secret, sent.append), ours()
        assert theirs(event, context)["statusCode"] == 202, theirs(event, context)
        broken = {**event, "body": event["body"] + " "}
        assert theirs(broken, context)["statusCode"] == 401
        assert len(sent) == 1
        return by_turns(
            lambda: timed(times(mine)), lambda: timed(times(lambda: theirs(event, context))),
            rounds=40, is_speed=is_speed, unit="µs", scale=1e6 / CALLS,
        )  # fmt: skip


# Jobs


def _beside_procrastinate(is_speed: bool) -> Measured:
    """Events of one upsert each, which wait already; ours in batches of 10, theirs ten at once."""
    with database() as url:
        mine = processor(url, upsert)

        def by_us() -> float:
            return drain(mine, [works(10, first=first) for first in range(0, _JOBS, 10)])

        pairs = asyncio.run(_by_turns_with_procrastinate(url, by_us))
    return measured(pairs, is_speed=is_speed, unit="ms", scale=1000)


async def _by_turns_with_procrastinate(url: str, by_us: Callable[[], float]) -> list[tuple[float, float]]:
    try:
        import procrastinate
        from psycopg_pool import AsyncConnectionPool
    except ImportError:
        raise Unmeasured("`make bench` installs procrastinate") from None

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=10, max_size=20))
    async with app.open_async(), AsyncConnectionPool(url, min_size=10, max_size=10, open=False) as pool:
        await app.schema_manager.apply_schema_async()

        @app.task(name="upsert")
        async def job(n: int) -> None:
            async with pool.connection() as connection:
                await connection.execute(_UPSERT, (n,))

        pairs = []
        for _ in range(5):
            await job.batch_defer_async(*({"n": n} for n in range(_JOBS)))
            loop = asyncio.get_running_loop()
            began = loop.time()
            await app.run_worker_async(
                concurrency=10, wait=False, install_signal_handlers=False, delete_jobs="successful"
            )
            theirs = loop.time() - began
            pairs.append((await asyncio.to_thread(by_us), theirs))
        async with pool.connection() as connection:
            left = await (await connection.execute("SELECT count(*) FROM procrastinate_jobs")).fetchone()
        assert left == (0,), left
    return pairs[1:]


def _beside_graphile(how: str, size: int, is_speed: bool) -> Measured:
    """As with procrastinate; `how`: as it comes, or fetching and completing in batches, beside our batches of 100."""
    with database() as url, _graphile(url, how) as ask:
        mine = processor(url, upsert)

        def by_us() -> float:
            return drain(mine, [works(size, first=first) for first in range(0, _JOBS, size)])

        return by_turns(by_us, lambda: ask(_JOBS) / 1000, rounds=4, is_speed=is_speed, unit="ms", scale=1000)


@contextmanager
def _graphile(url: str, how: str) -> Iterator[Callable[[int], float]]:
    """Its worker, which answers a number of jobs with the milliseconds that they took."""
    if shutil.which("npm") is None:
        raise Unmeasured("there is no npm here")
    folder = Path(sys.prefix) / "graphile"
    lock, installed = (_GRAPHILE / "package-lock.json").read_bytes(), folder / "installed.json"
    shutil.copytree(_GRAPHILE, folder, dirs_exist_ok=True)
    if not installed.exists() or installed.read_bytes() != lock:
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=200)
        installed.write_bytes(lock)
    command = ["node", "worker.mjs", url, how]
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin and child.stdout
        hangs = threading.Timer(120, child.kill)
        hangs.start()
        assert child.stdout.readline() == "ready\n"

        def ask(number: int) -> float:
            assert child.stdin and child.stdout
            child.stdin.write(f"{number}\n")
            child.stdin.flush()
            return float(child.stdout.readline())

        try:
            yield ask
        finally:
            hangs.cancel()
            child.stdin.close()


LINES = [
    Line(
        "ack-powertools",
        "accepting a delivery of 1.5 kB, without the call of SQS",
        "the same by Powertools' resolver and parser",
        Target.of("<= 1"),
        lambda is_speed: _beside(_powertools, is_speed),
    ),
    Line(
        "ack-fastapi",
        "accepting a delivery of 1.5 kB, without the call of SQS",
        "the same by FastAPI and Mangum",
        Target.of("<= 1"),
        lambda is_speed: _beside(_fastapi, is_speed),
    ),
    Line(
        "procrastinate",
        f"{_JOBS:,} events with one upsert each, by one process, 10 in a transaction",
        "procrastinate's worker, ten at once, its queue included",
        Target.of(">= 15"),
        _beside_procrastinate,
    ),
    *(
        Line(
            f"graphile-{how}",
            f"{_JOBS:,} events with one upsert each, by one process, {size} in a transaction",
            f"graphile-worker, ten at once, its queue included, {told}",
            Target.of(">= 1.3"),
            partial(_beside_graphile, how, size),
        )
        for how, size, told in (
            ("plain", 10, "as it comes"),
            ("batched", 100, "with a local queue and batched completion"),
        )
    ),
]
