"""A sample of the crash points, in every run of the tests; `make crash-points` has all of them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.chaos.crash_points import EFFECTS, Scenario, points
from tests.chaos.proxies import FINE, DatabaseRelay
from tests.integration.world import World

SAMPLE = ["COMMIT", "queue.send", "queue.delete", "dead_letters.send", "bodies.put", "insert_rejected", "handlers"]
SAMPLE += ["claim_keys_for_a_while"]


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


@pytest.mark.parametrize("cut", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 9))
def test_a_commit_of_which_nobody_knows_the_outcome_is_neither_lost_nor_done_twice(
    world: World, tmp_path: Path, cut: str, nth: int
) -> None:
    """The connection is cut as COMMIT is sent, or when it has been: PostgreSQL has had it then, or will not have it."""
    world.query("DROP TABLE effects")
    world.query(EFFECTS)
    address = urlsplit(world.url)
    assert address.hostname is not None
    assert address.port is not None
    relay = DatabaseRelay(address.hostname, address.port)
    commits = iter(range(1, 1_000))
    relay.harm = lambda: cut if next(commits) == nth else FINE
    try:
        through = world.url.replace(f":{address.port}/", f":{relay.port}/")
        assert Scenario(through, tmp_path / "scenario", None, 1).play() == {}
        assert relay.done[f"COMMIT {cut}"] == 1
    finally:
        relay.close()
