"""Stripe's events, for thirty days; of those, the ones that an endpoint is to have.

`GET /v1/webhook_endpoints/ID` says which types these are, and since when; `GET /v1/events` lists events, the newest
first, a hundred a page, each page behind the last one's last id (docs.stripe.com/api/events/list). Stripe signs what it
sends and not what it lists: nothing proves these bytes but the connection that they came by.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from chalicelib.postern.contract.histories import SURROGATES, NoCopy, ProviderBusy, ProviderRefuses
from chalicelib.postern.contract.numbers import dumps
from chalicelib.postern.receiving import naming
from chalicelib.postern.receiving.histories import Api, Copy, Entry, Page

_PAGE = "100"


class Stripe:
    keeps = timedelta(days=30)
    place = "https://api.stripe.com/v1/webhook_endpoints/we_…"
    right = "to read events and webhook endpoints (a restricted key, rk_…)"

    def page(self, api: Api, url: str, token: str, *, since: datetime, cursor: str | None) -> Page:
        answer = api.get(url, {}, _headers(token))
        if answer is None:
            raise ProviderRefuses(f"Stripe has no webhook endpoint at {url}, or hides it from this key.")
        endpoint = _object(answer.json())
        since = max(since, _moment(endpoint))
        query = {"limit": _PAGE, "created[gte]": str(int(since.timestamp()))}
        if cursor:
            query["starting_after"] = cursor
        answer = api.get(_events(url), query, _headers(token))
        if answer is None:
            raise ProviderRefuses(f"There are no events at {_events(url)}.")
        found = _object(answer.json())
        types = endpoint.get("enabled_events")
        listed = found.get("data")
        if not isinstance(types, list) or not isinstance(listed, list):
            raise _unlike()
        entries = [
            Entry(
                key=naming.dedup_key(naming.own_name(_text(each, "id")), b""),
                at=_moment(each),
                type=naming.event_type(_text(each, "type")),
                handle=_text(each, "id"),
            )
            for each in map(_object, listed)
            if "*" in types or each.get("type") in types
        ]
        next = _text(_object(listed[-1]), "id") if listed and found.get("has_more") else None
        return Page(entries, next, answer.at)

    def copy(self, api: Api, url: str, token: str, handle: str) -> Copy:
        answer = api.get(f"{_events(url)}/{handle}", {}, _headers(token))
        if answer is None:
            raise NoCopy("Stripe has it no more.")
        event = answer.json_as_written()
        if not isinstance(event, dict):
            raise NoCopy("What Stripe has of it is not what its documentation says.")
        text = dumps(event, indent=2, ensure_ascii=False)
        if SURROGATES.search(text):
            text = dumps(event, indent=2)  # half a character is written in no other way
        return Copy([("Content-Type", "application/json")], [text.encode()])


def _events(url: str) -> str:
    return f"{url.partition('/webhook_endpoints/')[0]}/events"


def _headers(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _unlike() -> ProviderBusy:
    return ProviderBusy("what answers is not what Stripe's documentation says")


def _object(found: Any) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise _unlike()
    return found


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise _unlike()
    return value


def _moment(found: Mapping[str, Any]) -> datetime:
    try:
        return datetime.fromtimestamp(found["created"], UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        raise _unlike() from None


HISTORY = Stripe()
