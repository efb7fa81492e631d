"""The reader: who looks, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chalicelib.postern.adapters.postgres import Database
from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.errors import StatementFailed, UnknownAction
from chalicelib.postern.operating.operator import VIEWS
from chalicelib.postern.operating.replays.queries import ReplayStore
from chalicelib.postern.running import wiring
from tests.integration.world import World, effect, fails_for, now, numbered


@pytest.fixture
def perform(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Any]]]:
    monkeypatch.setenv("DATABASE_URL", world.url)
    for built in (wiring.config, wiring.reader):
        built.cache_clear()
    yield lambda action, **arguments: wiring.reader().perform({"action": action, **arguments})
    for built in (wiring.config, wiring.reader):
        built.cache_clear()


def test_it_performs_what_changes_nothing_and_nothing_else(perform: Callable[..., dict[str, Any]]) -> None:
    assert wiring.reader().actions.keys() == VIEWS
    assert wiring.reader().duties == {}
    for action in ("migrate", "start_replay", "purge_dead_letters", "set_issue", "dry_run"):
        with pytest.raises(UnknownAction):
            perform(action)


def test_each_view_can_be_had_read_only(world: World, perform: Callable[..., dict[str, Any]]) -> None:
    batch = numbered(1, 2)
    world.processor(effect, fails_for(2)).process(batch)
    id = str(batch[1].event.id)
    [issue] = perform("issues")["issues"]
    replay = new_event_id(now())
    ReplayStore(world.database()).start(replay, kind="replay", trigger="replay", asked={"ids": [id]}, rate=1, total=1)
    arguments: dict[str, dict[str, Any]] = {
        "body": {"id": id, "of": "event", "offset": 0},
        "find": {"key": batch[0].event.dedup_key},
        "shape": {"source": "shop", "type": "order"},
        "reconciled_to": {"source": "shop"},
        "show_issue": {"id": issue["id"]},
        "show_replay": {"id": str(replay)},
        **{action: {"id": id} for action in ("show", "show_delivery", "show_duplicate", "gaps", "show_reconciliation")},
    }
    for action in VIEWS:
        assert perform(action, **arguments.get(action, {})) is not None
    assert perform("show", id=id)["event"]["status"] == "failed"


def test_the_database_refuses_it_every_write(world: World) -> None:
    database = Database(lambda fresh: world.url, read_only=True)
    for statement in ("DELETE FROM postern.events", "CREATE TABLE t ()", "SELECT postern.make_partitions()"):
        with pytest.raises(StatementFailed), database.transaction() as session:
            session.execute(statement)
    with database.transaction() as session:
        assert session.execute("SHOW transaction_read_only") == [{"transaction_read_only": "on"}]
    database.close()
