"""The shapes of the API's answers, as its description has them. The tests hold every answer against these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from chalicelib.postern.api import routes

Json = dict[str, Any]

_TIME: Json = {"type": "string", "format": "date-time"}
_UUID: Json = {"type": "string", "format": "uuid"}
_TEXT: Json = {"type": "string"}
_COUNT: Json = {"type": "integer", "minimum": 0}
_WHOLE: Json = {"type": "integer"}
_NUMBER: Json = {"type": "number"}
_FLAG: Json = {"type": "boolean"}
_BYTES: Json = {"type": "string", "contentEncoding": "base64"}
_ANY: Json = {}
_COUNTS: Json = {"type": "object", "additionalProperties": _COUNT}
_STATUS: Json = {"type": "string", "enum": ["processed", "stale", "failed", "dead"]}
_PAGE: Json = {
    "type": ["object", "null"],
    "properties": {"before": {"type": ["string", "integer"]}},
    "required": ["before"],
    "additionalProperties": False,
}


def _maybe(schema: Json) -> Json:
    """Of a schema that names its type."""
    return {**schema, "type": [schema["type"], "null"]}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


def _object(**properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_NAMED: Json = {"id": _UUID, "source": _TEXT, "type": _TEXT}
_BEGINNING: Json = {**_NAMED, "status": _STATUS, "attempts": _COUNT, "error": _maybe(_TEXT), "received_at": _TIME}
_KEYED: Json = {**_BEGINNING, "dedup_key": _TEXT, "processed_at": _maybe(_TIME)}
_REPETITION: Json = {
    "id": _UUID,
    "event_id": _UUID,
    "source": _TEXT,
    "type": _maybe(_TEXT),
    "dedup_key": _TEXT,
    "why": _maybe(_TEXT),
    "received_at": _TIME,
    "accepted_at": _maybe(_TIME),
}
_REFUSED: Json = {
    "id": _UUID,
    "source": _TEXT,
    "received_at": _TIME,
    "reason": _TEXT,
    "verified": _FLAG,
    "method": _TEXT,
    "event_id": _maybe(_UUID),
    "note": _maybe(_TEXT),
}
_ISSUE: Json = {
    "id": _TEXT,
    "state": {"type": "string", "enum": ["open", "acknowledged", "resolved"]},
    "count": _COUNT,
    "handler": _TEXT,
    "error_class": _TEXT,
    "message": _TEXT,
    "first_seen": _TIME,
    "last_seen": _TIME,
}
_REPLAY: Json = {
    "id": _UUID,
    "kind": {"type": "string", "enum": ["replay", "redrive"]},
    "trigger": _TEXT,
    "filter": {"type": "object"},
    "state": {"type": "string", "enum": ["running", "done", "cancelled"]},
    "total": _COUNT,
    "moved": _COUNT,
    "rate": _COUNT,
    "created_at": _TIME,
    "finished_at": _maybe(_TIME),
}
_RECONCILED: Json = {
    "reconciliation": {"$ref": "#/components/schemas/Reconciliation"},
    "held": _maybe(_TEXT),
    "seconds": _maybe(_NUMBER),
}
_BALANCE: Json = dict.fromkeys(("accepted", "stored", "duplicates", "written_off", "missing", "surplus"), _COUNT)
_REASON: Json = {"source": _TEXT, "count": _COUNT}
_DEPTH: Json = _object(waiting=_COUNT, in_work=_COUNT, delayed=_COUNT)

SCHEMAS: Mapping[str, Json] = {
    "Error": _object(error=_TEXT, message=_TEXT, details={"type": "object"}),
    "Caller": _object(
        name=_TEXT,
        role={"type": "string", "enum": ["read", "operate"]},
        fingerprint=_TEXT,
        ends_at=_maybe(_TIME),
        csrf=_maybe(_TEXT),
    ),
    "EventRow": _object(**_KEYED),
    "StreamedEvent": {
        **_object(**_KEYED, bytes=_COUNT, cursor=_TEXT),
        "properties": {
            **_KEYED,
            "bytes": _COUNT,
            "cursor": _TEXT,
            "headers": {"type": "object"},
            "body": _maybe(_BYTES),
        },
    },
    "Try": _object(
        number=_COUNT,
        trigger=_TEXT,
        outcome=_STATUS,
        started_at=_TIME,
        duration_ms=_maybe(_NUMBER),
        handler=_maybe(_TEXT),
        error_class=_maybe(_TEXT),
        message=_maybe(_TEXT),
        traceback=_maybe(_TEXT),
        issue_id=_maybe(_TEXT),
        replay_id=_maybe(_UUID),
    ),
    "Repetition": _object(**_REPETITION),
    "Event": _object(
        **_KEYED,
        queued_at=_maybe(_TIME),
        origin=_maybe(_TEXT),
        request_id=_maybe(_TEXT),
        delivery_id=_maybe(_UUID),
        secret=_maybe(_TEXT),
        same_body_as=_maybe(_UUID),
        headers={"type": "object"},
        body=_maybe(_BYTES),
        bytes=_COUNT,
        attempts_made=_list(ref("Try")),
        duplicates=_list(
            _object(id=_UUID, received_at=_TIME, type=_maybe(_TEXT), why=_maybe(_TEXT), accepted_at=_maybe(_TIME))
        ),
        repetition=_ANY,
    ),
    "Issue": _object(
        **_ISSUE,
        first_event=_maybe(_UUID),
        last_event=_maybe(_UUID),
        state_changed_at=_maybe(_TIME),
        traceback=_maybe(_TEXT),
        events=_COUNTS,
        attempts=_list(
            _object(
                id=_UUID,
                source=_maybe(_TEXT),
                type=_maybe(_TEXT),
                status=_maybe(_TEXT),
                number=_COUNT,
                started_at=_TIME,
                message=_TEXT,
            )
        ),
    ),
    "Replay": _object(
        **_REPLAY,
        advanced_at=_TIME,
        states=_COUNTS,
        failures=_list(_object(id=_UUID, tries=_COUNT, error=_maybe(_TEXT))),
    ),
    "Reconciliation": _object(
        id=_UUID,
        source=_TEXT,
        since=_TIME,
        only_looks=_FLAG,
        hourly=_FLAG,
        state={"type": "string", "enum": ["listing", "fetching", "done", "failed", "cancelled"]},
        cursor=_maybe(_TEXT),
        **dict.fromkeys(("listed", "missing", "refused", "dead", "fetched", "arrived", "no_event", "failed"), _COUNT),
        error=_maybe(_TEXT),
        started_at=_TIME,
        changed_at=_TIME,
        ended_at=_maybe(_TIME),
    ),
}

RESULTS: Mapping[str, Json] = {
    routes.OPEN_SESSION: ref("Caller"),
    routes.WHO: ref("Caller"),
    routes.CLOSE_SESSION: _object(closed=_FLAG),
    routes.DESCRIPTION: {"type": "object"},
    "version": _object(version=_TEXT, release=_maybe(_TEXT)),
    "queues": _object(**dict.fromkeys(("queue", "dead_letters"), _DEPTH)),
    "stats": _object(
        since=_TIME,
        until=_TIME,
        step={"type": "string", "enum": ["minute", "hour", "day"]},
        points=_list(
            _object(
                at=_TIME,
                source=_maybe(_TEXT),
                **dict.fromkeys(("processed", "stale", "failed", "dead", "duplicates", "rejected"), _COUNT),
            )
        ),
        ack=_object(p50=_maybe(_NUMBER), p95=_maybe(_NUMBER), p99=_maybe(_NUMBER)),
        time_to_row=_object(events=_COUNT, p50=_maybe(_NUMBER), p95=_maybe(_NUMBER), p99=_maybe(_NUMBER)),
    ),
    "status": _object(
        sources=_list(
            _object(
                source=_TEXT,
                last_seen=_maybe(_TIME),
                hour=_COUNT,
                day=_COUNT,
                quiet=_maybe(_object(minutes=_COUNT, expected=_NUMBER)),
            )
        ),
        failed=_COUNT,
        dead=_COUNT,
        oldest_failed=_maybe(_object(**{name: s for name, s in _BEGINNING.items() if name != "status"})),
        read_only=_FLAG,
        waiting_since=_maybe(_TIME),
        open_issues=_COUNT,
        open_drift=_COUNT,
        running_replays=_COUNT,
        postponed=_list(_object(handler=_TEXT, events=_COUNT, since=_TIME, next=_TIME, reason=_TEXT)),
        failing_duties=_list(
            _object(name=_TEXT, reason=_TEXT, failed_at=_TIME, done_at=_maybe(_TIME)),
        ),
        identity=_object(same_bytes=_COUNT, other_bytes=_COUNT, bytes_alone=_COUNT),
        ledger=_object(balanced=_FLAG, missing=_COUNT, waiting=_COUNT, checked_at=_maybe(_TIME), stale=_FLAG),
        well=_FLAG,
    ),
    "stream": _object(
        events=_list(ref("StreamedEvent")), cursor=_TEXT, more=_FLAG, held=_FLAG, kept_since=_maybe(_TIME)
    ),
    "events": _object(events=_list(ref("EventRow")), searched_to=_maybe(_UUID), next=_PAGE),
    "show": _object(event=ref("Event")),
    "body": _object(part=_BYTES),
    "show_delivery": _object(
        delivery=_object(
            id=_UUID, source=_TEXT, received_at=_TIME, headers={"type": "object"}, body=_maybe(_BYTES), bytes=_COUNT
        )
    ),
    "dry_run": _object(
        **_NAMED,
        status=_STATUS,
        handlers=_list(_TEXT),
        stale=_list(_TEXT),
        outcome={"type": "string", "enum": [*_STATUS["enum"], "postponed"]},
        failure=_maybe(
            _object(handler=_TEXT, error_class=_TEXT, message=_TEXT, traceback=_TEXT, issue=_TEXT, permanent=_FLAG)
        ),
        changes=_list({"type": "object"}),
        incomplete=_list(_TEXT),
    ),
    "find": _object(
        events=_list(ref("EventRow")),
        duplicates=_list(ref("Repetition")),
        rejected=_list(_object(id=_UUID, source=_TEXT, received_at=_TIME, reason=_TEXT, event_id=_maybe(_UUID))),
        keys=_list(_object(source=_TEXT, event_id=_UUID, claimed_at=_TIME)),
    ),
    "secrets_used": _object(
        secrets=_list(_object(source=_TEXT, secret=_maybe(_TEXT), events=_COUNT, first=_TIME, last=_TIME))
    ),
    "issues": _object(issues=_list(_object(**_ISSUE, cursor=_TEXT)), next=_PAGE),
    "show_issue": _object(issue=ref("Issue")),
    "set_issue": _object(issue=ref("Issue")),
    "rejected": _object(
        rejected=_list(_object(**_REFUSED, bytes=_COUNT)),
        reasons=_list(_object(**_REASON, reason=_TEXT, last=_TIME)),
        next=_PAGE,
    ),
    "show_rejected": _object(
        rejected=_object(
            **_REFUSED,
            url=_maybe(_TEXT),
            query=_ANY,
            headers={"type": "object"},
            body=_BYTES,
            request_id=_maybe(_TEXT),
            signed_id=_maybe(_TEXT),
        )
    ),
    "explain_rejected": _object(causes=_list(_object(cause=_TEXT, sentence=_TEXT))),
    "reverify_rejected": _object(outcome=_TEXT, event_id=_maybe(_UUID)),
    "resolve_rejected": _object(resolved=_FLAG),
    "duplicates": _object(
        duplicates=_list(ref("Repetition")), reasons=_list(_object(**_REASON, why=_maybe(_TEXT))), next=_PAGE
    ),
    "show_duplicate": _object(
        duplicate=_object(
            **_REPETITION,
            headers=_ANY,
            format=_maybe(_TEXT),
            form_field=_maybe(_TEXT),
            request_id=_maybe(_TEXT),
            body=_maybe(_BYTES),
            same_bytes=_FLAG,
        )
    ),
    "accept_duplicate": _object(accepted=_FLAG, event_id=_UUID),
    "dead_letters": _object(
        waiting=_COUNT,
        letters=_list(
            _object(
                id=_maybe(_UUID),
                source=_maybe(_TEXT),
                type=_maybe(_TEXT),
                sent_at=_TIME,
                attempts=_COUNT,
                reason=_TEXT,
                readable=_FLAG,
                bytes=_COUNT,
                status=_maybe(_TEXT),
            )
        ),
    ),
    "purge_dead_letters": _object(deleted=_COUNT, waiting=_COUNT),
    "sweep_dead_letters": _object(deleted=_COUNT, waiting=_COUNT),
    "start_redrive": _object(replay=ref("Replay")),
    "advance_redrive": _object(replay=ref("Replay")),
    "replays": _object(replays=_list(_object(**_REPLAY, failed=_COUNT)), next=_PAGE),
    "start_replay": _object(replay=ref("Replay")),
    "plan_replay": _object(count=_COUNT, by_status=_COUNTS, sample=_list(_object(**_BEGINNING))),
    "show_replay": _object(replay=ref("Replay")),
    "advance_replay": _object(replay=ref("Replay"), held=_maybe(_TEXT)),
    "cancel_replay": _object(replay=ref("Replay"), cancelled=_FLAG),
    "reconciliations": _object(reconciliations=_list(ref("Reconciliation")), next=_PAGE),
    "show_reconciliation": _object(reconciliation=ref("Reconciliation")),
    "gaps": _object(
        gaps=_list(
            _object(
                key=_TEXT,
                kind={"type": "string", "enum": ["missing", "refused", "dead"]},
                happened_at=_TIME,
                type=_maybe(_TEXT),
                state={"type": "string", "enum": ["open", "fetched", "arrived", "no_event", "failed"]},
                event_id=_maybe(_UUID),
                rejected_id=_maybe(_UUID),
                note=_maybe(_TEXT),
            )
        )
    ),
    "ask_reconciliation": _object(**_RECONCILED),
    "advance_reconciliation": _object(**_RECONCILED),
    "cancel_reconciliation": _object(reconciliation=ref("Reconciliation"), cancelled=_FLAG),
    "ledger": _object(
        since=_TIME,
        to=_TIME,
        checked_at=_maybe(_TIME),
        missing=_COUNT,
        waiting=_COUNT,
        sources=_list(_object(source=_TEXT, **_BALANCE, failed=_COUNT, dead=_COUNT)),
        minutes=_list(_object(source=_TEXT, minute=_TIME, **_BALANCE, note=_maybe(_TEXT))),
    ),
    "write_off": _object(written_off=_COUNT),
    "storage": _object(
        tables=_list({"type": "object"}),
        partitions=_list({"type": "object"}),
        indexes=_list({"type": "object"}),
        dedup_keys=_object(rows=_COUNT, oldest=_maybe(_TIME), oldest_days=_maybe(_COUNT)),
        unresolved_kept=_COUNT,
        retention=_object(retention_days=_COUNT, dedup_days=_COUNT, unresolved_days=_COUNT),
        warnings=_list(_TEXT),
    ),
    "drift": _object(
        drift=_list(
            _object(
                id=_WHOLE,
                source=_TEXT,
                type=_TEXT,
                kind={"type": "string", "enum": ["new", "missing", "retyped"]},
                path=_TEXT,
                was=_ANY,
                became=_ANY,
                event_id=_maybe(_UUID),
                found_at=_TIME,
                accepted_at=_maybe(_TIME),
            )
        ),
        next=_PAGE,
    ),
    "accept_drift": _object(accepted=_COUNT),
    "shape": _object(
        shape=_object(
            events=_COUNT,
            learned=_FLAG,
            looked_at=_maybe(_TIME),
            places=_list(_object(path=_TEXT, types=_list(_TEXT), seen=_COUNT, always=_FLAG)),
        )
    ),
    "handlers": _object(
        handlers=_list(_TEXT),
        registered=_list(
            _object(
                name=_TEXT,
                source=_TEXT,
                type=_TEXT,
                timeout=_NUMBER,
                events=_COUNT,
                p50_ms=_maybe(_NUMBER),
                p95_ms=_maybe(_NUMBER),
                failures=_COUNT,
                last_failure=_maybe(_TIME),
            )
        ),
        doubts=_list(_TEXT),
    ),
}

ERRORS = {
    400: "Something in the request does not fit; `details` says what, by its name.",
    401: "No token, or none that is valid.",
    403: "The token's role does not suffice, or a session came without its header.",
    404: "There is no such thing, or no API.",
    405: "The path does not take this method.",
    409: "How things stand does not allow it.",
    413: "The body is too large.",
    429: "Too many failed logins.",
    500: "Something went wrong.",
    503: "The database, or the function behind, does not answer now.",
}
