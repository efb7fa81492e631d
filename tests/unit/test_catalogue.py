"""Every provider of the catalogue, whatever it is: it can be read alone, sent, verified, named and explained."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

import chalicelib.postern.receiving.providers as providers
from chalicelib.postern.contract.deliveries import Delivery, Headers
from chalicelib.postern.contract.errors import InvalidSignature, Refusal, SecretUnavailable
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.receiving.ingest import Inbox, Receipt, accept
from chalicelib.postern.receiving.naming import Place
from chalicelib.postern.receiving.providers import provider, provider_names
from chalicelib.postern.receiving.sources import SIGNING_KEY, Source, load_sources
from cli import catalogue
from cli.guides import guide
from cli.samples import Sample, sample
from devstack.secrets import ensure_development_secrets, read_secrets
from tests.schemes import URL
from tests.support import EVERY_SOURCE

PROJECT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SOURCES = load_sources(EVERY_SOURCE)
SENT = [name for name in provider_names() if provider(name).needs_secret]
SAMPLES = [(name, type) for name in SENT for type in guide(name).samples]

each_provider = pytest.mark.parametrize("name", SENT)
each_sample = pytest.mark.parametrize(("name", "type"), SAMPLES)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """As a local run makes them."""
    file = tmp_path_factory.mktemp("secrets") / "secrets.json"
    ensure_development_secrets(file, SOURCES)
    return {name: value for name, value in read_secrets(file).items() if isinstance(value, str)}


class Pipe:
    def __init__(self, secrets: dict[str, str]) -> None:
        self.messages: list[str] = []
        self.inbox = Inbox(SOURCES, lambda source: [secrets[source]], self, self)

    def send(self, message: str, *, group: str, trace: str | None) -> None:
        self.messages.append(message)

    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None) -> None:
        self.messages += messages

    def put(self, key: str, body: bytes) -> None:
        raise AssertionError("no sample is that large")


def made(name: str, type: str, secrets: dict[str, str], now: datetime = NOW) -> Sample:
    source = SOURCES[name]
    return sample(source, type, secrets.get(name + SIGNING_KEY, secrets[name]), now, url=URL)


def delivery(name: str, sent: Sample, now: datetime = NOW) -> Delivery:
    url = URL + ("?" + urlencode(sent.query) if sent.query else "")
    return Delivery(name, Headers(sent.headers.items()), sent.body, now, url=url, query=tuple(sent.query.items()))


def test_forty_and_more_are_there() -> None:
    assert len(SENT) >= 40


def test_the_shipped_sources_are_one_for_each_provider_under_its_name() -> None:
    assert {name: source.provider for name, source in SOURCES.items()} == {name: name for name in SENT}


@each_sample
def test_a_sample_is_accepted_and_has_its_type_and_a_key_of_its_own(
    name: str, type: str, secrets: dict[str, str]
) -> None:
    pipe = Pipe(secrets)
    for _ in range(2):
        receipt = accept(delivery(name, made(name, type, secrets)), pipe.inbox)
        assert isinstance(receipt, Receipt)
    events = [from_message(message) for message in pipe.messages]
    keys = {event.claim or event.dedup_key for event in events}
    assert len(keys) == len(events)
    assert receipt.type == type


@pytest.mark.parametrize("name", [name for name in SENT if SOURCES[name].identity.place != "none"])
def test_a_sample_that_comes_twice_is_one_event(name: str, secrets: dict[str, str]) -> None:
    pipe = Pipe(secrets)
    sent = delivery(name, made(name, guide(name).default_type, secrets))
    for seconds in (0, 1):
        accept(replace(sent, received_at=NOW + timedelta(seconds=seconds)), pipe.inbox)
    events = [from_message(message) for message in pipe.messages]
    keys = [event.claim or event.dedup_key for event in events]
    assert keys[: len(keys) // 2] == keys[len(keys) // 2 :]


@each_provider
def test_another_secret_verifies_nothing(name: str, secrets: dict[str, str], tmp_path: Path) -> None:
    others = tmp_path / "secrets.json"
    ensure_development_secrets(others, {name: SOURCES[name]})
    other = read_secrets(others)[name]
    sent = delivery(name, made(name, guide(name).default_type, secrets))
    with pytest.raises(InvalidSignature):
        SOURCES[name].scheme.verify(sent, [str(other)])


@pytest.mark.parametrize("name", [name for name in SENT if SOURCES[name].scheme.covers_body])
def test_every_altered_byte_of_a_covered_body_is_refused(name: str, secrets: dict[str, str]) -> None:
    source = SOURCES[name]
    sent = delivery(name, made(name, guide(name).default_type, secrets))
    for at in range(len(sent.body)):
        altered = sent.body[:at] + bytes([sent.body[at] ^ 1]) + sent.body[at + 1 :]
        assert not verifies(source, replace(sent, body=altered), secrets), at
    for altered in (sent.body + b"\n", sent.body[:-1], b" " + sent.body, b""):
        assert not verifies(source, replace(sent, body=altered), secrets)


@each_provider
def test_every_altered_character_of_a_header_that_proves_something_is_refused(
    name: str, secrets: dict[str, str]
) -> None:
    """Those that the signing adds: the signature, the time, the signed id."""
    source = SOURCES[name]
    sent = made(name, guide(name).default_type, secrets)
    plain = {"content-type", "user-agent", *(n.lower() for n in unsigned_headers(source))}
    for header, value in sent.headers.items():
        if header.lower() in plain:
            continue
        for at, character in enumerate(value):
            other = chr(ord(character) ^ 1)
            altered = Sample(sent.body, {**sent.headers, header: value[:at] + other + value[at + 1 :]})
            assert not verifies(source, delivery(name, altered), secrets), (header, at)


@each_provider
def test_a_repeated_header_is_refused_unless_the_provider_repeats_it(name: str, secrets: dict[str, str]) -> None:
    source = SOURCES[name]
    sent = made(name, guide(name).default_type, secrets)
    for header in set(sent.headers) - {"Content-Type", "User-Agent"} - unsigned_headers(source):
        headers = Headers([*sent.headers.items(), (header, sent.headers[header])])
        if not getattr(source.scheme, "repeated", False):
            assert not verifies(source, replace(delivery(name, sent), headers=headers), secrets)


HOSTILE = [
    "",
    "é",
    "\0",
    "=" * 5,
    "t=,v1=",
    "t=1,v1=00",
    "v1,",
    "a" * 100_000,
    ",".join(["v1=00"] * 10_000),
    " ".join(["v1,AAAA"] * 10_000),
    ";".join(["h1=00"] * 10_000),
    "sha256=",
    "Bearer eyJhbGciOiJub25lIn0.e30.",
    "Basic Og==",
    "\ud800",
    "-1",
    "0",
    "4291747200",
    "1e9",
    "１７９５４３５２００",
    "2106-02-07T06:28:16Z",
    "1970-01-01T00:00:00Z",
    "9999-99-99T99:99:99Z",
]


@each_provider
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_header_is_refused_with_a_401_and_asks_for_nothing(
    name: str, text: str, secrets: dict[str, str]
) -> None:
    source = SOURCES[name]
    sent = made(name, guide(name).default_type, secrets)
    for header in set(sent.headers) - {"Content-Type", "User-Agent"} - unsigned_headers(source):
        if text == sent.headers[header]:
            continue
        hostile = delivery(name, Sample(sent.body, {**sent.headers, header: text}))
        with pytest.raises(InvalidSignature):
            source.scheme.verify(hostile, [secrets[name]])


@each_provider
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 5_000, b"a=b&a", b"7"]
)
def test_a_hostile_body_never_raises_anything_but_a_refusal(name: str, body: bytes, secrets: dict[str, str]) -> None:
    sent = made(name, guide(name).default_type, secrets)
    for headers in (sent.headers, {}):
        hostile = delivery(name, Sample(body, headers))
        try:
            SOURCES[name].scheme.verify(hostile, [secrets[name]])
        except Refusal:
            continue


@each_provider
def test_it_has_a_guide_with_steps_and_samples(name: str) -> None:
    about = guide(name)
    assert about.title and about.secret and about.samples
    assert any("{url}" in step for step in about.setup)
    page = catalogue.description(name, "https://hooks.example.com/x")
    assert "https://hooks.example.com/x" in page
    assert f"Try it: postern send x {about.default_type}" in page
    assert "{url}" not in page
    assert max(map(len, page.splitlines())) <= 110


def test_each_entry_is_read_alone_as_it_is_read_with_the_others() -> None:
    whole = tomllib.loads(
        (PROJECT / "chalicelib" / "postern" / "receiving" / "providers" / "catalogue.toml").read_text("utf-8")
    )
    assert sorted(whole) == provider_names()
    for name, entry in whole.items():
        alone = provider(name)
        assert alone.scheme == entry["scheme"]
        assert set(alone.settings) - {"tolerance_seconds"} <= set(entry)
        assert list(alone.handshakes) == entry.get("handshakes", [])


def test_each_guide_belongs_to_a_provider() -> None:
    assert sorted(file.stem for file in (PROJECT / "cli" / "providers").glob("*.toml")) == provider_names()


def test_a_name_that_is_none_is_not_found() -> None:
    for name in ("", "nobody", "github]\n[stripe", "git", "none]"):
        with pytest.raises(KeyError):
            providers.provider(name)


def test_the_page_says_what_the_catalogue_says() -> None:
    assert (PROJECT / "docs" / "providers.md").read_text("utf-8") == catalogue.page(), "make providers"


def test_a_source_loads_what_it_needs_and_no_other_scheme() -> None:
    """The cost of a delivery does not grow with the catalogue: fifty providers are a file that is not parsed."""
    script = f"""
import json, sys
from pathlib import Path
import app
from chalicelib.postern.receiving.providers import provider
from chalicelib.postern.receiving.sources import Sources
sources = Sources(Path({str(EVERY_SOURCE)!r}))
sources["github"]
print(json.dumps([sorted(m for m in sys.modules if "schemes." in m or m in ("cryptography", "jwt")),
                  provider.cache_info().misses]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    modules, read = json.loads(done.stdout)
    assert modules == [
        "chalicelib.postern.receiving.schemes.base",
        "chalicelib.postern.receiving.schemes.hmacs",
        "chalicelib.postern.receiving.schemes.templated",
    ]
    assert read == 1


def verifies(source: Source, sent: Delivery, secrets: dict[str, str]) -> bool:
    try:
        source.scheme.verify(sent, [secrets[source.name]])
    except (InvalidSignature, SecretUnavailable):
        return False
    return True


def unsigned_headers(source: Source) -> set[str]:
    """Those that a sample has for its names, and the guide's own."""
    samples = guide(source.provider).samples.values()
    named: set[str] = {header for text in samples for header in text.headers}
    for place in (source.identity.place, source.type):
        if isinstance(place, Place):
            named |= {at.path for part in place.parts for at in part if at.where == "header"}
    signing: Any = getattr(source.scheme, "id", "")
    return named - {signing}
