"""Bodies from the bucket: whatever goes wrong on the way is said in a word, within a time."""

from __future__ import annotations

import io
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import urllib3
from botocore.response import StreamingBody

from chalicelib.postern.adapters import aws, s3
from chalicelib.postern.contract.errors import BodyUnavailable


class Bucket:
    def __init__(self, stream: Any, length: int) -> None:
        self.stream, self.length = stream, length

    def get_object(self, **asked: str) -> dict[str, Any]:
        raw = urllib3.HTTPResponse(
            body=self.stream, preload_content=False, headers={"content-length": str(self.length)}
        )
        return {"Body": StreamingBody(raw, self.length)}


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    at = [0.0]
    monkeypatch.setattr(s3.time, "monotonic", lambda: at[0])
    yield at


def test_it_comes_in_parts_and_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    body = bytes(1_000_000)
    monkeypatch.setattr(aws, "s3", lambda: Bucket(io.BytesIO(body), len(body)))
    assert s3.S3Bodies("b").get("k") == body


def test_a_connection_that_ends_within_tls_is_an_unavailable_body(monkeypatch: pytest.MonkeyPatch) -> None:
    class CutOff(io.BytesIO):
        def read(self, *sizes: Any) -> bytes:
            raise ssl.SSLEOFError(8, "EOF occurred in violation of protocol")

        read1 = readinto = read  # type: ignore[assignment]

    monkeypatch.setattr(aws, "s3", lambda: Bucket(CutOff(b"x"), 10))
    with pytest.raises(BodyUnavailable, match="SSLError"):
        s3.S3Bodies("b").get("k")


def test_one_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch, now: list[float]) -> None:
    class Slow(io.BytesIO):
        def read(self, *sizes: Any) -> bytes:
            now[0] += 3
            return super().read(*sizes)

        read1 = read  # type: ignore[assignment]

    monkeypatch.setattr(aws, "s3", lambda: Bucket(Slow(bytes(6_000_000)), 6_000_000))
    with pytest.raises(BodyUnavailable, match="too slowly"):
        s3.S3Bodies("b").get("k")
    assert now[0] < 60
