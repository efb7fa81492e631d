"""The doors: routes, the queue, the schedule and the store function. Each reads, calls one function, answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from chalice import Chalice, Rate, Response
from chalice.app import CloudWatchEvent, Request, SQSEvent

from chalicelib import http, logs, naming, wiring
from chalicelib.deliveries import Delivery, Headers
from chalicelib.errors import MethodNotAllowed, Refusal
from chalicelib.ingest import accept
from chalicelib.tracing import trace_header, trace_id

app = Chalice(app_name=logs.SERVICE, configure_logs=False)


@app.route("/health", methods=["GET"])
def health() -> Response:
    return _response(http.Answer(200, {"status": "ok"}))


# Every method and content type, because the answers to the wrong ones are ours to give.
@app.route(
    "/webhooks/{source}",
    methods=["POST", "GET", "HEAD", "PUT", "PATCH", "DELETE"],
    content_types=["*/*"],
)
def receive(source: str) -> Response:
    request = app.current_request
    assert request is not None  # Chalice sets it before it calls a view
    started = time.perf_counter()
    request_id = naming.request_id(request.context.get("requestId"))
    # Lambda sets it anew with each request that is traced.
    trace = trace_header(os.environ.get("_X_AMZN_TRACE_ID"))
    outcome: dict[str, Any] = {"source": source, "request_id": request_id, "trace_id": trace_id(trace), "bytes": None}
    failed = True
    try:
        if request.method != "POST":
            raise MethodNotAllowed("method")
        delivery = Delivery(source, _headers(request), _body(request), wiring.utc_now(), request_id, trace)
        outcome["bytes"] = len(delivery.body)
        receipt = accept(delivery, wiring.inbox())
        outcome |= {
            "id": str(receipt.id),
            "type": receipt.type,
            "dedup_key": receipt.dedup_key,
            "secret": receipt.secret,
        }
        failed = False
        answer = http.accepted(receipt)
    except Refusal as refusal:
        outcome |= {"error": refusal.code, "reason": refusal.reason}
        answer = http.refused(refusal)
    outcome |= {
        "status": answer.status,
        "duration_ms": round((time.perf_counter() - started) * 1000, 1),
    }
    logs.line("delivery.rejected" if failed else "delivery.accepted", failed=failed, **outcome)
    return _response(answer)


# The packaged deployment's template has its own words on each of these; a native one reads them here.
@app.on_sqs_message(queue=wiring.queue_name(), batch_size=10, maximum_concurrency=10)
def processor(event: SQSEvent) -> dict[str, Any]:
    return wiring.consumer().consume(event.to_dict()["Records"])


@app.schedule(Rate(1, unit=Rate.HOURS))
def maintenance(event: CloudWatchEvent) -> dict[str, Any]:
    return wiring.operator().maintain()


@app.lambda_function(name="store")
def store(event: dict[str, Any], context: object) -> dict[str, Any]:
    return wiring.operator().perform(event)


@app.middleware("http")
def answer_in_our_shape(request: Request, get_response: Callable[[Request], Response]) -> Response:
    """Whatever goes wrong, the sender sees our error shape, and no more of us than that."""
    try:
        response = get_response(request)
    except Exception:
        logs.logger().exception("request.failed")
        return _response(http.framework_error(500))
    if isinstance(response.body, dict) and "Code" in response.body:
        answer = http.framework_error(response.status_code)
        return Response(answer.body, {**response.headers, **answer.headers}, answer.status)
    return response


def _headers(request: Request) -> Headers:
    event = request.to_original_event()
    repeated = event.get("multiValueHeaders")
    if repeated:
        return Headers((name, value) for name, values in repeated.items() for value in values)
    return Headers((event.get("headers") or {}).items())


def _body(request: Request) -> bytes:
    body = request.raw_body
    return body if isinstance(body, bytes) else body.encode()


def _response(answer: http.Answer) -> Response:
    return Response(answer.body, {"Content-Type": "application/json", **answer.headers}, answer.status)
