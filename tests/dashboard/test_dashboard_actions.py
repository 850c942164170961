"""
What an operator does on the page: each action is asked about in a sentence, is one request of the
public API, and shows what the router said to it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.browser import Watched
from tests.dashboard.mock_router import MockRouter

Mock = Callable[..., MockRouter]
OpenPage = Callable[..., Watched]

ID = "http%3A%2F%2Fgpu-00.cluster.internal%3A30000"
URL = "http://gpu-00.cluster.internal:30000"
PATH = f"/workers/{ID}"


@pytest.mark.parametrize(
    ("action", "before", "call", "told"),
    [
        ("drain", {}, ("PUT", PATH, {"draining": True}), "is draining"),
        ("undrain", {"draining": True}, ("PUT", PATH, {"draining": False}), "gets work again"),
        ("disable", {}, ("PUT", PATH, {"disabled": True}), "is disabled"),
        ("enable", {"disabled": True}, ("PUT", PATH, {"disabled": False}), "is enabled"),
        ("quarantine", {}, ("PUT", PATH, {"is_dead": True}), "is quarantined"),
        ("recover", {"is_dead": True}, ("PUT", PATH, {"is_dead": False}), "is back"),
        ("leave", {}, ("DELETE", f"{PATH}?drain=true", None), "is removed"),
        ("remove", {}, ("DELETE", PATH, None), "is removed"),
    ],
)
def test_actions_on_a_worker(
    mock: Mock,
    open_page: OpenPage,
    pictures: Path,
    action: str,
    before: dict[str, bool],
    call: tuple[Any, ...],
    told: str,
) -> None:
    """
    Nothing is done before it is confirmed in a dialog that names the worker; then it is one
    request, and the page tells how it went.
    """
    router = mock(3, busy=0.0)
    next(iter(router.fleet.workers.values())).update(before)
    opened = open_page(router.url)
    page = opened.page
    page.locator("#grid .name").first.click()
    page.locator(f"[data-action={action}]").click()
    assert opened.text("#confirm-subject") == URL
    assert opened.text("#confirm-text").endswith(".")
    page.screenshot(path=pictures / f"ask-to-{action}.png")
    page.locator("#confirm-cancel").click()
    assert router.calls == []
    page.locator(f"[data-action={action}]").click()
    page.locator("#confirm-yes").click()
    page.wait_for_selector("#notices p")
    assert told in opened.text("#notices")
    assert router.calls == [call]
    assert page.locator("#confirm").is_hidden()


@pytest.mark.parametrize(
    ("button", "path", "told"),
    [
        ("#sleep-button", "/release_memory_occupation", "3 workers asleep."),
        ("#wake-button", "/resume_memory_occupation", "3 workers awake."),
    ],
)
def test_sleep_and_wake(mock: Mock, open_page: OpenPage, button: str, path: str, told: str) -> None:
    """
    The whole fleet is put to sleep and woken by one request each.
    """
    router = mock(3)
    opened = open_page(router.url)
    opened.page.locator(button).click()
    opened.page.locator("#confirm-yes").click()
    opened.page.wait_for_selector("#notices p")
    assert told in opened.text("#notices")
    assert router.calls == [("POST", path, None)]


def test_orders_that_some_refuse(mock: Mock, open_page: OpenPage, pictures: Path) -> None:
    """
    Where some workers do not do what all were told, the dialog stays and names them.
    """
    router = mock(3)
    router.answers["/release_memory_occupation"] = (
        200,
        {
            "results": [
                {"worker_url": "http://a:1", "status_code": 200, "body": {"success": True}},
                {"worker_url": "http://b:1", "status_code": 502, "body": {"error": "no answer"}},
                {"worker_url": "http://c:1", "status_code": 400, "body": {"raw": "<b>busy</b>"}},
            ]
        },
    )
    opened = open_page(router.url)
    opened.page.locator("#sleep-button").click()
    opened.page.locator("#confirm-yes").click()
    opened.page.wait_for_selector("#confirm-answer li")
    opened.page.screenshot(path=pictures / "some-refuse.png")
    told = opened.text("#confirm-answer")
    assert "http://a:1" not in told
    assert "http://b:1 no answer" in told
    assert "http://c:1 <b>busy</b>" in told


def test_add_a_worker(mock: Mock, open_page: OpenPage, pictures: Path) -> None:
    """
    A worker is added by its address; what the router says against it is shown, and can be mended.
    """
    router = mock(3)
    opened = open_page(router.url, refused=True)
    page = opened.page
    page.locator("#add-button").click()
    page.keyboard.press("Enter")
    assert "address" in opened.text("#confirm-answer")
    page.fill("#confirm-input", "http://169.254.169.254")
    page.keyboard.press("Enter")
    opened.until("document.getElementById('confirm-answer').textContent.includes('blocked')")
    page.screenshot(path=pictures / "add-refused.png")
    page.fill("#confirm-input", " http://new:30000 ")
    page.keyboard.press("Enter")
    page.wait_for_selector("#grid .name[title='http://new:30000']")
    bodies = [body for _, path, body in router.calls if path == "/workers"]
    assert bodies == [{"url": "http://169.254.169.254"}, {"url": "http://new:30000"}]


def test_cancel_what_waits(mock: Mock, open_page: OpenPage) -> None:
    """
    A request that waits is taken out of the line.
    """
    router = mock(3, busy=0.0)
    with router.news:
        router.fleet.wait_in_line("mesh")
    router.step()
    opened = open_page(router.url)
    id = router.fleet.waiting[0]["id"]
    opened.page.locator("#waiting-table button").first.click()
    assert opened.text("#confirm-subject") == id
    opened.page.locator("#confirm-yes").click()
    opened.page.wait_for_selector("#notices p")
    assert router.calls == [("DELETE", f"/queue/{id}", None)]
    opened.page.wait_for_selector("#waiting-none", state="visible")


def test_actions_that_are_refused(mock: Mock, open_page: OpenPage) -> None:
    """
    A worker that has gone meanwhile, and a router that does not answer, are told in the dialog.
    """
    router = mock(3, busy=0.0)
    router.answers[PATH] = (404, {"error": "No such worker", "reason": "not_found"})
    opened = open_page(router.url, refused=True)
    page = opened.page
    page.locator("#grid .name").first.click()
    page.locator("[data-action=drain]").click()
    page.locator("#confirm-yes").click()
    opened.until("document.getElementById('confirm-answer').textContent === 'No such worker'")
    page.context.set_offline(True)
    page.locator("#confirm-yes").click()
    opened.until("document.getElementById('confirm-answer').textContent.includes('not answer')")
    page.context.set_offline(False)


def test_changes_that_are_not_in_force_yet(mock: Mock, open_page: OpenPage) -> None:
    """
    An answer 202 is told with its reason.
    """
    router = mock(3, busy=0.0)
    router.answers[PATH] = (202, {"status": "pending", "reason": "still dead: no answer"})
    opened = open_page(router.url)
    opened.page.locator("#grid .name").first.click()
    opened.page.locator("[data-action=quarantine]").click()
    opened.page.locator("#confirm-yes").click()
    opened.page.wait_for_selector("#notices p")
    assert "not in force yet: still dead: no answer" in opened.text("#notices")


def test_a_key_for_actions(mock: Mock, open_page: OpenPage) -> None:
    """
    An action that needs a key asks for it, and is done with it when it is confirmed again.
    """
    router = mock(3, busy=0.0)
    opened = open_page(router.url, refused=True)
    page = opened.page
    router.key = "secret"
    page.locator("#wake-button").click()
    page.locator("#confirm-yes").click()
    page.wait_for_selector("#key-input", state="visible")
    page.fill("#key-input", "secret")
    page.keyboard.press("Enter")
    page.locator("#confirm-yes").click()
    page.wait_for_selector("#notices p")
    assert "3 workers awake." in opened.text("#notices")
