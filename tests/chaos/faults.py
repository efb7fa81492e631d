"""The faults, by name. Each does its harm for some seconds, and takes it back."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psutil
import psycopg2

from tests.chaos.proxies import FINE, now_and_then, of_calls
from tests.chaos.system import VISIBILITY_SECONDS, System

# Gets the system, chance, and for how long.
Fault = Callable[[System, random.Random, float], None]
FAULTS: dict[str, Fault] = {}
# Those that need a server of one's own; and those that need a disk of one's own for it.
OF_THE_SERVER: set[str] = set()
OF_THE_DISK = {"the disk is full"}

_TAKEN_BACK_WITHIN = 30.0
_MET_WITHIN = 60.0
_QUEUE = {"SendMessage", "SendMessageBatch", "DeleteMessageBatch", "ReceiveMessage", "ChangeMessageVisibilityBatch"}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__.replace("_", " ")] = function
    return function


def server_fault(function: Fault) -> Fault:
    OF_THE_SERVER.add(function.__name__.replace("_", " "))
    return fault(function)


@server_fault
def postgres_is_killed(system: System, chance: random.Random, seconds: float) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):  # of a pair of which both end it
        system.own_server.kill()
    time.sleep(chance.uniform(0, seconds))
    system.start_postgres()


@server_fault
def postgres_restarts(system: System, chance: random.Random, seconds: float) -> None:
    system.own_server.stop()
    system.start_postgres()


@server_fault
def postgres_is_frozen(system: System, chance: random.Random, seconds: float) -> None:
    with system.frozen(system.postgres_processes()):
        time.sleep(seconds)


@fault
def sessions_are_terminated(system: System, chance: random.Random, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        system.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND random() < 0.5"
        )
        time.sleep(0.3)


@server_fault
def connections_run_out(system: System, chance: random.Random, seconds: float) -> None:
    with ExitStack() as stack:
        with contextlib.suppress(psycopg2.OperationalError):
            while True:
                stack.enter_context(contextlib.closing(psycopg2.connect(system.database_url)))
        time.sleep(seconds)


@server_fault
def the_database_is_read_only(system: System, chance: random.Random, seconds: float) -> None:
    with _set(system, "default_transaction_read_only", "on"):
        time.sleep(seconds)


@contextmanager
def _set(system: System, name: str, value: str) -> Iterator[None]:
    system.query(f"ALTER SYSTEM SET {name} = {value}")
    system.query("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        until = time.monotonic() + _TAKEN_BACK_WITHIN
        while not _reset(system, name):  # the other of a pair may have taken the server away
            if time.monotonic() > until:
                raise TimeoutError(f"{name} could not be taken back")
            time.sleep(0.2)


def _reset(system: System, name: str) -> bool:
    try:
        with contextlib.closing(psycopg2.connect(system.database_url, connect_timeout=5)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SET default_transaction_read_only = off")
                cursor.execute(f"ALTER SYSTEM RESET {name}")
                cursor.execute("SELECT pg_reload_conf()")
    except psycopg2.Error:
        return False
    return True


@server_fault
def the_disk_is_full(system: System, chance: random.Random, seconds: float) -> None:
    """PostgreSQL refuses what needs room, or ends where its log does."""
    filler = system.disk / "filler"
    for piece in (1 << 20, 4096):  # to the last page
        with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), piece)
    if os.statvfs(system.disk).f_bavail:
        system.harmless.append("the disk is full")
    time.sleep(seconds)
    filler.unlink()
    system.start_postgres()


@fault
def the_database_is_slow(system: System, chance: random.Random, seconds: float) -> None:
    system.database.delay = 0.05
    time.sleep(seconds)
    system.database.delay = 0.0


@fault
def commits_are_cut(system: System, chance: random.Random, seconds: float) -> None:
    system.database.harm = now_and_then(chance, 0.3, "before", "after")
    time.sleep(seconds)
    system.database.harm = lambda: FINE


@fault
def a_processor_is_killed(system: System, chance: random.Random, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.2, 1.5))
        system.signal("processor", signal.SIGKILL)


@fault
def a_processor_is_frozen(system: System, chance: random.Random, seconds: float) -> None:
    """Its messages come back meanwhile, to others; and then it goes on with them."""
    with system.frozen(system.processes("processor")[:1]):
        time.sleep(VISIBILITY_SECONDS + 3)


@fault
def processors_are_deployed_anew(system: System, chance: random.Random, seconds: float) -> None:
    system.signal("processor", signal.SIGTERM, one=False)
    time.sleep(seconds / 2)


@fault
def the_api_is_killed(system: System, chance: random.Random, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        system.signal("api", signal.SIGKILL)
        time.sleep(chance.uniform(1, 3))


@fault
def the_api_is_frozen(system: System, chance: random.Random, seconds: float) -> None:
    with system.frozen(system.processes("api")):
        time.sleep(min(seconds, 4))


@fault
def letters_are_redriven(system: System, chance: random.Random, seconds: float) -> None:
    """Some of them in the hands of an operator, while others come."""
    system.postern("dead", "redrive", "--yes", "--limit", "20")
    time.sleep(seconds / 2)
    system.postern("dead", "sweep", "--yes")


def _aws(name: str, share: float, calls: set[str], *harms: str, anew: bool = False) -> None:
    """`anew`: to an API that has just started, which knows nothing from before."""

    def harm(system: System, chance: random.Random, seconds: float) -> None:
        harmed = system.aws.harmed
        system.aws.harm = of_calls(calls, now_and_then(chance, share, *harms))
        if anew:
            system.signal("api", signal.SIGKILL)
        time.sleep(seconds)
        until = time.monotonic() + _MET_WITHIN
        while system.aws.harmed == harmed and time.monotonic() < until:
            time.sleep(0.1)  # some calls are rare
        system.aws.harm = lambda call: FINE
        if system.aws.harmed == harmed:
            system.harmless.append(name)

    FAULTS[name] = harm


_aws("sqs is throttled", 0.5, _QUEUE, "throttled")
_aws("sqs fails", 0.5, _QUEUE, "failed", "reset")
_aws("sqs does it and says nothing", 0.5, _QUEUE, "unanswered", "truncated")
_aws("sqs delivers twice", 0.3, {"SendMessage", "SendMessageBatch"}, "twice")
_aws("sqs is slow", 0.3, _QUEUE, "slow")
_aws("everything of aws fails at times", 0.3, {*_QUEUE, "GetSecretValue", "S3 PUT", "S3 GET"}, "failed", "unanswered")
_aws("secrets manager is away", 1.0, {"GetSecretValue"}, "failed", "reset", anew=True)
_aws("large bodies cannot be kept or had", 0.7, {"S3 PUT", "S3 GET"}, "failed", "unanswered")
