"""
The system's Chromium, driven by Playwright, and what a page must not do in it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from attrs import define, field

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Keeps how long each update of the page took (ms), for `Watched.updates`.
_MEASURE = """
window.updates = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) updates.push(entry.duration);
}).observe({ type: "measure" });
"""


def missing(what: str) -> None:
    """
    Skip the test for want of *what*, or fail it where everything must be there.
    """
    reason = f"the page is tested in a browser, and {what} is not installed"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def chromium() -> Iterator[Any]:
    """
    A running browser; skips without one, see `missing`.
    """
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("the package playwright")
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        missing("Chromium")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=as_root)
        try:
            yield browser
        finally:
            browser.close()


@define(eq=False)
class Watched:
    """
    A page, and what it did that it must not.

    Attributes:
        refused: Whether answers that are no 2xx are expected, which the browser reports as errors.
    """

    page: Any
    origin: str
    refused: bool = False
    errors: list[str] = field(factory=list)
    strangers: list[str] = field(factory=list)

    def watch(self) -> None:
        """
        Begin to note errors, and requests to other hosts.
        """
        self.page.add_init_script(_MEASURE)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: self._console(message))
        self.page.on("request", lambda request: self._request(request))

    def _console(self, message: Any) -> None:
        expected = self.refused and "Failed to load resource" in message.text
        if message.type in ("error", "warning") and not expected:
            self.errors.append(message.text)

    def _request(self, request: Any) -> None:
        if not request.url.startswith(self.origin + "/"):
            self.strangers.append(request.url)

    def open(self, url: str) -> None:
        """
        Go to the page at *url* and wait until the fleet is shown.
        """
        self.page.goto(url)
        self.page.wait_for_selector("main[aria-busy=false]")

    def text(self, selector: str) -> str:
        """
        What is read at *selector*.
        """
        return str(self.page.locator(selector).first.text_content()).strip()

    def until(self, expression: str, seconds: float = 15.0) -> float:
        """
        Wait until a JavaScript *expression* is true, and the seconds that it took; fails after so
        many. (Playwright's own way would need ``eval``, which the page's policy forbids.)
        """
        begun = monotonic()
        while not self.page.evaluate(expression):
            if monotonic() > begun + seconds:
                pytest.fail(f"not within {seconds} s: {expression}")
            self.page.wait_for_timeout(20)
        return monotonic() - begun

    def check(self) -> None:
        """
        Fail if anything was noted.
        """
        assert not self.errors, self.errors
        assert not self.strangers, self.strangers
