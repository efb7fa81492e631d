"""What a delivery costs the public function: a signed push of GitHub's, 1.5 kB, from API Gateway's event to the answer.

In process: beside an empty Chalice view, with a queue that takes everything at once; and, in CPU time, beside boto3's
`send_message` alone, with both calling an SQS that does nothing but answer.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench.turns import Line, Measured, Target, by_turns, timed

_SECRET = "development"
CALLS = 50
_SIZE = 1_500


class Context:
    function_name, function_version, memory_limit_in_mb = "bench", "1", 512
    invoked_function_arn = "arn:aws:lambda:us-east-1:000000000000:function:bench"
    aws_request_id, log_group_name, log_stream_name = "1", "bench", "1"

    def get_remaining_time_in_millis(self) -> int:
        return 20_000


def _request(path: str, resource: str, parameters: dict[str, str], body: bytes, headers: dict[str, str]) -> Any:
    """As API Gateway writes it for a REST API."""
    return {
        "resource": resource, "path": path, "httpMethod": "POST",
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "headers": headers, "queryStringParameters": None, "multiValueQueryStringParameters": None,
        "pathParameters": parameters, "stageVariables": None, "body": body.decode(), "isBase64Encoded": False,
        "requestContext": {
            "resourcePath": resource, "httpMethod": "POST", "path": path, "stage": "prod", "requestId": "r-1",
            "domainName": "hooks.example.com", "identity": {"sourceIp": "192.0.2.1"},
        },
    }  # fmt: skip


def delivery() -> tuple[Any, str]:
    """A signed push, as API Gateway writes it, and the secret."""
    from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
    from chalicelib.postern.receiving.sources import load_sources
    from cli.samples import sample

    source = load_sources(SHIPPED_SOURCES)["github"]
    made = sample(source, "push", _SECRET, datetime.now(UTC))
    body = json.loads(made.body)
    body["padding"] = "x" * max(0, _SIZE - len(made.body))
    made = sample(source, "push", _SECRET, datetime.now(UTC), json.dumps(body).encode())
    headers = {
        **made.headers, "Host": "hooks.example.com", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Port": "443",
        "X-Forwarded-Proto": "https", "X-Amzn-Trace-Id": "Root=1-5759e988-bd862e3fe1be46a994272793", "Accept": "*/*",
    }  # fmt: skip
    return _request("/webhooks/github", "/webhooks/{source}", {"source": "github"}, made.body, headers), _SECRET


class _TakesEverything:
    def send(self, message: str, **_: Any) -> None: ...
    def send_all(self, messages: list[str], **_: Any) -> None: ...
    def put(self, key: str, body: bytes) -> None: ...


@contextmanager
def silent() -> Iterator[None]:
    """Lines are written, to where nobody reads them."""
    sys.stdout.flush()
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def ours(queue: Any = None) -> Callable[[], object]:
    """Accepts one delivery, as the public function does."""
    import app
    from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
    from chalicelib.postern.receiving.ingest import Inbox
    from chalicelib.postern.receiving.sources import Sources
    from chalicelib.postern.running import wiring

    nothing = _TakesEverything()
    inbox = Inbox(Sources(SHIPPED_SOURCES), lambda source: [_SECRET], queue or nothing, nothing)
    wiring.inbox = lambda: inbox  # type: ignore[assignment]
    (event, _), context = delivery(), Context()
    answer = app.app(event, context)
    assert answer["statusCode"] == 202, answer
    return lambda: app.app(event, context)


def times(work: Callable[[], object]) -> Callable[[], None]:
    """Work that takes long enough to be timed."""

    def several() -> None:
        for _ in range(CALLS):
            work()

    return several


def _in_process(is_speed: bool) -> Measured:
    from chalice import Chalice

    bare = Chalice(app_name="bare", configure_logs=False)

    @bare.route("/webhooks/{source}", methods=["POST"], content_types=["*/*"])
    def view(source: str) -> dict[str, str]:
        return {}

    with silent():
        mine = ours()
        (event, _), context = delivery(), Context()
        assert bare(event, context)["statusCode"] == 200
        return by_turns(
            lambda: timed(times(mine)), lambda: timed(times(lambda: bare(event, context))),
            rounds=40, is_speed=is_speed, unit="µs", scale=1e6 / CALLS,
        )  # fmt: skip


def _with_sqs(is_speed: bool) -> Measured:
    import boto3

    from chalicelib.postern.adapters.sqs import SqsQueue

    with silent(), answering_sqs() as url:
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_SQS": url,
        }  # fmt: skip
        sent: list[str] = []

        class Recording(_TakesEverything):
            def send(self, message: str, **_: Any) -> None:
                sent.append(message)

        ours(Recording())
        mine = ours(SqsQueue(f"{url}/000000000000/bench"))
        client = boto3.client("sqs")

        def alone() -> None:
            client.send_message(QueueUrl=f"{url}/000000000000/bench", MessageBody=sent[0], MessageGroupId="github")

        return by_turns(
            lambda: timed(times(mine), time.process_time), lambda: timed(times(alone), time.process_time),
            rounds=20, is_speed=is_speed, unit="µs of CPU", scale=1e6 / CALLS,
        )  # fmt: skip


class _Sqs(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        md5 = hashlib.md5(asked["MessageBody"].encode(), usedforsecurity=False).hexdigest()
        body = json.dumps({"MessageId": "1", "MD5OfMessageBody": md5}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def answering_sqs() -> Iterator[str]:
    """In a process of its own: its time is nobody's here."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "port"
        child = subprocess.Popen([sys.executable, "-m", "bench.ack", str(file)])
        try:
            while not (file.exists() and file.read_text()):
                time.sleep(0.02)
            yield f"http://127.0.0.1:{file.read_text()}"
        finally:
            child.kill()
            child.wait()


LINES = [
    Line(
        "ack",
        "accepting a delivery of 1.5 kB, without the call of SQS",
        "an empty Chalice view",
        Target.of("<= 6"),
        _in_process,
    ),
    Line(
        "ack-sqs",
        "accepting it, with the call of SQS (CPU)",
        "boto3's send_message alone",
        Target.of("<= 1.15"),
        _with_sqs,
    ),
]


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sqs)
    Path(sys.argv[1]).write_text(str(server.server_address[1]))
    server.serve_forever()
