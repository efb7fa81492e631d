"""A batch whose bodies are more than there is memory for: they are read a few at a time, and none waits for another."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from chalicelib.postern.contract.deliveries import Event, new_event_id
from chalicelib.postern.contract.envelope import Accepted, Rejected, to_message
from chalicelib.postern.contract.errors import BodyUnavailable
from chalicelib.postern.processing.attempts import Unread, Work
from chalicelib.postern.processing.consume import Consumer
from chalicelib.postern.processing.engine import Processor
from chalicelib.postern.processing.settling import Kind
from devstack.settings import PROJECT
from tests.integration.world import POLICY, World, effect, now, numbered, work

LARGE = 5_900_000


@dataclass
class Shelf:
    """Bodies that have to be fetched; `said` is what happened, in its order."""

    gone: dict[int, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def holds(self, number: int, size: int = LARGE) -> Work:
        body = json.dumps({"n": number}).encode()

        def read() -> tuple[bytes, bytes | None]:
            self.said.append(f"read {number}")
            if number in self.gone:
                raise BodyUnavailable(self.gone[number])
            return body, None

        return replace(work(), body=b"", unread=Unread(size, 8.0, read))

    def handle(self, event: Event, db: Any) -> None:
        self.said.append(f"handle {event.payload['n']}")
        effect(event, db)


def test_each_is_read_when_its_turn_comes(world: World) -> None:
    shelf = Shelf()
    world.processor(shelf.handle).process([shelf.holds(1), shelf.holds(2), shelf.holds(3)])
    assert shelf.said == ["read 1", "handle 1", "read 2", "handle 2", "read 3", "handle 3"]
    assert world.rows() == [("processed", 1)] * 3


def test_nothing_is_begun_when_fetching_has_taken_the_time(world: World) -> None:
    """Its handlers would be cut short, and the event charged for a slow bucket in the end."""
    shelf = Shelf()
    item = shelf.holds(1)
    assert item.unread is not None
    left = 60.0

    def slow() -> tuple[bytes, bytes | None]:
        nonlocal left
        left = 3.5
        return item.unread.read()  # type: ignore[union-attr]

    late = replace(item, unread=replace(item.unread, read=slow))
    outcomes = world.processor(shelf.handle).process([late], lambda: left)
    assert outcomes[item.event.id].reason == "no time left in this invocation"
    assert shelf.said == ["read 1"]


def test_small_ones_share_a_transaction(world: World) -> None:
    shelf = Shelf()
    world.processor(shelf.handle).process([shelf.holds(1, 2_000_000), shelf.holds(2, 2_000_000)])
    assert shelf.said == ["read 1", "read 2", "handle 1", "handle 2"]


def test_what_is_compressed_counts_as_what_it_holds(world: World) -> None:
    packed = gzip.compress(b'{"words": "' + b"w" * 3_000_000 + b'"}')
    item = work(body=packed, headers={"content-type": "application/json", "content-encoding": "gzip"})
    assert (len(packed) < 10_000, item.size > 3_000_000) == (True, True)


@pytest.mark.parametrize("receives", [1, 2])
def test_a_bucket_that_does_not_answer_takes_no_more_time_than_there_is(world: World, receives: int) -> None:
    """Nor does what lies there go before what is at hand, whether it came before or not."""
    left = 30.0

    def slow() -> tuple[bytes, bytes | None]:
        nonlocal left
        left -= 8
        raise BodyUnavailable("ConnectTimeoutError")

    far = [replace(work(), body=b"", receives=receives, unread=Unread(LARGE, 8.0, slow)) for _ in range(9)]
    near = replace(work(), receives=receives)
    outcomes = world.processor(effect).process([*far, near], lambda: left)
    assert outcomes[near.event.id].kind is Kind.PROCESSED
    assert left > 0
    assert {outcomes[item.event.id].reason for item in far} == {
        "body: ConnectTimeoutError",
        "no time left in this invocation",
    }


def test_what_is_at_hand_does_not_wait_for_what_has_to_be_fetched(world: World) -> None:
    shelf = Shelf(gone={1: "ReadTimeoutError"})
    [near] = numbered(2)
    outcomes = world.processor(shelf.handle).process([shelf.holds(1), near])
    assert shelf.said == ["handle 2", "read 1"]
    assert sorted(outcome.kind for outcome in outcomes.values()) == [Kind.PROCESSED, Kind.RETRY]


def test_what_cannot_be_read_is_put_off_and_its_mates_are_processed(world: World) -> None:
    shelf = Shelf(gone={2: "InternalError"})
    batch = [shelf.holds(n, 1_000) for n in (1, 2, 3)]
    outcomes = world.processor(shelf.handle).process(batch)
    assert [outcomes[item.event.id].kind for item in batch] == [Kind.PROCESSED, Kind.RETRY, Kind.PROCESSED]
    assert outcomes[batch[1].event.id].reason == "body: InternalError"
    assert world.effects() == 2


def test_one_that_fails_among_others_is_read_again_and_charged_once(world: World) -> None:
    shelf = Shelf()

    def handle(event: Event, db: Any) -> None:
        shelf.handle(event, db)
        if event.payload["n"] == 2:
            raise ValueError("no")

    world.processor(handle).process([shelf.holds(n, 1_000) for n in (1, 2, 3)])
    assert world.rows() == [("processed", 1), ("failed", 1), ("processed", 1)]
    assert shelf.said.count("read 2") == 2
    assert world.effects() == 2


class Queue:
    def hide(self, delays: Any) -> None:
        pass


def consumer(processor: Callable[[], Processor], bodies: Any = None) -> Consumer:
    queue: Any = Queue()
    return Consumer(
        processor=processor,
        keep=lambda refused: None,
        queue=queue,
        dead_letters=queue,
        bodies=bodies,
        policy=POLICY,
        partial_responses=True,
        sources={"shop"},
        random=lambda: 1.0,
        now=now,
        log=lambda name, /, **fields: None,
    )


def record(number: int, event: Accepted | Rejected) -> dict[str, Any]:
    return {
        "messageId": str(number),
        "receiptHandle": str(number),
        "body": to_message(event),
        "attributes": {"ApproximateReceiveCount": "1"},
    }


def test_small_messages_that_unpack_to_much_are_unpacked_a_few_at_a_time(world: World) -> None:
    """A body of 5.9 MB may come in a message of 20 kB, and a hundred of those in one batch."""
    bodies = [json.dumps({"n": n, "spaces": " " * 3_000_000}).encode() for n in range(5)]
    whole = b"[" + b" " * 3_000_000 + b"]"
    events = [work(body=body).event for body in bodies]
    events[3] = replace(events[3], delivery=events[3].id, delivery_body=whole)
    taken: list[Work] = []

    class Spy(Processor):
        def process(self, batch: Any, *args: Any) -> Any:
            taken.extend(batch)
            return super().process(batch, *args)

    inner = world.processor(effect)
    answer = consumer(lambda: Spy(inner.store, inner.runner)).consume([record(n, e) for n, e in enumerate(events)])
    assert answer == {"batchItemFailures": []}
    assert sum(len(item.body) + len(item.event.body or b"") for item in taken) <= 2 * 8_000_000
    assert [item.unread is None for item in taken] == [True, True, False, False, False]
    assert [
        bytes(body) for (body,) in world.query("SELECT body FROM postern.events ORDER BY payload ->> 'n'")
    ] == bodies
    assert [bytes(body) for (body,) in world.query("SELECT body FROM postern.deliveries")] == [whole]
    assert world.effects() == 5


def test_refused_deliveries_are_kept_a_few_at_a_time() -> None:
    kept: list[int] = []
    refused = Rejected(new_event_id(now()), "shop", now(), "unreadable", "POST", "/", [], {}, b"x" * 3_000_000)
    records = [record(n, replace(refused, id=new_event_id(now()))) for n in range(5)]
    keeping = replace(consumer(lambda: pytest.fail("no event")), keep=lambda several: kept.append(len(several)))
    assert keeping.consume(records) == {"batchItemFailures": []}
    assert kept == [3, 2]


MEASURED = """
import re, sys
from pathlib import Path
from tests.integration.test_large_bodies import consumed
consumed(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "fail")
print(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def consumed(url: str, number: int, size: int, fail: bool) -> None:
    def handle(event: Event, db: Any) -> None:
        if fail:
            raise ValueError(f"{len(event.payload)} keys")

    class Bodies:
        def get(self, key: str) -> bytes:
            words = os.urandom(12).hex() + " "
            return json.dumps({"n": key, "words": [words] * (size // (len(words) + 4))}).encode()

    events = [replace(work().event, body=None, body_key=str(n)) for n in range(number)]
    world = World(url, [])
    answer = consumer(lambda: world.processor(handle), Bodies()).consume([record(n, e) for n, e in enumerate(events)])
    assert len(answer["batchItemFailures"]) == (number if fail else 0)


@pytest.mark.parametrize("fail", ["succeed", "fail"])
def test_the_largest_bodies_fit_into_the_function_whatever_becomes_of_them(world: World, fail: str) -> None:
    """At most 60 % of its 512 MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, world.url, "20", str(LARGE), fail],
        cwd=PROJECT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(re.findall(r"\d+", done.stdout)[-1]) < 0.6 * 512_000
