"""Crash points by name: the process is killed at each statement, commit and call, before it and after it, the first,
second and third time that it is passed; then everything goes on, and what came of it is held against the promises.

`python -m tests.chaos.crash_points` prints the table (`make crash-points`). PostgreSQL is real; SQS and S3 are what is
left of them between a call and its effect: a line in a log, which is done or is not.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import psycopg2

from chalicelib.postern.adapters.children import in_child
from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.adapters.guard import GuardedConnection
from chalicelib.postern.adapters.migrations import migrate
from chalicelib.postern.adapters.postgres import Database, Session, queries
from chalicelib.postern.contract.deliveries import Delivery, Event, Headers
from chalicelib.postern.contract.errors import FunctionEnded, Refusal
from chalicelib.postern.processing.attempts import Runner
from chalicelib.postern.processing.consume import Consumer
from chalicelib.postern.processing.engine import Processor
from chalicelib.postern.processing.handling import Handler, PermanentError
from chalicelib.postern.processing.settling import RetryPolicy
from chalicelib.postern.receiving.ingest import Inbox, accept
from chalicelib.postern.receiving.sources import load_sources
from devstack.postgres import Server
from tests.chaos.history import Found, Kind, Sent, verdict

HITS = (1, 2, 3)
_POLICY = RetryPolicy(max_attempts=3, base_seconds=1, max_seconds=2)
_ROUNDS = 15
_SECRET = "secret"
_SOURCES = "".join(
    f'[{name}]\nprovider = "hmac"\nheader = "X-Signature"\nalgorithm = "sha256"\nencoding = "hex"\n{more}'
    for name, more in (("shop", ""), ("several", 'items = ""\n'))
)
# More than a message carries, and nothing that compresses.
_LARGE_BYTES = 1_100_000

EFFECTS = "CREATE TABLE IF NOT EXISTS public.effects (key text NOT NULL)"


@dataclass
class Crasher:
    """Counts the points that are passed, `passed` so far; at one of them this process is killed, once: `killed` is a
    file that says so.
    """

    killed: Path
    point: str | None = None
    hit: int = 1
    passed: Counter[str] = field(default_factory=Counter)

    def passes(self, name: str) -> None:
        self.passed[name] += 1
        if name == self.point and self.passed[name] == self.hit and not self.killed.exists():
            self.killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def around(self, name: str) -> Iterator[None]:
        self.passes(f"before {name}")
        yield
        self.passes(f"after {name}")

    def watch(self) -> None:
        """Every statement, the handlers, and every commit of this process, which ends soon."""
        names = {sql: name for name, sql in queries().items()}

        def watched(method: Callable[..., Any], name_of: Callable[[tuple[Any, ...]], str]) -> Callable[..., Any]:
            @wraps(method)
            def wrapped(session: Any, *given: Any, **named: Any) -> Any:
                with self.around(name_of(given)):
                    return method(session, *given, **named)

            return wrapped

        def of_sql(given: tuple[Any, ...]) -> str:
            # Savepoints have a name of their own each time.
            return names.get(given[0]) or " ".join(given[0].split(";")[0].split()[:2])

        Session.execute = watched(Session.execute, of_sql)  # type: ignore[method-assign]
        Session.run_many = watched(Session.run_many, lambda given: str(given[0]))  # type: ignore[method-assign]
        Session.copy = watched(Session.copy, lambda given: str(given[0]))  # type: ignore[method-assign]
        Session.run_handlers = watched(Session.run_handlers, lambda _: "handlers")  # type: ignore[method-assign]
        GuardedConnection.commit = watched(GuardedConnection.commit, lambda _: "COMMIT")  # type: ignore[method-assign]


@dataclass
class Wire:
    """What a function calls: each call is a line in the log once it is done. `queue`: which of the two it is."""

    log: Path
    bodies: Path
    crasher: Crasher
    queue: str = "queue"

    def _write(self, call: str, **facts: Any) -> None:
        with self.crasher.around(f"{self.queue}.{call}"), self.log.open("a") as log:
            log.write(json.dumps({"call": call, "queue": self.queue, **facts}) + "\n")

    def send(self, message: str, **_: Any) -> None:
        self._write("send", messages=[message])

    def send_all(self, messages: Sequence[str], **_: Any) -> None:
        self._write("send_all", messages=list(messages))

    def hide(self, delays: Mapping[str, int]) -> None:
        self._write("hide")

    def delete(self, handles: Sequence[str]) -> None:
        self._write("delete", handles=list(handles))

    def put(self, key: str, body: bytes) -> None:
        with self.crasher.around("bodies.put"):
            (self.bodies / key.replace("/", "_")).write_bytes(body)

    def get(self, key: str) -> bytes:
        with self.crasher.around("bodies.get"):
            return (self.bodies / key.replace("/", "_")).read_bytes()

    def answer(self, **facts: Any) -> None:
        self._write("answer", **facts)


class Scenario:
    """Some deliveries of every kind, from their senders to their rows, in one of many lives of the processes."""

    def __init__(self, url: str, folder: Path, point: str | None, hit: int) -> None:
        folder.mkdir()
        (folder / "bodies").mkdir()
        (folder / "sources.toml").write_text(_SOURCES, "utf-8")
        self._url, self._folder = url, folder
        self._point, self._hit = point, hit
        self._messages: dict[str, tuple[str, int]] = {}
        self._letters: list[str] = []
        self._log_read = 0
        self._killed = folder / "killed"
        self.passed: Counter[str] = Counter()
        self.history: dict[str, Sent] = {}
        self._others: dict[str, Sent] = {}
        self._deliveries: dict[str, Delivery] = {}

    @property
    def crashed(self) -> bool:
        return self._killed.exists()

    def play(self) -> dict[str, list[str]]:
        """What was broken; nothing, where all was well."""
        self._make()
        for _ in range(3):  # a sender that got no answer sends again
            left = [key for key, sent in self._delivered() if not sent.is_accepted and not sent.is_refused]
            if left:
                self._in_a_process(lambda crasher, left=left: self._accept(left, crasher))  # type: ignore[misc]
        for _ in range(_ROUNDS):
            if not self._messages:
                break
            batch = list(self._messages.items())[:10]
            self._messages |= {id: (text, receives + 1) for id, (text, receives) in batch}
            records = [_record(id, *self._messages[id]) for id, _ in batch]
            self._in_a_process(lambda crasher, records=records: self._consume(records, crasher))  # type: ignore[misc]
        broken = verdict(self.history, self._found())
        if unanswered := [key for key, sent in self.history.items() if not sent.is_accepted]:
            broken["never accepted"] = unanswered
        if not self._is_kept():
            broken["refused, and not kept"] = list(self._others)
        return broken

    def _make(self) -> None:
        mark = uuid.uuid4().hex[:12]
        kinds = [Kind.PLAIN, Kind.PLAIN, Kind.FLAKY, Kind.POISON]
        bodies = {f"{mark} {kind} {n}": _body(f"{mark} {kind} {n}", kind) for n, kind in enumerate(kinds)}
        large = {"padding": base64.b64encode(os.urandom(_LARGE_BYTES)).decode()}
        bodies[f"{mark} large"] = _body(f"{mark} large", Kind.PLAIN, **large)
        for key, body in bodies.items():
            kind = Kind(key.split()[1]) if key.split()[1] in set(Kind) else Kind.PLAIN
            self.history[key] = Sent(kind)
            self._deliveries[key] = _delivery("shop", body)
        items = [f"{mark} item {n}" for n in range(3)]
        self.history |= {key: Sent(Kind.PLAIN) for key in items}
        both = b"[" + b",".join(_body(key, Kind.PLAIN) for key in items) + b"]"
        self._deliveries[" + ".join(items)] = _delivery("several", both)
        self._deliveries[f"{mark} broken"] = _delivery("shop", b"{" + mark.encode())

    def _delivered(self) -> Iterator[tuple[str, Sent]]:
        """Each delivery with how it was answered; one that brings no event is no part of the history."""
        for key in self._deliveries:
            first = key.split(" + ")[0]
            yield key, self.history.get(first) or self._others.setdefault(first, Sent(Kind.PLAIN))

    def _in_a_process(self, work: Callable[[Crasher], None]) -> None:
        """Killed at the point, if that is there and nobody was yet."""
        crasher = Crasher(self._killed, self._point, self._hit, Counter(self.passed))

        def in_it() -> bytes:
            crasher.watch()
            work(crasher)
            return json.dumps(crasher.passed).encode()

        try:
            self.passed = Counter(json.loads(in_child(in_it, 20)))
        except FunctionEnded:
            if not self.crashed:
                raise
        self._apply()

    def _apply(self) -> None:
        """What the log says has happened."""
        log = self._folder / "log"
        lines = log.read_text("utf-8").splitlines() if log.exists() else []
        for line in lines[self._log_read :]:
            match json.loads(line):
                case {"call": "send" | "send_all", "queue": "queue", "messages": messages}:
                    self._messages |= {uuid.uuid4().hex: (text, 0) for text in messages}
                case {"call": "send", "messages": messages}:
                    self._letters += messages
                case {"call": "delete", "handles": handles}:
                    for handle in handles:
                        self._messages.pop(handle, None)
                case {"call": "answer", "key": key, "status": status}:
                    for each in key.split(" + "):
                        sent = self.history.get(each) or self._others[each]
                        sent.answers.append(status)
        self._log_read = len(lines)

    # In a process

    def _accept(self, keys: Sequence[str], crasher: Crasher) -> None:
        wire = Wire(self._folder / "log", self._folder / "bodies", crasher)
        inbox = Inbox(
            load_sources(self._folder / "sources.toml"), lambda source: [_SECRET], wire, wire,
            may_keep=lambda source, verified: True,
        )  # fmt: skip
        for key in keys:
            try:
                accept(self._deliveries[key], inbox)
                wire.answer(key=key, status=202)
            except Refusal as refusal:
                wire.answer(key=key, status=refusal.status)

    def _consume(self, records: Sequence[Mapping[str, Any]], crasher: Crasher) -> None:
        wire = Wire(self._folder / "log", self._folder / "bodies", crasher)
        letters = Wire(wire.log, wire.bodies, crasher, "dead_letters")
        database = Database(lambda fresh: self._url)
        store = EventStore(database)
        runner = Runner([Handler("*", "*", _effect)], _POLICY, lambda: datetime.now(UTC), 10)
        consumer = Consumer(
            processor=lambda: Processor(store, runner, in_child), keep=store.keep, queue=wire, dead_letters=letters,
            bodies=wire, policy=_POLICY, partial_responses=True, sources={"shop", "several"}, random=lambda: 1.0,
            now=lambda: datetime.now(UTC), log=lambda name, /, **fields: None,
        )  # fmt: skip
        answer = consumer.consume(records, lambda: 60.0)
        again = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        # Lambda's part: it deletes what the function has not named, once it has answered.
        wire.delete([record["messageId"] for record in records if record["messageId"] not in again])

    # In the end

    def _found(self) -> Found:
        mark = next(iter(self.history)).split()[0]
        with closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT key, count(*) FROM public.effects WHERE key LIKE %s GROUP BY key", (f"{mark}%",))
            effects: dict[str, int] = dict(cursor.fetchall())
            cursor.execute(
                "SELECT id::text, payload ->> 'key', status FROM postern.events WHERE payload ->> 'key' LIKE %s",
                (f"{mark}%",),
            )
            rows: dict[str, list[str]] = {}
            keys: dict[str, str] = {}
            for id, key, status in cursor.fetchall():
                rows.setdefault(key, []).append(status)
                keys[id] = key
        letters = frozenset(keys.get(id, id) for id in (json.loads(text)["id"] for text in self._letters))
        return Found(effects, rows, letters, len(self._messages), 0)

    def _is_kept(self) -> bool:
        """What was signed, and is no JSON."""
        [broken] = (self._deliveries[key].body for key in self._others)
        with closing(psycopg2.connect(self._url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM postern.rejected WHERE body = %s", (broken,))
            return cursor.fetchone() is not None


def _effect(event: Event, db: Any) -> None:
    db.execute("INSERT INTO public.effects VALUES (%s)", (event.payload["key"],))
    if event.payload["kind"] == Kind.POISON:
        raise PermanentError("poison")
    if event.payload["kind"] == Kind.FLAKY and event.attempt == 1:
        raise ValueError("the first time")


def _body(key: str, kind: Kind, **more: str) -> bytes:
    return json.dumps({"type": "order", "key": key, "kind": kind, **more}).encode()


def _delivery(source: str, body: bytes) -> Delivery:
    signature = hmac.digest(_SECRET.encode(), body, hashlib.sha256).hex()
    headers = Headers([("Content-Type", "application/json"), ("X-Signature", signature)])
    return Delivery(source, headers, body, datetime.now(UTC))


def _record(id: str, text: str, receives: int) -> dict[str, Any]:
    attributes = {"ApproximateReceiveCount": str(receives)}
    return {"messageId": id, "receiptHandle": id, "body": text, "attributes": attributes}


def points(url: str, folder: Path) -> dict[str, int]:
    """Those that are passed where nobody is killed, and how often."""
    scenario = Scenario(url, folder / "none", None, 1)
    broken = scenario.play()
    assert broken == {}, broken
    return dict(sorted(scenario.passed.items()))


def main() -> int:
    broken = 0
    with tempfile.TemporaryDirectory() as scratch, _database(Path(scratch)) as url:
        migrate(url)
        with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(EFFECTS)
        print(f"| killed | {' | '.join(f'hit {hit}' for hit in HITS)} |\n|---|{'---|' * len(HITS)}")
        for number, (point, times) in enumerate(points(url, Path(scratch)).items()):
            cells = []
            for hit in HITS:
                scenario = Scenario(url, Path(scratch) / f"{number}-{hit}", point, hit)
                wrong = scenario.play()
                broken += bool(wrong)
                # A process of the slow gear's own counts for itself: what it passes is in no count.
                broken += times >= hit and not scenario.crashed
                cells.append("; ".join(wrong) if wrong else "kept" if scenario.crashed else "–")
            print(f"| {point} ({times}) | {' | '.join(cells)} |", flush=True)
    return 1 if broken else 0


@contextmanager
def _database(folder: Path) -> Iterator[str]:
    """That of DATABASE_URL, or one of its own."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
        return
    folder.chmod(0o711)  # PostgreSQL, which does not run as root, has to get through
    server = Server(folder / "postgres")
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
