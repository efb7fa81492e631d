"""Refused, kept, explained, let through: functions and command line as they are, on a stage of the test's own."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest

from chalicelib.postern.adapters.event_store import EventStore
from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.contract.envelope import Rejected
from chalicelib.postern.operating.events import actions as events
from chalicelib.postern.operating.events.queries import Events
from chalicelib.postern.operating.operator import Operator
from chalicelib.postern.operating.refused import actions as refused
from chalicelib.postern.operating.refused.queries import Refused
from chalicelib.postern.receiving import naming
from chalicelib.postern.running import wiring
from devstack.aws import EmulatedAws, Resources
from devstack.event_source import event_of
from tests import commands
from tests.integration.test_api import OPERATE, READ, Api
from tests.integration.test_observability import Line, invoke
from tests.integration.world import World, now, work

OLD, NEW, OTHERS = "canary-of-old", "canary-of-new", "canary-of-others"
BODY = b'{"type": "order.paid", "n": 1}'
SOURCES = """
[shop]
provider = "hmac"
dedup = "body:n"
quarantine = true

[batches]
provider = "hmac"
items = ""
quarantine = true

[pings]
provider = "dropbox"
quarantine = true

[parameters]
provider = "docker-hub"
quarantine = true

[tokens]
provider = "token"
quarantine = true

[theirs]
provider = "hmac"

[timed]
provider = "linear"
quarantine = true

[signed]
provider = "standard-webhooks"
"""


class Stage:
    """All four functions, and an operator's terminal beside them."""

    def __init__(self, aws: EmulatedAws, resources: Resources, world: World, folder: Path) -> None:
        self.aws, self.resources, self.world = aws, resources, world
        sources = folder / "sources.toml"
        sources.write_text(SOURCES, "utf-8")
        self.environ = {
            **aws.environ(),
            "STAGE": "prod",
            "SOURCES_FILE": str(sources),
            "QUEUE_URL": resources.queue_url,
            "DEAD_LETTER_QUEUE_URL": resources.dead_letter_queue_url,
            "SOURCES_SECRET_ID": resources.sources_secret_id,
            "BODIES_BUCKET": resources.bodies_bucket,
            "DATABASE_URL": world.url,
            "PARTIAL_BATCH_RESPONSE": "true",
            "POSTERN_STATE_DIR": str(folder / "no local run"),
        }
        self.written = ""

    def secrets(self, **changes: Any) -> None:
        known = dict.fromkeys(("shop", "batches", "pings", "parameters", "tokens", "timed"), OLD)
        self.aws.put_secrets(self.resources, {**known, "theirs": OTHERS, **changes})

    def post(self, source: str, body: bytes = BODY, *, secret: str = OLD, **headers: str) -> Line:
        """The line of a delivery that is signed with this secret."""
        name = "X-Dropbox-Signature" if source == "pings" else "X-Signature"
        given = {"Content-Type": "application/json", name: hmac.digest(secret.encode(), body, hashlib.sha256).hex()}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        event = {
            "requestContext": {
                "httpMethod": "POST",
                "resourcePath": "/webhooks/{source}",
                "path": f"/webhooks/{source}",
            },
            "headers": given,
            "multiValueHeaders": {name: [value] for name, value in given.items()},
            "pathParameters": {"source": source},
            "multiValueQueryStringParameters": {"token": [secret]} if source == "parameters" else None,
            "stageVariables": None,
            "body": body.decode(),
            "isBase64Encoded": False,
        }
        _, [line] = invoke(self.environ, ("api", event))
        self.written += json.dumps(line)
        return line

    def process(self) -> list[str]:
        """What became of everything that is on the queue."""
        queue = self.aws.client("sqs")
        asked = {"MaxNumberOfMessages": 10, "MessageSystemAttributeNames": ["All"]}
        messages = queue.receive_message(QueueUrl=self.resources.queue_url, **asked).get("Messages", [])
        if not messages:
            return []
        _, lines = invoke(self.environ, ("processor", event_of(messages, "arn:aws:sqs:us-east-1:000000000000:q")))
        for message in messages:
            queue.delete_message(QueueUrl=self.resources.queue_url, ReceiptHandle=message["ReceiptHandle"])
        self.written += json.dumps(lines)
        return [line["message"] for line in lines if line["message"] != "batch.consumed"]

    def postern(self, *arguments: str, code: int = 0, **environ: str) -> str:
        done = commands.postern(*arguments, environ={**self.environ, **environ})
        self.written += done.stdout + done.stderr
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def keep(self, source: str, body: bytes = BODY, *, secret: str) -> str:
        """Refused, and kept; its id."""
        line = self.post(source, body, secret=secret)
        assert (line["status"], line["message"]) == (401, "delivery.rejected")
        assert self.process() == ["event.kept"]
        return str(line["kept"])


@pytest.fixture
def stage(aws: EmulatedAws, resources: Resources, world: World, tmp_path: Path) -> Stage:
    made = Stage(aws, resources, world, tmp_path)
    made.secrets()
    return made


def test_a_delivery_with_the_new_secret_is_explained_and_let_through_once_that_is_listed(stage: Stage) -> None:
    id = stage.keep("shop", secret=NEW)
    assert "unknown: No known cause fits" in stage.postern("explain", id)
    assert "still refused: signature_mismatch" in stage.postern("reverify", code=1)

    stage.secrets(shop=[NEW, OLD])
    assert "verifies_now" in stage.postern("explain", id)
    assert stage.postern("reverify", "--source", "shop").splitlines()[-1] == "1 of 1 let through."
    assert stage.process() == ["event.processed"]
    assert stage.world.query("SELECT id::text, encode(body, 'escape'), secret FROM postern.events") == [
        (id, BODY.decode(), naming.fingerprint("shop", NEW))
    ]
    assert f"was let through: postern show {id}" in stage.postern("explain", id)
    assert stage.postern("reverify") == "0 of 0 let through.\n"
    assert "was let through before" in stage.postern("reverify", id)
    assert stage.process() == []


@pytest.mark.parametrize(
    ("source", "body", "events"),
    [("shop", BODY, 1), ("pings", b'{"accounts": [1]}', 1), ("batches", b'[{"n": 1}, {"n": 2}, {"n": 3}]', 3)],
)
def test_two_operators_at_once_let_a_delivery_through_once(stage: Stage, source: str, body: bytes, events: int) -> None:
    """Both have read that it was not let through yet."""
    id = stage.keep(source, body, secret=NEW)
    stage.secrets(**{source: [NEW]})
    with ThreadPoolExecutor(2) as operators:
        list(operators.map(lambda _: stage.postern("reverify", id), range(2)))
    assert set(stage.process()) == {"event.processed"}
    stage.world.query("UPDATE postern.rejected SET event_id = NULL")
    stage.postern("reverify", id)
    assert set(stage.process()) == {"event.already_processed"}
    assert stage.world.query("SELECT count(*), min(id::text) FROM postern.events") == [(events, id)]
    assert stage.world.query("SELECT count(*) FROM postern.duplicates") == [(0,)]


def test_what_the_provider_sent_again_in_the_meantime_is_one_event(stage: Stage) -> None:
    id = stage.keep("shop", secret=NEW)
    stage.secrets(shop=[NEW])
    assert stage.post("shop", secret=NEW)["status"] == 202
    assert stage.process() == ["event.processed"]
    stage.postern("reverify", id)
    assert stage.process() == ["event.duplicate"]
    assert stage.world.query("SELECT count(*) FROM postern.events") == [(1,)]
    shown = json.loads(stage.postern("show", id, "--json"))
    assert shown["duplicates"][0]["id"] == id


def test_the_secret_of_before_the_last_change_and_that_of_another_source_are_recognised(stage: Stage) -> None:
    stage.secrets(shop=[NEW])
    before = stage.keep("shop", secret=OLD)
    other = stage.keep("shop", secret=OTHERS)
    assert "previous_secret" in stage.postern("explain", before)
    assert "other_source: It is signed with a secret of the source 'theirs'" in stage.postern("explain", other)


def test_the_api_explains_and_lets_through_what_its_caller_may_see(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = stage.keep("shop", secret=NEW)
    for name, value in stage.environ.items():
        monkeypatch.setenv(name, value)
    built: tuple[Any, ...] = (wiring.config, wiring.reader, wiring.operator, wiring.database)
    built += (wiring.inbox, wiring.second_look)
    for each in built:
        each.cache_clear()
    try:
        api = Api()
        assert [each["cause"] for each in api.get(f"/api/rejected/{id}/causes", token=OPERATE)["causes"]] == ["unknown"]
        assert api.refused("GET", f"/api/rejected/{id}/causes", token=READ)[0] == 403
        assert api.refused("POST", f"/api/rejected/{id}/reverify", token=READ)[0] == 403
        assert api.refused("POST", f"/api/rejected/{uuid4()}/reverify", token=OPERATE)[0] == 404
        assert api.post(f"/api/rejected/{id}/reverify") == {
            "outcome": "still refused: signature_mismatch",
            "event_id": None,
        }
        stage.secrets(shop=[NEW, OLD])
        wiring.inbox.cache_clear()
        wiring.second_look.cache_clear()
        assert api.get(f"/api/rejected/{id}/causes", token=OPERATE)["causes"][0]["cause"] == "verifies_now"
        assert api.post(f"/api/rejected/{id}/reverify") == {"outcome": "let through", "event_id": id}
        assert api.post(f"/api/rejected/{id}/reverify") == {"outcome": "was let through before", "event_id": id}
        assert stage.process() == ["event.processed"]
        assert api.get(f"/api/rejected/{id}", token=OPERATE)["rejected"]["event_id"] == id
        # What became of it stays as it was noted, and is no other event.
        assert api.post(f"/api/rejected/{id}/resolve", event_id=id, note="later") == {"resolved": False}
        another = {"event_id": str(uuid4())}
        assert api.refused("POST", f"/api/rejected/{id}/resolve", token=OPERATE, body=another)[0] == 409
        assert api.get(f"/api/rejected/{id}", token=OPERATE)["rejected"]["note"] is None
    finally:
        for each in built:
            each.cache_clear()


def test_refused_deliveries_are_listed_with_their_reasons_and_in_pages(stage: Stage) -> None:
    ids = [stage.keep("shop", secret=OTHERS), stage.keep("shop", b"{}", secret=OTHERS)]
    listing = stage.postern("rejected", "--source", "shop")
    assert re.search(r"^COUNT +SOURCE +REASON$", listing, re.MULTILINE)
    assert re.search(r"^2 +shop +signature_mismatch$", listing, re.MULTILINE)
    found = json.loads(stage.postern("rejected", "--json"))
    assert [each["id"] for each in found["rejected"]] == ids[::-1]
    page = json.loads(stage.postern("rejected", "--before", ids[1], "--json"))
    assert [each["id"] for each in page["rejected"]] == ids[:1]


def test_more_than_one_page_is_verified_again(stage: Stage) -> None:
    """Forgeries that are never let through must not hide a good one behind them."""
    good = stage.keep("shop", secret=NEW)
    at = now()
    EventStore(stage.world.database()).keep(
        [
            Rejected(new_event_id(at + timedelta(milliseconds=n)), "shop", at, "x", "POST", "", [], {}, b"{}")
            for n in range(1, 1002)
        ]
    )
    stage.secrets(shop=[NEW])
    lines = stage.postern("reverify", "--source", "shop").splitlines()
    assert f"{good}  let through" in lines
    assert lines[-2:] == ["1 of 1002 let through.", "  1001  still refused: header_missing"]


def test_a_retired_secret_is_known_by_what_verified_the_events(stage: Stage) -> None:
    stage.secrets(shop=[NEW, OLD])
    for days, secret in ((12, OLD), (10, NEW), (1, NEW)):
        at = now() - timedelta(days=days)
        used = work(source="shop", id=new_event_id(at), received_at=at, secret=naming.fingerprint("shop", secret))
        stage.world.processor().process([used])
    lines = stage.postern("sources").splitlines()
    newer, older = (next(line for line in lines if f"({n} of 2)" in line) for n in (1, 2))
    assert newer.split()[5] == "2" and "safe" not in newer
    assert older.split()[5] == "1" and "safe to retire: newer ones have verified everything since" in older


def test_no_secret_is_in_rows_logs_or_on_the_terminal(stage: Stage) -> None:
    """Every one of these secrets is a canary, as the one that was sent is."""
    stage.post("shop", secret=OTHERS)
    stage.post("batches", secret=OTHERS)
    stage.post("parameters", secret=OTHERS)
    stage.post("tokens", X_Webhook_Token=OTHERS, Authorization=f"Bearer {NEW}")
    assert stage.process() == ["event.kept"] * 4
    reverified = stage.postern("reverify", code=1)
    assert reverified.count("still refused: signature_mismatch (credentials are not kept)") == 2 + 1
    stage.secrets(shop=["  " + OLD, NEW], batches="canary-\ud800")
    stage.postern("reverify", code=1)
    stage.postern("rejected", "--json")
    stage.postern("sources")
    causes = {
        source: stage.postern("explain", id).splitlines()[1].split()[0]
        for id, source in stage.world.query("SELECT id::text, source FROM postern.rejected")
    }
    assert causes == {"shop": "other_source:", "batches": "other_source:"} | dict.fromkeys(
        ("parameters", "tokens"), "credentials:"
    )
    rows = stage.world.query("SELECT row_to_json(r)::text, encode(body, 'escape') FROM postern.rejected r")
    assert len(rows) == 4
    assert "canary" not in stage.written + str(rows)


def test_what_was_verified_is_kept_without_being_asked_and_let_through_once_its_source_is_mended(stage: Stage) -> None:
    """A token is a password, and not kept: that it was right when it came is."""
    sources = Path(stage.environ["SOURCES_FILE"])
    line = stage.post("tokens", b"a,b\n1,2\n", X_Webhook_Token=OLD, Content_Type="text/csv")
    assert (line["status"], line["reason"]) == (415, "unsupported_media_type")
    assert stage.process() == ["event.kept"]
    assert "its sender" in stage.postern("rejected")
    assert "verified: It was verified when it came" in stage.postern("explain", line["kept"])
    assert "still refused: content_type" in stage.postern("reverify", code=1)
    own = '[tokens]\nprovider = "token"'
    sources.write_text(sources.read_text().replace(own, f'{own}\ncontent_types = ["text/csv"]'))
    assert stage.postern("reverify").splitlines()[-1] == "1 of 1 let through."
    assert stage.process() == ["event.processed"]
    assert stage.world.query("SELECT id::text, encode(body, 'escape'), format FROM postern.events") == [
        (line["kept"], "a,b\n1,2\n", "bytes")
    ]


def test_a_verified_delivery_keeps_its_identity_when_its_secret_has_changed(stage: Stage) -> None:
    """The id is in the signature, which today's secret does not verify."""
    secret = "whsec_" + base64.b64encode(OLD.encode()).decode()
    stage.secrets(signed=secret)
    at, body = str(int(now().timestamp())), b"{"
    mac = base64.b64encode(hmac.digest(OLD.encode(), f"msg_1.{at}.".encode() + body, "sha256")).decode()
    headers = {"webhook_id": "msg_1", "webhook_timestamp": at, "webhook_signature": f"v1,{mac}"}
    line = stage.post("signed", body, **headers)
    assert (line["status"], line["reason"]) == (400, "invalid_payload")
    assert stage.process() == ["event.kept"]
    stage.secrets(signed="whsec_" + base64.b64encode(NEW.encode()).decode())
    sources = Path(stage.environ["SOURCES_FILE"])
    sources.write_text(sources.read_text() + 'format = "bytes"\n')
    assert stage.postern("reverify").splitlines()[-1] == "1 of 1 let through."
    assert stage.process() == ["event.processed"]
    assert stage.world.query("SELECT dedup_key FROM postern.events") == [("msg_1",)]


def test_what_is_only_too_old_is_let_through_at_a_persons_word_and_says_so(stage: Stage) -> None:
    body = json.dumps({"type": "Issue", "webhookTimestamp": int((now().timestamp() - 90_000) * 1000)}).encode()
    line = stage.post("timed", body, Linear_Signature=hmac.digest(OLD.encode(), body, hashlib.sha256).hex())
    assert (line["status"], line["detail"]) == (401, "timestamp_stale")
    assert stage.process() == ["event.kept"]
    refused = stage.postern("reverify", code=1)
    assert "still refused: timestamp_stale" in refused
    assert "--accept-stale" in refused
    assert "let through, although it was too old" in stage.postern("reverify", "--accept-stale")
    assert stage.process() == ["event.processed"]
    assert stage.world.query("SELECT note FROM postern.rejected") == [("too old, and accepted at a person's word",)]


def test_what_cannot_be_kept_is_answered_as_ever_and_logged(stage: Stage) -> None:
    stage.environ["AWS_ENDPOINT_URL_SQS"] = "http://127.0.0.1:1"
    line = stage.post("shop", secret=NEW)
    assert (line["status"], line["reason"]) == (401, "invalid_signature")
    assert (line.get("kept"), line["not_kept"]) == (None, "queue_unavailable: EndpointConnectionError")


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"SOURCES_SECRET_ID": "no-such-secret"}, "cannot be read: ResourceNotFoundException"),
        ({"DATABASE_URL": ""}, "SOURCES_SECRET_ID names a stage's secrets, and STORE_FUNCTION not its database"),
        ({"SOURCES_SECRET_ID": "", "STORE_FUNCTION": "postern-prod-store"}, "SOURCES_SECRET_ID does not name"),
        ({"SOURCES_SECRET_ID": ""}, "Start it with `make run`"),
    ],
)
def test_half_a_stage_is_never_mixed_with_another_ones_half(
    stage: Stage, environ: dict[str, str], sentence: str
) -> None:
    assert sentence in stage.postern("reverify", code=1, **environ)
    assert stage.process() == []


@pytest.fixture
def store_function(world: World) -> Iterator[str]:
    """Where Lambda's API is, with the store function of the stage; it is the only one who has the database."""
    kept = Refused(world.database())
    actions = events.views(Events(world.database())) | refused.views(kept) | refused.actions(kept)
    operator = Operator(actions, refused.duties(kept))

    class Invoke(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/2015-03-31/functions/postern-prod-store/invocations"
            body = json.dumps(operator.perform(request)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Invoke) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_deployed_stage_is_asked_through_its_store_function(stage: Stage, store_function: str) -> None:
    id = stage.keep("shop", secret=NEW)
    stage.secrets(shop=[NEW])
    there = {"DATABASE_URL": "", "STORE_FUNCTION": "postern-prod-store", "AWS_ENDPOINT_URL_LAMBDA": store_function}
    assert id in stage.postern("rejected", **there)
    assert "verifies_now" in stage.postern("explain", id, **there)
    assert "1 of 1 let through." in stage.postern("reverify", **there)
    assert stage.process() == ["event.processed"]
    assert naming.fingerprint("shop", NEW) in stage.postern("sources", **there)
    assert id in stage.postern("events", **there)
    away = {**there, "AWS_ENDPOINT_URL_LAMBDA": "http://127.0.0.1:1"}
    assert "postern-prod-store cannot be called" in stage.postern("rejected", code=1, **away)


def test_an_explanation_needs_no_queue(stage: Stage) -> None:
    id = stage.keep("shop", secret=NEW)
    assert "unknown" in stage.postern("explain", id, QUEUE_URL="")
    assert "QUEUE_URL" in stage.postern("reverify", id, code=1, QUEUE_URL="")
