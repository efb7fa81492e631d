"""What is built before the first request, in which function, and when Lambda starts it how."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[2]

SCRIPT = """
import json, sys
import app
from chalicelib.postern.running import wiring
loaded = "botocore.client" in sys.modules
from chalicelib.postern.adapters import aws
wired = wiring.inbox.cache_info().currsize
fetched = bool(wired) and wiring.inbox().secrets_of.__self__._secret._asked_at > 0
print(json.dumps({"botocore": loaded, "clients": sorted(aws._clients), "inbox": bool(wired), "fetched": fetched}))
"""

# Nothing answers there: whoever calls it at the start would fail, and take its time over it.
NOWHERE = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-central-1"}
NOWHERE |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
SETTINGS = {"QUEUE_URL": "https://sqs/1/q", "SOURCES_SECRET_ID": "s", "BODIES_BUCKET": "b"}
COLD = {"botocore": False, "clients": [], "inbox": False, "fetched": False}


def start(**environ: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a fresh container has after its start, and what it has logged."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=PROJECT, env=environ, capture_output=True, text=True, check=True, timeout=60
    )
    *lines, state = [json.loads(line) for line in done.stdout.splitlines()]
    return state, lines


@pytest.mark.parametrize("how", ["provisioned-concurrency", "snap-start"])
def test_an_api_function_that_is_started_ahead_has_its_clients_and_has_called_nobody(how: str) -> None:
    state, lines = start(**NOWHERE, **SETTINGS, AWS_LAMBDA_INITIALIZATION_TYPE=how, _HANDLER="app.app")
    assert state == {"botocore": True, "clients": ["s3", "secretsmanager", "sqs"], "inbox": True, "fetched": False}
    assert lines == []


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"_HANDLER": "app.app"},
        {"_HANDLER": "app.app", "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand"},
        {"_HANDLER": "app.processor", "AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"},
        {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"},
    ],
    ids=["not in Lambda", "unsaid", "on demand", "another function", "nobody's handler"],
)
def test_any_other_start_builds_nothing(environ: dict[str, str]) -> None:
    assert start(**NOWHERE, **SETTINGS, **environ) == (COLD, [])


def test_a_start_without_settings_is_a_start_all_the_same() -> None:
    """Lambda would repeat one that fails, and answer no delivery with a reason."""
    state, [line] = start(**NOWHERE, AWS_LAMBDA_INITIALIZATION_TYPE="snap-start", _HANDLER="app.app")
    assert state["inbox"] is False
    assert (line["message"], line["reason"]) == ("warm_up.failed", "ConfigurationError")


def test_the_handler_by_which_the_api_function_is_known_is_chalices_own() -> None:
    from chalice.config import Config
    from chalice.deploy.appgraph import ApplicationGraphBuilder

    import app

    config = Config.create(chalice_app=app.app, project_dir=str(PROJECT), app_name="postern", autogen_policy=False)
    builder = ApplicationGraphBuilder()
    [api] = [r for r in builder.build(config, "dev").resources if r.resource_type == "rest_api"]
    assert api.lambda_function.handler == "app.app"
