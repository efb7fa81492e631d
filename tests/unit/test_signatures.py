"""What a scheme signs it verifies, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chalicelib.postern.contract.deliveries import Headers
from chalicelib.postern.contract.errors import InvalidSignature, SecretUnavailable
from chalicelib.postern.receiving.schemes import Scheme
from chalicelib.postern.receiving.schemes.shared import Basic, Unverified
from tests.schemes import hmac_body, scheme_of, signature, token, verify

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
BODY = b'{"id": "evt_1", "type": "invoice.paid"}'
WHSEC = "whsec_" + base64.b64encode(b"k" * 32).decode()

STRIPE, STANDARD_WEBHOOKS = scheme_of("stripe"), scheme_of("standard-webhooks")

SCHEMES: dict[str, tuple[Scheme, str]] = {
    "github": (hmac_body("X-Hub-Signature-256", prefix="sha256="), "s3cret"),
    "hmac-sha1-base64": (hmac_body("X-Signature", "sha1", "base64"), "s3cret"),
    "hmac-sha512-hex-key": (hmac_body("X-Signature", "sha512", secret_encoding="hex"), "00ff10"),
    "hmac-base64-key": (hmac_body("X-Signature", secret_encoding="base64"), "c2VjcmV0"),
    "stripe": (STRIPE, "whsec_text"),
    "standard-webhooks": (STANDARD_WEBHOOKS, WHSEC),
    "token": (token("X-Webhook-Token"), "s3cret"),
    "bearer": (token("Authorization", "Bearer "), "s3cret"),
    "basic": (Basic(), "user:pass:word"),
}
COVERING_THE_BODY = [name for name in SCHEMES if name not in ("token", "bearer", "basic")]

# Secrets come from JSON; half a surrogate pair is tried on its own, below.
encodable = st.characters(codec="utf-8")
filled = st.text(encodable, min_size=1, max_size=80).filter(str.strip)
moments = st.integers(0, 7_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))

every_scheme = pytest.mark.parametrize("name", SCHEMES)


def signed(scheme: Scheme, secret: str, body: bytes = BODY, now: datetime = NOW) -> Headers:
    return Headers(signature(scheme, body, secret, event_id="msg_1", now=now).items())


def refused(scheme: Scheme, headers: Headers, secret: str, body: bytes = BODY, now: datetime = NOW) -> str:
    with pytest.raises(InvalidSignature) as caught:
        verify(scheme, headers, body, [secret], now)
    return caught.value.reason


def verifies(scheme: Scheme, headers: Headers, secret: str, body: bytes = BODY, now: datetime = NOW) -> bool:
    try:
        verify(scheme, headers, body, [secret], now)
    except InvalidSignature:
        return False
    return True


@every_scheme
@given(body=st.binary(max_size=2000))
def test_what_is_signed_is_verified(name: str, body: bytes) -> None:
    scheme, secret = SCHEMES[name]
    assert verify(scheme, signed(scheme, secret, body), body, [secret], NOW).secret == 0


whsecs = st.binary(min_size=1, max_size=64).filter(any).map(lambda key: "whsec_" + base64.b64encode(key).decode())
SECRETS_OF: dict[str, tuple[Scheme, st.SearchStrategy[str]]] = {
    "hmac-text-key": (hmac_body("X-Signature"), filled.filter(lambda text: text.strip("\0") != "")),
    "hmac-hex-key": (hmac_body("X-Signature", secret_encoding="hex"), st.binary(min_size=1).filter(any).map(bytes.hex)),
    "hmac-base64-key": (hmac_body("X-Signature", secret_encoding="base64"), whsecs.map(lambda s: s[6:])),
    "stripe": (STRIPE, filled.filter(lambda text: text.strip("\0") != "")),
    "standard-webhooks": (STANDARD_WEBHOOKS, whsecs),
    "token": (token("X-Webhook-Token"), filled),
    "bearer": (token("Authorization", "Bearer "), filled),
    "basic": (Basic(), st.tuples(filled, st.text(encodable)).map(":".join)),
}


@pytest.mark.parametrize("name", SECRETS_OF)
@given(data=st.data(), body=st.binary(max_size=200), at=moments)
def test_any_secret_verifies_what_it_signed_at_any_time(
    name: str, data: st.DataObject, body: bytes, at: datetime
) -> None:
    scheme, secrets = SECRETS_OF[name]
    secret = data.draw(secrets)
    headers = signed(scheme, secret, body, at)
    assert verifies(scheme, headers, secret, body, at)


@pytest.mark.parametrize("name", [name for name in SECRETS_OF if name != "basic"])
@given(data=st.data(), body=st.binary(max_size=200))
def test_no_other_secret_verifies_it(name: str, data: st.DataObject, body: bytes) -> None:
    scheme, secrets = SECRETS_OF[name]
    right, wrong = data.draw(secrets), data.draw(secrets)
    # HMAC pads a short key with zeros: trailing NULs change nothing.
    assume(right.rstrip("\0A=") != wrong.rstrip("\0A="))
    assume(right.lower().rstrip("0") != wrong.lower().rstrip("0"))
    assert not verifies(scheme, signed(scheme, right, body), wrong, body)


@given(words=st.text(), name=st.sampled_from(list(SCHEMES)))
def test_no_text_in_a_header_raises_anything_but_a_refusal(words: str, name: str) -> None:
    scheme, secret = SCHEMES[name]
    right = signed(scheme, secret)
    for header, value in right.items():
        if words != value:
            assert not verifies(scheme, Headers({**right, header: words}.items()), secret)
        assert not verifies(scheme, Headers({**right, header: value + "\0" + words}.items()), secret)


@every_scheme
def test_any_of_several_secrets_matches_and_it_is_said_which(name: str) -> None:
    scheme, secret = SCHEMES[name]
    other = {"stripe": "whsec_x", "standard-webhooks": "whsec_AAAB", "basic": "a:b"}.get(name, "abcd")
    assert verify(scheme, signed(scheme, secret), BODY, [other, secret], NOW).secret == 1


@every_scheme
def test_no_secret_at_all_verifies_nothing(name: str) -> None:
    scheme, secret = SCHEMES[name]
    with pytest.raises(InvalidSignature):
        verify(scheme, signed(scheme, secret), BODY, [], NOW)


@every_scheme
@pytest.mark.parametrize("empty", ["", " ", "whsec_"])
def test_an_empty_secret_is_a_missing_one(name: str, empty: str) -> None:
    """Anybody can sign with an empty key."""
    scheme, secret = SCHEMES[name]
    if empty == "whsec_" and name != "standard-webhooks":
        return  # a text like any other
    with pytest.raises(SecretUnavailable):
        verify(scheme, signed(scheme, secret), BODY, [empty], NOW)


@every_scheme
def test_a_missing_header_is_refused(name: str) -> None:
    scheme, secret = SCHEMES[name]
    assert refused(scheme, Headers([]), secret) == "header_missing"


@every_scheme
def test_a_repeated_header_is_refused(name: str) -> None:
    scheme, secret = SCHEMES[name]
    headers = signed(scheme, secret)
    for repeated in headers:
        doubled = Headers([*headers.items(), (repeated, headers[repeated])])
        refused(scheme, doubled, secret)


@every_scheme
def test_every_altered_character_of_a_header_is_refused(name: str) -> None:
    scheme, secret = SCHEMES[name]
    headers = signed(scheme, secret)
    for header, value in headers.items():
        for at in range(len(value)):
            for other in ("0", "A", "é", "\0", ""):
                altered = value[:at] + other + value[at + 1 :]
                if altered == value or (name == "basic" and altered.lower().startswith("basic ") and at < 6):
                    continue
                refused(scheme, Headers({**headers, header: altered}.items()), secret)


@every_scheme
def test_every_other_printable_character_in_a_header_is_refused(name: str) -> None:
    scheme, secret = SCHEMES[name]
    headers = signed(scheme, secret)
    for header, value in headers.items():
        for at in range(len(value)):
            for other in string.printable:
                altered = value[:at] + other + value[at + 1 :]
                if altered == value or (name == "basic" and altered.lower() == value.lower() and at < 5):
                    continue
                assert not verifies(scheme, Headers({**headers, header: altered}.items()), secret), repr(altered)


@pytest.mark.parametrize("name", COVERING_THE_BODY)
def test_every_altered_byte_of_the_body_is_refused(name: str) -> None:
    scheme, secret = SCHEMES[name]
    headers = signed(scheme, secret)
    for at in range(len(BODY)):
        for other in range(256):
            if other != BODY[at]:
                altered = BODY[:at] + bytes([other]) + BODY[at + 1 :]
                assert not verifies(scheme, headers, secret, altered), altered
    for altered in (b"", BODY + b"\n", BODY[:-1], b"\xef\xbb\xbf" + BODY, BODY.replace(b" ", b"")):
        refused(scheme, headers, secret, altered)


@pytest.mark.parametrize("name", COVERING_THE_BODY)
@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"\xff\xfe", "é🦊".encode(), b"a" * 1_000_000],
    ids=["empty", "nul", "binary", "unicode", "1MB"],
)
def test_the_body_is_bytes_and_nothing_is_read_into_them(name: str, body: bytes) -> None:
    scheme, secret = SCHEMES[name]
    headers = signed(scheme, secret, body)
    assert verifies(scheme, headers, secret, body)
    assert not verifies(scheme, headers, secret, body + b"\0")


@every_scheme
@pytest.mark.parametrize(
    "junk",
    [
        "é" * 40,
        "\udcff",
        "\0",
        "=",
        ",",
        "v1,",
        "t=,v1=",
        "x" * 100_000,
        ",".join(["v1=00"] * 10_000),
        "sha256=",
        "Basic ",
    ],
    ids=lambda junk: repr(junk[:8]),
)
def test_junk_is_refused_and_raises_nothing_else(name: str, junk: str) -> None:
    scheme, secret = SCHEMES[name]
    for header in signed(scheme, secret):
        refused(scheme, Headers({**signed(scheme, secret), header: junk}.items()), secret)


@pytest.mark.parametrize("scheme", [STRIPE, STANDARD_WEBHOOKS])
@pytest.mark.parametrize(
    ("seconds", "reason"),
    [(-301, "timestamp_stale"), (-300, None), (0, None), (300, None), (301, "timestamp_in_future")],
)
def test_the_time_may_lie_so_far_from_ours_and_no_farther(scheme: Scheme, seconds: int, reason: str | None) -> None:
    headers = signed(scheme, WHSEC, now=NOW + timedelta(seconds=seconds))
    if reason is None:
        verify(scheme, headers, BODY, [WHSEC], NOW)
    else:
        assert refused(scheme, headers, WHSEC) == reason


def stripe_at(time: str, body: bytes = BODY) -> Headers:
    mac = hmac.new(WHSEC.encode(), time.encode("latin-1", "ignore") + b"." + body, hashlib.sha256).hexdigest()
    return Headers([("Stripe-Signature", f"t={time},v1={mac}")])


def standard_webhook_at(time: str, body: bytes = BODY) -> Headers:
    mac = hmac.new(b"k" * 32, b"msg_1." + time.encode("latin-1", "ignore") + b"." + body, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(mac).decode()
    return Headers([("webhook-id", "msg_1"), ("webhook-timestamp", time), ("webhook-signature", signature)])


TIMED: dict[str, tuple[Scheme, Callable[[str], Headers]]] = {
    "stripe": (STRIPE, stripe_at),
    "standard-webhooks": (STANDARD_WEBHOOKS, standard_webhook_at),
}
SECONDS = str(int(NOW.timestamp()))


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize(
    "time",
    [
        f" {SECONDS}",
        f"{SECONDS} ",
        f"{SECONDS}\n",
        f"+{SECONDS}",
        f"-{SECONDS}",
        f"{SECONDS[:5]}_{SECONDS[5:]}",
        f"{SECONDS}.0",
        f"{SECONDS}.9",
        "1e9",
        "nan",
        "inf",
        "-1",
        hex(int(SECONDS)),
        SECONDS.translate(str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")),
        SECONDS.translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")),
        "1" * 14,
        "1" * 20,
        "1" * 5_000,
        "\0",
    ],
    ids=lambda time: ascii(time[:4]),
)
def test_a_time_that_is_no_whole_number_is_refused_even_when_signed(name: str, time: str) -> None:
    scheme, headers_at = TIMED[name]
    assert refused(scheme, headers_at(time), WHSEC) == "timestamp_malformed"


@pytest.mark.parametrize("name", TIMED)
def test_a_missing_time_is_refused_even_when_signed(name: str) -> None:
    scheme, headers_at = TIMED[name]
    refused(scheme, headers_at(""), WHSEC)


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("time", ["0", "1", "9" * 13], ids=["1970", "a second later", "the year 318857"])
def test_the_ends_of_time_are_refused_as_such(name: str, time: str) -> None:
    scheme, headers_at = TIMED[name]
    assert refused(scheme, headers_at(time), WHSEC) in ("timestamp_stale", "timestamp_in_future")


@pytest.mark.parametrize(
    "scheme", [*(scheme_of(name, tolerance_seconds=60) for name in ("stripe", "standard-webhooks"))]
)
@pytest.mark.parametrize("seconds", [-61, -60, 60, 61])
def test_the_tolerance_is_the_sources_own(scheme: Scheme, seconds: int) -> None:
    headers = signed(scheme, WHSEC, now=NOW + timedelta(seconds=seconds))
    assert verifies(scheme, headers, WHSEC) is (abs(seconds) <= 60)


@pytest.mark.parametrize("name", TIMED)
def test_a_signature_of_another_time_is_refused(name: str) -> None:
    """The time is signed: a captured delivery cannot be made fresh."""
    scheme, headers_at = TIMED[name]
    old, fresh = headers_at(str(int(SECONDS) - 10)), headers_at(SECONDS)
    if name == "stripe":
        stolen = fresh["stripe-signature"].split(",")[0] + "," + old["stripe-signature"].split(",")[1]
        freshened = Headers([("Stripe-Signature", stolen)])
    else:
        freshened = Headers({**old, "webhook-timestamp": SECONDS}.items())
    assert verifies(scheme, old, WHSEC)
    assert refused(scheme, freshened, WHSEC) == "signature_mismatch"


def test_stripes_other_labels_are_skipped_and_any_v1_may_match() -> None:
    good = signed(STRIPE, WHSEC)["stripe-signature"]
    headers = Headers([("Stripe-Signature", good.replace(",v1=", ",v0=00,v1=00,unknown,v1="))])
    assert verify(STRIPE, headers, BODY, [WHSEC], NOW).secret == 0


def test_two_times_in_one_stripe_header_are_refused() -> None:
    good = signed(STRIPE, WHSEC)["stripe-signature"]
    assert refused(STRIPE, Headers([("Stripe-Signature", f"{good},t=1")]), WHSEC) == "timestamp_missing"


def test_standard_webhooks_takes_all_three_headers_from_one_family() -> None:
    scheme = STANDARD_WEBHOOKS
    headers = signed(scheme, WHSEC)
    as_svix = {name.replace("webhook-", "svix-"): value for name, value in headers.items()}
    assert verify(scheme, Headers(as_svix.items()), BODY, [WHSEC], NOW).signed_id == "msg_1"
    mixed = {"svix-id": "msg_1", "svix-timestamp": headers["webhook-timestamp"]}
    mixed["webhook-signature"] = headers["webhook-signature"]
    assert refused(scheme, Headers(mixed.items()), WHSEC) == "header_missing"


def test_an_unsigned_webhook_id_beside_signed_svix_headers_is_not_believed() -> None:
    scheme = STANDARD_WEBHOOKS
    headers = signed(scheme, WHSEC)
    both = {name.replace("webhook-", "svix-"): value for name, value in headers.items()} | {"webhook-id": "forged"}
    assert verify(scheme, Headers(both.items()), BODY, [WHSEC], NOW).signed_id == "msg_1"


def test_malformed_entries_beside_a_good_one_are_skipped() -> None:
    good = signed(STANDARD_WEBHOOKS, WHSEC)
    header = f"v1a,AAAA  v2 v1 v1,x,y {good['webhook-signature']}"
    assert verify(STANDARD_WEBHOOKS, Headers({**good, "webhook-signature": header}.items()), BODY, [WHSEC], NOW)


def test_a_padless_secret_is_the_same_secret() -> None:
    assert verify(STANDARD_WEBHOOKS, signed(STANDARD_WEBHOOKS, WHSEC), BODY, [WHSEC.rstrip("=")], NOW)


@pytest.mark.parametrize(
    ("scheme", "secret"),
    [
        (STANDARD_WEBHOOKS, "whsec_canary!"),
        (STANDARD_WEBHOOKS, "whsec_canaryAAA"),
        (STANDARD_WEBHOOKS, "whsec_cänary"),
        (STANDARD_WEBHOOKS, "whsec_canary=canary"),
        (STANDARD_WEBHOOKS, "whsec_canary\n"),
        (STANDARD_WEBHOOKS, "whsec_canary-_"),
        (STANDARD_WEBHOOKS, " whsec_canary"),
        (hmac_body("X-Signature", secret_encoding="base64"), "canary!"),
        (hmac_body("X-Signature", secret_encoding="hex"), "canary"),
        (hmac_body("X-Signature", secret_encoding="hex"), "00ff0 canary"),
        (Basic(), "canary"),
    ],
    ids=lambda value: ascii(value) if isinstance(value, str) else type(value).__name__,
)
def test_a_malformed_secret_is_our_mistake_and_is_not_quoted(scheme: Scheme, secret: str) -> None:
    headers = ("X-Signature", "Authorization", "webhook-id", "webhook-signature")
    given = Headers([*((name, "Basic eA==") for name in headers), ("webhook-timestamp", SECONDS)])
    with pytest.raises(SecretUnavailable) as caught:
        verify(scheme, given, BODY, [secret], NOW)
    assert_not_told("nary", caught.value)


@pytest.mark.parametrize("name", [name for name in SECRETS_OF if name not in ("hmac-hex-key", "hmac-base64-key")])
def test_a_secret_that_is_no_text_is_our_mistake_and_is_not_quoted(name: str) -> None:
    """JSON can hold half a surrogate pair; nothing can hold it as bytes."""
    scheme, secret = SECRETS_OF[name][0], "canary:\ud800"
    good = {"basic": "user:pass", "standard-webhooks": WHSEC}.get(name, "s3cret")
    with pytest.raises(SecretUnavailable) as caught:
        verify(scheme, signed(scheme, good), BODY, [secret], NOW)
    assert_not_told("canary", caught.value)


def assert_not_told(word: str, error: BaseException | None) -> None:
    """Neither by the error nor by what it was raised from or during, which a log would print as well."""
    while error is not None:
        assert word not in f"{error!r} {error.args!r} {vars(error)!r}"
        error = error.__cause__ or error.__context__


def test_a_blank_secret_among_good_ones_does_not_verify_what_anybody_can_sign() -> None:
    scheme = hmac_body("X-Signature")
    forged = Headers([("X-Signature", hmac.new(b"", BODY, hashlib.sha256).hexdigest())])
    for blank in ("", " ", "\t\n", "\u3000"):
        with pytest.raises((SecretUnavailable, InvalidSignature)):
            verify(scheme, forged, BODY, ["s3cret", blank], NOW)


@pytest.mark.parametrize("blank", ["", " ", ":", " : "])
def test_blank_basic_credentials_verify_nobody(blank: str) -> None:
    headers = Headers([("Authorization", "Basic " + base64.b64encode(blank.encode()).decode())])
    with pytest.raises((SecretUnavailable, InvalidSignature)):
        verify(Basic(), headers, BODY, [blank], NOW)


@pytest.mark.parametrize("name", ["github", "stripe"])
def test_upper_case_hex_is_not_the_same_signature(name: str) -> None:
    scheme, secret = SCHEMES[name]
    ((header, value),) = signed(scheme, secret).items()
    label, _, digits = value.rpartition("=")
    assert digits.upper() != digits
    assert refused(scheme, Headers([(header, f"{label}={digits.upper()}")]), secret) == "signature_mismatch"
    assert not verifies(scheme, Headers([(header, f"{label.upper()}={digits}")]), secret)


def respelled(signature: str) -> dict[str, str]:
    """The same bytes in base64 that a lenient decoder would take, too."""
    assert signature.endswith("=") and not signature.endswith("==")
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/"
    neighbour = alphabet[alphabet.index(signature[-2]) ^ 1]
    return {
        "other trailing bits": signature[:-2] + neighbour + "=",
        "no padding": signature[:-1],
        "more padding": signature + "=",
        "junk inside": signature[:5] + "!" + signature[5:],
        "a line break inside": signature[:5] + "\n" + signature[5:],
        "a space behind": signature + " ",
        "a NUL behind": signature + "\0",
        "the URL's alphabet": signature.translate(str.maketrans("+/", "-_")),
        "something behind the padding": signature + "AAAA",
    }


@pytest.mark.parametrize("spelling", respelled("AAA="))
def test_base64_has_one_spelling(spelling: str) -> None:
    body = b"1"  # both of its signatures hold a '+' or '/', which the other alphabet spells otherwise
    for scheme, header, secret in (
        (hmac_body("X-Signature", "sha256", "base64"), "x-signature", "s3cret"),
        (STANDARD_WEBHOOKS, "webhook-signature", WHSEC),
    ):
        right = signed(scheme, secret, body)
        prefix, _, signature = right[header].rpartition(",")
        comma = "," if prefix else ""
        other = f"{prefix}{comma}{respelled(signature)[spelling]}"
        assert other != right[header]
        if spelling == "a space behind" and prefix:
            continue  # a space ends an entry of that list
        assert not verifies(scheme, Headers({**right, header: other}.items()), secret, body)


@pytest.mark.parametrize("name", TIMED)
def test_a_good_signature_among_16_is_found_and_a_longer_list_is_refused_unread(name: str) -> None:
    scheme, headers_at = TIMED[name]
    good = headers_at(SECONDS)
    header, separator, wrong = {
        "stripe": ("stripe-signature", ",", "v1=00"),
        "standard-webhooks": ("webhook-signature", " ", "v1,AAAA"),
    }[name]
    for others, reason in ((15, None), (16, "too_many_signatures"), (10_000, "too_many_signatures")):
        many = Headers({**good, header: separator.join([good[header], *[wrong] * others])}.items())
        if reason is None:
            assert verifies(scheme, many, WHSEC)
        else:
            assert refused(scheme, many, WHSEC) == reason


@pytest.mark.parametrize("name", TIMED)
def test_ten_thousand_parts_of_no_known_kind_are_skipped(name: str) -> None:
    scheme, headers_at = TIMED[name]
    good = headers_at(SECONDS)
    header, separator, part = {
        "stripe": ("stripe-signature", ",", "v0=00"),
        "standard-webhooks": ("webhook-signature", " ", "v2,AAAA"),
    }[name]
    assert verifies(scheme, Headers({**good, header: separator.join([part] * 10_000 + [good[header]])}.items()), WHSEC)


@pytest.mark.parametrize("name", TIMED)
def test_during_a_rotation_the_sender_signs_with_both_secrets(name: str) -> None:
    scheme, headers_at = TIMED[name]
    good = headers_at(SECONDS)
    header, separator, other = {
        "stripe": ("stripe-signature", ",", "v1=" + "0" * 64),
        "standard-webhooks": ("webhook-signature", " ", "v1," + base64.b64encode(b"0" * 32).decode()),
    }[name]
    for value in (f"{good[header]}{separator}{other}", good[header].replace("v1", f"{other}{separator}v1")):
        assert verify(scheme, Headers({**good, header: value}.items()), BODY, ["whsec_AAAB", WHSEC], NOW).secret == 1


def test_no_other_version_of_a_standard_webhook_is_taken_for_the_first() -> None:
    good = signed(STANDARD_WEBHOOKS, WHSEC)
    signature = good["webhook-signature"].removeprefix("v1,")
    for entry in (
        signature,
        f"v2,{signature}",
        f"v1a,{signature}",
        f"V1,{signature}",
        f"v1={signature}",
        f",{signature}",
    ):
        headers = Headers({**good, "webhook-signature": entry}.items())
        assert refused(STANDARD_WEBHOOKS, headers, WHSEC) == "signature_missing"


def test_a_repeated_header_is_refused_even_when_every_copy_is_right() -> None:
    for name, (scheme, secret) in SCHEMES.items():
        headers = list(signed(scheme, secret).items())
        assert not verifies(scheme, Headers(headers * 2), secret), name


def test_a_forged_header_before_or_behind_the_right_one_is_refused() -> None:
    for name, (scheme, secret) in SCHEMES.items():
        right = list(signed(scheme, secret).items())
        for header, value in right:
            forged = (header.upper(), value + "0")
            assert not verifies(scheme, Headers([forged, *right]), secret), name
            assert not verifies(scheme, Headers([*right, forged]), secret), name


def test_a_header_whose_name_is_written_otherwise_is_the_same_header() -> None:
    for scheme, secret in SCHEMES.values():
        assert verifies(scheme, Headers((n.swapcase(), v) for n, v in signed(scheme, secret).items()), secret)


def test_a_token_beyond_ascii_comes_as_utf8_which_http_shows_as_latin1() -> None:
    on_the_wire = "Bearer schlüssel🗝".encode().decode("latin-1")
    proof = verify(
        token("Authorization", "Bearer "), Headers([("Authorization", on_the_wire)]), b"", ["schlüssel🗝"], NOW
    )
    assert proof.secret == 0


@pytest.mark.parametrize("algorithm", ["sha1", "sha512", "md5"])
def test_the_request_does_not_choose_the_algorithm(algorithm: str) -> None:
    """Whoever could choose would choose the weakest."""
    scheme = hmac_body("X-Hub-Signature-256", prefix="sha256=")
    digest = hmac.new(b"s3cret", BODY, algorithm).hexdigest()
    for value in (f"{algorithm}={digest}", f"sha256={digest}", digest):
        assert refused(scheme, Headers([("X-Hub-Signature-256", value)]), "s3cret") == "signature_mismatch"


def test_a_right_sha1_header_beside_a_missing_sha256_header_proves_nothing() -> None:
    scheme = hmac_body("X-Hub-Signature-256", prefix="sha256=")
    sha1 = hmac.new(b"s3cret", BODY, hashlib.sha1).hexdigest()
    assert refused(scheme, Headers([("X-Hub-Signature", f"sha1={sha1}")]), "s3cret") == "header_missing"


def test_the_sha1_header_that_github_sends_along_is_never_looked_at() -> None:
    scheme = hmac_body("X-Hub-Signature-256", prefix="sha256=")
    sha1 = hmac.new(b"s3cret", BODY, hashlib.sha1).hexdigest()
    headers = Headers([("X-Hub-Signature", f"sha1={sha1}"), ("X-Hub-Signature-256", f"sha1={sha1}")])
    assert refused(scheme, headers, "s3cret") == "signature_mismatch"


@pytest.mark.parametrize(
    "value",
    [
        "Basic",
        "Basic ",
        "Basic=dXNlcjpwYXNz",
        "Basic,dXNlcjpwYXNz",
        "Basic\tdXNlcjpwYXNz",
        "Basic dXNlcjpwYXNz, Basic dXNlcjpwYXNz",
        "Basic dXNlcjpwYXNz=",
        "Basic dXNl cjpwYXNz",
        "Basic dXNlcjo=",
        "Basic user:pass",
        "Basic realm=dXNlcjpwYXNz",
        "BasicX dXNlcjpwYXNz",
        "Bearer dXNlcjpwYXNz",
        "Digest dXNlcjpwYXNz",
        "dXNlcjpwYXNz",
        " Basic dXNlcjpwYXNz",
        "Basic \xa0dXNlcjpwYXNz",
    ],
    ids=ascii,
)
def test_wrong_basic_credentials_are_refused(value: str) -> None:
    refused(Basic(), Headers([("Authorization", value)]), "user:pass")


def test_the_word_basic_may_be_in_any_case() -> None:
    assert verify(Basic(), Headers([("authorization", "bAsIc dXNlcjpwYXNz")]), BODY, ["user:pass"], NOW)


@pytest.mark.parametrize("value", ["BASIC dXNlcjpwYXNz", "Basic   dXNlcjpwYXNz", "Basic dXNlcjpwYXNz "])
def test_spaces_around_basic_credentials_do_not_matter(value: str) -> None:
    """RFC 9110 allows one or more between the scheme and the credentials."""
    assert verifies(Basic(), Headers([("Authorization", value)]), "user:pass")


@pytest.mark.parametrize("secret", ["user:", ":pass", "user:pass:word", "üser:pässword", "a b: c "])
def test_a_user_and_password_may_hold_what_rfc_7617_allows(secret: str) -> None:
    assert verifies(Basic(), signed(Basic(), secret), secret)
    refused(Basic(), signed(Basic(), secret), secret + "x")


def test_a_basic_secret_without_a_colon_is_our_mistake() -> None:
    with pytest.raises(SecretUnavailable):
        verify(Basic(), Headers([("Authorization", "Basic dXNlcg==")]), BODY, ["user"], NOW)


def test_credentials_are_named_so_that_they_are_never_stored() -> None:
    assert token("X-Webhook-Token").credentials == {"x-webhook-token"}
    assert Basic().credentials == {"authorization"}


def test_no_verification_has_to_be_asked_for_by_name() -> None:
    assert verify(Unverified(), Headers([]), BODY, [], NOW).secret is None


@pytest.mark.parametrize(
    ("secret", "encoding"), [("00", "hex"), ("0000", "hex"), ("AAAA", "base64"), ("\0\0x", "text")]
)
def test_a_key_of_zeros_is_the_empty_one_and_verifies_nothing(secret: str, encoding: str) -> None:
    """HMAC fills a key up with zeros: whoever knows that signs with none."""
    scheme = hmac_body("X-Signature", secret_encoding=encoding)
    given = {"X-Signature": hmac.digest(b"", b"{}", "sha256").hex()}
    with pytest.raises((SecretUnavailable, InvalidSignature)):
        verify(scheme, Headers(given.items()), b"{}", [secret], datetime(2026, 11, 23, tzinfo=UTC))
