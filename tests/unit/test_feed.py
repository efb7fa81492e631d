"""`postern listen` hears each event once, in the order of the stream, however many, and through an outage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from chalicelib.postern.contract.errors import PosternError, UnknownAction
from cli.feed import Feed


class Stage:
    """A store function's answers to `stream` and `show`; `failures` of them are none. A cursor is a number."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.failures = 0
        self.refusal = ""
        self.held = False
        self.unreadable: set[str] = set()
        self.questions = 0

    def write(self) -> str:
        id = str(len(self.rows))
        self.rows.append({"id": id})
        return id

    def perform(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.questions += 1
        if self.failures:
            self.failures -= 1
            raise PosternError("The stage is away.")
        if self.refusal:
            raise UnknownAction(self.refusal)
        if request["action"] == "show":
            if request["id"] in self.unreadable:
                raise PosternError("Too large.")
            return {"event": next((row for row in self.rows if row["id"] == request["id"]), None)}
        begin = len(self.rows) if request["cursor"] == "now" else int(request["cursor"])
        end = min(begin + request["limit"], len(self.rows))
        more = end < len(self.rows)
        found = {"events": self.rows[begin:end], "cursor": str(end), "more": more}
        return {**found, "held": self.held, "kept_since": None}


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


def feed_of(stage: Stage, terminal: Terminal, cursor: str = "now") -> Feed:
    return Feed(stage, None, begin={"cursor": cursor}, say=terminal.said.append, wait=terminal.waited.append)


def heard(feed: Feed) -> list[str]:
    """To the last one that is there."""
    ids, feed.more = [], True
    while feed.more:
        ids += [each["id"] for each in feed.poll()]
    return ids


@pytest.mark.parametrize("before", [0, 1, 700])
def test_what_was_there_before_is_not_heard_and_what_comes_is_heard_once_in_order(
    stage: Stage, terminal: Terminal, before: int
) -> None:
    for _ in range(before):
        stage.write()
    feed = feed_of(stage, terminal)
    assert heard(feed) == []
    ids = [stage.write() for _ in range(3)]
    assert heard(feed) == ids
    assert heard(feed) == []


def test_from_a_place_on_it_hears_what_was_missed_to_the_last_and_then_what_comes(
    stage: Stage, terminal: Terminal
) -> None:
    ids = [stage.write() for _ in range(5_001)]
    feed = feed_of(stage, terminal, "1")
    assert heard(feed) == ids[1:]
    assert heard(feed) == []
    assert stage.questions == 11


def test_an_outage_is_said_once_and_nothing_is_missed(stage: Stage, terminal: Terminal) -> None:
    feed = feed_of(stage, terminal)
    feed.poll()
    stage.failures = 6
    id = stage.write()
    assert heard(feed) == [id]
    assert [sentence[:9] for sentence in terminal.said] == ["No answer", "It answer"]
    assert terminal.waited == [1, 2, 4, 8, 15, 15]
    stage.failures = 2
    assert feed.show(id) == {"id": id}
    assert len(terminal.said) == 4


def test_however_often_the_stage_goes_away_no_event_is_given_up_for_it(stage: Stage, terminal: Terminal) -> None:
    feed = feed_of(stage, terminal)
    id = stage.write()
    original, outages = stage.perform, [2] * 5

    def perform(request: Mapping[str, Any]) -> dict[str, Any]:
        if request["action"] == "show" and outages:
            stage.failures = outages.pop()
        return original(request)

    stage.perform = perform  # type: ignore[method-assign]
    assert feed.show(id) == {"id": id}
    assert len(terminal.said) == 10


def test_an_event_that_cannot_be_shown_is_said_after_three_tries_and_one_that_is_gone_at_once(
    stage: Stage, terminal: Terminal
) -> None:
    feed = feed_of(stage, terminal)
    id = stage.write()
    stage.unreadable.add(id)
    with pytest.raises(PosternError, match="Too large"):
        feed.show(id)
    assert feed.show("7") is None
    assert (terminal.said, terminal.waited) == ([], [1, 1])


def test_a_stage_that_is_not_there_is_not_waited_for(stage: Stage, terminal: Terminal) -> None:
    stage.failures = 1
    with pytest.raises(PosternError):
        feed_of(stage, terminal)
    assert terminal.waited == []


def test_a_refusal_is_not_waited_out(stage: Stage, terminal: Terminal) -> None:
    feed = feed_of(stage, terminal)
    feed.poll()
    stage.refusal = "This cursor is another server's."
    with pytest.raises(UnknownAction, match="another server"):
        feed.poll()
    assert terminal.waited == []


def test_what_is_held_back_for_long_is_said_once(stage: Stage, terminal: Terminal) -> None:
    feed = feed_of(stage, terminal)
    stage.held = True
    for _ in range(25):
        feed.poll()
    assert [sentence[:18] for sentence in terminal.said] == ["Some are held back"]
    for _ in range(25):  # what moves on is not held for long
        stage.write()
        feed.poll()
    assert len(terminal.said) == 1
