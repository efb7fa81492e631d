"""The real parts, PostgreSQL and the emulated AWS: started once, on free ports, in folders of their own."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from typing import ClassVar

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from devstack.aws import EmulatedAws, Resources
from devstack.postgres import Server, administer, url_of

# The server, and what the team's tests have of it.
pytest_plugins = ["devstack.fixtures"]

# A developer's own AWS, database and settings stay out of it.
for name in list(os.environ):
    if name.startswith(("AWS_", "PG")) or name in ("DATABASE_URL", "SOURCES_FILE", "SECRETS_FILE", "PORT"):
        del os.environ[name]

# `make test &` in a script runs with SIGINT ignored, and so would every process that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAws]:
    emulator = EmulatedAws(tmp_path_factory.mktemp("aws"))
    emulator.start()
    yield emulator
    emulator.stop()


@pytest.fixture
def resources(aws: EmulatedAws) -> Resources:
    """A stack of the test's own."""
    return aws.ensure_stack(f"test-{uuid.uuid4().hex[:12]}", {})


@pytest.fixture
def empty_database_url(postgres_server: Server) -> Iterator[str]:
    """A database without a schema."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    administer(postgres_server, f"CREATE DATABASE {name}")
    yield url_of(postgres_server, name)
    administer(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")
