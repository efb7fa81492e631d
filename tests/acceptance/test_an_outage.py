"""PostgreSQL is away for longer than the queue's receives would last."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack.postgres import Server, administer, url_of
from tests.acceptance.conftest import Run
from tests.acceptance.test_inbox import push, signed_as_github
from tests.support import eventually, with_the_example

# Nine tenths of it, rounded, are five, one more than the attempts and what goes uncharged.
MAX_RECEIVES = 6


@pytest.fixture
def database(postgres_server: Server) -> Iterator[Callable[[bool], str]]:
    """Lets connections in, or not; its URL."""
    name = f"outage_{uuid.uuid4().hex[:8]}"
    administer(postgres_server, f"CREATE DATABASE {name}")

    def let_in(open: bool) -> str:
        administer(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS {open}")
        administer(postgres_server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        return url_of(postgres_server, name)

    yield let_in
    let_in(False)
    administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def lines(run: Run) -> list[dict[str, Any]]:
    """Those that are whole: one may be being written."""
    read = [log.read_text("utf-8", "replace") for log in (run.state / "logs").glob("processor-*.log")]
    logs = [text.rpartition("\n")[0] for text in read]
    return [json.loads(line) for text in logs for line in text.splitlines() if line.startswith("{")]


@with_the_example
def test_an_outage_longer_than_the_receives_dead_letters_nothing_and_says_why(
    tmp_path: Path, database: Callable[[bool], str]
) -> None:
    run = Run(
        tmp_path / "state",
        DATABASE_URL=database(True),
        MAX_RECEIVES=str(MAX_RECEIVES),
        MAX_UNCHARGED="1",
        RETRY_BASE_SECONDS="1",
        RETRY_MAX_SECONDS="1",
    )
    try:
        run.wait_until_ready()
        database(False)
        bodies = [push("acme/outage", n=n) for n in range(20)]
        assert [run.post("/webhooks/github", body, signed_as_github(run, body))[0] for body in bodies] == [202] * 20

        def delayed() -> list[dict[str, Any]]:
            return [line for line in lines(run) if line["message"] == "event.delayed"]

        # Each was received far more often than SQS would allow one message.
        eventually(lambda: len(delayed()) > 20 * MAX_RECEIVES * 2, timeout=60)
        assert {line["reason"].partition(":")[0] for line in delayed()} == {"database"}
        # What the alarm `delayed` counts.
        assert all("delayed" in json.dumps(line["_aws"]) for line in delayed())
        assert not [line for line in lines(run) if line["message"] == "event.dead"]
        database(True)
        processed = "SELECT count(*), max(attempts) FROM postern.events WHERE status = 'processed'"
        eventually(lambda: run.query(processed) == [(20, 1)], timeout=60)
        assert json.loads(run.postern("dead", "--json").stdout)["waiting"] == 0
        assert run.query("SELECT pushes FROM github_pushes WHERE repository = 'acme/outage'") == [(20,)]
    finally:
        run.stop()
