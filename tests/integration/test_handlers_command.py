"""`postern handlers`: which of the team's functions takes what, how it does, and what is doubtful about it."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.postern.operating.handlers import actions
from chalicelib.postern.operating.handlers.queries import Work
from chalicelib.postern.operating.operator import Operator
from chalicelib.postern.processing.attempts import Runner
from chalicelib.postern.processing.handling import Handler
from tests.integration.world import POLICY, World, effect, fails_for, now, numbered, work


def listed(world: World, *handlers: Handler) -> dict[str, Any]:
    views = actions.views(lambda: Runner(handlers, POLICY, now, 10), Work(world.database()), lambda: ["shop", "club"])
    return Operator(views, {}).perform({"action": "handlers"})


def test_it_says_what_each_takes_how_often_how_long_and_what_failed(world: World) -> None:
    poisoned = fails_for(2)
    handlers = [Handler("shop", "*", poisoned), Handler("shop", "nothing.*", effect, timeout=3)]
    world.processor(handlers=handlers).process([*numbered(1, 2, 3), work(source="club")])
    found = listed(world, *handlers)
    [first, second] = found["registered"]
    assert (first["source"], first["type"], first["events"], first["failures"], first["timeout"]) == (
        "shop",
        "*",
        3,
        1,
        10,
    )
    assert first["last_failure"] is not None
    assert 0 < first["p50_ms"] <= first["p95_ms"]
    assert (second["events"], second["failures"], second["p50_ms"], second["timeout"]) == (0, 0, None, 3)
    assert found["doubts"] == []


@pytest.mark.parametrize(
    ("handlers", "said"),
    [
        ([Handler("shpo", "*", effect)], "'shpo', which sources.toml does not declare; 'shop' is"),
        ([Handler("elsewhere", "*", effect)], "'elsewhere', which sources.toml does not declare."),
        ([Handler("shop", "a", fails_for(1)), Handler("shop", "b", fails_for(2))], "2 handlers are called"),
    ],
)
def test_what_is_probably_not_what_was_meant_is_said(world: World, handlers: list[Handler], said: str) -> None:
    [doubt] = listed(world, *handlers)["doubts"]
    assert said in doubt


def test_one_function_for_two_types_and_stars_are_no_doubt(world: World) -> None:
    handlers = [Handler("shop", "a", effect), Handler("shop", "b", effect), Handler("*", "*", fails_for(1))]
    assert listed(world, *handlers)["doubts"] == []
