"""The whole local system with relays in every way, its parts at hand to be harmed. Runs in a checkout of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg2

from devstack import screen, supervisor
from devstack.aws import EmulatedAws
from devstack.errors import StartError
from devstack.postgres import Server
from devstack.processes import free_port
from devstack.settings import Settings
from tests.chaos.proxies import AwsRelay, DatabaseRelay

SOURCES = """
[github]
provider = "github"
[shop]
provider = "hmac"
header = "X-Signature"
algorithm = "sha256"
encoding = "hex"
"""

# Effects in a table that takes any number of them, and rows that many events want at once.
TABLES = """
CREATE TABLE public.effects (key text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE public.hot (id integer PRIMARY KEY, n bigint NOT NULL DEFAULT 0);
INSERT INTO public.hot SELECT id FROM generate_series(0, 5) AS id;
"""

HANDLER = """
from chalicelib.postern import PermanentError, on


@on("github", "*")
@on("shop", "*")
def effect(event, db):
    told = event.payload
    db.execute("INSERT INTO public.effects (key) VALUES (%s)", (told["key"],))
    if told["hot"]:
        db.execute("UPDATE public.hot SET n = n + 1 WHERE id = %s", (told["number"] % 6,))
    if told["kind"] == "poison":
        raise PermanentError("poison")
    if told["kind"] == "flaky" and event.attempt == 1:
        raise ValueError("the first time")
"""

# Lambda's timeout is 20 s here; messages of a container that was killed come back soon after.
VISIBILITY_SECONDS = 22
_WORKERS = 3
_STARTS_WITHIN = 60.0
_DISK = "8g"
# Set where this process has mounts of its own (`unshare --mount`).
APART = "POSTERN_CHAOS_APART"


def _mounted(folder: Path) -> bool:
    """A disk of its own, where this process may mount one that nobody else sees."""
    if not os.environ.get(APART):
        return False
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK},mode=0711", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


class _Relayed(EmulatedAws):
    """Its clients here reach it directly; the functions' by the relay."""

    relay: AwsRelay

    def environ(self) -> dict[str, str]:
        return {**super().environ(), "AWS_ENDPOINT_URL": self.relay.url}


class System:
    """From `start` to `stop`. What ends is started again by the supervisor; PostgreSQL by whoever ended it."""

    def __init__(self, folder: Path) -> None:
        # Its processes end with the thread that started them, which is this one.
        self._keeper = ThreadPoolExecutor(1)
        self.server = None if os.environ.get("DATABASE_URL") else Server(folder / "postgres")
        self.disk = folder / "postgres"
        self.has_own_disk = self.server is not None and _mounted(self.disk)
        self.start_postgres()
        self.database_url = os.environ.get("DATABASE_URL") or self.own_server.url
        address = urlsplit(self.database_url)
        assert address.hostname is not None
        assert address.port is not None
        self.database = DatabaseRelay(address.hostname, address.port)
        sources = folder / "sources.toml"
        sources.write_text(SOURCES, "utf-8")
        self.port = free_port()
        environ = {
            "DATABASE_URL": self.database_url.replace(f":{address.port}/", f":{self.database.port}/"),
            "POSTERN_STATE_DIR": str(folder / "state"),
            "SOURCES_FILE": str(sources),
            "PORT": str(self.port),
            "PROCESSORS": str(_WORKERS),
            "MAINTENANCE_EVERY_SECONDS": "10",
        }
        os.environ |= {"RETRY_BASE_SECONDS": "1", "RETRY_MAX_SECONDS": "4"}
        supervisor.VISIBILITY_TIMEOUT_SECONDS = VISIBILITY_SECONDS
        supervisor._MAX_RESTARTS = 1000  # they are ended on purpose here
        self._said = (folder / "said").open("w")
        screen.say = self._say
        self._supervisor = supervisor.Supervisor(Settings.from_environ(environ))
        self._supervisor._tail.print_new = lambda: None  # type: ignore[method-assign]
        self._aws = _Relayed(folder / "state" / "aws")
        self._supervisor._aws = self._aws
        self._thread = threading.Thread(target=self._supervisor.watch, daemon=True)
        self.state = folder / "state"
        self.harmless: list[str] = []  # faults that met nothing

    def _say(self, text: str) -> None:
        self._said.write(f"{time.time():.1f} {text}\n")
        self._said.flush()

    def start(self) -> None:
        self.query(TABLES)
        start, aws = self._aws.start, self._aws

        def start_with_relay() -> None:
            start()
            if not hasattr(aws, "relay"):
                aws.relay = AwsRelay(int(aws.endpoint_url.rpartition(":")[2]))

        aws.start = start_with_relay  # type: ignore[method-assign]
        self._supervisor.start()
        self._thread.start()

    def stop(self) -> None:
        self._supervisor.stop_soon()
        self._thread.join(10)
        for process in self.processes(""):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()  # one that a fault has frozen hears of no end
        self._supervisor.stop()
        self.aws.close()
        self.database.close()
        if self.server is not None:
            self.server.stop()
        self._keeper.shutdown()
        self._said.close()

    @property
    def aws(self) -> AwsRelay:
        return self._aws.relay

    @property
    def is_up(self) -> bool:
        """Whether whoever starts parts again is there."""
        return self._thread.is_alive()

    @property
    def secrets(self) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.state / "secrets.json").read_text("utf-8"))
        return found

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Not by the relay."""
        with contextlib.closing(psycopg2.connect(self.database_url, connect_timeout=5)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(sql, values or None)
                return list(cursor.fetchall()) if cursor.description else []

    def messages(self, queue: str) -> int:
        """How many a queue holds, in whatever state."""
        attributes = self._attributes(queue)
        return sum(int(value) for name, value in attributes.items() if name.startswith("ApproximateNumberOfMessages"))

    def letters(self) -> list[dict[str, Any]]:
        """All of the dead letters; they are out of sight for a while then."""
        client, found = self._aws.client("sqs"), []
        url = self.facts["dead_letter_queue_url"]
        while several := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=60).get(
            "Messages"
        ):
            found += several
        return found

    def _attributes(self, queue: str) -> dict[str, str]:
        client = self._aws.client("sqs")
        answer = client.get_queue_attributes(QueueUrl=self.facts[queue], AttributeNames=["All"])
        return dict(answer["Attributes"])

    @property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads((self.state / "run.json").read_text("utf-8")))

    @property
    def own_server(self) -> Server:
        assert self.server is not None, "The database of DATABASE_URL is not ours to end."
        return self.server

    def start_postgres(self) -> None:
        """Unless somebody else has; as soon as it can, for another fault may be in its way."""
        if self.server is not None:
            self._keeper.submit(self._start_if_ended).result()

    def _start_if_ended(self) -> None:
        try:
            ended = self.own_server.child.exit_code is not None
        except AssertionError:
            ended = True  # it was never started
        until = time.monotonic() + _STARTS_WITHIN
        while ended:
            try:
                self.own_server.start()
                return
            except StartError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def postern(self, *arguments: str) -> str:
        """What the command prints; nothing where it did not succeed, as with a database that is away."""
        environ = {**os.environ, "POSTERN_STATE_DIR": str(self.state)}
        done = subprocess.run(
            [sys.executable, "-m", "cli", *arguments], env=environ, capture_output=True, text=True, timeout=60
        )
        return done.stdout if done.returncode == 0 else ""

    # Harm

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of a part: `api`, `processor-1` and so on by `processor`."""
        found = []
        for part in list(self._supervisor._watched):
            if part.name.startswith(name) and part.child.exit_code is None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.append(psutil.Process(part.child.pid))
        return found

    def signal(self, name: str, number: signal.Signals, *, one: bool = True) -> None:
        for process in self.processes(name)[: 1 if one else None]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    @contextlib.contextmanager
    def frozen(self, processes: list[psutil.Process]) -> Iterator[None]:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def postgres_processes(self) -> list[psutil.Process]:
        """None where it has just been killed."""
        with contextlib.suppress(psutil.NoSuchProcess):
            found = psutil.Process(self.own_server.child.pid)
            return [found, *found.children(recursive=True)]
        return []
