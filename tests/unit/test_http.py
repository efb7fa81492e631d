"""Every outcome as the sender sees it."""

from __future__ import annotations

import json
import uuid

import pytest

from chalicelib.postern.contract.errors import (
    InvalidPayload,
    InvalidSignature,
    MethodNotAllowed,
    PayloadTooLarge,
    QueueUnavailable,
    Refusal,
    SecretUnavailable,
    UnknownSource,
    UnsupportedMediaType,
)
from chalicelib.postern.receiving import http
from chalicelib.postern.receiving.ingest import Receipt

REFUSALS: dict[type[Refusal], tuple[int, str, dict[str, str]]] = {
    InvalidPayload: (400, "invalid_payload", {}),
    InvalidSignature: (401, "invalid_signature", {}),
    UnknownSource: (404, "unknown_source", {}),
    MethodNotAllowed: (405, "method_not_allowed", {"Allow": "POST"}),
    PayloadTooLarge: (413, "payload_too_large", {}),
    UnsupportedMediaType: (415, "unsupported_media_type", {}),
    QueueUnavailable: (503, "queue_unavailable", {"Retry-After": "5"}),
    SecretUnavailable: (503, "secret_unavailable", {"Retry-After": "30"}),
}

each_refusal = pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.__name__)


def test_an_accepted_delivery_is_answered_202_with_its_events_id() -> None:
    id = uuid.uuid4()
    answer = http.accepted(Receipt([id], "push", "d-1", secret=1))
    assert (answer.status, answer.body) == (202, {"status": "accepted", "id": str(id)})


def test_there_is_no_refusal_beside_those_that_are_documented() -> None:
    assert set(Refusal.__subclasses__()) == set(REFUSALS)


@each_refusal
def test_a_refusal_is_answered_in_one_shape_with_its_status_code_and_sentence(refusal: type[Refusal]) -> None:
    answer = http.refused(refusal("why"))
    status, code, headers = REFUSALS[refusal]
    assert (answer.status, answer.body["error"], answer.headers) == (status, code, headers)
    assert set(answer.body) == {"error", "message", "details"}
    assert answer.body["message"].endswith(".")
    assert answer.body["details"] == {}
    json.dumps(answer.body)


@each_refusal
def test_the_reason_is_for_the_log_and_not_for_the_sender(refusal: type[Refusal]) -> None:
    answer = http.refused(refusal("canary"))
    assert "canary" not in f"{answer}"
    assert refusal("canary").reason == "canary"


def test_details_reach_the_sender() -> None:
    answer = http.refused(InvalidPayload("schema", message="It does not fit.", details={"a": ["Not a number."]}))
    assert answer.body["message"] == "It does not fit."
    assert answer.body["details"] == {"a": ["Not a number."]}


def test_one_refusals_message_is_not_anothers() -> None:
    InvalidPayload("schema", message="Special.")
    assert InvalidPayload("other").message == "The body is not valid."


def test_an_error_of_ours_is_never_a_4xx_and_says_when_to_come_back() -> None:
    """A provider that gets a 4xx may drop the event for good."""
    for refusal in (QueueUnavailable, SecretUnavailable):
        answer = http.refused(refusal("why"))
        assert answer.status >= 500
        assert int(answer.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("status", "code"), [(405, "method_not_allowed"), (415, "unsupported_media_type"), (500, "internal_error")]
)
def test_the_frameworks_own_errors_take_our_shape(status: int, code: str) -> None:
    answer = http.framework_error(status)
    assert (answer.status, answer.body["error"], answer.body["details"]) == (status, code, {})
    assert answer.body["message"].endswith(".")


def test_two_answers_share_no_headers() -> None:
    first = http.framework_error(500)
    first.headers["X"] = "1"
    assert http.framework_error(500).headers == {}
