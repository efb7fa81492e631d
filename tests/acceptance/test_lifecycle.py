"""Starting, stopping and being killed: one clear sentence, or it just heals."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import psutil
import pytest

from tests.acceptance.conftest import Run
from tests.support import eventually


class Starts(Protocol):
    def __call__(self, name: str = "state", /, **environ: str) -> AbstractContextManager[Run]: ...


@pytest.fixture
def starts(tmp_path: Path) -> Starts:
    """Runs that are ended whatever happens; the same name is the same state folder."""

    @contextlib.contextmanager
    def start(name: str = "state", /, **environ: str) -> Iterator[Run]:
        running = Run(tmp_path / name, PROCESSORS="1", **environ)
        try:
            yield running
        finally:
            running.stop()

    return start


def still_running(processes: list[psutil.Process]) -> list[psutil.Process]:
    """One that has ended and whose parent has too stays a zombie until init takes it away, which may be late."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [process for process in processes if runs(process)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process_and_the_data_stays(starts: Starts, number: signal.Signals) -> None:
    with starts() as first:
        first.wait_until_ready()
        assert first.postern("send", "github", "push").returncode == 0
        processes = first.processes()
        assert len(processes) >= 4
        assert first.stop(number) == 0
        assert still_running(processes) == []
        assert not (first.state / "run.json").exists()
    with starts() as second:
        second.wait_until_ready()
        assert second.query("SELECT count(*) FROM postern.events") == [(1,)]


def test_what_is_queued_when_it_stops_is_processed_by_the_next_run(starts: Starts) -> None:
    with starts() as first:
        first.wait_until_ready()
        worker = first.running("devstack.worker")
        worker.suspend()
        assert first.postern("send", "hmac", "late", "--no-wait").returncode == 0
        worker.resume()
        # Whether it was taken in the last moment or not makes no difference to the next run.
        first.stop()
    with starts() as second:
        second.wait_until_ready()
        eventually(
            lambda: second.query("SELECT count(*) FROM postern.events WHERE type = 'late'") == [(1,)], timeout=70
        )


def test_a_killed_run_leaves_nothing_that_the_next_one_cannot_mend(starts: Starts) -> None:
    with starts() as first:
        first.wait_until_ready()
        assert first.postern("send", "github", "push").returncode == 0
        processes = first.processes()
        first.process.kill()
        first.process.wait()
    with starts(PORT=str(first.port)) as second:
        second.wait_until_ready()
        assert second.query("SELECT count(*) FROM postern.events") == [(1,)]
        assert still_running(processes) == []


def test_a_second_run_in_the_same_place_is_refused_in_a_sentence(starts: Starts) -> None:
    with starts() as first:
        first.wait_until_ready()
        with starts() as second:
            assert second.process.wait(30) == 1
            assert second.text == "postern: Postern runs here already; stop that run first (Ctrl-C).\n"
        assert first.postern("send", "github").returncode == 0


def test_a_migration_that_was_changed_is_refused_with_the_way_to_begin_anew_here(starts: Starts) -> None:
    with starts() as first:
        first.wait_until_ready()
        first.query("UPDATE postern.migrations SET checksum = 'another' WHERE name LIKE '0002%'")
        assert first.stop() == 0
    with starts() as second:
        assert second.process.wait(60) == 1
        assert "was changed after it was applied; add a new one instead.\n" in second.text
        assert f"`rm -r {second.state}` begins anew here" in second.text


def test_a_taken_port_is_named_in_a_sentence(starts: Starts) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with starts(PORT=str(port)) as run:
            assert run.process.wait(30) == 1
            assert f"Port {port} is taken" in run.text
            assert "Traceback" not in run.text


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("SOURCES_FILE", '[shop]\nprovider = "shopfiy"\n', "Source 'shop', key 'provider'"),
        ("SOURCES_FILE", "[shop\n", "is not TOML"),
        ("SECRETS_FILE", '{"github": ["s3cret-canary", 7]}', "'github' is not a secret"),
    ],
)
def test_a_mistake_in_a_file_is_a_sentence(
    starts: Starts, tmp_path: Path, variable: str, text: str, sentence: str
) -> None:
    file = tmp_path / "mistaken"
    file.write_text(text)
    with starts(**{variable: str(file)}) as run:
        assert run.process.wait(60) == 1
        assert sentence in run.text
        assert "Traceback" not in run.text
        assert "canary" not in run.text


def test_sources_and_secrets_of_ones_own_are_used(starts: Starts, tmp_path: Path) -> None:
    sources, secrets = tmp_path / "sources.toml", tmp_path / "secrets.json"
    sources.write_text('[shop]\nprovider = "token"\nheader = "X-Shop"\ntype = "body:kind"\n')
    secrets.write_text(json.dumps({"shop": ["new", "old"]}))
    with starts(SOURCES_FILE=str(sources), SECRETS_FILE=str(secrets)) as run:
        run.wait_until_ready()
        for secret, status in (("new", 202), ("old", 202), ("older", 401)):
            assert run.post("/webhooks/shop", b'{"kind": "sale"}', {"X-Shop": secret})[0] == status
        assert run.post("/webhooks/github", b"{}")[0] == 404
        assert run.postern("send", "shop", "sale").returncode == 0


def test_a_server_of_ones_own_is_used_and_no_other_started(starts: Starts, empty_database_url: str) -> None:
    with starts(DATABASE_URL=empty_database_url) as run:
        run.wait_until_ready()
        assert run.facts["database_url"] == empty_database_url
        assert not (run.state / "postgres").exists()
        assert run.postern("send", "github", "push").returncode == 0
        assert run.query("SELECT count(*) FROM postern.events") == [(1,)]


def test_a_database_that_does_not_answer_is_named_in_a_sentence(starts: Starts) -> None:
    with starts(DATABASE_URL="postgresql://nobody:pw-canary@127.0.0.1:1/none") as run:
        assert run.process.wait(60) == 1
        assert "Connection refused" in run.text
        assert "Traceback" not in run.text
        assert "canary" not in run.text


def test_a_worker_that_dies_is_replaced(starts: Starts) -> None:
    with starts() as run:
        run.wait_until_ready()
        log = run.state / "logs" / "processor-1.log"
        run.running("devstack.worker").kill()
        eventually(lambda: log.read_text("utf-8").count("worker.ready") == 2)
        assert "processor-1 ended (SIGKILL); starting it again." in run.text
        assert run.postern("send", "github", "push", "--no-wait").returncode == 0
        # The dead worker's last poll may have taken the message: then it comes after its visibility timeout.
        eventually(lambda: run.query("SELECT count(*) FROM postern.events") == [(1,)], timeout=90)


def test_nobody_else_can_read_what_a_run_keeps(run: Run) -> None:
    kept = [run.state / "secrets.json", run.state / "run.json", run.state / "postgres" / "password"]
    emulated = [file for file in (run.state / "aws" / "s3").rglob("*") if file.is_file()]
    assert [file for file in [*kept, *emulated] if file.stat().st_mode & 0o077] == []
