"""A deployed Postern, as a sender, an operator and an auditor of its roles see it."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from chalicelib.postern.receiving.sources import SIGNING_KEY, load_sources
from cli.samples import default_type, sample
from devstack.settings import PROJECT
from tests.deployment.cloud import Cloud
from tests.providers_stand_in import Providers
from tests.support import EVERY_SOURCE, ask, ask_by_name, eventually


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]


@dataclass
class Installation:
    """One stage in one account."""

    cloud: Cloud
    project: Path
    stage: str
    database_url: str
    outputs: Mapping[str, str]
    secrets: Mapping[str, str]
    token: str
    providers: Providers | None = None

    @property
    def name(self) -> str:
        return f"postern-{self.stage}"

    @property
    def address(self) -> str:
        return f"{self.cloud.endpoint_url}/restapis/{self.outputs['RestAPIId']}/{self.stage}/_user_request_/"

    def post(
        self, source: str, body: bytes | None = None, *, type: str | None = "order.created", secret: str | None = None
    ) -> Answer:
        """Sends a signed sample of this source."""
        declared = load_sources(EVERY_SOURCE)[source]
        signs_with = secret or self.secrets.get(source + SIGNING_KEY, self.secrets[source])
        made = sample(declared, type or default_type(source), signs_with, datetime.now(UTC), body)
        query = "?" + urllib.parse.urlencode(made.query) if made.query else ""
        return fetch(f"{self.address}webhooks/{source}{query}", made.body, made.headers, self.cloud.trust())

    def api(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str = "") -> Answer:
        """Asks its API, in an operator's name."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        sent = None if body is None else json.dumps(body).encode()
        return fetch(f"{self.address}api/{path}", sent, headers, self.cloud.trust(), method)

    def postern(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """The command on this stage, with an operator's rights and no path to the database."""
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments, "--stage", self.stage],
            cwd=PROJECT,
            env=self.cloud.environ() | {"SOURCES_FILE": str(EVERY_SOURCE)},
            input=given,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def rows(self, ids: list[str]) -> list[dict[str, Any]]:
        events = "SELECT * FROM postern.events WHERE id = ANY(%s::uuid[]) ORDER BY id"
        return ask_by_name(self.database_url, events, ids)

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return ask(self.database_url, sql, *values)

    def row_of(self, id: str, timeout: float = 30) -> dict[str, Any]:
        return self.processed([id], timeout)[0]

    def lines(self, function: str, since: float = 0) -> list[dict[str, Any]]:
        """What a function logged, as far as it is JSON; `since` in seconds of the epoch."""
        logs = self.cloud.client("logs")
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=f"/aws/lambda/{function}", startTime=int(since * 1000)
        )
        messages = [event["message"] for page in pages for event in page["events"]]
        return [json.loads(line) for message in messages for line in message.splitlines() if line.startswith("{")]

    def lambda_name(self, function: str) -> str:
        return self.name if function == "api_handler" else f"{self.name}-{function}"

    def role_of(self, function: str) -> str:
        client = self.cloud.client("lambda")
        role: str = client.get_function_configuration(FunctionName=self.lambda_name(function))["Role"]
        return role

    def orders(self, ids: list[str]) -> int:
        """How often the handler for orders took one of these."""
        [(count,)] = self.query("SELECT count(*) FROM public.orders WHERE event_id = ANY(%s::uuid[])", ids)
        return int(count)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is taken from the queue meanwhile."""
        client = self.cloud.client("lambda")
        (mapping,) = client.list_event_source_mappings(FunctionName=f"{self.name}-processor")["EventSourceMappings"]
        client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
        try:
            yield
        finally:
            client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)

    def dead_letters(self) -> int:
        answer = self.cloud.client("sqs").get_queue_attributes(
            QueueUrl=self.outputs["DeadLetterQueueUrl"], AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(answer["Attributes"]["ApproximateNumberOfMessages"])

    def invoke(self, function: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        answer = self.cloud.client("lambda").invoke(FunctionName=function, Payload=json.dumps(payload).encode())
        result: dict[str, Any] = json.loads(answer["Payload"].read())
        return {"failed": "FunctionError" in answer, "result": result}

    def processed(self, ids: list[str], timeout: float = 30) -> list[dict[str, Any]]:
        """Their rows, once they are all processed."""

        def all_processed() -> list[dict[str, Any]] | None:
            rows = self.rows(ids)
            return rows if [row["status"] for row in rows] == ["processed"] * len(ids) else None

        return eventually(all_processed, timeout=timeout)


def _parsed(text: bytes) -> Any:
    """Some providers want a text."""
    return json.loads(text) if text[:1] == b"{" else {"text": text.decode()}


def fetch(
    url: str, body: bytes | None, headers: Mapping[str, str], trust: ssl.SSLContext, method: str | None = None
) -> Answer:
    request = urllib.request.Request(url, body, dict(headers), method=method or ("GET" if body is None else "POST"))
    try:
        with urllib.request.urlopen(request, timeout=60, context=trust) as answer:
            return Answer(answer.status, _parsed(answer.read()), dict(answer.headers))
    except urllib.error.HTTPError as exc:
        text = exc.read()
        return Answer(exc.code, _parsed(text), dict(exc.headers))
