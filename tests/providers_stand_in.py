"""GitHub and Stripe as their documentation describes the part of their APIs that a history is read by."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

HOOK = "/repos/acme/shop/hooks/12345678/deliveries"
ENDPOINT = "/v1/webhook_endpoints/we_1Mr5jULkdIwHu7ixhPkkbhbg"

# A status and headers, and no body: instead of the answer that is next.
Instead = tuple[int, dict[str, str]]


@dataclass
class Providers:
    """Two providers at one address. `token` is whom they answer; `skew` is how far ahead their clock is; each of
    `instead` is answered once, before all else. `asked`: the paths, with their queries.
    """

    token: str = "ghp_canary-of-the-api-token"
    url: str = ""
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    endpoint: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    skew: timedelta = timedelta(0)
    instead: list[Instead] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    before_answer: Callable[[str], None] = lambda path: None

    def deliver(self, guid: str, body: bytes, at: datetime, secret: str, event: str = "push", **changes: Any) -> None:
        """GitHub sent this, or has tried to, and remembers it."""
        headers = {
            "Accept": "*/*",
            "Content-Type": "application/json",
            "User-Agent": "GitHub-Hookshot/7d1a3c2",
            "X-GitHub-Delivery": guid,
            "X-GitHub-Event": event,
            "X-GitHub-Hook-ID": "12345678",
            "X-Hub-Signature-256": "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex(),
        }
        self.deliveries.append(
            {
                "id": 180_000_000_000 + len(self.deliveries),
                "guid": guid,
                "delivered_at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "redelivery": False,
                "duration": 0.27,
                "status": "OK",
                "status_code": 200,
                "event": event,
                "action": None,
                "installation_id": None,
                "repository_id": 1296269,
                "request": {"headers": headers, "payload": body.decode()},
                **changes,
            }
        )

    def happen(self, id: str, type: str, at: datetime, **data: Any) -> dict[str, Any]:
        """Something that Stripe remembers."""
        event = {
            "id": id,
            "object": "event",
            "api_version": "2025-03-31.basil",
            "created": int(at.timestamp()),
            "data": {"object": data},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": type,
        }
        self.events.append(event)
        return event

    def now(self) -> datetime:
        return datetime.now(UTC) + self.skew

    def answer(self, path: str, query: dict[str, str], authorization: str) -> tuple[int, dict[str, str], str]:
        if self.instead:
            status, headers = self.instead.pop(0)
            return status, headers, '{"message": "canary of an error"}'
        if authorization != f"Bearer {self.token}":
            return 401, {}, '{"message": "Bad credentials"}'
        if path == HOOK:
            return self._deliveries(query)
        if path.startswith(f"{HOOK}/"):
            return self._one(self.deliveries, int(path.rpartition("/")[2]))
        if path == ENDPOINT and self.endpoint:
            return 200, {}, json.dumps(self.endpoint)
        if path == "/v1/events":
            return self._events(query)
        if path.startswith("/v1/events/"):
            return self._one(self.events, path.rpartition("/")[2])
        return 404, {}, '{"message": "Not Found"}'

    def _deliveries(self, query: dict[str, str]) -> tuple[int, dict[str, str], str]:
        """The newest first; a cursor is the delivery that the page begins with."""
        newest = sorted(self.deliveries, key=lambda each: each["delivered_at"], reverse=True)
        cursor = query.get("cursor", "").removeprefix("v1_")
        start = next((n for n, each in enumerate(newest) if str(each["id"]) == cursor), 0)
        size = min(int(query.get("per_page", "30")), 100)
        page, rest = newest[start : start + size], newest[start + size :]
        headers = {}
        if rest:
            address = f"{self.url}{HOOK}?per_page={size}&cursor=v1_{rest[0]['id']}"
            headers["Link"] = f'<{self.url}{HOOK}?per_page={size}>; rel="first", <{address}>; rel="next"'
        listed = [{name: each[name] for name in each if name != "request"} for each in page]
        return 200, headers, json.dumps(listed, separators=(",", ":"))

    def _one(self, of: list[dict[str, Any]], id: int | str) -> tuple[int, dict[str, str], str]:
        found = next((each for each in of if each["id"] == id), None)
        if found is None:
            return 404, {}, '{"message": "Not Found"}'
        text = json.dumps(found, separators=(",", ":"))
        if isinstance(payload := found.get("request", {}).get("payload"), str):
            # JSON within JSON: the same values, and not the same bytes.
            text = text.replace(json.dumps(payload), payload.replace(r"\u003c", "<").replace(r"\u0026", "&"))
        return 200, {}, text

    def _events(self, query: dict[str, str]) -> tuple[int, dict[str, str], str]:
        newest = sorted(self.events, key=lambda each: each["created"], reverse=True)
        newest = [each for each in newest if each["created"] >= int(query.get("created[gte]", "0"))]
        if after := query.get("starting_after"):
            newest = newest[next(n for n, each in enumerate(newest) if each["id"] == after) + 1 :]
        size = min(int(query.get("limit", "10")), 100)
        page = {"object": "list", "url": "/v1/events", "has_more": len(newest) > size, "data": newest[:size]}
        return 200, {}, json.dumps(page)

    @contextmanager
    def running(self) -> Iterator[Providers]:
        providers = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                providers.asked.append(self.path)
                providers.before_answer(self.path)
                query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
                status, headers, body = providers.answer(parts.path, query, self.headers.get("authorization", ""))
                self.send_response_only(status)
                said = {"Date": format_datetime(providers.now(), usegmt=True), **headers}
                for name, value in {**said, "Content-Length": str(len(body.encode()))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_port}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
