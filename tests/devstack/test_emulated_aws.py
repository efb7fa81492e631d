"""The emulated AWS answers the run and its developer, and no web page."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from devstack.aws import EmulatedAws
from devstack.emulated_aws import refusal


def ask(url: str, **headers: str) -> int:
    request = urllib.request.Request(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as exc:
        return exc.code


def test_a_web_page_cannot_read_the_secrets(aws: EmulatedAws) -> None:
    health = f"{aws.endpoint_url}/_ministack/health"
    assert ask(health) == 200
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": aws.endpoint_url},
        {"Sec_Fetch_Site": "cross-site"},
        {"Host": "evil.example"},
    ):
        assert ask(health, **headers) == 403, headers


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:4566", "[::1]:1", "bucket.localhost:80", "a1.execute-api.localhost", "LOCALHOST"]
)
def test_this_machines_own_names_are_taken(host: str) -> None:
    assert refusal([(b"host", host.encode())]) == ""


OTHERS = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost", "", "localhost:80@evil"]


@pytest.mark.parametrize("host", OTHERS)
def test_no_other_name_is(host: str) -> None:
    assert refusal([(b"Host", host.encode())]) != ""
