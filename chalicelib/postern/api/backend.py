"""Answers the API's requests where the database can be reached: knows who asks, finds what is asked, has it done.

The public function hands on what it was sent, and no more than that; so whatever went wrong there, nothing is read or
changed without a token. What a *read* token may do is done by an operator whose database refuses every write.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from marshmallow import fields

from chalicelib.postern.api import access, routes
from chalicelib.postern.api.access import Caller, Role, Token
from chalicelib.postern.api.routes import Route
from chalicelib.postern.contract.answers import Answer, error
from chalicelib.postern.contract.errors import (
    Conflict,
    DatabaseUnavailable,
    MetricsUnavailable,
    NotFound,
    PosternError,
    Refusal,
    SecretUnavailable,
    StatementFailed,
    UnfitArguments,
    UnknownAction,
)
from chalicelib.postern.contract.payloads import loads
from chalicelib.postern.operating.operator import VIEWS, Operator, presentable

_SAFE = ("GET", "HEAD")

_MAX_DEPTH = 100
_SURROGATES = re.compile("[\ud800-\udfff]")


_DESCRIPTION = Path(__file__).with_name("openapi.json")


def description() -> dict[str, Any]:
    """Of this API, in OpenAPI 3.1. `make openapi` writes it."""
    found: dict[str, Any] = json.loads(_DESCRIPTION.read_text("utf-8"))
    return found


@dataclass(frozen=True)
class Asked:
    """A request as the public function hands it on. `query`: all values of each name; `body`: its text, unread."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]] = field(repr=False)
    body: str | None = field(repr=False)
    token: str | None = field(repr=False)
    session: str | None = field(repr=False)
    csrf: str | None = field(repr=False)
    if_none_match: str | None

    @classmethod
    def from_json(cls, request: Mapping[str, Any]) -> Asked:
        """Raises KeyError or TypeError for what the public function never sends."""
        return cls(**{name: request[name] for name in cls.__dataclass_fields__})


class Secret(Protocol):
    """`afresh`: as it was a second ago at most."""

    def __call__(self, *, afresh: bool) -> Mapping[str, Any]: ...


class _Refused(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


@dataclass(frozen=True)
class Backend:
    """`secret` gives the tokens' secret, and raises SecretUnavailable; `reader` is who changes nothing. `description`:
    the API's own, in OpenAPI.
    """

    secret: Secret
    reader: Callable[[], Operator]
    operator: Callable[[], Operator]
    description: Callable[[], Mapping[str, Any]]
    now: Callable[[], datetime]

    def answer(self, request: Mapping[str, Any], note: Callable[..., None]) -> dict[str, Any]:
        """`{"status", "headers", "body", "session"}`, of which the last is the cookie's new value, or None where it
        stays. `note` is told what the log line is to say, by name: never an argument, which may be data.
        """
        asked = Asked.from_json(request)
        session = None
        try:
            made, session = self._answer(asked, note)
        except _Refused as refused:
            made = refused.answer
        except SecretUnavailable as exc:
            note(reason=exc.reason)
            made = _away("tokens_unavailable", "Tokens cannot be verified now; try again.")
        except PosternError as exc:
            # What PostgreSQL says of a statement may quote its values.
            note(reason=type(exc).__name__, detail=None if isinstance(exc, StatementFailed) else str(exc))
            made = _gone_wrong(exc)
        note(status=made.status)
        return {"status": made.status, "headers": dict(made.headers), "body": made.body, "session": session}

    def _answer(self, asked: Asked, note: Callable[..., None]) -> tuple[Answer, str | None]:
        route, names, methods = routes.find(asked.method, asked.path)
        if route is not None and route.action == routes.OPEN_SESSION:
            note(operation=route.id)
            return self._open_session(asked, note)
        caller = self._caller(lambda tokens: _named_by(asked, tokens, self.now()))
        note(by=caller.token.name)
        if route is None:
            raise _Refused(_no_such(methods))
        note(operation=route.id)
        if asked.method not in _SAFE:
            if caller.csrf is not None and not _same(asked.csrf, caller.csrf):
                raise _Refused(error(403, "csrf", "A session needs the header Postern-Csrf for this."))
            if asked.query:
                raise _Refused(_unfit({name: ["Arguments of this stand in its body."] for name in asked.query}))
        if route.action == routes.CLOSE_SESSION:
            return Answer(200, {"closed": True}), ""
        return self._cached(asked, self._result(asked, route, names, caller)), None

    def _caller(self, find: Callable[[list[Token]], Caller | None]) -> Caller:
        """Whom nobody knows may have been given a token a moment ago."""
        for afresh in (False, True):
            if caller := find(access.read_tokens(self.secret(afresh=afresh))):
                return caller
        raise _Refused(access.UNAUTHORIZED)

    def _open_session(self, asked: Asked, note: Callable[..., None]) -> tuple[Answer, str]:
        given = _object(asked.body).get("token")
        if not isinstance(given, str):
            raise _Refused(access.UNAUTHORIZED)
        caller = self._caller(lambda tokens: access.caller_by_token(given, tokens))
        note(by=caller.token.name)
        session, caller = access.open_session(caller.token, self.now())
        return Answer(200, _who(caller)), session

    def _result(self, asked: Asked, route: Route, names: Mapping[str, str], caller: Caller) -> Mapping[str, Any]:
        if route.action == routes.WHO:
            return _who(caller)
        if route.action == routes.DESCRIPTION:
            return self.description()
        changes = route.action not in VIEWS and not route.looks
        if changes and not caller.token.role.may(Role.OPERATE):
            raise _Refused(error(403, "forbidden", "This needs a token of the role 'operate'."))
        operator = self.reader() if route.action in VIEWS else self.operator()
        schema = operator.actions[route.action].arguments.fields
        given = _from_query(asked.query, schema) if asked.method in _SAFE else _object(asked.body)
        if problem := _problem(given):
            raise _Refused(error(400, "invalid_request", problem))
        if misplaced := given.keys() & {*route.given, *names, "action"}:
            raise _Refused(_unfit({name: ["Unknown field."] for name in misplaced}))
        if route.sweeps and given.pop("all", False) is not True and not _narrows(given):
            raise _Refused(_unfit({"all": ["Say which, or that `all` of them are meant: true."]}))
        try:
            result = operator.perform({**given, **route.given, **names, "action": route.action})
        except UnfitArguments as exc:
            raise _Refused(_unfit(exc.problems)) from None
        except NotFound as exc:
            raise _Refused(error(404, "not_found", str(exc))) from None
        except Conflict as exc:
            raise _Refused(error(409, "conflict", str(exc))) from None
        except UnknownAction as exc:
            raise _Refused(error(400, "invalid_request", str(exc))) from None
        if route.one is not None and result[route.one] is None:
            raise _Refused(error(404, "not_found", f"There is no such {route.one}."))
        if route.pages is not None:
            searched_to = result.get("searched_to")
            next = {"before": searched_to} if searched_to else _next(result[route.pages], given, schema)
            return {**result, "next": next}
        return result

    def _cached(self, asked: Asked, result: Mapping[str, Any]) -> Answer:
        """Of what was asked before and is the same nothing is sent again (RFC 9110, section 13.1.2)."""
        if asked.method not in _SAFE:
            return Answer(200, result)
        text = json.dumps(result, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
        tag = f'"{hashlib.sha256(text).hexdigest()[:32]}"'
        known = [each.strip().removeprefix("W/") for each in (asked.if_none_match or "").split(",")]
        return Answer(304, "", {"ETag": tag}) if {tag, "*"} & {*known} else Answer(200, result, {"ETag": tag})


def _named_by(asked: Asked, tokens: list[Token], now: datetime) -> Caller | None:
    if asked.token is not None:
        return access.caller_by_token(asked.token, tokens)
    return None if asked.session is None else access.caller_by_session(asked.session, tokens, now)


def _away(code: str, message: str) -> Answer:
    return error(503, code, message, headers={"Retry-After": "5"})


def _gone_wrong(exc: PosternError) -> Answer:
    """What it says is for the log: it may quote addresses and rights."""
    match exc:
        case DatabaseUnavailable():
            return _away("database_unavailable", "The database does not answer now; try again.")
        case StatementFailed(bad_data=True):
            return error(400, "invalid_request", "The database takes no such value.")
        case StatementFailed(passing=True):
            return _away("too_slow", "The database took too long for this; ask for less, or try again.")
        case Refusal(status=503) | MetricsUnavailable():
            return _away("unavailable", "Something that this needs does not answer now; try again.")
    return error(500, "internal_error", "Something went wrong here; the log says what.")


def _no_such(methods: Sequence[str]) -> Answer:
    if methods:
        allowed = {"Allow": ", ".join([*methods, *(["HEAD"] if "GET" in methods else [])])}
        return error(405, "method_not_allowed", "This path does not take this method.", headers=allowed)
    return error(404, "not_found", "There is no such path; /api/openapi.json lists them.")


def _unfit(problems: Mapping[str, Any]) -> Answer:
    return error(400, "invalid_request", "The request is not valid.", details=problems)


def _object(body: str | None) -> dict[str, Any]:
    """The JSON object that the body is; an empty one where there is none."""
    if not body:
        return {}
    try:
        found = loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _Refused(error(400, "invalid_request", "The body is not a JSON object."))
    return found


def _from_query(query: Mapping[str, Sequence[str]], schema: Mapping[str, fields.Field[Any]]) -> dict[str, Any]:
    """The arguments that the query gives: a list where one is asked for, JSON where anything may come."""
    given: dict[str, Any] = {}
    problems: dict[str, list[str]] = {}
    for name, values in query.items():
        match schema.get(name):
            case fields.List():
                given[name] = list(values)
            case _ if len(values) > 1:
                problems[name] = ["It is given more than once."]
            case fields.Raw():
                try:
                    given[name] = loads(values[0])
                except (ValueError, RecursionError):
                    problems[name] = ["Not valid JSON."]
            case _:
                given[name] = values[0]
    if problems:
        raise _Refused(_unfit(problems))
    return given


def _problem(given: Mapping[str, Any]) -> str | None:
    """A sentence on what no argument may hold: what PostgreSQL takes in no text (NUL, halves of characters), and what
    is nested too deep for whoever reads it next.
    """
    level: list[Any] = [given]
    for _ in range(_MAX_DEPTH):
        texts = [each for each in level if isinstance(each, str)]
        if any("\0" in text or _SURROGATES.search(text) for text in texts):
            return "It has characters that no text may have."
        level = [
            inner
            for each in level
            if isinstance(each, list | dict)
            for inner in (each if isinstance(each, list) else [*each.keys(), *each.values()])
        ]
        if not level:
            return None
    return "It is nested too deep."


def _narrows(given: Mapping[str, Any]) -> bool:
    """Whether they say of what, and not only how much at a time."""
    return any(value is not None for name, value in given.items() if name not in ("rate", "most"))


def _next(
    rows: Sequence[Mapping[str, Any]], given: Mapping[str, Any], schema: Mapping[str, fields.Field[Any]]
) -> Mapping[str, Any] | None:
    """What to ask for the page behind these rows; None where they are the last."""
    limit = int(given.get("limit", schema["limit"].load_default))
    return {"before": rows[-1].get("cursor", rows[-1]["id"])} if len(rows) >= limit else None


def _who(caller: Caller) -> dict[str, Any]:
    found: dict[str, Any] = presentable(
        {
            "name": caller.token.name,
            "role": caller.token.role.value,
            "fingerprint": caller.token.fingerprint,
            "ends_at": caller.ends_at,
            "csrf": caller.csrf,
        }
    )
    return found


def _same(given: str | None, expected: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode())
