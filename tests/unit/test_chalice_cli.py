"""What Chalice's commands work on, without AWS; tests/acceptance and tests/deployment run them."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from chalicelib.postern.contract.errors import SecretUnavailable
from chalicelib.postern.running.chalice_cli import adopt_local_run, unprepared_functions


class Environ(dict[str, str]):
    """Stops within the change that it takes, until it may go on."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.changing, self.go_on, self.changes = Event(), Event(), 0

    def update(self, *args: Any, **kwargs: Any) -> None:
        self.changes += 1
        self.changing.set()
        assert self.go_on.wait(10)
        super().update(*args, **kwargs)


def running(folder: Path) -> dict[str, str]:
    run = {"pid": os.getpid(), "api_environ": {"SOURCES_SECRET_ID": "here", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}}
    (folder / "run.json").write_text(json.dumps(run), "utf-8")
    return {"POSTERN_STATE_DIR": str(folder), "AWS_CHALICE_CLI_MODE": "true", "AWS_PROFILE": "the account"}


def test_two_first_deliveries_at_once_reach_the_local_run_alone(tmp_path: Path) -> None:
    environ = Environ(running(tmp_path))
    with ThreadPoolExecutor() as pool:
        first = pool.submit(adopt_local_run, environ)
        assert environ.changing.wait(10)
        second = pool.submit(adopt_local_run, environ)
        finished, _ = wait([second], timeout=0.2)
        environ.go_on.set()
        first.result(10)
        second.result(10)
    assert not finished  # it would have gone on with half an environment
    assert environ.changes == 1
    assert "AWS_PROFILE" not in environ
    assert environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"


def test_without_a_local_run_nothing_is_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"POSTERN_STATE_DIR": str(tmp_path), "AWS_PROFILE": "the account"}
    with pytest.raises(SecretUnavailable):
        adopt_local_run(environ)
    assert "make services" in capsys.readouterr().err


def test_a_function_that_came_with_a_new_version_has_to_be_prepared() -> None:
    functions = {name: {"iam_policy_file": f"policy-{name}.json"} for name in ("store", "backend")}
    prepared = {"lambda_functions": {"store": {"iam_policy_file": "policy-dev-store.json"}}}
    config = {"lambda_functions": functions, "stages": {"dev": prepared, "prod": {"lambda_functions": functions}}}
    assert unprepared_functions(config, "dev") == ["backend"]
    assert unprepared_functions(config, "prod") == []
