"""Where `postern listen` sends events on to: an address, or the local run's queue."""

from __future__ import annotations

import base64
import http.client
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlsplit
from uuid import UUID

from chalicelib.postern.contract.envelope import MAX_MESSAGE_BYTES, Accepted, to_message
from chalicelib.postern.receiving.sources import Source
from cli.forwarding import reading, sendable
from cli.local import LocalRun

# A server that is being restarted is back by then.
_PAUSES = (1.0, 2.0, 4.0)
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Sent:
    """What became of one event: a word or two for its line. It has not `arrived` where nobody answered."""

    outcome: str
    ok: bool = True
    arrived: bool = True


class Target(Protocol):
    def send(self, event: Mapping[str, Any]) -> Sent: ...


@dataclass(frozen=True)
class Address:
    """POSTs each event's exact body, with its own headers. One that does not answer is tried again, then given up."""

    url: str
    say: Callable[[str], None]
    wait: Callable[[float], None]

    def send(self, event: Mapping[str, Any]) -> Sent:
        for pause in (*_PAUSES, None):
            try:
                started = time.perf_counter()
                status = self._post(event)
                took = (time.perf_counter() - started) * 1000
                return Sent(f"{status} in {took:.0f} ms", ok=200 <= status < 300)
            except (OSError, http.client.HTTPException) as exc:
                reason = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
                if pause is None:
                    return Sent(f"skipped: {reason}", ok=False, arrived=False)
                self.say(f"{self.url} does not answer ({reason}); again in {pause:.0f} s.")
                self.wait(pause)
        raise AssertionError("the last pause is None")

    def _post(self, event: Mapping[str, Any]) -> int:
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=_PATIENCE_SECONDS)
        body = base64.b64decode(event["body"])
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.putrequest("POST", path, skip_accept_encoding=True)
            for name, value in sendable(event["headers"]).headers:
                connection.putheader(name, value.encode())
            connection.putheader("Content-Length", str(len(body)))
            connection.putheader("X-Postern-Id", event["id"])
            connection.putheader("X-Postern-Source", event["source"])
            connection.endheaders(body)
            answer = connection.getresponse()
            answer.read(65_536)
            return answer.status
        finally:
            connection.close()


@dataclass(frozen=True)
class LocalHandlers:
    """Puts each event into the local run's queue, as its API function would have; its processor does the rest."""

    run: LocalRun
    sources: Mapping[str, Source]
    _client: list[Any] = field(default_factory=list)

    def send(self, event: Mapping[str, Any]) -> Sent:
        format, form_field = reading(event, self.sources.get(event["source"]))
        message = to_message(
            Accepted(
                id=UUID(event["id"]),
                source=event["source"],
                type=event["type"],
                dedup_key=event["dedup_key"],
                received_at=datetime.fromisoformat(event["received_at"]),
                headers=event["headers"],
                body=base64.b64decode(event["body"]),
                form_field=form_field,
                request_id=event["request_id"],
                format=format,
            )
        )
        if len(message) > MAX_MESSAGE_BYTES:
            return Sent("skipped: larger than a message of the queue", ok=False)
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self._sqs().send_message(QueueUrl=self.run.queue_url, MessageBody=message, MessageGroupId=event["source"])
        except (BotoCoreError, ClientError) as exc:
            return Sent(f"skipped: the local run's queue does not take it ({type(exc).__name__})", False, False)
        return Sent("queued for the local handlers")

    def _sqs(self) -> Any:
        """With the local run's credentials, whatever the environment says: that is of the stage."""
        if not self._client:
            import boto3  # a third of a second, which no other command has to pay
            from botocore.config import Config

            environ = self.run.environ()
            session = boto3.Session(
                aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
                region_name=environ["AWS_DEFAULT_REGION"],
            )
            once = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 1})
            self._client.append(session.client("sqs", endpoint_url=self.run.aws_endpoint_url, config=once))
        return self._client[0]
