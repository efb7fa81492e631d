"""The replies to providers' handshakes: challenges to be answered exactly, pings, and calls that only ask for a 200.

Which handshakes a provider has stands in its entry of providers/catalogue.toml, an inline table each. `when` is one of

- `query:NAME`, `header:NAME`, `header:NAME=VALUE`: this parameter or header is there (and is this);
- `body:PATH=VALUE`: what stands at this path of the JSON body is this (as text); `body:PATH`: something is there;
- `json:TEXT`: the body is this JSON value;
- `form:NAME`: the body is a form with this field;
- `always`.

`method` is POST unless it says otherwise; `signed` handshakes are answered after the signature is verified, and the
others before, which is why those reveal nothing but what they were sent. `reply` is a function of this module, by name.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from chalicelib.postern.contract.deliveries import Delivery, Greeting
from chalicelib.postern.contract.errors import InvalidPayload, InvalidSignature, PayloadTooLarge, SecretUnavailable
from chalicelib.postern.contract.payloads import content_of, form_of, parse
from chalicelib.postern.receiving.naming import at
from chalicelib.postern.receiving.schemes.base import Fetch, as_wire, encode, key_of, matching, wire
from chalicelib.postern.receiving.sources import AWAITED_UNTIL, VERIFY_TOKEN, Source

# Longer than any provider's challenge.
_MAX_ECHO_LENGTH = 2_000
# Nothing larger is read before it is verified: a handshake is small.
_MAX_UNSIGNED_BYTES = 8_192

TEXT = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True)
class Handshake:
    """A handshake, and what it is answered with: `given` is the value that `when` found."""

    settings: Mapping[str, Any]
    given: str
    delivery: Delivery
    source: Source
    secrets_of: Callable[[str], list[str]]
    fetch: Fetch


def greet(
    delivery: Delivery, source: Source, *, signed: bool, secrets_of: Callable[[str], list[str]], fetch: Fetch
) -> Greeting | None:
    """The answer, or None where the delivery is no handshake of this source. Raises a Refusal."""
    for settings in source.handshakes:
        if settings.get("signed", False) != signed or settings.get("method", "POST") != delivery.method:
            continue
        if not signed and len(delivery.body) > _MAX_UNSIGNED_BYTES:
            continue
        given = _given(settings["when"], delivery)
        if given is None:
            continue
        if len(given) > _MAX_ECHO_LENGTH or not given.isprintable():
            raise InvalidSignature("challenge_malformed")
        return _REPLIES[settings["reply"]](Handshake(settings, given, delivery, source, secrets_of, fetch))
    return None


def _given(when: str, delivery: Delivery) -> str | None:
    where, _, what = when.partition(":")
    if where == "query":
        return next((value for name, value in delivery.query if name == what), None)
    if where == "header":
        name, equals, wanted = what.partition("=")
        value = delivery.headers.get(name)
        return value if not equals or value == wanted else None
    if where == "form":
        # Nothing else in it: a body of another kind may hold what looks like a field.
        fields = _form(delivery)
        return fields[what] if fields.keys() == {what} else None
    if where == "json":
        return "" if _json(delivery) == json.loads(what) else None
    if where == "body":
        path, equals, wanted = what.partition("=")
        found = at(_json(delivery), path)
        if found is None or isinstance(found, list | dict):
            return None
        text = str(found)
        return text if not equals or text == wanted else None
    return ""


def _json(delivery: Delivery) -> Any:
    try:
        return parse(delivery.body.decode("utf-8"))
    except (UnicodeDecodeError, InvalidPayload):
        return None


def _form(delivery: Delivery) -> dict[str, str]:
    try:
        return dict(form_of(delivery.body.decode("utf-8")))
    except (UnicodeDecodeError, InvalidPayload):
        return {}


def _ok(handshake: Handshake) -> Greeting:
    """An empty answer, with `status`."""
    return Greeting(handshake.settings.get("status", 200))


def _constant(handshake: Handshake) -> Greeting:
    """The JSON object `json`."""
    return Greeting(200, handshake.settings["json"])


def _echo(handshake: Handshake) -> Greeting:
    """The value back, as text: that of `when`, or that at `echo` in the body."""
    return Greeting(200, _echoed(handshake), TEXT)


def _echo_json(handshake: Handshake) -> Greeting:
    """The value back, as the member `name` of a JSON object."""
    return Greeting(200, {handshake.settings["name"]: _echoed(handshake)})


def _echo_header(handshake: Handshake) -> Greeting:
    """The header back, as it came."""
    name = handshake.settings["when"].partition(":")[2]
    return Greeting(handshake.settings.get("status", 200), "", {name: handshake.given})


def _allow_origin(handshake: Handshake) -> Greeting:
    """CloudEvents' "HTTP 1.1 Web Hooks", section 4.2: whoever asks may send, at the rate that he asks for."""
    rate = handshake.delivery.headers.get("WebHook-Request-Rate", "*")
    allowed = rate if rate.isascii() and rate.isdigit() and len(rate) < 10 else "*"
    headers = {"WebHook-Allowed-Origin": handshake.given, "WebHook-Allowed-Rate": allowed, "Allow": "POST, OPTIONS"}
    return Greeting(200, "", headers)


def _echoed(handshake: Handshake) -> str:
    path = handshake.settings.get("echo")
    value = handshake.given if path is None else at(_json(handshake.delivery), path)
    if not isinstance(value, str) or len(value) > _MAX_ECHO_LENGTH or not value.isprintable():
        raise InvalidSignature("challenge_malformed")
    return value


def _subscribe(handshake: Handshake) -> Greeting:
    """Meta's, and WebSub's: the challenge back, if `hub.verify_token` is the source's."""
    query = dict(handshake.delivery.query)
    known = handshake.secrets_of(handshake.source.name + VERIFY_TOKEN)
    matching([as_wire(query.get("hub.verify_token", ""))], known)
    return Greeting(200, handshake.given, TEXT)


def _digest(handshake: Handshake) -> Greeting:
    """X's and Zoom's: a HMAC-SHA256 of the token, as member `name`, behind `prefix`; the token too where `token` is.

    With the first secret, which is the current one. X signs its events in the same way, and this is asked by anybody:
    so the token must not be what could be an event, or we would sign it for him.
    """
    settings = handshake.settings
    token = _echoed(handshake)
    if not _TOKEN.fullmatch(token) or _is_json(token) or _is_packed(token):
        raise InvalidSignature("challenge_malformed")
    secret = handshake.secrets_of(handshake.source.name)[0]
    digest = hmac.digest(key_of(secret, settings.get("secret_encoding", "text")), token.encode(), "sha256")
    body = {settings["name"]: settings.get("prefix", "") + encode(digest, settings.get("encoding", "hex"))}
    if "token" in settings:
        body = {settings["token"]: token, **body}
    return Greeting(200, body)


_TOKEN = re.compile(r"[A-Za-z0-9+/=_.~-]{1,512}", re.ASCII)


def _is_packed(text: str) -> bool:
    """Whether it is a compressed text in letters and digits, as there are."""
    try:
        return content_of(text.encode(), {"content-encoding": "deflate"}) != text.encode()
    except PayloadTooLarge:
        return True


def _is_json(text: str) -> bool:
    try:
        parse(text)
    except InvalidPayload:
        return False
    return True


def _braintree(handshake: Handshake) -> Greeting:
    """`public_key|HMAC-SHA1(SHA1(private_key), challenge)`; the secret is `public_key:private_key`."""
    if not (20 <= len(handshake.given) <= 32 and all(c in "0123456789abcdef" for c in handshake.given)):
        raise InvalidSignature("challenge_malformed")
    public, _, private = handshake.secrets_of(handshake.source.name)[0].partition(":")
    return Greeting(200, f"{public}|{hmac.digest(key_of(private, 'sha1'), wire(handshake.given), 'sha1').hex()}", TEXT)


def _pending(handshake: Handshake) -> Greeting:
    """Notion's: a token that becomes the secret. Anybody can send one, so it is taken while the operator awaits it and
    the source has no secret, and at no other time.
    """
    if _secrets(handshake, ""):
        raise InvalidSignature("already_verified")
    awaited = _secrets(handshake, AWAITED_UNTIL)
    try:
        is_awaited = any(handshake.delivery.received_at < datetime.fromisoformat(each) for each in awaited)
    except (ValueError, TypeError):  # no time, or one without a zone
        raise SecretUnavailable("secret_malformed") from None
    if not is_awaited:
        raise InvalidSignature("not_awaited")
    return Greeting(200, kept_as="verification_token")


def _secrets(handshake: Handshake, suffix: str) -> list[str]:
    """Those that there are. Raises SecretUnavailable where nobody knows."""
    try:
        return handshake.secrets_of(handshake.source.name + suffix)
    except SecretUnavailable as exc:
        if exc.reason != "secret_missing":
            raise
        return []


def _confirm(handshake: Handshake) -> Greeting:
    """SNS's: a GET to the URL in the body, which is only ever AWS's own (receiving.schemes.certificates)."""
    from chalicelib.postern.receiving.schemes.certificates import checked_sns_url

    body = json.loads(handshake.delivery.body)
    handshake.fetch(checked_sns_url(body["SubscribeURL"]))
    return Greeting()


_REPLIES: dict[str, Callable[[Handshake], Greeting]] = {
    "ok": _ok,
    "constant": _constant,
    "echo": _echo,
    "echo-json": _echo_json,
    "echo-header": _echo_header,
    "allow-origin": _allow_origin,
    "subscribe": _subscribe,
    "digest": _digest,
    "braintree": _braintree,
    "pending": _pending,
    "confirm": _confirm,
}
