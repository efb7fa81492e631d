"""Shapes are learned from the rows by the clock, and what departs from them is reported once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from chalicelib.postern.adapters.postgres import queries
from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.errors import StatementFailed
from chalicelib.postern.operating.drift import actions as drift
from chalicelib.postern.operating.drift.actions import Learner
from chalicelib.postern.operating.drift.queries import KindOfEvents, Shapes
from chalicelib.postern.operating.operator import Operator
from tests.integration.world import World, now, work

Fields = dict[str, Any]


class Clockwork:
    """An inbox of one source, with maintenance that looks when it is told to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.shapes = Shapes(world.database())
        self.lines: list[tuple[str, Fields]] = []
        self.time = now() - timedelta(hours=1)

    def receive(self, *payloads: Any, type: str = "order") -> list[str]:
        """The ids of events that come one second after the other."""
        works = []
        for payload in payloads:
            self.time += timedelta(seconds=1)
            body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
            event = work(body=body, id=new_event_id(self.time), received_at=self.time, type=type)
            works.append(event)
        for at in range(0, len(works), 100):
            self.world.processor().process(works[at : at + 100])
        return [str(each.event.id) for each in works]

    def watch(self, **changes: Any) -> Learner:
        made = Learner(self.shapes, lambda: {"shop"}, now, lambda: 0.0, self.log)
        return replace(made, **changes)

    def log(self, name: str, **fields: Any) -> None:
        self.lines.append((name, fields))

    def look(self, **changes: Any) -> list[tuple[str, str, str]]:
        """Kind, path and event of what was found now."""
        before = len(self.lines)
        self.watch(**changes).look()
        return [(fields["kind"], fields["path"], fields["id"]) for _, fields in self.lines[before:]]

    def perform(self, action: str, **arguments: Any) -> Any:
        actions = drift.views(self.shapes) | drift.actions(self.shapes, self.watch())
        return Operator(actions, {}).perform({"action": action, **arguments})


@pytest.fixture
def inbox(world: World) -> Clockwork:
    return Clockwork(world)


def orders(number: int, **fields: Any) -> list[Fields]:
    return [{"id": n, "total": 1.5, "note": None, **fields} for n in range(number)]


def test_a_new_field_is_reported_once_with_the_first_event_that_had_it(inbox: Clockwork) -> None:
    inbox.receive(*orders(25))
    assert inbox.look() == []
    inbox.receive(*orders(3))
    [first, *_] = inbox.receive(*orders(5, currency="EUR"))
    assert inbox.look() == [("new", "currency", first)]
    inbox.receive(*orders(5, currency="USD"))
    assert inbox.look() == []
    [found] = inbox.perform("drift")["drift"]
    assert (found["source"], found["type"], found["kind"], found["path"], found["was"], found["became"]) == (
        "shop",
        "order",
        "new",
        "currency",
        [],
        ["string"],
    )
    assert (found["event_id"], found["accepted_at"]) == (first, None)


def test_each_type_is_learned_on_its_own(inbox: Clockwork) -> None:
    inbox.receive(*orders(25))
    inbox.receive(*orders(10, currency="EUR"), type="refund")
    assert inbox.look() == []
    shapes = [inbox.perform("shape", source="shop", type=type)["shape"] for type in ("order", "refund")]
    assert [(shape["events"], shape["learned"]) for shape in shapes] == [(25, True), (10, False)]
    assert shapes[1]["places"][0] == {"path": "currency", "types": ["string"], "seen": 10, "always": True}


def test_a_field_that_went_and_one_of_another_type_are_reported(inbox: Clockwork) -> None:
    inbox.receive(*orders(30, coupon="x"))
    [first, *_] = inbox.receive(*[{"id": n, "total": "1.5", "note": "text"} for n in range(25)])
    assert set(inbox.look()) == {("retyped", "total", first), ("missing", "coupon", first)}
    kinds = {row["kind"]: (row["was"], row["became"]) for row in inbox.perform("drift")["drift"]}
    assert kinds == {"retyped": (["number"], ["string"]), "missing": (["string"], [])}


def test_a_line_is_a_metric_and_says_no_value(inbox: Clockwork) -> None:
    inbox.receive(*orders(25), *orders(1, currency="canary"))
    inbox.receive(*orders(25, token="canary"))
    inbox.look()
    name, fields = inbox.lines[0]
    assert (name, fields["metrics"], fields["source"], fields["type"]) == ("drift.found", {"drift": 1}, "shop", "order")
    assert "canary" not in str(inbox.lines)
    assert inbox.world.query("SELECT count(*) FROM postern.drift AS d WHERE d::text LIKE '%%canary%%'") == [(0,)]


def test_a_source_that_is_declared_no_more_makes_no_metric_of_its_own(inbox: Clockwork) -> None:
    inbox.receive(*orders(25), *orders(1, currency="EUR"))
    inbox.look(sources=lambda: {"other"})
    [(_, fields)] = inbox.lines
    assert (fields["source"], fields["undeclared_source"]) == ("unknown", "shop")


def test_what_is_younger_than_five_minutes_waits_so_that_a_late_row_is_not_missed(inbox: Clockwork) -> None:
    inbox.receive(*orders(25))
    inbox.look()
    inbox.time = now() - timedelta(minutes=2)
    inbox.receive(*orders(1))
    inbox.look()
    inbox.time -= timedelta(minutes=1)
    [late] = inbox.receive(*orders(1, currency="EUR"))
    assert inbox.look() == []
    assert inbox.look(now=lambda: now() + timedelta(minutes=10)) == [("new", "currency", late)]


def test_of_more_than_it_takes_the_newest_are_looked_at(inbox: Clockwork) -> None:
    inbox.receive(*orders(20, old=True), *orders(300))
    inbox.look()
    shape = inbox.perform("shape", source="shop", type="order")["shape"]
    assert shape["events"] == 300
    assert "old" not in [place["path"] for place in shape["places"]]
    inbox.receive(*orders(2))
    inbox.look()
    assert inbox.perform("shape", source="shop", type="order")["shape"]["events"] == 302


def test_ever_new_keys_are_one_path(inbox: Clockwork) -> None:
    names = [f"{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(200)]
    inbox.receive(*orders(25, stock={}))
    inbox.receive(*[{**order, "stock": {names[n]: 1}} for n, order in enumerate(orders(100))])
    assert inbox.look() == []
    paths = [place["path"] for place in inbox.perform("shape", source="shop", type="order")["shape"]["places"]]
    assert "stock.*" in paths
    assert len(paths) < 10
    inbox.receive(*[{**order, "stock": {names[100 + n]: 1}} for n, order in enumerate(orders(100))])
    assert inbox.look() == []


def test_hostile_payloads_are_looked_at_within_bounds(inbox: Clockwork) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = {"d": [deep]}
    inbox.receive(*orders(25))
    inbox.receive(
        {f"key{n}": {"x": [n] * 3} for n in range(10_000)},
        deep,
        b"[" + b"9" * 5_000 + b', 1e400, "\\u0000", {"\\u0000": {"a.b": null}}]',
        {"x" * 100_000: {"\u202e": "\x1b[2J"}, "": {"": 1}},
        b'"text"',
        "y" * 3_000_000,
    )
    found = inbox.look()
    assert len(found) < 20
    assert all(len(path) <= 200 for _, path, _ in found)
    assert len(inbox.perform("shape", source="shop", type="order")["shape"]["places"]) <= 1_000


def test_events_without_json_are_passed_over(inbox: Clockwork, world: World) -> None:
    [id] = inbox.receive(*orders(1))
    world.query("UPDATE postern.events SET payload = NULL")
    assert inbox.look() == []
    assert world.query("SELECT last_id::text FROM postern.shapes") == [(id,)]


def test_two_runs_at_once_count_each_event_once(inbox: Clockwork, world: World) -> None:
    inbox.receive(*orders(50), *orders(5, currency="EUR"))
    watches = [inbox.watch(shapes=Shapes(world.database())) for _ in range(4)]
    with ThreadPoolExecutor(4) as runs:
        done = list(runs.map(lambda watch: watch.look(), watches))
    assert (sum(each["drift_events"] for each in done), sum(each["drift_found"] for each in done)) == (55, 1)


def test_when_time_is_up_the_rest_comes_the_next_time(inbox: Clockwork) -> None:
    inbox.receive(*orders(25))
    clock = iter([0.0, 0.0, 100.0, *([100.0] * 1000)])
    assert inbox.watch(clock=lambda: next(clock)).look()["drift_events"] == 1
    assert inbox.watch().look()["drift_events"] == 24


class Refusing:
    """A kind whose shape the database will not keep."""

    def __init__(self, kind: KindOfEvents) -> None:
        self.shape, self.events = kind.shape, kind.events

    def keep(self, *_: Any) -> list[bool]:
        raise StatementFailed("refused", bad_data=True)


def test_a_type_that_cannot_be_kept_is_no_others_trouble(inbox: Clockwork) -> None:
    kind_of: Callable[..., Any] = inbox.shapes.kind

    class Shaky(Shapes):
        @contextmanager
        def kind(self, source: str, type: str) -> Iterator[Any]:
            with kind_of(source, type) as kind:
                yield Refusing(kind) if type == "a" else kind

    inbox.receive(*orders(25), type="a")
    inbox.receive(*orders(25), type="b")
    done = inbox.watch(shapes=Shaky(inbox.world.database())).look()
    assert (done["drift_types_refused"], done["drift_events"]) == (1, 25)


def test_what_is_accepted_is_known(inbox: Clockwork) -> None:
    inbox.receive(*orders(25), *orders(1, a=1, b=2, c=3))
    inbox.look()
    ids = {row["path"]: row["id"] for row in inbox.perform("drift")["drift"]}
    assert inbox.perform("accept_drift", ids=[ids["a"]]) == {"accepted": 1}
    assert inbox.perform("accept_drift", ids=[ids["a"]]) == {"accepted": 0}
    assert [row["path"] for row in inbox.perform("drift", state="open")["drift"]] == ["c", "b"]
    assert [row["path"] for row in inbox.perform("drift", state="accepted")["drift"]] == ["a"]
    assert inbox.perform("drift", before=ids["b"])["drift"][0]["path"] == "a"
    assert inbox.perform("accept_drift", source="other") == {"accepted": 0}
    assert inbox.perform("accept_drift", source="shop", type="order") == {"accepted": 2}


def test_a_type_that_comes_no_more_is_forgotten(inbox: Clockwork, world: World) -> None:
    inbox.receive(*orders(1))
    inbox.look()
    old = new_event_id(datetime.fromisoformat("2024-01-01T00:00:00+00:00"))
    world.query("UPDATE postern.shapes SET last_id = %s", str(old))
    world.query("UPDATE postern.events SET id = %s", str(UUID(int=old.int + 1)))
    inbox.look(now=lambda: now() + timedelta(days=3))
    assert inbox.look(now=lambda: now() + timedelta(days=3)) == []
    assert world.query("SELECT count(*) FROM postern.shapes") == [(0,)]


@pytest.fixture
def postern(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    from chalicelib.postern.running import wiring
    from cli.main import main

    monkeypatch.setenv("DATABASE_URL", world.url)
    # They would remember another test's environment.
    remembered = (wiring.config, wiring.database, wiring.operator)
    for built in remembered:
        built.cache_clear()

    def run(*arguments: str, code: int = 0) -> str:
        assert main(list(arguments)) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    yield run
    for built in remembered:
        built.cache_clear()


def test_the_command_lists_accepts_and_describes(inbox: Clockwork, postern: Callable[..., str]) -> None:
    assert (
        postern("drift") == "No drift. Each type is learned from its first 20 events; `--look` looks at new ones now.\n"
    )
    assert "Nothing is known of shop order yet" in postern("shape", "shop", "order", code=1)
    inbox.receive(*orders(25), *orders(1, **{"a\u202e\x1b\n": {}}), {"id": "1", "total": 1, "note": None})
    table = postern("drift", "--look")
    assert [line.split()[4] for line in table.splitlines()] == ["CHANGE", "number", "new"]
    assert "\u202e" not in table
    assert "\x1b" not in table
    found = json.loads(postern("drift", "--json"))
    assert [each["path"] for each in found] == ["id", '"a\u202e\\u001b\\n"']
    assert postern("drift", "--accept", str(found[0]["id"])) == "1 accepted.\n"
    assert postern("drift", "--source", "other", "--accept") == "0 accepted.\n"
    assert postern("drift", "--accept") == "1 accepted.\n"
    assert len(json.loads(postern("drift", "--all", "--json"))) == 2
    assert "There may be more: --before" in postern("drift", "--all", "--limit", "1")
    shape = postern("shape", "shop", "order")
    assert "From 27 events." in shape
    assert ["id", "number", "or", "string", "27"] in [line.split() for line in shape.splitlines()]


def test_a_large_database_is_asked_by_its_indexes(inbox: Clockwork, world: World) -> None:
    """From type to type, however many events there are of each."""
    for type in ("a", "b", "c"):
        inbox.receive(*orders(100), type=type)
    world.query(
        "INSERT INTO postern.events SELECT gen_random_uuid(), source, 'b', id::text || n, status, attempts, error,"
        " received_at, processed_at, headers, payload, body FROM postern.events CROSS JOIN generate_series(1, 60) AS n"
    )
    world.query("ANALYZE postern.events")
    values = {"now": now(), "most": 1000}
    with world.database().transaction() as session:
        query = "EXPLAIN (ANALYZE, FORMAT JSON) " + queries()["note_kinds"]
        [row] = session.execute(query, values)
    assert "Seq Scan" not in json.dumps(row), json.dumps(row, indent=1)[:6000]
