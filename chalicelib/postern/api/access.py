"""Who may ask the API: tokens that an operator makes, and the sessions that a browser gets for one.

A token is 256 bits of chance. Its SHA-256 is all that is kept: an object in a secret that only the `backend` function
may read,

    {"tokens": {"anna": {"sha256": "…", "role": "read", "made_at": "2026-11-29T12:00:00Z"}}}

A session is signed with its token's hash, so whoever can read that secret can make one: it is as good as the tokens
themselves. A session ends after twelve hours, or with its token; to log out has the browser forget it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from chalicelib.postern.contract.answers import error

SESSION_HOURS = 12

_PREFIX = "postern_"
# What follows it: 32 bytes in URL-safe base64, and the beginning of their hash, by which a mistyped or made-up token is
# known as one without asking anybody.
_TOKEN = re.compile(_PREFIX + r"([A-Za-z0-9_-]{43})([0-9a-f]{6})", re.ASCII)
TOKEN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}", re.ASCII)
_SESSION = re.compile(r"([0-9a-f]{64})\.([0-9]{10})\.([0-9a-f]{64})", re.ASCII)

# Every way of having none gets the same answer.
UNAUTHORIZED = error(
    401,
    "unauthorized",
    "This needs a valid token, or a session.",
    headers={"WWW-Authenticate": 'Bearer realm="Postern"'},
)


class Role(StrEnum):
    """`operate` may do what `read` may, and change things."""

    READ = "read"
    OPERATE = "operate"

    def may(self, needed: Role) -> bool:
        return self is Role.OPERATE or needed is Role.READ


@dataclass(frozen=True)
class Token:
    """One of the tokens that were made, by its hash."""

    name: str
    sha256: str = field(repr=False)
    role: Role
    made_at: str | None = None

    @property
    def fingerprint(self) -> str:
        """Tells tokens apart, and gives none away."""
        return self.sha256[:8]


@dataclass(frozen=True)
class Caller:
    """Who asks. `csrf`: of a session, what has to come with whatever changes something; None of a token."""

    token: Token
    ends_at: datetime | None = None
    csrf: str | None = field(default=None, repr=False)


def make_token(chance: bytes) -> str:
    """A token of 32 bytes of chance."""
    body = base64.urlsafe_b64encode(chance).rstrip(b"=").decode()
    return f"{_PREFIX}{body}{_check(body)}"


def is_token(text: str) -> bool:
    """Whether it can be one: of the right form, and with the right check."""
    found = _TOKEN.fullmatch(text)
    return found is not None and found[2] == _check(found[1])


def is_session(text: str) -> bool:
    return _SESSION.fullmatch(text) is not None


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def read_tokens(secret: Mapping[str, Any]) -> list[Token]:
    """What the secret lists. What is no token there lets nobody in, and is left out."""
    listed = secret.get("tokens")
    found = []
    for name, about in listed.items() if isinstance(listed, Mapping) else ():
        match about:
            case {"sha256": str(sha256), "role": "read" | "operate" as role} if re.fullmatch(r"[0-9a-f]{64}", sha256):
                made_at = about.get("made_at")
                found.append(Token(str(name), sha256, Role(role), made_at if isinstance(made_at, str) else None))
    return found


def caller_by_token(text: str, tokens: list[Token]) -> Caller | None:
    if not is_token(text):
        return None
    known = _same(hashed(text), tokens)
    return Caller(known) if known else None


def open_session(token: Token, now: datetime) -> tuple[str, Caller]:
    """The session as the browser keeps it, and who it is."""
    ends_at = (now + timedelta(hours=SESSION_HOURS)).replace(microsecond=0)
    text = _signed(token, int(ends_at.timestamp()))
    return text, Caller(token, ends_at, _csrf(token, text))


def caller_by_session(text: str, tokens: list[Token], now: datetime) -> Caller | None:
    """None where it is forged, over, or its token was revoked."""
    found = _SESSION.fullmatch(text)
    if found is None:
        return None
    known = next((token for token in tokens if hmac.compare_digest(_handle(token), found[1])), None)
    if known is None or not hmac.compare_digest(_signed(known, int(found[2])), text):
        return None
    ends_at = datetime.fromtimestamp(int(found[2]), now.tzinfo)
    return Caller(known, ends_at, _csrf(known, text)) if now < ends_at else None


def _same(sha256: str, tokens: list[Token]) -> Token | None:
    """All of them are compared, each in the same time."""
    found = None
    for token in tokens:
        if hmac.compare_digest(token.sha256, sha256):
            found = token
    return found


def _check(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:6]


def _handle(token: Token) -> str:
    """Which token a session is of. Not its hash, which is the key that signs."""
    return _mac(token, "postern:session-of")


def _signed(token: Token, ends: int) -> str:
    start = f"{_handle(token)}.{ends}"
    return f"{start}.{_mac(token, f'postern:session:{start}')}"


def _csrf(token: Token, session: str) -> str:
    return _mac(token, f"postern:csrf:{session}")


def _mac(token: Token, text: str) -> str:
    return hmac.new(token.sha256.encode(), text.encode(), "sha256").hexdigest()
