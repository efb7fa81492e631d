"""The console's files: how they are served, and that the first view stays small."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from uuid import UUID

import pytest

from chalicelib.postern.api import console
from cli.main import _parser

# Of the first view, compressed.
_MOST_BYTES = 60_000
# Versions and licenses are in the console's LICENSES.md.
_VENDORED = {
    "preact.js": "bdcbd9abdf2c77c5c45326eab42191e949222d479d0d5f69467387a77040cb55",
    "hooks.js": "e862ab2973aa6455eaa0f77c5d832d2157d6be59a17c8ba546550a575b58c6b4",
    "htm.js": "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4",
}


def imported(name: str) -> set[str]:
    """A module with all that it imports before it runs."""
    found = {name}
    for other in re.findall(r'from ?"\./([\w.]+)"', console.files()[name]):
        found |= imported(other) if other not in found else set()
    return found


def test_the_first_view_is_small() -> None:
    first = {"index.html", "style.css", "icon.svg"} | imported("main.js") | imported("overview.js")
    assert sum(len(gzip.compress(console.files()[name].encode(), 9)) for name in first) <= _MOST_BYTES


@pytest.mark.parametrize("name", _VENDORED)
def test_what_others_wrote_is_as_they_published_it(name: str) -> None:
    published = console.files()[name].replace('from"./preact.js"', 'from"preact"')
    assert hashlib.sha256(published.encode()).hexdigest() == _VENDORED[name]
    assert _VENDORED[name] in (console.FILES / "LICENSES.md").read_text()


def test_each_module_that_is_imported_is_there() -> None:
    for name, text in console.files().items():
        for other in re.findall(r'(?:from|import\()\s*"\./([\w.]+)"', text):
            assert other in console.files(), (name, other)


def test_the_page_is_looked_for_anew_and_its_files_are_kept() -> None:
    page = console.page(secure=True)
    assert page.headers["Cache-Control"] == "no-cache"
    names = re.findall(rf"console/{console.release()}/([\w.]+)", str(page.body))
    assert {"main.js", "style.css"} <= {*names}
    for name in names:
        answer = console.file(console.release(), name, secure=True)
        assert (answer.status, "immutable" in answer.headers["Cache-Control"]) == (200, True)


def test_nothing_runs_that_is_not_ours() -> None:
    for answer in (console.page(secure=True), console.file(console.release(), "main.js", secure=True)):
        policy = dict(each.strip().partition(" ")[::2] for each in answer.headers["Content-Security-Policy"].split(";"))
        assert (policy["default-src"], policy["script-src"], policy["frame-ancestors"]) == (
            "'none'",
            "'self'",
            "'none'",
        )
        assert "unsafe" not in json.dumps(policy)
        assert answer.headers["Strict-Transport-Security"]
    assert "Strict-Transport-Security" not in console.page(secure=False).headers
    page = str(console.page(secure=True).body)
    assert not re.search(r"<script(?! type=\"module\" src=)|<style| on\w+=| style=", page)


def test_each_command_that_it_names_is_one() -> None:
    named = {
        command
        for name, text in console.files().items()
        if name not in _VENDORED
        for command in re.findall(r"(?:<code>|`)postern ([^<`]+)", text)
    }
    assert len(named) > 6
    for command in named:
        written = command.replace("${at}", "").replace("${id}", str(UUID(int=0)))
        parsed = _parser().parse_args(re.sub(r"\$\{\w+\}", "x", written).lower().split())
        assert parsed.run, command


@pytest.mark.parametrize(
    ("release", "name"),
    [("0" * 16, "main.js"), (console.release(), "index.html"), (console.release(), "../api/console.py"),
     (console.release(), "%2e%2e"), (console.release(), "LICENSES.md"), (console.release(), "")],
)  # fmt: skip
def test_another_file_is_not_there(release: str, name: str) -> None:
    answer = console.file(release, name, secure=True)
    assert (answer.status, answer.headers["Cache-Control"]) == (404, "no-store")


def test_no_page_makes_markup_of_texts() -> None:
    for name, text in console.files().items():
        if name.endswith(".js") and name not in _VENDORED:
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), (
                name
            )
