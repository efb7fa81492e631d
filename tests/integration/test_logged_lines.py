"""What the API function writes about deliveries, whatever goes wrong: a line each, and nothing that is secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
from typing import Any

import pytest

from devstack.aws import EmulatedAws, Resources
from devstack.settings import PROJECT
from tests.support import EVERY_SOURCE

SECRETS: dict[str, Any] = {
    "github": "canary-github",
    "hmac": ["canary-hmac", "canary-older"],
    "stripe": "whsec_canary",
    "standard-webhooks": "whsec_canary is no base64",
    "token": "canary-token",
    "basic": "user:canary-password",
}
BASIC = base64.b64encode(SECRETS["basic"].encode()).decode()
BODY = b'{"type": "order.paid", "card": "canary-body"}'

# A process of its own, for all that it writes; each delivery is a function of its arguments.
SCRIPT = """
import json, sys
import app
from chalice.test import Client
with Client(app.app) as client:
    for path, headers, body in json.load(sys.stdin):
        status = client.http.post(path, headers=headers, body=body.encode()).status_code
        print("answered", status, file=sys.stderr)
"""

Delivery = tuple[str, dict[str, str], str]


def signed(body: bytes) -> dict[str, str]:
    return {"X-Signature": hmac.new(SECRETS["hmac"][0].encode(), body, hashlib.sha256).hexdigest()}


DELIVERIES: list[tuple[Delivery, int]] = [
    (("/webhooks/hmac", signed(BODY), BODY.decode()), 202),
    (("/webhooks/token", {"X-Webhook-Token": SECRETS["token"]}, BODY.decode()), 202),
    (("/webhooks/basic", {"Authorization": f"Basic {BASIC}"}, BODY.decode()), 202),
    (("/webhooks/token", {"X-Webhook-Token": "canary-guess"}, BODY.decode()), 401),
    (("/webhooks/basic", {"Authorization": "Bearer canary-bearer"}, BODY.decode()), 401),
    (("/webhooks/hmac", {"X-Signature": "canary-signature"}, BODY.decode()), 401),
    (("/webhooks/stripe", {"Stripe-Signature": "t=canary,v1=canary"}, BODY.decode()), 401),
    (("/webhooks/hmac", signed(b'{"canary": '), '{"canary": '), 400),
    (("/webhooks/hmac", signed(b'{"canary": NaN}'), '{"canary": NaN}'), 400),
    (("/webhooks/hmac", {**signed(BODY), "Content-Type": "text/canary"}, BODY.decode()), 415),
    (("/webhooks/nobody", {"Cookie": "canary-cookie"}, BODY.decode()), 404),
    (
        (
            "/webhooks/standard-webhooks",
            {"webhook-id": "m", "webhook-timestamp": "1", "webhook-signature": "v1,canary"},
            BODY.decode(),
        ),
        401,
    ),
]


def deliver(environ: dict[str, str], deliveries: list[Delivery]) -> tuple[list[int], list[dict[str, Any]], str]:
    """The answers' statuses, the lines that were logged, and everything that was written."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=PROJECT,
        env=environ,
        input=json.dumps(deliveries),
        capture_output=True,
        text=True,
        check=True,
    )
    statuses = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("answered")]
    return statuses, [json.loads(line) for line in done.stdout.splitlines()], done.stdout + done.stderr


@pytest.fixture
def environ(aws: EmulatedAws, resources: Resources) -> dict[str, str]:
    aws.put_secrets(resources, SECRETS)
    return {
        **aws.environ(),
        "SOURCES_FILE": str(EVERY_SOURCE),
        "QUEUE_URL": resources.queue_url,
        "SOURCES_SECRET_ID": resources.sources_secret_id,
        "BODIES_BUCKET": resources.bodies_bucket,
    }


def test_each_delivery_is_one_json_line_without_secret_credential_or_body(environ: dict[str, str]) -> None:
    statuses, lines, written = deliver(environ, [delivery for delivery, _ in DELIVERIES])
    assert statuses == [status for _, status in DELIVERIES]
    assert [line["status"] for line in lines] == statuses
    assert {line["message"] for line in lines if line["status"] == 202} == {"delivery.accepted"}
    assert all(line["message"] == "delivery.rejected" and line["reason"] for line in lines if line["status"] >= 400)
    assert "canary" not in written
    assert BASIC not in written


@pytest.mark.parametrize(
    ("away", "reason", "detail"),
    [
        ("SQS", "queue_unavailable", "EndpointConnectionError"),
        ("SECRETS_MANAGER", "secret_unavailable", "secrets_unreachable: EndpointConnectionError"),
    ],
)
def test_an_outage_is_a_line_with_its_reason_and_nothing_secret(
    environ: dict[str, str], away: str, reason: str, detail: str
) -> None:
    environ[f"AWS_ENDPOINT_URL_{away}"] = "http://127.0.0.1:1"
    good = [delivery for delivery, status in DELIVERIES if status == 202]
    statuses, lines, written = deliver(environ, good)
    assert statuses == [503, 503, 503]
    assert [(line["status"], line["reason"], line["detail"]) for line in lines] == [(503, reason, detail)] * 3
    assert "canary" not in written
    assert BASIC not in written


@pytest.mark.parametrize("value", ["canary", '["canary"]', '{"hmac": [["canary"]]}'])
def test_a_malformed_secret_is_not_quoted(
    aws: EmulatedAws, resources: Resources, environ: dict[str, str], value: str
) -> None:
    aws.client("secretsmanager").put_secret_value(SecretId=resources.sources_secret_id, SecretString=value)
    statuses, lines, written = deliver(environ, [DELIVERIES[0][0]])
    assert (statuses, [line["status"] for line in lines]) == ([503], [503])
    assert "canary" not in written


HANDLER = """
import logging, sys
from types import SimpleNamespace
from chalicelib.postern.contract.deliveries import new_event_id
from chalicelib.postern.processing.attempts import Call, Runner, Trigger, Try
from chalicelib.postern.processing.handling import Handler
from chalicelib.postern.processing.limits import Clock
from chalicelib.postern.running import logs
from tests.integration.world import POLICY, now, work

class LambdaLoggerHandler(logging.StreamHandler): ...
logging.getLogger().addHandler(LambdaLoggerHandler())  # as Lambda's runtime does
logs.begin(None, stage="dev")
logs.listen_to_handlers()
logs.listen_to_handlers()

def talk(event, db):
    log = logging.getLogger("chalicelib.handlers.talk")
    log.info("informed of %s", event.payload["n"], extra={"order": 7})
    log.debug("not this")
    logging.getLogger("somelib").info("nor this")
    logging.getLogger("somelib").warning("warned")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("went wrong")

runner = Runner([Handler("shop", "*", talk)], POLICY, now, 10)
one = runner.prepare(Try(work(), 1, Trigger.FIRST))
Call(runner, one, [handler for handler, _ in one.handlers], Clock(lambda: 9.0))(
    SimpleNamespace(connection=SimpleNamespace(interrupt=None))
)
logging.getLogger("chalicelib.handlers.talk").info("afterwards")
logs.line("ours")
print(one.work.event.id)
"""


def test_what_a_handler_logs_is_a_line_with_its_events_id() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANDLER], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
    )
    *lines, id = done.stdout.splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["message"] for entry in entries] == ["informed of 1", "warned", "went wrong", "afterwards", "ours"]
    for entry in entries[:3]:
        assert (entry["id"], entry["source"], entry["type"]) == (id, "shop", "order")
        assert entry["handler"].endswith("talk")
    assert (entries[0]["logger"], entries[0]["level"], entries[0]["order"]) == ("chalicelib.handlers.talk", "INFO", 7)
    assert entries[2]["exception_name"] == "ZeroDivisionError"
    assert not {"id", "handler"} & entries[3].keys()
    assert done.stderr == ""
