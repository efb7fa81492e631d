"""Against the official libraries on npm, where PyPI has none: what one accepts the other does."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.postern.contract.deliveries import Headers
from chalicelib.postern.contract.errors import InvalidSignature
from tests.schemes import scheme_of, signed, verify

NODE = Path(__file__).parent / "node"
PROVIDERS = ["github", "linear", "sanity", "shopify"]
each_provider = pytest.mark.parametrize("provider", PROVIDERS)
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(lambda text: bool(text.strip()))


class Libraries:
    """One process of Node's, which is asked a line at a time."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["node", "answer.mjs"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, provider: str, secret: str, body: bytes, **more: Any) -> Any:
        asked = {"provider": provider, "secret": secret, "body": base64.b64encode(body).decode(), **more}
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def accepts(self, provider: str, secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
        return bool(self.ask(provider, secret, body, headers=dict(headers)).get("ok"))

    def stop(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libraries]:
    if shutil.which("npm") is None:
        pytest.skip("Node.js is not installed")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", ".npmrc", "answer.mjs"):
        shutil.copy(NODE / name, folder)
    subprocess.run(["npm", "ci", "--silent"], cwd=folder, check=True, timeout=110)
    asked = Libraries(folder)
    yield asked
    asked.stop()


def now() -> datetime:
    return datetime.now(UTC)


def bodies(provider: str) -> st.SearchStrategy[bytes]:
    """Linear's time is in the body."""
    members = st.dictionaries(texts, texts, max_size=3)
    if provider == "linear":
        at = st.integers(-40, 40).map(lambda seconds: int(now().timestamp() + seconds) * 1000)
        return st.builds(lambda m, t: json.dumps({**m, "webhookTimestamp": t}).encode(), members, at)
    return st.text(st.characters(codec="utf-8", exclude_characters="\ufeff"), min_size=1, max_size=200).map(str.encode)


def ours(provider: str, secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    try:
        verify(scheme_of(provider), Headers(headers.items()), body, [secret], now())
    except InvalidSignature:
        return False
    return True


@each_provider
@quick
@given(data=st.data())
def test_the_library_accepts_what_we_sign_and_nothing_altered(
    libraries: Libraries, provider: str, data: st.DataObject
) -> None:
    secret, body = data.draw(texts), data.draw(bodies(provider))
    headers = signed(scheme_of(provider), body, secret, now=now()).headers
    assert libraries.accepts(provider, secret, body, headers)
    assert ours(provider, secret, body, headers)
    for altered in (body + b" ", b"x" + body):
        assert not libraries.accepts(provider, secret, altered, headers)
        assert not ours(provider, secret, altered, headers)
    for name, value in headers.items():
        at = data.draw(st.integers(0, len(value) - 1))
        other = value[:at] + ("A" if value[at] != "A" else "B") + value[at + 1 :]
        assert not libraries.accepts(provider, secret, body, {**headers, name: other})
        assert not ours(provider, secret, body, {**headers, name: other})


@pytest.mark.parametrize("provider", ["github", "sanity"])
@quick
@given(data=st.data())
def test_we_accept_what_the_library_signs(libraries: Libraries, provider: str, data: st.DataObject) -> None:
    secret, body = data.draw(texts), data.draw(bodies(provider))
    headers = libraries.ask(provider, secret, body, sign=True, millis=int(now().timestamp() * 1000))["ok"]
    assert ours(provider, secret, body, headers)


@each_provider
def test_a_megabyte_and_other_scripts_are_no_matter(libraries: Libraries, provider: str) -> None:
    for text in ("x" * 1_000_000, "Zoë 🦊 こんにちは"):
        body = json.dumps({"a": text, "webhookTimestamp": int(now().timestamp() * 1000)}, ensure_ascii=False).encode()
        headers = signed(scheme_of(provider), body, "sécret", now=now()).headers
        assert libraries.accepts(provider, "sécret", body, headers)
        assert ours(provider, "sécret", body, headers)


def test_sanitys_library_checks_no_time_and_we_do(libraries: Libraries) -> None:
    headers = signed(scheme_of("sanity"), b"{}", "s3cret", now=now() - timedelta(days=1)).headers
    assert libraries.accepts("sanity", "s3cret", b"{}", headers)
    assert not ours("sanity", "s3cret", b"{}", headers)


def test_linears_time_has_to_be_a_number_for_both(libraries: Libraries) -> None:
    body = json.dumps({"webhookTimestamp": str(int(now().timestamp() * 1000))}).encode()
    headers = signed(scheme_of("linear"), body, "s3cret", now=now()).headers
    assert not libraries.accepts("linear", "s3cret", body, headers)
    assert not ours("linear", "s3cret", body, headers)


def test_linear_repeats_with_the_time_of_its_first_attempt_which_its_library_refuses(libraries: Libraries) -> None:
    body = json.dumps({"webhookTimestamp": int((now().timestamp() - 61) * 1000)}).encode()
    headers = signed(scheme_of("linear"), body, "s3cret", now=now()).headers
    assert not libraries.accepts("linear", "s3cret", body, headers)
    assert ours("linear", "s3cret", body, headers)


@pytest.mark.parametrize("seconds", [-90_000, 90_000])
def test_linears_time_counts_both_ways_for_both(libraries: Libraries, seconds: int) -> None:
    body = json.dumps({"webhookTimestamp": int((now().timestamp() + seconds) * 1000)}).encode()
    headers = signed(scheme_of("linear"), body, "s3cret", now=now()).headers
    assert not libraries.accepts("linear", "s3cret", body, headers)
    assert not ours("linear", "s3cret", body, headers)
