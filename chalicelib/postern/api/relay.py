"""What the public function does with a request to the API: hands it on, and answers what came back.

It reads no body, knows no token and reaches no database. What cannot be a token is refused here, and callers who guess
are made to wait, before anybody is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chalicelib.postern.api import access
from chalicelib.postern.contract.answers import Answer, error
from chalicelib.postern.contract.errors import PosternError

# No request of the API's is nearly as long.
_MAX_BODY_BYTES = 65_536

_COOKIE = "postern_session"

# Failures a minute, in one container, after which those who never succeeded there are answered 429.
_MAX_FAILURES = 20
_WITHIN_SECONDS = 60.0
_MAX_REMEMBERED = 1_000

HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class BackendUnavailable(PosternError):
    """The function that reaches the database does not answer."""


@dataclass(frozen=True)
class Request:
    """`headers`: by names in any case, without those that came twice. `secure`: it came by https."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes
    secure: bool


@dataclass
class Relay:
    """`ask` hands a request on, and raises BackendUnavailable; `clock` counts seconds."""

    ask: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    clock: Callable[[], float]
    _failures: list[float] = field(default_factory=list)
    _welcome: set[str | None] = field(default_factory=set)

    def answer(self, request: Request) -> Answer:
        made = self._answer(request)
        headers = {**HEADERS, **made.headers}
        if request.secure:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        return Answer(made.status, made.body, headers)

    def _answer(self, request: Request) -> Answer:
        if len(request.body) > _MAX_BODY_BYTES:
            return error(413, "payload_too_large", "The body is larger than any request of this API.")
        token, session = _token(request.headers), _session(request)
        opens = request.method == "POST" and request.path.rstrip("/") == "/api/session"
        if token is not None and not access.is_token(token):
            return access.UNAUTHORIZED
        if token is None and session is None and not opens:
            return access.UNAUTHORIZED
        known_by = None if opens else hashlib.sha256((token or session or "").encode()).hexdigest()
        if known_by not in self._welcome and self._failed_lately() >= _MAX_FAILURES:
            return _TOO_MANY
        asked = {
            "method": request.method,
            "path": request.path,
            "query": {name: list(values) for name, values in request.query.items()},
            "body": request.body.decode("utf-8", "replace") or None,
            "token": token,
            "session": session,
            "csrf": request.headers.get("postern-csrf"),
            "if_none_match": request.headers.get("if-none-match"),
        }
        try:
            found = self.ask(asked)
        except BackendUnavailable:
            return error(
                503, "unavailable", "The function behind this API does not answer now.", headers={"Retry-After": "5"}
            )
        self._remember(known_by, found["status"])
        headers = dict(found["headers"])
        if found["session"] is not None:
            headers["Set-Cookie"] = _cookie(found["session"], request.secure)
        return Answer(found["status"], found["body"], headers)

    def _failed_lately(self) -> int:
        since = self.clock() - _WITHIN_SECONDS
        self._failures = [at for at in self._failures if at > since]
        return len(self._failures)

    def _remember(self, known_by: str | None, status: int) -> None:
        if status == 401:
            self._failures.append(self.clock())
            self._welcome.discard(known_by)
        elif known_by is not None and status < 500 and len(self._welcome) < _MAX_REMEMBERED:
            self._welcome.add(known_by)


_TOO_MANY = error(429, "too_many_requests", "Too many failed logins; wait a minute.", headers={"Retry-After": "60"})


def _token(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _session(request: Request) -> str | None:
    """None where there is none, or what there is cannot be one."""
    for each in request.headers.get("cookie", "").split(";"):
        name, _, value = each.strip().partition("=")
        if name == _cookie_name(request.secure) and access.is_session(value):
            return value
    return None


def _cookie_name(secure: bool) -> str:
    """Browsers take the prefix by https only, and then from nobody but this host."""
    return f"__Host-{_COOKIE}" if secure else _COOKIE


def _cookie(session: str, secure: bool) -> str:
    """An empty session ends it."""
    age = access.SESSION_HOURS * 3600 if session else 0
    parts = [f"{_cookie_name(secure)}={session}", "Path=/", f"Max-Age={age}", "HttpOnly", "SameSite=Strict"]
    return "; ".join([*parts, "Secure"] if secure else parts)
