"""A handler cannot end the transaction that it shares."""

from __future__ import annotations

import time

import psycopg2.extensions
import pytest

from chalicelib.postern.adapters.guard import GuardedConnection, HandlerCursor, _meaning, ends_transaction


@pytest.mark.parametrize(
    "statement",
    [
        "COMMIT",
        "  commit;",
        "Rollback",
        "END",
        "abort work",
        "ROLLBACK WORK",
        "rollback and chain",
        "PREPARE TRANSACTION 'x'",
        "SELECT 1; COMMIT",
        "SELECT ';'; COMMIT",
        "/* why */ COMMIT",
        "-- why\nCOMMIT",
        "SELECT $$a$$; COMMIT",
        r"SELECT E'\''; COMMIT; --'",
        "SELECT '\\'; COMMIT; --'",
        "SELECT 1;;;COMMIT",
        'SELECT 1 AS "a"; COMMIT',
        "\t\r\n\f\vCOMMIT",
        "COMMIT WORK",
        "COMMIT AND NO CHAIN",
        "COMMIT PREPARED 'x'",
        "COMMIT/**/",
        "COMMIT--",
        "/**/COMMIT",
        "SELECT 1;/**/COMMIT",
        "SELECT 1;--\nCOMMIT",
        "SELECT 1 -- ' \n; COMMIT --'",
        "SELECT 1 /* ' */; COMMIT /* ' */",
        "SELECT '--'; COMMIT",
        "SELECT '/*'; COMMIT; --*/",
        "SELECT 'it''s'; COMMIT",
        "SELECT ''; COMMIT; SELECT ''",
        'SELECT 1 AS """"; COMMIT; SELECT 1 AS """"',
        'SELECT "it\'s"; COMMIT; SELECT "it\'s"',
        r"SELECT E'\\'; COMMIT; SELECT E'\\'",
        r"SELECT e'\\\''; COMMIT; SELECT e''",
        "SELECT $a$ $b$ $a$; COMMIT; SELECT $b$ $b$",
        "SELECT $$'$$; COMMIT; SELECT $$'$$",
        "SELECT U&'\\0027'; COMMIT; --'",
        "SELECT '\\'\n; COMMIT; --'",
        "end transaction",
        "END;",
        "ABORT",
        "rollback transaction",
        "ROLLBACK AND NO CHAIN",
        "ROLLBACK PREPARED 'to'",
        "ROLLBACK; SELECT 1 AS to",
        "ROLLBACK /* to */",
        "ROLLBACK TO mine; ROLLBACK",
        "prepare\n transaction 'x'",
        "PREPARE/* */TRANSACTION 'x'",
        "DO $$ BEGIN NULL; END $$; COMMIT",
        "BEGIN; COMMIT",
        "SAVEPOINT a; END",
        "SELECT 1; SELECT 2; SELECT 3; commit; SELECT 4",
        # Each of these was seen to commit on PostgreSQL 18.
        "/* /* */ */ COMMIT",
        "SELECT 1 /* a /* b */ c */; COMMIT",
        "SELECT 1 AS a$b$; COMMIT; SELECT 2 AS c$b$",
        "SELECT name'\\'; COMMIT; --'",
        "SELECT 1 -- a\r; COMMIT",
    ],
    ids=ascii,
)
def test_every_way_to_end_it_is_seen(statement: str) -> None:
    assert ends_transaction(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "INSERT INTO commits (commit_id) VALUES (1)",
        "SELECT 'x; COMMIT'",
        "SELECT $$; COMMIT;$$",
        "SELECT $tag$; ROLLBACK; $$ $tag$",
        "SELECT CASE WHEN true THEN 1 END",
        "SAVEPOINT mine",
        "ROLLBACK TO SAVEPOINT mine",
        "ROLLBACK WORK TO mine",
        "RELEASE SAVEPOINT mine",
        "DO $$ BEGIN PERFORM 1; END; $$",
        "PREPARE plan AS SELECT 1",
        "UPDATE t SET ended = true -- ; COMMIT",
        "SELECT 1 /* ; COMMIT */",
        r"SELECT E'it\'s; COMMIT'",
        'SELECT "; commit" FROM t',
        "",
        "SELECT commit_id, ended, aborted, prepared FROM rollbacks",
        "SELECT 1 AS commit",
        "SELECT t.end FROM t",
        'INSERT INTO "commit" VALUES (1)',
        "UPDATE t SET a = 'it''s; COMMIT'",
        "SELECT 'a\n; COMMIT\n'",
        "SELECT 1; -- COMMIT",
        "SELECT 1; /* COMMIT */ SELECT 2",
        "/*\n; COMMIT\n*/ SELECT 1",
        "/* ' */ SELECT '; COMMIT'",
        "-- '\nSELECT '; COMMIT'",
        "/* a /* b */ ; COMMIT */ SELECT 1",
        "SELECT $a$; COMMIT; $b$; END; $a$",
        "SELECT $schlüssel$; COMMIT; $schlüssel$",
        "SELECT $_1$; COMMIT; $_1$",
        "SELECT E'\\\\; COMMIT'",
        "SELECT E'''; COMMIT'",
        r"SELECT E'\'; COMMIT; --'",
        "SELECT CASE WHEN a THEN 1 ELSE 2 END FROM t; SELECT 2",
        "SELECT CASE a\nWHEN 1 THEN 2\nEND\nFROM t",
        "DO $do$ BEGIN IF true THEN PERFORM 1; END IF; END $do$",
        "DO $$ DECLARE x int; BEGIN BEGIN x := 1; EXCEPTION WHEN others THEN NULL; END; END $$ LANGUAGE plpgsql",
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN RETURN; END; $f$",
        "rollback transaction to savepoint mine",
        "ROLLBACK/**/TO/**/mine",
        "ROLLBACK\nWORK\nTO\nmine",
        "SAVEPOINT a; ROLLBACK TO a; RELEASE a",
        "PREPARE transactions AS SELECT 1",
        "DECLARE c CURSOR FOR SELECT 1; CLOSE c",
    ],
    ids=ascii,
)
def test_what_does_not_end_it_passes(statement: str) -> None:
    assert not ends_transaction(statement)


@pytest.mark.parametrize("statement", ["'" * 20_001, "/*" * 20_000, "$a$" * 20_001, '"' * 20_001, "E'" + "\\" * 20_001])
def test_a_statement_that_never_closes_is_judged_in_no_time(statement: str) -> None:
    """PostgreSQL refuses it; until then nobody should wait for it."""
    started = time.process_time()
    ends_transaction(f"SELECT 1 {statement} commit")
    assert time.process_time() - started < 5


@pytest.mark.parametrize("method", ["execute", "executemany", "callproc", "copy_expert"])
def test_no_method_that_takes_sql_goes_around_the_check(method: str) -> None:
    """`copy_expert` and `callproc` send what they are given as it is: `db.copy_expert("COMMIT", file)` commits."""
    assert getattr(HandlerCursor, method) is not getattr(psycopg2.extensions.cursor, method)


@pytest.mark.parametrize("method", ["commit", "rollback", "close", "reset"])
def test_no_method_that_ends_a_transaction_goes_around_the_connections_guard(method: str) -> None:
    assert getattr(GuardedConnection, method) is not getattr(psycopg2.extensions.connection, method)


@pytest.mark.parametrize(
    ("statement", "holds"),
    [
        ("INSERT INTO notes VALUES (%s, 'fixed')", True),
        ("SELECT %(a)s -- %% of all", False),
        ("INSERT INTO notes VALUES ('%s')", False),
        ('SELECT "%s"', False),
        ("SELECT $$%s$$", False),
        ("SELECT 'a%s", False),
        ("SELECT $$%s", False),
        ("SELECT $x%s$ 1", False),
        ("SELECT 1 /* %s */", False),
    ],
)
def test_values_are_trusted_only_where_their_own_quotes_hold_them(statement: str, holds: bool) -> None:
    assert _meaning(statement).quotes_values is holds
