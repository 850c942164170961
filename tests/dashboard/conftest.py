"""
The browser, pages in it, and where their pictures are kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.dashboard.browser import Watched, chromium
from tests.dashboard.mock_router import MockRouter

OpenPage = Callable[..., Watched]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for the tests of a module: while it runs, no test may run a loop of asyncio."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots are kept: ``PAGE_PICTURES``, or pytest's temporary folder."""
    kept = os.environ.get("PAGE_PICTURES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("dashboard")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Opens a page of its own; at the test's end none may have noted an error."""
    opened: list[tuple[Any, Watched]] = []

    def open_page(
        url: str,
        *,
        width: int = 1280,
        height: int = 900,
        colours: str = "light",
        refused: bool = False,
        wait: bool = True,
        **options: Any,
    ) -> Watched:
        size = {"width": width, "height": height}
        context = browser.new_context(viewport=size, color_scheme=colours, **options)
        parts = urlsplit(url)
        watched = Watched(context.new_page(), f"{parts.scheme}://{parts.netloc}", refused)
        opened.append((context, watched))
        watched.watch()
        if wait:
            watched.open(url)
        else:
            watched.page.goto(url)
        return watched

    yield open_page
    for context, _ in opened:
        context.close()
    for _, watched in opened:
        watched.check()


@pytest.fixture
def mock() -> Iterator[Callable[..., MockRouter]]:
    """Starts servers that stand for the router."""
    started: list[MockRouter] = []

    def start(workers: int, **options: Any) -> MockRouter:
        router = MockRouter(workers, **options)
        router.begin()
        started.append(router)
        return router

    yield start
    for router in started:
        router.end()
