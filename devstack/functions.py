"""The containers of `backend`, `store` and `reconciler`, behind Lambda's Invoke call, as other functions make it.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import SimpleQueue
from typing import Any

from devstack.maintenance import schedule_event
from devstack.worker import Context

BACKEND, STORE, RECONCILER = (f"postern-local-{name}" for name in ("backend", "store", "reconciler"))
_PATH = "/2015-03-31/functions/{}/invocations"
# As .chalice/config.json has them, but for who has somebody waiting here.
_TIMEOUT_SECONDS = {BACKEND: 20, STORE: 300, RECONCILER: 300}
_HOUR = 3_600
# Lambda's own limit for a request.
_MAX_REQUEST_BYTES = 6_000_000

# What has handlers' time limits has to run in the main thread, one at a time, as in one container. The reconciler asks
# the store while it is asked itself.
_jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()


def _invoke(function: str, event: dict[str, Any]) -> Any:
    import app

    context = Context(_TIMEOUT_SECONDS[function], function)
    if function == RECONCILER:
        return app.reconciler(event, context)
    door = app.backend if function == BACKEND else app.store
    future: Future[Any] = Future()
    _jobs.put((lambda: door(event, context), future))
    return future.result()


class _Handler(BaseHTTPRequestHandler):
    timeout = 5  # for a caller that does not send what it announced

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        function = next((name for name in _TIMEOUT_SECONDS if self.path == _PATH.format(name)), None)
        if function is None or length > _MAX_REQUEST_BYTES:
            self._say(404, {"Message": "There is no such function here."})
            return
        event = json.loads(self.rfile.read(length))
        try:
            said, headers = _invoke(function, event), None
        except Exception as exc:  # its line says so
            said = {"errorMessage": str(exc), "errorType": type(exc).__name__}
            headers = {"X-Amz-Function-Error": "Unhandled"}
        with suppress(ConnectionError):  # who asked may have gone
            self._say(200, said, headers)

    def _say(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the function logs a line for each."""


def _reconcile_hourly() -> None:
    while True:
        time.sleep(_HOUR)
        with suppress(Exception):  # its line says so
            _invoke(RECONCILER, schedule_event())


def main(port: int) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", port), _Handler)
    server.daemon_threads = True
    for serve in (server.serve_forever, _reconcile_hourly):
        threading.Thread(target=serve, daemon=True).start()
    while True:
        work, future = _jobs.get()
        try:
            future.set_result(work())
        except Exception as exc:
            future.set_exception(exc)


if __name__ == "__main__":
    main(int(sys.argv[1]))
