"""The packaged deployment, in an account that enforces its policies: what was uploaded is what runs."""

from __future__ import annotations

import hashlib
import json
import random
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import expect

from chalicelib.postern.contract.histories import as_event
from chalicelib.postern.receiving.http import EVENT_ID
from chalicelib.postern.receiving.providers import provider
from tests.acceptance import browser as browsers
from tests.deployment.installation import Installation, fetch
from tests.support import eventually

# One at least of each scheme whose samples an account can take that is not the provider's own.
SOURCES = ["github", "stripe", "standard-webhooks", "hmac", "token", "basic", "discord", "sendgrid", "plaid", "adyen"]
SOURCES += ["mailgun", "mailchimp", "microsoft-graph", "braintree", "twitch"]


@pytest.mark.parametrize("source", SOURCES)
def test_a_signed_delivery_to_its_url_becomes_a_row(installation: Installation, source: str) -> None:
    answer = installation.post(source, type=None)

    wanted = provider(source).answer
    assert answer.status == (wanted.status if wanted else 202), answer
    row = installation.row_of(next(v for name, v in answer.headers.items() if name.lower() == EVENT_ID.lower()))
    assert (row["source"], row["status"]) == (source, "processed")


def test_whoever_asks_with_options_may_send_cloud_events(installation: Installation) -> None:
    request = urllib.request.Request(
        f"{installation.address}webhooks/cloudevents",
        headers={"WebHook-Request-Origin": "eventgrid.azure.net"},
        method="OPTIONS",
    )
    with urllib.request.urlopen(request, timeout=60, context=installation.cloud.trust()) as answer:
        assert answer.status == 200
        assert answer.headers["WebHook-Allowed-Origin"] == "eventgrid.azure.net"


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


# The command, with an operator's rights and no path to the database


def test_what_a_provider_sent_and_nobody_has_is_fetched(installation: Installation) -> None:
    """By the command, by the API, and by the clock; by the function that has the token, for whoever has none."""
    assert installation.providers is not None
    installation.providers.deliveries.clear()

    def sent() -> str:
        guid = str(uuid.uuid4())
        assert installation.providers is not None
        body = json.dumps({"n": guid}, separators=(",", ":")).encode()
        at = datetime.now(UTC) - timedelta(hours=1)
        installation.providers.deliver(guid, body, at, installation.secrets["code"], event="star")
        return guid

    def rows(guid: str) -> list[tuple[str, str]]:
        return installation.query("SELECT status, origin FROM postern.events WHERE dedup_key = %s", guid)  # type: ignore[return-value]

    by_command = sent()
    assert "1 never arrived" in installation.postern("reconcile", "code", "--plan").stdout
    assert "1 fetched and accepted." in postern(installation, "reconcile", "code", "--since", "2h")
    eventually(lambda: rows(by_command) == [("processed", "reconciled")], timeout=30)
    too_long = installation.postern("reconcile", "code", "--since", "9d")
    assert (too_long.returncode, "remembers 3 days" in too_long.stderr) == (1, True)

    by_api = sent()
    answer = installation.api("POST", "reconciliations", {"source": "code"})
    while answer.body["reconciliation"]["state"] in ("listing", "fetching"):
        answer = installation.api("POST", f"reconciliations/{answer.body['reconciliation']['id']}/advance")
        assert answer.status == 200, answer
    assert answer.body["reconciliation"]["fetched"] == 1
    eventually(lambda: rows(by_api) == [("processed", "reconciled")], timeout=30)
    refused = installation.api("POST", "reconciliations", {"source": "github"})
    assert (refused.status, refused.body["error"]) == (409, "conflict")

    by_the_clock = sent()
    done = installation.invoke(f"{installation.name}-reconciler", as_event({}))
    assert done["result"] == {"reconcile_gaps": 1, "reconcile_failures": 0}
    eventually(lambda: rows(by_the_clock) == [("processed", "reconciled")], timeout=30)
    [line] = [
        line
        for line in installation.lines(f"{installation.name}-reconciler")
        if line["message"] == "source.reconciled" and line["missing"] == 1
    ]
    assert (line["source"], line["reconcile_gaps"], line["reconcile_failures"]) == ("code", 1, 0)


def postern(installation: Installation, *arguments: str) -> str:
    done = installation.postern(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_operator_sees_events_and_which_secrets_verify_them(installation: Installation) -> None:
    id = installation.post("github").body["id"]
    installation.row_of(id)
    assert id in postern(installation, "events", "--source", "github", "--limit", "5")
    assert f"id         {id}" in postern(installation, "show", id)
    assert "(1 of 1)" in postern(installation, "sources")


def test_what_was_refused_is_kept_explained_and_let_through_once_its_secret_is_known(
    installation: Installation,
) -> None:
    client, arn = installation.cloud.client("secretsmanager"), installation.outputs["SourcesSecretArn"]
    sound = client.get_secret_value(SecretId=arn)["SecretString"]

    def kept() -> set[str]:
        found = json.loads(postern(installation, "rejected", "--source", "github", "--pending", "--json"))
        return {each["id"] for each in found["rejected"]}

    before = kept()
    assert installation.post("github", secret="rotated too early").status == 401
    id = eventually(lambda: next(iter(kept() - before), None), timeout=30)
    assert "unknown" in postern(installation, "explain", id)
    causes = installation.api("GET", f"rejected/{id}/causes").body["causes"]
    assert [each["cause"] for each in causes] == ["unknown"]
    outcome = installation.api("POST", f"rejected/{id}/reverify", {}).body
    assert outcome == {"outcome": "still refused: signature_mismatch", "event_id": None}
    secrets = json.loads(sound)
    client.put_secret_value(
        SecretId=arn, SecretString=json.dumps({**secrets, "github": [secrets["github"], "rotated too early"]})
    )
    try:
        assert "verifies_now" in postern(installation, "explain", id)
        assert f"{id}  let through" in postern(installation, "reverify", id)
        assert installation.row_of(id)["dedup_key"]
        assert id not in kept()
    finally:
        client.put_secret_value(SecretId=arn, SecretString=sound)


def test_an_event_that_is_larger_than_a_functions_answer_is_shown_byte_for_byte(installation: Installation) -> None:
    body = json.dumps({"type": "order.created", "noise": random.randbytes(2_500_000).hex()}).encode()
    id = installation.post("hmac", body).body["id"]
    installation.row_of(id)
    assert postern(installation, "show", id, "--body").encode() == body


def broken(installation: Installation) -> tuple[str, str]:
    """An event whose handler gives it up until it is mended: its id, and what is to be mended."""
    what = uuid.uuid4().hex
    body = json.dumps({"type": "order.mending", "what": what}).encode()
    id: str = installation.post("hmac", body, type="order.mending").body["id"]
    eventually(lambda: [row["status"] for row in installation.rows([id])] == ["dead"], timeout=30)
    return id, what


def mend(installation: Installation, what: str) -> None:
    installation.query("INSERT INTO public.mended VALUES (%s)", what)


def orders(installation: Installation, id: str) -> int:
    return int(installation.query("SELECT count(*) FROM public.orders WHERE event_id = %s", id)[0][0])


def test_a_dead_event_is_looked_into_mended_and_replayed_through_the_store_function(
    installation: Installation,
) -> None:
    id, what = broken(installation)
    issues = json.loads(postern(installation, "issues", "--json"))
    [issue] = [issue for issue in issues if issue["message"] == "It is not mended yet."]
    assert issue["handler"] == "orders.mend"
    assert "raise PermanentError" in postern(installation, "issues", issue["id"])
    assert "attempt 1 (first) dead" in postern(installation, "show", id)
    mend(installation, what)
    assert "1 processed" in postern(installation, "replay", id)
    assert installation.row_of(id)["attempts"] == 2
    assert orders(installation, id) == 1
    assert "attempt 2 (replay) processed" in postern(installation, "show", id)
    # Its letter went with it.
    assert id not in postern(installation, "dead", "--limit", "200")


def test_a_dead_letter_is_listed_and_redriven_through_the_store_function(installation: Installation) -> None:
    id, what = broken(installation)
    eventually(lambda: id in postern(installation, "dead", "--limit", "200"))
    mend(installation, what)
    assert "1 dead letters are back" in postern(installation, "dead", "redrive", "--id", id, "--yes")
    assert installation.row_of(id)["attempts"] == 2
    assert orders(installation, id) == 1


def test_what_the_store_function_is_asked_in_vain_is_a_sentence(installation: Installation) -> None:
    done = installation.postern("replay", "--cancel", str(uuid.uuid4()))
    assert (done.returncode, done.stderr[:27]) == (1, "postern: There is no replay")


def test_everything_else_is_answered_through_the_store_function_too(installation: Installation) -> None:
    id = installation.post("hmac", json.dumps({"type": "order.created", "n": random.random()}).encode()).body["id"]
    installation.row_of(id)
    dry = json.loads(postern(installation, "dry-run", id, "--json"))
    assert (dry["outcome"], [change["table"] for change in dry["changes"]]) == ("processed", ["public.orders"])
    assert orders(installation, id) == 1
    status = json.loads(installation.postern("status", "--json").stdout)
    assert "hmac" in {source["source"] for source in status["sources"] if source["last_seen"]}
    storage = json.loads(postern(installation, "storage", "--json"))
    assert {"events", "attempts"} <= {table["name"] for table in storage["tables"]}
    assert "missing" in json.loads(postern(installation, "ledger", "--json"))
    assert isinstance(json.loads(postern(installation, "drift", "--json")), list | dict)
    assert isinstance(json.loads(postern(installation, "replays", "--json")), list)
    assert "curl" in postern(installation, "export", id, "--curl", "--to", "http://localhost:1/")
    assert any(row["source"] == "hmac" for row in json.loads(postern(installation, "sources", "--json")))


def test_the_api_lets_in_whoever_has_a_token_and_until_it_is_revoked(installation: Installation) -> None:
    id = installation.post("hmac").body["id"]
    installation.processed([id])
    made = installation.postern("tokens", "make", "reader")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    assert "reader" in installation.postern("tokens", "list").stdout

    found = eventually(lambda: _event_by_api(installation, id, token))
    assert found["status"] == "processed"
    assert installation.api("GET", "session", token=token).body["role"] == "read"
    assert installation.api("POST", "replays", {"ids": [id]}, token=token).status == 403
    assert installation.api("GET", "dead-letters").status == 200

    assert installation.postern("tokens", "revoke", "reader").returncode == 0
    eventually(lambda: installation.api("GET", "session", token=token).status == 401, every=1)


def _event_by_api(installation: Installation, id: str, token: str) -> dict[str, Any] | None:
    """Once the function knows of the token."""
    answer = installation.api("GET", f"events/{id}", token=token)
    return answer.body["event"] if answer.status == 200 else None


def test_a_browser_trades_a_token_for_a_session(installation: Installation) -> None:
    login = installation.api("POST", "session", {"token": installation.token})
    cookie = login.headers["Set-Cookie"]
    assert cookie.startswith("__Host-postern_session=")
    assert cookie.endswith("; HttpOnly; SameSite=Strict; Secure")
    headers = {"Cookie": cookie.partition(";")[0]}
    answer = fetch(f"{installation.address}api/status", None, headers, installation.cloud.trust())
    assert (answer.status, answer.headers["Strict-Transport-Security"]) == (200, "max-age=31536000")


def test_the_function_behind_the_api_does_nothing_without_a_token(installation: Installation) -> None:
    """Whoever may invoke it, as the public function may."""
    request = {"method": "GET", "path": "/api/events", "query": {}, "body": None, "session": None, "csrf": None}
    answer = installation.invoke(f"{installation.name}-backend", {**request, "token": None, "if_none_match": None})
    assert (answer["failed"], answer["result"]["status"]) == (False, 401)
    assert installation.invoke(f"{installation.name}-backend", {"action": "events"})["failed"]


def test_the_console_works_there(installation: Installation) -> None:
    """In a browser, through the emulated API Gateway, with every role no wider than it has to be."""
    [id] = [installation.post("github").body["id"]]
    installation.row_of(id)
    wrong: list[str] = []
    with browsers.chromium() as chromium:
        page = browsers.page_of(chromium, wrong, ignore_https_errors=True)
        page.set_default_timeout(30_000)
        page.goto(f"{installation.address}console")
        page.get_by_label("Token").fill(installation.token)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Sources")).to_be_visible(timeout=30_000)
        page.goto(f"{installation.address}console#/events/{id}")
        page.get_by_role("button", name="Process again").click()
        page.locator("dialog").get_by_role("button", name="Process again").click()
        expect(page.locator("h1")).to_contain_text("done", timeout=30_000)
    assert wrong == []
    assert installation.rows([id])[0]["attempts"] == 2
