"""The console's files: pages that ask the API whatever they show, and hold nothing themselves.

They lie in chalicelib/postern/console as they are written; nothing builds them. All but the first are served under a
name with a digest of them all, so that a browser may keep them for ever and never mixes two releases.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from chalicelib.postern.contract.answers import Answer, error

FILES = Path(__file__).parent.parent / "console"

_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGE = "index.html"

# What the pages may do: run what comes from here and ask here. No text of a sender's can become more than text.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_FOR_EVER = "public, max-age=31536000, immutable"


@cache
def files() -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in sorted(FILES.iterdir()) if path.suffix in _KINDS}


@cache
def release() -> str:
    """A digest of all of them."""
    whole = hashlib.sha256()
    for name, text in files().items():
        whole.update(f"{name}\n{len(text)}\n{text}".encode())
    return whole.hexdigest()[:16]


def page(*, secure: bool) -> Answer:
    """The one page, which is looked for anew each time."""
    return _answer(_PAGE, files()[_PAGE].replace("{release}", release()), "no-cache", secure)


def file(of: str, name: str, *, secure: bool) -> Answer:
    """A file of the release `of`; one of another release is not there."""
    if of != release() or name not in files() or name == _PAGE:
        return error(404, "not_found", "There is nothing here.", headers={"Cache-Control": "no-store"})
    return _answer(name, files()[name], _FOR_EVER, secure)


def _answer(name: str, text: str, cache_control: str, secure: bool) -> Answer:
    headers = {**_HEADERS, "Content-Type": _KINDS[Path(name).suffix], "Cache-Control": cache_control}
    if secure:
        headers["Strict-Transport-Security"] = "max-age=31536000"
    return Answer(200, text, headers)
