"""The real app in front of the emulated SQS and Secrets Manager: a 202 is durable, and whatever is ours is a 5xx."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from chalice.test import Client

import app as doors
from chalicelib.postern.adapters.secrets import KeptSecret, SourceSecrets
from chalicelib.postern.contract.errors import SecretUnavailable
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.running import wiring
from chalicelib.postern.running.version import VERSION
from devstack.aws import EmulatedAws, Resources

SECRETS: dict[str, Any] = {
    "hmac": ["canary-current", "canary-previous"],
    "token": "canary-token",
    "basic": "user:canary-pass",
}


@pytest.fixture
def inbox(
    aws: EmulatedAws,
    resources: Resources,
    point_aws_at: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Resources]:
    """The app's environment, on a stack of the test's own."""
    aws.put_secrets(resources, SECRETS)
    monkeypatch.setenv("QUEUE_URL", resources.queue_url)
    monkeypatch.setenv("SOURCES_SECRET_ID", resources.sources_secret_id)
    monkeypatch.setenv("BODIES_BUCKET", resources.bodies_bucket)
    forget_wiring()
    yield resources
    forget_wiring()


def forget_wiring() -> None:
    wiring.config.cache_clear()
    wiring.inbox.cache_clear()


def signed(body: bytes, secret: str = SECRETS["hmac"][0]) -> dict[str, str]:
    return {"X-Signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def post(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, Any], dict[str, str]]:
    with Client(doors.app) as client:
        answer = client.http.post(path, headers=headers, body=body)
    return answer.status_code, json.loads(answer.body), dict(answer.headers)


def queued(aws: EmulatedAws, inbox: Resources) -> list[dict[str, Any]]:
    answer = aws.client("sqs").receive_message(
        QueueUrl=inbox.queue_url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"]
    )
    return list(answer.get("Messages", []))


def test_an_accepted_event_is_on_the_queue_in_its_sources_group(aws: EmulatedAws, inbox: Resources) -> None:
    body = b'{"type": "order.paid"}'
    status, answer, _ = post("/webhooks/hmac", body, signed(body))
    assert (status, answer["status"]) == (202, "accepted")
    [message] = queued(aws, inbox)
    event = from_message(message["Body"])
    assert (str(event.id), event.source, event.type, event.body) == (answer["id"], "hmac", "order.paid", body)
    assert message["Attributes"]["MessageGroupId"] == "hmac"


def test_a_request_as_api_gateway_gives_it_is_read_exactly(aws: EmulatedAws, inbox: Resources) -> None:
    body = '{"name": "Zoë"}'.encode()
    headers = {"Content-Type": "application/json", **signed(body)}
    event = {
        "requestContext": {"httpMethod": "POST", "resourcePath": "/webhooks/{source}", "requestId": "c6af9ac6-7b61"},
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "pathParameters": {"source": "hmac"},
        "multiValueQueryStringParameters": None,
        "stageVariables": None,
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }
    assert doors.app(event, None)["statusCode"] == 202
    assert doors.app({**event, "body": body.decode(), "isBase64Encoded": False}, None)["statusCode"] == 202
    events = [from_message(m["Body"]) for m in queued(aws, inbox)]
    assert [(event.body, event.request_id) for event in events] == [(body, "c6af9ac6-7b61")] * 2
    twice = {**event, "multiValueHeaders": {**event["multiValueHeaders"], "X-Signature": [headers["X-Signature"]] * 2}}
    assert doors.app(twice, None)["statusCode"] == 401


@pytest.mark.parametrize(
    ("kind", "encoding", "whole"),
    [("application/x-protobuf", "", False), ("application/json", "gzip", False), ("application/json", "", True)],
)
def test_bytes_that_became_a_text_on_the_way_are_a_415_and_no_event(
    aws: EmulatedAws, inbox: Resources, kind: str, encoding: str, whole: bool
) -> None:
    """A sender may mean U+FFFD, in a text; in anything else API Gateway put it there."""
    body = '{"a": "\ufffd"}'
    headers = {"Content-Type": kind, **signed(body.encode()), **({"Content-Encoding": encoding} if encoding else {})}
    answer = doors.app(
        {
            "requestContext": {
                "httpMethod": "POST", "resourcePath": "/webhooks/{source}", "domainName": "x.execute-api.amazonaws.com"
            },
            "headers": headers,
            "multiValueHeaders": {name: [value] for name, value in headers.items()},
            "pathParameters": {"source": "hmac"},
            "multiValueQueryStringParameters": None,
            "stageVariables": None,
            "body": body,
            "isBase64Encoded": False,
        },
        None,
    )  # fmt: skip
    assert answer["statusCode"] == (202 if whole else 415)
    assert whole or "bytes of it are lost" in answer["body"]
    assert len(queued(aws, inbox)) == whole


def test_the_trace_goes_with_the_message_and_not_in_it(
    aws: EmulatedAws, inbox: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    for value in (header, "no trace header"):
        monkeypatch.setenv("_X_AMZN_TRACE_ID", value)
        assert post("/webhooks/hmac", b"{}", signed(b"{}"))[0] == 202
    monkeypatch.delenv("_X_AMZN_TRACE_ID")
    assert post("/webhooks/hmac", b"{}", signed(b"{}"))[0] == 202
    messages = queued(aws, inbox)
    assert sorted(m["Attributes"].get("AWSTraceHeader", "") for m in messages) == ["", "", header]
    assert "5759e988" not in "".join(m["Body"] for m in messages)


def refuses_connections() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@pytest.fixture
def never_answers() -> Iterator[str]:
    """A service that takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def always_fails() -> Iterator[str]:
    """A service that answers every request with a throttle."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        listener.settimeout(0.2)
        stop = threading.Event()
        answer = b'{"__type": "com.amazonaws.sqs#ThrottlingException", "message": "slow down"}'

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except TimeoutError:
                    continue
                with closing(connection):
                    connection.settimeout(2)
                    connection.recv(65536)
                    head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n"
                    connection.sendall(head.encode() + answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stop.set()
        thread.join()


@pytest.mark.parametrize("trouble", ["refused", "never_answers", "always_fails", "deleted"])
def test_a_queue_that_does_not_confirm_is_a_503_in_time(
    aws: EmulatedAws,
    inbox: Resources,
    point_aws_at: Callable[..., None],
    request: pytest.FixtureRequest,
    trouble: str,
) -> None:
    if trouble == "refused":
        point_aws_at(sqs=refuses_connections())
    elif trouble == "deleted":
        aws.client("sqs").delete_queue(QueueUrl=inbox.queue_url)
    else:
        point_aws_at(sqs=request.getfixturevalue(trouble))
    started = time.monotonic()
    status, answer, headers = post("/webhooks/hmac", b"{}", signed(b"{}"))
    assert (status, answer["error"]) == (503, "queue_unavailable")
    assert int(headers["Retry-After"]) > 0
    # Not a measurement: most senders hang up after 10 s, and this is what the client's own limits add up to.
    assert time.monotonic() - started < 25  # API Gateway gives up after 29


def test_a_bucket_that_does_not_confirm_is_a_503_and_nothing_is_queued(
    aws: EmulatedAws, inbox: Resources, point_aws_at: Callable[..., None]
) -> None:
    point_aws_at(s3=refuses_connections())
    body = json.dumps(hashlib.shake_256(b"random").hexdigest(1_000_000)).encode()
    assert post("/webhooks/hmac", body, signed(body))[:1] == (503,)
    assert queued(aws, inbox) == []


@pytest.mark.parametrize("secrets", [{}, {"hmac": ""}, {"hmac": []}, {"hmac": [""]}, {"hmac": 7}, {"hmac": None}, []])
def test_a_missing_or_malformed_secret_is_a_503(aws: EmulatedAws, inbox: Resources, secrets: Any) -> None:
    aws.client("secretsmanager").put_secret_value(SecretId=inbox.sources_secret_id, SecretString=json.dumps(secrets))
    status, answer, headers = post("/webhooks/hmac", b"{}", signed(b"{}", "x"))
    assert (status, answer["error"]) == (503, "secret_unavailable")
    assert "Retry-After" in headers


class Clock:
    """A monotonic clock that moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_a_new_secret_takes_effect_without_a_deployment(aws: EmulatedAws, inbox: Resources) -> None:
    clock = Clock()
    secrets = SourceSecrets(inbox.sources_secret_id, clock)
    assert secrets.of("token") == ["canary-token"]
    aws.put_secrets(inbox, {"token": ["new", "canary-token"]})
    assert secrets.of("token") == ["canary-token"]
    clock.seconds += 60
    assert secrets.of("token") == ["new", "canary-token"]


def test_a_secret_with_a_byte_order_mark_is_read(aws: EmulatedAws, inbox: Resources) -> None:
    marked = '\ufeff{"token": "from-an-editor"}'
    aws.client("secretsmanager").put_secret_value(SecretId=inbox.sources_secret_id, SecretString=marked)
    assert SourceSecrets(inbox.sources_secret_id, Clock()).of("token") == ["from-an-editor"]


def test_forged_deliveries_do_not_make_us_ask_for_secrets(inbox: Resources) -> None:
    clock = Clock()
    asked: list[float] = []

    class Counting(KeptSecret):
        def _refresh(self, now: float) -> None:
            asked.append(now)
            super()._refresh(now)

    secrets = SourceSecrets(inbox.sources_secret_id, clock)
    secrets._secret = Counting(inbox.sources_secret_id, clock)
    for _ in range(1000):
        secrets.of("hmac")
        with pytest.raises(SecretUnavailable):
            secrets.of("unknown")
    assert len(asked) == 1


def test_the_secrets_that_we_have_stay_good_while_new_ones_cannot_be_had(
    inbox: Resources, point_aws_at: Callable[..., None]
) -> None:
    clock = Clock()
    secrets = SourceSecrets(inbox.sources_secret_id, clock)
    secrets.of("token")
    point_aws_at(secrets_manager=refuses_connections())
    clock.seconds += 3600
    assert secrets.of("token") == ["canary-token"]
    with pytest.raises(SecretUnavailable, match="secrets_unreachable: EndpointConnectionError"):
        SourceSecrets(inbox.sources_secret_id, clock).of("token")


def test_an_error_of_ours_is_a_500_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOURCES_FILE", "/no/such/file.toml")
    forget_wiring()
    status, answer, _ = post("/webhooks/hmac", b"{}", {})
    forget_wiring()
    assert (status, answer) == (
        500,
        {
            "error": "internal_error",
            "message": "Something went wrong here; send the delivery again later.",
            "details": {},
        },
    )
    assert "SourcesFileError" in caplog.text


def test_other_methods_and_paths_have_their_answers(inbox: Resources) -> None:
    with Client(doors.app) as client:
        got = client.http.get("/webhooks/hmac")
        assert (got.status_code, json.loads(got.body)["error"]) == (405, "method_not_allowed")
        assert got.headers["Allow"] == "POST"
        posted = client.http.post("/health")
        assert (posted.status_code, json.loads(posted.body)["error"]) == (405, "method_not_allowed")
        assert client.http.get("/health").json_body == {"status": "ok", "version": VERSION, "release": None}
    assert post("/webhooks/Nobody", b"{}", {})[1]["error"] == "unknown_source"
