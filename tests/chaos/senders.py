"""Providers: they send, get no answer, send again, send twice what was accepted; and some are not who they say."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tests.chaos.history import ACCEPTED, Kind, Sent

_KINDS = {Kind.PLAIN: 0.88, Kind.FLAKY: 0.05, Kind.POISON: 0.03, Kind.FORGED: 0.04}
_HOT = 0.1
_REPEATED = 0.1
# More than a message carries, and nothing that compresses.
_LARGE, _LARGE_BYTES = 0.005, 1_100_000
_PATIENCE_SECONDS = 6
_TRIES = 6
_FORGER = "somebody else's"


@dataclass
class Senders:
    """`history`: what was sent, by key. Sends `rate` events a second until it is told to stop."""

    port: int
    secrets: Mapping[str, str]
    chance: random.Random
    history: dict[str, Sent] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, rate: float, threads: int = 16) -> None:
        numbers, began = itertools.count(), time.monotonic()

        def work(chance: random.Random) -> None:
            while not self._stopping.is_set():
                number = next(numbers)
                if self._stopping.wait(max(0.0, began + number / rate - time.monotonic())):
                    return
                [kind] = chance.choices(list(_KINDS), list(_KINDS.values()))
                self.send(kind, number, chance)

        for _ in range(threads):
            each = threading.Thread(target=work, args=(random.Random(self.chance.random()),), daemon=True)
            each.start()
            self._threads.append(each)

    def stop(self) -> None:
        self._stopping.set()
        for each in self._threads:
            each.join()

    def send(self, kind: Kind, number: int, chance: random.Random) -> str:
        """Until there is an answer, or patience is at its end; its key."""
        key = f"{kind}-{uuid.UUID(int=chance.getrandbits(128))}"
        sent = self.history[key] = Sent(kind)
        source = "github" if chance.random() < 0.8 else "shop"
        secret = _FORGER if kind is Kind.FORGED else self.secrets[source]
        told = {"key": key, "kind": kind, "number": number, "hot": chance.random() < _HOT}
        if chance.random() < _LARGE:
            told["padding"] = base64.b64encode(chance.randbytes(_LARGE_BYTES)).decode()
        body = json.dumps(told).encode()
        headers = _signed(source, body, secret, key)
        for pause in _pauses(chance):
            answer = self._post(source, body, headers)
            sent.answers.append(answer)
            if answer is not None and answer < 500:
                break
            if chance.random() < 0.05:
                break  # some never come again
            time.sleep(pause)
        if sent.answers[-1] == ACCEPTED and chance.random() < _REPEATED:
            sent.answers.append(self._post(source, body, headers))
        return key

    def _post(self, source: str, body: bytes, headers: Mapping[str, str]) -> int | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_SECONDS)
        with contextlib.closing(connection):
            try:
                connection.request("POST", f"/webhooks/{source}", body, dict(headers))
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                return None
            return answer.status


def _pauses(chance: random.Random) -> Iterator[float]:
    for attempt in range(_TRIES):
        yield min(8.0, 0.3 * 2**attempt) * chance.uniform(0.5, 1.5)


def _signed(source: str, body: bytes, secret: str, key: str) -> dict[str, str]:
    signature = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    if source == "shop":
        return {"Content-Type": "application/json", "X-Signature": signature}
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": key,
        "X-Hub-Signature-256": f"sha256={signature}",
    }
