"""A hundred thousand hostile deliveries, over all providers: none comes in, none raises, none costs much.

They are what a stranger can make: samples that are signed with secrets of his own, changed anywhere, cut off, in other
encodings, with headers taken, doubled and made up. A run repeats by its seed; POSTERN_HOSTILE says how many.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import pytest

from chalicelib.postern.contract.deliveries import Delivery, Greeting, Headers
from chalicelib.postern.contract.errors import Refusal
from chalicelib.postern.receiving.ingest import Inbox, accept
from chalicelib.postern.receiving.schemes.base import fetch_nothing
from chalicelib.postern.receiving.sources import SIGNING_KEY, VERIFY_TOKEN, Source, load_sources
from cli.guides import guide
from cli.samples import sample
from devstack.secrets import ensure_development_secrets, read_secrets
from devstack.settings import PROJECT
from tests.support import EVERY_SOURCE

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
URL = "https://hooks.example.com/webhooks/shop"
SOURCES = load_sources(EVERY_SOURCE)
EACH = int(os.environ.get("POSTERN_HOSTILE", "100000")) // len(SOURCES) + 1
SEED = int(os.environ.get("POSTERN_SEED", "1"))

JUNK = [
    "", " ", "\t", "0" * 64, "A" * 88, "\xff\xfe", "é" * 40, "v1=,t=", "t=1,v1=" + "0" * 64, "sha256=" + "f" * 64,
    "=" * 5_000, "Basic Og==", "Bearer a.b.c", ",".join(["v1=0"] * 40), "[]", "{}", "-1", "9" * 40,
    "2026-11-23T10:00:00Z",
]  # fmt: skip
BODIES = [
    b"", b"{}", b"[]", b"null", b"\xff\xfe\x00", b"[" * 600, b'{"a":' * 300, b"a=b&" * 999, b"%" * 999,
    b"\x1f\x8b\x08\x00",
]  # fmt: skip
NAMES = ["Content-Encoding", "Content-Type", "X-Forwarded-Host"]
VALUES = ["gzip", "deflate", "text/plain", "application/x-www-form-urlencoded", "a/b; c", "", "evil.example"]
METHODS = ["POST"] * 20 + ["GET", "HEAD", "OPTIONS", "PUT", "\xff"]


class Nothing:
    """A queue, which must not be reached."""

    def send(self, message: str, *, group: str, trace: str | None) -> None:
        raise AssertionError("an event came in")

    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None) -> None:
        raise AssertionError("events came in")

    def put(self, key: str, body: bytes) -> None:
        raise AssertionError("a body came in")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The sources', and a stranger's of the same kinds."""
    found = {}
    for whose in ("ours", "theirs"):
        file = tmp_path_factory.mktemp(whose) / "secrets.json"
        ensure_development_secrets(file, SOURCES)
        found[whose] = {name: str(secret) for name, secret in read_secrets(file).items()}
    return found


def changed(chance: random.Random, text: str) -> str:
    if not text or chance.random() < 0.2:
        return chance.choice(JUNK)
    at = chance.randrange(len(text))
    odd = chr(chance.choice([0, 9, 32, 44, 61, 127, 233, 255, 48 + chance.randrange(70)]))
    others = [text[:at] + odd + text[at + 1 :], text[:at], text + text, text.swapcase(), text.replace("=", " = ")]
    return chance.choice([*others, chance.choice(JUNK) + text])


def changed_bytes(chance: random.Random, body: bytes) -> bytes:
    if not body or chance.random() < 0.15:
        return chance.choice(BODIES)
    at = chance.randrange(len(body))
    odd = bytes([chance.randrange(256)])
    packed = gzip.compress(body, 1, mtime=0)
    return chance.choice([body[:at] + odd + body[at + 1 :], body[:at], body + body, body[at:], packed])


def hostile(chance: random.Random, sent: Delivery) -> Delivery:
    headers = [(name, value) for name in sent.headers for value in sent.headers.all(name)]
    for _ in range(chance.randrange(4)):
        at = chance.randrange(len(headers)) if headers else 0
        what = chance.randrange(5)
        if what == 0 and headers:
            headers[at] = headers[at][0], changed(chance, headers[at][1])
        elif what == 1 and headers:
            del headers[at]
        elif what == 2 and headers:
            headers.append((headers[at][0].swapcase(), chance.choice(JUNK)))
        elif what == 3:
            headers.append((chance.choice(NAMES), chance.choice(VALUES)))
    query = list(sent.query)
    if chance.random() < 0.2:
        query.append((chance.choice(["token", "bodySHA256", "hub.challenge", "a", ""]), chance.choice(JUNK)))
    return replace(
        sent,
        headers=Headers(headers),
        body=changed_bytes(chance, sent.body) if chance.random() < 0.6 else sent.body,
        method=chance.choice(METHODS),
        query=query,
        url=URL + ("?" + urlencode(query, errors="surrogatepass") if query else ""),
        received_at=NOW + timedelta(seconds=chance.choice([0, 0, 0, 1, -1, 10**6, -(10**6)])),
    )


def delivery(source: Source, secret: str, type: str) -> Delivery:
    made = sample(source, type, secret, NOW, url=URL)
    query = tuple(made.query.items())
    return Delivery(source.name, Headers(made.headers.items()), made.body, NOW, url=URL, query=query)


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_of_a_strangers_comes_in_and_nothing_of_it_is_an_error_of_ours(
    name: str, secrets: dict[str, dict[str, str]]
) -> None:
    source, nothing, chance = SOURCES[name], Nothing(), random.Random(f"{SEED} {name}")
    ours, theirs = secrets["ours"], secrets["theirs"]
    known = {source.name: ours.get(name, ""), source.name + VERIFY_TOKEN: ours.get(name + VERIFY_TOKEN, "verify")}
    inbox = Inbox(SOURCES, lambda of: [known[of]], nothing, nothing, fetch_nothing)
    forged = [delivery(source, theirs.get(name + SIGNING_KEY, theirs[name]), type) for type in guide(name).samples]
    came: Counter[str] = Counter()
    for _ in range(EACH):
        sent = hostile(chance, chance.choice(forged))
        try:
            result = accept(sent, inbox)
        except Refusal as refusal:
            came[refusal.code] += 1
        else:
            assert isinstance(result, Greeting)  # a handshake, which gives nothing away
            came["greeting"] += 1
    assert came["internal_error"] == 0
    assert came["invalid_signature"] + came["secret_unavailable"] > EACH / 4, came


LARGE = {
    "escapes": ("application/x-www-form-urlencoded", b"a=" + b"%41" * 1_960_000),
    "fields": ("application/x-www-form-urlencoded", b"&".join(b"a%d=%%42" % n for n in range(700_000))[:5_900_000]),
    "nesting": ("application/json", b"[" * 5_900_000),
    "numbers": ("application/json", b"[" + b"1," * 2_900_000 + b"1]"),
    "a text": ("application/json", b'{"a": "' + b"\\\\n" * 2_900_000 + b'"}'),
    "a bomb": ("application/json", gzip.compress(b"0" * 50_000_000)),
}


@pytest.mark.parametrize("what", LARGE)
def test_the_largest_bodies_of_strangers_leave_half_of_the_memory(what: str) -> None:
    """Each provider's reading of it, in a process of its own whose peak is measured."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.test_hostile", what],
        cwd=PROJECT, capture_output=True, text=True, timeout=240, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 256, f"{done.stdout} MB"


def peak_of(what: str) -> int:
    """In megabytes, after each provider has refused it."""
    import tempfile

    content_type, body = LARGE[what]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "secrets.json"
        ensure_development_secrets(file, SOURCES)
        ours = {name: str(secret) for name, secret in read_secrets(file).items()}
    nothing = Nothing()
    inbox = Inbox(SOURCES, lambda of: [ours.get(of, "x" * 20)], nothing, nothing, fetch_nothing)
    for name, source in SOURCES.items():
        wanted = content_type if content_type in source.content_types else min(source.content_types)
        header = getattr(source.scheme, "header", "X-Signature")
        encoding = "gzip" if what == "a bomb" else ""
        headers = [("Content-Type", wanted), (header, "0" * 64), ("Content-Encoding", encoding)]
        try:
            accept(Delivery(name, Headers(headers), body, NOW, url=URL), inbox)
        except Refusal:
            continue
        raise AssertionError(f"{name} took it")
    return _peak()


def _peak() -> int:
    """Of this program alone: on Linux `ru_maxrss` begins with what the process had before exec(2), its parent's."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_048_576  # macOS, in bytes


if __name__ == "__main__":
    print(peak_of(sys.argv[1]))


def _fields(body: bytes) -> list[tuple[str, str]]:
    return parse_qsl(body.decode("latin-1"), keep_blank_values=True, encoding="latin-1")


BITS = 8 * 10**6 if EACH > 10_000 else 150


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.scheme.covers_body])
def test_no_bit_of_a_signed_body_may_be_another(name: str, secrets: dict[str, dict[str, str]]) -> None:
    """All of them in `make hostile`, some of them by chance here."""
    source, ours, chance = SOURCES[name], secrets["ours"], random.Random(f"{SEED} {name}")
    for type in guide(name).samples:
        sent = delivery(source, ours.get(name + SIGNING_KEY, ours[name]), type)
        source.scheme.verify(sent, [ours[name]], fetch_nothing)
        bits = range(len(sent.body) * 8)
        for bit in bits if len(bits) <= BITS else chance.sample(bits, BITS):
            at, mask = bit // 8, 1 << bit % 8
            body = sent.body[:at] + bytes([sent.body[at] ^ mask]) + sent.body[at + 1 :]
            if b"%" in sent.body and _fields(body) == _fields(sent.body):
                continue  # some sign a form's fields, which %2B and %2b are one of
            with pytest.raises(Refusal):
                source.scheme.verify(replace(sent, body=body), [ours[name]], fetch_nothing)
