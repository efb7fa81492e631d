"""The container of the `backend` function, behind Lambda's Invoke call, as the API function makes it.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from devstack.worker import Context

FUNCTION = "postern-local-backend"
_PATH = f"/2015-03-31/functions/{FUNCTION}/invocations"
_TIMEOUT_SECONDS = 20
# Lambda's own limit for a request.
_MAX_REQUEST_BYTES = 6_000_000


class _Invoke(BaseHTTPRequestHandler):
    """One at a time, as in one container."""

    timeout = 5  # for a caller that does not send what it announced

    def do_POST(self) -> None:
        import app

        length = int(self.headers.get("content-length") or 0)
        if self.path != _PATH or length > _MAX_REQUEST_BYTES:
            self._say(404, {"Message": "There is no such function here."})
            return
        event = json.loads(self.rfile.read(length))
        try:
            self._say(200, app.backend(event, Context(_TIMEOUT_SECONDS, FUNCTION)))
        except Exception as exc:  # its line says so
            said = {"errorMessage": str(exc), "errorType": type(exc).__name__}
            self._say(200, said, {"X-Amz-Function-Error": "Unhandled"})

    def _say(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the function logs a line for each."""


def main(port: int) -> None:
    HTTPServer(("127.0.0.1", port), _Invoke).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]))
