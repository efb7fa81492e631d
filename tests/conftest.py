"""The real parts, PostgreSQL and the emulated AWS: started once, on free ports, in folders of their own."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from chalicelib.postern.adapters.migrations import migrate
from devstack.aws import EmulatedAws, Resources
from devstack.postgres import Server

# A developer's own AWS, database and settings stay out of it.
for name in list(os.environ):
    if name.startswith(("AWS_", "PG")) or name in ("DATABASE_URL", "SOURCES_FILE", "SECRETS_FILE", "PORT"):
        del os.environ[name]

# `make test &` in a script runs with SIGINT ignored, and so would every process that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_TEMPLATE = "postern_template"
# A test's database is worth nothing after a crash. The tests that crash a server have a durable one of their own.
# Nor is what it is asked worth compiling, as Postern says of its own sessions.
_QUICK = {"jit": "off", "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


# Files whose tests share what is expensive to start.
_TOGETHER = {
    "an installation": ("deployment/test_packaged.py", "deployment/test_permissions.py"),
    "another": ("deployment/test_aws_rules.py", "deployment/test_doctor.py", "deployment/test_updates.py"),
    "a run": (
        *("acceptance/test_api.py", "acceptance/test_inbox.py", "acceptance/test_postern_command.py"),
        "acceptance/test_promises.py",
    ),
}


class WholeFiles(LoadScopeScheduling):
    """Gives each process whole files, and those that belong together to one."""

    _group_of: ClassVar = {f"tests/{file}": group for group, files in _TOGETHER.items() for file in files}

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return self._group_of.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> WholeFiles:
    return WholeFiles(config, log)


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    in_memory = _folder_in_memory()
    directory = in_memory or tmp_path_factory.mktemp("postgres")
    other = os.environ.get("POSTERN_POSTGRES")  # a folder with another version's programs
    server = Server(directory / "server", _QUICK, *([Path(other)] if other else []))
    server.start()
    if not other:
        # A password is hashed 4,096 times for each connection, of which tests make thousands.
        password = urlsplit(server.url).password
        administer(server, f"SET scram_iterations = 1; ALTER ROLE CURRENT_USER PASSWORD '{password}'")
    yield server
    server.stop()
    if in_memory:
        shutil.rmtree(in_memory)


def _folder_in_memory() -> Path | None:
    """A folder on tmpfs, where there is room; what test runs left there that were killed is removed first."""
    memory = Path("/dev/shm")  # noqa: S108 -- what is made in it has a name of its own
    if not memory.is_dir() or not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < 2_000_000_000:
        return None
    for left in memory.glob("postern-tests-*"):
        if not psutil.pid_exists(int(left.name.split("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"postern-tests-{os.getpid()}-", dir=memory))


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    emulator = EmulatedAws(tmp_path_factory.mktemp("aws"))
    emulator.start()
    yield emulator
    emulator.stop()


@pytest.fixture
def resources(aws: EmulatedAws) -> Resources:
    """A stack of the test's own."""
    return aws.ensure_stack(f"test-{uuid.uuid4().hex[:12]}", {})


@pytest.fixture(scope="session")
def template_database(postgres_server: Server) -> str:
    administer(postgres_server, f"CREATE DATABASE {_TEMPLATE}")
    migrate(url_of(postgres_server, _TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def database_url(postgres_server: Server, template_database: str) -> Iterator[str]:
    """A migrated database of the test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    administer(postgres_server, f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY FILE_COPY")
    yield url_of(postgres_server, name)
    administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database_url(postgres_server: Server) -> Iterator[str]:
    """A database without a schema."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    administer(postgres_server, f"CREATE DATABASE {name}")
    yield url_of(postgres_server, name)
    administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def url_of(server: Server, database: str) -> str:
    return server.url.rsplit("/", 1)[0] + f"/{database}"


def administer(server: Server, statement: str) -> None:
    connection = psycopg2.connect(server.url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()
