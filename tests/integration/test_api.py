"""The API, from the public end to the rows and back: who may do what, and what bad requests get."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from jsonschema import Draft202012Validator

from chalicelib.postern.api import access, routes
from chalicelib.postern.api.backend import Backend, description
from chalicelib.postern.api.relay import Relay, Request
from chalicelib.postern.contract.answers import Answer
from chalicelib.postern.contract.deliveries import Headers
from chalicelib.postern.contract.errors import ConfigurationError, SecretUnavailable
from chalicelib.postern.operating.operator import VIEWS
from chalicelib.postern.running import wiring
from devstack.settings import PROJECT
from tests.integration.world import World, effect, fails_for, numbered, work

READ, OPERATE = (access.make_token(bytes([n]) * 32) for n in (1, 2))
SECRET = {
    "tokens": {
        "anna": {"sha256": access.hashed(READ), "role": "read"},
        "bert": {"sha256": access.hashed(OPERATE), "role": "operate"},
    }
}


class Api:
    """Both ends of it, and JSON on the wire between them."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.secret: Callable[[], Mapping[str, Any]] = lambda: SECRET
        self.notes: dict[str, Any] = {}
        self._seconds = 0.0
        self.reconciler: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda event: {"refused": "Not here."}
        self.relay = Relay(self._ask, self._clock, wiring.second_look, lambda event: self.reconciler(event))

    def _clock(self) -> float:
        """Nobody is made to wait here."""
        self._seconds += 60
        return self._seconds

    def _ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.notes = {}
        backend = Backend(lambda afresh: self.secret(), wiring.reader, wiring.operator, description, lambda: self.now)
        answer: Mapping[str, Any] = json.loads(
            json.dumps(backend.answer(json.loads(json.dumps(request)), self.notes.update))
        )
        return answer

    def request(
        self,
        method: str,
        path: str,
        *,
        token: str | None = READ,
        query: Mapping[str, list[str]] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        given = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        answer = self.relay.answer(Request(method, path, query or {}, Headers(given.items()), raw, "192.0.2.1", True))
        assert_described(method, path, answer)
        return answer

    def get(self, path: str, token: str = READ, **query: str) -> Any:
        answer = self.request("GET", path, token=token, query={name: [value] for name, value in query.items()})
        assert answer.status == 200, answer
        return answer.body

    def post(self, path: str, method: str = "POST", **body: Any) -> Any:
        answer = self.request(method, path, token=OPERATE, body=body)
        assert answer.status == 200, answer
        return answer.body

    def refused(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        answer = self.request(method, path, **options)
        assert isinstance(answer.body, Mapping)
        assert answer.body.keys() == {"error", "message", "details"}
        return answer.status, answer.body


DESCRIPTION = description()
DOCUMENT = PROJECT / "docs" / "api.md"


# Asked of a whole run, in tests/acceptance/test_api.py.
_WITH_QUEUES = {"dead_letters", "queues"}


def assert_described(method: str, path: str, answer: Answer) -> None:
    """That the API's description has such an answer."""
    route, _, _ = routes.find(method, path)
    if route is None:
        assert answer.status in (401, 404, 405)
        return
    responses = DESCRIPTION["paths"][route.path][method.lower()]["responses"]
    assert str(answer.status) in responses, (route.id, answer)
    if answer.status == 304:
        return
    found = responses[str(answer.status)]
    if "$ref" in found:
        found = DESCRIPTION["components"]["responses"][found["$ref"].rpartition("/")[2]]
    schema = {**found["content"]["application/json"]["schema"], "components": DESCRIPTION["components"]}
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(answer.body)


@pytest.fixture
def api(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("DATABASE_URL", world.url)
    built: tuple[Any, ...] = (wiring.config, wiring.reader, wiring.operator, wiring.database, wiring.runner)
    for each in built:
        each.cache_clear()
    yield Api()
    for each in built:
        each.cache_clear()


def test_events_come_in_pages_without_one_missing_or_twice(world: World, api: Api) -> None:
    batch = numbered(*range(7))
    world.processor(effect).process(batch)
    seen: list[str] = []
    query = {"limit": "3"}
    while True:
        page = api.get("/api/events", **query)
        seen += [event["id"] for event in page["events"]]
        if page["next"] is None:
            break
        query = {"limit": "3", **page["next"]}
    assert seen == sorted([str(each.event.id) for each in batch], reverse=True)


def test_issues_and_replays_come_in_pages_as_well(world: World, api: Api) -> None:
    def fails(event: Any, db: Any) -> None:
        raise type(f"Error{event.payload['n']}", (Exception,), {})

    world.processor(fails).process(numbered(*range(5)))
    for _ in range(3):
        api.post("/api/replays", ids=[str(uuid4())])
    for path, name, number in (("/api/issues", "issues", 5), ("/api/replays", "replays", 3)):
        first = api.get(path, limit="2")
        second = api.get(path, limit="2", **first["next"])
        rest = api.get(path, limit="2", **second["next"]) if second["next"] else {name: []}
        ids = [row["id"] for page in (first, second, rest) for row in page[name]]
        assert len(ids) == len(set(ids)) == number
    api.post(f"/api/issues/{ids_of(api, '/api/issues', 'issues')[0]}", "PATCH", state="resolved")
    assert [row["state"] for row in api.get("/api/issues")["issues"]] == ["open"] * 4 + ["resolved"]


def test_the_description_is_of_every_operation(api: Api) -> None:
    described = {(method.upper(), path) for path, operations in DESCRIPTION["paths"].items() for method in operations}
    assert described == {(route.method, route.path) for route in routes.ROUTES}
    assert api.get("/api/openapi.json") == DESCRIPTION


def test_the_document_has_every_operation_and_what_role_it_asks_for() -> None:
    rows = re.findall(r"^\| `(\w+) (/api/\S+)` \| (\w*) \| (.+) \|$", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    own = {routes.WHO: "read", routes.CLOSE_SESSION: "read", routes.DESCRIPTION: "read", routes.OPEN_SESSION: ""}
    assert rows == [
        (
            route.method,
            route.path,
            own.get(route.action, "read" if route.action in VIEWS or route.looks else "operate"),
            route.summary,
        )
        for route in routes.ROUTES
    ]


def test_every_answer_that_shows_something_is_as_it_is_described(world: World, api: Api) -> None:
    """Each is held against the description: the answers of this test are of what there is."""
    batch = numbered(1, 2)
    world.processor(fails_for(1)).process(batch)
    world.processor(effect).process([work(key=batch[1].event.dedup_key)])
    for route in routes.ROUTES:
        if route.method == "GET" and "{id}" not in route.path and route.action not in _WITH_QUEUES | {"find", "shape"}:
            assert api.request("GET", route.path, token=OPERATE).status == 200, route
    [failed, stored] = [str(each.event.id) for each in batch]
    [again] = ids_of(api, "/api/duplicates", "duplicates")
    [issue] = ids_of(api, "/api/issues", "issues")
    assert api.get("/api/known", key=batch[1].event.dedup_key)["duplicates"] != []
    assert api.get(f"/api/events/{again}")["event"]["repetition"] is not None
    assert api.get(f"/api/duplicates/{again}")["duplicate"]["event_id"] == stored
    assert api.get(f"/api/issues/{issue}")["issue"]["events"] == {"failed": 1}
    assert api.post("/api/replays/plan", source="shop")["count"] == 2
    replay = api.post("/api/replays", ids=[failed])["replay"]["id"]
    assert api.request("GET", f"/api/replays/{replay}", token=OPERATE).status == 200
    assert api.post(f"/api/replays/{replay}/cancel")["cancelled"]
    assert api.post(f"/api/events/{failed}/dry-run")["outcome"] == "processed"
    api.post("/api/ledger/write-offs", note="known")
    api.post("/api/drift/accept", all=True)


def ids_of(api: Api, path: str, name: str) -> list[str]:
    return [row["id"] for row in api.get(path)[name]]


def test_events_are_filtered_as_the_command_line_filters_them(world: World, api: Api) -> None:
    batch = sorted(numbered(2, 2, 2), key=lambda each: each.event.id)
    batch[1] = replace(batch[1], body=b'{"n": 5}')
    world.processor(effect, fails_for(5)).process(batch)
    ids = [str(each.event.id) for each in batch]
    filtered = {
        ids[1]: [
            {"status": ["failed", "dead"]},
            {"contains": ['{"n": 5}']},
            {"ids": [ids[1]]},
            {"key": [batch[1].event.dedup_key]},
            {"after": [ids[0]], "before": [ids[2]]},
            {"error": ["VALUEERROR"]},
            {"issue": [ids_of(api, "/api/issues", "issues")[0]]},
        ]
    }
    for expected, queries in filtered.items():
        for query in queries:
            answer = api.request("GET", "/api/events", query=query)
            assert isinstance(answer.body, Mapping)
            assert [event["id"] for event in answer.body["events"]] == [expected], query
    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    assert len(api.get("/api/events", since=hour_ago)["events"]) == 3
    assert api.get("/api/events", until=hour_ago)["events"] == []
    assert api.get("/api/events", source="nobody")["events"] == []


def test_one_event_is_shown_with_its_tries_and_its_bytes(world: World, api: Api) -> None:
    batch = numbered(2)
    world.processor(fails_for(2)).process(batch)
    event = api.get(f"/api/events/{batch[0].event.id}")["event"]
    assert (event["status"], len(event["attempts_made"])) == ("failed", 1)
    assert event["received_at"].endswith("Z")
    assert event["body"] == api.get(f"/api/events/{batch[0].event.id}/body", offset="0")["part"]


def test_a_number_that_no_double_holds_comes_as_it_came(world: World, api: Api) -> None:
    item = work(body=b'{"n": 9007199254740993}')
    world.processor(effect).process([item])
    assert api.get("/api/events", contains='{"n": 9007199254740993}')["events"] != []
    assert api.get("/api/events", contains='{"n": 9007199254740992}')["events"] == []


def test_what_was_asked_before_and_is_the_same_is_not_sent_again(world: World, api: Api) -> None:
    first = api.request("GET", "/api/events")
    assert api.request("GET", "/api/events", headers={"If-None-Match": "*"}).status == 304
    known = {"If-None-Match": f'"other", W/{first.headers["ETag"]}'}
    assert (api.request("GET", "/api/events", headers=known).status) == 304
    world.processor(effect).process(numbered(1))
    assert (api.request("GET", "/api/events", headers=known).status) == 200


def test_each_operation_is_one_of_the_operators_and_a_read_token_may_do_those_that_change_nothing(api: Api) -> None:
    own = {routes.OPEN_SESSION, routes.WHO, routes.CLOSE_SESSION, routes.DESCRIPTION}
    for route in routes.ROUTES:
        if route.action in own:
            continue
        assert route.action in wiring.operator().actions
        path = route.path.replace("{id}", str(uuid4()))
        answer = api.request(route.method, path, body={} if route.method != "GET" else None)
        assert (answer.status == 403) == (route.action not in VIEWS and not route.looks), route


@pytest.mark.parametrize("route", routes.ROUTES, ids=lambda route: route.id)
def test_twenty_forged_tokens_and_sessions_are_let_in_nowhere(api: Api, route: routes.Route) -> None:
    session, _ = access.open_session(access.Token("anna", "0" * 64, access.Role.OPERATE), api.now)
    path = route.path.replace("{id}", str(uuid4()))
    for n in range(20):
        forged = access.make_token(bytes([n + 10]) * 32)
        assert api.refused(route.method, path, token=forged, body={"token": forged})[0] == 401
    cookie = {"Cookie": f"__Host-postern_session={session}"}
    assert api.refused(route.method, path, token=None, headers=cookie)[0] == 401
    assert api.refused("GET", "/api/nothing", token=None, headers=cookie)[0] == 401


def test_a_session_reads_and_changes_things_with_its_csrf_value_alone(world: World, api: Api) -> None:
    world.processor(fails_for(1)).process(numbered(1))
    [issue] = ids_of(api, "/api/issues", "issues")
    login = api.request("POST", "/api/session", token=None, body={"token": OPERATE})
    assert isinstance(login.body, Mapping)
    assert (login.body["name"], login.body["role"]) == ("bert", "operate")
    cookie = {"Cookie": login.headers["Set-Cookie"].partition(";")[0]}
    csrf = {"Postern-Csrf": login.body["csrf"]}

    def change(headers: Mapping[str, str]) -> int:
        body = {"state": "acknowledged"}
        return api.request("PATCH", f"/api/issues/{issue}", token=None, headers=headers, body=body).status

    assert api.request("GET", "/api/events", token=None, headers=cookie).status == 200
    assert [change(cookie), change(cookie | {"Postern-Csrf": "guess"}), change(cookie | csrf)] == [403, 403, 200]
    assert api.get(f"/api/issues/{issue}")["issue"]["state"] == "acknowledged"
    who = api.request("GET", "/api/session", token=None, headers=cookie)
    assert who.body == login.body
    assert (
        "max-age=0"
        in api.request("DELETE", "/api/session", token=None, headers=cookie | csrf).headers["Set-Cookie"].lower()
    )
    api.now += timedelta(hours=12)
    assert api.request("GET", "/api/events", token=None, headers=cookie).status == 401


def test_a_token_that_was_revoked_is_nobodys_nor_are_its_sessions(api: Api) -> None:
    login = api.request("POST", "/api/session", token=None, body={"token": OPERATE})
    cookie = {"Cookie": login.headers["Set-Cookie"].partition(";")[0]}
    api.secret = lambda: {"tokens": {"anna": SECRET["tokens"]["anna"]}}
    assert api.request("GET", "/api/events", token=OPERATE).status == 401
    assert api.request("GET", "/api/events", token=None, headers=cookie).status == 401
    assert api.request("GET", "/api/events").status == 200


def test_tokens_that_cannot_be_read_let_nobody_in(api: Api) -> None:
    def unreachable() -> Mapping[str, Any]:
        raise SecretUnavailable("secrets_unreachable: AccessDenied")

    api.secret = unreachable
    status, body = api.refused("GET", "/api/events")
    assert (status, body["error"]) == (503, "tokens_unavailable")
    assert "AccessDenied" not in str(body)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/api/events/no-id", {}),
        ("/api/events", {"limit": ["0"]}),
        ("/api/events", {"limit": ["1", "2"]}),
        ("/api/events", {"limit": ["many"]}),
        ("/api/events", {"limit": ["1.7"]}),
        ("/api/events", {"before": ["yesterday"]}),
        ("/api/events", {"since": ["yesterday"]}),
        ("/api/events", {"contains": ["{"]}),
        ("/api/events", {"contains": ["[" * 100_000]}),
        ("/api/events", {"status": ["failed", "lost"]}),
        ("/api/events", {"error": ["\0"]}),
        ("/api/events", {"source": ["\ud800"]}),
        ("/api/events", {"nonsense": ["1"]}),
        ("/api/known", {}),
        ("/api/known", {"key": ["x" * 301]}),
        ("/api/sources", {"days": ["1000"]}),
        ("/api/issues/xyz", {}),
        ("/api/drift", {"before": ["9" * 40]}),
        ("/api/events", {"contains": ["[" * 200 + "]" * 200]}),
        ("/api/events", {"contains": ["[" * 700 + "]" * 700]}),
        ("/api/events", {"contains": ['{"\\u0000": 1}']}),
        ("/api/events", {"action": ["storage"]}),
        ("/api/events", {"\ud800": ["1"]}),
        ("/api/events", {"status": [""]}),
        ("/api/events", {"since": ["9999-12-31T23:59:59-14:00"]}),
        ("/api/ledger", {"since": ["9999-12-31T23:59:59-14:00"]}),
        ("/api/ledger", {"since": ["0001-01-01T00:00:00+14:00"]}),
        ("/api/issues", {"before": ["xyz"]}),
        (f"/api/events/{'a' * 8}-aaaa-aaaa-aaaa-{'a' * 12}/body", {"offset": ["9999999999"]}),
        (f"/api/events/{'a' * 8}-aaaa-aaaa-aaaa-{'a' * 12}/body", {"offset": ["0"], "of": ["delivery"]}),
    ],
)
def test_what_does_not_fit_is_400_and_says_which(api: Api, path: str, query: dict[str, list[str]]) -> None:
    status, body = api.refused("GET", path, query=query)
    assert (status, body["error"]) == (400, "invalid_request")
    assert body["details"] or body["message"] != "The request is not valid."


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b'"text"', b"[" * 60_000, b'{"state": "\\u0000"}'])
def test_a_body_that_is_no_object_is_400(api: Api, body: bytes) -> None:
    path = "/api/issues/" + "a" * 12
    assert api.refused("PATCH", path, token=OPERATE, body=body)[0] == 400


def test_all_of_them_has_to_be_said_and_in_the_body(world: World, api: Api) -> None:
    world.processor(effect).process(numbered(1, 2))
    for body in ({}, {"rate": 5, "most": 10}, {"all": False}, {"all": {}}, {"source": None, "type": None}):
        for path in ("/api/replays", "/api/redrives", "/api/drift/accept"):
            assert api.refused("POST", path, token=OPERATE, body=body)[0] == 400
    status, body = api.refused("POST", "/api/replays", token=OPERATE, query={"source": ["shop"]}, body={"all": True})
    assert (status, body["details"]) == (400, {"source": ["Arguments of this stand in its body."]})
    for ids in ([], [1.7], ["1.7"], [True]):
        assert api.refused("POST", "/api/drift/accept", token=OPERATE, body={"ids": ids})[0] == 400, ids
    assert api.get("/api/replays")["replays"] == []
    assert api.post("/api/replays", all=True)["replay"]["total"] == 2


def test_an_issue_that_moves_while_they_are_listed_hides_no_other(world: World, api: Api) -> None:
    def fails(event: Any, db: Any) -> None:
        raise type(f"Error{event.payload['n']}", (Exception,), {})

    processor = world.processor(fails)
    for n in range(4):
        processor.process(numbered(n))
    first = api.get("/api/issues", limit="2")
    api.post(f"/api/issues/{first['issues'][-1]['id']}", "PATCH", state="resolved")
    rest = api.get("/api/issues", limit="10", **first["next"])["issues"]
    assert {issue["error_class"] for issue in rest} >= {"Error0", "Error1"}


def test_what_is_set_up_wrong_is_said_to_the_log_alone(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise ConfigurationError("chalicelib/handlers/orders.py cannot be imported")

    monkeypatch.setattr(wiring, "runner", broken)
    wiring.reader.cache_clear()
    status, body = api.refused("GET", "/api/handlers")
    assert (status, body["error"]) == (500, "internal_error")
    assert "orders" not in str(body)
    assert api.notes["detail"] == "chalicelib/handlers/orders.py cannot be imported"


def test_what_there_is_not_is_404_and_what_cannot_be_now_409(world: World, api: Api) -> None:
    world.processor(effect).process(numbered(1))
    id = uuid4()
    for path in (
        f"/api/events/{id}",
        f"/api/deliveries/{id}",
        f"/api/rejected/{id}",
        f"/api/duplicates/{id}",
        f"/api/replays/{id}",
        "/api/issues/abcdef",
        "/api/nothing",
        "/api/events/1/2/3",
    ):
        assert api.refused("GET", path, token=OPERATE)[0] == 404, path
    assert api.refused("POST", f"/api/duplicates/{id}/accept", token=OPERATE)[0] == 404
    api.post("/api/replays", source="shop")
    assert api.refused("POST", "/api/replays", token=OPERATE, body={"source": "shop"})[0] == 409


def test_a_method_that_a_path_does_not_take_is_405(api: Api) -> None:
    answer = api.request("DELETE", "/api/events")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert api.request("GET", "/api/replays/plan").headers["Allow"] == "POST"


def test_the_database_away_is_503(world: World, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:no@127.0.0.1:1/none")
    wiring.config.cache_clear()
    wiring.reader.cache_clear()
    status, body = api.refused("GET", "/api/events")
    assert (status, body["error"]) == (503, "database_unavailable")
    assert "127.0.0.1" not in str(body)


def test_a_question_that_takes_too_long_is_503(world: World, api: Api) -> None:
    with closing(psycopg2.connect(world.url)) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE postern.issues IN ACCESS EXCLUSIVE MODE")
        status, body = api.refused("GET", "/api/issues")
    assert (status, body["error"]) == (503, "too_slow")
    assert api.notes == {
        "by": "anna",
        "operation": "listIssues",
        "reason": "StatementFailed",
        "detail": None,
        "status": 503,
    }


def test_the_log_line_says_who_asked_for_what_and_never_with_which_arguments(api: Api) -> None:
    api.request("GET", "/api/known", query={"key": ["secret"]})
    assert api.notes == {"operation": "findKey", "by": "anna", "status": 200}
