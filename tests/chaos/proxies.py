"""Between the functions and what they call: relays that do harm, as networks and services do.

`AwsRelay` knows one call from another and answers for AWS; `DatabaseRelay` cuts a connection around a COMMIT, whose
outcome nobody then knows.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What becomes of a call: its name, and of how many.
Harm = str
FINE: Harm = "fine"
# As a statement of its own; BEGIN says READ COMMITTED.
_COMMIT = b"COMMIT\0"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Whoever hung up was killed, as it was meant to be."""


class AwsRelay:
    """`harm` is asked for each call, by the service's own name for it (SendMessage), and says what becomes of it:

    `throttled`, `failed` (500), `reset` (nothing was done, and nobody answers), `unanswered` (it was done, and nobody
    answers), `twice` (it was done two times), `truncated` (half an answer), `slow`.
    """

    def __init__(self, port: int) -> None:
        self.harm: Callable[[str], Harm] = lambda call: FINE
        self.done: Counter[str] = Counter()
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def _relay(self) -> None:
                with contextlib.suppress(ConnectionError, TimeoutError):
                    relay._answer(self)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _relay  # http.server's own names

        self._upstream = port
        self._local = threading.local()
        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def harmed(self) -> int:
        """How many calls so far."""
        return self.done.total() - self.done[FINE]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        call = handler.headers.get("X-Amz-Target", "").rpartition(".")[2] or f"S3 {handler.command}"
        harm = self.harm(call)
        self.done[f"{call} {harm}" if harm != FINE else FINE] += 1
        if harm == "slow":
            time.sleep(1.5)
        if harm == "throttled":
            error = {"__type": "com.amazonaws.sqs#RequestThrottled", "message": "Rate exceeded"}
            return self._write(
                handler, 400, json.dumps(error).encode(), [("Content-Type", "application/x-amz-json-1.0")]
            )
        if harm == "failed":
            return self._write(handler, 500, b'{"__type": "InternalFailure"}', [])
        if harm == "reset":
            return self._hang_up(handler)
        status, headers, answer = self._ask(handler, body)
        if harm == "twice":
            status, headers, answer = self._ask(handler, body)
        if harm == "unanswered":
            return self._hang_up(handler)
        if harm == "truncated":
            handler.wfile.write(
                f"HTTP/1.1 {status} OK\r\nContent-Length: {len(answer) + 100}\r\n\r\n".encode() + answer
            )
            return self._hang_up(handler)
        return self._write(handler, status, answer, headers)

    def _ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        for attempt in (1, 2):  # a connection that was kept may have ended
            if not hasattr(self._local, "connection"):
                self._local.connection = http.client.HTTPConnection("127.0.0.1", self._upstream, timeout=30)
            try:
                self._local.connection.request(handler.command, handler.path, body, dict(handler.headers.items()))
                answer = self._local.connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            except (ConnectionError, http.client.HTTPException):
                del self._local.connection
                if attempt == 2:
                    raise ConnectionError from None
        raise AssertionError

    @staticmethod
    def _write(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: list[tuple[str, str]]) -> None:
        handler.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    @staticmethod
    def _hang_up(handler: BaseHTTPRequestHandler) -> None:
        """At once, and not by the way."""
        handler.close_connection = True
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()


class DatabaseRelay:
    """`harm` is asked at each COMMIT: `before` cuts the connection in front of it, `after` when it has been handed on,
    so that the answer is lost. `delay`: seconds that every answer is held back.
    """

    def __init__(self, host: str, port: int) -> None:
        self.harm: Callable[[], Harm] = lambda: FINE
        self.delay = 0.0
        self.done: Counter[str] = Counter()
        self._upstream = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            server = socket.create_connection(self._upstream, timeout=5)
            server.settimeout(None)
            with server:
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._carry(client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            ready, _, _ = select.select([client, server], [], [])
            for one, other in ((client, server), (server, client)):
                if one not in ready:
                    continue
                piece = one.recv(65_536)
                if not piece:
                    return
                harm = self.harm() if one is client and _COMMIT in piece else FINE
                if harm != FINE:
                    self.done[f"COMMIT {harm}"] += 1
                if harm == "before":
                    return
                if one is server and self.delay:
                    time.sleep(self.delay)
                other.sendall(piece)
                if harm == "after":
                    # It is done by now, or will be: its outcome reaches nobody.
                    return


def now_and_then(chance: random.Random, share: float, *harms: Harm) -> Callable[..., Harm]:
    """One of these, of such a share of the calls."""
    return lambda *_: chance.choice(harms) if chance.random() < share else FINE


def of_calls(calls: set[str], harm: Callable[..., Harm]) -> Callable[[str], Harm]:
    return lambda call: harm(call) if call in calls else FINE
