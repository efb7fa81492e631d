"""A handler cannot end the transaction that it shares."""

from __future__ import annotations

import pytest

from chalicelib.adapters.guard import ends_transaction


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
    ],
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
    ],
)
def test_what_does_not_end_it_passes(statement: str) -> None:
    assert not ends_transaction(statement)
