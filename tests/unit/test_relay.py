"""The public end of the API: what it refuses by itself, what it hands on, and how it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from chalicelib.postern.api import access
from chalicelib.postern.api.relay import BackendUnavailable, Relay, Request
from chalicelib.postern.contract.answers import Answer
from chalicelib.postern.contract.deliveries import Headers
from chalicelib.postern.contract.errors import Conflict, QueueUnavailable, SecretUnavailable

TOKEN = access.make_token(bytes(range(32)))
ANOTHER = access.make_token(bytes(32))
HEADERS = Headers([("authorization", f"Bearer {TOKEN}")])
SESSION = f"{'a' * 64}.1234567890.{'b' * 64}"


THE_EVENT = UUID(int=7)


@dataclass
class Found:
    """As a second look finds it: a cause, or an outcome."""

    cause: str = "url"
    sentence: str = "It is signed for another address."
    words: str = "let through"
    event: UUID | None = THE_EVENT
    note: str | None = "a note"
    before: str | None = None


class Look:
    """Sees what it is told to, or raises it."""

    def __init__(self) -> None:
        self.sees: Found | Exception = Found()

    def _look(self) -> Found:
        if isinstance(self.sees, Exception):
            raise self.sees
        return self.sees

    def causes(self, found: Mapping[str, Any]) -> list[Found]:
        return [self._look()]

    def let_through(self, found: Mapping[str, Any], *, stale: bool) -> Found:
        return self._look()


class Behind:
    """What is asked, and answers as it is told to."""

    def __init__(self, status: int = 200, session: str | None = None) -> None:
        self.status = status
        self.session = session
        self.asked: list[Mapping[str, Any]] = []
        self.now = 1000.0
        self.look = Look()
        self.body: Mapping[str, Any] = {"of": "it"}
        self.reconciled: list[Mapping[str, Any]] = []
        self.became: Mapping[str, Any] | Exception = {}
        self.relay = Relay(self.ask, lambda: self.now, lambda: self.look, self.reconcile)

    def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.asked.append(request)
        return {"status": self.status, "headers": {"ETag": '"1"'}, "body": self.body, "session": self.session}

    def reconcile(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        self.reconciled.append(event["detail"])
        if isinstance(self.became, Exception):
            raise self.became
        return self.became

    def request(
        self,
        method: str = "GET",
        path: str = "/api/events",
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        secure: bool = True,
        token: str | None = TOKEN,
        address: str = "192.0.2.1",
    ) -> Answer:
        given = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        asked = Request(method, path, {"limit": ["5"]}, Headers(given.items()), body, address, secure)
        return self.relay.answer(asked)

    def login(self, token: str = TOKEN, *, secure: bool = True, address: str = "192.0.2.1") -> Answer:
        body = json.dumps({"token": token}).encode()
        return self.request("POST", "/api/session", token=None, body=body, secure=secure, address=address)


def test_it_hands_on_what_it_was_sent_and_answers_what_came_back() -> None:
    behind = Behind()
    headers = {"Postern-Csrf": "c", "If-None-Match": "e"}
    answer = behind.request("PATCH", "/api/issues/1", body=b'{"a": 1}', headers=headers)
    assert behind.asked == [
        {
            "method": "PATCH",
            "path": "/api/issues/1",
            "query": {"limit": ["5"]},
            "body": '{"a": 1}',
            "token": TOKEN,
            "session": None,
            "csrf": "c",
            "if_none_match": "e",
        }
    ]
    assert (answer.status, answer.body, answer.headers["ETag"]) == (200, {"of": "it"}, '"1"')


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer postern_guess"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Cookie": "__Host-postern_session="},
        {"Cookie": "__Host-postern_session=guess"},
        {"Cookie": f"postern_session={SESSION}"},  # which another host of the domain could have set
        {"Cookie": f"other={SESSION}"},
    ],
)
def test_who_can_have_no_token_is_refused_without_asking(headers: dict[str, str]) -> None:
    behind = Behind()
    answer = behind.request(token=None, headers=headers)
    assert (answer.status, behind.asked) == (401, [])
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="Postern"'


def test_a_session_is_handed_on_from_its_cookie() -> None:
    behind = Behind()
    behind.request(token=None, headers={"Cookie": f"a=b; __Host-postern_session={SESSION}; c=d"})
    behind.request(token=None, headers={"Cookie": f"postern_session={SESSION}"}, secure=False)
    assert [(asked["token"], asked["session"]) for asked in behind.asked] == [(None, SESSION)] * 2


def test_a_login_needs_nothing_but_its_body() -> None:
    behind = Behind(session=SESSION)
    answer = behind.login()
    assert [(asked["token"], asked["body"]) for asked in behind.asked] == [(None, json.dumps({"token": TOKEN}))]
    assert answer.headers["Set-Cookie"] == (
        f"__Host-postern_session={SESSION}; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"
    )


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"\xff", b"[" * 60_000, b'["token"]', b'{"token": 1}', b'{"token": "guess"}', b"{}"),
        f'{{"token":"{TOKEN}","as a form of elsewhere sends it":"="}}'.encode(),
    ],
)
def test_what_cannot_be_a_login_is_refused_without_asking(body: bytes) -> None:
    behind = Behind()
    assert (behind.request("POST", "/api/session", token=TOKEN, body=body).status, behind.asked) == (401, [])


def test_a_logout_takes_the_cookie_away() -> None:
    answer = Behind(session="").request("DELETE", "/api/session")
    assert answer.headers["Set-Cookie"].startswith("__Host-postern_session=; Path=/; Max-Age=0;")


def test_without_https_the_cookie_is_one_that_browsers_take() -> None:
    answer = Behind(session=SESSION).login(secure=False)
    assert answer.headers["Set-Cookie"] == (
        f"postern_session={SESSION}; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"
    )
    assert "Strict-Transport-Security" not in answer.headers


def test_an_address_that_guesses_is_made_to_wait_and_who_was_let_in_there_is_not() -> None:
    behind = Behind()
    assert behind.request().status == 200
    behind.status = 401
    for _ in range(20):
        assert behind.request(token=ANOTHER).status == 401
    asked = len(behind.asked)
    for attempt in (behind.request(token=ANOTHER), behind.login(ANOTHER)):
        assert (attempt.status, attempt.headers["Retry-After"]) == (429, "60")
    assert len(behind.asked) == asked
    behind.status = 200
    assert behind.request().status == 200
    behind.now += 61
    assert behind.request(token=ANOTHER).status == 200


def test_nobody_is_held_up_by_what_others_guess() -> None:
    behind = Behind()
    behind.status = 401
    for _ in range(30):
        behind.login(ANOTHER)
    behind.status = 200
    assert behind.login(address="192.0.2.2").status == 200
    assert behind.request(token=ANOTHER, address="192.0.2.2").status == 200


def test_a_login_that_succeeded_opens_no_way_for_guesses() -> None:
    behind = Behind(session=SESSION)
    assert behind.login().status == 200
    behind.status = 401
    assert [behind.login(ANOTHER).status for _ in range(21)] == [401] * 20 + [429]


def test_whose_token_is_revoked_counts_as_a_guess() -> None:
    behind = Behind()
    behind.request()
    behind.status = 401
    assert [behind.request().status for _ in range(21)] == [401] * 20 + [429]


def test_what_is_remembered_of_callers_is_bounded_and_the_newest_are() -> None:
    behind = Behind()
    tokens = [access.make_token(n.to_bytes(32, "big")) for n in range(1_100)]
    for n, token in enumerate(tokens):
        behind.request(token=token, address=f"192.0.2.{n}")
    assert max(len(behind.relay._welcome), len(behind.relay._failures)) <= 1_001
    behind.status = 401
    for _ in range(20):
        behind.request(token=ANOTHER)
    behind.status = 200
    assert [behind.request(token=tokens[n]).status for n in (-1, 0)] == [200, 429]


def test_nothing_is_remembered_of_addresses_that_have_not_failed() -> None:
    behind = Behind(status=503)
    for n in range(10):
        behind.request(address=f"192.0.2.{n}")
    assert (behind.relay._failures, behind.relay._welcome) == ({}, {})


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_page_of_elsewhere_is_answered(site: str) -> None:
    behind = Behind()
    assert behind.request(headers={"Sec-Fetch-Site": site}).status == 403
    assert behind.asked == []


def test_a_cookie_header_that_a_browser_splits_is_one() -> None:
    behind = Behind()
    headers = Headers([("cookie", "a=b"), ("cookie", f"__Host-postern_session={SESSION}")])
    behind.relay.answer(Request("GET", "/api/events", {}, headers, b"", "192.0.2.1", secure=True))
    assert behind.asked[0]["session"] == SESSION


def test_a_token_that_is_none_is_not_made_up_for_by_a_session() -> None:
    cookie = {"Cookie": f"__Host-postern_session={SESSION}"}
    for given in ("Bearer guess", "Basic abc", "Bearer"):
        assert Behind().request(token=None, headers=cookie | {"Authorization": given}).status == 401


def test_no_repr_shows_what_was_sent() -> None:
    request = Request("GET", "/api", {}, Headers([("authorization", TOKEN)]), TOKEN.encode(), "192.0.2.1", secure=True)
    assert TOKEN not in repr(request)


def test_a_body_that_no_request_has_is_not_handed_on() -> None:
    behind = Behind()
    assert (behind.request("POST", body=b"x" * 65_537).status, behind.asked) == (413, [])


@pytest.mark.parametrize(
    ("why", "status", "code"), [("ReadTimeoutError", 503, "unavailable"), ("FunctionError", 500, "internal_error")]
)
def test_a_backend_that_does_not_answer_is_said(why: str, status: int, code: str) -> None:
    def away(request: Mapping[str, Any]) -> Mapping[str, Any]:
        raise BackendUnavailable(why)

    relay = Relay(away, lambda: 0.0, Look, away)
    answer = relay.answer(Request("GET", "/api/events", {}, HEADERS, b"", "192.0.2.1", True))
    assert isinstance(answer.body, Mapping)
    assert (answer.status, answer.body["error"]) == (status, code)
    assert ("Retry-After" in answer.headers) == (status == 503)


@pytest.mark.parametrize("token", [TOKEN, None])
def test_every_answer_tells_browsers_to_keep_to_themselves(token: str | None) -> None:
    headers = Behind().request(token=token).headers
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "private, no-cache"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Strict-Transport-Security"] == "max-age=31536000"
    assert not [name for name in headers if name.startswith("Access-Control-")]


REFUSED = "/api/rejected/00000000-0000-0000-0000-000000000007"


def test_a_refused_delivery_that_comes_back_is_explained_where_the_secrets_are() -> None:
    behind = Behind()
    behind.body = {"rejected": {"id": str(THE_EVENT)}}
    answer = behind.request(path=f"{REFUSED}/causes", headers={"If-None-Match": "*"})
    assert answer.body == {"causes": [{"cause": "url", "sentence": "It is signed for another address."}]}
    assert ("ETag" in answer.headers, behind.asked[0]["if_none_match"]) == (False, None)


def test_what_is_let_through_is_noted_by_whoever_asked() -> None:
    behind = Behind()
    behind.body = {"rejected": {"id": str(THE_EVENT)}, "stale": False}
    answer = behind.request("POST", f"{REFUSED}/reverify", headers={"Postern-Csrf": "c"})
    assert answer.body == {"outcome": "let through", "event_id": str(THE_EVENT)}
    noted = behind.asked[1]
    assert (noted["method"], noted["path"], noted["token"], noted["csrf"]) == ("POST", f"{REFUSED}/resolve", TOKEN, "c")
    assert json.loads(noted["body"]) == {"event_id": str(THE_EVENT), "note": "a note"}


@pytest.mark.parametrize(
    ("sees", "said"),
    [
        (Found(words="still refused: signature_mismatch", event=None), {"event_id": None}),
        (Found(words="was let through before", event=None, before="e"), {"event_id": "e"}),
    ],
)
def test_what_is_not_let_through_now_is_noted_nowhere(sees: Found, said: Mapping[str, Any]) -> None:
    behind = Behind()
    behind.body, behind.look.sees = {"rejected": {"id": str(THE_EVENT)}, "stale": False}, sees
    assert behind.request("POST", f"{REFUSED}/reverify").body == {"outcome": sees.words, **said}
    assert len(behind.asked) == 1


@pytest.mark.parametrize("path", ["causes", "reverify"])
def test_whoever_may_not_see_it_looks_at_nothing(path: str) -> None:
    behind = Behind(status=403)
    behind.look.sees = AssertionError("it was looked at")
    assert behind.request("GET" if path == "causes" else "POST", f"{REFUSED}/{path}").status == 403


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (Conflict("The source 'x' is declared no more."), 409),
        (SecretUnavailable("secrets_unreachable: Timeout"), 503),
        (QueueUnavailable("Timeout"), 503),
    ],
)
def test_what_cannot_be_looked_at_now_is_said(raised: Exception, status: int) -> None:
    behind = Behind()
    behind.body, behind.look.sees = {"rejected": {"id": str(THE_EVENT)}, "stale": True}, raised
    assert behind.request("POST", f"{REFUSED}/reverify").status == status


BEGIN = {"begin": {"source": "code", "since": None, "only_looks": True}}
RUN = {"reconciliation": {"id": "the id", "state": "listing"}}


@pytest.mark.parametrize(
    ("path", "allowed", "asked"),
    [
        ("/api/reconciliations", BEGIN, BEGIN),
        ("/api/reconciliations/1/advance", RUN, {"step": "the id"}),
    ],
)
def test_whoever_may_reconcile_has_it_done_by_the_function_that_has_the_tokens(
    path: str, allowed: Mapping[str, Any], asked: Mapping[str, Any]
) -> None:
    behind = Behind()
    behind.body, behind.became = allowed, {**RUN, "held": None, "seconds": None}
    answer = behind.request("POST", path, body=b"{}")
    assert (answer.status, answer.body) == (200, behind.became)
    assert behind.reconciled == [asked]


def test_whoever_may_not_reconcile_asks_nobody_else() -> None:
    behind = Behind(403)
    behind.body = BEGIN
    assert behind.request("POST", "/api/reconciliations", body=b"{}").status == 403
    assert behind.reconciled == []


@pytest.mark.parametrize(
    ("became", "status"),
    [
        ({"refused": "There is no source 'code'."}, 409),
        ({"unavailable": "secrets_unreachable: AccessDenied"}, 503),
        (BackendUnavailable("ReadTimeoutError"), 503),
        (BackendUnavailable(BackendUnavailable.FAILED), 500),
    ],
)
def test_what_cannot_be_reconciled_now_is_said(became: Mapping[str, Any] | Exception, status: int) -> None:
    behind = Behind()
    behind.body, behind.became = BEGIN, became
    answer = behind.request("POST", "/api/reconciliations", body=b"{}")
    assert answer.status == status
    assert "AccessDenied" not in str(answer.body)
