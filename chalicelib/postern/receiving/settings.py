"""The settings that a source may have in the sources file, and how each is read.

By hand: the public function reads its sources at every cold start, and a library for it would be a fifth of that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

from chalicelib.postern.contract.deliveries import Reply
from chalicelib.postern.contract.envelope import MAX_WINDOW_SECONDS
from chalicelib.postern.receiving.naming import HEADER_NAME, Place
from chalicelib.postern.receiving.providers import provider_names

# From a value as TOML has it to what Postern works with; raises ValueError with the end of a sentence.
Reader = Callable[[Any], Any]


class Mistake(Exception):
    """A setting that cannot be used: its name, and a sentence without its beginning."""

    def __init__(self, key: str, sentence: str) -> None:
        super().__init__(f"key '{key}': {sentence}")


def read(table: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one source, each as Postern works with it. Raises Mistake for the first that is wrong."""
    if "provider" not in table:
        raise Mistake("provider", "is missing: every source names its kind of sender.")
    found = {}
    # The provider first: what else is a mistake depends on it.
    for key in ("provider", *(each for each in table if each != "provider")):
        if key not in READERS:
            raise Mistake(key, f"is not a setting of a source.{_nearest(key, list(READERS))}")
        try:
            found[key] = READERS[key](table[key])
        except ValueError as exc:
            raise Mistake(key, str(exc)) from None
    return found


def _nearest(wrong: str, known: Sequence[str]) -> str:
    """What may have been meant by a name that there is none of."""
    from difflib import get_close_matches

    found = get_close_matches(wrong.lower(), known, n=1, cutoff=0.6)
    return f" Did you mean '{found[0]}'?" if found else ""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a text.")
    return value


def _filled(value: Any) -> str:
    text = _text(value)
    if not text:
        raise ValueError("is empty.")
    return text


def _yes_or_no(value: Any) -> bool:
    if value not in (True, False):  # 1 and 0 as well
        raise ValueError("is neither true nor false.")
    return bool(value)


def _one_of(*choices: str) -> Reader:
    def read_choice(value: Any) -> str:
        text = _text(value)
        if text not in choices:
            raise ValueError(f"'{text}' is not one of {', '.join(choices)}.")
        return text

    return read_choice


def _matching(pattern: re.Pattern[str], what: str) -> Reader:
    def read_text(value: Any) -> str:
        text = _text(value)
        if not pattern.fullmatch(text):
            raise ValueError(f"'{text}' is not {what}.")
        return text

    return read_text


def _list_of(reader: Reader, *, may_be_empty: bool = True) -> Reader:
    def read_list(value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError("is not a list.")
        if not value and not may_be_empty:
            raise ValueError("the list is empty.")
        return [reader(each) for each in value]

    return read_list


def _whole_number(least: int, most: int) -> Reader:
    def read_number(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"must lie between {least} and {most}.")
        return value

    return read_number


def _provider(value: Any) -> str:
    name, known = _text(value), provider_names()
    if name not in known:
        raise ValueError(f"there is no provider '{name}'; known are {', '.join(known)}.{_nearest(name, known)}")
    return name


def _place(value: Any) -> Place:
    return Place.parse([str(part) for part in value] if isinstance(value, list) else str(value))


def _dedup(value: Any) -> Place | Literal["none"]:
    return "none" if value == "none" else _place(value)


def _items(value: Any) -> str | None:
    """A path, or false: what comes is one event, though the provider mostly sends several."""
    return None if value is False else _text(value)


_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def _window(value: Any) -> int:
    """Seconds, or a number and its unit: `90`, `"15m"`, `"12h"`, `"7d"`."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", str(value), re.ASCII)
    if found is None or isinstance(value, bool):
        raise ValueError(f'\'{value}\' is no duration: a number of seconds, or as in "15m", "12h", "7d".')
    seconds = int(found[1]) * _UNITS[found[2] or "s"]
    if not 1 <= seconds <= MAX_WINDOW_SECONDS:
        raise ValueError(f"must lie between 1 s and {MAX_WINDOW_SECONDS // 86_400} days.")
    return seconds


def _answer(value: Any) -> Reply:
    """A status, or a table of `status`, `body` and `content_type`."""
    table = value if isinstance(value, dict) else {"status": value}
    wrong = ValueError('is neither a status, 200 say, nor {status = 200, body = "…", content_type = "…"}.')
    if not table.keys() <= {"status", "body", "content_type"} or "status" not in table:
        raise wrong
    status, texts = table["status"], [table.get(name, "") for name in ("body", "content_type")]
    if isinstance(status, bool) or not isinstance(status, int) or not all(isinstance(text, str) for text in texts):
        raise wrong
    if not 200 <= status <= 299:
        raise ValueError(f"{status} tells a sender that it failed: a status lies between 200 and 299.")
    if status in (204, 205) and texts[0]:
        raise ValueError(f"An answer with status {status} has no body.")
    if not all(text.isprintable() for text in texts[1:]) or len(texts[0]) > 10_000:
        raise wrong
    return Reply(**table)


def _url(value: Any) -> str:
    text = _text(value)
    wrong = ValueError(f"'{text}' is not a URL.")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:  # half an IPv6 address, a port above 65,535
        raise wrong from None
    is_one_word = text.isprintable() and not re.search(r"\s", text)
    if not is_one_word or parts.scheme not in ("http", "https") or not re.fullmatch(r"[\w:-]+(\.[\w:-]+)*", host):
        raise wrong
    return text


def _reconcile(value: Any) -> dict[str, Any]:
    """`{url = "https://…", hourly = true}`: with a token on the way there, nobody else may listen."""
    if not isinstance(value, dict) or "url" not in value or not value.keys() <= {"url", "hourly"}:
        raise ValueError('is not {url = "https://…", hourly = true}.')
    url = _url(value["url"]).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1"):
        raise ValueError("url: a token is sent there, by https alone.")
    if parts.query or parts.fragment or parts.username is not None:
        raise ValueError("url: ends with its path.")
    return {"url": url, "hourly": _yes_or_no(value.get("hourly", False))}


_header = _matching(HEADER_NAME, "a header's name")

# Compared whole, in lower case and without parameters: anything else would match no delivery.
_content_type = _matching(re.compile(r"[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+", re.ASCII), "a content type")

# What the provider's scheme takes, if the provider allows for it.
OPTIONS: Mapping[str, Reader] = {
    "header": _header,
    "prefix": _text,
    "algorithm": _one_of("sha1", "sha256", "sha512"),
    "encoding": _one_of("hex", "base64", "base64url"),
    "secret_encoding": _one_of("text", "hex", "base64"),
    "signed": _matching(
        re.compile(r"(?=.*\{body\})(?:[^{}]|\{(?:body|timestamp|url|method)\})+", re.DOTALL), "a template with {body}"
    ),
    "separator": _filled,
    "timestamp": _matching(
        re.compile(r"header:[A-Za-z0-9-]+|entry:.+|body:[^.]+"), "'header:NAME', 'entry:PREFIX' or 'body:KEY'"
    ),
    "unit": _one_of("s", "ms", "iso"),
    "tolerance_seconds": _whole_number(1, 604_800),
}

READERS: Mapping[str, Reader] = {
    "provider": _provider,
    "dedup": _dedup,
    "dedup_window": _window,
    "same_body": _one_of("mark", "duplicate"),
    "type": _place,
    "answer": _answer,
    "items": _items,
    "format": _one_of("json", "json-lines", "form", "bytes"),
    "empty_body": _yes_or_no,
    "url": _url,
    # From before 0.2: an id decides now, whether or not it is signed.
    "trust_unsigned_id": _yes_or_no,
    "quarantine": _yes_or_no,
    "hidden_headers": _list_of(_header),
    "reconcile": _reconcile,
    "content_types": _list_of(_content_type, may_be_empty=False),
    "schema": _matching(re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"), "'package.module:ClassName'"),
    **OPTIONS,
}
