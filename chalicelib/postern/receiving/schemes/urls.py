"""The address of a request as its sender may have spelled it when he signed it.

Senders sign a URL as text, and a query has many spellings: a blank is `%20` or `+`, `@ : / '` stand as they are or
escaped, escapes have capitals or not, a name stands bare or with a `=`. API Gateway hands on what they mean and not how
they were written, so a few spellings are tried, never more than `MAX_SPELLINGS`.

Sources: Twilio's "Secure your webhooks" and twilio 9.13.0; HubSpot's "Validating requests", whose list of escapes is
decoded before the URL is signed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from urllib.parse import quote, quote_plus, unquote

MAX_SPELLINGS = 16

# HubSpot's list, and square brackets, which many leave as they are.
_LEFT_ALONE = ":/?@!$'()*,;[]"
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_ADDRESS = re.compile(r"(https?)://([^/?#]*?)(?::([0-9]{1,5}))?([/?#].*)?", re.ASCII | re.DOTALL)
_DEFAULT_PORTS = {"https": "443", "http": "80"}


def spellings(url: str, query: Sequence[tuple[str, str]]) -> list[str]:
    """The URL as it is, first, and with its query written in other ways. `query`: its parameters, decoded.

    A URL with a query that is not the request's (a source's own) is left as it is.
    """
    address, mark, written = url.partition("?")
    if not mark or "" in written.split("&") or sorted(query) != sorted(_pairs(written)):
        return [url]
    pairs = _pairs(written)
    ways = [
        written,
        _joined(pairs, lambda text: quote(text, safe="")),
        _joined(pairs, quote_plus),
        _joined(pairs, lambda text: quote(text, safe=_LEFT_ALONE)),
        _joined(pairs, lambda text: quote_plus(text, safe=_LEFT_ALONE)),
        _joined(pairs, quote_plus, bare=True),
        _joined(sorted(pairs), quote_plus),
        _lowered(_joined(pairs, quote_plus)),
    ]
    return [f"{address}?{way}" for way in dict.fromkeys(ways)][:MAX_SPELLINGS]


def with_and_without_port(urls: Sequence[str]) -> list[str]:
    """Each with its port and without it, because senders differ in that."""
    both: list[str] = []
    for url in urls:
        found = _ADDRESS.fullmatch(url)
        if found is None:
            both.append(url)
            continue
        scheme, host, port, rest = found.groups("")
        both += [f"{scheme}://{host}{rest}", f"{scheme}://{host}:{port or _DEFAULT_PORTS[scheme]}{rest}"]
    return list(dict.fromkeys(both))[:MAX_SPELLINGS]


def _pairs(query: str) -> list[tuple[str, str]]:
    pairs = [part.partition("=") for part in query.split("&") if part]
    return [(_decoded(name), _decoded(value)) for name, _, value in pairs]


def _decoded(text: str) -> str:
    return unquote(text.replace("+", " "), errors="surrogateescape")


def _joined(pairs: Sequence[tuple[str, str]], written: Callable[[str], str], *, bare: bool = False) -> str:
    return "&".join(
        _written(name, written) if bare and not value else f"{_written(name, written)}={_written(value, written)}"
        for name, value in pairs
    )


def _written(text: str, written: Callable[[str], str]) -> str:
    # Bytes that are no UTF-8 keep their escapes.
    try:
        return written(text)
    except UnicodeEncodeError:
        return "".join(
            f"%{byte:02X}" if byte > 127 else written(chr(byte)) for byte in text.encode("utf-8", "surrogateescape")
        )


def _lowered(query: str) -> str:
    return _ESCAPE.sub(lambda found: found[0].lower(), query)
