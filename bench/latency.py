"""How long from a POST to the committed row, over the whole local system, at several rates.

Open loop: each POST has its moment beforehand, and its wait counts from that moment, whether or not those before it
were answered by then; so a system that falls behind cannot hide it (no coordinated omission). The commit's moment is
PostgreSQL's own (`track_commit_timestamp`).
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from chalicelib.postern.contract.bounds import MAX_BODY_BYTES
from chalicelib.postern.receiving.sources import load_sources
from cli.samples import sample
from devstack.postgres import Server
from devstack.processes import free_port

RATES = (10, 100)
# What is tried for the highest one, one after the other.
HIGHER = (200, 400, 600, 800, 1000, 1200, 1600)
SECONDS = 8
# A rate that leaves more than this behind was too much.
_DRAINED_WITHIN = 2.0
# Senders give up after some seconds.
_ANSWERED_WITHIN = 3.0
_SENDERS = 64
_MAINTENANCE_SECONDS = 5
_LARGE = 10
_PROJECT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Waits:
    """Seconds from each POST's moment, at `rate` a second: to its 202, and to the commit of its row. `behind`: how long
    after the last POST the last row came.
    """

    rate: int
    answered: list[float]
    committed: list[float]
    behind: float


class System:
    """`make run`, with a database that knows when each row was committed."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.url = database_url
        self.port = free_port(18_000)
        self._folder = folder
        self.sources = folder / "sources.toml"
        self.sources.write_text('[github]\nprovider = "github"\n', "utf-8")
        environ = {**os.environ, "DATABASE_URL": database_url, "PORT": str(self.port)}
        environ |= {"MAINTENANCE_EVERY_SECONDS": str(_MAINTENANCE_SECONDS)}
        environ |= {"POSTERN_STATE_DIR": str(folder / "state"), "SOURCES_FILE": str(self.sources)}
        self._output = (folder / "output").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "devstack"], cwd=_PROJECT, env=environ, stdout=self._output,
            stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while b" ready" not in (self._folder / "output").read_bytes():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "output").read_text("utf-8"))
            time.sleep(0.1)

    @property
    def secret(self) -> str:
        found: dict[str, str] = json.loads((self._folder / "state" / "secrets.json").read_text("utf-8"))
        return found["github"]

    def peaks(self) -> dict[str, float]:
        """Megabytes that each kind of process has held at most, by the module that it runs; with what it is besides a
        Lambda function: a server, a poller.
        """
        found: dict[str, float] = {}
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, FileNotFoundError):
                module = next((each for each in process.cmdline() if each.startswith("devstack.")), None)
                peak = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())
                if module and peak:
                    found[module] = max(found.get(module, 0.0), int(peak[1]) / 1024)
        return found

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        self._output.close()


@contextmanager
def system() -> Iterator[System]:
    with tempfile.TemporaryDirectory() as scratch:
        server = Server(Path(scratch) / "postgres", {"track_commit_timestamp": "on"})
        server.start()
        try:
            running = System(Path(scratch), server.url)
            try:
                running.wait()
                yield running
            finally:
                running.stop()
        finally:
            server.stop()


def measure(running: System, rate: int, seconds: float = SECONDS) -> Waits:
    number = int(rate * seconds)
    source, now = load_sources(running.sources)["github"], datetime.now(UTC)
    posts = [sample(source, "push", running.secret, now) for _ in range(number)]
    begin = time.time() + 0.5
    moments = [begin + n / rate for n in range(number)]
    ids: dict[str, float] = {}
    answered: list[float] = []
    local = threading.local()

    def send(n: int) -> None:
        time.sleep(max(0.0, moments[n] - time.time()))
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
        local.connection.request("POST", "/webhooks/github", posts[n].body, posts[n].headers)
        answer = local.connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 202, found
        answered.append(time.time() - moments[n])
        ids[found["id"]] = moments[n]

    with ThreadPoolExecutor(_SENDERS) as senders:
        list(senders.map(send, range(number)))
    commits = _commits(running.url, list(ids), deadline=time.monotonic() + 120)
    committed = [commits[id] - ids[id] for id in ids]
    return Waits(rate, sorted(answered), sorted(committed), max(commits.values()) - moments[-1])


def _commits(url: str, ids: list[str], *, deadline: float) -> dict[str, float]:
    """When each row was committed, once all of them are."""
    asked = (
        "SELECT id::text, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM postern.events "
        "WHERE id = ANY(%s::uuid[])"
    )
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        while True:
            with connection.cursor() as cursor:
                cursor.execute(asked, (ids,))
                found: dict[str, Any] = dict(cursor.fetchall())
            if len(found) == len(ids):
                return found
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(ids) - len(found)} of {len(ids)} have no row after two minutes.")
            time.sleep(0.2)


def described() -> list[dict[str, Any]]:
    """At a trickle, at a hundred a second, and at the highest rate that the system keeps up with."""
    with system() as running:
        measure(running, 20, 3)  # everything is warm, and fetched what it needs
        found = [measure(running, rate) for rate in RATES]
        for rate in HIGHER:
            tried = measure(running, rate)
            if tried.behind > _DRAINED_WITHIN or tried.answered[-1] > _ANSWERED_WITHIN:
                break
            found[len(RATES) :] = [tried]
        return [_described(waits) for waits in found]


def memory() -> dict[str, float]:
    """The peaks, after bodies as large as they may be, pages as long as they may be, and a while of maintenance."""
    with system() as running:
        measure(running, 200, 10)
        source = load_sources(running.sources)["github"]
        for n in range(_LARGE):
            body = json.dumps({"n": n, "words": ["word " * 20] * (MAX_BODY_BYTES // 104 - 10)}).encode()
            made = sample(source, "push", running.secret, datetime.now(UTC), body)
            assert _asked(running, "POST", "/webhooks/github", made.body, made.headers)["id"]
        token = (running.sources.parent / "state" / "token").read_text("utf-8")
        allowed = {"Authorization": f"Bearer {token}"}
        deadline = time.monotonic() + 60
        while len(large := _large(running.url)) < _LARGE and time.monotonic() < deadline:
            time.sleep(0.2)
        for path in (
            "/api/events?limit=1000",
            "/api/status",
            "/api/stats?step=hour",
            *(f"/api/events/{id}" for id in large),
        ):
            _asked(running, "GET", path, None, allowed)
        time.sleep(2 * _MAINTENANCE_SECONDS)
        return running.peaks()


def _asked(running: System, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> dict[str, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)) as connection:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        assert answer.status in (200, 202), found
        return found


def _large(url: str) -> list[str]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id::text FROM postern.events WHERE octet_length(body) > 1000000")
        return [id for (id,) in cursor.fetchall()]


def _described(waits: Waits) -> dict[str, Any]:
    """Milliseconds."""
    return {
        "rate": waits.rate,
        "posts": len(waits.answered),
        "answered": _percentiles(waits.answered),
        "committed": _percentiles(waits.committed),
    }


def _percentiles(sorted_seconds: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(sorted_seconds, n=1000, method="inclusive")
    named = {f"p{n / 10:g}": cuts[n - 1] for n in (10, 100, 250, 500, 750, 900, 950, 990, 999)}
    return {name: round(seconds * 1000, 2) for name, seconds in {**named, "max": sorted_seconds[-1]}.items()}
