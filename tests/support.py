"""What the tests share: waiting for a condition, and never for a time; and asking a database."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg2
import psycopg2.extensions
import pytest

from chalicelib.postern.adapters.teams_room import TEAMS_MIGRATIONS

# One for each provider, where the shipped file has a few.
EVERY_SOURCE = Path(__file__).parent / "sources.toml"

# Some tests look at what the worked example does. A team may have deleted it.
with_the_example = pytest.mark.skipif(
    not (TEAMS_MIGRATIONS.parent / "github_pushes.py").exists(), reason="the example has been deleted"
)
# Others look at what is shipped, where a team has put its own.
in_posterns_own_repository = pytest.mark.skipif(
    (Path(__file__).parent / "team").exists(), reason="this is a team's repository"
)

_Value = TypeVar("_Value")


def eventually(check: Callable[[], _Value], *, timeout: float = 20.0, every: float = 0.05) -> _Value:
    """The first truthy value that `check` returns; fails with its last one after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"Not within {timeout:.0f} s; the last value was {value!r}.")
        time.sleep(every)


class _Kept(threading.local):
    """This thread's connection. A forked process has its parent's, which is not to be touched."""

    process = 0
    url = ""
    connection: psycopg2.extensions.connection | None = None


_kept = _Kept()


def ask(url: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Runs this and commits; its rows, if it has any."""
    return _asked(url, sql, values)[1]


def ask_by_name(url: str, sql: str, *values: Any) -> list[dict[str, Any]]:
    """As `ask`, each row by its columns' names."""
    names, rows = _asked(url, sql, values)
    return [dict(zip(names, row, strict=True)) for row in rows]


def _asked(url: str, sql: str, values: tuple[Any, ...]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows.

    On a connection that is kept from one question to the next: to make one, and to learn of a day's partitions, costs
    the server more than nearly everything that is asked of it.
    """
    is_kept = _kept.process == os.getpid() and _kept.url == url and _kept.connection is not None
    if not is_kept:
        if _kept.process == os.getpid() and _kept.connection is not None:
            _kept.connection.close()
        _kept.connection = psycopg2.connect(url)
        _kept.connection.autocommit = True
        _kept.process, _kept.url = os.getpid(), url
    connection = _kept.connection
    assert connection is not None
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql, values or None)
            if cursor.description is None:
                return [], []
            return [column.name for column in cursor.description], cursor.fetchall()
    except (psycopg2.OperationalError, psycopg2.InterfaceError):
        if not connection.closed:
            raise
        _kept.connection = None
        if not is_kept or not sql.startswith("SELECT"):
            raise
        return _asked(url, sql, values)  # its server, or its database, is another since
