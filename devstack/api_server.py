"""Chalice's own dev server, with the manners of API Gateway.

Bare `chalice local` keeps one of several headers of a name, knows no chunked bodies, hangs up on a strange
Content-Length, waits for a slow sender forever, and queues five connections; API Gateway does none of that.
"""

from __future__ import annotations

import json
import socket
import sys
import uuid
from contextlib import suppress
from typing import Any

from chalice.cli.factory import CLIFactory
from chalice.local import (
    ChaliceRequestHandler,
    LocalChalice,
    LocalDevServer,
    LocalGateway,
    ThreadedHTTPServer,
)

from devstack.settings import PROJECT

# API Gateway's own limits.
_MAX_REQUEST_BYTES = 10 * 1024 * 1024
_REQUEST_WITHIN_SECONDS = 29
_MAX_DISCARDED_BYTES = 64 * 1024 * 1024


class BadRequest(Exception):
    """A request that never gets as far as the app."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


class _Headers(dict[str, str]):
    """The last value of each name, as API Gateway's `headers` have it, and all of them for `multiValueHeaders`."""

    def __init__(self, items: list[tuple[str, str]]) -> None:
        super().__init__(items)
        self.multi: dict[str, list[str]] = {}
        for name, value in items:
            self.multi.setdefault(name.lower(), []).append(value)

    @classmethod
    def of(cls, message: Any) -> _Headers:
        """Without the blanks around values, which are none of theirs (RFC 9112, section 5.1)."""
        return cls([(name, value.strip(" \t")) for name, value in message.items()])


class _Gateway(LocalGateway):
    def _generate_lambda_event(self, method: str, path: str, headers: Any, body: bytes | None) -> dict[str, Any]:
        event = super()._generate_lambda_event(method, path, headers, body)
        context = {**event["requestContext"], "requestId": str(uuid.uuid4())}
        # The query as it came, which API Gateway has no place for.
        raw = {"rawQueryString": path.partition("?")[2]}
        return {**event, **raw, "multiValueHeaders": headers.multi, "requestContext": context}


class _Handler(ChaliceRequestHandler):
    timeout = _REQUEST_WITHIN_SECONDS

    def __init__(self, request: Any, client_address: Any, server: Any, app_object: Any, config: Any) -> None:
        self._gateway = _Gateway(app_object, config)
        super().__init__(request, client_address, server, app_object=app_object, config=config)

    def _generic_handle(self) -> None:
        self.local_gateway = self._gateway
        try:
            super()._generic_handle()
        except BadRequest as exc:
            self._refuse(exc)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as exc:
            print(json.dumps({"level": "ERROR", "message": "api.failed", "reason": repr(exc)}), flush=True)
            self._refuse(BadRequest(500, "internal_error", "Something went wrong here; send it again later."))

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = do_OPTIONS = _generic_handle

    def __getattr__(self, name: str) -> Any:
        """TRACE, QUERY and whatever else API Gateway hands to no function."""
        if not name.startswith("do_"):
            raise AttributeError(name)
        return lambda: self._refuse(BadRequest(405, "method_not_allowed", "This route does not take this method."))

    def _parse_payload(self) -> tuple[_Headers, bytes | None]:
        headers = _Headers.of(self.headers)
        if self._is_by_a_page() and not self._is_by_our_own():
            # A provider is no web page; a page that the developer looks at must not make events of his.
            raise BadRequest(403, "forbidden", "The local run takes nothing from web pages.")
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            return headers, self._read_chunks()
        lengths = self.headers.get_all("content-length", ["0"])
        if len(set(lengths)) != 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise BadRequest(400, "invalid_payload", "The Content-Length is not a number.")
        return headers, self._read_exactly(int(lengths[0])) or None

    def _is_by_a_page(self) -> bool:
        return "origin" in self.headers or self.headers.get("sec-fetch-site", "none") != "none"

    def _is_by_our_own(self) -> bool:
        """Whether a page from here asks the API, whose callers have to say who they are, or whoever it is only goes to
        the console. By no other name than ours: somebody else's may lead here as well.
        """
        if (self.headers.get("host") or "").partition(":")[0] not in ("127.0.0.1", "localhost"):
            return False
        if self.command in ("GET", "HEAD") and (self.path + "/").startswith("/console/"):
            return True
        ours = self.headers.get("origin") in (None, f"http://{self.headers.get('host')}")
        return self.path.startswith("/api/") and ours and self.headers.get("sec-fetch-site") in ("same-origin", "none")

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while True:
            size_text = self.rfile.readline(1024).split(b";")[0].strip()
            try:
                size = int(size_text, 16)
            except ValueError:
                raise BadRequest(400, "invalid_payload", "The chunked body is malformed.") from None
            if size == 0:
                break
            body += self._read_exactly(size, already=len(body))
            self.rfile.readline(3)
        while self.rfile.readline(65536).strip():
            pass  # trailers
        return bytes(body)

    def _read_exactly(self, size: int, already: int = 0) -> bytes:
        if size < 0 or already + size > _MAX_REQUEST_BYTES:
            self._discard(size)
            raise BadRequest(413, "payload_too_large", "The body is larger than API Gateway takes.")
        data: bytes = self.rfile.read(size)
        if len(data) < size:
            raise ConnectionResetError("The sender hung up in mid-body.")
        return data

    def _discard(self, size: int) -> None:
        """Hears the sender out, within reason: one that is still sending does not read its answer."""
        left = size if size <= _MAX_DISCARDED_BYTES else 0
        while left > 0 and (read := len(self.rfile.read(min(left, 65536)))):
            left -= read

    def _refuse(self, exc: BadRequest) -> None:
        # What is left of the request is unread, and would be taken for the next one.
        self.close_connection = True
        answer = {"error": exc.error, "message": str(exc), "details": {}}
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if exc.status == 405:
            headers["Allow"] = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
        with suppress(ConnectionError, TimeoutError):
            self._send_http_response(exc.status, headers, json.dumps(answer))

    def _send_http_response_with_body(self, code: int, headers: dict[str, Any], body: Any) -> None:
        if self.command == "HEAD":
            self._send_http_response_no_body(code, headers)
        else:
            super()._send_http_response_with_body(code, headers, body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the app logs a line a delivery, and knows more about it."""


class _Server(ThreadedHTTPServer):
    request_queue_size = 256

    def server_bind(self) -> None:
        super().server_bind()
        # An answer is small and complete: nothing is gained by waiting to fill a packet.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            print(json.dumps({"level": "ERROR", "message": "api.failed", "reason": repr(error)}), flush=True)


def main(port: int) -> None:
    factory = CLIFactory(str(PROJECT))
    config = factory.create_config_obj(chalice_stage_name="dev")
    app = factory.load_chalice_app()
    # As chalice.local.create_local_server does it: each thread gets a current request of its own.
    app.__class__ = type("LocalApp", (LocalChalice, type(app)), {})
    server = LocalDevServer(app, config, "127.0.0.1", port, handler_cls=_Handler, server_cls=_Server)
    # Not `LocalDevServer.serve_forever`, which also prints a line of its own.
    server.server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
