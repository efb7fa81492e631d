"""The emulated AWS answers the run and its developer, and no web page."""

from __future__ import annotations

import urllib.error
import urllib.request

import boto3
import pytest
from botocore.exceptions import ClientError

from devstack.aws import EmulatedAws, Resources
from devstack.emulated_aws import refusal, stranger


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


def test_nobody_reads_the_secrets_or_sends_an_event_without_the_key_of_the_run(
    aws: EmulatedAws, resources: Resources
) -> None:
    """Neither an old browser, which does not say where a page is from, nor another user of the machine."""
    guessed = boto3.client(
        "secretsmanager",
        endpoint_url=aws.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    with pytest.raises(ClientError, match="403"):
        guessed.get_secret_value(SecretId=resources.sources_secret_id)
    assert ask(f"{resources.queue_url}?Action=SendMessage&MessageBody=x&Version=2012-11-05") == 403
    assert ask(f"{aws.endpoint_url}/{resources.bodies_bucket}") == 403
    assert aws.client("secretsmanager").get_secret_value(SecretId=resources.sources_secret_id)["SecretString"]


SIGNED = "AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0"


def test_the_key_is_read_where_signature_version_4_has_it() -> None:
    assert stranger([(b"Authorization", SIGNED.format("KEY").encode())], b"", "KEY") == ""
    assert stranger([], b"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=KEY%2F20260101%2Fus", "KEY") == ""
    for headers, query in (
        ([], b""),
        ([(b"authorization", SIGNED.format("KEYS").encode())], b""),
        ([(b"authorization", b"Bearer KEY")], b""),
        ([(b"x-amz-credential", b"KEY/")], b"Credential=KEY/"),
    ):
        assert stranger(headers, query, "KEY") != "", (headers, query)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:4566", "[::1]:1", "bucket.localhost:80", "a1.execute-api.localhost", "LOCALHOST"]
)
def test_this_machines_own_names_are_taken(host: str) -> None:
    assert refusal([(b"host", host.encode())]) == ""


OTHERS = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost", "", "localhost:80@evil"]


@pytest.mark.parametrize("host", OTHERS)
def test_no_other_name_is(host: str) -> None:
    assert refusal([(b"Host", host.encode())]) != ""
