"""Keeps a handler from ending the transaction that it shares with its event and its event's batch mates.

A handler that committed would make the rows of events final whose own handlers have not run.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg2.extensions
from psycopg2.sql import Composable

from chalicelib.errors import TransactionControlForbidden

_Result = TypeVar("_Result")

_SENTENCE = "A handler runs inside its event's transaction and must not end it; raise an error to undo what it wrote."

# Strings, quoted names, dollar-quoted bodies and comments: whatever stands in there is not a statement.
_OPAQUE = re.compile(
    r"""[eE]'(?:[^'\\]|''|\\.)*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
      | (?P<tag>\$\w*\$).*?(?P=tag) | --[^\n]* | /\*.*?\*/""",
    re.VERBOSE | re.DOTALL,
)
_ENDS_TRANSACTION = re.compile(
    r"(?:^|;)\s*(?:commit|end|abort|prepare\s+transaction"
    r"|rollback(?!\s+(?:work\s+|transaction\s+)?to\b))\b",
    re.IGNORECASE,
)
_MAYBE = re.compile(r"commit|end|abort|rollback|prepare", re.IGNORECASE)


def ends_transaction(statements: str) -> bool:
    """Whether one of these SQL statements would commit or roll back the transaction it runs in."""
    if not _MAYBE.search(statements):
        return False
    return _ENDS_TRANSACTION.search(_OPAQUE.sub(" ", statements)) is not None


class GuardedConnection(psycopg2.extensions.connection):
    """A connection that can be lent out: while `lent` is set, it cannot be committed, rolled back or closed."""

    lent = False

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

    def _refuse_if_lent(self) -> None:
        if self.lent:
            raise TransactionControlForbidden(_SENTENCE)


class HandlerCursor(psycopg2.extensions.cursor):
    """The `db` of a handler: a psycopg2 cursor that refuses to run transaction control."""

    def execute(self, query: str | bytes | Composable, vars: Any = None) -> None:
        self._checked(super().execute, query, vars)

    def executemany(self, query: str | bytes | Composable, vars_list: Any) -> None:
        self._checked(super().executemany, query, vars_list)

    def _checked(self, run: Callable[[Any, Any], _Result], query: str | bytes | Composable, values: Any) -> _Result:
        if isinstance(query, Composable):
            query = query.as_string(self)
        text = query.decode("latin-1") if isinstance(query, bytes) else query
        if ends_transaction(text):
            raise TransactionControlForbidden(_SENTENCE)
        return run(query, values)
