"""PostgreSQL: the one connection of a warm function, its transactions, and what its errors mean.

The connection is opened when it is first needed, kept between invocations, and replaced when it is broken.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2.extensions import TRANSACTION_STATUS_INERROR, TRANSACTION_STATUS_INTRANS

from chalicelib.adapters.guard import GuardedConnection
from chalicelib.errors import (
    DatabaseUnavailable,
    HandlerFailed,
    StatementFailed,
    TransactionControlForbidden,
    TransactionEnded,
)

_SQL = Path(__file__).parent.parent / "sql"

# A server that vanished without a word is noticed in seconds rather than in the kernel's quarter of an hour.
_LINK: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "application_name": "postern",
}

# SQLSTATEs (appendix A of PostgreSQL's manual). Bad data is a fact about the values, and will come again.
# Contention (serialization failure, deadlock, lock timeout) passes when others are done, as a statement's timeout
# may; but a handler's slow statement is its own fault, and contention is nobody's.
_BAD_DATA = ("22", "23", "54")
_CONTENTION = ("40001", "40P01", "55P03")
_PASSING = (*_CONTENTION, "57014")
_AWAY = ("08", "25", "53", "57P", "58", "XX")
_NO_RESOURCES = "53"
_CHECK_VIOLATION = "23514"
_NO_SUCH_SAVEPOINT = "3B001"

# As settle_session sets it.
_STATEMENT_MILLISECONDS = 20_000

_ENDED = "The handler ended its event's transaction."


class Database:
    """A connection to one database. `dsn(True)` asks for credentials afresh instead of the ones it gave before."""

    def __init__(self, dsn: Callable[[bool], str]) -> None:
        self._dsn = dsn
        self._connection: GuardedConnection | None = None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Commits at the end, or rolls back when the block raises.

        Raises DatabaseUnavailable when there is no database to speak of, StatementFailed when it refuses a
        statement or the commit.
        """
        connection = self._usable_connection()
        try:
            yield Session(connection)
            with translated_errors(connection, committing=True):
                connection.commit()
        except TransactionEnded:
            # Whoever got past the guard may have left anything behind.
            self.close()
            raise
        except BaseException:
            self._abandon(connection)
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.lent = False
            self._connection.close()
            self._connection = None

    def _usable_connection(self) -> GuardedConnection:
        if self._connection is not None:
            try:
                # It may have died while the function slept; better found out before the work than in it. And a
                # handler may have left settings behind.
                _settle(self._connection)
                return self._connection
            except psycopg2.Error:
                self.close()
        if self._connection is None:
            self._connection = open_connection(self._dsn)
        return self._connection

    def _abandon(self, connection: GuardedConnection) -> None:
        """Back to a clean connection, or to none."""
        connection.lent = False
        try:
            connection.rollback()
        except psycopg2.Error:
            connection.close()
        if connection.closed:
            self._connection = None


def open_connection(dsn: Callable[[bool], str]) -> GuardedConnection:
    """`dsn` as Database takes it. Raises DatabaseUnavailable."""
    try:
        return _open(dsn(False))
    except psycopg2.Error as exc:
        if not _is_login_failure(exc):
            raise DatabaseUnavailable(_first_line(exc)) from exc
    # The password may have been rotated since it was fetched.
    try:
        return _open(dsn(True))
    except psycopg2.Error as exc:
        raise DatabaseUnavailable(_first_line(exc)) from exc


class Session:
    """One open transaction."""

    def __init__(self, connection: GuardedConnection) -> None:
        self._connection = connection
        self._limit = _STATEMENT_MILLISECONDS

    def run(self, query: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Runs a named query of sql/queries; its rows, or none where it gives none."""
        return self.execute(queries()[query], values)

    def run_many(self, query: str, rows: Sequence[Sequence[Any]], template: str | None = None) -> None:
        """Runs a named query with `VALUES %s` once, for all rows."""
        if not rows:
            return
        with translated_errors(self._connection), self._connection.cursor() as cursor:
            psycopg2.extras.execute_values(cursor, queries()[query], rows, template=template, page_size=len(rows))

    def execute(self, sql: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        with translated_errors(self._connection), self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            if cursor.description is None:
                return []
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def limit_statements(self, seconds: float) -> None:
        """For the rest of the transaction, no statement takes longer; never longer than the session allows, either."""
        milliseconds = max(1, min(round(seconds * 1000), _STATEMENT_MILLISECONDS))
        if milliseconds != self._limit:
            self.run("limit_statements", {"milliseconds": str(milliseconds)})
            self._limit = milliseconds

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """What is written inside is undone when the block raises `HandlerFailed`.

        Raises TransactionEnded when the block has ended the transaction.
        """
        # A name that nobody can guess: that it can be released proves that the transaction is still the same.
        name = f"postern_{secrets.token_hex(8)}"
        self.execute(f"SAVEPOINT {name}")
        try:
            yield
        except HandlerFailed:
            self._finish(f"ROLLBACK TO SAVEPOINT {name}")
            raise
        self._finish(f"RELEASE SAVEPOINT {name}")

    def run_handlers(self, work: Callable[[psycopg2.extensions.cursor], None]) -> None:
        """Lends the connection to `work`; raises HandlerFailed with what it raised.

        Raises DatabaseUnavailable when it was the database that went away under it, and StatementFailed when another
        transaction was in its way.
        """
        connection = self._connection
        connection.lent = True
        try:
            with connection.cursor() as cursor:
                work(cursor)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as exc:  # SystemExit, and what asyncio and gevent raise past `except Exception`
            # Judged by this connection alone: the handler may have errors of other databases to raise.
            full = isinstance(exc, psycopg2.Error) and (exc.pgcode or "").startswith(_NO_RESOURCES)
            if connection.closed or full:
                raise DatabaseUnavailable(_first_line(exc)) from exc
            if self._is_contention(exc):
                raise StatementFailed(_first_line(exc)) from exc
            raise HandlerFailed(exc) from exc
        finally:
            connection.lent = False
        if connection.closed:
            raise DatabaseUnavailable("The connection was lost.")
        if self._status == TRANSACTION_STATUS_INERROR:
            raise HandlerFailed(
                TransactionControlForbidden("The handler swallowed a database error, which voids its transaction.")
            )
        if self._status != TRANSACTION_STATUS_INTRANS:
            raise TransactionEnded(_ENDED)

    @property
    def _status(self) -> int:
        return self._connection.info.transaction_status

    def _finish(self, statement: str) -> None:
        if self._status not in (TRANSACTION_STATUS_INTRANS, TRANSACTION_STATUS_INERROR):
            raise TransactionEnded(_ENDED)
        self.execute(statement)

    def _is_contention(self, exc: BaseException) -> bool:
        """Whether two batches got in each other's way: each holds the rows of all its events until it commits.

        That is no handler's fault. Alone in its transaction, the event holds no more than its own rows.
        """
        ours = self._status == TRANSACTION_STATUS_INERROR
        return ours and isinstance(exc, psycopg2.Error) and exc.pgcode in _CONTENTION


@contextmanager
def translated_errors(connection: psycopg2.extensions.connection, *, committing: bool = False) -> Iterator[None]:
    """The driver's errors as Postern's, decided in this one place.

    At the commit, deferred triggers and constraints of the team's own tables speak, in any class of errors.
    """
    try:
        yield
    except ValueError as exc:
        # What the driver cannot send at all: a NUL, half a surrogate pair. Its text would quote the value.
        raise StatementFailed(f"{type(exc).__name__} in the driver", bad_data=True) from None
    except psycopg2.Error as exc:
        code = exc.pgcode or ""
        if code == _NO_SUCH_SAVEPOINT:
            raise TransactionEnded(_ENDED) from exc
        if code == _CHECK_VIOLATION and not exc.diag.constraint_name:
            # Of a partition. While the statement waited for its lock, the row's day got a partition of its own, or lost
            # it; the next statement knows.
            raise StatementFailed(_first_line(exc), partition_changed=True) from exc
        if committing and code and not code.startswith(_AWAY + _PASSING):
            raise StatementFailed(_first_line(exc), bad_data=True) from exc
        if not connection.closed and code.startswith(_BAD_DATA + _PASSING):
            raise StatementFailed(_first_line(exc), bad_data=code.startswith(_BAD_DATA)) from exc
        # Shut down, full, read-only, without our schema: a fact about the database, and no event's fault.
        raise DatabaseUnavailable(_first_line(exc)) from exc


@cache
def queries() -> dict[str, str]:
    """The blocks of sql/queries/*.sql by name."""
    named: dict[str, str] = {}
    for file in sorted((_SQL / "queries").glob("*.sql")):
        blocks = re.split(r"^-- name: (\w+)\n", file.read_text("utf-8"), flags=re.M)
        named |= {name: text.strip() for name, text in zip(blocks[1::2], blocks[2::2], strict=True)}
    return named


def _open(dsn: str) -> GuardedConnection:
    connection: GuardedConnection = psycopg2.connect(dsn, connection_factory=GuardedConnection, **_LINK)
    try:
        psycopg2.extras.register_uuid(conn_or_curs=connection)
        _settle(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _settle(connection: GuardedConnection) -> None:
    """The session's settings as they have to be, whatever was done with it before."""
    with connection.cursor() as cursor:
        cursor.execute(queries()["settle_session"])


def _is_login_failure(exc: psycopg2.Error) -> bool:
    # A failed login has no SQLSTATE in libpq, so that the text is all there is to go by.
    return exc.pgcode is None and "authentication failed" in str(exc)


def _first_line(exc: BaseException) -> str:
    """The driver's message without its DETAIL, which may quote a row."""
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__
