"""HTTPS GET, for the certificates of the few providers that sign with one. Whoever calls has checked the URL.

No redirects, so that the checked host is the one that answers; little and soon, or not at all.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from threading import Lock
from typing import IO, Any

from chalicelib.errors import SecretUnavailable

_MOST_BYTES = 65_536
_TIMEOUT_SECONDS = 3.0
# What was fetched stays good for as long as a container lives, and what failed is not asked for again at once.
_MOST_KEPT = 32
_FAILURE_SECONDS = 30.0
# Nobody makes us a sender of floods: a few requests a minute, whoever asks for whatever.
_MOST_A_MINUTE = 10

_lock = Lock()
_kept: dict[str, bytes] = {}
_failed: dict[str, float] = {}
_asked_at: list[float] = []


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def fetch(url: str) -> bytes:
    """What lies at `url`. Raises SecretUnavailable: the sender should come again."""
    with _lock:
        if url in _kept:
            return _kept[url]
        now = time.monotonic()
        if now - _failed.get(url, float("-inf")) < _FAILURE_SECONDS:
            raise SecretUnavailable("fetch_failed_just_now")
        _asked_at[:] = [at for at in _asked_at if now - at < 60]
        if len(_asked_at) >= _MOST_A_MINUTE:
            raise SecretUnavailable("too_many_fetches")
        _asked_at.append(now)
        try:
            found = _get(url)
        except (OSError, HTTPException, ValueError) as exc:
            _forget_oldest(_failed)
            _failed[url] = time.monotonic()
            raise SecretUnavailable(f"fetch_failed: {type(exc).__name__}") from None
        _forget_oldest(_kept)
        _kept[url] = found
        return found


def _get(url: str) -> bytes:
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"User-Agent": "Postern"})
    with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
        found: bytes = answer.read(_MOST_BYTES + 1)
    if len(found) > _MOST_BYTES:
        raise ValueError("too large")
    return found


def _forget_oldest(kept: dict[str, Any]) -> None:
    while len(kept) >= _MOST_KEPT:
        del kept[next(iter(kept))]
