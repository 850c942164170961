"""
The page of a router with keys, in a real browser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.dashboard.browser import Watched
from tests.dashboard.live_router import LiveRouter, live_router
from tests.integration.commands import free_port

OpenPage = Callable[..., Watched]

ADMIN = "sk-for-the-fleet"
CLIENT = "sk-for-generations"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRouter]:
    """A router without workers that wants keys for everything."""
    folder = tmp_path_factory.mktemp("locked")
    for name, key in (("admin", ADMIN), ("api", CLIENT)):
        _write_key(folder / f"{name}.keys", name, key)
    options = ("--admin-keys", "admin.keys", "--api-keys", "api.keys")
    with live_router(folder, *options, key=ADMIN, up="/liveness") as found:
        yield found


def _write_key(file: Path, name: str, key: str) -> None:
    file.write_text(f"{name} sha256:{sha256(key.encode()).hexdigest()}\n")


def _give(opened: Watched, key: str) -> None:
    opened.page.wait_for_selector("#key-input", state="visible")
    opened.page.fill("#key-input", key)
    opened.page.keyboard.press("Enter")


def test_the_page_with_a_key(locked: LiveRouter, open_page: OpenPage) -> None:
    """
    The page comes without a key and shows nothing of the fleet before it has one for it; then it
    shows and does all, keeps the key over a reload, and forgets it when it is told to.
    """
    opened = open_page(locked.page, wait=False, refused=True)
    page = opened.page
    reason = "document.querySelector('#key [role=alert]').textContent"
    opened.until(f"{reason}.includes('needs a key')")
    _give(opened, "sk-of-nobody")
    opened.until(f"{reason}.includes('not known')")
    _give(opened, CLIENT)
    opened.until(f"{reason}.includes('Key api is for generations')")
    assert page.get_attribute("main", "aria-busy") == "true"
    _give(opened, ADMIN)
    page.wait_for_selector("main[aria-busy=false]")
    url = f"http://127.0.0.1:{free_port()}"
    page.locator("#add-button").click()
    page.fill("#confirm-input", url)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#grid .name[title='{url}']")
    assert locked.send("GET", "/list_workers")["urls"] == [url]
    page.reload()
    page.wait_for_selector("main[aria-busy=false]")
    page.locator("#key-button").click()
    page.get_by_role("button", name="Forget the key").click()
    page.wait_for_selector("#key-input", state="visible")
    assert page.evaluate("[sessionStorage.length, localStorage.length]") == [0, 0]
    assert ADMIN not in page.content()
