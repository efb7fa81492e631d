"""What a piece of work would change: it runs in a transaction that is always rolled back, and its rows are compared.

Without triggers, which would lock live tables and need to own them. The transaction is REPEATABLE READ: a row that it
sees and that was written by a transaction which its snapshot did not know is its own. How the rows were before is seen
from a second connection, to which nothing of it has happened. Which tables to look into is what PostgreSQL counts for
the running transaction (pg_stat_xact_user_tables). Rows are found by a scan of those tables; where that takes longer
than a statement may, the counts are all there is to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psycopg2
import psycopg2.extras
from psycopg2 import sql
from psycopg2.extensions import ISOLATION_LEVEL_REPEATABLE_READ, TRANSACTION_STATUS_INTRANS

from chalicelib.postern.adapters.guard import GuardedConnection
from chalicelib.postern.adapters.postgres import open_connection, queries, settle, translated_errors
from chalicelib.postern.contract.errors import DatabaseUnavailable
from chalicelib.postern.contract.numbers import Number, dumps
from chalicelib.postern.contract.payloads import loads

_MAX_CHANGES = 200
_MAX_VALUE_LENGTH = 1_000
_SERIALIZATION_FAILURE = "40001"

Row = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """A row as it was and as it would be; `before` is None for an inserted one, `after` for a deleted one."""

    table: str
    kind: str
    key: Row
    before: Row | None
    after: Row | None


@dataclass
class Outcome:
    """`error`: what the work raised. `incomplete`: a sentence for each thing that is not among the changes."""

    error: BaseException | None = None
    changes: list[Change] = field(default_factory=list)
    incomplete: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Table:
    schema: str
    name: str
    shown: str  # of a partition the table that it is of
    key: list[str]
    inserted: int
    updated: int
    deleted: int

    @property
    def identifier(self) -> sql.Composable:
        return sql.Identifier(self.schema, self.name)

    def key_of(self, row: Row) -> str:
        return dumps([row[column] for column in self.key])


class RowChanges:
    """On the database of this DSN; each time on connections of its own, which are closed afterwards."""

    def __init__(self, dsn: Callable[[bool], str]) -> None:
        self._dsn = dsn

    def of(self, work: Callable[[Any], None]) -> Outcome:
        """Commits nothing. What the work did elsewhere, and sequences that it advanced, stay. Raises
        DatabaseUnavailable.
        """
        outcome = self._once(work)
        if isinstance(outcome.error, psycopg2.Error) and outcome.error.pgcode == _SERIALIZATION_FAILURE:
            # Somebody else changed the same row meanwhile, which only this isolation level minds.
            outcome = self._once(work)
        return outcome

    def _once(self, work: Callable[[Any], None]) -> Outcome:
        with self._connection() as inside, self._connection() as outside:
            inside.rollback()
            inside.set_isolation_level(ISOLATION_LEVEL_REPEATABLE_READ)
            with translated_errors(inside):
                settle(inside)
                start = _rows(inside, queries()["first_unknown_xid"])[0]["xid"]
            outside.rollback()  # or it would be idle in its transaction for as long as the handlers take
            outcome = Outcome(_error_of(work, inside))
            if inside.closed:
                raise DatabaseUnavailable("The connection was lost.")
            if inside.info.transaction_status != TRANSACTION_STATUS_INTRANS:
                outcome.incomplete.append("A database error undid what was written before it.")
                return outcome
            with translated_errors(inside):
                settle(outside)
                tables = [_Table(**row) for row in _rows(inside, queries()["tables_written"])]
                for table in tables:
                    _compare(table, start, inside, outside, outcome)
                outcome.incomplete += [
                    f"{row['shown']} was truncated or altered, which is not told row by row."
                    for row in _rows(inside, queries()["tables_locked_whole"])
                ]
            return outcome

    @contextmanager
    def _connection(self) -> Iterator[GuardedConnection]:
        with closing(open_connection(self._dsn)) as connection:
            yield connection


def _error_of(work: Callable[[Any], None], connection: GuardedConnection) -> BaseException | None:
    connection.lent = True
    try:
        with connection.cursor() as cursor:
            work(cursor)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as exc:
        return exc
    finally:
        connection.lent = False
    return None


def _compare(
    table: _Table, start: int, inside: GuardedConnection, outside: GuardedConnection, outcome: Outcome
) -> None:
    room = _MAX_CHANGES - len(outcome.changes)
    counts = f"{table.inserted} inserted, {table.updated} updated, {table.deleted} deleted"
    if room <= 0:
        outcome.incomplete.append(f"{table.shown}: {counts}; more than {_MAX_CHANGES} changes are not shown.")
        return
    try:
        written = _scan(inside, "rows_written", table, start, room + 1)
        touched = _scan(outside, "rows_touched", table, start, room + 1) if table.updated or table.deleted else []
        changes = _paired(table, written, touched, inside, outside)
    except psycopg2.Error as exc:
        # It takes too long; or the work itself has locked the table (TRUNCATE), or made it.
        outcome.incomplete.append(f"{table.shown}: {counts}; the rows cannot be told ({type(exc).__name__}).")
        return
    if not table.key:
        outcome.incomplete.append(f"{table.shown} has no primary key: an updated row is shown as deleted and inserted.")
    if len(changes) > room:
        outcome.incomplete.append(f"{table.shown}: {counts}; more than {_MAX_CHANGES} changes are not shown.")
    outcome.changes += [_shown(change) for change in changes[:room]]


def _paired(
    table: _Table, written: list[Row], touched: list[Row], inside: GuardedConnection, outside: GuardedConnection
) -> list[Change]:
    if not table.key:
        return [
            *(Change(table.shown, "deleted", {}, row, None) for row in touched),
            *(Change(table.shown, "inserted", {}, None, row) for row in written),
        ]
    before = {table.key_of(row): row for row in _by_key(outside, table, written)}
    still = {table.key_of(row) for row in _by_key(inside, table, touched)}
    changes = []
    for row in written:
        old = before.get(table.key_of(row))
        if old != row:
            kind = "inserted" if old is None else "updated"
            changes.append(Change(table.shown, kind, {name: row[name] for name in table.key}, old, row))
    gone = [row for row in touched if table.key_of(row) not in still]
    return changes + [
        Change(table.shown, "deleted", {name: row[name] for name in table.key}, row, None) for row in gone
    ]


def _scan(connection: GuardedConnection, query: str, table: _Table, start: int, limit: int) -> list[Row]:
    statement = sql.SQL(queries()[query]).format(table=table.identifier)
    return [row["row"] for row in _rows(connection, statement, {"start": start, "limit": limit})]


def _by_key(connection: GuardedConnection, table: _Table, rows: list[Row]) -> list[Row]:
    if not rows:
        return []
    columns = sql.SQL(", ").join(map(sql.Identifier, table.key))
    statement = sql.SQL(queries()["rows_by_key"]).format(table=table.identifier, key=columns)
    return [row["row"] for row in _rows(connection, statement, {"rows": dumps(rows)})]


def _rows(
    connection: GuardedConnection, statement: str | sql.Composable, values: Mapping[str, Any] | None = None
) -> list[Row]:
    """In a savepoint, so that one that is cancelled does not void its transaction."""
    with connection.cursor() as cursor:
        # Here alone: handlers on this connection get what they always get.
        for register in (psycopg2.extras.register_default_json, psycopg2.extras.register_default_jsonb):
            register(cursor, loads=partial(loads, parse_float=_as_written))
        cursor.execute("SAVEPOINT postern_look")
        try:
            cursor.execute(statement, values)
            names = [column.name for column in cursor.description or []]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        finally:
            if not connection.closed:
                cursor.execute("ROLLBACK TO SAVEPOINT postern_look")


def _shown(change: Change) -> Change:
    return Change(change.table, change.kind, _cut(change.key) or {}, _cut(change.before), _cut(change.after))


def _cut(row: Row | None) -> Row | None:
    if row is None:
        return None
    return {name: _cut_value(value) for name, value in row.items()}


def _cut_value(value: Any) -> Any:
    """A long one is cut, and one that a JSON number would not keep as it is written on its way, 9.50, is text."""
    text = value if isinstance(value, str) else dumps(value, ensure_ascii=False)
    if len(text) > _MAX_VALUE_LENGTH:
        return text[:_MAX_VALUE_LENGTH] + "…"
    return text if _has_numbers(value) else value


def _as_written(text: str) -> float | Number:
    return number if repr(number := float(text)) == text else Number(text)


def _has_numbers(value: Any) -> bool:
    match value:
        case dict():
            return any(map(_has_numbers, value.values()))
        case list():
            return any(map(_has_numbers, value))
    return isinstance(value, Number)
