"""HTTPS GET from a provider's API, for its history. The address is its owner's, in the sources file."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.parse import urlencode

from chalicelib.postern.contract.deliveries import Headers
from chalicelib.postern.contract.histories import Answer, NoCopy, ProviderBusy, ProviderRefuses

_TIMEOUT_SECONDS = 6.0
# All of an answer, with a person before it. What is larger, no delivery could be: a body has 6 MB, which may be written
# in the answer with twice as many characters.
_WITHIN_SECONDS = 8.0
_MAX_BYTES = 13_000_000
_SHORT = 4_096
# Where it says for how long by no header, GitHub asks for a minute.
_A_WHILE = 60.0
# As long as nobody waits for more than once: GitHub counts by the hour.
_MAX_WAIT_SECONDS = 3_700.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Our token is for the one who was named."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


class ProviderApi:
    """Asks, and says in our words what came of it."""

    def get(self, url: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer | None:
        """As receiving.histories.Api has it."""
        opener = urllib.request.build_opener(_NoRedirects)
        address = f"{url}?{urlencode(query)}" if query else url
        request = urllib.request.Request(address, headers={"User-Agent": "Postern", **headers})
        until = time.monotonic() + _WITHIN_SECONDS
        found = bytearray()
        try:
            with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                while part := answer.read1(65_536):
                    found += part
                    if len(found) > _MAX_BYTES:
                        raise NoCopy(f"It is larger than {_MAX_BYTES:,} bytes.")
                    if time.monotonic() > until:
                        raise ProviderBusy("it takes too long to answer")
                said = Headers(answer.headers.items())
        except urllib.error.HTTPError as exc:
            with exc:
                _refuse(exc.code, Headers(exc.headers.items()), _beginning(exc))
                return None
        except (OSError, HTTPException, ValueError) as exc:
            raise ProviderBusy(f"it does not answer ({type(exc).__name__})") from None
        return Answer(found.decode("utf-8", "replace"), said, _moment(said))


def _beginning(answer: IO[bytes]) -> str:
    try:
        return answer.read(_SHORT).decode("utf-8", "replace").lower()
    except (OSError, HTTPException, ValueError):
        return ""


def _refuse(status: int, headers: Headers, said: str) -> None:
    """Raises, but where there is no such thing. Nothing of what was answered is quoted."""
    if status in (404, 410):
        return
    limited = headers.get("x-ratelimit-remaining") == "0" or "retry-after" in headers or "rate limit" in said
    if status == 429 or (status == 403 and limited):
        raise ProviderBusy("it has been asked too often", _wait(headers) or _A_WHILE)
    if status in (401, 403):
        raise ProviderRefuses(f"The API token is refused ({status}).")
    if 300 <= status < 400:
        raise ProviderRefuses(f"It has moved elsewhere ({status}); set `reconcile.url` to where it is now.")
    if status == 503:
        raise ProviderBusy("it answers with 503", _wait(headers))
    if status >= 500:
        raise ProviderBusy(f"it answers with {status}")
    raise NoCopy(f"It does not take the question ({status}).")


def _wait(headers: Headers) -> float | None:
    """RFC 9110, section 10.2.3; or until GitHub's next hour begins, by its own clock."""
    after = headers.get("retry-after", "")
    reset = headers.get("x-ratelimit-reset", "") if headers.get("x-ratelimit-remaining") == "0" else ""
    if after.isascii() and after.isdigit():
        seconds = float(after)
    elif after:
        try:
            seconds = (parsedate_to_datetime(after) - _moment(headers)).total_seconds()
        except (ValueError, TypeError):
            return None
    elif reset.isascii() and reset.isdigit():
        seconds = float(reset) - _moment(headers).timestamp() + 1
    else:
        return None
    return min(max(seconds, 1.0), _MAX_WAIT_SECONDS)


def _moment(headers: Headers) -> datetime:
    try:
        found = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return datetime.now(UTC)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
