"""`postern listen` hears each event once, in whatever order rows are written, however many, and through an outage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from chalicelib.postern.contract.errors import PosternError
from cli.feed import Feed


class Stage:
    """A store function's answers to `events` and `show`; `failures` of them are none."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.failures = 0
        self.unreadable: set[str] = set()
        self.questions = 0

    def write(self, second: float, number: int = 0) -> str:
        """A row with an id of this time."""
        id = str(UUID(int=(1_700_000_000_000 + round(second * 1000)) << 80 | number))
        self.rows[id] = {"id": id}
        return id

    def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.questions += 1
        if self.failures:
            self.failures -= 1
            raise PosternError("The stage is away.")
        if request["action"] == "show":
            if request["id"] in self.unreadable:
                raise PosternError("Too large.")
            return {"event": self.rows.get(request["id"])}
        before, after = request["before"] or "g", request["after"] or ""
        ids = sorted((id for id in self.rows if after < id < before), reverse=True)
        return {"events": [self.rows[id] for id in ids[: request["limit"]]]}


class Terminal:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.waited: list[float] = []


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def feed_of(stage: Stage, terminal: Terminal) -> Feed:
    return Feed(stage, None, say=terminal.said.append, wait=terminal.waited.append)


def heard(feed: Feed) -> list[str]:
    return [each["id"] for each in feed.poll()]


@pytest.mark.parametrize("before", [0, 1, 700])
def test_what_was_there_before_is_not_heard_and_what_comes_is_heard_once_in_order(
    stage: Stage, terminal: Terminal, before: int
) -> None:
    for n in range(before):
        stage.write(n / 10)
    feed = feed_of(stage, terminal)
    assert heard(feed) == []
    ids = [stage.write(1000 + n) for n in range(3)]
    assert heard(feed) == ids
    assert heard(feed) == []


def test_a_burst_is_heard_to_the_last(stage: Stage, terminal: Terminal) -> None:
    stage.write(0)
    feed = feed_of(stage, terminal)
    ids = [stage.write(1 + n / 1000) for n in range(5_001)]
    assert heard(feed) == ids
    assert heard(feed) == []


def test_rows_that_are_written_late_are_heard_once(stage: Stage, terminal: Terminal) -> None:
    stage.write(0)
    feed = feed_of(stage, terminal)
    newest = stage.write(400)
    assert heard(feed) == [newest]
    late = stage.write(390)
    assert heard(feed) == [late]
    very_late = stage.write(150)
    assert [id for _ in range(31) for id in heard(feed)] == [very_late]


def test_a_late_row_of_before_the_start_is_heard(stage: Stage, terminal: Terminal) -> None:
    stage.write(100)
    feed = feed_of(stage, terminal)
    late = stage.write(50)
    assert heard(feed) == [late]


def test_little_is_remembered_and_little_is_asked_for(stage: Stage, terminal: Terminal) -> None:
    stage.write(0)
    feed = feed_of(stage, terminal)
    for minute in range(100):
        stage.write(60 * minute + 1)
        assert len(heard(feed)) == 1
    assert len(feed._seen) < 10
    before = stage.questions
    heard(feed)
    assert stage.questions - before == 1


def test_an_outage_is_said_once_and_nothing_is_missed(stage: Stage, terminal: Terminal) -> None:
    feed = feed_of(stage, terminal)
    stage.failures = 6
    id = stage.write(1)
    assert heard(feed) == [id]
    assert [sentence[:9] for sentence in terminal.said] == ["No answer", "It answer"]
    assert terminal.waited == [1, 2, 4, 8, 15, 15]
    stage.failures = 2
    assert feed.show(id) == {"id": id}
    assert len(terminal.said) == 4


def test_however_often_the_stage_goes_away_no_event_is_given_up_for_it(stage: Stage, terminal: Terminal) -> None:
    feed = feed_of(stage, terminal)
    id = stage.write(1)
    original, outages = stage.perform, [2] * 5

    def perform(request: Mapping[str, Any]) -> dict[str, Any]:
        if request["action"] == "show" and outages:
            stage.failures = outages.pop()
        return original(request)

    stage.perform = perform  # type: ignore[method-assign]
    assert feed.show(id) == {"id": id}
    assert len(terminal.said) == 10


def test_an_event_that_cannot_be_shown_is_given_up_and_a_stage_that_is_away_is_not(
    stage: Stage, terminal: Terminal
) -> None:
    feed = feed_of(stage, terminal)
    id = stage.write(1)
    stage.unreadable.add(id)
    assert feed.show(id) is None
    assert feed.show(str(UUID(int=7))) is None
    assert terminal.said == []


def test_a_stage_that_is_not_there_is_not_waited_for(stage: Stage, terminal: Terminal) -> None:
    stage.failures = 1
    with pytest.raises(PosternError):
        feed_of(stage, terminal)
    assert terminal.waited == []
