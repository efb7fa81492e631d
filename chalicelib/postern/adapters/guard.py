"""Keeps a handler from ending the transaction that it shares with its event and its event's batch mates.

A handler that committed would make the rows of events final whose own handlers have not run.
"""

from __future__ import annotations

import os
import re
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

import psycopg2.extensions
from psycopg2.extensions import TRANSACTION_STATUS_ACTIVE
from psycopg2.sql import Composable

from chalicelib.postern.contract.errors import TransactionControlForbidden

_CANCELLING_SECONDS = 1.0

_SENTENCE = "A handler runs inside its event's transaction and must not end it; raise an error to undo what it wrote."

# Strings, quoted names, dollar-quoted bodies and comments: whatever stands in there is not a statement. As
# PostgreSQL reads them ("Lexical Structure" in its manual): E and $ begin one only where no name goes on, and
# comments nest, which is why their ends are found one by one.
_OPAQUE = re.compile(
    r"""(?<![\w$])[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
      | (?<![\w$])(?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag) | --[^\r\n]* | (?P<comment>/\*)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_ENDS_TRANSACTION = re.compile(
    r"(?:^|;)\s*(?:commit|end|abort|prepare\s+transaction"
    r"|rollback(?!\s+(?:work\s+|transaction\s+)?to\b))\b",
    re.IGNORECASE,
)
# The body of a function in standard SQL has an END of its own.
_ATOMIC = re.compile(r"\bbegin\s+atomic\b(.*?;)?\s*end\b", re.IGNORECASE | re.DOTALL)
_MAYBE = re.compile(r"commit|end|abort|rollback|prepare", re.IGNORECASE)
# A setting outlives its statement, and one of the team's own (`app.tenant`) shows in no list of settings.
_SETS = re.compile(r"(?:^|;)\s*(?:set|reset|discard)\b(?!\s+constraints\b)|\bset_config\b", re.IGNORECASE)
_OPENS_QUOTE = re.compile(r"['\"$]")  # and does not close it: a value might
_ALL_CONSTRAINTS = re.compile(r"\bset\s+constraints\s+all\b", re.IGNORECASE)
_MAYBE_SETS = re.compile(r"\bset\b|set_config|\breset\b|\bdiscard\b", re.IGNORECASE)

# What the driver quotes, whatever is in it.
_DATA = frozenset({str, bytes, int, float, bool, type(None), Decimal, date, datetime, UUID})
# Of a statement whose meaning is remembered: handlers have a few of these, and say them again and again.
_REMEMBERED_CHARACTERS = 4_000


def ends_transaction(statements: str) -> bool:
    """Whether one of these SQL statements would commit or roll back the transaction it runs in."""
    if not _MAYBE.search(statements):
        return False
    return _ENDS_TRANSACTION.search(_ATOMIC.sub(r" \1 ", without_opaque(statements))) is not None


def changes_settings(statements: str) -> bool:
    """Whether one of these SQL statements changes a setting of the session or of its transaction."""
    if not _MAYBE_SETS.search(statements):
        return False
    return _SETS.search(without_opaque(statements)) is not None


@dataclass(frozen=True)
class _Meaning:
    """What there is to know of statements before they are run."""

    ends_transaction: bool = False
    changes_settings: bool = False
    sets_all_constraints: bool = False
    quotes_values: bool = False  # none of them stands within a string, say, which its own quotes would end


@lru_cache(maxsize=500)
def _meaning(statements: str) -> _Meaning:
    return _Meaning(
        ends_transaction(statements),
        changes_settings(statements),
        _ALL_CONSTRAINTS.search(statements) is not None,
        _quotes_values(statements),
    )


def _quotes_values(statements: str) -> bool:
    left = without_opaque(statements)
    return left.count("%") == statements.count("%") and not _OPENS_QUOTE.search(left)


def _meaning_of(query: object) -> _Meaning:
    text = query.decode("latin-1") if isinstance(query, bytes) else query
    if not isinstance(text, str):
        return _Meaning()
    return _meaning(text) if len(text) <= _REMEMBERED_CHARACTERS else _meaning.__wrapped__(text)


def _is_data(values: Any) -> bool:
    """Whether none of a statement's values can be part of its text, as psycopg2's AsIs and Identifier are."""
    several = values.values() if isinstance(values, dict) else values
    return isinstance(values, tuple | list | dict) and all(type(value) in _DATA for value in several)


def without_opaque(statements: str) -> str:
    """The statements without their strings, quoted names, dollar-quoted bodies and comments."""
    kept: list[str] = []
    at = 0
    while found := _OPAQUE.search(statements, at):
        kept += (statements[at : found.start()], " ")
        at = _end_of_comment(statements, found.end()) if found["comment"] else found.end()
    return "".join([*kept, statements[at:]])


def _end_of_comment(statements: str, at: int) -> int:
    depth = 1
    while depth and (edge := _COMMENT_EDGE.search(statements, at)):
        depth += 1 if edge[0] == "/*" else -1
        at = edge.end()
    return at if depth == 0 else len(statements)


class HandlerCursor(psycopg2.extensions.cursor):
    """The `db` of a handler: a psycopg2 cursor that refuses to run transaction control."""

    def execute(self, query: str | bytes | Composable, vars: Any = None) -> None:
        if not self._check(query, vars).sets_all_constraints:
            super().execute(query, vars)
            return
        # The seal is a deferred constraint as well, and is not meant.
        super().execute("DELETE FROM postern.seals WHERE id = pg_current_xact_id()")
        super().execute(query, vars)
        super().execute("SET CONSTRAINTS postern.seals_hold DEFERRED; INSERT INTO postern.seals DEFAULT VALUES")

    def executemany(self, query: str | bytes | Composable, vars_list: Any) -> None:
        every = list(vars_list)
        for values in every:
            self._check(query, values)
        super().executemany(query, every)

    def copy_expert(self, sql: str | bytes | Composable, file: Any, size: int = 8192) -> None:
        self._check(sql)
        super().copy_expert(sql, file, size)

    def callproc(self, procname: str | bytes, parameters: Any = None) -> None:
        # Sent as it is, as part of a statement.
        self._check(procname)
        super().callproc(procname, parameters)

    def _check(self, query: str | bytes | Composable, values: Any = None) -> _Meaning:
        if isinstance(query, Composable):
            query = query.as_string(self)
        meaning = _meaning_of(query)
        if values is not None and not (meaning.quotes_values and _is_data(values)):
            meaning = _meaning_of(self.mogrify(query, values))
        if meaning.ends_transaction:
            raise TransactionControlForbidden(_SENTENCE)
        if meaning.changes_settings and isinstance(self.connection, GuardedConnection):
            self.connection.settings_changed = True
        return meaning


class GuardedConnection(psycopg2.extensions.connection):
    """A connection that can be lent out: while `lent` is set, its transaction cannot be ended by way of it.

    - `was_lent`: it was, since its session was last wiped clean.
    - `settings_changed`: a statement of the borrower's changed one.
    - `interrupted_at`: when a statement of the borrower's was first cancelled, on time.monotonic.
    """

    lent = False
    was_lent = False
    settings_changed = False
    interrupted_at: float | None = None
    _canceller = 0
    settings = ""  # the transaction's, as they have to be
    synchronous_commit = "on"

    def interrupt(self) -> None:
        """Cancels the statement that the database works on, if there is one. For another thread.

        In a process of its own: the driver waits for the database's answer and holds the interpreter's lock as long,
        and a database that is frozen would stop all of this one.
        """
        if self.closed or self.info.transaction_status != TRANSACTION_STATUS_ACTIVE or self._canceller:
            return
        self.interrupted_at = self.interrupted_at or time.monotonic()
        child = os.fork()
        if child == 0:
            try:
                self.cancel()
            finally:
                os._exit(0)
        self._canceller = child

    def end_interruption(self) -> None:
        """Returns when no cancellation is on its way any more that would meet the next statement."""
        until = time.monotonic() + _CANCELLING_SECONDS
        with suppress(ChildProcessError):
            while self._canceller and os.waitpid(self._canceller, os.WNOHANG) == (0, 0):
                if time.monotonic() > until:
                    os.kill(self._canceller, signal.SIGKILL)
                time.sleep(0.005)
        self._canceller = 0

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        if self.lent:
            kwargs["cursor_factory"] = _guarded(kwargs.get("cursor_factory") or HandlerCursor)
        return super().cursor(*args, **kwargs)

    def commit(self) -> None:
        self._refuse_if_lent()
        super().commit()

    def rollback(self) -> None:
        self._refuse_if_lent()
        super().rollback()

    def close(self) -> None:
        self._refuse_if_lent()
        super().close()

    def reset(self) -> None:
        self._refuse_if_lent()
        super().reset()

    # psycopg2 rolls back inside of these.
    def set_client_encoding(self, encoding: str) -> None:
        self._refuse_if_lent()
        super().set_client_encoding(encoding)

    def set_isolation_level(self, level: int | None) -> None:
        self._refuse_if_lent()
        super().set_isolation_level(level)

    def _refuse_if_lent(self) -> None:
        if self.lent:
            raise TransactionControlForbidden(_SENTENCE)


@cache
def _guarded(factory: type[psycopg2.extensions.cursor]) -> type[psycopg2.extensions.cursor]:
    """A handler's own kind of cursor, such as RealDictCursor, with the guard in front."""
    if issubclass(factory, HandlerCursor):
        return factory
    return type(f"Guarded{factory.__name__}", (HandlerCursor, factory), {})
