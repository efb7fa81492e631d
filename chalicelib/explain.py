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
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from chalicelib.deliveries import REDACTED, Delivery
from chalicelib.errors import Refusal
from chalicelib.schemes import Scheme
from chalicelib.schemes.templated import Templated
from chalicelib.sources import Source

_AGELESS = 10**12
_LARGEST_UNPACKED_BYTES = 1_000_000


@dataclass(frozen=True)
class Finding:
    """`cause` is a short name for it, `sentence` what the operator reads and does."""

    cause: str
    sentence: str


def explain(
    delivery: Delivery,
    source: Source,
    secrets: Sequence[str],
    others: Mapping[str, Sequence[str]],
    retired: Sequence[str] = (),
) -> list[Finding]:
    """The causes that fit, the likeliest first; never empty.

    `others` are the secrets of other sources, `retired` what were this one's.
    """
    url = source.url or delivery.url
    delivery = replace(delivery, url=url)
    if not secrets and source.needs_secret:
        return [Finding("no_secret", "The source has no secret: put one into the sources' secret.")]
    if _verifies(source.scheme, delivery, secrets):
        return [Finding("verifies_now", "It verifies with today's secrets: `postern reverify` lets it through.")]
    found: dict[str, Finding] = {}
    if retired and _verifies(_ageless(source.scheme), delivery, retired):
        found["previous_secret"] = Finding(
            "previous_secret", "It is signed with a secret that was retired: change it there."
        )
    for finding in _findings(delivery, source.scheme, secrets, others):
        found.setdefault(finding.cause, finding)
    return list(found.values()) or [*_hints(delivery, source.scheme), _UNKNOWN]


_UNKNOWN = Finding(
    "unknown",
    "No known cause fits: neither a secret of another source, nor another reading of the secret, a changed body, "
    "another URL, or a signature in another place. It may have been signed with a secret that is not listed here, "
    "or by somebody else.",
)


def _findings(
    delivery: Delivery, scheme: Scheme, secrets: Sequence[str], others: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """With the age left out of it: what was signed wrongly an hour ago was signed wrongly."""
    ageless = _ageless(scheme)
    if _verifies(ageless, delivery, secrets):
        yield _of_age(delivery, scheme, secrets)
        return
    for name, known in others.items():
        if _verifies(ageless, delivery, known):
            yield Finding(
                "other_source", f"It is signed with a secret of the source '{name}': the sender has that one."
            )
    for words, reading, given in _readings(ageless, secrets):
        if _verifies(reading, delivery, given):
            yield Finding("secret_encoding", f"It is signed with this secret, but {words}.")
    for cause, words, body in _bodies(delivery.body):
        if body != delivery.body and _verifies(ageless, replace(delivery, body=body), secrets):
            yield Finding(cause, words)
    for other in _urls(delivery.url):
        if other != delivery.url and _verifies(ageless, replace(delivery, url=other), secrets):
            yield Finding(
                "url",
                f"It is signed for the URL {other}, and {delivery.url} is what it came to: name the former as `url` in "
                "the source.",
            )
            break
    yield from _places(delivery, ageless, secrets)


def _verifies(scheme: Scheme, delivery: Delivery, secrets: Sequence[str]) -> bool:
    for secret in secrets:
        try:
            scheme.verify(delivery, [secret])
        except (Refusal, ValueError):
            continue
        return True
    return False


def _ageless(scheme: Scheme) -> Scheme:
    return _changed(scheme, tolerance_seconds=_AGELESS) or scheme


def _changed(scheme: Any, **settings: Any) -> Any:
    """The scheme with these settings, where it has them."""
    if not settings.keys() <= {field.name for field in fields(scheme)}:
        return None
    return replace(scheme, **settings)


def _of_age(delivery: Delivery, scheme: Scheme, secrets: Sequence[str]) -> Finding:
    """How far off its time is, found by how much tolerance it takes."""
    low, high = 0, _AGELESS
    while low < high:
        middle = (low + high) // 2
        fits = _verifies(_changed(scheme, tolerance_seconds=middle), delivery, secrets)
        low, high = (low, middle) if fits else (middle + 1, high)
    ahead = "timestamp_in_future" in _reasons(scheme, delivery, secrets)
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
        return zlib.decompressobj(wbits=47).decompress(body, _LARGEST_UNPACKED_BYTES)  # gzip or zlib
    except zlib.error:
        return body


def _urls(url: str) -> Iterator[str]:
    """The same address as a proxy, or a person who copied it, may have it."""
    parts = urlsplit(url)
    stageless = re.sub(r"^/[^/]+(?=/webhooks/)", "", parts.path)
    ports = {"http": ":80", "https": ":443"}
    for scheme in (parts.scheme, *({"http", "https"} - {parts.scheme})):
        hosts = [parts.netloc, parts.netloc.partition(":")[0]]
        for host in dict.fromkeys([*hosts, hosts[1] + ports.get(scheme, "")]):
            for path in dict.fromkeys([parts.path, stageless, *(p.rstrip("/") for p in (parts.path, stageless))]):
                for slash in ("", "/"):
                    for query in dict.fromkeys([parts.query, ""]):
                        yield urlunsplit((scheme, host, path.rstrip("/") + slash, query, ""))


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
    if scheme.signed != "{body}":
        return
    for secret in secrets:
        for algorithm in ("sha256", "sha1", "sha512"):
            digest = hmac.digest(secret.encode("utf-8", "surrogatepass"), delivery.body, algorithm)
            for how, text in _spellings(digest):
                for name, value in headers:
                    if text in value:
                        yield Finding(
                            "other_form",
                            f"The header '{name}' holds a right signature in another form: HMAC-{algorithm.upper()}, "
                            f"{how}. The sender is set up for another provider, or this source is.",
                        )
                        return
        if any(hashlib.sha256(secret.encode() + delivery.body).hexdigest() in value for _, value in headers):
            yield Finding("plain_hash", "It is a plain SHA-256 of secret and body, and no HMAC.")
            return


def _spellings(digest: bytes) -> Iterator[tuple[str, str]]:
    yield "hexadecimal", digest.hex()
    yield "hexadecimal in capitals", digest.hex().upper()
    yield "base64", base64.b64encode(digest).decode()
    yield "base64 for URLs", base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _hints(delivery: Delivery, scheme: Scheme) -> Iterator[Finding]:
    """What may have to do with it, and proves nothing."""
    header = getattr(scheme, "header", None)
    if header and not any(name.startswith(header.lower()) for name in delivery.headers):
        like = [name for name in delivery.headers if "signature" in name or "hmac" in name]
        there = f" There is {', '.join(like)}." if like else ""
        yield Finding("header_missing", f"The header '{header}' is not there: the sender signs nothing?{there}")
    if REDACTED in delivery.headers.values():
        yield Finding("credentials", "The header with the credentials is not kept, so it cannot be looked into.")
    if re.search(rb'"livemode"\s*:\s*false|"environment"\s*:\s*"(?:test|sandbox)"', delivery.body, re.IGNORECASE):
        yield Finding("test_mode", "It comes from the provider's test mode, which has a secret of its own.")
