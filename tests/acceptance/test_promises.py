"""The promises of the design, each under its own name, kept by the running system."""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from tests.acceptance.conftest import Run
from tests.acceptance.test_inbox import push, rows, signed_as_github, signed_as_hmac
from tests.support import eventually, with_the_example


@contextmanager
def suspended(processes: list[psutil.Process]) -> Iterator[None]:
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def running(run: Run, word: str) -> list[psutil.Process]:
    found = []
    for process in run.processes():
        try:
            if any(word in part for part in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def sqs(run: Run) -> Any:
    return boto3.client(
        "sqs",
        endpoint_url=run.facts["aws_endpoint_url"],
        region_name="us-east-1",
        aws_access_key_id=run.facts["aws_access_key_id"],
        aws_secret_access_key="test",
    )


def sale(**facts: Any) -> bytes:
    return json.dumps({"type": "sale", "id": uuid.uuid4().hex, **facts}).encode()


def pushes(run: Run, repository: str) -> int:
    found = run.query("SELECT sum(pushes) FROM github_pushes WHERE repository = %s", repository)
    return int(found[0][0] or 0)


def test_1_202_means_durable(run: Run) -> None:
    """Killed the moment after its answer, the API function has lost nothing; without the queue there is no 202."""
    body = sale()
    with suspended(running(run, "devstack.worker")):
        status, answer = run.post("/webhooks/hmac", body, signed_as_hmac(run, body))
        assert status == 202
        run.running("devstack.api_server").kill()
        assert rows(run, answer["id"]) == []
    [(_, stored)] = eventually(lambda: rows(run, answer["id"]))
    assert bytes(stored) == body
    eventually(lambda: _answers(run))
    with suspended(running(run, "devstack.emulated_aws")):
        status, answer = run.post("/webhooks/hmac", body := sale(), signed_as_hmac(run, body))
    assert (status, answer["error"]) == (503, "queue_unavailable")


def _answers(run: Run) -> bool:
    try:
        return run.post("/webhooks/hmac", b"{}")[0] == 401
    except OSError:
        return False


# Each of two workers may have been asking for ten when it was suspended; some are left to be looked at.
DELIVERIES = 25


@with_the_example
def test_2_exactly_once_effects(run: Run) -> None:
    """Redelivered by the provider, twenty times at once, by SQS, and by hand."""
    repository = f"acme/{uuid.uuid4().hex}"
    body = push(repository)
    headers = signed_as_github(run, body)
    with suspended(running(run, "devstack.worker")):
        with ThreadPoolExecutor(20) as senders:
            answers = list(senders.map(lambda _: run.post("/webhooks/github", body, headers), range(DELIVERIES)))
        assert [status for status, _ in answers] == [202] * DELIVERIES
        # SQS brings a message again: another one with the same text.
        client, queue = sqs(run), run.facts["queue_url"]
        [message] = client.receive_message(QueueUrl=queue, MaxNumberOfMessages=1, VisibilityTimeout=0)["Messages"]
        client.send_message(QueueUrl=queue, MessageBody=message["Body"])
    eventually(lambda: pushes(run, repository) == 1)
    repeated = "SELECT count(*) FROM postern.duplicates JOIN postern.events USING (source) WHERE event_id = events.id"
    eventually(
        lambda: (
            run.query(f"{repeated} AND payload #>> '{{repository,full_name}}' = %s", repository) == [(DELIVERIES - 1,)]
        )
    )
    # By hand: the message once more, long after.
    client.send_message(QueueUrl=queue, MessageBody=message["Body"])
    eventually(lambda: _emptied(client, queue))
    assert pushes(run, repository) == 1


def _emptied(client: Any, queue: str) -> bool:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = client.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return sum(map(int, found.values())) == 0


@with_the_example
def test_3_one_bad_event_hurts_only_itself(run: Run) -> None:
    """Its mates commit; it ends among the dead letters, visible with its error and traceback, and can be redriven."""
    repository = f"acme/{uuid.uuid4().hex}"
    bodies = [push(repository, n=n) for n in range(9)]
    bodies.insert(4, json.dumps({"poison": uuid.uuid4().hex}).encode())
    with suspended(running(run, "devstack.worker")):
        ids = [run.post("/webhooks/github", body, signed_as_github(run, body))[1]["id"] for body in bodies]
    eventually(lambda: pushes(run, repository) == 9)
    bad = ids[4]
    eventually(lambda: rows(run, bad)[:1] and rows(run, bad)[0][0] == "dead", timeout=40)
    assert [rows(run, id)[0][0] for id in ids if id != bad] == ["processed"] * 9
    shown = run.postern("show", bad).stdout
    assert "KeyError: 'repository'" in shown
    assert "in count_push" in shown
    assert "attempt 3 (retry) dead" in shown
    eventually(lambda: bad in run.postern("dead", "--limit", "200").stdout)
    assert run.postern("dead", "redrive", "--id", bad, "--yes").returncode == 0
    tries = "SELECT trigger FROM postern.attempts WHERE event_id = %s AND number = 4"
    eventually(lambda: run.query(tries, bad) == [("redrive",)])


def test_4_verify_before_parse(run: Run) -> None:
    """What is not verified is not even looked at: neither parsed, nor logged, nor stored."""
    canary = uuid.uuid4().hex
    hopeless = f'{{"canary": "{canary}", "never closed'.encode()
    headers = {"Content-Type": "application/json", "X-Signature": "0" * 64}
    assert run.post("/webhooks/hmac", hopeless, headers) == run.post("/webhooks/hmac", b"{}", headers)
    status, answer = run.post("/webhooks/hmac", hopeless, headers)
    assert (status, answer["error"]) == (401, "invalid_signature")
    status, answer = run.post("/webhooks/hmac", hopeless, signed_as_hmac(run, hopeless))
    assert (status, answer["error"]) == (400, "invalid_payload")
    assert canary not in "".join(log.read_text("utf-8", "replace") for log in (run.state / "logs").glob("*.log"))
    assert run.query("SELECT count(*) FROM postern.events WHERE encode(body, 'escape') LIKE %s", f"%{canary}%") == [
        (0,)
    ]


def test_5_bytes_are_kept(run: Run, tmp_path: Path) -> None:
    """What was exported verifies again, byte for byte."""
    body = b' {"b" : 1.10,\r\n\t"a": "\xc3\xa9\\u0000", "b":2, "id": "' + uuid.uuid4().hex.encode() + b'"}\n\n'
    _, answer = run.post("/webhooks/hmac", body, signed_as_hmac(run, body))
    eventually(lambda: rows(run, answer["id"]))
    exported = run.postern("export", answer["id"], "--raw", str(tmp_path / "event"))
    assert exported.returncode == 0, exported.stderr
    kept = (tmp_path / "event" / "body").read_bytes()
    headers = json.loads((tmp_path / "event" / "headers.json").read_text())
    assert kept == body
    assert headers["x-signature"] == hmac.new(run.secret("hmac").encode(), kept, hashlib.sha256).hexdigest()


@pytest.mark.timeout(360)
def test_6_the_ledger_balances(run: Run) -> None:
    """accepted = stored + duplicate + in queue + dead, per source."""
    body = push("acme/books")
    headers = signed_as_github(run, body)
    for _ in range(3):
        run.post("/webhooks/github", body, headers)

    def book() -> dict[str, Any]:
        sources = json.loads(run.postern("ledger", "--source", "github", "--json").stdout)["sources"]
        return dict(sources[0]) if sources else {}

    def balances() -> bool:
        stored = run.query("SELECT count(*) FROM postern.events WHERE source = 'github'")[0][0]
        duplicates = run.query("SELECT count(*) FROM postern.duplicates WHERE source = 'github'")[0][0]
        found = book()
        return bool(found) and (found["stored"], found["duplicates"]) == (stored, duplicates) and not found["missing"]

    eventually(balances, timeout=150, every=1)
    found = book()
    assert found["accepted"] <= found["stored"] + found["duplicates"]
    assert found["duplicates"] >= 2


def test_the_parts_that_are_suspended_here_are_there(run: Run) -> None:
    assert len(running(run, "devstack.worker")) == 2
    assert running(run, "devstack.emulated_aws")
