"""The schemes that serve one provider or two: what each signs it verifies, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from binascii import crc32
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from chalicelib.postern.contract.deliveries import Delivery, Greeting, Headers
from chalicelib.postern.contract.errors import InvalidSignature, SecretUnavailable
from chalicelib.postern.contract.opening import from_message
from chalicelib.postern.receiving.ingest import Inbox, Receipt, accept
from chalicelib.postern.receiving.schemes import Scheme
from chalicelib.postern.receiving.schemes.base import Draft, Fetch, Proof, encode, fetch_nothing
from chalicelib.postern.receiving.schemes.certificates import checked_sns_url
from chalicelib.postern.receiving.sources import load_sources
from tests.certificates import certificate, fetching
from tests.schemes import URL, scheme_of

pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"


def never(url: str) -> bytes:
    raise AssertionError(f"an outgoing request: {url}")


@dataclass(frozen=True)
class Sender:
    """A provider's scheme with keys: `signing` is what the sender has, `secret` what the source has."""

    name: str
    secret: str
    body: bytes
    signing: str = ""
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def scheme(self) -> Scheme:
        return scheme_of(self.name)

    def delivery(self, body: bytes | None = None, now: datetime = NOW, url: str = URL) -> Delivery:
        headers = {"Content-Type": self.content_type, **self.headers}
        content = self.body if body is None else body
        signed = self.scheme.sign(Draft(content, "msg_1", now, url, headers=headers), self.signing or self.secret)
        return Delivery(
            "shop", Headers({**headers, **signed.headers}.items()), signed.body, now, url=url,
            query=tuple(signed.query.items()),
        )  # fmt: skip

    def verify(self, delivery: Delivery, *secrets: str, fetch: Fetch = never) -> Proof:
        return self.scheme.verify(delivery, list(secrets) or [self.secret], fetch)

    def refusal(self, delivery: Delivery, *secrets: str, fetch: Fetch = never) -> str:
        with pytest.raises(InvalidSignature) as caught:
            self.verify(delivery, *secrets, fetch=fetch)
        return caught.value.reason

    def verifies(self, delivery: Delivery) -> bool:
        try:
            self.verify(delivery)
        except InvalidSignature:
            return False
        return True


def with_header(delivery: Delivery, name: str, *values: str) -> Delivery:
    others = [
        (each, value) for each in delivery.headers for value in delivery.headers.all(each) if each != name.lower()
    ]
    return replace(delivery, headers=Headers([*others, *((name.lower(), value) for value in values)]))


def with_fields(delivery: Delivery, **fields: Any) -> Delivery:
    """The JSON body with other values; one that is None is taken out."""
    body = {**json.loads(delivery.body), **fields}
    return replace(delivery, body=json.dumps({name: v for name, v in body.items() if v is not None}).encode())


TOPIC = "arn:aws:sns:eu-central-1:123456789012:orders"
SNS_CERTIFICATE = certificate("https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0a1b.pem", NOW)
PAYPAL_CERTIFICATE = certificate("https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594", NOW)
NOTIFICATION = {"Message": '{"order": "Ärger"}', "Subject": "Order paid"}


def adyen_body(*changes: Mapping[str, Any]) -> dict[str, Any]:
    """An item for each of the changes to it; one, unchanged, where there are none."""
    item = {
        "pspReference": "7914073381342284",
        "merchantAccountCode": "TestMerchant",
        "merchantReference": "TestPayment-1407325143704",
        "amount": {"value": 1130, "currency": "EUR"},
        "eventCode": "AUTHORISATION",
        "success": "true",
    }
    return {"notificationItems": [{"NotificationRequestItem": {**item, **change}} for change in changes or [{}]]}


ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(b"s" * 32)
ED25519_PUBLIC = ED25519.public_key().public_bytes_raw()
OTHER_PUBLIC = ed25519.Ed25519PrivateKey.from_private_bytes(b"t" * 32).public_key().public_bytes_raw()
ECDSA = ec.derive_private_key(7, ec.SECP256R1())


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def spki(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    return base64_of(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))


def pkcs8(key: ec.EllipticCurvePrivateKey) -> str:
    return base64_of(
        key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def jwk(key: ec.EllipticCurvePrivateKey, *, private: bool = False, **more: Any) -> str:
    """As Plaid gives it; with the private part, what Plaid has."""
    made = ECAlgorithm.to_jwk(key if private else key.public_key(), as_dict=True)
    return json.dumps({**made, "alg": "ES256", "use": "sig", "kid": "key-1", "expired_at": None, **more})


LONG_SECRET = "a-secret-of-forty-characters-0123456789ab"
ECDSA_SECRET, ECDSA_SIGNING = spki(ECDSA.public_key()), pkcs8(ECDSA)
OTHER_ECDSA_SECRET = spki(ec.derive_private_key(8, ec.SECP256R1()).public_key())

SENDERS = {
    "sns": Sender(
        "sns", SNS_CERTIFICATE.pinned(TOPIC), json.dumps(NOTIFICATION).encode(), SNS_CERTIFICATE.signing(TOPIC)
    ),
    "paypal": Sender(
        "paypal",
        PAYPAL_CERTIFICATE.pinned("8PT597110X687430LKGECATA"),
        b'{"id": "WH-1", "event_type": "PAYMENT.CAPTURE.COMPLETED"}',
        PAYPAL_CERTIFICATE.signing("8PT597110X687430LKGECATA"),
    ),
    "twilio": Sender(
        "twilio", "12345", b"CallSid=CA1&Caller=%2B14158675309&Digits=1234&Note=&Body=\xc3\x84+%26", "", FORM
    ),
    "twilio-json": Sender("twilio", "12345", b'{"EventType": "onMessageAdded"}'),
    "mandrill": Sender("mandrill", "kAZm4c9", urlencode({"mandrill_events": '[{"event":"send"}]'}).encode(), "", FORM),
    "braintree": Sender(
        "braintree", "pub:priv", b"bt_payload=<notification><kind>check</kind></notification>", "", FORM
    ),
    "mailgun": Sender("mailgun", "key-1", b'{"event-data": {"event": "delivered"}}'),
    "mailgun-form": Sender("mailgun", "key-1", b"event=opened&recipient=%C3%84", "", FORM),
    "adyen": Sender("adyen", "44782DEF547AAA06C910C43932B1EB0C", json.dumps(adyen_body()).encode()),
    "discord": Sender("discord", ED25519_PUBLIC.hex(), b'{"id": "1", "type": 2}', (b"s" * 32).hex()),
    "discord-events": Sender(
        "discord-events", ED25519_PUBLIC.hex(), b'{"type": 1, "event": {"type": "X"}}', (b"s" * 32).hex()
    ),
    "telnyx": Sender("telnyx", base64_of(ED25519_PUBLIC), b'{"data": {"id": "1"}}', base64_of(b"s" * 32)),
    "sendgrid": Sender("sendgrid", ECDSA_SECRET, b'[{"sg_event_id": "1", "event": "open"}]\r\n', ECDSA_SIGNING),
    "atlassian-connect": Sender("atlassian-connect", LONG_SECRET, b'{"webhookEvent": "jira:issue_updated"}'),
    "monday": Sender("monday", LONG_SECRET, b'{"event": {"type": "create_pulse"}}'),
    "netlify": Sender("netlify", "short", b'{"state": "ready"}'),
    "plaid": Sender("plaid", jwk(ECDSA), b'{\n  "webhook_type": "ITEM"\n}', jwk(ECDSA, private=True)),
    "vonage": Sender("vonage", LONG_SECRET, b'{"status": "delivered"}'),
    "contentful": Sender(
        "contentful",
        "s3cret",
        b'{"sys": {"id": "1"}}',
        headers={"X-Contentful-Topic": "ContentManagement.Entry.publish"},
    ),
    "coinbase-cdp": Sender(
        "coinbase-cdp", "s3cret", b'{"eventType": "x"}', headers={"X-Event-Type": "onramp.transaction.success"}
    ),
}
OTHER_SECRETS = {
    "contentful": "other",
    "coinbase-cdp": "other",
    "atlassian-connect": "other",
    "monday": "other",
    "netlify": "other",
    "plaid": jwk(ec.derive_private_key(8, ec.SECP256R1())),
    "vonage": "other",
    "discord": OTHER_PUBLIC.hex(),
    "discord-events": OTHER_PUBLIC.hex(),
    "telnyx": base64_of(OTHER_PUBLIC),
    "sendgrid": OTHER_ECDSA_SECRET,
    "mailgun": "key-2",
    "mailgun-form": "key-2",
    "adyen": "44782DEF547AAA06C910C43932B1EB0D",
    "twilio": "12346",
    "twilio-json": "12346",
    "mandrill": "kAZm4c8",
    "braintree": "pub:priw",
    "sns": SNS_CERTIFICATE.pinned(TOPIC + "2"),
    "paypal": PAYPAL_CERTIFICATE.pinned("1JE4291016473214C"),
}

each_sender = pytest.mark.parametrize("name", SENDERS)


@each_sender
def test_what_is_signed_is_verified_and_it_is_said_with_which_secret(name: str) -> None:
    sender = SENDERS[name]
    assert sender.verify(sender.delivery()).secret == 0
    assert sender.verify(sender.delivery(), OTHER_SECRETS[name], sender.secret).secret == 1


@each_sender
def test_another_secret_and_none_verify_nothing(name: str) -> None:
    sender = SENDERS[name]
    sender.refusal(sender.delivery(), OTHER_SECRETS[name])
    with pytest.raises(InvalidSignature):
        sender.scheme.verify(sender.delivery(), [], never)


@each_sender
@pytest.mark.parametrize("empty", ["", " ", "\n\n", "\ud800"])
def test_an_empty_secret_is_a_missing_one(name: str, empty: str) -> None:
    with pytest.raises(SecretUnavailable):
        SENDERS[name].verify(SENDERS[name].delivery(), empty)


@each_sender
def test_every_altered_character_of_a_header_is_refused(name: str) -> None:
    sender = SENDERS[name]
    sent = sender.delivery()
    for header in set(sent.headers) - {"content-type", *map(str.lower, sender.headers)}:
        value = sent.headers[header]
        for at in range(len(value)):
            altered = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
            assert not sender.verifies(with_header(sent, header, altered)), (header, at)
        for altered in (value + " ", value + "=", value[:-1], value + "," + value):
            assert not sender.verifies(with_header(sent, header, altered)), (header, altered)


@each_sender
def test_a_header_that_is_missing_or_repeated_is_refused(name: str) -> None:
    sender = SENDERS[name]
    sent = sender.delivery()
    for header in set(sent.headers) - {"content-type", *map(str.lower, sender.headers)}:
        assert sender.refusal(with_header(sent, header)) == "header_missing"
        assert (
            sender.refusal(with_header(sent, header, sent.headers[header], sent.headers[header])) == "header_repeated"
        )


SAYING_NOTHING_OF_THE_BODY = {"atlassian-connect", "monday"}
HOSTILE_BODIES = [b"", b"{}", b"[]", b"null", b"7", b"\xff", b"[" * 100_000, b'{"a":' * 5_000, b"a=b&a", b"%ff=%ff",
                  b'"\\ud800"', b"9" * 5_000, b"&" * 5_000]  # fmt: skip


@each_sender
@pytest.mark.parametrize("body", HOSTILE_BODIES, ids=range(len(HOSTILE_BODIES)))
def test_a_hostile_body_is_refused(name: str, body: bytes) -> None:
    sender = SENDERS[name]
    for content_type in (JSON, FORM, "text/plain", ""):
        sent = replace(sender.delivery(), body=body)
        if name in SAYING_NOTHING_OF_THE_BODY:
            assert sender.verifies(with_header(sent, "content-type", content_type))
        else:
            sender.refusal(with_header(sent, "content-type", content_type))
        sender.refusal(replace(sent, headers=Headers([])))


@each_sender
@settings(max_examples=60)
@given(words=st.text(), data=st.data())
def test_no_text_in_a_header_raises_anything_but_a_refusal(name: str, words: str, data: st.DataObject) -> None:
    sender = SENDERS[name]
    sent = sender.delivery()
    headers = sorted(set(sent.headers) - {"content-type", *map(str.lower, sender.headers)})
    if headers:
        header = data.draw(st.sampled_from(headers))
        assert words == sent.headers[header] or not sender.verifies(with_header(sent, header, words))
        if not words.startswith(","):  # behind one, it would be another entry, which nobody reads
            assert not sender.verifies(with_header(sent, header, sent.headers[header] + words + "\0"))


# SNS


SNS = SENDERS["sns"]


def resigned(delivery: Delivery, **fields: Any) -> Delivery:
    """With other fields, and AWS's signature over them."""
    body = {**json.loads(delivery.body), **fields}
    signed = SNS.scheme.sign(Draft(json.dumps(body).encode(), "msg_1", NOW), SNS.signing)
    return replace(delivery, body=signed.body)


def signed_by_hand(fields: dict[str, Any], names: Sequence[str], algorithm: hashes.HashAlgorithm) -> Delivery:
    text = "".join(f"{name}\n{fields[name]}\n" for name in names)
    signature = encode(SNS_CERTIFICATE.key.sign(text.encode(), padding.PKCS1v15(), algorithm), "base64")
    body = {**fields, "Signature": signature, "SigningCertURL": SNS_CERTIFICATE.url}
    return Delivery("shop", Headers([("Content-Type", "text/plain; charset=UTF-8")]), json.dumps(body).encode(), NOW)


SHA1 = hashes.SHA1()  # noqa: S303 -- what version 1 is
ENVELOPE = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": TOPIC,
    "Message": "Hello\nSubject\nworld",
    "Timestamp": "2026-11-23T12:00:00.000Z",
    "SignatureVersion": "1",
}


def test_an_sns_message_of_version_1_is_signed_with_sha1() -> None:
    delivery = signed_by_hand(ENVELOPE, ["Message", "MessageId", "Timestamp", "TopicArn", "Type"], SHA1)
    assert SNS.verify(delivery).signed_id == ENVELOPE["MessageId"]
    assert SNS.refusal(with_fields(delivery, SignatureVersion="2")) == "signature_mismatch"


def test_a_subject_is_signed_where_there_is_one_and_null_is_none() -> None:
    names = ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"]
    delivery = signed_by_hand({**ENVELOPE, "Subject": "Hi"}, names, SHA1)
    assert SNS.verify(delivery).secret == 0
    assert SNS.refusal(with_fields(delivery, Subject=None)) == "signature_mismatch"
    names.remove("Subject")
    assert SNS.verify(signed_by_hand({**ENVELOPE, "Subject": None}, names, SHA1)).secret == 0


def test_a_subject_that_was_moved_into_the_message_is_refused() -> None:
    """The lines run together: where a field ends is told by the fields that there are."""
    delivery = signed_by_hand(ENVELOPE, ["Message", "MessageId", "Timestamp", "TopicArn", "Type"], SHA1)
    assert not SNS.verifies(with_fields(delivery, Message="Hello", Subject="world"))


def test_a_message_that_looks_like_fields_cannot_become_them() -> None:
    """What a message says may be anybody's words; another MessageId would make a copy another event."""
    names = ["Message", "MessageId", "Timestamp", "TopicArn", "Type"]
    delivery = signed_by_hand({**ENVELOPE, "Message": "Hi\nMessageId\nevil"}, names, SHA1)
    assert SNS.verify(delivery).signed_id == ENVELOPE["MessageId"]
    moved = with_fields(delivery, Message="Hi", MessageId=f"evil\nMessageId\n{ENVELOPE['MessageId']}")
    assert SNS.refusal(moved) == "body_malformed"


@pytest.mark.parametrize("version", ["0", "3", "", 1, 2, None, ["1"], "SHA256"])
def test_a_signature_version_that_sns_does_not_have_is_refused(version: Any) -> None:
    assert SNS.refusal(with_fields(SNS.delivery(), SignatureVersion=version)) == "signature_version"


@pytest.mark.parametrize("name", ["Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"])
def test_every_altered_character_of_what_sns_signs_is_refused(name: str) -> None:
    sent = SNS.delivery()
    value = json.loads(sent.body)[name]
    for at in range(len(value)):
        altered = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
        assert not SNS.verifies(with_fields(sent, **{name: altered})), at
    for altered in (None, "", 7, [value], value + "\n", value + "\ud800"):
        assert not SNS.verifies(with_fields(sent, **{name: altered}))


def test_every_altered_character_of_an_sns_signature_is_refused() -> None:
    sent = SNS.delivery()
    value = json.loads(sent.body)["Signature"]
    for at in range(len(value)):
        altered = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
        assert not SNS.verifies(with_fields(sent, Signature=altered)), at
    for wrong in (None, "", 7, "é", value + "\n", value + "====", " " + value):
        assert not SNS.verifies(with_fields(sent, Signature=wrong))


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com.example.com/a.pem",
        "https://example.com/a.pem",
        "https://example.com/https://sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com@example.com/a.pem",
        "https://user@sns.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com:444/a.pem",
        "https://sns.eu-central-1.amazonaws.com/a.pem?x",
        "https://sns.eu-central-1.amazonaws.com/a.pem#x",
        "https://sns.eu-central-1.amazonaws.com/a.pem\n",
        "https://sns.eu-central-1.amazonaws.com/a.txt",
        "https://sns.eu-central-1.amazonaws.com/%2e%2e/a.pem",
        "https://sns.eu-central-1.amazonaws.com/../a.pem",
        "https://sns.eu-central-1.amazonaws.com\\.example.com/a.pem",
        "https://sns.eu-central-1.amazonaws.com\t/a.pem",
        "https://sns.EU-CENTRAL-1.amazonaws.com/a.pem",
        "https://sns.x.y.amazonaws.com/a.pem",
        "https://s3.eu-central-1.amazonaws.com/a.pem",
        "https://snsx.eu-central-1.amazonaws.com/a.pem",
        "https://sns.eu-central-1.amazonaws.co/a.pem",
        "https://sns.eu-central-1xamazonaws.com/a.pem",
        "https://sns.éu-central-1.amazonaws.com/a.pem",
        "//sns.eu-central-1.amazonaws.com/a.pem",
        "",
        7,
        None,
    ],
)
def test_an_sns_certificate_url_on_a_foreign_host_is_refused_with_no_outgoing_request(url: Any) -> None:
    assert SNS.refusal(with_fields(SNS.delivery(), SigningCertURL=url), TOPIC) == "certificate_url"


@pytest.mark.parametrize("host", ["sns.eu-central-1.amazonaws.com", "sns.cn-north-1.amazonaws.com.cn"])
def test_the_certificate_is_fetched_from_awss_own_hosts(host: str) -> None:
    found = replace(
        SNS_CERTIFICATE, url=f"https://{host}/SimpleNotificationService-9c6465fa7f48f5cacd23014631ec1136.pem"
    )
    sender = replace(SNS, signing=found.signing(TOPIC))
    assert sender.verify(sender.delivery(), TOPIC, fetch=fetching(found)).secret == 0
    with pytest.raises(SecretUnavailable):
        sender.verify(sender.delivery(), TOPIC, fetch=fetch_nothing)


def test_a_foreign_topic_is_refused_before_anything_is_fetched() -> None:
    """AWS signs for everybody."""
    foreign = replace(SNS, signing=SNS_CERTIFICATE.signing("arn:aws:sns:eu-central-1:666666666666:evil")).delivery()
    assert SNS.refusal(foreign, TOPIC, TOPIC + "2") == "signature_mismatch"
    assert SNS.refusal(with_fields(foreign, TopicArn="é\ud800"), TOPIC) == "signature_mismatch"


def test_an_old_or_early_sns_message_is_refused_before_anything_is_fetched() -> None:
    for seconds, reason in ((4501, "timestamp_stale"), (-3601, "timestamp_in_future")):
        sent = replace(SNS.delivery(), received_at=NOW + timedelta(seconds=seconds))
        assert SNS.refusal(sent, TOPIC) == reason
        assert SNS.verify(replace(sent, received_at=NOW + timedelta(seconds=seconds // 2))).secret == 0


def test_what_is_at_the_certificates_url_must_be_one() -> None:
    for content in (b"", b"<Error/>", b"-----BEGIN CERTIFICATE-----\n", b"\xff"):
        with pytest.raises(SecretUnavailable, match="certificate_malformed"):  # 503: the host is ill, perhaps
            SNS.verify(SNS.delivery(), TOPIC, fetch=lambda _, found=content: found)
    with pytest.raises(SecretUnavailable):
        SNS.verify(SNS.delivery(), f"{TOPIC}\n{SNS_CERTIFICATE.url}\nnone")


@pytest.mark.parametrize("days", [-2, 400])
def test_a_certificate_out_of_its_dates_is_refused(days: int) -> None:
    now = NOW + timedelta(days=days)
    assert SNS.refusal(SNS.delivery(now=now), TOPIC, fetch=fetching(SNS_CERTIFICATE)) == "certificate_out_of_date"
    assert SNS.refusal(SNS.delivery(now=now)) == "certificate_out_of_date"


def test_a_certificate_of_somebody_elses_verifies_nothing() -> None:
    other = certificate(SNS_CERTIFICATE.url, NOW)
    assert SNS.refusal(SNS.delivery(), TOPIC, fetch=fetching(other)) == "signature_mismatch"
    assert SNS.verify(SNS.delivery(), other.pinned(TOPIC), SNS.secret).secret == 1


def test_with_a_certificate_in_the_secret_no_other_is_asked_for() -> None:
    sent = with_fields(SNS.delivery(), SigningCertURL="https://sns.eu-central-1.amazonaws.com/other.pem")
    assert SNS.refusal(sent) == "certificate_unknown"


@dataclass
class Pipe:
    """An inbox with one source of this sender's kind."""

    sender: Sender
    folder: Path
    fetch: Fetch = never
    messages: list[str] = field(default_factory=list)

    def accept(self, delivery: Delivery) -> Receipt | Greeting:
        file = self.folder / "sources.toml"
        file.write_text(f'[shop]\nprovider = "{self.sender.name}"\n')
        return accept(delivery, Inbox(load_sources(file), lambda _: [self.sender.secret], self, self, self.fetch))

    def send(self, message: str, *, group: str, trace: str | None) -> None:
        self.messages.append(message)

    def send_all(self, messages: Sequence[str], *, group: str, trace: str | None) -> None:
        self.messages += messages

    def put(self, key: str, body: bytes) -> None:
        raise AssertionError("no delivery is that large")

    def keys(self) -> list[str]:
        """What makes each event the same as another."""
        events = [from_message(message) for message in self.messages]
        return [event.claim or event.dedup_key for event in events]


CONFIRM = "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x&Token=2336412f37fb"


def confirmation(type: str, url: str = CONFIRM) -> Sender:
    fields = {"Type": type, "Message": "You have chosen", "SubscribeURL": url, "Token": "2336412f37fb"}
    return replace(SNS, body=json.dumps(fields).encode(), content_type="text/plain; charset=UTF-8")


def test_a_subscription_is_confirmed_by_a_visit_and_is_no_event(tmp_path: Path) -> None:
    visited: list[str] = []
    pipe = Pipe(SNS, tmp_path, lambda url: visited.append(url) or b"")
    assert pipe.accept(confirmation("SubscriptionConfirmation").delivery()) == Greeting()
    assert (visited, pipe.messages) == ([CONFIRM], [])


def test_an_unsubscription_is_answered_and_is_no_event(tmp_path: Path) -> None:
    pipe = Pipe(SNS, tmp_path)
    assert pipe.accept(confirmation("UnsubscribeConfirmation").delivery()) == Greeting()
    assert pipe.messages == []


def test_a_confirmation_is_visited_at_awss_own_hosts_only_and_after_its_signature(tmp_path: Path) -> None:
    pipe = Pipe(SNS, tmp_path)
    foreign = confirmation("SubscriptionConfirmation", "https://169.254.169.254/latest/meta-data").delivery()
    forged = with_fields(confirmation("SubscriptionConfirmation").delivery(), Token="0")
    elsewhere = replace(
        confirmation("SubscriptionConfirmation"), signing=SNS_CERTIFICATE.signing(TOPIC + "2")
    ).delivery()
    for delivery in (foreign, forged, elsewhere):
        with pytest.raises(InvalidSignature):
            pipe.accept(delivery)


def test_a_copy_of_an_sns_message_with_other_attributes_is_the_same_event(tmp_path: Path) -> None:
    pipe = Pipe(SNS, tmp_path)
    sent = SNS.delivery()
    pipe.accept(sent)
    pipe.accept(with_fields(sent, MessageAttributes={"kind": {"Type": "String", "Value": "evil"}}))
    assert pipe.keys() == [json.loads(sent.body)["MessageId"]] * 2


@pytest.mark.parametrize(
    "url",
    [
        "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=arn:aws:sns:x&Token=2336412f",
        "https://sns.cn-north-1.amazonaws.com.cn/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com/",
    ],
)
def test_awss_own_addresses_confirm_a_subscription(url: str) -> None:
    assert checked_sns_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.us-east-1.amazonaws.com/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com.evil.example/?Action=ConfirmSubscription",
        "https://sns.us-east-1.amazonaws.com@evil.example/",
        "https://sns.us-east-1.amazonaws.com:8080/",
        "https://sns.us-east-1.amazonaws.com/path?x",
        "https://sns.us-east-1.amazonaws.com/?x#y",
        "https://sns.us-east-1.amazonaws.com/?x\r\nHost: evil",
        "https://169.254.169.254/latest/meta-data",
        "https://sqs.us-east-1.amazonaws.com/?x",
        "file:///etc/passwd",
        "",
        None,
        7,
        ["https://sns.us-east-1.amazonaws.com/"],
    ],
)
def test_no_other_address_confirms_a_subscription(url: Any) -> None:
    with pytest.raises(InvalidSignature):
        checked_sns_url(url)


# PayPal


PAYPAL = SENDERS["paypal"]


def with_crc(body: bytes, wanted: int) -> bytes:
    """The body with four bytes behind it that give it this CRC-32."""
    table = [crc32(bytes([n]), 0xFFFFFFFF) ^ 0xFFFFFFFF for n in range(256)]
    register = wanted ^ 0xFFFFFFFF
    for _ in range(4):
        at = next(n for n in range(256) if table[n] >> 24 == register >> 24)
        register = ((register ^ table[at]) << 8 | at) & 0xFFFFFFFF
    patch = register ^ crc32(body) ^ 0xFFFFFFFF
    return body + patch.to_bytes(4, "little")


def test_the_text_that_paypal_signs_is_this() -> None:
    sent = PAYPAL.delivery(now=NOW)
    text = f"msg_1|2026-11-23T12:00:00.000Z|8PT597110X687430LKGECATA|{crc32(PAYPAL.body)}"
    signature = PAYPAL_CERTIFICATE.key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert sent.headers["PAYPAL-TRANSMISSION-SIG"] == encode(signature, "base64")
    assert PAYPAL.verify(sent).signed_id == "msg_1"


def test_every_altered_byte_of_a_paypal_body_is_refused() -> None:
    sent = PAYPAL.delivery()
    for at in range(len(sent.body)):
        altered = sent.body[:at] + bytes([sent.body[at] ^ 1]) + sent.body[at + 1 :]
        assert PAYPAL.refusal(replace(sent, body=altered)) == "signature_mismatch"


def test_a_body_with_the_same_crc_has_no_effect_beside_the_one_it_was_made_from() -> None:
    """PayPal's signature cannot tell them apart; the signed transmission id makes them one event."""
    sent = PAYPAL.delivery()
    forged = replace(
        sent, body=with_crc(b'{"id": "WH-2", "event_type": "PAYMENT.CAPTURE.REFUNDED"} ', crc32(sent.body))
    )
    assert PAYPAL.verify(forged).signed_id == PAYPAL.verify(sent).signed_id == "msg_1"
    assert not PAYPAL.scheme.covers_body


@pytest.mark.parametrize("algorithm", ["SHA1withRSA", "sha256", "SHA256withrsa", "none", "SHA256withRSA "])
def test_a_delivery_does_not_choose_paypals_algorithm(algorithm: str) -> None:
    assert PAYPAL.refusal(with_header(PAYPAL.delivery(), "PAYPAL-AUTH-ALGO", algorithm)) == "signature_version"


@pytest.mark.parametrize(
    "url",
    [
        "http://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com.example.com/v1/notifications/certs/CERT-1",
        "https://apixpaypal.com/v1/notifications/certs/CERT-1",
        "https://www.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com/v1/notifications/certs/../../oauth2/CERT-1",
        "https://api.paypal.com/v1/notifications/certs/..",
        "https://api.paypal.com/v1/notifications/certs/",
        "https://api.paypal.com/v1/notifications/certs/CERT-1?x=y",
        "https://api.paypal.com:8443/v1/notifications/certs/CERT-1",
        "https://x@api.paypal.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com@example.com/v1/notifications/certs/CERT-1",
        "https://api.paypal.com/CERT-1",
        "é",
    ],
)
def test_a_paypal_certificate_url_on_a_foreign_host_is_refused_with_no_outgoing_request(url: str) -> None:
    assert PAYPAL.refusal(with_header(PAYPAL.delivery(), "PAYPAL-CERT-URL", url), "8PT597110X687430LKGECATA") == (
        "certificate_url"
    )


@pytest.mark.parametrize("host", ["api.paypal.com", "api.sandbox.paypal.com"])
def test_the_certificate_is_fetched_from_paypals_own_hosts(host: str) -> None:
    found = replace(PAYPAL_CERTIFICATE, url=f"https://{host}/v1/notifications/certs/CERT-1")
    sender = replace(PAYPAL, signing=found.signing("WH"))
    assert sender.verify(sender.delivery(), "other", "WH", fetch=fetching(found)).secret == 1


def test_a_paypal_delivery_is_good_for_the_three_days_that_paypal_tries_and_no_longer() -> None:
    for days, reason in ((3, ""), (-0.04, ""), (3.1, "timestamp_stale"), (-0.05, "timestamp_in_future")):
        sent = replace(PAYPAL.delivery(), received_at=NOW + timedelta(days=days))
        if reason:
            assert PAYPAL.refusal(sent) == reason
        else:
            found = certificate(PAYPAL_CERTIFICATE.url, NOW, before=timedelta(days=30))
            sender = replace(PAYPAL, signing=found.signing("WH"), secret=found.pinned("WH"))
            assert sender.verify(replace(sender.delivery(), received_at=sent.received_at)).secret == 0


# Twilio, Mandrill


TWILIO, MANDRILL = SENDERS["twilio"], SENDERS["mandrill"]

each_signer_of_urls = pytest.mark.parametrize("name", ["twilio", "twilio-json", "mandrill"])


def test_twilios_own_example_verifies() -> None:
    """From its documentation of the security of webhooks."""
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"
    fields = {"CallSid": "CA1234567890ABCDE", "Caller": "+14158675309", "Digits": "1234", "From": "+14158675309",
              "To": "+18005551212"}  # fmt: skip
    headers = [("Content-Type", FORM), ("X-Twilio-Signature", "RSOYDt4T1cUTdK1PDd93/VVr8B8=")]
    delivery = Delivery("shop", Headers(headers), urlencode(fields).encode(), NOW, url=url)
    assert TWILIO.verify(delivery).secret == 0


@each_signer_of_urls
def test_every_altered_character_of_a_signed_url_is_refused(name: str) -> None:
    sender = SENDERS[name]
    sent = sender.delivery()
    for at in range(len(URL)):
        assert not sender.verifies(replace(sent, url=URL[:at] + chr(ord(URL[at]) ^ 1) + URL[at + 1 :])), at
    for altered in (URL + "/", URL + "?", URL + "?a=b", URL + "#x", URL.upper(), "", "http" + URL[5:]):
        assert not sender.verifies(replace(sent, url=altered)), altered


@each_signer_of_urls
def test_every_altered_byte_of_a_body_that_is_signed_with_the_url_is_refused(name: str) -> None:
    sender = SENDERS[name]
    sent = sender.delivery()
    for at in range(len(sent.body)):
        altered = sent.body[:at] + bytes([sent.body[at] ^ 1]) + sent.body[at + 1 :]
        assert not sender.verifies(replace(sent, body=altered)), at
    for altered in (sent.body + b"\n", sent.body[:-1], b" " + sent.body, b""):
        assert not sender.verifies(replace(sent, body=altered))


@each_signer_of_urls
@pytest.mark.parametrize(
    ("signed", "seen"),
    [
        ("https://example.com:443/x", "https://example.com/x"),
        ("https://example.com/x", "https://example.com:443/x"),
        ("http://localhost:8000/x?a=b", "http://localhost:8000/x?a=b"),
        ("https://example.com/x", "https://example.com:8443/x"),
    ],
)
def test_a_url_is_signed_with_its_port_or_without(name: str, signed: str, seen: str) -> None:
    sender = SENDERS[name]
    assert sender.verifies(replace(sender.delivery(url=signed), url=seen))


def test_a_blank_field_and_a_repeated_one_are_signed() -> None:
    sender = replace(TWILIO, body=b"b=2&a=&b=1&b=2&B=0")
    assert sender.verify(replace(sender.delivery(), body=b"B=0&a=&b=1&b=2")).secret == 0
    assert not sender.verifies(replace(sender.delivery(), body=b"B=0&b=1&b=2"))
    assert not sender.verifies(replace(sender.delivery(), body=b"B=0&a=&b=2"))


def test_another_spelling_of_a_signed_form_is_the_same_event(tmp_path: Path) -> None:
    """Names and values run together under the signature, so that a captured form can be written as others."""
    pipe = Pipe(TWILIO, tmp_path)
    sent = TWILIO.delivery()
    for body in (sent.body, sent.body.replace(b"Digits=1234", b"Digits1=234"), sent.body.replace(b"+", b"%20"),
                 b"&".join(reversed(sent.body.split(b"&")))):  # fmt: skip
        pipe.accept(replace(sent, body=body))
    assert len(pipe.messages) == 4
    assert len(set(pipe.keys())) == 1


def test_twilios_json_needs_its_hash_in_the_url_and_the_signature_of_that() -> None:
    sender = SENDERS["twilio-json"]
    sent = sender.delivery()
    [(name, value)] = sent.query
    assert sender.verify(replace(sent, url=f"{URL}?{name}={value}")).secret == 0
    assert sender.refusal(replace(sent, query=())) == "body_hash_missing"
    assert sender.refusal(replace(sent, query=((name, value), (name, value)))) == "body_hash_missing"
    other = encode(hashlib.sha256(b"{}").digest(), "hex")
    assert sender.refusal(replace(sent, body=b"{}", query=((name, other),))) == "signature_mismatch"
    assert sender.refusal(replace(sent, query=((name, value.upper()),))) == "signature_mismatch"
    assert sender.refusal(replace(sent, query=((name, "é\ud800"),))) == "signature_mismatch"


def test_twilio_says_which_of_two_algorithms_it_signs_with() -> None:
    """An account's token and a shared key may come to one address. Nothing but the newer one can be asked for."""
    shared = scheme_of("twilio", algorithm="sha256")
    sent, asked = TWILIO.delivery(), ("X-Twilio-Webhooks-Signature-Settings", "key=k,algorithm=HMAC_SHA256")
    headers = Headers([*sent.headers.items(), asked])
    draft = Draft(TWILIO.body, "1", NOW, URL, headers={"Content-Type": FORM})
    newer = Headers([("Content-Type", FORM), asked, *shared.sign(draft, "12345").headers.items()])
    assert TWILIO.verify(replace(sent, headers=newer)).secret == 0
    with pytest.raises(InvalidSignature):
        shared.verify(sent, ["12345"])
    assert not TWILIO.verifies(replace(sent, headers=headers))
    for other in ("algorithm=HMAC_SHA1", "algorithm=none", "", "algorithm=HMAC_SHA256X"):
        assert TWILIO.verifies(replace(sent, headers=Headers([*sent.headers.items(), (asked[0], other)])))


def test_a_form_with_too_many_fields_is_refused() -> None:
    assert TWILIO.refusal(replace(TWILIO.delivery(), body=b"a=b&" * 2000)) == "form_malformed"


def test_mandrills_events_become_events_by_their_own_ids(tmp_path: Path) -> None:
    events = [{"event": "send", "_id": "e1", "ts": 1}, {"event": "open", "_id": "e2", "ts": 2}]
    sender = replace(MANDRILL, body=urlencode({"mandrill_events": json.dumps(events)}).encode())
    pipe = Pipe(sender, tmp_path)
    receipt = pipe.accept(sender.delivery(url="https://x.example/webhooks/shop"))
    assert isinstance(receipt, Receipt)
    assert (len(receipt.ids), receipt.answer) == (2, 200)
    assert pipe.keys() == ["e1:send:1:send", "e2:open:2:open"]


def test_mandrill_asks_first_and_sends_nothing_but_forms(tmp_path: Path) -> None:
    asked = Delivery("shop", Headers([]), b"", NOW, method="HEAD")
    assert Pipe(MANDRILL, tmp_path).accept(asked) == Greeting()
    json_delivery = replace(MANDRILL.delivery(), headers=Headers([("X-Mandrill-Signature", "AAAA")]))
    assert MANDRILL.refusal(json_delivery) == "not_a_form"


# Braintree


BRAINTREE = SENDERS["braintree"]


def braintree_form(signature: str, payload: str, *more: tuple[str, str]) -> Delivery:
    body = urlencode([("bt_signature", signature), ("bt_payload", payload), *more]).encode()
    return Delivery("shop", Headers([("Content-Type", FORM)]), body, NOW)


def braintree_fields() -> tuple[str, str]:
    fields = dict(parse_qsl(BRAINTREE.delivery().body.decode()))
    return fields["bt_signature"], fields["bt_payload"]


def test_every_altered_character_of_braintrees_two_fields_is_refused() -> None:
    signature, payload = braintree_fields()
    assert BRAINTREE.verifies(braintree_form(signature, payload))
    for at in range(len(signature)):
        altered = signature[:at] + chr(ord(signature[at]) ^ 1) + signature[at + 1 :]
        assert not BRAINTREE.verifies(braintree_form(altered, payload)), at
    for at in range(len(payload)):
        altered = payload[:at] + chr(ord(payload[at]) ^ 1) + payload[at + 1 :]
        assert not BRAINTREE.verifies(braintree_form(signature, altered)), at
    for altered in (payload + "\n", payload + " ", "\r\n" + payload, payload + "é", "", payload * 2):
        assert not BRAINTREE.verifies(braintree_form(signature, altered))


def test_of_several_pairs_ours_is_the_one_that_counts() -> None:
    signature, payload = braintree_fields()
    assert BRAINTREE.verifies(braintree_form(f"other|{'0' * 40}&junk&{signature}&|", payload))
    assert not BRAINTREE.verifies(braintree_form(f"other|{signature.split('|')[1]}", payload))
    assert BRAINTREE.refusal(braintree_form("&".join([signature] * 20), payload)) == "too_many_signatures"


def test_a_payload_with_or_without_its_last_line_break_is_one_event() -> None:
    signature, payload = braintree_fields()
    assert payload.endswith("\n")
    whole, cut = (BRAINTREE.verify(braintree_form(signature, text)) for text in (payload, payload[:-1]))
    assert whole.signed_id == cut.signed_id is not None


def test_a_field_that_comes_twice_is_refused() -> None:
    signature, payload = braintree_fields()
    for more in (("bt_payload", "AAAA"), ("bt_signature", signature)):
        assert BRAINTREE.refusal(braintree_form(signature, payload, more)) == "signature_missing"


def test_another_field_beside_braintrees_is_no_other_event(tmp_path: Path) -> None:
    pipe = Pipe(BRAINTREE, tmp_path)
    signature, payload = braintree_fields()
    for more in ([], [("x", "y")]):
        pipe.accept(braintree_form(signature, payload, *more))
    assert len(pipe.messages) == 2
    assert len(set(pipe.keys())) == 1


@pytest.mark.parametrize("secret", ["public", "public:", ":private", " : "])
def test_braintrees_secret_has_both_keys(secret: str) -> None:
    with pytest.raises(SecretUnavailable):
        BRAINTREE.verify(BRAINTREE.delivery(), secret)


def test_braintrees_challenge_is_answered(tmp_path: Path) -> None:
    challenge = "20f9f8ed05f77439fe955c977e4c8a53"
    asked = Delivery("shop", Headers([]), b"", NOW, method="GET", query=(("bt_challenge", challenge),))
    sender = replace(BRAINTREE, secret="integration_public_key:integration_private_key")
    greeting = Pipe(sender, tmp_path).accept(asked)
    assert isinstance(greeting, Greeting)
    # From the library's own tests.
    assert greeting.body == "integration_public_key|d9b899556c966b3f06945ec21311865d35df3ce4"


# Mailgun


MAILGUN = SENDERS["mailgun"]


def mailgun(**fields: Any) -> Delivery:
    sent = MAILGUN.delivery()
    body = json.loads(sent.body)
    return replace(sent, body=json.dumps({**body, "signature": {**body["signature"], **fields}}).encode())


@pytest.mark.parametrize("name", ["timestamp", "token", "signature"])
def test_every_altered_character_of_mailguns_three_fields_is_refused(name: str) -> None:
    value = json.loads(MAILGUN.delivery().body)["signature"][name]
    for at in range(len(value)):
        assert not MAILGUN.verifies(mailgun(**{name: value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]})), at
    for altered in (None, "", 7, True, [value], {}, value + " ", value.upper() + "\n", "é\ud800", 1e300, -1):
        assert not MAILGUN.verifies(mailgun(**{name: altered}))


def test_mailguns_time_may_be_a_number() -> None:
    assert MAILGUN.verify(mailgun(timestamp=SECONDS)).signed_id == "msg_1"


@pytest.mark.parametrize("name", ["mailgun", "mailgun-form"])
def test_mailguns_time_may_lie_as_far_back_as_it_repeats(name: str) -> None:
    sender = SENDERS[name]
    sent = sender.delivery()
    for seconds, reason in ((29_701, "timestamp_stale"), (-3_601, "timestamp_in_future")):
        assert sender.refusal(replace(sent, received_at=NOW + timedelta(seconds=seconds))) == reason
        assert sender.verifies(replace(sent, received_at=NOW + timedelta(seconds=seconds * 0.99)))


def test_a_captured_token_under_another_body_is_no_other_event(tmp_path: Path) -> None:
    """Mailgun signs no more than a time and a token."""
    pipe = Pipe(MAILGUN, tmp_path)
    sent = MAILGUN.delivery()
    pipe.accept(sent)
    pipe.accept(with_fields(sent, **{"event-data": {"event": "complained", "id": "another"}}))
    assert pipe.keys() == ["msg_1", "msg_1"]


def test_the_border_between_time_and_token_cannot_be_moved() -> None:
    """They run together under the signature; the tolerance leaves one length for the time."""
    for timestamp, token in ((f"{SECONDS}1", "2"), (f"{SECONDS}"[:-1], f"{SECONDS}"[-1] + "12")):
        sender = replace(MAILGUN, body=MAILGUN.body)
        signature = hmac.new(b"key-1", f"{SECONDS}12".encode(), "sha256").hexdigest()
        assert not sender.verifies(mailgun(timestamp=timestamp, token=token, signature=signature))


def test_a_form_field_of_mailguns_that_comes_twice_is_refused() -> None:
    sender = SENDERS["mailgun-form"]
    sent = sender.delivery()
    for name in ("timestamp", "token", "signature"):
        assert sender.refusal(replace(sent, body=sent.body + f"&{name}=1".encode())) == "signature_repeated"


# Adyen


ADYEN = SENDERS["adyen"]


def adyen(*changes: Mapping[str, Any]) -> Delivery:
    return replace(ADYEN, body=json.dumps(adyen_body(*changes)).encode()).delivery()


def altered_item(delivery: Delivery, at: int, **fields: Any) -> Delivery:
    body = json.loads(delivery.body)
    body["notificationItems"][at]["NotificationRequestItem"] |= fields
    return replace(delivery, body=json.dumps(body).encode())


def test_adyens_own_example_verifies() -> None:
    """From the tests of its libraries."""
    example = {"additionalData": {"hmacSignature": "coqCmt/IZ4E3CzPvMY8zTjQVL5hYJUiBRg8UU+iCWo0="}}
    body = json.dumps(adyen_body(example)).encode()
    delivery = Delivery("shop", Headers([]), body, NOW)
    assert ADYEN.verify(delivery, "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056").secret == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"pspReference": "7914073381342285"},
        {"originalReference": "x"},
        {"merchantAccountCode": "TestMerchant2"},
        {"merchantReference": "TestPayment"},
        {"amount": {"value": 1131, "currency": "EUR"}},
        {"amount": {"value": 1130, "currency": "USD"}},
        {"amount": {"value": 1130.0, "currency": "EUR"}},
        {"amount": None},
        {"amount": []},
        {"eventCode": "REFUND"},
        {"success": "false"},
        {"success": ["true"]},
        {"additionalData": {}},
        {"additionalData": {"hmacSignature": ""}},
        {"additionalData": {"hmacSignature": 7}},
        {"additionalData": {"hmacSignature": "é\ud800"}},
        {"merchantReference": "\ud800"},
    ],
)
@pytest.mark.parametrize("at", [0, 1])
def test_every_item_of_adyens_is_checked(at: int, fields: dict[str, Any]) -> None:
    sent = adyen({}, {"pspReference": "2"})
    assert ADYEN.verifies(sent)
    assert not ADYEN.verifies(altered_item(sent, at, **fields))


@pytest.mark.parametrize("text", ["pspReference", "merchantReference", "hmacSignature"])
def test_every_altered_character_of_adyens_fields_is_refused(text: str) -> None:
    sent = ADYEN.delivery()
    item = json.loads(sent.body)["notificationItems"][0]["NotificationRequestItem"]
    value = {**item, **item["additionalData"]}[text]
    for at in range(len(value)):
        altered = sent.body.replace(value.encode(), (value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]).encode())
        assert not ADYEN.verifies(replace(sent, body=altered)), at


def test_missing_and_null_and_empty_are_the_same_to_adyen_and_zero_is_not() -> None:
    sent = adyen({"amount": {"value": 0, "currency": "EUR"}})
    assert ADYEN.verifies(altered_item(sent, 0, originalReference=None))
    assert ADYEN.verifies(altered_item(sent, 0, originalReference=""))
    assert not ADYEN.verifies(altered_item(sent, 0, amount={"currency": "EUR"}))


def test_a_colon_cannot_move_between_adyens_fields(tmp_path: Path) -> None:
    """With it, a captured delivery would be another event under the same signature."""
    sent = adyen({"merchantReference": "order:7"})
    assert ADYEN.verifies(sent)
    moved = {"merchantAccountCode": "TestMerchant:order", "merchantReference": "7"}
    assert ADYEN.refusal(altered_item(sent, 0, **moved)) == "body_malformed"
    shifted = {"pspReference": "7914073381342284:", "originalReference": "TestMerchant", "merchantAccountCode": "order"}
    assert ADYEN.refusal(altered_item(sent, 0, **shifted, merchantReference="7")) == "body_malformed"


def test_adyens_items_become_events(tmp_path: Path) -> None:
    pipe = Pipe(ADYEN, tmp_path)
    receipt = pipe.accept(adyen({}, {"pspReference": "2", "eventCode": "CAPTURE"}))
    assert isinstance(receipt, Receipt)
    assert pipe.keys() == ["7914073381342284:AUTHORISATION:true", "2:CAPTURE:true"]


def test_adyens_list_is_neither_empty_nor_endless() -> None:
    for items, reason in (([], "signature_missing"), ([{}] * 101, "too_many_signatures"), ({}, "signature_missing")):
        delivery = Delivery("shop", Headers([]), json.dumps({"notificationItems": items}).encode(), NOW)
        assert ADYEN.refusal(delivery) == reason


@pytest.mark.parametrize("secret", ["not hex", "abc", " "])
def test_adyens_key_is_hex(secret: str) -> None:
    with pytest.raises(SecretUnavailable):
        ADYEN.verify(ADYEN.delivery(), secret)


# Public keys: Discord, Telnyx, SendGrid, Standard Webhooks v1a


TIMES = {
    "discord": "X-Signature-Timestamp",
    "discord-events": "X-Signature-Timestamp",
    "telnyx": "telnyx-timestamp",
    "sendgrid": "X-Twilio-Email-Event-Webhook-Timestamp",
    "standard-webhooks-v1a": "webhook-timestamp",
}
SIGNATURES = {
    "discord": "X-Signature-Ed25519",
    "discord-events": "X-Signature-Ed25519",
    "telnyx": "telnyx-signature-ed25519",
    "sendgrid": "X-Twilio-Email-Event-Webhook-Signature",
    "standard-webhooks-v1a": "webhook-signature",
}

V1A = Sender("standard-webhooks", "whpk_" + base64_of(ED25519_PUBLIC), b'{"type": "x"}', "whsk_" + base64_of(b"s" * 32))
KEYED = {name: SENDERS.get(name, V1A) for name in TIMES}

each_public_key = pytest.mark.parametrize("name", TIMES)


@each_public_key
def test_every_altered_byte_of_a_body_under_a_public_key_is_refused(name: str) -> None:
    sender = KEYED[name]
    sent = sender.delivery()
    for at in range(len(sent.body)):
        altered = sent.body[:at] + bytes([sent.body[at] ^ 1]) + sent.body[at + 1 :]
        assert sender.refusal(replace(sent, body=altered)) == "signature_mismatch"
    for altered in (sent.body + b"\n", sent.body[:-1], sent.body.strip() + b" ", b" " + sent.body, b""):
        assert sender.refusal(replace(sent, body=altered)) == "signature_mismatch"


@each_public_key
def test_a_signed_time_may_lie_five_minutes_back_or_ahead(name: str) -> None:
    sender = KEYED[name]
    for seconds, reason in ((300, ""), (-300, ""), (301, "timestamp_stale"), (-301, "timestamp_in_future")):
        sent = replace(sender.delivery(), received_at=NOW + timedelta(seconds=seconds))
        if reason:
            assert sender.refusal(sent) == reason
        else:
            assert sender.verifies(sent)


@each_public_key
@pytest.mark.parametrize(
    "time", ["", "0", "-1", "1e9", "+1795435200", " 1795435200", "4291747200", "１７９５４３５２００", "nan"]
)
def test_a_time_that_is_none_is_refused(name: str, time: str) -> None:
    assert not KEYED[name].verifies(with_header(KEYED[name].delivery(), TIMES[name], time))


@each_public_key
def test_a_signature_in_another_spelling_is_refused(name: str) -> None:
    sender = KEYED[name]
    sent = sender.delivery()
    value = sent.headers[SIGNATURES[name]]
    for altered in (value + "\n", value.swapcase(), value + "==", "0x" + value, value + "é", value[:-1], value * 2):
        assert not sender.verifies(with_header(sent, SIGNATURES[name], altered))


@each_public_key
@pytest.mark.parametrize("secret", ["none", "00", "AAAA", "é", "whpk_", "-----BEGIN PUBLIC KEY-----"])
def test_a_secret_that_is_no_public_key_is_our_mistake(name: str, secret: str) -> None:
    with pytest.raises(SecretUnavailable):
        KEYED[name].verify(KEYED[name].delivery(), secret if KEYED[name] is not V1A else "whpk_" + secret)


def test_sendgrids_key_is_on_its_own_curve() -> None:
    for key in (ec.derive_private_key(7, ec.SECP384R1()).public_key(), SNS_CERTIFICATE.key.public_key()):
        with pytest.raises(SecretUnavailable):
            SENDERS["sendgrid"].verify(SENDERS["sendgrid"].delivery(), spki(key))


def test_a_public_key_does_not_verify_what_was_signed_with_it_as_a_shared_secret() -> None:
    """The public key is no secret: an HMAC with it is anybody's."""
    sender = V1A
    sent = sender.delivery()
    message = f"msg_1.{SECONDS}.".encode() + sent.body
    mac = base64_of(hmac.digest(ED25519_PUBLIC, message, "sha256"))
    assert not sender.verifies(with_header(sent, "webhook-signature", f"v1,{mac}"))
    assert not sender.verifies(with_header(sent, "webhook-signature", f"v1a,{mac}"))


def test_a_v1a_signature_stands_among_others() -> None:
    sender = V1A
    sent = sender.delivery()
    listed = f"v1,AAAA junk v1a, v1a,AAAA {sent.headers['webhook-signature']} v2,x"
    assert sender.verify(with_header(sent, "webhook-signature", listed)).signed_id == "msg_1"
    many = " ".join(["v1a,AAAA"] * 20)
    assert sender.refusal(with_header(sent, "webhook-signature", many)) == "too_many_signatures"


@pytest.mark.parametrize("name", ["discord", "discord-events"])
def test_discords_ping_is_answered_and_one_with_a_wrong_signature_refused(name: str, tmp_path: Path) -> None:
    body, answer = {
        "discord": (b'{"type": 1, "token": "unused"}', Greeting(200, {"type": 1})),
        "discord-events": (b'{"version": 1, "type": 0}', Greeting(204)),
    }[name]
    sender = replace(SENDERS[name], body=body)
    pipe = Pipe(sender, tmp_path)
    assert pipe.accept(sender.delivery()) == answer
    with pytest.raises(InvalidSignature):
        pipe.accept(replace(sender.delivery(), body=body + b" "))
    assert pipe.messages == []


@pytest.mark.parametrize("name", ["discord", "discord-events"])
def test_discords_events_are_no_pings(name: str, tmp_path: Path) -> None:
    """A webhook event has the type that is an interaction's ping."""
    pipe = Pipe(SENDERS[name], tmp_path)
    assert isinstance(pipe.accept(SENDERS[name].delivery()), Receipt)
    assert len(pipe.messages) == 1


def test_sendgrids_events_become_events_by_their_own_ids(tmp_path: Path) -> None:
    body = b'[{"sg_event_id": "1", "event": "open"},\r\n{"sg_event_id": "2", "event": "click"}]\r\n'
    sender = replace(SENDERS["sendgrid"], body=body)
    pipe = Pipe(sender, tmp_path)
    pipe.accept(sender.delivery())
    assert pipe.keys() == ["1", "2"]


def test_another_public_key_does_not_verify_v1a() -> None:
    other = "whpk_" + base64_of(OTHER_PUBLIC)
    assert V1A.refusal(V1A.delivery(), other) == "signature_mismatch"
    assert V1A.verify(V1A.delivery(), other, "whsec_c2VjcmV0", V1A.secret).secret == 2
    assert V1A.refusal(with_header(V1A.delivery(), "webhook-id", "msg_2")) == "signature_mismatch"


# JSON Web Tokens


TOKENS = {
    "atlassian-connect": "Authorization",
    "monday": "Authorization",
    "netlify": "X-Webhook-Signature",
    "plaid": "Plaid-Verification",
    "vonage": "Authorization",
}
PREFIXES = {"atlassian-connect": "JWT ", "vonage": "Bearer "}

each_token = pytest.mark.parametrize("name", TOKENS)


def claims_of(name: str, delivery: Delivery) -> dict[str, Any]:
    token = delivery.headers[TOKENS[name]].removeprefix(PREFIXES.get(name, ""))
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def signed_token(name: str, payload: bytes, algorithm: str = "HS256") -> str:
    key: Any = ECDSA if name == "plaid" else SENDERS[name].secret
    return jwt.PyJWS().encode(payload, key, "ES256" if name == "plaid" else algorithm, {"kid": "key-1"})


def with_token(name: str, algorithm: str = "HS256", **claims: Any) -> Delivery:
    """A delivery whose token has other claims, signed all the same; a claim that is None is taken out."""
    sender = SENDERS[name]
    sent = sender.delivery()
    found = {n: v for n, v in {**claims_of(name, sent), **claims}.items() if v is not None}
    token = signed_token(name, json.dumps(found).encode(), algorithm)
    return with_header(sent, TOKENS[name], PREFIXES.get(name, "") + token)


@each_token
def test_a_token_with_the_algorithm_none_is_refused(name: str) -> None:
    sender = SENDERS[name]
    sent = sender.delivery()
    _, claims, signature = sent.headers[TOKENS[name]].removeprefix(PREFIXES.get(name, "")).split(".")
    for algorithm in ("none", "None", "NONE", "", None):
        header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "kid": "key-1"}).encode()).decode().rstrip("=")
        for last in ("", signature, "AAAA"):
            token = f"{PREFIXES.get(name, '')}{header}.{claims}.{last}"
            assert not sender.verifies(with_header(sent, TOKENS[name], token))


@each_token
def test_a_token_does_not_choose_its_algorithm(name: str) -> None:
    sender = SENDERS[name]
    if name == "plaid":
        # The public key's own text as a shared secret: the confusion that pinning is for.
        public = ECDSA.public_key()
        pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        for secret in (sender.secret.encode(), pem, base64.b64decode(ECDSA_SECRET)):
            header, claims = (
                encode(json.dumps(part).encode(), "base64url")
                for part in ({"alg": "HS256", "kid": "key-1"}, claims_of(name, sender.delivery()))
            )
            mac = encode(hmac.digest(secret, f"{header}.{claims}".encode(), "sha256"), "base64url")
            forged = with_header(sender.delivery(), TOKENS[name], f"{header}.{claims}.{mac}")
            assert sender.refusal(forged) == "signature_mismatch"
    else:
        for algorithm in ("HS384", "HS512"):
            assert sender.refusal(with_token(name, algorithm=algorithm)) == "signature_mismatch"


@each_token
@pytest.mark.parametrize("tail", ["=", "==", " ", "\n", ".", ".x", "é"])
def test_a_token_has_one_spelling(name: str, tail: str) -> None:
    sender = SENDERS[name]
    sent = sender.delivery()
    assert sender.refusal(with_header(sent, TOKENS[name], sent.headers[TOKENS[name]] + tail)) == "signature_malformed"
    unprefixed = sent.headers[TOKENS[name]].removeprefix(PREFIXES.get(name, ""))
    for prefix in ("", "bearer ", "Bearer  ", "jwt ", "Basic "):
        if prefix != PREFIXES.get(name, ""):
            assert sender.refusal(with_header(sent, TOKENS[name], prefix + unprefixed)) == "signature_malformed"


@each_token
def test_what_a_provider_promises_to_claim_must_be_there(name: str) -> None:
    wanted = {
        "atlassian-connect": ["iss", "iat", "exp", "qsh"],
        "monday": ["exp", "aud"],
        "netlify": ["iss", "sha256"],
        "plaid": ["iat", "request_body_sha256"],
        "vonage": ["iat", "jti", "payload_hash"],
    }[name]
    assert SENDERS[name].verifies(with_token(name))
    assert set(claims_of(name, SENDERS[name].delivery())) == set(wanted)
    for claim in wanted:
        assert SENDERS[name].refusal(with_token(name, **{claim: None})) in ("claim_missing", "claim_mismatch")


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        ("atlassian-connect", "qsh"),
        ("monday", "aud"),
        ("netlify", "sha256"),
        ("netlify", "iss"),
        ("plaid", "request_body_sha256"),
        ("vonage", "payload_hash"),
    ],
)
def test_a_claim_about_the_request_must_be_right(name: str, claim: str) -> None:
    right = claims_of(name, SENDERS[name].delivery())[claim]
    for wrong in (right + "0", right.upper(), right[:-1], "", "é", 7, [right], {"a": right}, True):
        assert not SENDERS[name].verifies(with_token(name, **{claim: wrong})), wrong


@each_token
@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
def test_a_time_in_a_token_is_a_whole_number(name: str, claim: str) -> None:
    for wrong in ("soon", str(SECONDS), [SECONDS], True, {}, 1.5e9, float("nan")):
        assert SENDERS[name].refusal(with_token(name, **{claim: wrong})) == "timestamp_malformed"


@each_token
def test_a_token_that_has_ended_or_not_begun_is_refused(name: str) -> None:
    sender = SENDERS[name]
    for exp in (SECONDS, 0, -1, -(10**400)):
        assert sender.refusal(with_token(name, exp=exp)) == "timestamp_stale"
    assert sender.verifies(with_token(name, exp=SECONDS + 1))
    assert sender.refusal(with_token(name, nbf=SECONDS + 301)) == "timestamp_in_future"
    for iat in (SECONDS + 301, 10**400):
        assert sender.refusal(with_token(name, iat=iat)) == "timestamp_in_future"


@pytest.mark.parametrize("name", ["plaid", "vonage", "atlassian-connect"])
def test_a_token_may_be_five_minutes_old(name: str) -> None:
    assert SENDERS[name].verifies(with_token(name, iat=SECONDS - 300))
    assert SENDERS[name].refusal(with_token(name, iat=SECONDS - 301)) == "timestamp_stale"


@pytest.mark.parametrize("name", ["netlify", "plaid", "vonage"])
def test_every_altered_byte_of_a_body_whose_hash_is_claimed_is_refused(name: str) -> None:
    sender = SENDERS[name]
    sent = sender.delivery()
    for at in range(len(sent.body)):
        altered = sent.body[:at] + bytes([sent.body[at] ^ 1]) + sent.body[at + 1 :]
        assert sender.refusal(replace(sent, body=altered)) == "signature_mismatch"
    for altered in (sent.body + b"\n", sent.body[:-1], b" " + sent.body, b""):
        assert sender.refusal(replace(sent, body=altered)) == "signature_mismatch"


@each_token
@pytest.mark.parametrize(
    "payload", [b"", b"{", b"[]", b"null", b"7", b"\xff", b"[" * 5000, b'{"a":' * 1000, b"9" * 5000]
)
def test_a_signed_token_that_says_nothing_is_refused(name: str, payload: bytes) -> None:
    sender = SENDERS[name]
    token = signed_token(name, payload)
    hostile = with_header(sender.delivery(), TOKENS[name], PREFIXES.get(name, "") + token)
    assert sender.refusal(hostile) in ("claims_malformed", "signature_malformed")


@each_token
@pytest.mark.parametrize(
    "header", [{"crit": ["x"], "x": 1}, {"b64": False, "crit": ["b64"]}, {"kid": 7}, {"kid": None}, {"kid": "key-2"}]
)
def test_a_tokens_header_decides_nothing(name: str, header: dict[str, Any]) -> None:
    """What it demands and we do not know is refused; a key's name counts for those who have one."""
    sender = SENDERS[name]
    sent = sender.delivery()
    _, claims, _ = sent.headers[TOKENS[name]].removeprefix(PREFIXES.get(name, "")).split(".")
    algorithm = "ES256" if name == "plaid" else "HS256"
    head = encode(json.dumps({"alg": algorithm, **header}).encode(), "base64url")
    text = f"{head}.{claims}".encode()
    if name == "plaid":
        signature = utils.decode_dss_signature(ECDSA.sign(text, ec.ECDSA(hashes.SHA256())))
        raw = b"".join(number.to_bytes(32, "big") for number in signature)
    else:
        raw = hmac.digest(sender.secret.encode(), text, "sha256")
    token = f"{PREFIXES.get(name, '')}{head}.{claims}.{encode(raw, 'base64url')}"
    accepted = name != "plaid" and header.get("kid") == "key-2"
    assert sender.verifies(with_header(sent, TOKENS[name], token)) is accepted


def test_plaids_key_is_the_one_that_the_token_names_until_it_expires() -> None:
    plaid = SENDERS["plaid"]
    sent = plaid.delivery()
    assert plaid.refusal(sent, jwk(ECDSA, kid="key-2")) == "unknown_key"
    assert plaid.refusal(sent, jwk(ECDSA, expired_at=SECONDS)) == "key_expired"
    assert plaid.verify(sent, jwk(ECDSA, expired_at=SECONDS + 1)).secret == 0
    assert plaid.verify(sent, jwk(ECDSA, kid="key-2"), plaid.secret).secret == 1


@pytest.mark.parametrize(
    "secret",
    [
        "text",
        "[]",
        "{}",
        '{"kid": "key-1"}',
        '{"kid": "key-1", "kty": "oct", "k": "AAAA"}',
        '{"kid": "key-1", "kty": "EC", "crv": "P-256", "x": 7, "y": null}',
        '{"kid": "key-1", "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}',
        jwk(ec.derive_private_key(7, ec.SECP384R1())),
        "[" * 100_000,
    ],
)
def test_plaids_secret_is_a_key_of_its_kind(secret: str) -> None:
    with pytest.raises(SecretUnavailable):
        SENDERS["plaid"].verify(SENDERS["plaid"].delivery(), secret)


def test_a_secret_that_is_an_asymmetric_key_is_no_hmacs() -> None:
    for secret in (SNS_CERTIFICATE.pem, jwk(ECDSA)):
        with pytest.raises(SecretUnavailable):
            SENDERS["vonage"].verify(SENDERS["vonage"].delivery(), secret)


def test_the_same_body_at_another_time_is_another_event_of_plaids_and_a_copy_is_not(tmp_path: Path) -> None:
    """Its bodies only say that there is news, in the same words each time."""
    plaid = SENDERS["plaid"]
    pipe = Pipe(plaid, tmp_path)
    first, second = plaid.delivery(), plaid.delivery(now=NOW + timedelta(seconds=60))
    for delivery in (first, first, second):
        pipe.accept(replace(delivery, received_at=NOW))
    one, copy, other = pipe.keys()
    assert one == copy != other


def test_mondays_challenge_is_answered(tmp_path: Path) -> None:
    asked = Delivery("shop", Headers([("Content-Type", JSON)]), b'{"challenge": "3eZbrw1aB"}', NOW)
    assert Pipe(SENDERS["monday"], tmp_path).accept(asked) == Greeting(200, {"challenge": "3eZbrw1aB"})


def test_mondays_token_is_made_out_to_this_address() -> None:
    monday = SENDERS["monday"]
    sent = monday.delivery()
    for url in (URL + "/", URL + "?a=b", URL.replace("https", "http"), ""):
        assert monday.refusal(replace(sent, url=url)) == "claim_mismatch"


def test_atlassians_token_is_for_a_method_a_path_and_a_query() -> None:
    connect = SENDERS["atlassian-connect"]
    sent = connect.delivery(url=URL + "?b=2&a=1&a=0")
    assert connect.verifies(sent)
    assert connect.verifies(replace(sent, url=URL + "?a=0&jwt=x&a=1&b=2"))
    assert connect.verifies(replace(sent, url=URL, query=(("a", "1"), ("a", "0"), ("b", "2"))))
    for url in (URL, URL + "?b=2&a=1", URL + "/x?b=2&a=1&a=0", URL + "?b=2&a=1&a=0&c=", URL.replace("shop", "shoq")):
        assert not connect.verifies(replace(sent, url=url))
    assert not connect.verifies(replace(sent, method="PUT"))
    assert not connect.verifies(replace(sent, url="https://["))


@pytest.mark.parametrize("path", ["/webhooks/shop", "/shop"])
def test_atlassians_path_begins_where_the_apps_base_url_ends(path: str) -> None:
    digest = hashlib.sha256(f"POST&{path}&".encode()).hexdigest()
    assert SENDERS["atlassian-connect"].verifies(with_token("atlassian-connect", qsh=digest))
    for other in ("", "/", "/hop", path + "/x"):
        wrong = hashlib.sha256(f"POST&{other}&".encode()).hexdigest()
        assert not SENDERS["atlassian-connect"].verifies(with_token("atlassian-connect", qsh=wrong))


# Contentful, and Coinbase's CDP


CONTENTFUL, CDP = SENDERS["contentful"], SENDERS["coinbase-cdp"]

each_canonical = pytest.mark.parametrize("name", ["contentful", "coinbase-cdp"])


@each_canonical
def test_every_altered_byte_of_a_body_beside_signed_headers_is_refused(name: str) -> None:
    sender = SENDERS[name]
    sent = sender.delivery()
    for at in range(len(sent.body)):
        altered = sent.body[:at] + bytes([sent.body[at] ^ 1]) + sent.body[at + 1 :]
        assert sender.refusal(replace(sent, body=altered)) == "signature_mismatch"
    for altered in (sent.body + b"\n", sent.body[:-1], b" " + sent.body, b"\n" + sent.body, b""):
        assert sender.refusal(replace(sent, body=altered)) == "signature_mismatch"


@each_canonical
def test_every_altered_character_of_a_signed_header_is_refused(name: str) -> None:
    sender = SENDERS[name]
    sent = sender.delivery()
    for header in sender.headers:
        value = sender.headers[header]
        for at in range(len(value)):
            altered = value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :]
            assert not sender.verifies(with_header(sent, header, altered)), at
        assert sender.refusal(with_header(sent, header)) == "header_missing"
        assert sender.refusal(with_header(sent, header, value, value)) == "header_repeated"


@pytest.mark.parametrize(("name", "tolerance"), [("contentful", 30), ("coinbase-cdp", 300)])
def test_the_time_beside_signed_headers_is_checked_on_both_sides(name: str, tolerance: int) -> None:
    sender = SENDERS[name]
    for seconds, reason in ((tolerance + 1, "timestamp_stale"), (-tolerance - 1, "timestamp_in_future")):
        assert sender.refusal(replace(sender.delivery(), received_at=NOW + timedelta(seconds=seconds))) == reason
        within = replace(sender.delivery(), received_at=NOW + timedelta(seconds=seconds // 2))
        assert sender.verify(within).signed_id == "msg_1"


def test_the_request_that_contentful_signs_is_written_like_this() -> None:
    sent = CONTENTFUL.delivery(url="https://x.example/a b/ä?q=1&r=%C3%84")
    names = "x-contentful-idempotency-key,x-contentful-signed-headers,x-contentful-timestamp,x-contentful-topic"
    text = (
        "POST\n/a%20b/%C3%A4?q%253D1%2526r%253D%2525C3%252584\n"
        f"x-contentful-idempotency-key:msg_1;x-contentful-signed-headers:{names};"
        f"x-contentful-timestamp:{SECONDS}000;x-contentful-topic:ContentManagement.Entry.publish\n"
        + '{"sys": {"id": "1"}}'
    )
    assert sent.headers["x-contentful-signature"] == hmac.new(b"s3cret", text.encode(), "sha256").hexdigest()
    assert CONTENTFUL.verify(sent).secret == 0


def test_method_path_and_query_are_contentfuls_to_sign() -> None:
    sent = CONTENTFUL.delivery()
    assert not CONTENTFUL.verifies(replace(sent, method="PUT"))
    for url in (URL + "/", URL + "?a=b", URL[:-1], "https://["):
        assert not CONTENTFUL.verifies(replace(sent, url=url))


def test_an_id_with_space_around_it_is_refused() -> None:
    """Contentful trims what it signs; that would let another spelling verify, as another event."""
    for space in (" ", "\t", "\xa0"):
        sent = with_header(CONTENTFUL.delivery(), "x-contentful-idempotency-key", "msg_1" + space)
        assert CONTENTFUL.refusal(sent) == "signature_mismatch"


@pytest.mark.parametrize(
    "listed",
    [
        "",
        ",",
        "x-contentful-timestamp",
        "x-contentful-signed-headers",
        "x-contentful-timestamp,x-contentful-signed-headers",
        "X-Contentful-Signed-Headers,x-contentful-timestamp",
        "x-contentful-signed-headers,x-contentful-timestamp,x-contentful-timestamp",
        "x-contentful-signed-headers,x-contentful-timestamp,x-missing",
        "é,x-contentful-signed-headers,x-contentful-timestamp",
        ",".join([*sorted(f"a{n}" for n in range(100)), "x-contentful-signed-headers", "x-contentful-timestamp"]),
    ],
)
def test_a_list_of_headers_that_contentful_would_not_make_is_refused(listed: str) -> None:
    reason = CONTENTFUL.refusal(with_header(CONTENTFUL.delivery(), "x-contentful-signed-headers", listed))
    assert reason in ("headers_malformed", "header_missing")


def hook0(entries: str, **headers: str) -> Delivery:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Delivery("shop", Headers([("X-Hook0-Signature", entries), *named.items()]), b"{}", NOW)


def hook0_signed(names: str, values: str, **headers: str) -> Delivery:
    mac = hmac.new(b"s3cret", f"{SECONDS}.{names}.{values}.{{}}".encode(), "sha256").hexdigest()
    return hook0(f"t={SECONDS},v0=00,h={names},v1={mac}", **headers)


def test_cdps_own_form_of_a_signature_is_this() -> None:
    headers = {"content_type": "application/json", "x_event_id": "e-1", "x_event_type": "a.b"}
    sent = hook0_signed("content-type x-event-id x-event-type", "application/json.e-1.a.b", **headers)
    assert CDP.verify(sent).signed_id == "e-1"
    older = hook0_signed("content-type x-hook0-id", "application/json.h-1", content_type=JSON, x_hook0_id="h-1")
    assert CDP.verify(older).signed_id == "h-1"
    assert CDP.verify(hook0_signed("content-type", JSON, content_type=JSON, x_event_id="unsigned")).signed_id is None


def test_a_dot_cannot_move_an_id_of_cdps() -> None:
    """Values and dots run together under the signature: with them, a copy would be another event."""
    names, values = "content-type x-event-id x-event-type", "application/json.e-1.a.b"
    for content_type, id, type in ((JSON, "e-1.a", "b"), (JSON + ".e-1", "a", "b")):
        sent = hook0_signed(names, values, content_type=content_type, x_event_id=id, x_event_type=type)
        assert CDP.refusal(sent) == "headers_malformed"
    absorbed = {"x-event-id.e-1": "a", "x-event-type": "b"}
    sent = hook0_signed("x-event-id.e-1 x-event-type", "a.b")
    headers = Headers([*((name, sent.headers[name]) for name in sent.headers), *absorbed.items()])
    assert CDP.refusal(replace(sent, headers=headers)) == "headers_malformed"


def test_cdps_signature_without_headers_is_not_taken() -> None:
    v0 = hmac.new(b"s3cret", f"{SECONDS}.{{}}".encode(), "sha256").hexdigest()
    assert CDP.refusal(hook0(f"t={SECONDS},v0={v0}")) == "signature_malformed"
    assert CDP.refusal(hook0(f"t={SECONDS},v0={v0},h=content-type", content_type=JSON)) == "signature_missing"


@pytest.mark.parametrize(
    "entries",
    [
        "t=1,t=1,h=a,v1=00",
        f"t={SECONDS},h=,v1=00",
        f"t={SECONDS},h=a,h=b,v1=00",
        f"t={SECONDS},h=A,v1=00",
        f"t={SECONDS},h=a  b,v1=00",
        f"t={SECONDS},h={' '.join(f'a{n}' for n in range(100))},v1=00",
        f"t={SECONDS},h=missing,v1=00",
        f"t={SECONDS}," + "v1=00," * 10_000,
        f"t={SECONDS},h=a" + ",v1=00" * 10_000,
        "t=é,h=a,v1=é",
    ],
    ids=range(10),
)
def test_a_header_that_cdp_would_not_make_is_refused(entries: str) -> None:
    CDP.refusal(hook0(entries, a="1"))


def test_what_braintrees_handshake_signs_is_no_event() -> None:
    """It signs any challenge for whoever asks, and with the same key."""
    sender = SENDERS["braintree"]
    challenge = "0123456789abcdef01234567"
    public, _, private = sender.secret.partition(":")
    mac = hmac.digest(hashlib.sha1(private.encode(), usedforsecurity=False).digest(), challenge.encode(), "sha1").hex()
    body = urlencode({"bt_signature": f"{public}|{mac}", "bt_payload": challenge}).encode()
    assert not sender.verifies(replace(sender.delivery(), body=body))


def test_adyens_truth_is_a_text_and_nothing_that_signs_as_one() -> None:
    """A captured item with the other spelling would be another event."""
    sender = SENDERS["adyen"]
    sent = sender.delivery()
    for text, truth in ((b'"success": "true"', b'"success": true'), (b'"success":"true"', b'"success":true')):
        if text in sent.body:
            assert not sender.verifies(replace(sent, body=sent.body.replace(text, truth)))
