"""A browser, as a person has one before them: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

# As root it runs without its sandbox, and it calls nobody.
_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]

# Other tests run at the same time.
_PATIENCE_MILLISECONDS = 20_000
expect.set_options(timeout=_PATIENCE_MILLISECONDS)


def program() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found:
        return found
    why = "There is no Chromium (Debian: apt install chromium)."
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=_OPTIONS)
        yield browser
        browser.close()


def page_of(browser: Browser, wrong: list[str], **settings: Any) -> Page:
    """A page whose own errors, and what its policy refused, are added to `wrong`."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}, **settings).new_page()
    page.set_default_timeout(_PATIENCE_MILLISECONDS)
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on(
        "console",
        lambda said: wrong.append(f"said: {said.text}") if "Content Security" in said.text else None,
    )
    return page
