"""The deployment's own test: what a working installation does, from a sender's POST to the dead letters.

It stops at the first thing that fails and says what that was. What AWS does in a role's name and the emulator does
without asking is asked of IAM instead.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib.postern.api.routes import ROUTES
from chalicelib.postern.contract.histories import as_event
from tests.deployment.installation import Answer, Installation

_PATIENCE_SECONDS = 30.0


class Unacceptable(Exception):
    """What an installation that works would not have done."""


def accept(installation: Installation) -> None:
    """Raises Unacceptable with what does not work."""
    for function in FUNCTIONS:
        probe(installation, function)


def probe(installation: Installation, function: str, patience_seconds: float = _PATIENCE_SECONDS) -> None:
    """Has this function do all that its role is for. Raises Unacceptable with what does not work, at the latest when
    something has not happened within `patience_seconds`.
    """
    _ask_iam(installation, function)
    _PROBES[function](installation, patience_seconds)


def _probe_api_handler(installation: Installation, patience_seconds: float) -> None:
    _accepted(installation.post("github"))
    _accepted(installation.post("hmac", _order("created", 900_000)))
    answer = installation.api("GET", "version")
    if answer.status != 200:
        raise Unacceptable(f"GET /api/version: {answer.status} {answer.body}")
    # By way of the reconciler, which knows no such source.
    answer = installation.api("POST", "reconciliations", {"source": "nobody"})
    if answer.status != 409:
        raise Unacceptable(f"POST /api/reconciliations: {answer.status} {answer.body}")


def _probe_processor(installation: Installation, patience_seconds: float) -> None:
    began = time.time()
    ids = {
        "an event": _accepted(installation.post("github")),
        "a large event": _accepted(installation.post("hmac", _order("created", 900_000))),
        "a poisoned event": _accepted(installation.post("hmac", _order("poisoned"))),
    }
    expected = {"an event": "processed", "a large event": "processed", "a poisoned event": "dead"}
    if _handlers_have_a_secret(installation):
        ids["one that needs a secret"] = _accepted(installation.post("hmac", _order("keyed")))
        expected["one that needs a secret"] = "processed"
    for name, status in expected.items():
        _until(
            lambda id=ids[name], status=status: [row["status"] for row in installation.rows([id])] == [status],  # type: ignore[misc]
            f"{name} is not {status}",
            installation,
            began,
            patience_seconds,
        )
    _until(
        lambda: ids["a poisoned event"] in _dead_letter_ids(installation),
        "the poisoned event is not among the dead letters",
        installation,
        began,
        patience_seconds,
    )


Ask = Callable[..., dict[str, Any]]


def _probe_store(installation: Installation, patience_seconds: float) -> None:
    def ask(action: str, **arguments: Any) -> dict[str, Any]:
        answer = installation.invoke(f"{installation.name}-store", {"action": action, **arguments})
        if answer["failed"] or "refused" in answer["result"]:
            raise Unacceptable(f"store: {action}: {answer['result']}")
        result: dict[str, Any] = answer["result"]
        return result

    ask("migrate")
    _operate(ask, installation, patience_seconds)


def _probe_backend(installation: Installation, patience_seconds: float) -> None:
    """What an operator has the store do, by the API."""

    def ask(action: str, **arguments: Any) -> dict[str, Any]:
        (route, *_) = [route for route in ROUTES if route.action == action]
        path = route.path.removeprefix("/api/").replace("{id}", str(arguments.get("id", "")))
        body = None if route.method == "GET" else {} if "{id}" in route.path else arguments
        answer = installation.api(route.method, path, body)
        if answer.status != 200:
            raise Unacceptable(f"{route.method} {path}: {answer.status} {answer.body}")
        result: dict[str, Any] = answer.body
        return result

    _operate(ask, installation, patience_seconds)


def _operate(ask: Ask, installation: Installation, patience_seconds: float) -> None:
    """An operator looks at the dead letters, moves one back, which dies once more, and has an event replayed."""

    def attempts_of(id: str) -> int:
        return int(installation.rows([id])[0]["attempts"])

    for left in ask("replays")["replays"]:  # by a probe that ended half-way
        if left["state"] == "running":
            ask("cancel_replay", id=left["id"])
    ask("dead_letters")
    if _handlers_have_a_secret(installation):
        [(keyed,)] = installation.query("SELECT id::text FROM postern.events WHERE type = 'order.keyed' LIMIT 1")
        tried = ask("dry_run", id=keyed)
        if tried["outcome"] != "processed":
            raise Unacceptable(f"a dry run that needs a secret: {tried}")
    newest = "SELECT id::text FROM postern.events WHERE type = %s AND status = %s ORDER BY id DESC LIMIT 1"
    [(redriven,)] = installation.query(newest, "order.poisoned", "dead")
    [(replayed,)] = installation.query(newest, "order.created", "processed")
    began = time.time()
    before = attempts_of(redriven)
    redrive = ask("start_redrive", id=redriven)["replay"]
    _until(
        lambda: ask("advance_redrive", id=redrive["id"])["replay"]["state"] == "done",
        "the redrive does not end",
        installation,
        began,
        patience_seconds,
    )
    _until(
        lambda: attempts_of(redriven) > before and installation.rows([redriven])[0]["status"] == "dead",
        "the redriven event does not die once more",
        installation,
        began,
        patience_seconds,
    )
    _until(
        lambda: redriven in _dead_letter_ids(installation),
        "its letter does not come back",
        installation,
        began,
        patience_seconds,
    )
    before = attempts_of(replayed)
    replay = ask("start_replay", ids=[replayed])["replay"]
    ask("advance_replay", id=replay["id"])
    _until(lambda: attempts_of(replayed) > before, "the event is not replayed", installation, began, patience_seconds)


def _probe_reader(installation: Installation, patience_seconds: float) -> None:
    """Somebody looks, and is refused what is not looking."""
    for action, refused in (
        ("events", False),
        ("stream", False),
        ("status", False),
        ("start_replay", True),
        ("migrate", True),
    ):
        answer = installation.invoke(f"{installation.name}-reader", {"action": action})
        if answer["failed"] or ("refused" in answer["result"]) is not refused:
            raise Unacceptable(f"reader: {action}: {answer['result']}")


def _probe_maintenance(installation: Installation, patience_seconds: float) -> None:
    """After the others: it counts what has been stored."""
    answer = installation.invoke(f"{installation.name}-maintenance", _MAINTENANCE)
    if answer["failed"]:
        raise Unacceptable(f"maintenance: {answer['result'].get('errorMessage')}")


def _probe_reconciler(installation: Installation, patience_seconds: float) -> None:
    """What a provider remembers and nobody has, large enough to go by the bucket, is fetched."""

    def ask(detail: dict[str, Any]) -> dict[str, Any]:
        answer = installation.invoke(f"{installation.name}-reconciler", as_event(detail))
        result: dict[str, Any] = answer["result"]
        if answer["failed"] or "unavailable" in result or "refused" in result:
            raise Unacceptable(f"reconciler: {result}")
        return result

    if installation.providers is None:
        ask({})
        return
    guid = str(uuid.uuid4())
    installation.providers.deliveries.clear()
    body = json.dumps({"noise": random.randbytes(900_000).hex()}, separators=(",", ":")).encode()
    at = datetime.now(UTC) - timedelta(hours=1)
    installation.providers.deliver(guid, body, at, installation.secrets["code"], event="star")
    run = ask({"begin": {"source": "code", "since": None, "only_looks": False}})["reconciliation"]
    while run["state"] in ("listing", "fetching"):
        step = ask({"step": run["id"]})
        if step["held"]:
            raise Unacceptable(f"reconciler: {step['held']}")
        run = step["reconciliation"]
    if (run["state"], run["fetched"]) != ("done", 1):
        raise Unacceptable(f"reconciler: {run}")


_PROBES: dict[str, Callable[[Installation, float], None]] = {
    "api_handler": _probe_api_handler,
    "processor": _probe_processor,
    "store": _probe_store,
    "reader": _probe_reader,
    "backend": _probe_backend,
    "reconciler": _probe_reconciler,
    "maintenance": _probe_maintenance,
}
FUNCTIONS = tuple(_PROBES)

_MAINTENANCE = {
    "id": "1", "detail-type": "Scheduled Event", "source": "aws.events", "account": "", "time": "",
    "region": "us-east-1", "resources": [], "detail": {}, "version": "0",
}  # fmt: skip


def _handlers_have_a_secret(installation: Installation) -> bool:
    found = installation.cloud.client("lambda").get_function_configuration(
        FunctionName=f"{installation.name}-processor"
    )
    return bool(found["Environment"]["Variables"].get("HANDLERS_SECRET_ID"))


def _order(type: str, noise: int = 16) -> bytes:
    """Another one each time, for what is the same is a duplicate."""
    return json.dumps({"type": f"order.{type}", "noise": random.randbytes(noise).hex()}).encode()


def _accepted(answer: Answer) -> str:
    if answer.status != 202:
        raise Unacceptable(f"POST: {answer.status} {answer.body}")
    return str(answer.body["id"])


def _until(
    holds: Callable[[], bool], complaint: str, installation: Installation, began: float, patience_seconds: float
) -> None:
    """Waits, but no longer than until a function says that it was denied something."""
    deadline = time.monotonic() + patience_seconds
    while not holds():
        for line in installation.lines(f"{installation.name}-processor", since=began):
            if "AccessDenied" in json.dumps(line):
                raise Unacceptable(f"{complaint}: {line['message']}: {line.get('reason')}")
        if time.monotonic() > deadline:
            raise Unacceptable(f"{complaint}, and nothing says why")
        time.sleep(0.1)


def _dead_letter_ids(installation: Installation) -> list[str]:
    """All of them, seen and left there."""
    client, queue = installation.cloud.client("sqs"), installation.outputs["DeadLetterQueueUrl"]
    seen: list[Any] = []
    while found := client.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=30).get("Messages"):
        seen += found
    for message in seen:
        client.change_message_visibility(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    return [json.loads(message["Body"])["id"] for message in seen]


def by_aws(installation: Installation) -> Iterator[tuple[str, str, str]]:
    """Function, action and resource of what AWS does in a function's name, and the emulator without asking."""
    account = "arn:aws:logs:us-east-1:000000000000"
    for function in FUNCTIONS:
        name = installation.name + ("" if function == "api_handler" else f"-{function}")
        for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
            yield function, action, f"{account}:log-group:/aws/lambda/{name}:log-stream:2026/11/23/[1]0"
        for action in ("xray:PutTraceSegments", "xray:PutTelemetryRecords"):
            yield function, action, "*"
    # After nine tenths of the receives that SQS allows a message: longer than anybody wants to wait.
    yield "processor", "sqs:SendMessage", installation.outputs["QueueArn"]
    # The event source mapping's; CreateEventSourceMapping fails without them.
    for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"):
        yield "processor", action, installation.outputs["QueueArn"]


def _ask_iam(installation: Installation, function: str) -> None:
    iam = installation.cloud.client("iam")
    for of, action, resource in by_aws(installation):
        if of != function:
            continue
        decision = iam.simulate_principal_policy(
            PolicySourceArn=installation.role_of(function), ActionNames=[action], ResourceArns=[resource]
        )["EvaluationResults"][0]["EvalDecision"]
        if decision != "allowed":
            raise Unacceptable(f"{function} is denied {action} on {resource}")
