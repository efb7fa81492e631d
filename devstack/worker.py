"""One processor container and its share of the event source mapping: polls the queue, invokes, deletes what is done.

A worker is a process because a container is one: when the function takes too long it is killed, connection and all.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from devstack.event_source import Verdict, event_of, verdict_on_answer
from devstack.settings import PROCESSOR_TIMEOUT_SECONDS

READY = "worker.ready"

_BATCH_SIZE = 10
_POLL_SECONDS = 1
_BATCHING_WINDOW_SECONDS = 0.05
_REST_SECONDS = 1.0


@dataclass(frozen=True)
class Context:
    """As much of Lambda's context object as the app looks at."""

    timeout_seconds: float
    function_name: str = "postern-local-processor"
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        return int((self.timeout_seconds - (time.monotonic() - self.started)) * 1000)


class Worker:
    """Polls one queue for one function, until it is told to stop; a batch that was begun is finished."""

    def __init__(
        self,
        sqs: Any,
        queue_url: str,
        function: Callable[[Mapping[str, Any], Any], Any],
        *,
        partial_responses: bool,
        timeout_seconds: int,
    ) -> None:
        self._sqs = sqs
        self._queue_url = queue_url
        self._function = function
        self._partial_responses = partial_responses
        self._timeout_seconds = timeout_seconds
        self._stopping = False
        self._queue_arn = ""

    def stop(self, *_: object) -> None:
        self._stopping = True

    def run(self) -> None:
        away = False
        while not self._stopping:
            try:
                if not self._queue_arn:
                    self._queue_arn = self._arn()
                    _say(READY)
                if messages := self._receive():
                    self._process(messages)
                away = False
            except (BotoCoreError, ClientError) as exc:
                if not away:
                    _say("worker.queue_unavailable", reason=type(exc).__name__)
                away = True
                time.sleep(_REST_SECONDS)

    def _arn(self) -> str:
        answer = self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=["QueueArn"])
        return str(answer["Attributes"]["QueueArn"])

    def _receive(self) -> list[dict[str, Any]]:
        """Waits for a first message, then takes what comes along within the batching window."""
        messages = self._receive_up_to(_BATCH_SIZE, _POLL_SECONDS)
        closes = time.monotonic() + _BATCHING_WINDOW_SECONDS
        while 0 < len(messages) < _BATCH_SIZE and time.monotonic() < closes:
            more = self._receive_up_to(_BATCH_SIZE - len(messages), 0)
            if not more:
                break
            messages += more
        return messages

    def _receive_up_to(self, count: int, wait_seconds: int) -> list[dict[str, Any]]:
        answer = self._sqs.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=count,
            WaitTimeSeconds=wait_seconds,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        return list(answer.get("Messages", []))

    def _process(self, messages: list[dict[str, Any]]) -> None:
        verdict = self._invoke(messages)
        if verdict.warning:
            _say("batch.failed", level="ERROR", reason=verdict.warning)
        done = [message["ReceiptHandle"] for message in messages if message["MessageId"] in verdict.delete]
        if done:
            self._sqs.delete_message_batch(
                QueueUrl=self._queue_url,
                Entries=[{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(done)],
            )

    def _invoke(self, messages: list[dict[str, Any]]) -> Verdict:
        # From a thread that needs no Python to run: it ends the process wherever that is stuck, as Lambda does, and
        # says where that was.
        faulthandler.dump_traceback_later(self._timeout_seconds, exit=True)
        try:
            answer = self._function(event_of(messages, self._queue_arn), Context(self._timeout_seconds))
        except Exception as exc:
            return Verdict(frozenset(), f"{type(exc).__name__}: {exc}")
        finally:
            faulthandler.cancel_dump_traceback_later()
        ids = [message["MessageId"] for message in messages]
        return verdict_on_answer(answer, ids, partial_responses=self._partial_responses)


def _say(message: str, level: str = "INFO", **fields: str) -> None:
    print(json.dumps({"level": level, "message": message, **fields}), flush=True)


def main() -> None:
    import app

    worker = Worker(
        boto3.client("sqs", config=Config(retries={"total_max_attempts": 1})),
        os.environ["QUEUE_URL"],
        app.processor,
        partial_responses=os.environ.get("PARTIAL_BATCH_RESPONSE") == "true",
        timeout_seconds=PROCESSOR_TIMEOUT_SECONDS,
    )
    signal.signal(signal.SIGTERM, worker.stop)
    worker.run()


if __name__ == "__main__":
    main()
