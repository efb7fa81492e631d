"""PostgreSQL: the one connection of a warm function, its transactions, and what its errors mean.

The connection is opened when it is first needed, kept between invocations, and replaced when it is broken.
"""

from __future__ import annotations

import io
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg2
import psycopg2.extensions
import psycopg2.extras
from psycopg2.extensions import (
    ISOLATION_LEVEL_READ_COMMITTED,
    TRANSACTION_STATUS_INERROR,
    TRANSACTION_STATUS_INTRANS,
)

from chalicelib.postern.adapters.guard import GuardedConnection
from chalicelib.postern.contract.errors import (
    DatabaseUnavailable,
    HandlerFailed,
    LeftBehind,
    StatementFailed,
    TransactionControlForbidden,
    TransactionEnded,
)

_OURS = Path(__file__).parent.parent

# A server that vanished without a word is noticed in seconds rather than in the kernel's quarter of an hour.
_LINK: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
    "application_name": "postern",
    "client_encoding": "UTF8",  # whatever the role's or the database's is: COPY sends that
}

# SQLSTATEs (appendix A of PostgreSQL's manual). Bad data is a fact about the values, and will come again.
# Contention (serialization failure, deadlock, lock timeout) passes when others are done, as a statement's timeout
# may; but a handler's slow statement is its own fault, and contention is nobody's. Of everything else a SQLSTATE does
# not say whose fault it is: whoever fails alone, while the database takes the writes of others, is to blame.
_BAD_DATA = ("22", "23", "54")
_CONTENTION = ("40001", "40P01", "55P03")
_PASSING = (*_CONTENTION, "57014")
# disk_full: what lets go of it by failing finds room the next time, or nobody does.
_NO_ROOM = "53100"
_CHECK_VIOLATION = "23514"
_NO_SUCH_SAVEPOINT = "3B001"

# As settle sets them.
_STATEMENT_MILLISECONDS = 20_000
_LOCK_TIMEOUT = "5s"
# A deadlock is seen after a second (deadlock_timeout), by one of those in it. So all of them are out of it sooner.
_BRIEF_LOCK_TIMEOUT = "300ms"
# Who looks is answered within this, or told that it takes too long, before the public function gives up waiting.
_LOOK_MILLISECONDS = 12_000

# The database ends a cancelled statement within milliseconds. One that takes so long was not working on it.
_FROZEN_SECONDS = 1.0

# Of what COPY is given, sent at a time.
_COPY_BYTES = 65_536

_ENDED = "The handler ended its event's transaction."


class Database:
    """A connection to one database. `dsn(True)` asks for credentials afresh instead of the ones it gave before.

    With `read_only` the database refuses every write.
    """

    def __init__(self, dsn: Callable[[bool], str], *, read_only: bool = False) -> None:
        self._dsn = dsn
        self._read_only = read_only
        self._connection: GuardedConnection | None = None
        self._parents: GuardedConnection | None = None  # kept, for its end would end the parent's session

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Commits at the end, or rolls back when the block raises.

        Raises DatabaseUnavailable when there is no database to speak of, StatementFailed when it refuses a
        statement or the commit.
        """
        connection = self._usable_connection()
        try:
            yield Session(connection)
            with translated_errors(connection):
                if connection.was_lent:
                    _clear(connection)
                connection.commit()
        except TransactionEnded:
            # Whoever got past the guard may have left anything behind.
            self.close()
            raise
        except BaseException:
            self._abandon(connection)
            raise

    def run(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """A named query in a transaction of its own; its rows."""
        with self.transaction() as session:
            return session.run(query, values)

    def run_outside(self, sql: str, seconds: float) -> None:
        """What PostgreSQL does in no transaction; for at most that long. Raises as a transaction does."""
        connection = self._usable_connection()
        try:
            with translated_errors(connection):
                connection.commit()
                connection.autocommit = True
                # By a setting, and a cancellation where a pooler gives it to another session; RDS Proxy has the first
                # alone. A lock that others hold for long is waited for as well; nobody waits behind it.
                with connection.cursor() as cursor, _cancelled_after(seconds, connection):
                    for setting in ("statement_timeout", "lock_timeout"):
                        cursor.execute("SELECT set_config(%s, %s, false)", (setting, f"{seconds * 1000:.0f}"))
                    cursor.execute(sql)
        finally:
            if not connection.closed:
                with suppress(psycopg2.Error), connection.cursor() as cursor:
                    cursor.execute("RESET ALL")
                connection.autocommit = False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.lent = False
            self._connection.close()
            self._connection = None

    def leave(self) -> None:
        """Opens a connection of its own the next time, and does not touch this one: for a forked process, whose parent
        goes on using it."""
        self._parents, self._connection = self._connection, None

    def _usable_connection(self) -> GuardedConnection:
        if self._connection is not None:
            try:
                # It may have died while the function slept; better found out before the work than in it. And what
                # a handler left behind may have outlived a rollback.
                if self._connection.was_lent:
                    _wipe(self._connection)
                settle(self._connection)
                return self._connection
            except psycopg2.Error:
                self.close()
        if self._connection is None:
            self._connection = open_connection(self._dsn, read_only=self._read_only)
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


def open_connection(dsn: Callable[[bool], str], *, read_only: bool = False) -> GuardedConnection:
    """As Database takes these. Raises DatabaseUnavailable."""
    known = dsn(False)
    try:
        return _open(known, read_only)
    except psycopg2.Error as exc:
        # The password may have been rotated since it was fetched.
        fresh = dsn(True) if _may_be_login_failure(exc) else known
        if fresh == known:
            raise DatabaseUnavailable(_first_line(exc)) from exc
    try:
        return _open(fresh, read_only)
    except psycopg2.Error as exc:
        raise DatabaseUnavailable(_first_line(exc)) from exc


class Session:
    """One open transaction."""

    def __init__(self, connection: GuardedConnection) -> None:
        self._connection = connection
        self._advisory_locks = 0
        self._lock_timeout = _LOCK_TIMEOUT  # of handlers

    def run(self, query: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Runs a named query; its rows, or none where it gives none."""
        return self.execute(queries()[query], values)

    def run_many(self, query: str, rows: Sequence[Sequence[Any]], template: str | None = None) -> int:
        """Runs a named query with `VALUES %s` once, for all rows; how many it wrote."""
        if not rows:
            return 0
        with translated_errors(self._connection), self._connection.cursor() as cursor:
            psycopg2.extras.execute_values(cursor, queries()[query], rows, template=template, page_size=len(rows))
            return int(cursor.rowcount)

    def copy(self, query: str, rows: Sequence[Sequence[str | bytes | int | float | datetime | UUID | None]]) -> None:
        """Runs a named query `COPY … FROM STDIN` with these rows."""
        if not rows:
            return
        with translated_errors(self._connection), self._connection.cursor() as cursor:
            lines = io.BytesIO()
            for row in rows:
                lines.write("\t".join(map(_field, row)).encode())
                lines.write(b"\n")
            lines.seek(0)
            cursor.copy_expert(queries()[query], lines, size=_COPY_BYTES)
            written = cursor.rowcount
        if written != len(rows):
            raise StatementFailed(f"Of {len(rows)} rows {written} were written: a trigger keeps rows away.")

    def execute(self, sql: str, values: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        with translated_errors(self._connection), self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            if cursor.description is None:
                return []
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def lock(self, query: str, values: Mapping[str, Any]) -> None:
        """Runs a query that takes an advisory lock with each row."""
        self._advisory_locks += len(self.run(query, values))

    def lock_briefly(self, query: str, values: Mapping[str, Any], milliseconds: int) -> None:
        """As `lock`, but where the locks do not come within so many milliseconds none is taken."""
        self.execute(f"SAVEPOINT postern_lock; SET LOCAL lock_timeout = {milliseconds}")
        try:
            self.lock(query, values)
        except StatementFailed as exc:
            if not exc.contended:
                raise
            self.execute("ROLLBACK TO SAVEPOINT postern_lock")
        else:
            self.execute(f"RELEASE SAVEPOINT postern_lock; SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")

    @contextmanager
    def handlers_at_work(self, seconds: float, *, several: bool = False) -> Iterator[None]:
        """Around all of a transaction's handlers. No statement of theirs takes longer than `seconds`, nor longer than
        any of ours may, and no commit of theirs succeeds. Raises TransactionEnded when they have ended the transaction.
        Those of `several` events do not wait long for locks, of which they may hold some that others wait for.
        """
        # A name that nobody can guess: that it can be released proves that the transaction is still the same.
        name = f"postern_{secrets.token_hex(8)}"
        milliseconds = max(1, min(round(seconds * 1000), _STATEMENT_MILLISECONDS))
        self._lock_timeout = _BRIEF_LOCK_TIMEOUT if several else _LOCK_TIMEOUT
        self.execute(
            f"INSERT INTO postern.seals DEFAULT VALUES; SAVEPOINT {name}; "
            f"SET LOCAL statement_timeout = {milliseconds}; SET LOCAL lock_timeout = '{self._lock_timeout}'"
        )
        yield
        if self._status != TRANSACTION_STATUS_INTRANS:
            raise TransactionEnded(_ENDED)
        self.execute(
            f"RELEASE SAVEPOINT {name}; RESET ROLE; SET LOCAL client_encoding = 'UTF8'; "
            f"SET LOCAL statement_timeout = {_STATEMENT_MILLISECONDS}; SET LOCAL synchronous_commit = {self._durable}; "
            f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'; "
            "DELETE FROM postern.seals WHERE id = pg_current_xact_id()"
        )

    def run_handlers(self, work: Callable[[psycopg2.extensions.cursor], None]) -> None:
        """Lends the connection to `work`. Raises HandlerFailed with what it raised, DatabaseUnavailable when the
        connection is gone, and StatementFailed when another transaction was in its way, or the database froze.
        """
        connection = self._connection
        connection.lent = connection.was_lent = True
        connection.interrupted_at = None
        try:
            with connection.cursor() as cursor:
                work(cursor)
        except KeyboardInterrupt:
            raise
        except BaseException as exc:  # SystemExit, and what asyncio and gevent raise past `except Exception`
            # Judged by this connection alone: the handler may have errors of other databases to raise.
            if connection.closed:
                raise DatabaseUnavailable(_first_line(exc)) from exc
            if (late := _late(connection)) > _FROZEN_SECONDS:
                raise StatementFailed(f"The database did not answer for {late:.0f} s.", passing=True) from exc
            if self._is_in(exc, _CONTENTION):
                raise StatementFailed(_first_line(exc), passing=True, contended=True) from exc
            if self._is_in(exc, (_NO_ROOM,)):
                raise StatementFailed(_first_line(exc), no_room=True) from exc
            raise HandlerFailed(exc) from exc
        finally:
            connection.lent = False
            connection.cursor_factory = psycopg2.extensions.cursor
            connection.end_interruption()
        if connection.closed:
            raise DatabaseUnavailable("The connection was lost.")
        if self._status == TRANSACTION_STATUS_INERROR:
            raise HandlerFailed(
                TransactionControlForbidden("The handler swallowed a database error, which voids its transaction.")
            )
        if self._status != TRANSACTION_STATUS_INTRANS:
            raise TransactionEnded(_ENDED)

    @property
    def settings_changed(self) -> bool:
        """Whether a handler's statement has changed a setting."""
        return self._connection.settings_changed

    def prove_whole(self) -> None:
        """Raises LeftBehind when the handlers have left something in the session for others to find."""
        [found] = self.run("left_behind", {"locks": self._advisory_locks})
        settings, _, lock_timeout = found["settings"].rpartition(" ")
        if (settings, lock_timeout) != (self._connection.settings.rpartition(" ")[0], self._lock_timeout):
            found["left"].append("settings")
        if found["left"]:
            raise LeftBehind(f"A handler left {', '.join(found['left'])} in the session.")

    @property
    def _durable(self) -> str:
        return self._connection.synchronous_commit

    @property
    def _status(self) -> int:
        return self._connection.info.transaction_status

    def _is_in(self, exc: BaseException, codes: Sequence[str]) -> bool:
        """Whether this connection's transaction failed with one of these. Two batches that got in each other's way, of
        which each holds the rows of all its events until it commits, are no handler's fault, nor need a full disk be.
        Alone in its transaction, an event holds no more than its own rows.
        """
        ours = self._status == TRANSACTION_STATUS_INERROR
        return ours and isinstance(exc, psycopg2.Error) and exc.pgcode in codes


@contextmanager
def translated_errors(connection: psycopg2.extensions.connection) -> Iterator[None]:
    """The driver's errors as Postern's, decided in this one place."""
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
        if connection.closed or not code:
            raise DatabaseUnavailable(_first_line(exc)) from exc
        raise StatementFailed(
            _first_line(exc),
            bad_data=code.startswith(_BAD_DATA),
            passing=code.startswith(_PASSING),
            contended=code in _CONTENTION,
            no_room=code == _NO_ROOM,
        ) from exc


@cache
def queries() -> dict[str, str]:
    """Every statement by its name: those of processing lie here, an operating subject's beside its queries. A `part`
    stands in several of them, each of which has its name in a comment: /* name */.
    """
    blocks: dict[str, dict[str, str]] = {"name": {}, "part": {}}
    for file in sorted([*_OURS.glob("adapters/*.sql"), *_OURS.glob("operating/*/*.sql")]):
        found = re.split(r"^-- (name|part): (\w+)\n", file.read_text("utf-8"), flags=re.M)
        for kind, name, text in zip(found[1::3], found[2::3], found[3::3], strict=True):
            blocks[kind][name] = text.strip()

    def whole(text: str) -> str:
        return re.sub(r"/\* (\w+) \*/", lambda part: whole(blocks["part"][part[1]]), text)

    return {name: whole(text) for name, text in blocks["name"].items()}


def _field(value: str | bytes | int | float | datetime | UUID | None) -> str:
    """As COPY reads it ("File Formats" of COPY in PostgreSQL's manual)."""
    if value is None:
        return "\\N"
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    text = str(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def _open(dsn: str, read_only: bool) -> GuardedConnection:
    connection: GuardedConnection = psycopg2.connect(dsn, connection_factory=GuardedConnection, **_LINK)
    try:
        psycopg2.extras.register_uuid(conn_or_curs=connection)
        # Whatever a role's or the server's default is: more than this would have batches fail that need not.
        connection.isolation_level = ISOLATION_LEVEL_READ_COMMITTED
        if read_only:
            connection.readonly = True  # where it is not, the database's own default holds
        settle(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def settle(connection: GuardedConnection, query: str = "settle_session") -> None:
    """Begins a transaction with the settings that it has to have, whatever was done with the session before. They end
    with it: behind a pooler another one may be another session, and this session somebody else's.
    """
    connection.settings_changed = False
    connection.cursor_factory = psycopg2.extensions.cursor  # a handler may have chosen one for its own rows
    with connection.cursor() as cursor:
        milliseconds = _LOOK_MILLISECONDS if connection.readonly else _STATEMENT_MILLISECONDS
        cursor.execute(queries()[query], {"statement_timeout": f"{milliseconds}ms"})
        ((connection.settings, connection.synchronous_commit),) = cursor.fetchall()


def _clear(connection: GuardedConnection) -> None:
    """As _wipe, within the transaction that has its handlers behind it: behind a pooler the next one may be another
    session.
    """
    settle(connection, "clear_session")
    connection.was_lent = False


def _wipe(connection: GuardedConnection) -> None:
    """Locks, temporary tables, prepared statements and whatever else a session can hold."""
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute("DISCARD ALL")
    finally:
        connection.autocommit = False
    connection.was_lent = False


def _late(connection: GuardedConnection) -> float:
    """How many seconds ago a statement was cancelled that has ended only now; 0 where none was."""
    return time.monotonic() - connection.interrupted_at if connection.interrupted_at else 0.0


def _may_be_login_failure(exc: psycopg2.Error) -> bool:
    """A failed login has no SQLSTATE in libpq, and its words are in the server's language. What is said of an address
    that nobody answers at is the driver's own, and in English.
    """
    nobody = ("Connection refused", "timeout expired", "could not translate host name", "No route to host")
    return exc.pgcode is None and not any(words in str(exc) for words in nobody)


@contextmanager
def _cancelled_after(seconds: float, connection: GuardedConnection) -> Iterator[None]:
    timer = threading.Timer(seconds, connection.cancel)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # or it could meet the next statement


def _first_line(exc: BaseException) -> str:
    """The driver's message without its DETAIL, which may quote a row."""
    lines = str(exc).strip().splitlines()
    return lines[0] if lines else type(exc).__name__
