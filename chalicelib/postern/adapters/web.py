"""HTTPS GET, for the certificates of the few providers that sign with one. Whoever calls has checked the URL.

No redirects, so that the checked host is the one that answers; little and soon, or not at all. Anybody can name a URL
of these hosts before his delivery is verified: so each provider has a budget of its own for what turns out to be none,
and what was a certificate once is kept and costs none.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage
from threading import Lock
from typing import IO, Any
from urllib.parse import urlsplit

from chalicelib.postern.contract.errors import InvalidSignature, SecretUnavailable

_MAX_BYTES = 65_536
_TIMEOUT_SECONDS = 3.0
# All of an answer: a host that sends a byte now and then holds up no delivery.
_WITHIN_SECONDS = 5.0
# What was fetched stays good for as long as a container lives, and what failed is not asked for again at once.
_MAX_KEPT = 64
_FAILURE_SECONDS = 30.0
# Nobody makes us a sender of floods: so much of each provider's hosts, and so much that was no certificate.
_MAX_A_MINUTE = 30
_MAX_FAILURES_A_MINUTE = 10
# What a host says of a file that it does not have. S3, where SNS's are, says 403; others say so to whom they block.
_NOT_THERE = {"amazonaws.com": (403, 404, 410)}
_NOT_THERE_ELSEWHERE = (404, 410)

_lock = Lock()
_kept: dict[str, bytes] = {}
_failed: dict[str, tuple[float, bool]] = {}
_failures: dict[str, list[float]] = {}
_asked: dict[str, list[float]] = {}


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def fetch(url: str) -> bytes:
    """What lies at `url`. A certificate is kept.

    Raises InvalidSignature where the host says that there is nothing, and else SecretUnavailable: the sender should
    come again.
    """
    with _lock:
        if url in _kept:
            _kept[url] = _kept.pop(url)  # the longest unused goes first
            return _kept[url]
        now = time.monotonic()
        at, absent = _failed.get(url, (float("-inf"), False))
        if now - at < _FAILURE_SECONDS:
            raise _refusal(absent, "fetch_failed_just_now")
        hosts = _hosts_of(url)
        failures, asked = _failures.setdefault(hosts, []), _asked.setdefault(hosts, [])
        for moments in (failures, asked):
            moments[:] = [at for at in moments if now - at < 60]
        if len(failures) >= _MAX_FAILURES_A_MINUTE or len(asked) >= _MAX_A_MINUTE:
            raise SecretUnavailable("too_many_fetches")
        asked.append(now)
        try:
            found = _get(url)
        except (OSError, HTTPException, ValueError) as exc:
            absent = isinstance(exc, urllib.error.HTTPError) and exc.code in _NOT_THERE.get(hosts, _NOT_THERE_ELSEWHERE)
            _forget_oldest(_failed)
            _failed[url] = time.monotonic(), absent
            failures.append(now)
            raise _refusal(absent, f"fetch_failed: {type(exc).__name__}") from None
        if _is_certificate(found):
            _forget_oldest(_kept)
            _kept[url] = found
        else:
            failures.append(now)  # a confirmation's answer, or a page that says that the host is ill
        return found


def _refusal(absent: bool, reason: str) -> InvalidSignature | SecretUnavailable:
    return InvalidSignature("certificate_not_there") if absent else SecretUnavailable(reason)


def _hosts_of(url: str) -> str:
    """The provider: the last two names of the host."""
    return ".".join((urlsplit(url).hostname or "").split(".")[-2:])


def _is_certificate(found: bytes) -> bool:
    """Whether it is one that is valid now: nothing else is kept for a container's life."""
    from datetime import UTC, datetime

    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(found)
    except ValueError:
        return False
    return certificate.not_valid_before_utc <= datetime.now(UTC) <= certificate.not_valid_after_utc


def _get(url: str) -> bytes:
    opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"User-Agent": "Postern"})
    until = time.monotonic() + _WITHIN_SECONDS
    found = bytearray()
    with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
        while part := answer.read1(8_192):
            found += part
            if len(found) > _MAX_BYTES:
                raise ValueError("too large")
            if time.monotonic() > until:
                raise TimeoutError("too slow")
    return bytes(found)


def _forget_oldest(kept: dict[str, Any]) -> None:
    while len(kept) >= _MAX_KEPT:
        del kept[next(iter(kept))]
