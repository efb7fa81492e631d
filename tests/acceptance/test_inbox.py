"""The promises of the main path, kept by the running system."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import os
import signal
import socket
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.acceptance.conftest import Run
from tests.support import eventually, with_the_example

PROVIDERS = ["github", "stripe", "standard-webhooks", "hmac", "token", "basic"]


def push(repository: str, **more: Any) -> bytes:
    payload = {"ref": "refs/heads/main", "repository": {"full_name": repository}, "commits": [{}], **more}
    return json.dumps(payload).encode()


def signed_as_github(run: Run, body: bytes, delivery: str | None = None, event: str = "push") -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery or str(uuid.uuid4()),
        "X-Hub-Signature-256": "sha256=" + hmac.new(run.secret("github").encode(), body, hashlib.sha256).hexdigest(),
    }


def signed_as_hmac(run: Run, body: bytes) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "X-Signature": hmac.new(run.secret("hmac").encode(), body, hashlib.sha256).hexdigest(),
    }


def rows(run: Run, id: str) -> list[tuple[Any, ...]]:
    return run.query("SELECT status, body FROM postern.events WHERE id = %s", id)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_sample_of_each_provider_is_a_row_within_two_seconds(run: Run, provider: str) -> None:
    sent = run.postern("send", provider, "order.created", "--no-wait")
    assert sent.returncode == 0, sent.stderr
    status, answer = sent.stdout.split("  ")[:2]
    assert status == "202"
    assert json.loads(answer)["status"] == "accepted"
    eventually(lambda: rows(run, json.loads(answer)["id"]), timeout=2)


@with_the_example
def test_the_identical_delivery_twenty_times_at_once_is_one_row_and_one_effect(run: Run) -> None:
    body, delivery = push("acme/twenty"), str(uuid.uuid4())
    headers = signed_as_github(run, body, delivery)
    with ThreadPoolExecutor(20) as senders:
        answers = list(senders.map(lambda _: run.post("/webhooks/github", body, headers), range(20)))
    assert [status for status, _ in answers] == [202] * 20
    ids = {answer["id"] for _, answer in answers}
    eventually(
        lambda: run.query("SELECT count(*) FROM postern.duplicates WHERE id = ANY (%s::uuid[])", list(ids)) == [(19,)]
    )
    assert run.query("SELECT count(*) FROM postern.events WHERE dedup_key = %s", delivery) == [(1,)]
    assert run.query("SELECT pushes FROM github_pushes WHERE repository = 'acme/twenty'") == [(1,)]


@pytest.mark.parametrize(
    "body",
    [
        rb'{"text": "\u0000 and \ud800"}',
        b'{"number": ' + b"9" * 400 + b"}",
        b'{"number": 1e999999}',
        b'{"twice": 1, "twice": 2}',
        b'{"long": "' + b"x" * 1_000_000 + b'"}',
        json.dumps({"random": os.urandom(900_000).hex()}).encode(),
        '{"emoji": "🦊", "right to left": "\u202e"}'.encode(),
        b'\xef\xbb\xbf{"byte order mark": true}',
        b'  [1, "two", null]\r\n',
        b'"just text"',
    ],
    ids=["nul", "400-digits", "huge-exponent", "twice", "1-MB", "1.8-MB", "emoji", "bom", "array", "text"],
)
def test_odd_but_legal_json_comes_back_byte_for_byte(run: Run, body: bytes) -> None:
    status, answer = run.post("/webhooks/hmac", body, signed_as_hmac(run, body))
    assert status == 202, answer
    [(state, stored)] = eventually(lambda: rows(run, answer["id"]))
    assert (state, bytes(stored)) == ("processed", body)


@pytest.mark.parametrize(
    "body",
    [b"", b"  ", b"hello", b"{", b'{"a": NaN}', b'{"a": Infinity}', "{'é'}".encode("latin-1"), b"[" * 100_000],
    ids=["empty", "blank", "text", "truncated", "nan", "infinity", "latin-1", "nested"],
)
def test_what_is_not_json_is_refused(run: Run, body: bytes) -> None:
    status, answer = run.post("/webhooks/hmac", body, signed_as_hmac(run, body))
    assert (status, answer["error"]) == (400, "invalid_payload")


def test_other_refusals_have_their_codes(run: Run) -> None:
    body = b"{}"
    good = signed_as_hmac(run, body)
    assert run.post("/webhooks/nobody", body, good)[1]["error"] == "unknown_source"
    assert run.post("/webhooks/hmac", body, {**good, "Content-Type": "text/xml"})[0] == 415
    for size in (6_000_000, 20_000_000):
        too_large = b'"' + b"x" * size + b'"'
        status, answer = run.post("/webhooks/hmac", too_large, signed_as_hmac(run, too_large))
        assert (status, answer["error"]) == (413, "payload_too_large")


def test_a_web_page_makes_no_events_here(run: Run) -> None:
    """Nor does it read what the run has; and other users of the machine do not look into its folder."""
    status, answer = run.post("/webhooks/github", b"{}", {"Origin": "http://evil.example"})
    assert (status, answer["error"]) == (403, "forbidden")
    request = urllib.request.Request(run.facts["aws_endpoint_url"], headers={"Origin": "http://evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    assert refused.value.code == 403
    assert run.state.stat().st_mode & 0o066 == 0


def test_every_failed_verification_gets_the_same_answer(run: Run) -> None:
    body = push("acme/forged")
    good = signed_as_github(run, body)
    signature = good["X-Hub-Signature-256"]
    answers = [
        run.post("/webhooks/github", body, {**good, "X-Hub-Signature-256": forged})
        for forged in ("", "sha256=", "sha256=zz", signature[:-1] + "é", signature.upper(), signature[7:])
    ]
    answers.append(run.post("/webhooks/github", body + b" ", good))
    answers.append(run.post("/webhooks/github", body, {"Content-Type": "application/json"}))
    assert {status for status, _ in answers} == {401}
    assert len({json.dumps(answer) for _, answer in answers}) == 1


def test_a_body_in_chunks_is_read_whole(run: Run) -> None:
    body = push("acme/chunked")
    connection = http.client.HTTPConnection("127.0.0.1", run.port, timeout=30)
    parts = iter([body[:10], body[10:]])
    connection.request("POST", "/webhooks/github", parts, signed_as_github(run, body), encode_chunked=True)
    assert connection.getresponse().status == 202
    connection.close()


@pytest.mark.parametrize("length", ["-1", "ten", "1e3", "9" * 30])
def test_a_strange_content_length_is_answered(run: Run, length: str) -> None:
    with socket.create_connection(("127.0.0.1", run.port), timeout=10) as connection:
        connection.sendall(f"POST /webhooks/hmac HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
        assert connection.recv(12) in (b"HTTP/1.1 400", b"HTTP/1.1 413")


def test_a_repeated_signature_header_is_refused(run: Run) -> None:
    body = b"{}"
    signature = signed_as_hmac(run, body)["X-Signature"]
    request = (
        f"POST /webhooks/hmac HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Signature: {signature}\r\n"
        f"X-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", run.port), timeout=10) as connection:
        connection.sendall(request.encode() + body)
        assert connection.recv(12) == b"HTTP/1.1 401"


def test_garbage_on_the_queue_ends_in_the_dead_letters_and_is_logged_with_its_id(run: Run, client: Any) -> None:
    facts = run.facts
    sent = client.send_message(QueueUrl=facts["queue_url"], MessageBody='{"v": 1, "id": "trunc')["MessageId"]
    found = eventually(lambda: dead_letters(run, client, "trunc"), timeout=30)
    assert found
    assert (
        sent
        in (run.state / "logs" / "processor-1.log").read_text() + (run.state / "logs" / "processor-2.log").read_text()
    )


@with_the_example
def test_an_event_that_always_fails_is_dead_after_three_attempts_and_can_be_redriven(run: Run, client: Any) -> None:
    body = json.dumps({"ref": "refs/heads/main", "no": "repository"}).encode()
    _, answer = run.post("/webhooks/github", body, signed_as_github(run, body))
    status = "SELECT status, attempts FROM postern.events WHERE id = %s"
    eventually(lambda: run.query(status, answer["id"]) == [("dead", 3)], timeout=30)
    [(error,)] = run.query("SELECT error FROM postern.events WHERE id = %s", answer["id"])
    assert error.startswith("KeyError: 'repository'\n")
    assert "github_pushes.py" in error
    [letter] = eventually(lambda: dead_letters(run, client, answer["id"]))
    # As an operator's redrive does: the same body and attributes, in a new message.
    client.send_message(
        QueueUrl=run.facts["queue_url"],
        MessageBody=letter["Body"],
        MessageAttributes=letter["MessageAttributes"],
    )
    eventually(lambda: run.query(status, answer["id"]) == [("dead", 6)], timeout=30)


@with_the_example
def test_a_thousand_events_survive_a_killed_database(run: Run) -> None:
    """PostgreSQL is killed with -9 in mid-flight; the supervisor starts it again."""
    bodies = [push("acme/thousand", n=n) for n in range(1000)]

    def send(body: bytes) -> int:
        return run.post("/webhooks/github", body, signed_as_github(run, body))[0]

    with ThreadPoolExecutor(16) as senders:
        answers = senders.map(send, bodies)
        effects = "SELECT pushes FROM github_pushes WHERE repository = 'acme/thousand'"
        eventually(lambda: run.query(effects))
        postmaster = int((run.state / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        assert list(answers) == [202] * 1000
    eventually(lambda: "postgres ended (SIGKILL); starting it again." in run.text)

    def stored() -> list[tuple[Any, ...]]:
        try:
            return run.query(
                "SELECT count(*), count(DISTINCT body), bool_and(status = 'processed') FROM postern.events"
                " WHERE payload #>> '{repository,full_name}' = 'acme/thousand'"
            )
        except Exception:
            return []  # it is still away

    eventually(lambda: stored() == [(1000, 1000, True)], timeout=90)
    assert run.query(effects) == [(1000,)]


def test_the_api_process_knows_no_database_and_the_processor_no_secrets(run: Run) -> None:
    assert "DATABASE_URL" not in run.running("devstack.api_server").environ()
    assert "SOURCES_SECRET_ID" not in run.running("devstack.worker").environ()


def test_a_delivery_is_one_line_with_the_reason_and_without_the_body(run: Run) -> None:
    body = json.dumps({"type": f"line-{uuid.uuid4().hex}", "card": "canary-body"}).encode()
    good = signed_as_hmac(run, body)
    _, answer = run.post("/webhooks/hmac", body, good)
    run.post("/webhooks/hmac", body, {**good, "X-Signature": "canary-forged"})
    text = eventually(lambda: (run.state / "logs" / "api.log").read_text("utf-8"))
    assert "canary" not in text
    lines = [json.loads(line) for line in text.splitlines()]
    [accepted] = [line for line in lines if line.get("id") == answer["id"]]
    assert (accepted["message"], accepted["status"], accepted["source"]) == ("delivery.accepted", 202, "hmac")
    assert accepted["bytes"] == len(body)
    rejected = [line for line in lines if line["message"] == "delivery.rejected"][-1]
    assert (rejected["status"], rejected["reason"], rejected["detail"]) == (
        401,
        "invalid_signature",
        "signature_mismatch",
    )


def test_no_secret_is_in_any_log_or_row(run: Run) -> None:
    secrets = json.loads((run.state / "secrets.json").read_text()).values()
    for provider in PROVIDERS:
        assert run.postern("send", provider).returncode == 0
    logs = "".join(log.read_text("utf-8", "replace") for log in (run.state / "logs").glob("*.log"))
    headers = json.dumps([row[0] for row in run.query("SELECT headers FROM postern.events")])
    for secret in secrets:
        assert secret not in logs + run.text
        assert secret not in headers


def dead_letters(run: Run, client: Any, text: str) -> list[dict[str, Any]]:
    """Those with this text in them; the others are left where they are."""
    queue = run.facts["dead_letter_queue_url"]
    answer = client.receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, MessageAttributeNames=["All"], VisibilityTimeout=0
    )
    found = [message for message in answer.get("Messages", []) if text in message["Body"]]
    for message in found:
        client.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return found


@pytest.fixture
def client(run: Run) -> Any:
    import boto3

    return boto3.client(
        "sqs",
        endpoint_url=run.facts["aws_endpoint_url"],
        region_name="us-east-1",
        aws_access_key_id=run.facts["aws_access_key_id"],
        aws_secret_access_key="test",
    )
