"""GitHub's deliveries of a webhook: of a repository, an organisation or an app, for three days.

`GET …/deliveries` lists the attempts, the newest first, a hundred a page, with the next page's cursor in the header
`Link`; `GET …/deliveries/ID` has headers and payload of one (docs.github.com, REST API, "Repository webhooks"). What is
sent again has the same guid, which is what makes it the same event. The payload comes as JSON within JSON: its bytes
are written anew, and the signature, which is among the headers, tells which way of writing was GitHub's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlsplit

from chalicelib.postern.contract.histories import SURROGATES, NoCopy, ProviderBusy, ProviderRefuses
from chalicelib.postern.contract.numbers import dumps
from chalicelib.postern.receiving import naming
from chalicelib.postern.receiving.histories import Api, Copy, Entry, Page, moment

# A page's most, as documented.
_PAGE = "100"
# As Rails writes JSON, so that it may stand in a page.
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class GitHub:
    keeps = timedelta(days=3)
    place = "https://api.github.com/repos/OWNER/REPOSITORY/hooks/ID/deliveries"
    right = "to read webhooks (fine-grained: Webhooks, read-only)"

    def page(self, api: Api, url: str, token: str, *, since: datetime, cursor: str | None) -> Page:
        query = {"per_page": _PAGE} | ({"cursor": cursor} if cursor else {})
        answer = api.get(url, query, _headers(token))
        if answer is None:
            raise ProviderRefuses(f"GitHub has no deliveries at {url}, or hides them from this token.")
        listed = answer.json()
        try:
            entries = [
                Entry(
                    key=naming.dedup_key(naming.own_name(each["guid"]), b""),
                    at=moment(each["delivered_at"]),
                    type=naming.event_type(each["event"]),
                    handle=str(each["id"]),
                    refused=400 <= (each["status_code"] or 0) < 500,
                )
                for each in listed
            ]
        except (KeyError, TypeError, AttributeError):
            raise ProviderBusy("what answers is not what GitHub's documentation says") from None
        within = [entry for entry in entries if entry.at >= since]
        next = _next(answer.headers.get("link", "")) if len(within) == len(entries) else None
        return Page(within, next, answer.at)

    def copy(self, api: Api, url: str, token: str, handle: str) -> Copy:
        answer = api.get(f"{url}/{handle}", {}, _headers(token))
        if answer is None:
            raise NoCopy("GitHub has it no more.")
        try:
            request = answer.json_as_written()["request"]
            headers = [(str(name), str(value)) for name, value in request["headers"].items()]
            payload = request["payload"]
        except (KeyError, TypeError, AttributeError):
            raise NoCopy("What GitHub has of it is not what its documentation says.") from None
        if payload is None:
            raise NoCopy("GitHub has no payload of it.")
        is_form = any(n.lower() == "content-type" and "x-www-form-urlencoded" in v for n, v in headers)
        return Copy(headers, (_form(text) if is_form else text.encode() for text in _writings(payload)))


def _writings(payload: Any) -> Iterator[str]:
    for ascii_only in (False, True):
        text = dumps(payload, separators=(",", ":"), ensure_ascii=ascii_only)
        if not ascii_only and SURROGATES.search(text):
            continue  # half a character is written in no other way
        yield text
        yield re.sub("[<>&\u2028\u2029]", lambda found: _ESCAPED[found[0]], text)


def _form(text: str) -> bytes:
    return f"payload={quote_plus(text)}".encode()


def _next(link: str) -> str | None:
    """The cursor alone: no answer says whom we ask, with our token, next."""
    for part in link.split(","):
        address, _, relation = part.partition(";")
        if 'rel="next"' in relation:
            found = parse_qs(urlsplit(address.strip(" <>")).query).get("cursor")
            return found[0] if found else None
    return None


def _headers(token: str) -> Mapping[str, str]:
    return {
        "Authorization": f"Bearer {_of_app(token) if 'PRIVATE KEY' in token else token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }


def _of_app(token: str) -> str:
    """An app's deliveries are read as the app: its id, or client id, and its private key behind a `:`, which signs for
    ten minutes at most.
    """
    import jwt

    app, _, key = token.partition(":")
    now = int(time.time())
    try:
        return jwt.encode({"iat": now - 60, "exp": now + 540, "iss": app.strip()}, key.strip(), algorithm="RS256")
    except (ValueError, TypeError, jwt.PyJWTError):
        raise ProviderRefuses("The API token is not an app's id, a ':' and its private key (PEM).") from None


HISTORY = GitHub()
