"""The API of a local run, over HTTP, as tools and a browser ask it."""

from __future__ import annotations

import http.client
import json
import stat
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from devstack.settings import PROJECT
from tests.acceptance.conftest import Run
from tests.support import eventually


def ask(
    run: Run,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = "",
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Any, Mapping[str, str]]:
    with closing(http.client.HTTPConnection("127.0.0.1", run.port, timeout=30)) as connection:
        sent = {**({} if token is None else {"Authorization": f"Bearer {token or run.token}"}), **(headers or {})}
        connection.request(method, path, None if body is None else json.dumps(body), sent)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None, dict(answer.headers)


def test_it_shows_what_was_sent_and_replays_it(run: Run) -> None:
    sent = run.postern("send", "hmac")
    id = sent.stdout.split('"id":"')[1].split('"')[0]
    status, found, headers = ask(run, "GET", f"/api/events/{id}")
    assert (status, found["event"]["status"]) == (200, "processed")
    assert ask(run, "GET", f"/api/events/{id}", headers={"If-None-Match": headers["ETag"]})[0] == 304
    started = ask(run, "POST", "/api/replays", {"ids": [id]})[1]["replay"]["id"]
    assert ask(run, "POST", f"/api/replays/{started}/advance", {})[0] == 200

    def is_done() -> bool:
        return bool(ask(run, "GET", f"/api/replays/{started}")[1]["replay"]["state"] == "done")

    eventually(is_done)
    assert ask(run, "GET", f"/api/events/{id}")[1]["event"]["attempts"] == 2


def test_it_says_what_the_queues_hold(run: Run) -> None:
    looker = run.postern("tokens", "make", "looks-at-queues").stdout.strip()
    eventually(lambda: ask(run, "GET", "/api/session", token=looker)[0] == 200, every=0.5)
    status, found, _ = ask(run, "GET", "/api/queues", token=looker)
    assert (status, {*found}) == (200, {"queue", "dead_letters"})
    assert {*found["queue"]} == {"waiting", "in_work", "delayed"}


def test_whatever_is_asked_is_answered_as_the_description_says(run: Run, tmp_path: Path) -> None:
    """Some hundreds that Schemathesis makes of the description. Valid ones may be refused: that characters are
    none that PostgreSQL takes, or that a span is too long, no schema can say.
    """
    checked = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "run"),
            *(PROJECT / "chalicelib" / "postern" / "api" / "openapi.json", "--url", f"http://127.0.0.1:{run.port}"),
            *("--header", f"Authorization: Bearer {run.token}", "--exclude-path", "/api/session", "--no-color"),
            *("--checks", "all", "--exclude-checks", "positive_data_acceptance", "--phases", "fuzzing"),
            *("--max-examples", "4", "--generation-deterministic"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert checked.returncode == 0, checked.stdout
    assert "Tested: 50" in checked.stdout


def test_only_its_owner_may_read_the_runs_token(run: Run) -> None:
    assert stat.S_IMODE((run.state / "token").stat().st_mode) == 0o600


def test_the_command_makes_and_revokes_tokens(run: Run) -> None:
    made = run.postern("tokens", "make", "grafana").stdout.strip()
    eventually(lambda: ask(run, "GET", "/api/session", token=made)[0] == 200, every=0.5)
    assert ask(run, "POST", "/api/replays", {"source": "hmac"}, token=made)[0] == 403
    assert run.postern("tokens", "make", "grafana").returncode == 1
    assert "grafana" in run.postern("tokens", "list", "--json").stdout
    assert run.postern("tokens", "revoke", "grafana").returncode == 0
    eventually(lambda: ask(run, "GET", "/api/session", token=made)[0] == 401, every=1)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer nonsense"}, 401),
        ({"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "rebound.example", "Origin": "http://rebound.example"}, 403),
    ],
)
def test_nobody_else_and_no_page_of_elsewhere_is_answered(run: Run, headers: dict[str, str], status: int) -> None:
    assert ask(run, "GET", "/api/events", token=None, headers=headers)[0] == status


def test_a_page_of_its_own_is_answered(run: Run) -> None:
    headers = {"Origin": f"http://127.0.0.1:{run.port}", "Sec-Fetch-Site": "same-origin"}
    status, who, answered = ask(run, "POST", "/api/session", {"token": run.token}, token=None, headers=headers)
    cookie = {"Cookie": answered["Set-Cookie"].partition(";")[0]}
    assert (status, who["name"]) == (200, "local")
    assert ask(run, "GET", "/api/status", token=None, headers=headers | cookie)[0] == 200
    changed = ask(run, "POST", "/api/drift/accept", {"all": True}, token=None, headers=headers | cookie)
    assert (changed[0], changed[1]["error"]) == (403, "csrf")
    allowed = headers | cookie | {"Postern-Csrf": who["csrf"]}
    assert ask(run, "POST", "/api/drift/accept", {"all": True}, token=None, headers=allowed)[0] == 200


def test_while_the_function_behind_is_away_it_says_so_and_comes_back(run: Run) -> None:
    process = run.running("devstack.functions")
    process.kill()
    process.wait()
    status, body, headers = ask(run, "GET", "/api/version")
    assert (status, body["error"], headers["Retry-After"]) == (503, "unavailable", "5")
    eventually(lambda: ask(run, "GET", "/api/version")[0] == 200, timeout=30)
