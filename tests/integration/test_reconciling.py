"""What a provider sent and nobody has: found, fetched once, and never counted twice."""

from __future__ import annotations

import hmac
import itertools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus
from uuid import uuid4

import pytest

from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.adapters.provider_api import ProviderApi
from chalicelib.postern.contract.deliveries import Headers, new_event_id
from chalicelib.postern.contract.envelope import Rejected
from chalicelib.postern.contract.errors import Conflict, QueueUnavailable, SecretUnavailable
from chalicelib.postern.contract.histories import Answer
from chalicelib.postern.operating.operator import Operator
from chalicelib.postern.operating.reconciling import actions
from chalicelib.postern.operating.reconciling.queries import Reconciliations
from chalicelib.postern.receiving.reconciling import DatabaseAway, Reconciler, Step
from tests.integration.pipe import Pipe
from tests.integration.world import World, now
from tests.providers_stand_in import ENDPOINT, HOOK, Providers

SECRET = "It's a Secret to Everybody"
SOURCES = """
[code]
provider = "github"
reconcile = {{ url = "{url}{hook}", hourly = true }}

[money]
provider = "stripe"
reconcile = {{ url = "{url}{endpoint}" }}

[silent]
provider = "github"
"""


@pytest.fixture
def providers() -> Iterator[Providers]:
    with Providers().running() as made:
        yield made


@dataclass
class Desk:
    """Somebody who reconciles, and what they have."""

    providers: Providers
    pipe: Pipe
    operator: Operator
    secrets: dict[str, list[str]]
    lines: list[dict[str, Any]] = field(default_factory=list)

    def log(
        self, name: str, /, *, failed: bool = False, metrics: Mapping[str, float] | None = None, **fields: Any
    ) -> None:
        self.lines.append({"name": name, "level": "ERROR" if failed else "INFO", **fields, **(metrics or {})})

    def reconciler(self, **changes: Any) -> Reconciler:
        inbox = replace(self.pipe.inbox, secrets_of=self.secrets_of)
        return replace(Reconciler(inbox, ProviderApi(), self.operator.perform, now, self.log), **changes)

    def secrets_of(self, name: str) -> list[str]:
        if name not in self.secrets:
            raise SecretUnavailable("secret_missing")
        return self.secrets[name]

    def reconcile(
        self, source: str = "code", since: datetime | None = None, *, plan: bool = False
    ) -> Mapping[str, Any]:
        by = self.reconciler()
        run = by.begin(source, since, only_looks=plan)
        while run["state"] in ("listing", "fetching"):
            step = by.step(run)
            assert step.held is None
            run = step.run
        return run

    def gaps(self, run: Mapping[str, Any]) -> dict[str, str]:
        found = self.operator.perform({"action": "gaps", "id": run["id"], "limit": 1000})["gaps"]
        return {gap["key"]: f"{gap['kind']}, {gap['state']}" for gap in found}

    def arrives(self, guid: str) -> None:
        """It is sent as it was, and processed."""
        sent = next(each for each in self.providers.deliveries if each["guid"] == guid)
        headers = {name.replace("-", "_"): value for name, value in sent["request"]["headers"].items()}
        self.pipe.inbox = replace(self.pipe.inbox, secrets_of=self.secrets_of)
        self.pipe.deliver("code", sent["request"]["payload"].encode(), **headers)
        self.pipe.process()


@pytest.fixture
def desk(world: World, tmp_path: Path, providers: Providers) -> Desk:
    text = SOURCES.format(url=providers.url, hook=HOOK, endpoint=ENDPOINT)
    book = Reconciliations(world.database())
    operator = Operator(actions={**actions.views(book), **actions.actions(book, now, 180)}, duties={})
    secrets = {name: [SECRET] for name in ("code", "money", "silent")}
    secrets |= {f"{name}.api_token": [providers.token] for name in ("code", "money")}
    return Desk(providers, Pipe.with_sources(world, tmp_path, text), operator, secrets)


def minutes_ago(number: float) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=number)


def sent(desk: Desk, n: int = 1, at: datetime | None = None, **changes: Any) -> str:
    guid = str(uuid4())
    body = json.dumps({"n": n, "message": "Grüße an <alle> & jeden"}, separators=(",", ":"), ensure_ascii=False)
    body = body.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")  # as Rails writes it
    desk.providers.deliver(guid, body.encode(), at or minutes_ago(60), SECRET, **changes)
    return guid


def test_what_never_arrived_is_fetched_with_its_very_bytes_and_signature_and_says_where_it_is_from(desk: Desk) -> None:
    here, lost = sent(desk, 1), sent(desk, 2)
    desk.arrives(here)
    run = desk.reconcile()
    assert (run["state"], run["listed"], run["missing"], run["fetched"]) == ("done", 2, 1, 1)
    assert desk.gaps(run) == {lost: "missing, fetched"}
    desk.pipe.process()
    assert desk.pipe.rows("dedup_key, origin, status") == [(here, None, "processed"), (lost, "reconciled", "processed")]
    [body] = desk.pipe.world.query("SELECT body FROM postern.events WHERE origin = 'reconciled'")
    assert bytes(body[0]) == desk.providers.deliveries[1]["request"]["payload"].encode()
    [secret] = desk.pipe.world.query("SELECT secret FROM postern.events WHERE origin = 'reconciled'")
    assert secret[0] is not None  # it was verified


def test_a_second_run_finds_nothing_even_while_what_was_fetched_is_in_the_queue(desk: Desk) -> None:
    sent(desk)
    assert desk.reconcile()["fetched"] == 1
    again = desk.reconcile()
    assert (again["state"], again["missing"], again["fetched"]) == ("done", 0, 0)
    desk.pipe.process()
    assert desk.reconcile()["missing"] == 0
    assert len(desk.pipe.rows("id")) == 1


def test_a_plan_shows_the_gaps_and_fetches_nothing(desk: Desk) -> None:
    lost = sent(desk)
    run = desk.reconcile(plan=True)
    assert (run["state"], run["missing"], run["fetched"]) == ("done", 1, 0)
    assert desk.gaps(run) == {lost: "missing, open"}
    assert desk.pipe.messages == []
    assert not any(path.startswith(f"{HOOK}/") for path in desk.providers.asked)
    assert desk.reconcile()["fetched"] == 1


def test_what_was_tried_several_times_is_one_event(desk: Desk) -> None:
    guid = sent(desk, at=minutes_ago(50), status_code=502, status="failed to connect")
    for minute in (40, 30):
        body = desk.providers.deliveries[0]["request"]["payload"].encode()
        desk.providers.deliver(guid, body, minutes_ago(minute), SECRET, redelivery=True)
    run = desk.reconcile()
    assert (run["listed"], run["missing"], run["fetched"]) == (3, 1, 1)
    assert len(desk.pipe.messages) == 1


def test_what_was_refused_is_found_by_its_id_fetched_and_noted_as_what_it_became(desk: Desk) -> None:
    guid = sent(desk)
    headers = {"x-github-delivery": guid, "x-github-event": "push"}
    kept = Rejected(new_event_id(now()), "code", now(), "signature_mismatch", "POST", "", [], headers, b"{}")
    EventStore(desk.pipe.world.database()).keep([kept])
    run = desk.reconcile()
    assert (run["missing"], run["refused"], run["fetched"]) == (0, 1, 1)
    assert desk.gaps(run) == {guid: "refused, fetched"}
    desk.pipe.process()
    [event] = desk.pipe.rows("id")
    found = desk.pipe.world.query("SELECT event_id, note FROM postern.rejected")
    assert found == [(event, "fetched from its provider's history")]


def test_what_was_refused_and_not_kept_is_refused_by_the_provider_s_word(desk: Desk) -> None:
    guid = sent(desk, status="Invalid HTTP Response: 401", status_code=401)
    assert desk.gaps(desk.reconcile()) == {guid: "refused, fetched"}


def test_of_ten_thousand_those_that_are_missing_are_found_and_fetched_once(desk: Desk) -> None:
    guids = [sent(desk, n, at=minutes_ago(10 + n / 4), status_code=401 if n % 500 == 0 else 200) for n in range(10_000)]
    refused = set(guids[::500])
    withheld = set(random.Random(1).sample(sorted({*guids} - refused), 137))
    arrived = [guid for guid in guids if guid not in refused | withheld]
    desk.pipe.world.query(
        "INSERT INTO postern.dedup_keys (source, key, event_id, claimed_at)"
        " SELECT 'code', key, gen_random_uuid(), now() FROM unnest(%s) AS known (key)",
        arrived,
    )
    run = desk.reconcile()
    assert (run["listed"], run["missing"], run["refused"], run["fetched"]) == (10_000, 137, 20, 157)
    assert desk.gaps(run) == dict.fromkeys(refused, "refused, fetched") | dict.fromkeys(withheld, "missing, fetched")
    desk.pipe.process()
    assert {*desk.pipe.rows("dedup_key")} == refused | withheld
    again = desk.reconcile()
    assert (again["listed"], again["missing"], again["refused"], again["fetched"]) == (10_000, 0, 0, 0)
    assert desk.pipe.world.effects() == 157


def test_what_is_dead_is_shown_and_not_fetched_for_it_is_here(desk: Desk) -> None:
    guid = sent(desk)
    desk.arrives(guid)
    desk.pipe.world.query("UPDATE postern.events SET status = 'dead', processed_at = NULL, error = 'no'")
    run = desk.reconcile()
    assert (run["state"], run["dead"], run["missing"], run["fetched"]) == ("done", 1, 0, 0)
    assert desk.gaps(run) == {guid: "dead, open"}
    assert desk.pipe.messages == []


def test_bytes_that_no_writing_gives_again_are_taken_from_the_provider_s_word_and_it_is_said(desk: Desk) -> None:
    guid = str(uuid4())
    body = b'{ "n" : 1 }'  # nobody writes it so
    desk.providers.deliver(guid, body, minutes_ago(60), SECRET)
    desk.providers.deliveries[0]["request"]["payload"] = '{"n":1}'
    run = desk.reconcile()
    [gap] = desk.operator.perform({"action": "gaps", "id": run["id"]})["gaps"]
    assert (gap["state"], gap["note"]) == ("fetched", "its bytes as the provider's API writes them")
    desk.pipe.process()
    assert desk.pipe.rows("dedup_key, payload, secret, origin") == [(guid, {"n": 1}, None, "reconciled")]


@pytest.mark.parametrize(
    "payload",
    [
        '{"price":0.10,"n":12345678901234567890,"e":1e5}',
        '{"text":"\\u2028 and \\u003ca\\u003e"}',
        '{"emoji":"\\ud83d\\ude00"}',
        '{"emoji":"😀","quote":"\\"","tab":"\\t"}',
        '{"empty":{},"none":null,"list":[]}',
    ],
)
def test_bytes_are_written_again_as_they_were_signed(desk: Desk, payload: str) -> None:
    desk.providers.deliver("a-guid", payload.encode(), minutes_ago(60), SECRET)
    run = desk.reconcile()
    [gap] = desk.operator.perform({"action": "gaps", "id": run["id"]})["gaps"]
    assert (gap["state"], gap["note"]) == ("fetched", None)
    desk.pipe.process()
    assert [bytes(body) for body in desk.pipe.rows("body")] == [payload.encode()]


def test_a_form_is_written_again_as_one(desk: Desk) -> None:
    payload = '{"n":1,"message":"a b&c"}'
    body = f"payload={quote_plus(payload)}".encode()
    desk.providers.deliver("a-guid", payload.encode(), minutes_ago(60), SECRET)
    headers = desk.providers.deliveries[0]["request"]["headers"]
    headers["Content-Type"] = "application/x-www-form-urlencoded"
    headers["X-Hub-Signature-256"] = "sha256=" + hmac.digest(SECRET.encode(), body, "sha256").hex()
    desk.reconcile()
    desk.pipe.process()
    assert [bytes(found) for found in desk.pipe.rows("body")] == [body]
    assert desk.pipe.rows("payload") == [{"n": 1, "message": "a b&c"}]


def test_what_came_meanwhile_is_not_fetched(desk: Desk) -> None:
    lost, late = sent(desk, 1), sent(desk, 2)
    by = desk.reconciler()
    run = by.step(by.begin("code", None, only_looks=False)).run
    assert (run["state"], run["missing"]) == ("fetching", 2)
    desk.arrives(late)
    while run["state"] == "fetching":
        run = by.step(run).run
    assert (run["fetched"], run["arrived"]) == (1, 1)
    assert desk.gaps(run) == {lost: "missing, fetched", late: "missing, arrived"}


def test_what_was_sent_this_moment_is_under_way_and_no_gap_by_the_provider_s_clock(desk: Desk) -> None:
    desk.providers.skew = timedelta(minutes=20)  # it is ahead of us
    sent(desk, 1, at=desk.providers.now() - timedelta(minutes=1))
    lost = sent(desk, 2, at=desk.providers.now() - timedelta(minutes=3))
    run = desk.reconcile()
    assert (run["listed"], desk.gaps(run)) == (1, {lost: "missing, fetched"})


def test_pages_are_followed_to_the_time_that_was_asked_for_and_no_further(desk: Desk) -> None:
    for n in range(450):
        sent(desk, n, at=minutes_ago(10 + n))
    run = desk.reconcile(since=minutes_ago(10 + 250), plan=True)
    assert (run["state"], run["listed"], run["missing"]) == ("done", 250, 250)
    assert len(desk.providers.asked) == 3


def test_whoever_comes_next_goes_on_where_the_last_one_ended(desk: Desk) -> None:
    for n in range(250):
        sent(desk, n, at=minutes_ago(10 + n))
    first = desk.reconciler()
    run = first.step(first.begin("code", None, only_looks=False)).run  # and then it is ended
    assert (run["state"], run["listed"]) == ("listing", 100)
    second = desk.reconciler()
    again = second.begin("code", None, only_looks=False)
    assert again["id"] == run["id"]
    done = desk.reconcile()
    assert (done["id"], done["state"], done["listed"], done["fetched"]) == (run["id"], "done", 250, 250)
    listings = [path for path in desk.providers.asked if path.startswith(f"{HOOK}?")]
    assert len(listings) == len(set(listings)) == 3


def test_two_at_once_note_each_page_and_count_each_gap_once(desk: Desk) -> None:
    for n in range(150):
        sent(desk, n, at=minutes_ago(10 + n))
    by = desk.reconciler()
    run = by.begin("code", None, only_looks=False)
    by.step(run)
    late = by.step(run).run  # who asked for the same page
    assert (late["listed"], late["missing"]) == (100, 100)
    run = desk.reconcile()
    assert (run["listed"], run["missing"], run["fetched"]) == (150, 150, 150)


def test_the_oldest_are_fetched_first(desk: Desk) -> None:
    newer, older = sent(desk, 1, at=minutes_ago(10)), sent(desk, 2, at=minutes_ago(20))
    desk.reconcile()
    desk.pipe.process()
    assert desk.pipe.rows("dedup_key") == [older, newer]


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "17"}, 17.0),
        (403, {"Retry-After": "60"}, 60.0),
        (503, {"Retry-After": "5"}, 5.0),
        (429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 1.0),
        (429, {"Retry-After": "999999999"}, 3_700.0),
        (429, {}, 60.0),
        (429, {"X-RateLimit-Remaining": "17", "X-RateLimit-Reset": "99999999999"}, 60.0),
        (500, {}, None),
        (502, {}, None),
    ],
)
def test_a_provider_that_wants_to_be_left_alone_is(
    desk: Desk, status: int, headers: dict[str, str], seconds: float | None
) -> None:
    sent(desk)
    by = desk.reconciler()
    run = by.begin("code", None, only_looks=False)
    desk.providers.instead = [(status, headers)]
    held = by.step(run)
    assert held.held is not None and held.held.startswith("The provider is not to be had now: ")
    assert held.seconds == seconds
    assert "canary" not in held.held
    assert desk.reconcile()["fetched"] == 1


def test_github_s_secondary_limit_is_no_refused_token(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    said = '{"message": "You have exceeded a secondary rate limit. Please wait a few minutes."}'
    monkeypatch.setattr(desk.providers, "answer", lambda *asked: (403, {"X-RateLimit-Remaining": "4000"}, said))
    by = desk.reconciler()
    step = by.step(by.begin("code", None, only_looks=False))
    assert (step.run["state"], step.seconds) == ("listing", 60.0)


def test_a_rate_limit_is_waited_for_by_the_provider_s_clock(desk: Desk) -> None:
    desk.providers.skew = timedelta(hours=5)
    reset = int((desk.providers.now() + timedelta(seconds=90)).timestamp())
    desk.providers.instead = [(403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)})]
    by = desk.reconciler()
    held = by.step(by.begin("code", None, only_looks=False))
    assert held.seconds is not None and 85 <= held.seconds <= 95


def test_what_was_fetched_before_the_provider_had_enough_is_not_fetched_again(desk: Desk) -> None:
    for n in range(5):
        sent(desk, n)
    by = desk.reconciler()
    run = by.step(by.begin("code", None, only_looks=False)).run
    left = 3

    def tire(path: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            desk.providers.instead = [(429, {"Retry-After": "1"})]

    desk.providers.before_answer = tire
    assert by.step(run).seconds == 1.0
    assert len(desk.pipe.messages) == 2
    run = desk.reconcile()
    assert run["fetched"] == 5
    assert len(desk.pipe.messages) == 5


@pytest.mark.parametrize(
    ("status", "headers", "said"),
    [
        (401, {}, "The API token is refused (401)."),
        (403, {}, "The API token is refused (403)."),
        (301, {"Location": "https://elsewhere.example/"}, "It has moved elsewhere (301)"),
        (422, {}, "It does not take the question (422)."),
        (404, {}, "GitHub has no deliveries at "),
    ],
)
def test_what_will_not_get_better_ends_it_in_a_sentence(
    desk: Desk, status: int, headers: dict[str, str], said: str
) -> None:
    desk.providers.instead = [(status, headers)]
    run = desk.reconcile()
    assert run["state"] == "failed"
    assert run["error"].startswith(said)
    assert "canary" not in str(run)
    assert desk.reconcile()["state"] == "done"  # and it stands in the way of no other


@pytest.mark.parametrize("text", ["<html>", "[1]", '[{"guid": 1}]', '{"message": "hello"}', "[" * 100_000])
def test_what_is_no_answer_is_none(desk: Desk, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk.providers, "answer", lambda *asked: (200, {}, text))
    by = desk.reconciler()
    step = by.step(by.begin("code", None, only_looks=False))
    assert step.held is not None


def test_a_provider_whose_pages_go_round_in_a_circle_ends_it(desk: Desk) -> None:
    class Circle:
        def get(self, url: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
            return Answer("[]", Headers([("link", '<https://x.example/?cursor=a>; rel="next"')]), now())

    by = desk.reconciler(api=Circle())
    step: Step = by.step(by.begin("code", None, only_looks=False))
    step = by.step(step.run)
    assert (step.run["state"], step.run["error"]) == ("failed", "The provider's pages go round in a circle.")


def test_what_the_provider_forgot_or_gives_out_empty_is_said_and_the_others_are_fetched(desk: Desk) -> None:
    gone, empty, whole = sent(desk, 1), sent(desk, 2), sent(desk, 3)
    by = desk.reconciler()
    run = by.step(by.begin("code", None, only_looks=False)).run
    desk.providers.deliveries = [each for each in desk.providers.deliveries if each["guid"] != gone]
    next(each for each in desk.providers.deliveries if each["guid"] == empty)["request"]["payload"] = None
    run = by.step(run).run
    assert (run["state"], run["fetched"], run["failed"]) == ("done", 1, 2)
    assert desk.gaps(run) == {gone: "missing, failed", empty: "missing, failed", whole: "missing, fetched"}
    again = desk.reconcile()
    assert (again["missing"], again["failed"]) == (1, 1)  # one may have been healed meanwhile: it is tried again


def test_a_queue_that_is_away_loses_nothing_that_was_found(desk: Desk) -> None:
    for n in range(4):
        sent(desk, n)
    by = desk.reconciler()
    run = by.step(by.begin("code", None, only_looks=False)).run
    desk.pipe.fails_after = 2
    with pytest.raises(QueueUnavailable):
        by.step(run)
    desk.pipe.fails_after = None
    assert desk.reconcile()["fetched"] == 4
    assert len(desk.pipe.messages) == 4


def test_one_that_the_provider_cannot_give_does_not_keep_the_others_from_being_fetched(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    ill = sent(desk, 1, at=minutes_ago(90))
    others = [sent(desk, n, at=minutes_ago(60)) for n in (2, 3)]
    number, answer = desk.providers.deliveries[0]["id"], desk.providers.answer
    monkeypatch.setattr(
        desk.providers,
        "answer",
        lambda path, *asked: (500, {}, "") if path.endswith(str(number)) else answer(path, *asked),
    )
    by = desk.reconciler()
    run, held = by.begin("code", None, only_looks=False), 0
    while run["state"] in ("listing", "fetching"):
        step = by.step(run)
        run, held = step.run, held + (step.held is not None)
    assert (run["state"], run["fetched"], run["failed"], held) == ("done", 2, 1, 3)
    assert desk.gaps(run) == {ill: "missing, failed"} | dict.fromkeys(others, "missing, fetched")


@pytest.mark.parametrize("status", [400, 422, 451])
def test_one_that_the_provider_refuses_is_said_and_the_others_are_fetched(
    desk: Desk, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(desk, 1, at=minutes_ago(90))
    sent(desk, 2)
    number, answer = desk.providers.deliveries[0]["id"], desk.providers.answer
    monkeypatch.setattr(
        desk.providers,
        "answer",
        lambda path, *asked: (status, {}, "") if path.endswith(str(number)) else answer(path, *asked),
    )
    run = desk.reconcile()
    assert (run["state"], run["fetched"], run["failed"]) == ("done", 1, 1)


@pytest.mark.parametrize("payload", ['{"half":"\\ud83d"}', '{"half":"\\ud83d","é":1}'])
def test_half_a_character_is_no_end_of_everything(desk: Desk, payload: str) -> None:
    desk.providers.deliver("a-guid", payload.encode(), minutes_ago(60), SECRET)
    endpoint(desk, "*")
    desk.providers.happen("evt_half", "invoice.paid", minutes_ago(60), half="\ud83d")
    assert desk.reconcile()["fetched"] == 1
    assert desk.reconcile("money")["fetched"] == 1


def test_a_time_that_is_none_is_no_answer(desk: Desk) -> None:
    endpoint(desk, "*")
    desk.providers.endpoint["created"] = 10**30
    by = desk.reconciler()
    assert by.step(by.begin("money", None, only_looks=False)).held is not None


def test_a_fetched_repetition_is_known_as_one(desk: Desk) -> None:
    guid = sent(desk)
    desk.reconcile()  # it is queued
    desk.arrives(guid)  # and comes by itself, with the other in one batch
    desk.pipe.process()
    assert desk.pipe.world.query("SELECT count(*) FROM postern.events") == [(1,)]
    origins = desk.pipe.world.query(
        "SELECT e.origin, d.origin FROM postern.events AS e JOIN postern.duplicates AS d ON d.event_id = e.id"
    )
    assert origins in ([("reconciled", None)], [(None, "reconciled")])


def test_what_was_fetched_and_lost_is_fetched_again_by_the_next_hour(desk: Desk) -> None:
    guid = sent(desk, at=minutes_ago(170))
    desk.reconciler().by_the_clock(lambda: 300.0)
    desk.pipe.messages.clear()  # lost
    hours_pass(desk, 2)
    assert desk.reconciler().by_the_clock(lambda: 300.0)["reconcile_gaps"] == 1
    desk.pipe.process()
    assert desk.pipe.rows("dedup_key") == [guid]


def hours_pass(desk: Desk, number: int) -> None:
    """As if what stands there had been written so much earlier."""
    for table, columns in (("reconciliations", ("started_at", "ended_at")), ("gaps", ("found_at", "changed_at"))):
        sets = ", ".join(f"{column} = {column} - make_interval(hours => {number})" for column in columns)
        desk.pipe.world.query(f"UPDATE postern.{table} SET {sets}")


def test_a_look_makes_way_for_whoever_fetches(desk: Desk) -> None:
    lost = sent(desk)
    by = desk.reconciler()
    look = by.begin("code", None, only_looks=True)
    run = desk.reconcile()
    assert (run["fetched"], desk.gaps(run)) == (1, {lost: "missing, fetched"})
    assert by.step(look).run["state"] == "cancelled"


def test_nothing_older_than_the_keys_is_judged(desk: Desk) -> None:
    old = sent(desk, 1, at=minutes_ago(60 * 30))
    new = sent(desk, 2)
    book = Reconciliations(desk.pipe.world.database())
    desk.operator = Operator(actions={**actions.views(book), **actions.actions(book, now, 1)}, duties={})
    run = desk.reconcile()
    assert old not in desk.gaps(run)
    assert desk.gaps(run) == {new: "missing, fetched"}


def test_one_that_takes_longer_than_the_provider_remembers_is_ended(desk: Desk) -> None:
    by = desk.reconciler()
    run = by.begin("code", None, only_looks=False)
    desk.pipe.world.query("UPDATE postern.reconciliations SET started_at = now() - interval '4 days'")
    run = by.step(desk.operator.perform({"action": "show_reconciliation", "id": run["id"]})["reconciliation"]).run
    assert (run["state"], run["error"]) == ("failed", "It has taken longer than the provider remembers.")


def test_the_token_goes_to_the_provider_alone_and_into_no_row(desk: Desk) -> None:
    sent(desk)
    desk.reconcile()
    desk.pipe.process()
    for table in ("reconciliations", "gaps", "events"):
        [(text,)] = desk.pipe.world.query(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM postern.{table} AS t")
        assert desk.providers.token not in text


@pytest.mark.parametrize(
    ("source", "since", "said"),
    [
        ("code", timedelta(days=4), "code's provider remembers 3 days, and no more: ask for no longer."),
        ("code", timedelta(hours=-1), "That is yet to come."),
        ("nobody", None, "There is no source 'nobody'."),
        ("hmac", None, "Provider 'hmac' has no history that can be read; github and stripe have."),
        ("silent", None, "Source 'silent' does not say where its webhook stands at its provider: "),
    ],
)
def test_what_cannot_be_reconciled_is_said_at_once(desk: Desk, source: str, since: timedelta | None, said: str) -> None:
    with pytest.raises(Conflict) as refused:
        desk.reconciler().begin(source, since and now() - since, only_looks=False)
    assert str(refused.value).startswith(said)
    assert desk.operator.perform({"action": "reconciliations"})["reconciliations"] == []


def test_a_missing_token_is_said_with_what_it_has_to_be_allowed(desk: Desk) -> None:
    del desk.secrets["code.api_token"]
    with pytest.raises(Conflict, match=r"has no API token: set code.api_token beside its secret, .* read webhooks"):
        desk.reconciler().begin("code", None, only_looks=False)


def test_a_cancelled_one_fetches_no_more(desk: Desk) -> None:
    sent(desk)
    by = desk.reconciler()
    run = by.step(by.begin("code", None, only_looks=False)).run
    cancelled = desk.operator.perform({"action": "cancel_reconciliation", "id": run["id"]})
    assert cancelled["cancelled"]
    step = by.step(run)
    assert (step.run["state"], desk.pipe.messages) == ("cancelled", [])
    assert not desk.operator.perform({"action": "cancel_reconciliation", "id": run["id"]})["cancelled"]


# By the clock, and for others


def test_by_the_clock_those_sources_are_compared_that_say_so_and_the_gaps_are_counted_once(desk: Desk) -> None:
    sent(desk)
    assert desk.reconciler().by_the_clock(lambda: 300.0) == {"reconcile_gaps": 1, "reconcile_failures": 0}
    [line] = desk.lines
    assert (line["name"], line["level"], line["source"], line["state"]) == ("source.reconciled", "INFO", "code", "done")
    assert (line["missing"], line["fetched"], line["reconcile_gaps"]) == (1, 1, 1)
    assert desk.reconciler().by_the_clock(lambda: 300.0) == {"reconcile_gaps": 0, "reconcile_failures": 0}


def test_an_hourly_one_begins_three_hours_before_the_last(desk: Desk) -> None:
    desk.reconciler().by_the_clock(lambda: 300.0)
    desk.reconcile(since=minutes_ago(10))  # which looked at ten minutes alone, and counts for no more
    desk.reconciler().by_the_clock(lambda: 300.0)
    newest, _, oldest = desk.operator.perform({"action": "reconciliations"})["reconciliations"]
    assert now() - datetime.fromisoformat(oldest["since"]) > timedelta(hours=71)
    before = datetime.fromisoformat(oldest["started_at"]) - datetime.fromisoformat(newest["since"])
    assert timedelta(hours=2, minutes=59) < before < timedelta(hours=3, minutes=1)


def test_an_hourly_one_that_has_no_time_left_goes_on_an_hour_later_and_that_is_said(desk: Desk) -> None:
    for n in range(250):
        sent(desk, n, at=minutes_ago(10 + n))
    seconds = itertools.count(0, 100.0)
    done = desk.reconciler(clock=lambda: next(seconds)).by_the_clock(lambda: 300.0)
    [run] = desk.operator.perform({"action": "reconciliations"})["reconciliations"]
    assert (run["state"], run["listed"]) == ("listing", 200)
    assert done == {"reconcile_gaps": 200, "reconcile_failures": 1}
    assert desk.lines[0]["why"] == "It takes longer, and goes on an hour later."
    assert desk.reconciler().by_the_clock(lambda: 300.0) == {"reconcile_gaps": 50, "reconcile_failures": 0}
    [run] = desk.operator.perform({"action": "reconciliations"})["reconciliations"]
    assert (run["state"], run["fetched"]) == ("done", 250)


@pytest.mark.parametrize(
    ("instead", "why"),
    [
        ((429, {"Retry-After": "60"}), "The provider is not to be had now: it has been asked too often."),
        ((401, {}), "The API token is refused (401)."),
    ],
)
def test_an_hourly_one_that_comes_to_nothing_is_counted_with_its_reason(desk: Desk, instead: Any, why: str) -> None:
    desk.providers.instead = [instead]
    assert desk.reconciler().by_the_clock(lambda: 300.0) == {"reconcile_gaps": 0, "reconcile_failures": 1}
    [line] = desk.lines
    assert (line["level"], line["why"], line["reconcile_failures"]) == ("ERROR", why, 1)


def test_a_mistake_of_ours_about_one_source_is_counted_and_the_round_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reconciler, "_since", lambda self, name: 1 / 0)
    assert desk.reconciler().by_the_clock(lambda: 300.0) == {"reconcile_gaps": 0, "reconcile_failures": 1}
    assert desk.lines[0]["why"] == "ZeroDivisionError"


@pytest.mark.parametrize("token", ["ghp_a\nb", "ghp_é"])
def test_a_token_that_is_none_is_said(desk: Desk, token: str) -> None:
    desk.secrets["code.api_token"] = [token]
    with pytest.raises(Conflict, match="has characters that no token has"):
        desk.reconciler().begin("code", None, only_looks=False)


def test_one_source_without_a_token_does_not_keep_the_others_from_being_compared(desk: Desk) -> None:
    del desk.secrets["code.api_token"]
    assert desk.reconciler().by_the_clock(lambda: 300.0) == {"reconcile_gaps": 0, "reconcile_failures": 1}
    assert "has no API token" in desk.lines[0]["why"]


def test_whoever_asks_from_elsewhere_begins_one_and_takes_its_steps(desk: Desk) -> None:
    sent(desk)
    by = desk.reconciler()
    answer = by.answer({"begin": {"source": "code", "since": minutes_ago(120).isoformat(), "only_looks": False}})
    while answer["reconciliation"]["state"] in ("listing", "fetching"):
        answer = by.answer({"step": answer["reconciliation"]["id"]})
    assert (answer["reconciliation"]["fetched"], answer["held"], answer["seconds"]) == (1, None, None)
    assert by.answer({"step": str(uuid4())}) == {"refused": "There is no such reconciliation."}
    assert by.answer({"begin": {"source": "nobody", "since": None, "only_looks": True}}) == {
        "refused": "There is no source 'nobody'."
    }


def test_what_is_away_is_said_to_whoever_asks(desk: Desk) -> None:
    def away(request: Mapping[str, Any]) -> Mapping[str, Any]:
        raise DatabaseAway("FunctionError")

    asked = {"begin": {"source": "code", "since": None, "only_looks": False}}
    assert desk.reconciler(perform=away).answer(asked) == {"unavailable": "database: FunctionError"}
    sent(desk)
    by = desk.reconciler()
    run = by.answer({"step": by.answer(asked)["reconciliation"]["id"]})["reconciliation"]
    desk.pipe.fails_after = 0
    assert by.answer({"step": run["id"]}) == {"unavailable": "away"}


# Stripe


def endpoint(desk: Desk, *types: str, created: datetime | None = None) -> None:
    at = created or minutes_ago(60 * 24 * 40)
    desk.providers.endpoint = {"object": "webhook_endpoint", "created": int(at.timestamp()), "enabled_events": [*types]}


def test_stripe_s_events_of_the_endpoint_s_types_are_fetched_and_no_others(desk: Desk) -> None:
    endpoint(desk, "invoice.paid", "charge.succeeded")
    desk.providers.happen("evt_1", "invoice.paid", minutes_ago(60), amount=1999)
    desk.providers.happen("evt_2", "customer.created", minutes_ago(59))
    run = desk.reconcile("money")
    assert (run["listed"], run["missing"], run["fetched"]) == (1, 1, 1)
    desk.pipe.process()
    assert desk.pipe.rows("source, type, dedup_key, origin, secret") == [
        ("money", "invoice.paid", "evt_1", "reconciled", None)
    ]
    assert desk.pipe.rows("payload #>> '{data,object,amount}'") == ["1999"]
    assert desk.reconcile("money")["missing"] == 0


def test_stripe_s_pages_go_on_behind_events_of_other_types(desk: Desk) -> None:
    endpoint(desk, "*")
    for n in range(230):
        desk.providers.happen(f"evt_{n}", "invoice.paid", minutes_ago(10 + n))
    assert desk.reconcile("money")["fetched"] == 230
    endpoint(desk, "charge.succeeded")
    assert desk.reconcile("money")["listed"] == 0


def test_nothing_from_before_there_was_an_endpoint_is_missed(desk: Desk) -> None:
    endpoint(desk, "*", created=minutes_ago(30))
    desk.providers.happen("evt_before", "invoice.paid", minutes_ago(40))
    desk.providers.happen("evt_after", "invoice.paid", minutes_ago(20))
    run = desk.reconcile("money")
    assert desk.gaps(run) == {"evt_after": "missing, fetched"}


def test_what_stripe_sent_later_is_the_event_that_was_fetched(desk: Desk) -> None:
    endpoint(desk, "*")
    event = desk.providers.happen("evt_1", "invoice.paid", minutes_ago(60))
    desk.reconcile("money")
    desk.pipe.process()
    at = int(now().timestamp())
    body = json.dumps(event).encode()
    signature = hmac.digest(SECRET.encode(), f"{at}.".encode() + body, "sha256").hex()
    desk.pipe.inbox = replace(desk.pipe.inbox, secrets_of=desk.secrets_of)
    desk.pipe.deliver("money", body, Stripe_Signature=f"t={at},v1={signature}")
    desk.pipe.process()
    assert desk.pipe.rows("dedup_key, origin") == [("evt_1", "reconciled")]
    assert desk.pipe.world.effects() == 1


def test_a_wrong_endpoint_is_said(desk: Desk) -> None:
    run = desk.reconcile("money")
    assert (run["state"], run["error"].split(" at ")[0]) == ("failed", "Stripe has no webhook endpoint")
