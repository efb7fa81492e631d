"""Why a delivery was refused: what would have to be otherwise for it to verify.

Each suspicion is tried with the source's own scheme: another secret, another reading of it, another body, another URL,
another place of the signature. What verifies then is the cause. No finding quotes a secret or a right signature.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import hmac
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from chalicelib.postern.contract.deliveries import REDACTED, Delivery
from chalicelib.postern.contract.errors import InvalidSignature, Refusal
from chalicelib.postern.receiving.schemes import Scheme
from chalicelib.postern.receiving.schemes.base import AGELESS, Fetch, fetch_nothing, key_of
from chalicelib.postern.receiving.schemes.templated import Templated
from chalicelib.postern.receiving.sources import Source

_MAX_UNPACKED_BYTES = 1_000_000
# Sixty years.
_MAX_SKEW_SECONDS = 2 * 10**9


@dataclass(frozen=True)
class Finding:
    """`cause` is a short name for it, `sentence` what the operator reads and does."""

    cause: str
    sentence: str


@dataclass(frozen=True)
class Known:
    """The secrets that it may have been signed with: the source's own, those of before their last change, and those of
    other sources.
    """

    own: Sequence[str] = field(repr=False)
    previous: Sequence[str] = field(default=(), repr=False)
    others: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False)


def explain(delivery: Delivery, source: Source, known: Known, fetch: Fetch = fetch_nothing) -> list[Finding]:
    """The causes that fit, the likeliest first; never empty. `delivery` has the URL that it came to."""
    came, delivery = delivery, replace(delivery, url=source.address_of(delivery))
    if not known.own and source.needs_secret:
        return [Finding("no_secret", "The source has no secret: put one into the sources' secret.")]
    if _verifies(source.scheme, delivery, known.own, fetch):
        return [Finding("verifies_now", "It verifies with today's secrets: `postern reverify` lets it through.")]
    found: dict[str, Finding] = {}
    for finding in _findings(delivery, came, source.scheme, known):
        found.setdefault(finding.cause, finding)
    return list(found.values()) or [*_hints(delivery, source.scheme, known.own), _UNKNOWN]


_UNKNOWN = Finding(
    "unknown",
    "No known cause fits: neither a secret of another source or of before the last change, nor another reading of the "
    "secret, a changed body, another URL, or a signature in another place or form. It may have been signed with a "
    "secret that is not listed here, or by somebody else.",
)


def _findings(delivery: Delivery, came: Delivery, scheme: Scheme, known: Known) -> Iterator[Finding]:
    """With the age left out of it: what was signed wrongly an hour ago was signed wrongly."""
    timeless, secrets = ageless(scheme), known.own
    if _verifies(timeless, delivery, secrets):
        yield _of_age(delivery, scheme, secrets)
        return
    if _verifies(timeless, delivery, known.previous):
        yield Finding(
            "previous_secret",
            "It is signed with a secret that this source had before the last change, and has no more: put it back "
            "beside the new one until the provider signs with that.",
        )
    for name, theirs in known.others.items():
        if _verifies(timeless, delivery, theirs):
            yield Finding(
                "other_source", f"It is signed with a secret of the source '{name}': the sender has that one."
            )
    for words, reading, given in _readings(timeless, secrets):
        if _verifies(reading, delivery, given):
            yield Finding("secret_encoding", f"It is signed with this secret, but {words}.")
    for cause, words, body in _bodies(delivery.body):
        if body != delivery.body and _verifies(timeless, replace(delivery, body=body), secrets):
            yield Finding(cause, words)
    for other in _urls(came, delivery.url):
        if other != delivery.url and _verifies(timeless, replace(delivery, url=other), secrets):
            yield Finding("url", _of_url(other, delivery.url))
            break
    yield from _places(delivery, timeless, secrets)


def _of_url(signed: str, verified: str) -> str:
    """Without a query in the advice: it is one call's."""
    address, given = signed.partition("?")[0], verified.partition("?")[0]
    if address != given:
        return (
            f"It is signed for the address {address}, and verified as one for {given}: name the former as `url` in the "
            "source. Each request's query is added to it."
        )
    return (
        f"It is signed for {signed}, and came as {verified}: its sender spells a query in a way that is not tried. API "
        "Gateway hands on what a query means, not how it was written, nor the order of repeated parameters: have "
        "the sender call an address without one, or with plain letters and digits."
    )


def _verifies(scheme: Scheme, delivery: Delivery, secrets: Sequence[str], fetch: Fetch = fetch_nothing) -> bool:
    for secret in secrets:
        try:
            scheme.verify(delivery, [secret], fetch)
        except (Refusal, ValueError):
            continue
        return True
    return False


def ageless(scheme: Scheme) -> Scheme:
    return _changed(scheme, tolerance_seconds=AGELESS) or scheme


def _changed(scheme: Any, **settings: Any) -> Any:
    """The scheme with these settings, where it has them."""
    if not settings.keys() <= {each.name for each in fields(scheme)}:
        return None
    return replace(scheme, **settings)


def _of_age(delivery: Delivery, scheme: Scheme, secrets: Sequence[str]) -> Finding:
    """How far off its time is, found by when it would have been right: to the second, without any tolerance."""
    ahead = "timestamp_in_future" in _reasons(scheme, delivery, secrets)
    exact = _changed(scheme, tolerance_seconds=0)
    low, high = 0, _MAX_SKEW_SECONDS
    while low < high:
        middle = (low + high) // 2
        later = timedelta(seconds=middle if ahead else -middle)
        reasons = _reasons(exact, replace(delivery, received_at=delivery.received_at + later), secrets)
        early = ("timestamp_in_future" if ahead else "timestamp_stale") in reasons
        low, high = (middle + 1, high) if early else (low, middle)
    tolerance = getattr(scheme, "tolerance_seconds", 0)
    return Finding(
        "clock_skew",
        f"The signature is right, and its time is {low:,} s {'ahead' if ahead else 'old'}, where {tolerance} s are "
        "taken: a delivery that is repeated late, or a clock that is wrong. `tolerance_seconds` in the source is for a "
        "sender that is slow.",
    )


def _reasons(scheme: Scheme, delivery: Delivery, secrets: Sequence[str]) -> set[str]:
    reasons = set()
    for secret in secrets:
        try:
            scheme.verify(delivery, [secret])
        except Refusal as refusal:
            reasons.add(refusal.reason)
        except ValueError:
            reasons.add("malformed")
    return reasons


def _readings(scheme: Scheme, secrets: Sequence[str]) -> Iterator[tuple[str, Scheme, Sequence[str]]]:
    """Other ways in which a sender, or whoever copied the secret, may have read it."""
    for encoding in ("text", "base64", "hex"):
        other = _changed(scheme, secret_encoding=encoding)
        if other is not None and other != scheme:
            words = {"text": "its text is the key", "base64": "what it is base64 of is the key"}
            yield words.get(encoding, "what it is hexadecimal for is the key"), other, secrets
            bare = _changed(other, secret_prefix="") or other
            yield f"{words.get(encoding, 'read as hexadecimal')}, prefix and all", bare, secrets
    yield "without its 'whsec_'", scheme, [s.removeprefix("whsec_") for s in secrets if s.startswith("whsec_")]
    bare = _changed(scheme, secret_prefix="")
    if bare is not None and bare != scheme:
        yield "with its prefix as a part of the key", bare, secrets
    yield "with 'whsec_' before it", scheme, [f"whsec_{secret}" for secret in secrets]
    yield "without the spaces around it", scheme, [s.strip() for s in secrets if s != s.strip()]
    yield "with a line break behind it", scheme, [secret + end for secret in secrets for end in ("\n", "\r\n")]


def _bodies(body: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Other bodies that may have been signed, where something on the way changed the one that came."""
    changed = "The body was changed after it was signed: "
    for end, name in ((b"\n", "a line break"), (b"\r\n", "a CRLF")):
        yield "trailing_newline", f"{changed}{name} at its end was cut off.", body + end
        if body.endswith(end):
            yield "trailing_newline", f"{changed}{name} was added at its end.", body.removesuffix(end)
    yield "trailing_newline", f"{changed}space around it was cut off or added.", body.strip()
    yield "line_breaks", f"{changed}its line breaks were CRLF.", body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    yield "line_breaks", f"{changed}its line breaks were LF.", body.replace(b"\r\n", b"\n")
    yield "byte_order_mark", f"{changed}a byte order mark was cut off.", b"\xef\xbb\xbf" + body
    yield "byte_order_mark", f"{changed}a byte order mark was added.", body.removeprefix(b"\xef\xbb\xbf")
    yield "gzip", "The body came compressed, and what was signed is not.", _unpacked(body)
    yield "gzip", "The compressed body was signed, and something on the way unpacked it.", gzip.compress(body, mtime=0)
    yield "empty_body", f"{changed}an empty one was signed.", b""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return
    words = "The body was read and written anew after it was signed, or signed in another form than it was sent: "
    for how, text in (
        ("without spaces", json.dumps(payload, separators=(",", ":"), ensure_ascii=False)),
        ("without spaces, and with escapes", json.dumps(payload, separators=(",", ":"))),
        ("with spaces", json.dumps(payload, ensure_ascii=False)),
        ("with spaces and escapes", json.dumps(payload)),
        ("indented", json.dumps(payload, indent=2, ensure_ascii=False)),
        ("indented by four", json.dumps(payload, indent=4, ensure_ascii=False)),
        ("in the order of its keys", json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)),
        ("with escaped slashes", json.dumps(payload, separators=(",", ":")).replace("/", "\\/")),
    ):
        yield "reserialised", f"{words}it fits {how}.", text.encode("utf-8", "surrogatepass")


def _unpacked(body: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=47).decompress(body, _MAX_UNPACKED_BYTES)  # gzip or zlib
    except zlib.error:
        return body


def _urls(came: Delivery, verified_as: str) -> Iterator[str]:
    """The address as a proxy, or a person who copied it, may have it: of the one that it came to, and that it was
    verified as one for.
    """
    for url in dict.fromkeys([verified_as, came.url]):
        try:
            parts = urlsplit(url)
        except ValueError:
            continue
        stageless = re.sub(r"^/[^/]+(?=/webhooks/)", "", parts.path)
        paths = dict.fromkeys(p.rstrip("/") + slash for p in (parts.path, stageless) for slash in ("", "/"))
        queries = dict.fromkeys([parts.query, urlencode(came.query, quote_via=quote, errors="surrogatepass"), ""])
        for scheme in dict.fromkeys([parts.scheme, "https", "http"]):
            for host in _hosts(parts.netloc, scheme, came):
                for path in paths:
                    for query in queries:
                        yield urlunsplit((scheme, host, path, query, ""))


def _hosts(host: str, scheme: str, came: Delivery) -> Iterator[str]:
    port = {"http": ":80", "https": ":443"}.get(scheme, "")
    named = [
        value.partition(",")[0].strip() for header in ("x-forwarded-host", "host") for value in came.headers.all(header)
    ]
    for each in dict.fromkeys([host, *named]):
        bare = each.partition(":")[0]
        yield from dict.fromkeys([each, bare, bare + port])


def _places(delivery: Delivery, scheme: Scheme, secrets: Sequence[str]) -> Iterator[Finding]:
    """A right signature that stands elsewhere, or is written otherwise, or made with another algorithm."""
    if not isinstance(scheme, Templated):
        return
    headers = [(name, value) for name in delivery.headers for value in delivery.headers.all(name)]
    for name in delivery.headers:
        moved = _changed(scheme, header=name)
        if name != scheme.header.lower() and _verifies(moved, delivery, secrets):
            yield Finding(
                "wrong_header", f"A right signature is in the header '{name}', and '{scheme.header}' is the provider's."
            )
            return
    try:
        message = scheme.message(delivery)
    except InvalidSignature:
        return
    for secret in secrets:
        key = _key(scheme, secret)
        for algorithm in ("sha256", "sha1", "sha512"):
            for how, text in _spellings(hmac.digest(key, message, algorithm)):
                for name, value in headers:
                    if text in value:
                        yield Finding(
                            "other_form",
                            f"The header '{name}' holds a right signature in another form: HMAC-{algorithm.upper()}, "
                            f"{how}. The sender is set up for another provider, or this source is.",
                        )
                        return
        if any(hashlib.sha256(key + message).hexdigest() in value for _, value in headers):
            yield Finding("plain_hash", "It is a plain SHA-256 of secret and body, and no HMAC.")
            return


def _key(scheme: Templated, secret: str) -> bytes:
    try:
        return key_of(
            secret.removeprefix(getattr(scheme, "secret_prefix", "")), getattr(scheme, "secret_encoding", "text")
        )
    except Refusal:
        return secret.encode("utf-8", "surrogatepass")


def _spellings(digest: bytes) -> Iterator[tuple[str, str]]:
    yield "hexadecimal", digest.hex()
    yield "hexadecimal in capitals", digest.hex().upper()
    yield "base64", base64.b64encode(digest).decode()
    yield "base64 for URLs", base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _hints(delivery: Delivery, scheme: Scheme, secrets: Sequence[str]) -> Iterator[Finding]:
    """What may have to do with it, and proves nothing."""
    header = getattr(scheme, "header", None)
    credentials = scheme.credentials | ({header.lower()} if header else set())
    given = [value for name in credentials for value in delivery.headers.all(name)]
    if REDACTED in [*given, *(value for _, value in delivery.query)]:
        yield Finding(
            "credentials",
            "What the sender identified itself with is a password, or like one, and is not kept: so it cannot be "
            "looked into. Compare it with the one that is set up at the sender.",
        )
    reasons = _reasons(ageless(scheme), delivery, secrets)
    if "header_missing" in reasons:
        like = [name for name in delivery.headers if "signature" in name or "hmac" in name]
        there = f" There is {', '.join(like)}." if like else ""
        which = f"The header '{header}'" if header else "A header that is verified"
        yield Finding("header_missing", f"{which} is not there, or is empty: the sender signs nothing?{there}")
    for reason in sorted(reasons & _SAYS.keys()):
        yield Finding(reason, _SAYS[reason])
    for reason in sorted(reasons):
        if reason.startswith("secret_"):
            yield Finding("secret_malformed", f"The source's secret is not of its provider's form: {reason}.")
    if re.search(rb'"livemode"\s*:\s*false|"environment"\s*:\s*"(?:test|sandbox)"', delivery.body, re.IGNORECASE):
        yield Finding("test_mode", "It comes from the provider's test mode, which has a secret of its own.")


# What a scheme found amiss before it compared anything.
_SAYS = {
    "header_repeated": "A header that comes once from the provider came several times: a proxy may have added one.",
    "signature_malformed": "What stands for the signature cannot be one: it is cut off, or written in another way.",
    "signature_missing": "The header is there, and has no signature of the kind that this source verifies.",
    "timestamp_malformed": "The time that is signed is not written as this provider writes it.",
    "timestamp_missing": "The time that is signed is not there: a sender of another kind, or another version of it.",
    "token_missing": "The token is not where this provider puts it, or not in all of its places.",
    "too_many_signatures": "It brings more signatures than any provider sends.",
}
