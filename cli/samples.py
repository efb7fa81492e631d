"""Sample deliveries: what each provider would send, with ids of their own, so that each is a new event."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chalicelib.sources import Source


@dataclass(frozen=True)
class Sample:
    """A request as the provider would make it. `headers` are complete, signature and all."""

    body: bytes
    headers: Mapping[str, str]


def sample(source: Source, type: str, secret: str, now: datetime, body: bytes | None = None) -> Sample:
    """A delivery of this type from this source, signed the way its provider signs.

    `body` replaces the sample's. A type that has no sample of its own gets the provider's plainest body.
    """
    event_id = str(uuid.uuid4())
    if body is None:
        make = _BODIES.get(source.provider, _plain)
        body = json.dumps(make(type, event_id, now), indent=2).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "postern-send/1"}
    for locator, value in ((source.dedup, event_id), (source.type, type)):
        if locator is not None and locator.where == "header":
            headers[locator.path] = value
    return Sample(body, {**headers, **source.scheme.sign(body, secret, event_id=event_id, now=now)})


def default_type(provider: str) -> str:
    """The type to send when none is named: each provider's most common one."""
    return {"github": "push", "stripe": "invoice.paid"}.get(provider, "order.created")


def _plain(type: str, event_id: str, now: datetime) -> dict[str, Any]:
    return {
        "id": event_id,
        "type": type,
        "timestamp": now.isoformat(),
        "data": {"order": "A-1001", "customer": "Zoë Müller 🦊", "total": "129.90", "currency": "EUR"},
    }


def _github(type: str, event_id: str, now: datetime) -> dict[str, Any]:
    sender = {"login": "octocat", "id": 583231, "type": "User"}
    repository = {
        "id": 1296269,
        "name": "hello-world",
        "full_name": "octocat/hello-world",
        "private": False,
        "owner": sender,
        "default_branch": "main",
    }
    commit = {
        "id": event_id.replace("-", "") + "0" * 8,
        "message": "Say hello to the world",
        "timestamp": now.isoformat(),
        "author": {"name": "Mona Octocat", "email": "octocat@example.com"},
        "added": ["hello.txt"],
        "removed": [],
        "modified": ["README.md"],
    }
    specific: dict[str, dict[str, Any]] = {
        "push": {
            "ref": "refs/heads/main",
            "before": "0" * 40,
            "after": commit["id"],
            "pusher": {"name": "octocat", "email": "octocat@example.com"},
            "commits": [commit],
            "head_commit": commit,
        },
        "ping": {"zen": "Practicality beats purity.", "hook_id": 1, "hook": {"type": "Repository"}},
        "issues": {
            "action": "opened",
            "issue": {"id": 73464126, "number": 2, "title": "It says hello twice", "state": "open"},
        },
        "pull_request": {
            "action": "opened",
            "number": 3,
            "pull_request": {"id": 191568743, "number": 3, "title": "Say it once", "merged": False},
        },
        "star": {"action": "created", "starred_at": now.isoformat()},
    }
    return {**specific.get(type, {"action": "created"}), "repository": repository, "sender": sender}


def _stripe(type: str, event_id: str, now: datetime) -> dict[str, Any]:
    unique = event_id.replace("-", "")[:24]
    objects: dict[str, dict[str, Any]] = {
        "invoice": {"id": f"in_{unique}", "amount_paid": 12990, "currency": "eur", "customer": "cus_A1001"},
        "payment_intent": {"id": f"pi_{unique}", "amount": 12990, "currency": "eur"},
        "charge": {"id": f"ch_{unique}", "amount": 12990, "currency": "eur"},
        "checkout": {"id": f"cs_{unique}", "amount_total": 12990, "currency": "eur"},
        "customer": {"id": f"cus_{unique}", "email": "zoe@example.com"},
    }
    kind = type.partition(".")[0]
    return {
        "id": f"evt_{unique}",
        "object": "event",
        "api_version": "2026-10-28",
        "created": int(now.timestamp()),
        "type": type,
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": event_id},
        "data": {"object": {"object": kind, **objects.get(kind, {"id": unique})}},
    }


_BODIES: dict[str, Callable[[str, str, datetime], dict[str, Any]]] = {"github": _github, "stripe": _stripe}
