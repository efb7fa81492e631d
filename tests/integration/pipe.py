"""The way of a delivery through the real code: accepted, put into a message, and processed when it is told to."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from chalicelib.postern.contract.deliveries import Delivery, Greeting, Headers
from chalicelib.postern.contract.envelope import Accepted
from chalicelib.postern.contract.errors import QueueUnavailable
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.processing.attempts import Work
from chalicelib.postern.processing.handling import Handler
from chalicelib.postern.processing.settling import Kind
from chalicelib.postern.receiving.ingest import Inbox, Receipt, accept
from chalicelib.postern.receiving.sources import Sources
from tests.integration.world import World, effect, now
from tests.support import EVERY_SOURCE

SECRET = "s3cret"


@dataclass
class Pipe:
    """An inbox whose messages are processed when it is told to."""

    world: World
    inbox: Inbox
    messages: list[str] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    fails_after: int | None = None
    requests: int = 0
    at: datetime | None = None

    @classmethod
    def with_sources(cls, world: World, folder: Path, text: str) -> Pipe:
        """With these sources beside the shipped ones."""
        file = folder / "sources.toml"
        file.write_text(EVERY_SOURCE.read_text("utf-8") + text, "utf-8")
        made = cls(world, inbox=None)  # type: ignore[arg-type]
        made.inbox = Inbox(Sources(file), lambda source: [SECRET], made, made)
        return made

    def send(self, message: str, *, group: str, trace: str | None) -> None:
        if self.fails_after is not None and len(self.messages) >= self.fails_after:
            raise QueueUnavailable("away")
        self.messages.append(message)

    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None) -> None:
        for message in messages:
            self.send(message, group=group, trace=trace)

    def put(self, key: str, body: bytes) -> None:
        self.bodies[key] = body

    def deliver(self, source: str, body: bytes, **headers: str) -> Receipt:
        result = self.request(source, body, **headers)
        assert isinstance(result, Receipt)
        return result

    def request(self, source: str, body: bytes, **headers: str) -> Receipt | Greeting:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given.setdefault("X-Signature", hmac.digest(SECRET.encode(), body, "sha256").hex())
        self.requests += 1  # a millisecond apart, because an earlier id goes before a later one
        at = (self.at or now()) + timedelta(milliseconds=self.requests)
        return accept(Delivery(source, Headers(given.items()), body, at), self.inbox)

    def process(self) -> list[Kind]:
        """Everything that is queued, in one batch; every event has an effect that doubles would show."""
        works = []
        for message in self.messages:
            event = from_message(message)
            assert isinstance(event, Accepted)
            body = self.bodies[event.body_key] if event.body_key else event.body
            if event.delivery_body_key:
                event = replace(event, delivery_body=self.bodies[event.delivery_body_key])
            assert body is not None
            works.append(Work(event, body))
        self.messages.clear()
        processor = self.world.processor(handlers=[Handler("*", "*", effect)])
        outcomes = processor.process(works)
        return [outcomes[work.event.id].kind for work in works]

    def rows(self, columns: str) -> list[Any]:
        found = self.world.query(f"SELECT {columns} FROM postern.events ORDER BY id")
        return [row[0] if len(row) == 1 else row for row in found]
