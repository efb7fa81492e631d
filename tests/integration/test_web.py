"""Fetching a certificate: once, little, from the host that was asked, and never as a flood of ours."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from chalicelib.postern.adapters import web
from chalicelib.postern.contract.errors import InvalidSignature, SecretUnavailable
from tests.certificates import certificate


class Host:
    def __init__(self) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                found: dict[str, tuple[int, bytes]] = {
                    "/cert.pem": (200, CERTIFICATE),
                    "/expired.pem": (200, EXPIRED),
                    "/page.pem": (200, b"<html>Back soon</html>"),
                    "/slow.pem": (200, b"x" * 200),
                    "/large.pem": (200, b"x" * 70_000),
                    "/moved.pem": (302, b""),
                    "/ill.pem": (500, b""),
                    "/secret.pem": (403, b""),
                }
                status, body = found.get(self.path.partition("?")[0], (404, b""))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/cert.pem")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for at in range(len(body)) if self.path == "/slow.pem" else ():
                    with contextlib.suppress(OSError):
                        self.wfile.write(body[at : at + 1])
                    time.sleep(0.02)
                if self.path != "/slow.pem":
                    self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(5)


CERTIFICATE = certificate("https://x", datetime.now(UTC)).pem.encode()
EXPIRED = certificate("https://x", datetime.now(UTC), before=timedelta(days=400)).pem.encode()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    for name in ("_kept", "_failed", "_failures", "_asked"):
        monkeypatch.setattr(web, name, {})
    running = Host()
    yield running
    running.stop()


def test_a_certificate_that_was_fetched_is_kept(host: Host) -> None:
    for _ in range(3):
        assert web.fetch(f"{host.url}/cert.pem") == CERTIFICATE
    assert host.asked == ["/cert.pem"]


@pytest.mark.parametrize("path", ["/page.pem", "/expired.pem"])
def test_what_is_none_or_out_of_date_is_never_kept(host: Host, path: str) -> None:
    """One bad answer of the host would turn every delivery away for as long as the container lives."""
    for _ in range(2):
        web.fetch(host.url + path)
    assert host.asked == [path] * 2


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/none.pem", InvalidSignature),
        ("/secret.pem", SecretUnavailable),  # 403, which elsewhere than at S3 is no word about a file
        ("/ill.pem", SecretUnavailable),
        ("/large.pem", SecretUnavailable),
        ("/moved.pem", SecretUnavailable),
    ],
)
def test_what_cannot_be_had_is_not_asked_for_again_at_once(host: Host, path: str, error: type[Exception]) -> None:
    """What the host does not have was made up: 401. What it cannot give now is to come again: 503."""
    for _ in range(3):
        with pytest.raises(error):
            web.fetch(host.url + path)
    assert host.asked == [path]


def test_a_host_that_does_not_answer_is_a_503_and_no_crash() -> None:
    with pytest.raises(SecretUnavailable):
        web.fetch("http://127.0.0.1:1/cert.pem")


def test_a_host_that_sends_a_byte_now_and_then_holds_up_nobody(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_WITHIN_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(SecretUnavailable):
        web.fetch(f"{host.url}/slow.pem")
    assert time.monotonic() - began < 3


def test_a_stranger_who_makes_up_urls_starves_no_other_provider_and_none_that_is_known(host: Host) -> None:
    other = host.url.replace("127.0.0.1", "localhost")
    assert web.fetch(f"{host.url}/cert.pem") == CERTIFICATE
    for n in range(50):
        with pytest.raises((InvalidSignature, SecretUnavailable)):
            web.fetch(f"{host.url}/forged-{n}.pem")
    assert len(host.asked) == 1 + 10  # no flood of ours
    assert web.fetch(f"{host.url}/cert.pem") == CERTIFICATE
    assert web.fetch(f"{other}/cert.pem") == CERTIFICATE


def test_what_is_there_costs_no_budget(host: Host) -> None:
    """An account may have topics in every region, each with a certificate of its own."""
    for n in range(30):
        assert web.fetch(f"{host.url}/cert.pem?{n}") == CERTIFICATE
    with pytest.raises(SecretUnavailable):
        web.fetch(f"{host.url}/cert.pem?more")  # and is no way to make us a flood


def test_what_is_kept_is_bounded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_MAX_FAILURES_A_MINUTE", 1_000)
    monkeypatch.setattr(web, "_MAX_A_MINUTE", 1_000)
    used = f"{host.url}/cert.pem"
    for n in range(100):
        web.fetch(f"{host.url}/cert.pem?{n}")
        web.fetch(used)
        with pytest.raises(InvalidSignature):
            web.fetch(f"{host.url}/forged-{n}.pem")
    assert len(web._failed) <= 64
    assert len(web._kept) <= 64
    assert host.asked.count("/cert.pem") == 1  # what is in use is never pushed out
