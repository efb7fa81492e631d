"""Against the official libraries on PyPI, over random secrets, bodies and times: what one accepts the other does."""

from __future__ import annotations

import base64
import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import gidgethub
import gidgethub.sansio
import gocardless_pro.errors
import gocardless_pro.webhooks
import pytest
import razorpay.errors
import razorpay.utility.utility
import resend
import slack_sdk.signature
import standardwebhooks
import svix
import workos.webhooks._verification
from hubspot.utils import signature as hubspot
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from linebot.v3.webhook import SignatureValidator
from paddle_billing.Notifications import Secret as PaddleSecret
from paddle_billing.Notifications import Verifier as PaddleVerifier
from square.utils import webhooks_helper as square

from chalicelib.postern.contract.deliveries import Headers
from chalicelib.postern.contract.errors import InvalidSignature
from chalicelib.postern.receiving.schemes import Scheme
from tests.schemes import URL, scheme_of, signed, verify


def now() -> datetime:
    return datetime.now(UTC)


def refuses(*errors: type[BaseException]) -> Callable[..., Callable[..., bool]]:
    """A library's function that raises for what it refuses, as one that says so."""

    def decorate(function: Callable[..., object]) -> Callable[..., bool]:
        def accepts(*arguments: Any) -> bool:
            try:
                return function(*arguments) is not False
            except errors:
                return False

        return accepts

    return decorate


Accepts = Callable[[str, bytes, Mapping[str, str]], bool]


@refuses(gidgethub.ValidationFailure)
def github(secret: str, body: bytes, headers: Mapping[str, str]) -> None:
    gidgethub.sansio.validate_event(body, signature=headers["X-Hub-Signature-256"], secret=secret)


def slack(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    return bool(slack_sdk.signature.SignatureVerifier(secret).is_valid_request(body, headers))


def line(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    return bool(SignatureValidator(secret).validate(body.decode(), headers["x-line-signature"]))


@refuses(razorpay.errors.SignatureVerificationError)
def razorpay_(secret: str, body: bytes, headers: Mapping[str, str]) -> None:
    utility = razorpay.utility.utility.Utility()
    utility.verify_webhook_signature(body.decode(), headers["X-Razorpay-Signature"], secret)


@refuses(gocardless_pro.errors.InvalidSignatureError)
def gocardless(secret: str, body: bytes, headers: Mapping[str, str]) -> None:
    gocardless_pro.webhooks._verify_signature(body, secret, headers["Webhook-Signature"])


@refuses(ConnectionRefusedError, ValueError)
def paddle(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    request = SimpleNamespace(headers=headers, body=body)
    return bool(PaddleVerifier(300).verify(request, PaddleSecret(secret)))


@refuses(ValueError)
def workos_(secret: str, body: bytes, headers: Mapping[str, str]) -> None:
    workos.webhooks._verification.verify_header(
        event_body=body, event_signature=headers["WorkOS-Signature"], secret=secret
    )


def square_(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    return square.verify_signature(
        request_body=body.decode(),
        signature_header=headers["x-square-hmacsha256-signature"],
        signature_key=secret,
        notification_url=URL,
    )


def hubspot_(secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    return bool(
        hubspot.Signature.is_valid(
            signature=headers["X-HubSpot-Signature-v3"],
            client_secret=secret,
            request_body=body.decode(),
            http_uri=URL,
            signature_version="v3",
            timestamp=headers["X-HubSpot-Request-Timestamp"],
        )
    )


@refuses(standardwebhooks.WebhookVerificationError, svix.WebhookVerificationError, ValueError)
def standard(secret: str, body: bytes, headers: Mapping[str, str]) -> None:
    standardwebhooks.Webhook(secret).verify(body, dict(headers))


@refuses(standardwebhooks.WebhookVerificationError, svix.WebhookVerificationError, ValueError)
def svix_(secret: str, body: bytes, headers: Mapping[str, str]) -> None:
    svix.Webhook(secret).verify(body, {name.replace("webhook-", "svix-"): text for name, text in headers.items()})


@refuses(ValueError)
def resend_(secret: str, body: bytes, headers: Mapping[str, str]) -> None:
    names: Any = {name: headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature")}
    resend.Webhooks.verify({"payload": body.decode(), "headers": names, "webhook_secret": secret})


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=60).filter(
    lambda text: bool(text.strip())
)
whsecs = st.binary(min_size=24, max_size=64).filter(any).map(lambda key: "whsec_" + _base64(key))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Library:
    provider: str
    accepts: Accepts
    secrets: st.SearchStrategy[str] = texts
    binary: bool = False
    json_only: bool = False
    empty: bool = True


LIBRARIES = [
    Library("github", github, binary=True),
    Library("slack", slack),
    Library("line", line),
    Library("razorpay", razorpay_),
    Library("gocardless", gocardless, binary=True),
    Library("paddle", paddle),
    Library("workos", workos_),
    Library("square", square_, empty=False),
    Library("hubspot", hubspot_),
    Library("standard-webhooks", standard, whsecs, json_only=True, empty=False),
    Library("svix", svix_, whsecs, json_only=True, empty=False),
    Library("clerk", svix_, whsecs, json_only=True, empty=False),
    Library("openai", standard, whsecs, json_only=True, empty=False),
    Library("gitlab", standard, whsecs, json_only=True, empty=False),
    Library("resend", resend_, whsecs, json_only=True, empty=False),
]
each_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.provider)


def bodies(library: Library) -> st.SearchStrategy[bytes]:
    if library.json_only:
        return st.dictionaries(texts, texts, max_size=3).map(lambda value: json.dumps(value).encode())
    if library.binary:
        return st.binary(max_size=300)
    return st.text(st.characters(codec="utf-8"), min_size=0 if library.empty else 1, max_size=200).map(str.encode)


def ours(scheme: Scheme, secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    try:
        verify(scheme, Headers(headers.items()), body, [secret], now())
    except InvalidSignature:
        return False
    return True


def theirs(library: Library, secret: str, body: bytes, headers: Mapping[str, str]) -> bool:
    """Some raise anything for what they cannot read; that is a refusal, too."""
    try:
        return library.accepts(secret, body, headers)
    except (ValueError, TypeError, hubspot.InvalidSignatureTimestampError):
        return False


# Some do not read the labels before a time or a signature, and take any in their place.
UNREAD = {"resend": "v1,", "workos": "t=|v1="}


def unread(library: Library, text: str, at: int) -> bool:
    labels = re.finditer(UNREAD.get(library.provider, "never there"), text)
    return any(label.start() <= at < label.end() for label in labels)


def reads_the_same(text: str, other: str) -> bool:
    """Whether two signatures of Standard Webhooks are base64 of the same bytes, but for the last digit's spare bits."""
    if not text.startswith("v1,") or not other.startswith("v1,"):
        return False
    try:
        return base64.b64decode(text[3:]) == base64.b64decode(other[3:])
    except ValueError:
        return False


@each_library
@settings(max_examples=25, deadline=None)
@given(data=st.data(), age=st.integers(-100, 100))
def test_the_library_accepts_what_we_sign_and_we_do(library: Library, data: st.DataObject, age: int) -> None:
    scheme = scheme_of(library.provider)
    secret, body = data.draw(library.secrets), data.draw(bodies(library))
    headers = signed(scheme, body, secret, now=now() - timedelta(seconds=age)).headers
    assert library.accepts(secret, body, headers)
    assert ours(scheme, secret, body, headers)


@each_library
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_what_either_accepts_of_an_altered_delivery_the_other_accepts(library: Library, data: st.DataObject) -> None:
    """Nothing, that is; one alteration at a time, of one byte of the body or one character of a header."""
    scheme = scheme_of(library.provider)
    secret, body = data.draw(library.secrets), data.draw(bodies(library))
    headers = dict(signed(scheme, body, secret, now=now()).headers)
    where = data.draw(st.sampled_from(["body", *headers]))
    if where == "body":
        at = data.draw(st.integers(0, len(body)))
        altered, names = body[:at] + data.draw(st.sampled_from([b" ", b"x", b"\n"])) + body[at:], headers
    else:
        text = headers[where]
        at = data.draw(st.integers(0, len(text) - 1))
        other = data.draw(st.sampled_from([c for c in "09afAF=,v" if c != text[at]]))
        altered, names = body, {**headers, where: text[:at] + other + text[at + 1 :]}
    assert not ours(scheme, secret, altered, names)
    if where == "body" or not (unread(library, headers[where], at) or reads_the_same(headers[where], names[where])):
        assert not theirs(library, secret, altered, names)


def test_the_last_digit_of_base64_has_bits_that_libraries_ignore_and_we_do_not() -> None:
    assert reads_the_same("v1,QQ==", "v1,QR==")
    assert not reads_the_same("v1,QQ==", "v1,Qg==")
    assert not reads_the_same("sha256=00", "sha256=01")


@each_library
def test_a_megabyte_and_other_scripts_are_no_matter(library: Library) -> None:
    scheme = scheme_of(library.provider)
    secret = "whsec_" + _base64(b"k" * 32) if library.secrets is whsecs else "sécret 🦊"
    for body in (b'{"a": "' + b"x" * 1_000_000 + b'"}', '{"name": "Zoë 🦊 こんにちは"}'.encode()):
        headers = signed(scheme, body, secret, now=now()).headers
        assert library.accepts(secret, body, headers)
        assert ours(scheme, secret, body, headers)


@each_library
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_another_secret_is_refused_by_both(library: Library, data: st.DataObject) -> None:
    scheme = scheme_of(library.provider)
    secret, other = data.draw(library.secrets), data.draw(library.secrets)
    # HMAC pads a short key with zeros: trailing NULs change nothing.
    assume(other.rstrip("\0A=") != secret.rstrip("\0A="))
    headers = signed(scheme, b"{}", secret, now=now()).headers
    assert not ours(scheme, other, b"{}", headers)
    assert not theirs(library, other, b"{}", headers)


# Where a library is laxer than we are


@pytest.mark.parametrize("seconds", [-3600, -301, 301, 3600])
@pytest.mark.parametrize("provider", ["slack", "paddle", "workos", "hubspot", "standard-webhooks", "resend"])
def test_a_time_far_from_now_is_refused_by_us_in_both_directions(provider: str, seconds: int) -> None:
    [library] = [library for library in LIBRARIES if library.provider == provider]
    secret = "whsec_" + _base64(b"k" * 32) if library.secrets is whsecs else "s3cret"
    headers = signed(scheme_of(provider), b'{"a": 1}', secret, now=now() + timedelta(seconds=seconds)).headers
    assert not ours(scheme_of(provider), secret, b'{"a": 1}', headers)
    if provider != "hubspot":
        assert not library.accepts(secret, b'{"a": 1}', headers)


def test_hubspots_library_takes_any_time_to_come_and_we_do_not() -> None:
    headers = signed(scheme_of("hubspot"), b"[]", "s3cret", now=now() + timedelta(days=1)).headers
    assert hubspot_("s3cret", b"[]", headers)
    assert not ours(scheme_of("hubspot"), "s3cret", b"[]", headers)


def test_githubs_older_library_takes_sha1_and_we_never_look_at_it() -> None:
    sha1 = "sha1=" + hmac.digest(b"s3cret", b"{}", "sha1").hex()
    gidgethub.sansio.validate_event(b"{}", signature=sha1, secret="s3cret")
    for headers in ({"X-Hub-Signature-256": sha1}, {"X-Hub-Signature": sha1}):
        assert not ours(scheme_of("github"), "s3cret", b"{}", headers)


def test_resends_library_takes_any_version_of_a_signature_and_we_do_not() -> None:
    secret = "whsec_" + _base64(b"k" * 32)
    headers = dict(signed(scheme_of("resend"), b"{}", secret, now=now()).headers)
    headers["webhook-signature"] = headers["webhook-signature"].replace("v1,", "v0,")
    assert resend_(secret, b"{}", headers)
    assert not ours(scheme_of("resend"), secret, b"{}", headers)


def test_slacks_library_trips_over_a_time_that_is_no_number_and_we_refuse_it() -> None:
    headers = {**signed(scheme_of("slack"), b"{}", "s3cret", now=now()).headers, "X-Slack-Request-Timestamp": "soon"}
    with pytest.raises(ValueError, match="invalid literal"):
        slack("s3cret", b"{}", headers)
    assert not ours(scheme_of("slack"), "s3cret", b"{}", headers)


@pytest.mark.parametrize("provider", ["line", "razorpay", "square", "slack", "hubspot", "workos", "paddle"])
def test_a_body_that_is_no_text_is_verified_by_us_where_the_library_cannot_read_it(provider: str) -> None:
    [library] = [library for library in LIBRARIES if library.provider == provider]
    headers = signed(scheme_of(provider), b"\xff\xfe", "s3cret", now=now()).headers
    assert ours(scheme_of(provider), "s3cret", b"\xff\xfe", headers)
    try:
        accepted = library.accepts("s3cret", b"\xff\xfe", headers)
    except UnicodeDecodeError:
        accepted = False
    assert not accepted


def test_polars_secret_is_its_text_as_its_library_makes_it_base64_first() -> None:
    headers = signed(scheme_of("polar"), b"{}", "polar_whs_text", now=now()).headers
    assert standard(_base64(b"polar_whs_text"), b"{}", headers)


def test_supabase_shows_its_secret_with_a_version() -> None:
    secret = "whsec_" + _base64(b"k" * 32)
    headers = signed(scheme_of("supabase"), b"{}", "v1," + secret, now=now()).headers
    assert standard(secret, b"{}", headers)
    assert ours(scheme_of("supabase"), "v1," + secret, b"{}", headers)


def test_paddles_library_signs_the_number_and_we_the_text() -> None:
    """So a time in another spelling than the one that was signed is accepted there and refused here."""
    headers = signed(scheme_of("paddle"), b"{}", "s3cret", now=now()).headers["Paddle-Signature"]
    spelled = {"Paddle-Signature": headers.replace("ts=", "ts=0")}
    assert paddle("s3cret", b"{}", spelled)
    assert not ours(scheme_of("paddle"), "s3cret", b"{}", spelled)
