"""Where an event's dedup key and type stand in a delivery: `header:NAME` or `body:dotted.path`, or several of them."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from chalicelib.postern.contract.deliveries import Headers

# A key is an index entry; ids of real providers are far shorter than this.
_MAX_KEY_LENGTH = 200
_MAX_TYPE_LENGTH = 200
_MAX_REQUEST_ID_LENGTH = 128

UNKNOWN_TYPE = "unknown"

# A token of RFC 9110, section 5.6.2.
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)


@dataclass(frozen=True)
class Locator:
    """One place to look at; `find` gives the text there, or None where nothing usable is. Where it `has` something, the
    place's own name is the text.
    """

    where: Literal["header", "body", "has"]
    path: str

    @classmethod
    def parse(cls, text: str) -> Locator:
        """Raises ValueError with a sentence when `text` is not a place."""
        where, _, path = text.partition(":")
        if where == "header" and HEADER_NAME.fullmatch(path):
            return cls("header", path)
        if where in ("body", "has") and path and all(path.split(".")):
            return cls("body" if where == "body" else "has", path)
        raise ValueError(f"'{text}' is not 'header:NAME' or 'body:dotted.path'.")

    def find(self, headers: Headers, payload: Any) -> str | None:
        value = headers.get(self.path) if self.where == "header" else at(payload, self.path)
        if self.where == "has":
            return None if value is None else self.path.rpartition(".")[2]
        if isinstance(value, bool) or not isinstance(value, str | int):
            return None
        return str(value) or None


@dataclass(frozen=True)
class Place:
    """Where a name comes from: the texts of its parts, joined with ':'; each from the first locator that finds one.

    A path's step that is a number counts into a list. `with_bytes`: a hash of the body is a part of it, too.
    """

    parts: tuple[tuple[Locator, ...], ...]
    with_bytes: bool = False

    @classmethod
    def parse(cls, text: str | list[str]) -> Place:
        """`WHERE:PATH`, or `WHERE:PATH or WHERE:PATH`, or a list of these, which may end in `bytes`.

        Raises ValueError with a sentence.
        """
        parts = [text] if isinstance(text, str) else text
        with_bytes = len(parts) > 1 and parts[-1] == "bytes"
        named = parts[:-1] if with_bytes else parts
        return cls(
            tuple(tuple(Locator.parse(choice) for choice in part.split(" or ")) for part in named),
            with_bytes=with_bytes,
        )

    @property
    def in_headers(self) -> bool:
        """Whether any of it may stand in a header."""
        return any(locator.where == "header" for part in self.parts for locator in part)

    def find(self, headers: Headers, payload: Any) -> str | None:
        """None where none of its parts is there; a part alone that is missing leaves a gap."""
        return self.find_where(headers, payload)[0]

    def find_where(self, headers: Headers, payload: Any) -> tuple[str | None, bool]:
        """The name, and whether any of it came from a header."""
        found = [_first(part, headers, payload) for part in self.parts]
        name = ":".join(text for text, _ in found)
        return (name if name.strip(":") else None), any(text and in_header for text, in_header in found)

    def lacks_a_part(self, headers: Headers, payload: Any) -> bool:
        return any(not _first(part, headers, payload)[0] for part in self.parts)


def _first(choices: tuple[Locator, ...], headers: Headers, payload: Any) -> tuple[str, bool]:
    for choice in choices:
        if text := choice.find(headers, payload):
            return text, choice.where == "header"
    return "", False


def at(payload: Any, path: str) -> Any:
    """What stands at a dotted path of a JSON value; None where nothing does. An empty path is the value itself."""
    for step in path.split(".") if path else ():
        if isinstance(payload, Mapping):
            payload = payload.get(step)
        elif isinstance(payload, list) and step.isdecimal() and len(step) < 6 and int(step) < len(payload):
            payload = payload[int(step)]
        else:
            return None
    return payload


def dedup_key(found: str | None, body: bytes) -> str:
    """The key as it is stored: the provider's id, or else a hash of the bytes, so that every event has one."""
    if found is None:
        return f"sha256:{hashlib.sha256(body).hexdigest()}"
    if len(found) > _MAX_KEY_LENGTH or not _storable(found):
        return f"id-sha256:{hashlib.sha256(found.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return found


# What we write before hashes and claims of our own.
_OURS = ("sha256:", "id-sha256:", "duplicate:")


def own_name(found: str) -> str:
    """A sender's name for something, told apart from the names that are ours."""
    return f"id:{found}" if found.startswith(_OURS) else found


def event_type(found: str | None) -> str:
    """The type as it is stored; one that cannot be a name counts as unknown."""
    if found is None or len(found) > _MAX_TYPE_LENGTH or not _storable(found):
        return UNKNOWN_TYPE
    return found


def request_id(found: object) -> str | None:
    """API Gateway's id of a request as it is logged and stored; None for what cannot be one."""
    if not isinstance(found, str) or not 0 < len(found) <= _MAX_REQUEST_ID_LENGTH or not _storable(found):
        return None
    return found


def fingerprint(source: str, secret: str) -> str:
    """Tells a source's secrets apart and gives none away: 32 bits of a HMAC that is keyed with the secret.

    With it, a guess at a weak secret can be checked, one in four thousand million by chance; a secret that can be
    guessed is none.
    """
    return hmac.digest(secret.encode("utf-8", "surrogatepass"), f"postern:{source}".encode(), "sha256")[:4].hex()


def _storable(text: str) -> bool:
    return text.isprintable()
