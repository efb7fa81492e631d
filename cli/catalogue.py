"""The catalogue as people read it: on the terminal, and as docs/providers.md, which `make check` holds against it."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chalicelib.postern.receiving.naming import Place
from chalicelib.postern.receiving.providers import Provider, provider, provider_names
from chalicelib.postern.receiving.schemes import scheme_class
from cli.guides import guide

_HEAD = """# Providers

<!-- Written by `make providers` from its catalogue and cli/providers; `make check` compares. -->

The {count} kinds of senders that Postern knows. `postern providers NAME` prints what one needs and the steps to set its
webhook up; [sources](sources.md) says how one is configured, and how any other sender is.

- *Identity*: what makes two deliveries the same event ([decision 11](decisions/0011-identity.md)). Where the id is in a
  header that the provider does not sign, events with equal bytes under other ids are marked. "none" means that the
  provider sends no id, and equal bytes for different events.
- *Answer*: what it hears of an accepted delivery, where that is not 202 with JSON.
- *Each attempt*: whether it is signed with a time of its own; and for how long the provider repeats. Nothing is said
  where no time is signed, or the provider does not say.
- *Rotation*: every secret in a source's list verifies. "several signatures": while the provider rotates, it signs with
  both itself.
- A time that is signed may lie the stated number of seconds from ours, before or after; official libraries often check
  one side only, or neither.

| provider | name | verified by | identity | type | answer | each attempt | handshake | rotation | held against |
|---|---|---|---|---|---|---|---|---|---|
"""


def listing() -> str:
    """A line a provider, for the terminal."""
    names = provider_names()
    width = max(map(len, names))
    lines = [f"{name:<{width}}  {guide(name).title}: {_plain(_scheme(provider(name)))}" for name in names]
    return "\n".join([*lines, "", "`postern providers NAME` says what one needs, and how to set its webhook up."])


def description(name: str, url: str) -> str:
    """One provider, whole: what it needs, the steps to set it up, and what to know. `url` ends with the source."""
    kind, about = provider(name), guide(name)
    facts = {
        "verified by": _plain(_scheme(kind)),
        "secret": about.secret,
        "identity": _plain(_dedup(kind)),
        "type": _plain(_place(kind.type)),
        "answer": _plain(_answer(kind)),
        "each attempt": _plain(_attempts(kind)),
        "handshake": _plain(_handshakes(kind)),
        "samples": ", ".join(about.samples),
    }
    if kind.items is not None:
        facts["events"] = f"several in a delivery, the list at '{kind.items}'" if kind.items else "a list of them"
    lines = [f'{about.title} (provider = "{name}")', ""]
    lines += [_wrapped(f"{label:<13}", text) for label, text in facts.items()]
    lines += ["", "Set it up"]
    lines += [_wrapped(f"{n:>3}. ", step.replace("{url}", url)) for n, step in enumerate(about.setup, 1)]
    if about.notes:
        lines += ["", "To know", *(_wrapped("  - ", note) for note in about.notes)]
    return "\n".join([*lines, "", f"Try it: postern send {url.rpartition('/')[2]} {about.default_type}"])


def page() -> str:
    """docs/providers.md."""
    rows = [_row(name) for name in provider_names()]
    return _HEAD.format(count=len(rows)) + "\n".join(rows) + "\n"


def _row(name: str) -> str:
    kind, about = provider(name), guide(name)
    cells = [
        f"`{name}`",
        about.title,
        _scheme(kind),
        _dedup(kind),
        _place(kind.type),
        _answer(kind),
        _attempts(kind),
        _handshakes(kind),
        _rotation(kind),
        about.verified or "its documentation",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _scheme(kind: Provider) -> str:
    """In words, from the scheme's own settings."""
    made: Any = scheme_class(kind.scheme)(**kind.settings)
    settings = {name: getattr(made, name) for name in getattr(made, "__dataclass_fields__", {})}
    return _SCHEMES[kind.scheme](settings)


def _signature(what: str, settings: Mapping[str, Any]) -> str:
    parts = {"{body}": "the body", "{timestamp}": "time", "{id}": "id", "{url}": "URL", "{method}": "method"}
    signed = [word for place, word in sorted(parts.items(), key=lambda item: settings["signed"].find(item[0]))
              if place in settings["signed"]]  # fmt: skip
    header = settings["header"] + ("-1, -2, …" if settings["numbered"] else "")
    prefix = f", behind `{settings['prefix'].strip()}`" if settings["prefix"] else ""
    within = f"; {settings['tolerance_seconds']} s" if settings["timestamp"] else ""
    return f"{what} of {_and(signed)}, {settings['encoding']}, in `{header}`{prefix}{within}"


_SCHEMES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "hmac": lambda s: _signature(f"HMAC-{s['algorithm'].upper().replace('SHA', 'SHA-')}", s),
    "secret-first": lambda s: _signature("SHA-256 of the secret and", s).replace(
        " of the secret and of", " of the secret,"
    ),
    "standard-webhooks": lambda s: (
        f"Standard Webhooks 1.0: HMAC-SHA-256 or Ed25519 of id, time and the body; {s['tolerance_seconds']} s"
    ),
    "ed25519": lambda s: _signature("Ed25519", s),
    "ecdsa": lambda s: _signature("ECDSA (P-256, SHA-256)", s),
    "token": lambda s: (
        f"`{s['header']}` equals {'`' + s['prefix'].strip() + '` and ' if s['prefix'] else ''}the secret"
    ),
    "query-token": lambda s: f"the URL's parameter `{s['name']}` equals the secret",
    "body-token": lambda s: f"`{s['field']}` in each of `{s['each']}` equals the secret",
    "basic": lambda s: "HTTP Basic authentication",
    "none": lambda s: "nothing",
    "url-and-form": lambda s: (
        f"HMAC-{s['algorithm'].upper().replace('SHA', 'SHA-')} of the URL and the sorted form,"
        f" {s['encoding']}, in `{s['header']}`"
    ),
    "braintree": lambda s: "HMAC-SHA-1 of `bt_payload`, hex, in `bt_signature`, both in the form",
    "body-fields": lambda s: (
        f"HMAC-{s['algorithm'].upper().replace('SHA', 'SHA-')} of time and token, all three in the body;"
        f" {s['tolerance_seconds']} s"
    ),
    "adyen": lambda s: "HMAC-SHA-256 of eight fields of each item, base64, in the item",
    "contentful": lambda s: (
        f"HMAC-SHA-256 of method, path, the listed headers and the body, hex, in `x-contentful-signature`;"
        f" {s['tolerance_seconds']} s"
    ),
    "hook0": lambda s: (
        f"HMAC-SHA-256 of time, the listed headers and the body, hex, in `{s['header']}`, behind `v1=`;"
        f" {s['tolerance_seconds']} s"
    ),
    "jwt": lambda s: _token(s),
    "sns": lambda s: (
        f"RSA of the message's fields, by a certificate of AWS's; the topic is the secret; {s['tolerance_seconds']} s"
    ),
    "paypal": lambda s: (
        f"RSA of id, time, webhook and the body's CRC-32, by a certificate of PayPal's; {s['tolerance_seconds']} s"
    ),
}


def _token(settings: Mapping[str, Any]) -> str:
    said = [f"`{settings['body_hash']}` of the body"] if settings["body_hash"] else []
    said += [f"`{settings['request_hash']}` of method, path and query"] if settings["request_hash"] else []
    said += ["`aud`"] if settings["audience"] else []
    said += [f"`{name}`" for name in settings["required"] if name in ("exp", "iat")]
    prefix = f", behind `{settings['prefix'].strip()}`" if settings["prefix"] else ""
    within = f"; {settings['tolerance_seconds']} s" if "iat" in settings["required"] else ""
    return f"JWT ({settings['algorithm']}) in `{settings['header']}`{prefix}, with {_and(said)}{within}"


def _dedup(kind: Provider) -> str:
    made: Any = scheme_class(kind.scheme)(**kind.settings)
    if kind.dedup == "none":
        return "none: each delivery is an event"
    if kind.dedup is None:
        if made.signs_id:
            return "the signed id"
        topic = " and topic" if kind.type is not None and kind.type.in_headers else ""
        return f"bytes{topic}, for a day"
    marked = made.covers_body and kind.dedup.in_headers
    also = " + bytes" if kind.dedup.with_bytes else ""
    return _place(kind.dedup) + also + (" (unsigned: equal bytes are marked)" if marked else "")


def _place(place: Place | None) -> str:
    if place is None:
        return "-"
    return " + ".join(" or ".join(f"{at.where} `{at.path}`" for at in part) for part in place.parts)


def _answer(kind: Provider) -> str:
    if kind.answer is None:
        return "202"
    return f"{kind.answer.status}, `{kind.answer.body}`" if kind.answer.body else f"{kind.answer.status}, empty"


def _attempts(kind: Provider) -> str:
    signed = {True: "signed anew", False: "keeps the first one's time", None: ""}[kind.resigns]
    repeated = f"repeated for {_span(kind.retries)}" if kind.retries else ""
    return "; ".join(said for said in (signed, repeated) if said) or "-"


def _span(seconds: int) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size or seconds == size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds} s"


def _handshakes(kind: Provider) -> str:
    said = [f"{h.get('method', 'POST')} {_when(h['when'])}: {_ANSWERS[h['reply']]}" for h in kind.handshakes]
    return "; ".join(said) or "-"


def _when(when: str) -> str:
    where, _, what = when.partition(":")
    return {"query": f"`?{what}=`", "header": f"with `{what}`", "form": f"form `{what}`", "body": f"`{what}`"}.get(
        where, "alone"
    )


_ANSWERS = {
    "ok": "empty answer",
    "constant": "fixed answer",
    "echo": "value back, as text",
    "echo-json": "value back, in JSON",
    "echo-header": "header back",
    "allow-origin": "origin allowed, at the rate that was asked for",
    "subscribe": "challenge back, if the verify token is right",
    "digest": "HMAC of the token",
    "braintree": "HMAC of the challenge",
    "pending": "empty answer, while there is no secret and one is awaited (`.awaited_until`)",
    "confirm": "confirmed, at AWS's own hosts only",
}


def _rotation(kind: Provider) -> str:
    several = kind.settings.get("separator") or kind.settings.get("numbered") or kind.settings.get("repeated")
    if not kind.needs_secret:
        return "-"
    return "several signatures" if several or kind.scheme == "standard-webhooks" else "listed secrets"


def _and(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")


def _wrapped(label: str, text: str) -> str:
    return textwrap.fill(text, 110, initial_indent=label, subsequent_indent=" " * len(label))


def main() -> int:
    """`--write FILE`, or `--check FILE`, which fails where the file is not what would be written."""
    parser = argparse.ArgumentParser()
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--write", type=Path)
    form.add_argument("--check", type=Path)
    options = parser.parse_args()
    if options.write:
        options.write.write_text(page(), "utf-8")
    elif options.check.read_text("utf-8") != page():
        print(f"{options.check} is not what the catalogue says; `make providers` writes it.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
