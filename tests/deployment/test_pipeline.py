"""The commands of docs/deploy.md for a pipeline, run word for word, with the AWS CLI."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from devstack.postgres import Server, administer, url_of
from devstack.settings import PROJECT
from tests.deployment.acceptance import probe
from tests.deployment.cloud import Cloud, checkout
from tests.deployment.conftest import describe, make_database_secret, write_parameters

pytestmark = pytest.mark.skipif(shutil.which("aws") is None, reason="the AWS CLI is not installed")

SECTION = (
    (PROJECT / "docs" / "deploy.md").read_text("utf-8").split("## From a pipeline of your own")[1].split("\n## ")[0]
)
COMMANDS = "".join(re.findall(r"```sh\n(.*?)```", SECTION, re.DOTALL)).replace("prod", "piped")
# `make` would make an environment of its own.
MAKE = '#!/bin/sh\nexec "{python}" -m deployment "$1" --stage "${{2#STAGE=}}"\n'


@pytest.mark.timeout(600)
def test_the_pipelines_commands_deploy_and_update_a_stage(
    cloud: Cloud, packaged: Path, tmp_path: Path, postgres_server: Server
) -> None:
    project = checkout(tmp_path, packaged)
    config = json.loads((project / ".chalice" / "config.json").read_text("utf-8"))
    config["stages"]["piped"] = {"api_gateway_stage": "piped"}
    (project / ".chalice" / "config.json").write_text(json.dumps(config), "utf-8")
    database = f"piped_{uuid.uuid4().hex[:12]}"
    administer(postgres_server, f"CREATE DATABASE {database}")
    secret = make_database_secret(cloud, url_of(postgres_server, database))
    settings = {"DatabaseSecretArn": secret, "MaxAttempts": "2", "RetryBaseSeconds": "1"}
    write_parameters(project, "piped", **settings, BusinessHoursStart="cron(0 7 ? * MON-FRI *)", BatchSize="5")
    made = project / "bin"
    made.mkdir()
    (made / "make").write_text(MAKE.format(python=sys.executable), "utf-8")
    (made / "make").chmod(0o755)

    def run() -> str:
        environ = cloud.environ()
        environ["PATH"] = f"{made}{os.pathsep}{environ['PATH']}"
        done = subprocess.run(
            ["sh", "-e", "-c", COMMANDS],
            cwd=project,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def parameters() -> dict[str, str]:
        (stack,) = cloud.client("cloudformation").describe_stacks(StackName="postern-piped")["Stacks"]
        return {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}

    assert "Postern 'piped' is deployed at https://" in run()
    assert parameters()["BusinessHoursStart"] == "cron(0 7 ? * MON-FRI *)"
    assert parameters()["BatchSize"] == "5"
    probe(describe(cloud, project, "piped", "postern-piped", url_of(postgres_server, database)), "processor")

    write_parameters(project, "piped", **settings)  # what is left out is the template's again
    run()
    assert parameters()["BatchSize"] == "10"
    assert "nothing to migrate" in run()
