"""Starts the system in order, watches over it, and ends it in order."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from chalicelib.postern.adapters.teams_room import SHIPPED_SOURCES
from chalicelib.postern.api import access
from chalicelib.postern.contract.errors import SourcesFileError
from chalicelib.postern.receiving.sources import load_sources
from devstack import screen
from devstack.aws import EmulatedAws, Resources
from devstack.errors import StartError
from devstack.functions import BACKEND, RECONCILER, STORE
from devstack.metrics import Metrics
from devstack.postgres import Server
from devstack.processes import Child, Register, free_port, remembered_port, write_atomically
from devstack.secrets import ensure_development_secrets, read_secrets
from devstack.settings import PROJECT, VISIBILITY_TIMEOUT_SECONDS, Settings
from devstack.worker import READY

_STACK = "postern-local"
_READY_WITHIN_SECONDS = 60.0
_LOOK_EVERY_SECONDS = 0.2
# A process that ends so often in so short a time will not get better by being started again.
_MAX_RESTARTS = 5
_RESTARTS_WITHIN_SECONDS = 30.0


@dataclass
class _Watched:
    """A part of the system that is started again when it ends."""

    name: str
    child: Child
    restart: Callable[[], Child]
    restarts: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_RESTARTS))


class Supervisor:
    """One run of the system, from `start` to `stop`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state = settings.state
        self._logs = self._state / "logs"
        self._lock: IO[str] | None = None
        self._register = Register(self._state / "children.json")
        self._postgres = None if settings.database_url else Server(self._state / "postgres")
        self._aws = EmulatedAws(self._state / "aws")
        self._watched: list[_Watched] = []
        self._tail = screen.Tail()
        self._metrics: Metrics | None = None
        self._maintenance: Child | None = None
        self._maintenance_environ: dict[str, str] = {}
        self._api_environ: dict[str, str] = {}
        self._maintained_at = float("-inf")
        self._stopping = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._settings.port}"

    def stop_soon(self, *_: object) -> None:
        """For signal handlers."""
        self._stopping = True

    def start(self) -> None:
        """Returns when everything answers. Raises StartError with a sentence."""
        self._take_lock()
        if leftovers := self._register.end_leftovers():
            screen.say(f"Ended {leftovers} processes that an earlier run had left behind.")
        if self._settings.with_api:
            self._check_port()
        self._logs.mkdir(exist_ok=True)
        for old in self._logs.glob("*.log"):
            old.unlink()
        secrets_file = self._secrets_file()

        if self._postgres is not None:
            screen.say("Starting PostgreSQL …")
            self._start_postgres(self._postgres)
        screen.say("Starting the emulated AWS …")
        self._aws.start()
        self._watch("aws", self._aws.child, self._restart_aws)
        resources = self._make_resources()
        self._aws.put_secrets(resources, read_secrets(secrets_file))
        self._aws.let_in(resources, "local", self._token())
        self._migrate()
        screen.say(f"Starting {'the API and ' if self._settings.with_api else ''}the processor …")
        self._metrics = Metrics(self._aws.client("cloudwatch"), self._aws.client("sqs"), resources)
        self._start_app(resources)
        self._wait_until_ready()
        self._write_run_file(resources, secrets_file)

    def watch(self) -> None:
        """Until `stop_soon`. Raises StartError when a part of the system ends again and again."""
        while not self._stopping:
            self._tail.print_new()
            for part in self._watched:
                if part.child.exit_code is not None and not self._stopping:
                    self._restart(part)
            if time.monotonic() - self._maintained_at >= self._settings.maintenance_every_seconds:
                self._maintain()
            time.sleep(_LOOK_EVERY_SECONDS)

    def stop(self) -> None:
        """Ends everything, the senders' side first, so that what was accepted is still taken in order."""
        if self._lock is None:
            return  # what is here belongs to another run
        (self._state / "run.json").unlink(missing_ok=True)
        if self._maintenance is not None:
            self._maintenance.stop()
        for part in reversed(self._watched):
            if part.name == "aws" and self._metrics is not None:
                self._metrics.put()  # it keeps what the others have counted to their end
            part.child.stop()
        # Once more by name: a start that was interrupted may have one that is not watched yet.
        self._aws.stop()
        self._tail.end()
        if self._postgres is not None:
            self._postgres.stop()
        self._register.write([])
        self._lock.close()

    # Starting

    def _take_lock(self) -> None:
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            # It holds events and secrets. PostgreSQL, which does not run as root, has to get through it.
            self._state.chmod(0o711 if os.getuid() == 0 else 0o700)
            self._lock = (self._state / "lock").open("w")
        except OSError as exc:
            raise StartError(f"Nothing can be written to {self._state}: {exc.strerror}.") from exc
        try:
            # The kernel lets go of it whenever this process ends: it cannot be left behind.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            self._lock = None
            raise StartError("Postern runs here already; stop that run first (Ctrl-C).") from None

    def _check_port(self) -> None:
        port = self._settings.port
        if free_port(port) != port:
            raise StartError(f"Port {port} is taken. Stop what listens there, or run `make run PORT={port + 1}`.")

    def _secrets_file(self) -> Path:
        try:
            sources = load_sources(self._settings.sources_file or SHIPPED_SOURCES)
        except SourcesFileError as exc:
            raise StartError(str(exc)) from exc
        if self._settings.secrets_file is not None:
            return self._settings.secrets_file
        own = self._state / "secrets.json"
        ensure_development_secrets(own, sources)
        return own

    @property
    def token_file(self) -> Path:
        """What lets whoever may read it use the API."""
        return self._state / "token"

    @property
    def console_url(self) -> str:
        """Signs in whoever opens it: what follows the # goes to no server."""
        return f"{self.url}/console#token={self._token()}"

    def _token(self) -> str:
        if not self.token_file.exists():
            write_atomically(self.token_file, access.make_token(os.urandom(32)))
        return self.token_file.read_text("utf-8")

    def _start_postgres(self, server: Server) -> None:
        server.start()
        self._watch("postgres", server.child, self._restart_postgres)

    def _make_resources(self) -> Resources:
        parameters = {
            "VisibilityTimeout": str(VISIBILITY_TIMEOUT_SECONDS),
            "MaxReceiveCount": str(self._settings.max_receives),
        }
        return self._aws.ensure_stack(_STACK, parameters)

    def _migrate(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "cli", "migrate"],
            cwd=PROJECT,
            env={**self._aws.environ(), "DATABASE_URL": self._database_url},
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            reason = done.stderr.strip().removeprefix("postern: ") or "The migrations failed."
            if "changed after it was applied" in reason and self._postgres is not None:
                reason += f"\nHas no stage had it yet? Then `rm -r {self._state}` begins anew here, without what came."
            raise StartError(reason)

    def _start_app(self, resources: Resources) -> None:
        common = {**self._aws.environ(), "QUEUE_URL": resources.queue_url, "BODIES_BUCKET": resources.bodies_bucket}
        if self._settings.sources_file is not None:
            common["SOURCES_FILE"] = str(self._settings.sources_file)
        # As in a deployment: the API has no way to the database, and the processor none to the sources' secrets.
        api = {**common, "SOURCES_SECRET_ID": resources.sources_secret_id}
        self._maintenance_environ = {
            **common,
            "DEAD_LETTER_QUEUE_URL": resources.dead_letter_queue_url,
            "DATABASE_URL": self._database_url,
        }
        maintained = self._logs / "maintenance.log"
        maintained.touch()
        self._follow(maintained)
        processor = {
            **common,
            "DEAD_LETTER_QUEUE_URL": resources.dead_letter_queue_url,
            "DATABASE_URL": self._database_url,
            "MAX_RECEIVES": str(self._settings.max_receives),
            "PARTIAL_BATCH_RESPONSE": "true" if self._settings.partial_batch_response else "false",
            # Nobody wants to wait half a minute for a retry that they are looking at.
            "RETRY_BASE_SECONDS": os.environ.get("RETRY_BASE_SECONDS", "2"),
            "RETRY_MAX_SECONDS": os.environ.get("RETRY_MAX_SECONDS", "10"),
        }
        for number in range(1, self._settings.workers + 1):
            self._run_module(f"processor-{number}", "devstack.worker", [], processor)
        port = remembered_port(self._state / "backend-port")
        invoked = {"AWS_ENDPOINT_URL_LAMBDA": f"http://127.0.0.1:{port}"}
        functions = {
            **self._maintenance_environ,
            **invoked,
            "TOKENS_SECRET_ID": resources.tokens_secret_id,
            "SOURCES_SECRET_ID": resources.sources_secret_id,
            "STORE_FUNCTION": STORE,
        }
        self._run_module("backend", "devstack.functions", [str(port)], functions)
        api |= {"BACKEND_FUNCTION": BACKEND, "RECONCILER_FUNCTION": RECONCILER, **invoked}
        self._api_environ = api
        if self._settings.with_api:
            self._run_module("api", "devstack.api_server", [str(self._settings.port)], api)

    def _run_module(self, name: str, module: str, arguments: list[str], environ: dict[str, str]) -> None:
        log = self._logs / f"{name}.log"

        def start() -> Child:
            return Child([sys.executable, "-m", module, *arguments], log=log, environ=environ, cwd=PROJECT)

        self._watch(name, start(), start)
        self._follow(log)

    def _follow(self, log: Path) -> None:
        self._tail.follow(log)
        if self._metrics is not None:
            self._metrics.follow(log)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_WITHIN_SECONDS
        while not ((self._api_answers() or not self._settings.with_api) and self._workers_poll()):
            for part in self._watched:
                if part.child.exit_code is not None:
                    raise StartError(f"{part.name} does not start; its log ends with:\n{part.child.last_lines()}")
            if self._stopping or time.monotonic() > deadline:
                raise StartError(f"The system was not ready within {_READY_WITHIN_SECONDS:.0f} s; see {self._logs}.")
            time.sleep(0.05)

    def _api_answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def _workers_poll(self) -> bool:
        logs = [part.child.log for part in self._watched if part.name.startswith("processor-")]
        return all(READY in log.read_text("utf-8", "replace") for log in logs)

    def _write_run_file(self, resources: Resources, secrets_file: Path) -> None:
        run = {
            "url": self.url,
            "database_url": self._database_url,
            "aws_endpoint_url": self._aws.endpoint_url,
            "aws_access_key_id": self._aws.access_key,
            "queue_url": resources.queue_url,
            "dead_letter_queue_url": resources.dead_letter_queue_url,
            "sources_file": str(self._settings.sources_file or SHIPPED_SOURCES),
            "secrets_file": str(secrets_file),
            "tokens_secret_id": resources.tokens_secret_id,
            "pid": os.getpid(),
            "api_environ": self._api_environ,  # for `chalice local`
        }
        write_atomically(self._state / "run.json", json.dumps(run, indent=2) + "\n")

    @property
    def _database_url(self) -> str:
        return self._settings.database_url or self._server.url

    @property
    def _server(self) -> Server:
        assert self._postgres is not None
        return self._postgres

    # Watching

    def _watch(self, name: str, child: Child, restart: Callable[[], Child]) -> None:
        self._watched.append(_Watched(name, child, restart))
        self._register.write(self._children())

    def _restart(self, part: _Watched) -> None:
        now = time.monotonic()
        if len(part.restarts) == _MAX_RESTARTS and now - part.restarts[0] < _RESTARTS_WITHIN_SECONDS:
            raise StartError(f"{part.name} ends again and again; its log ends with:\n{part.child.last_lines()}")
        part.restarts.append(now)
        screen.say(f"{part.name} ended ({screen.exit_reason(part.child.exit_code)}); starting it again.")
        part.child = part.restart()
        self._register.write(self._children())

    def _restart_postgres(self) -> Child:
        self._server.start()
        return self._server.child

    def _restart_aws(self) -> Child:
        """What the emulated queue held since it was last stopped in order is gone with it; a real queue's is not."""
        self._aws.start()
        resources = self._make_resources()
        self._aws.put_secrets(resources, read_secrets(self._secrets_file()))
        self._aws.let_in(resources, "local", self._token())
        return self._aws.child

    def _children(self) -> list[Child]:
        beside = [self._maintenance] if self._maintenance is not None else []
        return [*(part.child for part in self._watched), *beside]

    def _maintain(self) -> None:
        """Beside the rest; one that takes longer than the time between two is waited for."""
        self._maintained_at = time.monotonic()
        if self._metrics is not None:
            self._metrics.put()
        if self._maintenance is None or self._maintenance.exit_code is not None:
            self._maintenance = Child(
                [sys.executable, "-m", "devstack.maintenance"],
                log=self._logs / "maintenance.log",
                environ=self._maintenance_environ,
                cwd=PROJECT,
                listens=True,
            )
            self._register.write(self._children())
        self._maintenance.tell()
