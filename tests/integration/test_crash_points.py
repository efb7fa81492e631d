"""A sample of the crash points, in every run of the tests; `make chaos` has all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.crash_points import EFFECTS, Scenario, points
from tests.integration.world import World

SAMPLE = ["COMMIT", "queue.send", "queue.delete", "dead_letters.send", "bodies.put", "insert_rejected", "handlers"]


def test_every_call_and_statement_is_a_point(world: World, tmp_path: Path) -> None:
    world.query("DROP TABLE effects")
    world.query(EFFECTS)
    passed = {name.partition(" ")[2] for name in points(world.url, tmp_path)}
    assert {*SAMPLE, "copy_events", "update_events", "lock_events", "bodies.get", "queue.hide"} <= passed


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", SAMPLE)
def test_wherever_a_process_is_killed_nothing_is_lost_or_twice(
    world: World, tmp_path: Path, point: str, when: str
) -> None:
    world.query("DROP TABLE effects")
    world.query(EFFECTS)
    scenario = Scenario(world.url, tmp_path / "scenario", f"{when} {point}", 1)
    assert scenario.play() == {}
    assert scenario.crashed
