"""The doors: routes, the queue, the schedule and the store function. Each reads, calls one function, answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from chalice import Chalice, Rate, Response
from chalice.app import CloudWatchEvent, Request, SQSEvent

from chalicelib.postern.contract.answers import Answer, error
from chalicelib.postern.contract.deliveries import Delivery, Greeting, Headers
from chalicelib.postern.contract.errors import Refusal, UnknownAction, UnsupportedMediaType
from chalicelib.postern.contract.tracing import trace_header, trace_id
from chalicelib.postern.receiving import http, naming
from chalicelib.postern.receiving.ingest import accept
from chalicelib.postern.running import logs, wiring

if TYPE_CHECKING:
    from chalicelib.postern.api.relay import Relay

app = Chalice(app_name=logs.SERVICE, configure_logs=False)
# What API Gateway hands on byte for byte where Chalice deploys it; the packaged template has it do so with everything.
# Never "*/*" here: Chalice would refuse clients without an Accept header, after the view ran.
app.api.binary_types += ["multipart/form-data", "application/gzip", "application/x-gzip", "application/pdf"]


# A source's name has no more.
_MAX_LOGGED_NAME_LENGTH = 64


@app.route("/health", methods=["GET"])
def health() -> Response:
    return _response(Answer(200, {"status": "ok", **wiring.version()}))


# Routes take every method and content type where the answers to the wrong ones are ours to give.
_EVERY_METHOD = ["POST", "GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"]


@app.route("/webhooks/{source}", methods=_EVERY_METHOD, content_types=["*/*"])
def receive(source: str) -> Response:
    request = app.current_request
    assert request is not None  # Chalice sets it before it calls a view
    started = time.perf_counter()
    # Anybody can make one up, of any length.
    outcome: dict[str, Any] = {"source": source[:_MAX_LOGGED_NAME_LENGTH], "bytes": None}
    counted, number = "rejected", 1
    counts: dict[str, int] = {}
    at: datetime | None = None
    try:
        delivery = _delivery(source, request)
        outcome["bytes"] = len(delivery.body)
        result = accept(delivery, wiring.inbox())
        if isinstance(result, Greeting):
            answer = http.greeted(result)
            logs.line("delivery.greeted", status=answer.status, **outcome)
            return _response(answer)
        outcome |= {
            "id": str(result.id),
            "events": len(result.ids),
            "type": result.type,
            "dedup_key": result.dedup_key,
            "secret": result.secret,
        }
        if result.fingerprint is not None:
            outcome["secret_used"] = f"{source}/{result.fingerprint}"
            counts = {"secret_matches": 1}
        # The minute that the ledger finds the events' rows in, however long the answer took.
        counted, number, at = "accepted", len(result.ids), delivery.received_at
        answer = http.accepted(result)
    except Refusal as refusal:
        outcome |= {
            "reason": refusal.code,
            "detail": refusal.reason,
            "kept": refusal.kept and str(refusal.kept),
            "not_kept": refusal.not_kept,
        }
        if refusal.not_kept and refusal.verified:
            counts = {"verified_not_kept": 1}  # it was its sender's, and is gone
        answer = http.refused(refusal)
    except Exception:
        # Chalice would answer it with a 500 as well, and log it as lines of text that no metric can be taken from.
        answer = http.framework_error(500)
        outcome |= {"status": answer.status, "reason": "internal_error"}
        logs.crash("request.failed", metrics={"rejected": 1, "ack_ms": logs.ms_since(started)}, **outcome)
        return _response(answer)
    logs.line(
        f"delivery.{counted}",
        failed=counted == "rejected",
        metrics={counted: number, **counts, "ack_ms": logs.ms_since(started)},
        at=at,
        status=answer.status,
        **outcome,
    )
    return _response(answer)


# The packaged deployment's template has its own words on each of these; a native one reads them here.
@app.on_sqs_message(queue=wiring.queue_name(), batch_size=10, maximum_concurrency=10)
def processor(event: SQSEvent) -> dict[str, Any]:
    _begin(event.context)
    logs.listen_to_handlers()
    return wiring.consumer().consume(event.to_dict()["Records"], _time_left(event.context))


@app.schedule(Rate(5, unit=Rate.MINUTES))
def maintenance(event: CloudWatchEvent) -> dict[str, Any]:
    _begin(event.context)
    with logs.timed("maintenance") as fields:
        done = wiring.operator().maintain()
        fields |= done
    return done


@app.lambda_function(name="store")
def store(event: dict[str, Any], context: object) -> dict[str, Any]:
    _begin(context)
    logs.listen_to_handlers()
    try:
        # The action's name only: its arguments and its result may be data.
        with logs.timed("store", action=str(event.get("action"))[:40]):
            return wiring.operator().perform(event)
    except UnknownAction as exc:
        # The function works; what it was asked for does not. A sentence for whoever asked.
        return {"refused": str(exc)}


@app.lambda_function(name="reader")
def reader(event: dict[str, Any], context: object) -> dict[str, Any]:
    """What of the store function changes nothing, for those who may look and no more."""
    _begin(context)
    try:
        with logs.timed("reader", action=str(event.get("action"))[:40]):
            return wiring.reader().perform(event)
    except UnknownAction as exc:
        return {"refused": str(exc)}


# Where the providers' tokens are and the internet is, and no way to the database: that the store function has. Whoever
# asks for more than the hourly round says what in the event's detail.
@app.schedule(Rate(1, unit=Rate.HOURS))
def reconciler(event: CloudWatchEvent) -> dict[str, Any]:
    _begin(event.context)
    with logs.timed("reconciler", asked=next(iter(event.detail), "hourly")) as fields:
        if event.detail:
            return wiring.reconciler().answer(event.detail)
        done = wiring.reconciler().by_the_clock(_time_left(event.context))
        fields |= done
    return done


# What the paths are, the backend knows; none has more steps.
@app.route("/api/{first}", methods=_EVERY_METHOD, content_types=["*/*"])
@app.route("/api/{first}/{second}", methods=_EVERY_METHOD, content_types=["*/*"])
@app.route("/api/{first}/{second}/{third}", methods=_EVERY_METHOD, content_types=["*/*"])
def api(first: str, second: str = "", third: str = "") -> Response:
    request = app.current_request
    assert request is not None
    from chalicelib.postern.api.relay import Request as Asked

    started = time.perf_counter()
    relay = _relay()
    if isinstance(relay, Answer):
        return _response(relay)
    asked = Asked(
        method=request.method,
        path="/".join(filter(None, ("/api", first, second, third))),
        query=request.to_original_event().get("multiValueQueryStringParameters") or {},
        headers=_headers(request),
        body=_body(request),
        address=(request.context.get("identity") or {}).get("sourceIp") or "",
        secure=wiring.config().is_deployed,
    )
    answer = relay.answer(asked)
    logs.line("api.answered", status=answer.status, method=request.method, duration_ms=logs.ms_since(started))
    return _response(answer)


@app.route("/console", methods=["GET"])
def console_page() -> Response:
    request = app.current_request
    if request is not None and (request.context.get("path") or "").endswith("/"):
        # What the page asks for stands beside it, not below it.
        return Response("", {"Location": "../console"}, 308)
    return _console(lambda console, secure: console.page(secure=secure))


@app.route("/console/{release}/{name}", methods=["GET"])
def console_file(release: str, name: str) -> Response:
    return _console(lambda console, secure: console.file(release, name, secure=secure))


def _console(answer: Callable[[Any, bool], Answer]) -> Response:
    """The console is there where the API is."""
    from chalicelib.postern.api import console

    relay = _relay()
    return _response(relay if isinstance(relay, Answer) else answer(console, wiring.config().is_deployed))


def _relay() -> Relay | Answer:
    """The API's, or what to say where there is none."""
    try:
        return wiring.relay() or error(404, "not_found", "There is nothing here.")
    except Refusal as refusal:  # `chalice local` by itself
        return http.refused(refusal)


@app.lambda_function(name="backend")
def backend(event: dict[str, Any], context: object) -> dict[str, Any]:
    """What the API asks for a caller of its own: who that is, this function finds out itself."""
    _begin(context)
    with logs.timed("backend", method=str(event.get("method"))[:10]) as fields:
        return wiring.backend().answer(event, fields.update)


@app.middleware("http")
def answer_in_our_shape(request: Request, get_response: Callable[[Request], Response]) -> Response:
    """Whatever goes wrong, the sender sees our error shape, and no more of us than that."""
    try:
        _begin(request.lambda_context, request_id=_request_id(request), trace_id=trace_id(_trace()))
        response = get_response(request)
    except Exception:
        logs.crash("request.failed", status=500)
        return _response(http.framework_error(500))
    if isinstance(response.body, dict) and "Code" in response.body:
        answer = http.framework_error(response.status_code)
        return Response(answer.body, {**response.headers, **answer.headers}, answer.status)
    return response


def _delivery(source: str, request: Request) -> Delivery:
    headers = _headers(request)
    query = _query(request)
    body = _body(request)
    if _came_as_text(request, headers, body):
        raise UnsupportedMediaType(
            "came_as_text",
            message="API Gateway made a text of this body, and bytes of it are lost (docs/sources.md, Bodies).",
        )
    return Delivery(
        source=source,
        headers=headers,
        body=body,
        received_at=wiring.utc_now(),
        request_id=_request_id(request),
        trace=_trace(),
        method=request.method,
        url=_url(request, headers, query),
        query=query,
    )


def _query(request: Request) -> list[tuple[str, str]]:
    values = request.to_original_event().get("multiValueQueryStringParameters") or {}
    return [(name, value) for name, several in values.items() for value in several]


def _url(request: Request, headers: Headers, query: list[tuple[str, str]]) -> str:
    """The address as the sender has it. API Gateway knows by which of its own names it was called; the local server
    goes by what the request says. API Gateway decodes the query, which is then written as senders mostly write it.
    """
    domain = request.context.get("domainName")
    base = f"https://{domain}" if domain else f"http://{headers.get('host', 'localhost')}"
    path = request.context.get("path") or request.path
    written = request.to_original_event().get("rawQueryString") or urlencode(query)
    return base + path + (f"?{written}" if written else "")


def _time_left(context: Any) -> Callable[[], float]:
    """In seconds, as Lambda counts it."""
    return lambda: context.get_remaining_time_in_millis() / 1000


def _begin(context: object, **fields: Any) -> None:
    logs.begin(context, stage=wiring.config().stage, **fields)


def _request_id(request: Request) -> str | None:
    return naming.request_id(request.context.get("requestId"))


def _trace() -> str | None:
    # Lambda sets it anew with each request.
    return trace_header(os.environ.get("_X_AMZN_TRACE_ID"))


def _headers(request: Request) -> Headers:
    event = request.to_original_event()
    repeated = event.get("multiValueHeaders")
    if repeated:
        return Headers((name, value) for name, values in repeated.items() for value in values)
    return Headers((event.get("headers") or {}).items())


def _body(request: Request) -> bytes:
    body = request.raw_body
    return body if isinstance(body, bytes) else body.encode()


def _came_as_text(request: Request, headers: Headers, body: bytes) -> bool:
    """Whether bytes that are no text were made one on the way, each a U+FFFD."""
    if request.to_original_event().get("isBase64Encoded") or "domainName" not in request.context:
        return False
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_text = kind.startswith("text/") or kind.endswith(("json", "xml", "x-www-form-urlencoded")) or not kind
    packed = headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip", "deflate", "br", "zstd")
    return "\ufffd".encode() in body and (packed or not is_text)


def _response(answer: Answer) -> Response:
    body = answer.body if isinstance(answer.body, str) else dict(answer.body)
    # Some answers to handshakes hold what was asked: it is no page, whatever it looks like.
    ours = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}
    return Response(body, {**ours, **answer.headers}, answer.status)


wiring.begin(os.environ)
