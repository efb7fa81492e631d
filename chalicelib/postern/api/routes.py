"""The API's paths, and which of the operator's actions each of them is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import unquote


@dataclass(frozen=True)
class Route:
    """`id` is the operation's name in the API's description, and `action` what the operator calls it.

    `given`: arguments that the path stands for. `one`: the part of the result that is null where there is no such
    thing, which is then a 404. `pages`: the list in the result that comes in pages, each asked for by the last id of
    the one before. `sweeps`: without an argument it would be about everything, which has to be said. `looks`: it
    changes nothing, though it is no question to the database.
    """

    method: str
    path: str
    id: str
    action: str
    summary: str
    given: Mapping[str, str] = field(default_factory=dict)
    one: str | None = None
    pages: str | None = None
    sweeps: bool = False
    looks: bool = False

    @property
    def steps(self) -> list[str]:
        return self.path.removeprefix("/api/").split("/")


_get, _post = partial(Route, "GET"), partial(Route, "POST")

# What the backend does itself, for which there is no action.
OPEN_SESSION, WHO, CLOSE_SESSION, DESCRIPTION = "open_session", "who", "close_session", "description"

# What needs the sources' secrets: the backend finds the delivery, and the relay has them.
EXPLAIN, REVERIFY = "explain_rejected", "reverify_rejected"

# What needs the providers as well: the backend finds out whether the caller may, and the reconciler does it.
RECONCILE, ADVANCE = "ask_reconciliation", "advance_reconciliation"

ROUTES: Sequence[Route] = (
    _post("/api/session", "openSession", OPEN_SESSION, "Log in with a token: opens a session, which is a cookie."),
    _get("/api/session", "getSession", WHO, "Who asks: the token's name and role, and when the session ends."),
    Route("DELETE", "/api/session", "closeSession", CLOSE_SESSION, "Log out."),
    _get("/api/openapi.json", "getDescription", DESCRIPTION, "This description."),
    _get("/api/version", "getVersion", "version", "Which Postern answers, and of which release."),
    _get("/api/status", "getStatus", "status", "How the inbox does: each source, what failed, the ledger."),
    _get("/api/queues", "getQueues", "queues", "How many messages the queues hold, about.", looks=True),
    _get("/api/stats", "getStats", "stats", "How many came and what became of them, by minute, hour or day."),
    _get("/api/events", "listEvents", "events", "Stored events, the newest first.", pages="events"),
    _get("/api/events/stream", "streamEvents", "stream", "Stored events in the order in which they were written."),
    _get("/api/events/{id}", "getEvent", "show", "One event, with its bytes and its tries.", one="event"),
    _get("/api/events/{id}/body", "getEventBody", "body", "A part of its bytes.", given={"of": "event"}),
    _post("/api/events/{id}/dry-run", "dryRunEvent", "dry_run", "Runs its handlers and takes everything back."),
    _get("/api/deliveries/{id}", "getDelivery", "show_delivery", "The whole of a delivery.", one="delivery"),
    _get("/api/deliveries/{id}/body", "getDeliveryBody", "body", "A part of its bytes.", given={"of": "delivery"}),
    _get("/api/known", "findKey", "find", "All that came with this id of a provider's."),
    _get("/api/sources", "listSources", "secrets_used", "Which of the sources' secrets verified events lately."),
    _get("/api/issues", "listIssues", "issues", "Failures, grouped by what and where.", pages="issues"),
    _get("/api/issues/{id}", "getIssue", "show_issue", "One issue."),
    Route("PATCH", "/api/issues/{id}", "setIssue", "set_issue", "Acknowledges, resolves or reopens an issue."),
    _get("/api/rejected", "listRejected", "rejected", "Refused deliveries that were kept.", pages="rejected"),
    _get("/api/rejected/{id}", "getRejected", "show_rejected", "One of them, with its bytes.", one="rejected"),
    _get("/api/rejected/{id}/causes", "explainRejected", EXPLAIN, "Why it was refused.", one="rejected"),
    _post("/api/rejected/{id}/reverify", "reverifyRejected", REVERIFY, "Verifies it again.", one="rejected"),
    _post("/api/rejected/{id}/resolve", "resolveRejected", "resolve_rejected", "Notes as what it was let through."),
    _get("/api/duplicates", "listDuplicates", "duplicates", "What was taken for a repetition.", pages="duplicates"),
    _get("/api/duplicates/{id}", "getDuplicate", "show_duplicate", "One of them.", one="duplicate"),
    _post("/api/duplicates/{id}/accept", "acceptDuplicate", "accept_duplicate", "Makes it an event of its own."),
    _get("/api/dead-letters", "listDeadLetters", "dead_letters", "Some of the letters in the dead-letter queue."),
    _post("/api/dead-letters/purge", "purgeDeadLetters", "purge_dead_letters", "Deletes letters; their rows stay."),
    _post("/api/dead-letters/sweep", "sweepDeadLetters", "sweep_dead_letters", "Deletes those of processed events."),
    _post("/api/redrives", "startRedrive", "start_redrive", "Moves letters back to the queue, in steps.", sweeps=True),
    _post("/api/redrives/{id}/advance", "advanceRedrive", "advance_redrive", "The next step of a redrive."),
    _post("/api/redrives/{id}/cancel", "cancelRedrive", "cancel_replay", "Ends a redrive; what was moved stays moved."),
    _get("/api/replays", "listReplays", "replays", "Replays and redrives, the newest first.", pages="replays"),
    _post("/api/replays", "startReplay", "start_replay", "Queues stored events again, in steps.", sweeps=True),
    _post("/api/replays/plan", "planReplay", "plan_replay", "How many events a replay would be of, and some of them."),
    _get("/api/replays/{id}", "getReplay", "show_replay", "One replay or redrive, and how far it is."),
    _post("/api/replays/{id}/advance", "advanceReplay", "advance_replay", "The next step of a replay."),
    _post("/api/replays/{id}/cancel", "cancelReplay", "cancel_replay", "Ends a replay; what is queued is still tried."),
    _get(
        "/api/reconciliations",
        "listReconciliations",
        "reconciliations",
        "Comparisons with providers.",
        pages="reconciliations",
    ),
    _post("/api/reconciliations", "startReconciliation", RECONCILE, "Begins one, which goes on in steps."),
    _get("/api/reconciliations/{id}", "getReconciliation", "show_reconciliation", "One of them.", one="reconciliation"),
    _get("/api/reconciliations/{id}/gaps", "listGaps", "gaps", "What it found, by key."),
    _post(
        "/api/reconciliations/{id}/advance", "advanceReconciliation", ADVANCE, "The next step.", one="reconciliation"
    ),
    _post("/api/reconciliations/{id}/cancel", "cancelReconciliation", "cancel_reconciliation", "Ends it."),
    _get("/api/ledger", "getLedger", "ledger", "What was accepted, against what is in the tables."),
    _post("/api/ledger/write-offs", "writeOff", "write_off", "Notes that what is missing is known to be."),
    _get("/api/storage", "getStorage", "storage", "How much room events take, and for how long they stay."),
    _get("/api/drift", "listDrift", "drift", "Changes of payloads' shapes.", pages="drift"),
    _post("/api/drift/accept", "acceptDrift", "accept_drift", "Takes changes for usual from now on.", sweeps=True),
    _get("/api/shape", "getShape", "shape", "What payloads of this type usually have in them.", one="shape"),
    _get("/api/handlers", "listHandlers", "handlers", "The team's handlers, and the types that they take."),
)


def find(method: str, path: str) -> tuple[Route | None, dict[str, str], list[str]]:
    """The route, what its path names, and the methods that the path has; none where there is no such path.

    A path that is written out goes before one with a name in it. HEAD is a GET whose body nobody reads.
    """
    method = "GET" if method == "HEAD" else method
    steps = [unquote(step) for step in path.removeprefix("/api/").split("/")]
    fitting = [route for route in ROUTES if _fits(route.steps, steps)]
    written = [route for route in fitting if "{id}" not in route.path] or fitting
    chosen = next((route for route in written if route.method == method), None)
    names = {"id": steps[1]} if chosen is not None and "{id}" in chosen.path else {}
    return chosen, names, [route.method for route in written]


def _fits(pattern: Sequence[str], steps: Sequence[str]) -> bool:
    return len(pattern) == len(steps) and all(part in ("{id}", step) for part, step in zip(pattern, steps, strict=True))
