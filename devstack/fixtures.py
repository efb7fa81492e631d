"""A pytest plugin for tests of handlers: `event`, `db`, `deliver`, `play` (docs/handlers.md), and the PostgreSQL below.

The tests of Postern itself stand on the same server, which is started once for all tests of a process.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import psutil
import psycopg2
import psycopg2.extensions
import pytest

from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.adapters.guard import GuardedConnection
from chalicelib.postern.adapters.migrations import migrate
from chalicelib.postern.adapters.postgres import Database, open_connection, settle
from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
from chalicelib.postern.contract.deliveries import Delivery, Event, Greeting, Headers
from chalicelib.postern.contract.envelope import Accepted
from chalicelib.postern.contract.numbers import dumps
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.processing.attempts import Runner, Trigger, Try, Work, event_of
from chalicelib.postern.processing.consume import became
from chalicelib.postern.processing.engine import Processor
from chalicelib.postern.processing.handling import discover
from chalicelib.postern.processing.settling import Outcome, RetryPolicy
from chalicelib.postern.receiving.ingest import Inbox, accept
from chalicelib.postern.receiving.sources import SIGNING_KEY, Source, load_sources
from cli import samples, scenarios
from cli.scenarios import Scene
from cli.sources import unknown
from devstack.postgres import Server, administer, url_of
from devstack.secrets import development_secrets

_TEMPLATE = "postern_template"
# A test's database is worth nothing after a crash. The tests that crash a server have a durable one of their own.
# Nor is what it is asked worth compiling, as Postern says of its own sessions.
_QUICK = {"jit": "off", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

_ADDRESS = "https://postern.test/webhooks/"
_HANDLER_SECONDS = 10.0


@dataclass(frozen=True)
class Delivered:
    """What became of a delivery's event. `status`: as in its row; `duplicate` where it had come before, `postponed`
    where a handler wants it later, and `delayed` where it could not be tried.

    Of a delivery that brings several events it is the first that was not processed, or else the first.
    """

    id: UUID
    status: str
    attempts: int
    error: str | None
    ids: Sequence[UUID]


# `event(source, type, payload, **changes)` and `deliver(source, type, payload, times=…)`.
MakeEvent = Callable[..., Event]
Deliver = Callable[..., Delivered]
# `play(FILE)`.
Play = Callable[[str | Path], list[Delivered]]
Take = Callable[["_Request", int], Delivered]


@pytest.fixture
def event() -> MakeEvent:
    """`event("stripe", "invoice.paid", {"data": …})`: the Event that handlers would get of such a delivery.

    A payload that is a mapping is laid over the provider's sample, whose id and times it has then; anything else takes
    its place: a list as JSON, bytes and text as they are. Without one it is the sample's. Fields of the event can be
    given as well: `attempt=2`.
    """

    def make(source: str, type: str | None = None, payload: Any = None, **changes: Any) -> Event:
        first, *_ = _accepted(_request(source, type, payload))
        one = Try(Work(first, first.body or b""), 1, Trigger.FIRST)
        return replace(event_of(one), **changes)

    return make


@pytest.fixture
def db(database_url: str) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor as handlers get it, on a migrated database of the test's own, which goes with the test."""
    with closing(open_connection(lambda fresh: database_url)) as connection, connection.cursor() as cursor:
        _lend(connection)
        try:
            yield cursor
        finally:
            connection.lent = False


@pytest.fixture
def deliver(take: Take) -> Deliver:
    """`deliver("stripe", "invoice.paid", {"data": …})`: a signed delivery from the door to its row, with all of your
    handlers, in one try. The payload as for `event`; `times=2` sends the same bytes again.

    What `db` has written before is committed, as is what comes of the delivery.
    """
    return lambda source, type=None, payload=None, *, times=1: take(_request(source, type, payload), times)


@pytest.fixture
def play(take: Take) -> Play:
    """`play("tests/refund.json")`: the deliveries of a scenario that `postern export --scenario` wrote, one after the
    other without a wait, each as `deliver` has it.
    """
    return lambda file: [take(_of_scene(scene), 1) for scene in scenarios.read(Path(file))]


@pytest.fixture
def take(database_url: str, request: pytest.FixtureRequest) -> Iterator[Take]:
    """What `deliver` and `play` stand on."""
    mine = request.getfixturevalue("db").connection if "db" in request.fixturenames else None
    database = Database(lambda fresh: database_url)
    policy = RetryPolicy(max_attempts=3, base_seconds=1, max_seconds=1)

    def make(sent: _Request, times: int) -> Delivered:
        processor = Processor(EventStore(database), Runner(discover(), policy, _now, _HANDLER_SECONDS))
        if mine is not None:
            mine.lent = False
            mine.commit()
            settle(mine)
            _lend(mine)
        for _ in range(times):
            events = _accepted(sent)
            outcomes = processor.process([Work(each, each.body or b"") for each in events])
        told = [_told(each.id, outcomes[each.id], database) for each in events]
        worst = next((one for one in told if one.status not in ("processed", "stale")), told[0])
        return replace(worst, ids=[each.id for each in events])

    yield make
    database.close()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    in_memory = _folder_in_memory()
    directory = in_memory or tmp_path_factory.mktemp("postgres")
    other = os.environ.get("POSTERN_POSTGRES")  # a folder with another version's programs
    server = Server(directory / "server", _QUICK, *([Path(other)] if other else []))
    server.start()
    if not other:
        # A password is hashed 4,096 times for each connection, of which tests make thousands.
        password = urlsplit(server.url).password
        administer(server, f"SET scram_iterations = 1; ALTER ROLE CURRENT_USER PASSWORD '{password}'")
    yield server
    server.stop()
    if in_memory:
        shutil.rmtree(in_memory)


@pytest.fixture(scope="session")
def template_database(postgres_server: Server) -> str:
    administer(postgres_server, f"CREATE DATABASE {_TEMPLATE}")
    migrate(url_of(postgres_server, _TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def database_url(postgres_server: Server, template_database: str) -> Iterator[str]:
    """A database of the test's own, with Postern's migrations and the team's."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    administer(postgres_server, f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY FILE_COPY")
    yield url_of(postgres_server, name)
    administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def _folder_in_memory() -> Path | None:
    """A folder on tmpfs, where there is room; what test runs left there that were killed is removed first."""
    memory = Path("/dev/shm")  # noqa: S108 -- what is made in it has a name of its own  # nosec B108
    if not memory.is_dir() or not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 2_000_000_000:
        return None
    for left in memory.glob("postern-tests-*"):
        by = left.name.split("-")[2]
        if by.isdecimal() and not psutil.pid_exists(int(by)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"postern-tests-{os.getpid()}-", dir=memory))


# A delivery, without a request


@dataclass
class _Held:
    """What was queued, and what was put into the bucket."""

    messages: list[str] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)

    def send(self, message: str, **_: Any) -> None:
        self.messages.append(message)

    def send_all(self, messages: Sequence[str], **_: Any) -> None:
        self.messages += messages

    def put(self, key: str, body: bytes) -> None:
        self.bodies[key] = body


@dataclass(frozen=True)
class _Request:
    source: Source
    secret: str
    sample: samples.Sample


def _of_scene(scene: Scene) -> _Request:
    source = _declared(scene.source)
    made = development_secrets(source)
    secret, url = made.get(SIGNING_KEY, made[""]), _ADDRESS + source.name
    return _Request(source, made[""], samples.anew(source, secret, _now(), scene.headers, scene.body, url))


def _declared(name: str) -> Source:
    declared = _sources()
    if name not in declared:
        raise unknown(name, declared)
    return declared[name]


def _request(name: str, type: str | None, payload: Any) -> _Request:
    source = _declared(name)
    made = development_secrets(source)
    type = type or samples.default_type(source.provider)
    signed = partial(samples.sample, source, type, made.get(SIGNING_KEY, made[""]), url=_ADDRESS + name)
    return _Request(source, made[""], signed(_now(), body=_body(payload, lambda: signed(_now()).body)))


def _body(payload: Any, sample: Callable[[], bytes]) -> bytes | None:
    """None for the sample's own."""
    if payload is None or isinstance(payload, bytes):
        return payload
    if isinstance(payload, str):
        return payload.encode()
    if isinstance(payload, Mapping):
        with suppress(ValueError):  # a form, say
            below = json.loads(sample())
            payload = {**below, **payload} if isinstance(below, dict) else payload
    return dumps(payload).encode()


def _accepted(request: _Request) -> list[Accepted]:
    """The events that it brings, as the queue has them. Raises what the sender would be answered."""
    held, source, signed = _Held(), request.source, request.sample
    query = [*signed.query.items()]
    url = f"{_ADDRESS}{source.name}" + (f"?{urlencode(query)}" if query else "")
    delivery = Delivery(source.name, Headers([*signed.headers.items()]), signed.body, _now(), url=url, query=query)
    found = accept(delivery, Inbox({source.name: source}, lambda _: [request.secret], held, held))
    if isinstance(found, Greeting):
        raise ValueError(f"{source.name} takes that for a handshake, which is answered and is no event.")
    events = []
    for message in held.messages:
        event = from_message(message)
        assert isinstance(event, Accepted)
        body = held.bodies[event.body_key] if event.body_key else event.body
        whole = held.bodies[event.delivery_body_key] if event.delivery_body_key else event.delivery_body
        events.append(replace(event, body=body, delivery_body=whole))
    return events


def _told(id: UUID, outcome: Outcome, database: Database) -> Delivered:
    with database.transaction() as session:
        rows = session.execute("SELECT error FROM postern.events WHERE id = %(id)s", {"id": id})
    error = rows[0]["error"] if rows else outcome.reason or None
    return Delivered(id, became(outcome), outcome.attempts, error, [id])


def _lend(connection: GuardedConnection) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")  # it may stand at a breakpoint
    connection.lent = True


@cache
def _sources() -> Mapping[str, Source]:
    return load_sources(SHIPPED_SOURCES)


def _now() -> datetime:
    return datetime.now(UTC)
