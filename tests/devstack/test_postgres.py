from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psycopg2
import pytest

from devstack.postgres import Server
from tests.support import eventually


def test_a_killed_server_recovers_what_was_committed_on_the_same_port(tmp_path: Path) -> None:
    server = Server(tmp_path / "postgres")
    server.start()
    try:
        url = server.url
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE kept AS SELECT 1 AS one")
        server.kill()
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(url)
        server.start()
        assert server.url == url
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT one FROM kept")
            assert cursor.fetchone() == (1,)
    finally:
        server.stop()


def test_a_killed_server_whose_sessions_are_slow_to_end_is_started_all_the_same(tmp_path: Path) -> None:
    server = Server(tmp_path / "postgres")
    server.start()
    try:
        connection = psycopg2.connect(server.url)
        session = connection.info.backend_pid
        os.kill(session, signal.SIGSTOP)
        os.kill(int((tmp_path / "postgres" / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        eventually(lambda: server.child.exit_code is not None)
        going_on = threading.Timer(1.0, os.kill, (session, signal.SIGCONT))
        going_on.start()
        server.start()
        going_on.join()
        psycopg2.connect(server.url).close()
    finally:
        server.stop()


def test_nobody_gets_in_without_the_password(postgres_server: Server) -> None:
    password = postgres_server.url.split(":")[2].split("@")[0]
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        psycopg2.connect(postgres_server.url.replace(password, "guess"))


def test_an_interrupted_initialisation_is_begun_again(tmp_path: Path) -> None:
    directory = tmp_path / "postgres"
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "half-written").write_text("…")
    server = Server(directory)
    server.start()
    server.stop()
