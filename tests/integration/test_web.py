"""Fetching a certificate: once, little, from the host that was asked, and never as a flood of ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from chalicelib.adapters import web
from chalicelib.errors import SecretUnavailable


class Host:
    def __init__(self) -> None:
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                found: dict[str, tuple[int, bytes]] = {
                    "/cert.pem": (200, b"certificate"),
                    "/large.pem": (200, b"x" * 70_000),
                    "/moved.pem": (302, b""),
                }
                status, body = found.get(self.path, (404, b""))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/cert.pem")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
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


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    for name, empty in (("_kept", {}), ("_failed", {}), ("_asked_at", [])):
        monkeypatch.setattr(web, name, empty)
    running = Host()
    yield running
    running.stop()


def test_what_was_fetched_is_kept(host: Host) -> None:
    for _ in range(3):
        assert web.fetch(f"{host.url}/cert.pem") == b"certificate"
    assert host.asked == ["/cert.pem"]


@pytest.mark.parametrize("path", ["/none.pem", "/large.pem", "/moved.pem"])
def test_what_is_not_there_too_large_or_elsewhere_is_not_taken_and_not_asked_for_again_at_once(
    host: Host, path: str
) -> None:
    for _ in range(3):
        with pytest.raises(SecretUnavailable):
            web.fetch(host.url + path)
    assert host.asked == [path]


def test_a_host_that_does_not_answer_is_a_503_and_no_crash() -> None:
    with pytest.raises(SecretUnavailable):
        web.fetch("http://127.0.0.1:1/cert.pem")


def test_nobody_makes_us_flood_a_host(host: Host) -> None:
    for n in range(50):
        with pytest.raises(SecretUnavailable):
            web.fetch(f"{host.url}/forged-{n}.pem")
    assert len(host.asked) == 10


def test_what_is_kept_is_bounded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_MOST_A_MINUTE", 1_000)
    for n in range(100):
        with pytest.raises(SecretUnavailable):
            web.fetch(f"{host.url}/forged-{n}.pem")
    assert len(web._failed) <= 32
