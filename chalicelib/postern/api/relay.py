"""What the public function does with a request to the API: hands it on, and answers what came back.

It knows no token and reaches no database. What cannot be a token is refused here, and addresses that guess are made to
wait, before anybody is asked. What it has and the function behind it has not are the sources' secrets: a refused
delivery that comes back for whoever may see it is explained or let through here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from chalicelib.postern.api import access, routes
from chalicelib.postern.contract.answers import Answer, error
from chalicelib.postern.contract.deliveries import Headers
from chalicelib.postern.contract.errors import Conflict, PosternError, QueueUnavailable, SecretUnavailable
from chalicelib.postern.contract.histories import as_event

# No request of the API's is nearly as long.
_MAX_BODY_BYTES = 65_536

_COOKIE = "postern_session"

# Failures a minute of one address, in one container, after which whoever there was not let in before is answered 429.
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
    """The function that reaches the database does not answer. Its text is why: FAILED where it ended in an error."""

    FAILED = "FunctionError"


@dataclass(frozen=True)
class Request:
    """`address`: the caller's. `secure`: it came by https."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)
    address: str
    secure: bool


class Finding(Protocol):
    @property
    def cause(self) -> str: ...

    @property
    def sentence(self) -> str: ...


class Outcome(Protocol):
    @property
    def words(self) -> str: ...

    @property
    def event(self) -> UUID | None: ...

    @property
    def note(self) -> str | None: ...

    @property
    def before(self) -> str | None: ...


class SecondLook(Protocol):
    """At a refused delivery. Both raise SecretUnavailable and Conflict, `let_through` QueueUnavailable as well."""

    def causes(self, found: Mapping[str, Any]) -> Sequence[Finding]: ...

    def let_through(self, found: Mapping[str, Any], *, stale: bool) -> Outcome: ...


@dataclass
class Relay:
    """`ask` hands a request on, `reconciler` what is to be reconciled; both raise BackendUnavailable. `clock` counts
    seconds.
    """

    ask: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    clock: Callable[[], float]
    second_look: Callable[[], SecondLook]
    reconciler: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    # Both are bounded, the oldest goes first.
    _failures: dict[str, list[float]] = field(default_factory=dict)
    _welcome: dict[str, None] = field(default_factory=dict)

    def answer(self, request: Request) -> Answer:
        made = self._answer(request)
        headers = {**HEADERS, **made.headers}
        if request.secure:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        return Answer(made.status, made.body, headers)

    def _answer(self, request: Request) -> Answer:
        if len(request.body) > _MAX_BODY_BYTES:
            return error(413, "payload_too_large", "The body is larger than any request of this API.")
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return error(403, "forbidden", "Pages of elsewhere are not answered.")
        opens = request.method == "POST" and request.path == "/api/session"
        token = _token_to_open(request.body) if opens else _token(request.headers)
        session = None if opens else _session(request)
        if not (session if token is None else access.is_token(token)):
            return access.UNAUTHORIZED
        known_by = hashlib.sha256((token or session or "").encode()).hexdigest()
        if known_by not in self._welcome and self._failures_of(request.address) >= _MAX_FAILURES:
            return _TOO_MANY
        asked = {
            "method": request.method,
            "path": request.path,
            "query": {name: list(values) for name, values in request.query.items()},
            "body": request.body.decode("utf-8", "replace") or None,
            "token": None if opens else token,
            "session": session,
            "csrf": request.headers.get("postern-csrf"),
            "if_none_match": request.headers.get("if-none-match"),
        }
        route, _, _ = routes.find(request.method, request.path)
        looks_again = route is not None and route.action in (routes.EXPLAIN, routes.REVERIFY)
        if looks_again:
            asked["if_none_match"] = None  # the delivery stays as it is, and what is said of it does not
        try:
            found = self.ask(asked)
            made = Answer(found["status"], found["body"], found["headers"])
            if looks_again and made.status == 200:
                made = self._looked_at_again(asked, **found["body"])
            if route is not None and route.action in (routes.RECONCILE, routes.ADVANCE) and made.status == 200:
                made = self._reconciled(found["body"])
        except BackendUnavailable as exc:
            if str(exc) == exc.FAILED:
                return error(500, "internal_error", "Something went wrong here; the log says what.")
            message = "The function behind this API does not answer now."
            return error(503, "unavailable", message, headers={"Retry-After": "5"})
        self._remember(request.address, known_by, found["status"])
        if found["session"] is None:
            return made
        return Answer(made.status, made.body, {**made.headers, "Set-Cookie": _cookie(found["session"], request.secure)})

    def _looked_at_again(
        self, asked: Mapping[str, Any], rejected: Mapping[str, Any], stale: bool | None = None
    ) -> Answer:
        """Whoever asks may: the delivery has come back. Without `stale` they ask why, and change nothing."""
        try:
            if stale is None:
                causes = self.second_look().causes(rejected)
                return Answer(200, {"causes": [{"cause": each.cause, "sentence": each.sentence} for each in causes]})
            outcome = self.second_look().let_through(rejected, stale=stale)
        except Conflict as exc:
            return error(409, "conflict", str(exc))
        except (SecretUnavailable, QueueUnavailable):
            message = "The sources' secrets or the queue cannot be reached now; try again."
            return error(503, "unavailable", message, headers={"Retry-After": "5"})
        if outcome.event is not None:
            became = {"event_id": str(outcome.event), "note": outcome.note}
            path = f"/api/rejected/{rejected['id']}/resolve"
            noted = self.ask({**asked, "path": path, "body": json.dumps(became)})
            if noted["status"] != 200:  # it is queued; asked again, it is queued again and is the same event
                return Answer(noted["status"], noted["body"], noted["headers"])
        event = outcome.before if outcome.event is None else str(outcome.event)
        return Answer(200, {"outcome": outcome.words, "event_id": event})

    def _reconciled(self, allowed: Mapping[str, Any]) -> Answer:
        """Whoever asks may: what to begin has come back, or which one is to go on."""
        asked = allowed if "begin" in allowed else {"step": allowed["reconciliation"]["id"]}
        became = self.reconciler(as_event(asked))
        if "refused" in became:
            return error(409, "conflict", became["refused"])
        if "unavailable" in became:
            message = "Something that this needs does not answer now; try again."
            return error(503, "unavailable", message, headers={"Retry-After": "5"})
        return Answer(200, became)

    def _failures_of(self, address: str) -> int:
        since = self.clock() - _WITHIN_SECONDS
        recent = [at for at in self._failures.pop(address, []) if at > since]
        if recent:
            self._failures[address] = recent
        return len(recent)

    def _remember(self, address: str, known_by: str, status: int) -> None:
        if status == 401:
            self._failures.setdefault(address, []).append(self.clock())
            self._welcome.pop(known_by, None)
        elif status < 500:
            self._welcome[known_by] = None
        for kept in (self._failures, self._welcome):
            while len(kept) > _MAX_REMEMBERED:
                del kept[next(iter(kept))]


_TOO_MANY = error(429, "too_many_requests", "Too many failed logins; wait a minute.", headers={"Retry-After": "60"})


def _token(headers: Mapping[str, str]) -> str | None:
    """None where none is given; what cannot be one is none either, and no session makes up for it."""
    if "authorization" not in headers:
        return None
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _token_to_open(body: bytes) -> str:
    """What a session is asked for with: an object of one field. Empty where it is none."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    match found:
        case {"token": str(token), **others} if not others:
            return token
    return ""


def _session(request: Request) -> str | None:
    """None where there is none, or what there is cannot be one."""
    for each in ";".join(request.headers.all("cookie")).split(";"):
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
