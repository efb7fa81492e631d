"""What the functions write down: one line a fact, its metrics in it, and one id from the request to the row."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from chalicelib.postern.contract.envelope import to_message
from devstack.aws import EmulatedAws, Resources
from devstack.event_source import event_of
from devstack.settings import PROJECT
from tests.emf import metrics_in, names_in
from tests.integration.world import World, work
from tests.support import EVERY_SOURCE

Line = dict[str, Any]

TRACE = "1-5759e988-bd862e3fe1be46a994272793"

# A container of its own: it calls doors with events, one after the other, as Lambda does.
CONTAINER = """
import json, sys
from types import SimpleNamespace
import app
for number, (door, event) in enumerate(json.load(sys.stdin), start=1):
    function = app.app if door == "api" else getattr(app, door)
    try:
        id = f"{door}-{number}"
        answer = function(event, SimpleNamespace(aws_request_id=id, get_remaining_time_in_millis=lambda: 60_000))
    except Exception as exc:
        answer = f"raised {type(exc).__name__}"
    print("answered", json.dumps(answer), file=sys.stderr)
"""


def invoke(environ: dict[str, str], *calls: tuple[str, Any]) -> tuple[list[Any], list[Line]]:
    """The doors' answers, and every line that was logged."""
    done = subprocess.run(
        [sys.executable, "-c", CONTAINER],
        cwd=PROJECT,
        env=environ,
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [json.loads(line.partition(" ")[2]) for line in done.stderr.splitlines() if line.startswith("answered")]
    return answers, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def environ(aws: EmulatedAws, resources: Resources, world: World) -> dict[str, str]:
    """All that the functions have together, but X-Ray."""
    aws.put_secrets(resources, {"token": "canary"})
    return {
        **aws.environ(),
        "SOURCES_FILE": str(EVERY_SOURCE),
        "STAGE": "prod",
        "QUEUE_URL": resources.queue_url,
        "DEAD_LETTER_QUEUE_URL": resources.dead_letter_queue_url,
        "SOURCES_SECRET_ID": resources.sources_secret_id,
        "BODIES_BUCKET": resources.bodies_bucket,
        "DATABASE_URL": world.url,
        "PARTIAL_BATCH_RESPONSE": "true",
    }


def request(body: bytes, key: str = "canary", source: str = "token", **context: str) -> tuple[str, Line]:
    headers = {"Content-Type": "application/json", "X-Webhook-Token": key}
    return "api", {
        "requestContext": {"httpMethod": "POST", "resourcePath": "/webhooks/{source}", **context},
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "pathParameters": {"source": source},
        "multiValueQueryStringParameters": None,
        "stageVariables": None,
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }


@pytest.fixture
def received(aws: EmulatedAws, resources: Resources) -> Any:
    """What the event source mapping makes of the messages that are there."""

    def receive() -> tuple[str, Line]:
        answer = aws.client("sqs").receive_message(
            QueueUrl=resources.queue_url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"]
        )
        return "processor", event_of(answer.get("Messages", []), "arn:aws:sqs:us-east-1:000000000000:q")

    return receive


def counted(line: Line, **dimensions: str) -> float:
    """The value of the one metric of this line that counts events and has these dimensions."""
    [value] = [
        value
        for (name, by), value in metrics_in(line).items()
        if not name.endswith("_ms") and name != "secret_matches" and dict(by) == {"stage": "prod", **dimensions}
    ]
    return value


def test_one_id_leads_from_the_request_to_the_row(environ: dict[str, str], received: Any, world: World) -> None:
    environ["_X_AMZN_TRACE_ID"] = f"Root={TRACE};Parent=53995c3f42cd8ad8;Sampled=1"
    _, [accepted] = invoke(environ, request(b"{}", requestId="r-1"))
    environ["_X_AMZN_TRACE_ID"] = "Root=1-00000000-000000000000000000000000"  # of the processor's own invocation
    _, [processed, batch] = invoke(environ, received())
    assert [line["message"] for line in (accepted, processed, batch)] == [
        "delivery.accepted",
        "event.processed",
        "batch.consumed",
    ]
    assert accepted["id"] == processed["id"]
    assert (accepted["request_id"], accepted["trace_id"]) == ("r-1", TRACE)
    assert (processed["request_id"], processed["trace_id"]) == ("r-1", TRACE)
    assert world.query("SELECT id::text, request_id FROM postern.events") == [(accepted["id"], "r-1")]


def test_an_accepted_delivery_is_counted_by_its_source_in_its_one_line(environ: dict[str, str]) -> None:
    _, [line] = invoke(environ, request(b"{}"))
    assert names_in(line) == {"accepted", "secret_matches", "ack_ms"}
    assert re.fullmatch(r"[a-z-]+/[0-9a-f]{8}", line["secret_used"])
    assert counted(line) == counted(line, source="token") == 1
    assert line["ack_ms"] > 0


def test_an_accepted_delivery_is_counted_when_it_was_received(environ: dict[str, str]) -> None:
    """The ledger finds its row by the same minute; ids carry that time, in milliseconds."""
    _, [line] = invoke(environ, request(b"{}"))
    assert line["_aws"]["Timestamp"] == UUID(line["id"]).int >> 80


def test_a_rejected_delivery_is_counted_by_the_code_of_its_answer(environ: dict[str, str]) -> None:
    """What senders make up is no dimension: each of its values would be a metric to pay for."""
    away = {**environ, "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1"}
    broken = {**environ, "SOURCES_FILE": "/no/such/file.toml"}
    for where, call, code in [
        (environ, request(b"{}", "wrong"), "invalid_signature"),
        (environ, request(b"{"), "invalid_payload"),
        (environ, request(b"{}", source="made-up"), "unknown_source"),
        (away, request(b"{}"), "queue_unavailable"),
        (broken, request(b"{}"), "internal_error"),
    ]:
        [answer], [line] = invoke(where, call)
        assert json.loads(answer["body"])["error"] == code
        assert names_in(line) - {"ack_ms"} == {"rejected"}
        assert counted(line) == counted(line, reason=code) == 1
        assert {name for _, by in metrics_in(line) for name, _ in by} == {"stage", "reason"}


def test_a_name_that_somebody_made_up_fills_no_line(environ: dict[str, str]) -> None:
    _, [line] = invoke(environ, request(b"{}", source="x" * 5_000))
    assert line["source"] == "x" * 64


def test_lines_say_which_invocation_they_are_of_and_which_was_the_containers_first(environ: dict[str, str]) -> None:
    _, lines = invoke(environ, request(b"{}", requestId="r-1"), request(b"{}"), ("maintenance", SCHEDULED))
    assert [(line["function_request_id"], line["cold_start"]) for line in lines] == [
        ("api-1", True),
        ("api-2", False),
        ("maintenance-3", False),
    ]
    assert [line.get("request_id") for line in lines] == ["r-1", None, None]
    assert {line["stage"] for line in lines} == {"prod"}


def test_each_event_of_a_batch_is_counted_and_the_batch_is_one_line_more(
    environ: dict[str, str], aws: EmulatedAws, resources: Resources, received: Any
) -> None:
    first = work(source="token").event
    repeated = replace(work(source="token").event, dedup_key=first.dedup_key)
    elsewhere = work(source="made-up").event
    sqs = aws.client("sqs")
    for text in (to_message(first), to_message(repeated), to_message(elsewhere), "garbage"):
        sqs.send_message(QueueUrl=resources.queue_url, MessageBody=text)
    _, lines = invoke(environ, received())
    by_name = {(line["message"], line.get("source")): line for line in lines}
    assert set(by_name) == {
        ("event.processed", "token"),
        ("event.duplicate", "token"),
        ("event.processed", "unknown"),
        ("event.failed", "unknown"),
        ("batch.consumed", None),
    }
    for (name, source), metrics in {
        ("event.processed", "token"): {"processed", "ingest_lag_ms"},
        ("event.duplicate", "token"): {"duplicates"},
        ("event.processed", "unknown"): {"processed", "ingest_lag_ms"},
        ("event.failed", "unknown"): {"failed"},
    }.items():
        line = by_name[name, source]
        assert names_in(line) == metrics
        assert counted(line) == counted(line, source=source) == 1
    assert by_name["event.processed", "unknown"]["undeclared_source"] == "made-up"
    assert by_name["event.processed", "token"]["ingest_lag_ms"] > 0
    batch = by_name["batch.consumed", None]
    assert metrics_in(batch) == {("batch_size", (("stage", "prod"),)): 4}
    assert batch["outcomes"] == {"processed": 2, "duplicate": 1, "failed": 1}
    assert batch["duration_ms"] > 0


def test_what_waits_for_the_database_is_delayed_and_what_is_given_up_dead(
    environ: dict[str, str], aws: EmulatedAws, resources: Resources, received: Any
) -> None:
    sqs = aws.client("sqs")
    sqs.send_message(QueueUrl=resources.queue_url, MessageBody=to_message(work(source="token").event))
    _, [delayed, _] = invoke({**environ, "DATABASE_URL": "postgresql://u:p@127.0.0.1:1/d"}, received())
    assert (delayed["message"], names_in(delayed), counted(delayed, source="token")) == (
        "event.delayed",
        {"delayed"},
        1,
    )
    sqs.send_message(QueueUrl=resources.queue_url, MessageBody="garbage")
    _, [dead, _] = invoke({**environ, "MAX_ATTEMPTS": "1"}, received())
    assert (dead["message"], names_in(dead), counted(dead, source="unknown")) == ("event.dead", {"dead"}, 1)


def test_an_event_is_counted_as_dead_once_it_is_among_the_dead_letters(
    environ: dict[str, str], aws: EmulatedAws, resources: Resources, received: Any
) -> None:
    aws.client("sqs").send_message(QueueUrl=resources.queue_url, MessageBody="garbage")
    environ |= {"MAX_ATTEMPTS": "1", "DEAD_LETTER_QUEUE_URL": f"{resources.dead_letter_queue_url}-gone"}
    [answer], [failed, delayed, batch] = invoke(environ, received())
    assert len(answer["batchItemFailures"]) == 1
    assert (failed["message"], delayed["message"]) == ("dead_letter.failed", "event.delayed")
    assert failed["message_id"] == delayed["message_id"]
    assert batch["outcomes"] == {"delayed": 1}


SCHEDULED = {
    "version": "0",
    "account": "1",
    "region": "r",
    "detail": {},
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "time": "2026-11-23T12:00:00Z",
    "id": "1",
    "resources": [],
}


def test_maintenance_says_what_it_did_and_how_long_it_took(environ: dict[str, str], world: World) -> None:
    world.query("SELECT * FROM postern.events")
    [answer], [line] = invoke(environ, ("maintenance", SCHEDULED))
    assert (line["message"], line["level"]) == ("maintenance.done", "INFO")
    assert line["partitions_made"] == answer["partitions_made"]
    assert line["rejected_dropped"] == answer["rejected_dropped"] == 0
    assert line["duration_ms"] > 0


def test_a_duty_that_fails_is_told_by_the_status_until_it_is_done_again(environ: dict[str, str], world: World) -> None:
    def failing() -> Any:
        invoke(environ, ("maintenance", SCHEDULED))
        [answer], _ = invoke(environ, ("reader", {"action": "status"}))
        return answer["well"], [(each["name"], each["done_at"] is None) for each in answer["failing_duties"]]

    world.query("ALTER TABLE postern.counting RENAME TO elsewhere")
    assert failing() == (False, [("counts", True)])
    world.query("ALTER TABLE postern.elsewhere RENAME TO counting")
    assert failing()[1] == []
    world.query("ALTER TABLE postern.counting RENAME TO elsewhere")
    assert failing()[1] == [("counts", False)]


def test_maintenance_that_fails_still_fails_its_function(environ: dict[str, str]) -> None:
    """So that Lambda counts it among the function's errors, which has an alarm."""
    away = {**environ, "DATABASE_URL": "postgresql://u:canary@127.0.0.1:1/d"}
    [answer], [line] = invoke(away, ("maintenance", SCHEDULED))
    assert answer == "raised MaintenanceFailed"
    assert (line["message"], line["reason"]) == ("maintenance.failed", "MaintenanceFailed")


def test_a_store_call_is_a_line_with_its_action_and_no_data(environ: dict[str, str]) -> None:
    answers, lines = invoke(
        environ,
        ("store", {"action": "events", "source": "canary"}),
        ("store", {"action": "show", "id": "canary"}),
    )
    assert answers == [{"events": [], "searched_to": None}, {"refused": "Action 'show': {'id': ['Not a valid UUID.']}"}]
    assert [(line["message"], line["action"]) for line in lines] == [
        ("store.done", "events"),
        ("store.failed", "show"),
    ]
    assert lines[0]["duration_ms"] > 0
    assert "canary" not in json.dumps(lines)
