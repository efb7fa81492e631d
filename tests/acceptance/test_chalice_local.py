"""Plain `chalice local`, which is one of the ways in which the app is meant to be used."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from devstack.processes import free_port
from devstack.settings import PROJECT
from tests.acceptance.conftest import Run
from tests.support import eventually

NOT_RUNNING = "Postern's services do not run here. Start them with `make services` in another terminal."


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    running = Run(tmp_path_factory.mktemp("services") / "state", PROJECT, "--services")
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()


@contextlib.contextmanager
def chalice_local(state: Path, *arguments: str) -> Iterator[tuple[int, Path]]:
    """Its port, and what it prints."""
    port, output = free_port(), state.with_name("chalice-local.log")
    # Somebody's own account, which no local run may reach.
    account = {"AWS_ACCESS_KEY_ID": "AKIAREAL", "AWS_PROFILE": "real", "AWS_DEFAULT_REGION": "eu-central-1"}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [Path(sys.executable).parent / "chalice", "local", "--port", str(port), "--no-autoreload", *arguments],
            cwd=PROJECT,
            env={**os.environ, **account, "POSTERN_STATE_DIR": str(state), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        eventually(lambda: "Serving on" in output.read_text("utf-8"), timeout=60)
        yield port, output
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()


def post(port: int, secret: str, id: str = "o-1") -> tuple[int, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json", "X-Webhook-Token": secret}
        connection.request("POST", "/webhooks/token", json.dumps({"type": "order.paid", "id": id}), headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def asked(port: int, token: str) -> int:
    """What the API answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/api/version", headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status


@pytest.mark.parametrize("stage", [(), ("--stage", "dev")], ids=["no stage", "a stage"])
def test_beside_the_services_it_takes_events_which_are_processed(services: Run, stage: tuple[str, ...]) -> None:
    with chalice_local(services.state, *stage) as (port, output):
        status, answer = post(port, services.secret("token"), id=f"o-{stage}")
        assert (status, answer["status"]) == (202, "accepted"), output.read_text("utf-8")
        query = "SELECT status FROM postern.events WHERE id = %s"
        eventually(lambda: services.query(query, answer["id"]) == [("processed",)])
        assert post(port, "forged")[0] == 401
        assert [asked(port, token) for token in (services.token, "")] == [200, 401]


def test_without_services_it_answers_503_and_says_what_to_start(tmp_path: Path) -> None:
    with chalice_local(tmp_path / "nothing") as (port, output):
        status, answer = post(port, "a secret")
        assert (status, answer["error"]) == (503, "secret_unavailable")
        assert NOT_RUNNING in output.read_text("utf-8").splitlines()


def test_what_was_killed_is_not_taken_for_running(tmp_path: Path) -> None:
    state = tmp_path / "killed"
    state.mkdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (state / "run.json").write_text(json.dumps({"pid": ended.pid, "api_environ": {}}), "utf-8")
    with chalice_local(state) as (port, output):
        assert post(port, "a secret")[0] == 503
        assert NOT_RUNNING in output.read_text("utf-8")
