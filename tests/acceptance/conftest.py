"""The whole system as a person runs it: `python -m devstack` in a process and a state folder of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from devstack.processes import free_port
from devstack.settings import PROJECT
from tests import commands
from tests.support import EVERY_SOURCE, ask, eventually

# Its port is taken seconds after it was chosen. Nobody else chooses from these, and no two test processes the same.
_PORTS = count(12_000 + 500 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")))


class Run:
    """One `make run`."""

    project = PROJECT

    def __init__(self, state: Path, project: Path = PROJECT, *arguments: str, **environ: str) -> None:
        self.project = project
        self.state = state
        self.port = int(environ.get("PORT") or free_port(next(_PORTS)))
        # Nobody wants to wait for a retry, nor a minute for the ledger, which maintenance keeps.
        often = {"MAINTENANCE_EVERY_SECONDS": "5", "RETRY_BASE_SECONDS": "1", "RETRY_MAX_SECONDS": "4"}
        every = {"SOURCES_FILE": str(EVERY_SOURCE)}
        self.environ = {**os.environ, **often, **every, **environ}
        self.environ |= {"POSTERN_STATE_DIR": str(state), "PORT": str(self.port)}
        self.output = state.with_suffix(".log")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "devstack", *arguments],
                cwd=project,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self) -> Run:
        eventually(lambda: re.search("Postern.* ready", self.text) or self.process.poll() is not None, timeout=60)
        assert self.process.poll() is None, self.text
        return self

    @property
    def text(self) -> str:
        return self.output.read_text("utf-8")

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.state / "run.json").read_text("utf-8"))
        return facts

    @property
    def token(self) -> str:
        """For its API."""
        return (self.state / "token").read_text("utf-8")

    def secret(self, source: str) -> str:
        secrets: dict[str, str] = json.loads((self.state / "secrets.json").read_text("utf-8"))
        return secrets[source]

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return ask(self.facts["database_url"], sql, *values)

    def postern(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        if self.project == PROJECT:
            return commands.postern(*arguments, environ=self.environ)
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            cwd=self.project,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def processes(self) -> list[psutil.Process]:
        """Everything that this run has started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def running(self, module: str) -> psutil.Process:
        """One of its processes that runs this module. Others may end while it is looked for."""

        def found() -> psutil.Process | None:
            for process in self.processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if module in process.cmdline():
                        return process
            return None

        process: psutil.Process = eventually(found)
        return process

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


def checkout(directory: Path, **handlers: str) -> Path:
    """A copy of the project with these modules as its handlers, which a test may change."""
    shutil.copy(PROJECT / "app.py", directory)
    for name in ("chalicelib", ".chalice", "infra", "deployment", "devstack", "cli"):
        shutil.copytree(PROJECT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__", "deployed"))
    for name, code in handlers.items():
        (directory / "chalicelib" / "handlers" / f"{name}.py").write_text(code, "utf-8")
    return directory


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One system for all tests that leave it as they found it."""
    running = Run(tmp_path_factory.mktemp("run") / "state")
    try:
        yield running.wait_until_ready()
    finally:
        running.stop()
