"""The emulated AWS as a process of its own: `ministack`, which answers nobody's web page.

It takes any credentials and lets every origin read its answers, so a page that the developer happens to look at could
read the run's secrets and send events. A browser says where a page is from, in `Origin` or `Sec-Fetch-Site`; and a page
of a name that was made to mean this machine calls it by that name, in `Host`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ministack import app  # type: ignore[import-untyped]

Asgi = Callable[[Mapping[str, Any], Callable[..., Any], Callable[[Any], Awaitable[None]]], Awaitable[None]]

# This machine's own names; S3 and API Gateway put a bucket's or an API's before them.
_OWN_HOST = re.compile(r"(?:[a-z0-9.-]+\.)?(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.ASCII | re.I)


def guarded(serve: Asgi) -> Asgi:
    async def answer(scope: Mapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "websocket" and refusal(scope["headers"]):
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] == "http" and (why := refusal(scope["headers"])):
            body = json.dumps({"message": why}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await serve(scope, receive, send)

    return answer


def refusal(headers: list[tuple[bytes, bytes]]) -> str:
    """Why a request with these headers is none of ours; empty where it may be."""
    named = {name.lower(): value.decode("latin-1") for name, value in headers}
    if b"origin" in named or named.get(b"sec-fetch-site", "none") not in ("none", "same-origin"):
        return "The emulated AWS answers no web pages."
    if not _OWN_HOST.fullmatch(named.get(b"host", "localhost")):
        return "The emulated AWS answers to this machine's own names alone."
    return ""


def main() -> None:
    app.app = guarded(app.app)
    app.main()


if __name__ == "__main__":
    main()
