"""Every statement, by its text."""

from __future__ import annotations

import pytest

from chalicelib.postern.adapters.postgres import queries

LIMITED = [name for name, text in queries().items() if "LIMIT" in text and "FOR UPDATE" in text]


def test_there_are_some_to_look_at() -> None:
    assert {"take_replay_items", "delete_attempts"} <= set(LIMITED)


@pytest.mark.parametrize("name", LIMITED)
def test_rows_that_are_limited_and_locked_are_chosen_once(name: str) -> None:
    """Joined as a subquery, they may be chosen again for each row of the other side, and each time be others: a replay
    once put 400 events on the queue for 10, in a table that was vacuumed and not analysed.
    """
    assert "MATERIALIZED" in queries()[name] or "= ANY (ARRAY(" in queries()[name]
