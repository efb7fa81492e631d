"""The packaged deployment, in an account that enforces its policies: what was uploaded is what runs."""

from __future__ import annotations

import hashlib
import json
import random

import pytest

from tests.deployment.installation import Installation, fetch
from tests.support import eventually

# One at least of each scheme whose samples an account can take that is not the provider's own.
SOURCES = ["github", "stripe", "standard-webhooks", "hmac", "token", "basic", "discord", "sendgrid", "plaid", "adyen"]
SOURCES += ["mailgun", "mailchimp", "microsoft-graph", "braintree", "twitch"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_signed_delivery_to_its_url_becomes_a_row(installation: Installation, source: str) -> None:
    answer = installation.post(source, type=None)

    assert answer.status == 202, answer
    row = installation.row_of(answer.body["id"])
    assert (row["source"], row["status"]) == (source, "processed")


def test_a_forged_delivery_is_refused(installation: Installation) -> None:
    answer = installation.post("github", secret="somebody else's")

    assert (answer.status, answer.body["error"]) == (401, "invalid_signature")


def test_a_body_that_no_message_can_carry_comes_back_byte_for_byte(installation: Installation) -> None:
    body = json.dumps({"type": "order.created", "noise": random.randbytes(900_000).hex()}).encode()

    answer = installation.post("hmac", body)

    assert answer.status == 202, answer
    row = installation.row_of(answer.body["id"])
    assert hashlib.sha256(row["body"]).digest() == hashlib.sha256(body).digest()


def test_a_poisoned_event_ends_in_the_dead_letters(installation: Installation) -> None:
    before = installation.dead_letters()

    answer = installation.post("hmac", json.dumps({"type": "order.poisoned", "noise": random.random()}).encode())

    assert answer.status == 202
    eventually(
        lambda: (
            installation.rows([answer.body["id"]])[:1] and installation.rows([answer.body["id"]])[0]["status"] == "dead"
        ),
        timeout=30,
    )
    eventually(lambda: installation.dead_letters() == before + 1)


def test_health_answers(installation: Installation) -> None:
    assert fetch(f"{installation.address}health", None, {}, installation.cloud.trust()).status == 200


@pytest.mark.parametrize("broken", ["", "hunter2", "[]", '{"github": 7}', "{}"])
def test_without_a_sound_secret_a_sender_is_told_to_come_again(installation: Installation, broken: str) -> None:
    """A 503, which an alarm counts, and never a 4xx: after one, the sender would drop the event."""
    client, arn = installation.cloud.client("secretsmanager"), installation.outputs["SourcesSecretArn"]
    sound = client.get_secret_value(SecretId=arn)["SecretString"]
    try:
        client.put_secret_value(SecretId=arn, SecretString=broken or " ")
        installation.cloud.end_containers()
        assert installation.post("github").status == 503
    finally:
        client.put_secret_value(SecretId=arn, SecretString=sound)
        installation.cloud.end_containers()

    answer = installation.post("github")
    assert answer.status == 202
    installation.processed([answer.body["id"]])
