"""What was taken for a repetition can be listed, says why, and is let through at a person's word; and what arrived is
found by the provider's own id.
"""

from __future__ import annotations

import hmac
import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest

from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.contract.errors import UnknownAction
from chalicelib.postern.operating.duplicates import actions as duplicates
from chalicelib.postern.operating.duplicates.queries import Duplicates
from chalicelib.postern.operating.ledger import actions as ledger
from chalicelib.postern.operating.ledger.queries import Ledger
from chalicelib.postern.operating.operator import Operator
from chalicelib.postern.processing.settling import Kind
from tests import commands
from tests.integration.pipe import SECRET, Pipe
from tests.integration.test_from_delivery_to_row import body, rejected
from tests.integration.world import World, now

SOURCES = """
[shop]
provider = "hmac"
dedup = "header:X-Id"
type = "header:X-Topic"

[pairs]
provider = "hmac"
dedup = ["header:X-Id", "body:kind"]
"""


@pytest.fixture
def pipe(world: World, tmp_path: Path) -> Pipe:
    return Pipe.with_sources(world, tmp_path, SOURCES)


@pytest.fixture
def operator(world: World, pipe: Pipe) -> Operator:
    class Queue:
        def send(self, message: str, *, group: str, trace: str | None = None) -> None:
            pipe.messages.append(message)

    repetitions = Duplicates(world.database())
    book = Ledger(world.database())
    return Operator(
        {**duplicates.views(repetitions), **duplicates.actions(repetitions, Queue), **ledger.views(book, now)}, {}
    )


def postern(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DATABASE_URL": world.url, "COLUMNS": "250"}
    return commands.postern(*arguments, environ=environ)


def repeated(pipe: Pipe) -> tuple[str, str]:
    """The ids of an event, and of what came under its id with other bytes and another topic."""
    first = pipe.deliver("shop", body(n=1), X_Id="evt_123", X_Topic="member.added")
    again = pipe.deliver("shop", body(n=2), X_Id="evt_123", X_Topic="member.removed")
    assert pipe.process() == [Kind.PROCESSED, Kind.DUPLICATE]
    return str(first.id), str(again.id)


def test_it_is_listed_with_its_own_topic_and_why(pipe: Pipe, world: World) -> None:
    _, again = repeated(pipe)
    listed = postern(world, "duplicates")
    assert listed.returncode == 0, listed.stderr
    [line] = [line for line in listed.stdout.splitlines() if again in line]
    assert "member.removed" in line
    assert "same id, other bytes" in line
    shown = postern(world, "show", again).stdout
    assert shown.startswith(f"{again} was taken for a repetition:\n")
    assert "member.removed" in shown
    assert f"postern duplicates accept {again}" in shown
    assert "OTHER BYTES" in postern(world, "status").stdout
    for options in (["--why", "same_bytes"], ["--source", "pairs"]):
        assert "Nothing was taken" in postern(world, "duplicates", *options).stdout


def test_what_is_let_through_is_an_event_of_its_own_once(pipe: Pipe, world: World, operator: Operator) -> None:
    first, again = repeated(pipe)
    for _ in range(2):
        assert operator.perform({"action": "accept_duplicate", "id": again}) == {"accepted": True, "event_id": again}
    assert pipe.process() == [Kind.PROCESSED] * 2  # two copies of one message
    assert operator.perform({"action": "accept_duplicate", "id": again})["accepted"] is False
    assert pipe.rows("id::text, type, dedup_key, payload ->> 'n'") == [
        (first, "member.added", "evt_123", "1"),
        (again, "member.removed", "evt_123", "2"),
    ]
    assert world.effects() == 2
    pipe.deliver("shop", body(n=1), X_Id="evt_123", X_Topic="member.added")
    assert pipe.process() == [Kind.DUPLICATE]  # its key is held as before
    [row] = [
        row for row in json.loads(postern(world, "duplicates", "--json").stdout)["duplicates"] if row["id"] == again
    ]
    assert row["accepted_at"]


def test_one_with_the_events_own_bytes_takes_them_from_it(pipe: Pipe, world: World, operator: Operator) -> None:
    for _ in range(2):
        pipe.deliver("github", body(n=1), X_GitHub_Delivery="g1", X_Hub_Signature_256=_signed(body(n=1)))
    pipe.process()
    [(again,)] = world.query("SELECT id::text FROM postern.duplicates")
    operator.perform({"action": "accept_duplicate", "id": again})
    assert pipe.process() == [Kind.PROCESSED]
    assert [bytes(kept) for kept in pipe.rows("body")] == [body(n=1)] * 2
    world.query("DELETE FROM postern.events")
    world.query("UPDATE postern.duplicates SET accepted_at = NULL")
    with pytest.raises(UnknownAction, match="no longer stored"):
        operator.perform({"action": "accept_duplicate", "id": again})


def _signed(content: bytes) -> str:
    return "sha256=" + hmac.digest(SECRET.encode(), content, "sha256").hex()


def test_one_of_before_that_was_not_kept_is_refused_in_a_sentence(pipe: Pipe, world: World, operator: Operator) -> None:
    _, again = repeated(pipe)
    world.query("UPDATE postern.duplicates SET why = NULL, type = NULL, headers = NULL")
    with pytest.raises(UnknownAction, match="nothing is left of it"):
        operator.perform({"action": "accept_duplicate", "id": again})
    assert "not kept" in postern(world, "duplicates").stdout
    assert postern(world, "show", again).returncode == 0


def test_the_ledger_still_balances(pipe: Pipe, world: World, operator: Operator) -> None:
    """It was accepted once, and counted as a repetition."""
    _, again = repeated(pipe)
    operator.perform({"action": "accept_duplicate", "id": again})
    pipe.process()
    at = now().replace(second=0, microsecond=0)
    book = Ledger(world.database())
    book.enter(at - timedelta(minutes=1), at + timedelta(minutes=3), {("shop", at): 2})
    [row] = world.query("SELECT sum(accepted), sum(stored), sum(duplicates) FROM postern.ledger WHERE source = 'shop'")
    assert row == (2, 1, 1)


# Find it by the provider's id


def test_an_event_is_shown_by_its_providers_id(pipe: Pipe, world: World) -> None:
    first, _ = repeated(pipe)
    shown = postern(world, "show", "evt_123")
    assert shown.returncode == 0, shown.stderr
    assert first in shown.stdout
    assert json.loads(postern(world, "show", "evt_123", "--json").stdout)["id"] == first
    assert first in postern(world, "events", "--key", "evt_123").stdout
    assert "No events" in postern(world, "events", "--key", "evt_12").stdout


def test_by_one_that_looks_like_ours_as_well(pipe: Pipe, world: World) -> None:
    guid = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    pipe.deliver("shop", body(n=1), X_Id=guid)
    pipe.process()
    assert f"dedup key  {guid}" in postern(world, "show", guid).stdout


def test_by_the_id_alone_where_the_identity_has_more_parts(pipe: Pipe, world: World) -> None:
    for kind in ("a", "b"):
        pipe.deliver("pairs", body(kind=kind), X_Id="evt_9")
    pipe.process()
    shown = postern(world, "show", "evt_9")
    assert (shown.returncode, shown.stdout.startswith("2 events:")) == (0, True)
    assert len(json.loads(postern(world, "events", "--key", "evt_9", "--json").stdout)) == 2
    assert len(json.loads(postern(world, "events", "--key", "evt_9:a", "--json").stdout)) == 1


def test_what_was_refused_and_what_is_gone_is_found_too(pipe: Pipe, world: World) -> None:
    EventStore(world.database()).keep([rejected(body=b'{"id": "evt_refused"}'), rejected(headers={"x-id": "evt_head"})])
    for key in ("evt_refused", "evt_head"):
        found = postern(world, "show", key)
        assert (found.returncode, "signature_mismatch" in found.stdout) == (1, True), found
    repeated(pipe)
    world.query("DELETE FROM postern.events")
    world.query("DELETE FROM postern.duplicates")
    assert "no longer stored" in postern(world, "show", "evt_123").stdout
    nothing = postern(world, "show", "evt_never")
    assert (nothing.returncode, "Nothing is known of 'evt_never'" in nothing.stderr) == (1, True)


def test_it_is_found_by_an_index(world: World) -> None:
    """Tables that are empty are read whole whatever indexes they have, unless that is forbidden."""
    plan = world.query(
        "SET enable_seqscan = off; EXPLAIN SELECT id FROM postern.events WHERE dedup_key COLLATE \"C\" = 'evt'"
        " OR dedup_key COLLATE \"C\" >= 'evt:' AND dedup_key COLLATE \"C\" < 'evt;'"
    )
    assert "Seq Scan" not in "\n".join(line for (line,) in plan)
