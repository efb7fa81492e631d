"""The stream has every event once, in the order in which they were written, whenever their transactions end."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import pytest

from chalicelib.postern.adapters.postgres import Database, queries
from chalicelib.postern.contract.errors import NotFound, StatementFailed, UnfitArguments
from chalicelib.postern.operating.operator import Operator
from chalicelib.postern.operating.stream import actions as stream
from chalicelib.postern.operating.stream.queries import Stream
from devstack.settings import PROJECT
from tests.integration.world import World, now, work
from tests.support import eventually

Ask = Callable[..., dict[str, Any]]

_WRITE = """
INSERT INTO postern.events (id, source, type, dedup_key, status, attempts, received_at, processed_at, headers, payload,
                            body, format)
SELECT (left(postern.uuid7_floor(now())::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid, %(source)s,
       'order', gen_random_uuid()::text, 'processed', 1, now(), now(), '{}', '{}', '{}', 'json'
FROM generate_series(1, %(number)s)
RETURNING id::text
"""


@pytest.fixture
def ask(world: World) -> Ask:
    operator = Operator(stream.views(Stream(world.database())), {})

    def asked(**arguments: Any) -> dict[str, Any]:
        return operator.perform({"action": "stream", **arguments})

    return asked


@contextmanager
def writing(world: World, number: int = 1, source: str = "shop") -> Iterator[list[str]]:
    """Events of a transaction that is open until the block ends."""
    connection = psycopg2.connect(world.url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(_WRITE, {"source": source, "number": number})
            yield [row[0] for row in cursor.fetchall()]
        connection.commit()
    finally:
        connection.close()


def write(world: World, number: int = 1, source: str = "shop") -> list[str]:
    with writing(world, number, source) as ids:
        return sorted(ids)


def ids_of(page: Mapping[str, Any]) -> list[str]:
    return [each["id"] for each in page["events"]]


def to_the_end(ask: Ask, **begin: Any) -> list[str]:
    """Every page, as one that consumes them asks; at most a hundred."""
    page = ask(**begin)
    found = ids_of(page)
    going_on = {name: value for name, value in begin.items() if name in ("source", "type", "limit", "bodies")}
    for _ in range(100):
        if not page["more"]:
            return found
        page = ask(**going_on, cursor=page["cursor"])
        found += ids_of(page)
    raise AssertionError("It has no end.")


def test_what_is_written_is_read_page_by_page_in_its_order(world: World, ask: Ask) -> None:
    ids = [*write(world, 3), *write(world, 4), *write(world, 3)]
    assert to_the_end(ask) == ids
    assert to_the_end(ask, limit=4) == ids
    assert to_the_end(ask, limit=1) == ids
    page = ask(limit=10)
    assert ids_of(ask(cursor=page["events"][6]["cursor"])) == ids[7:]
    assert (ids_of(ask(cursor=page["cursor"])), ask(cursor=page["cursor"])["cursor"]) == ([], page["cursor"])


def test_what_commits_late_is_waited_for_and_not_stepped_over(world: World, ask: Ask) -> None:
    place = ask(cursor="now")["cursor"]
    with writing(world) as late:
        early = write(world, 2)
        held = ask(cursor=place)
        assert (ids_of(held), held["held"], held["more"]) == ([], True, False)
    found = ask(cursor=held["cursor"])
    assert (ids_of(found), found["held"]) == ([*late, *early], False)


def test_what_is_taken_back_holds_nothing_up(world: World, ask: Ask) -> None:
    class TakenBack(Exception):
        pass

    place = ask(cursor="now")["cursor"]
    with pytest.raises(TakenBack), writing(world):
        early = write(world)
        raise TakenBack
    assert ids_of(ask(cursor=place)) == early


def test_now_begins_with_what_is_written_from_now_on_however_old_it_is(world: World, ask: Ask) -> None:
    write(world, 3)
    with writing(world) as under_way:
        place = ask(cursor="now")["cursor"]
    old = work(received_at=now() - timedelta(days=2), id=UUID("01900000-0000-7000-8000-000000000000"))
    world.processor().process([old])
    assert ids_of(ask(cursor=place)) == [*under_way, str(old.event.id)]


def test_since_a_time_and_from_an_event_on(world: World, ask: Ask) -> None:
    old = work(received_at=now() - timedelta(hours=3), id=UUID(int=_milliseconds(hours=3) << 80 | 7 << 76 | 2 << 62))
    world.processor().process([old])
    first, second = write(world), write(world, 2)
    since = (now() - timedelta(hours=1)).isoformat()
    assert to_the_end(ask, since=since) == [*first, *second]
    assert to_the_end(ask, since=since, limit=1) == [*first, *second]
    assert to_the_end(ask, first=second[0]) == second
    assert to_the_end(ask, first=str(old.event.id)) == [str(old.event.id), *first, *second]


def _milliseconds(**ago: float) -> int:
    return int((now() - timedelta(**ago)).timestamp() * 1000)


def test_who_began_with_a_time_gets_what_is_written_later_however_old_it_is(world: World, ask: Ask) -> None:
    """It lay in the queue, or among the dead letters."""
    known = write(world)
    page = ask(since=(now() - timedelta(hours=1)).isoformat())
    old = work(received_at=now() - timedelta(hours=3), id=UUID(int=_milliseconds(hours=3) << 80 | 7 << 76 | 2 << 62))
    world.processor().process([old])
    assert [*ids_of(page), *to_the_end(ask, cursor=page["cursor"])] == [*known, str(old.event.id)]


def test_a_cursor_that_this_server_has_not_come_to_is_refused(world: World, ask: Ask) -> None:
    server, _, rest = ask()["cursor"].partition(".")
    ahead = f"{server}.{'9' * 19}.{rest.partition('.')[2]}"
    with pytest.raises(UnfitArguments, match="another server's"):
        ask(cursor=ahead)


def test_headers_count_as_well_towards_what_fits(world: World, ask: Ask) -> None:
    large: dict[str, str | list[str]] = {f"x-{n}": 'é"' * 2_000 for n in range(50)}
    for _ in range(5):
        world.processor().process([work(headers=large)])
    assert len(ask(bodies=True)["events"]) < 5
    assert len(to_the_end(ask, bodies=True)) == 5


def test_history_that_is_shorter_than_what_is_asked_for_is_said(world: World, ask: Ask) -> None:
    assert ask(since=(now() - timedelta(hours=1)).isoformat())["kept_since"] is None
    kept = ask(since=(now() - timedelta(days=400)).isoformat())["kept_since"]
    assert kept is not None and kept[:10] <= now().date().isoformat()


def test_what_was_written_before_there_was_an_order_comes_first_in_that_of_receipt(world: World, ask: Ask) -> None:
    old = write(world, 5)
    world.query("UPDATE postern.events SET written_in = '0'")
    new = write(world, 3)
    assert to_the_end(ask) == [*old, *new]
    assert to_the_end(ask, limit=2) == [*old, *new]
    assert to_the_end(ask, first=old[3]) == [*old[3:], *new]


def test_one_source_and_types_that_begin_so_are_found_among_very_many(world: World, ask: Ask) -> None:
    write(world, 2_500, "noise")
    wanted = write(world)
    write(world, 2_500, "noise")
    assert to_the_end(ask, source="shop") == wanted
    assert to_the_end(ask, type="ord*", source="shop", limit=1) == wanted
    assert to_the_end(ask, type="refund") == []
    first = ask(source="shop")
    assert (first["events"], first["more"]) == ([], True), "one answer looks through so many and no more"


def test_an_event_stays_where_it_was_first_written(world: World, ask: Ask) -> None:
    ids = [*write(world), *write(world)]
    before = world.query("SELECT id::text, written_in::text FROM postern.events ORDER BY id")
    world.query(
        "UPDATE postern.events SET status = 'dead', error = 'E: x', attempts = 2, processed_at = NULL WHERE id = %s",
        ids[0],
    )
    assert [(each["id"], each["status"]) for each in ask()["events"]] == [(ids[0], "dead"), (ids[1], "processed")]
    # Out of a partition and back, as maintenance moves them.
    day = now().strftime("%Y%m%d")
    world.query("SELECT postern.retire_partition('events', %s, ARRAY[%s]::uuid[], false)", f"events_{day}", ids[0])
    world.query("SELECT postern.make_partition('events', %s::date)", now().date())
    assert world.query("SELECT id::text, written_in::text FROM postern.events ORDER BY id") == before[:1]


def test_bodies_come_with_them_as_many_as_fit_into_an_answer(world: World, ask: Ask) -> None:
    sizes = [1_400_000, 1_400_000, 1_400_000, 3_100_000, 10]
    for size in sizes:
        world.processor().process([work(body=b"x" * size, format="bytes")])
    pages = [ask(bodies=True)]
    while pages[-1]["more"]:
        pages.append(ask(bodies=True, cursor=pages[-1]["cursor"]))
    found = [each for page in pages for each in page["events"]]
    assert [each["bytes"] for each in found] == sizes
    assert [each["body"] is None for each in found] == [False, False, False, True, False]
    assert [len(page["events"]) for page in pages] == [2, 3]
    assert found[0]["headers"] == {"content-type": "application/json"}
    assert "body" not in ask()["events"][0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"cursor": "yesterday"}, "none that this API gave out"),
        ({"cursor": "1.x."}, "none that this API gave out"),
        ({"cursor": f"1.{'-' * 36}"}, "none that this API gave out"),
        ({"cursor": f"1.700.{UUID(int=0)}"}, "another server's"),
        ({"cursor": "now", "since": "2026-01-01T00:00:00Z"}, "said once"),
        ({"since": "soon"}, "Not a valid"),
        ({"limit": 0}, "Must be"),
    ],
)
def test_what_it_does_not_understand_is_a_sentence(ask: Ask, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UnfitArguments, match=said):
        ask(**arguments)


def test_an_event_that_there_is_not_is_no_place_to_begin(ask: Ask) -> None:
    with pytest.raises(NotFound, match="There is no event"):
        ask(first=str(uuid4()))


def test_events_of_another_servers_transactions_are_not_silently_left_out(world: World, ask: Ask) -> None:
    """A dump that is restored has the numbers of the server that it was made of."""
    write(world)
    world.query("UPDATE postern.events SET written_in = '99999999999'")
    with pytest.raises(UnfitArguments, match=r"restored.*docs/stream\.md"):
        ask()
    remedy = (PROJECT / "docs" / "stream.md").read_text().partition("```sql\n")[2].partition("```")[0]
    world.query(remedy)
    assert len(to_the_end(ask)) == 1


def test_it_finds_its_place_by_an_index_in_each_day(world: World) -> None:
    for analyzed in (False, True):
        write(world, 20_000)
        if analyzed:
            world.query("ANALYZE postern.events")
        asked = {"written_in": "700", "id": str(UUID(int=0)), "floor": None, "begun": None, "limit": 100}
        asked["bodies"] = False
        with world.database().transaction() as session:
            plan = session.execute("EXPLAIN " + queries()["scan_stream"], asked)
        text = "\n".join(line for row in plan for line in row.values())
        assert "Sort" not in text.replace("Sort Key", ""), text
        assert "written_in_id_idx" in text, text


def test_a_reader_that_may_write_nothing_may_read_it(world: World) -> None:
    write(world)
    database = Database(lambda fresh: world.url, read_only=True)
    world.open.append(database)
    assert len(Operator(stream.views(Stream(database)), {}).perform({"action": "stream"})["events"]) == 1
    with pytest.raises(StatementFailed):
        database.run("delete_events", before=now(), settled_before=now(), unresolved_before=now(), limit=1)


def test_fifty_thousand_events_of_eight_writers_are_all_heard_in_order_by_one_that_is_killed_twenty_times(
    world: World, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(27)
    heard, said = tmp_path / "heard", tmp_path / "said"
    listen = [sys.executable, "-m", "cli", "listen", "--since", "1d", "--cursor", "laptop", "--json"]
    environ = {**os.environ, "DATABASE_URL": world.url, "POSTERN_STATE_DIR": str(tmp_path)}

    def start() -> subprocess.Popen[bytes]:
        with heard.open("ab") as out, said.open("ab") as err:
            process = subprocess.Popen(listen, cwd=PROJECT, env=environ, stdout=out, stderr=err)
        request.addfinalizer(process.kill)  # of one that has ended it does nothing
        return process

    def write_some(seed: int) -> None:
        mine = random.Random(seed)
        connection = psycopg2.connect(world.url)
        left = 6_250
        while left:
            number = min(left, mine.randint(1, 100))
            with connection.cursor() as cursor:
                cursor.execute(_WRITE, {"source": "shop", "number": number})
            time.sleep(mine.random() * 0.2)
            if mine.random() < 0.1:
                connection.rollback()
            else:
                connection.commit()
                left -= number
        connection.close()

    with ThreadPoolExecutor(8) as writers:
        at_work = [writers.submit(write_some, seed) for seed in range(8)]
        for _ in range(20):
            before = heard.stat().st_size if heard.exists() else 0
            listener = start()
            eventually(lambda before=before: heard.stat().st_size > before, timeout=60)
            time.sleep(chance.random() * 0.2)
            listener.send_signal(signal.SIGKILL)
            listener.wait()
        for each in at_work:
            each.result()
    write(world)  # for the last one to hear something that is new
    listener = start()
    written = [id for (id,) in world.query("SELECT id::text FROM postern.events ORDER BY written_in, id")]
    assert len(written) == 50_001
    eventually(lambda: written[-1].encode() in heard.read_bytes()[-1_000:], timeout=150)
    listener.send_signal(signal.SIGINT)
    assert listener.wait(20) == 130
    # Whole lines: of one that was being written when its process was killed, the next one has the event again.
    ids = re.findall(r'\{"id": "([0-9a-f-]{36})"[^{}]*\}', heard.read_text())
    assert list(dict.fromkeys(ids)) == written
    assert len(ids) - len(written) <= 20, "at most the one that it was at, each time"
