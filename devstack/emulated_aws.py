"""The emulated AWS as a process of its own: `ministack`, which answers the run that it belongs to.

It takes any credentials and lets every origin read its answers, so a page that the developer happens to look at could
read the run's secrets and send events. A browser says where a page is from, in `Origin` or `Sec-Fetch-Site`; a page
of a name that was made to mean this machine calls it by that name, in `Host`; and neither a page nor another user of
the machine knows the run's access key.
"""

from __future__ import annotations

import hmac
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Asgi = Callable[[Mapping[str, Any], Callable[..., Any], Callable[[Any], Awaitable[None]]], Awaitable[None]]

# This machine's own names; S3 and API Gateway put a bucket's or an API's before them.
_OWN_HOST = re.compile(r"(?:[a-z0-9.-]+\.)?(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.ASCII | re.I)


# The access key of the run, in the environment.
KEY_VARIABLE = "POSTERN_EMULATOR_KEY"
HEALTH = "/_ministack/health"

# Where Signature Version 4 names it: in the header, or in the query of a URL that was signed.
_CREDENTIAL = re.compile(r"(?:AWS4-HMAC-SHA256\s+.*?|X-Amz-)Credential=([A-Za-z0-9]+)(?:/|%2F)", re.ASCII | re.I)


def guarded(serve: Asgi, key: str) -> Asgi:
    async def answer(scope: Mapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] == "websocket":  # nothing here uses one
            await send({"type": "websocket.close", "code": 1008})
            return
        why = refusal(scope["headers"]) if scope["type"] == "http" else ""
        if scope["type"] == "http" and not why and scope["path"] != HEALTH:
            why = stranger(scope["headers"], scope.get("query_string", b""), key)
        if why:
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


def stranger(headers: list[tuple[bytes, bytes]], query: bytes, key: str) -> str:
    """Why this is no request of the run; empty where it is. The signature itself is not looked at."""
    signed = b" ".join([*(value for name, value in headers if name.lower() == b"authorization"), query])
    found = _CREDENTIAL.search(signed.decode("latin-1"))
    if found and hmac.compare_digest(found[1], key):
        return ""
    return "The emulated AWS answers with the access key of its run alone; .local/run.json has it."


def main() -> None:
    from ministack import app  # type: ignore[import-untyped]  # as long in coming as all the rest

    app.app = guarded(app.app, os.environ.pop(KEY_VARIABLE))
    app.main()


if __name__ == "__main__":
    main()
