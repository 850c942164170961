"""
The files of the live page as browsers get them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from treq.testing import StubTreq
from twisted.web.resource import Resource

from sgl_droute.api.page.page_files import page_files
from tests.memory import MemoryRouter

TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@pytest.fixture(scope="module")
def router() -> MemoryRouter:
    return MemoryRouter()


def _links(text: str) -> Iterator[str]:
    yield from re.findall(r'(?:href|src)="([^"#][^"]*)"', text)


def test_the_page(router: MemoryRouter) -> None:
    """
    The page is HTML, may load and be shown by this router alone, and names no file but its own.
    """
    page = router.ask("GET", "/dashboard")
    assert page.status == 200
    assert page.headers.getRawHeaders("content-type") == [TYPES["html"]]
    [policy] = page.headers.getRawHeaders("content-security-policy", [])
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == "'none'"
    assert {rules[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
    links = list(_links(page.body.decode()))
    assert len(links) >= 5
    assert {link.removeprefix("dashboard/") for link in links} <= set(page_files())


@pytest.mark.parametrize("name", sorted(page_files()))
def test_each_file(router: MemoryRouter, name: str) -> None:
    """
    Each file has its type, is asked for anew each time, and is not sent to those who have it.
    """
    file = router.ask("GET", f"/dashboard/{name}")
    assert file.status == 200
    assert file.body == page_files()[name].body
    told = {key: file.headers.getRawHeaders(key) for key in ("content-type", "cache-control")}
    assert told == {
        "content-type": [TYPES[name.rpartition(".")[2]]],
        "cache-control": ["no-cache"],
    }
    assert file.headers.getRawHeaders("x-content-type-options") == ["nosniff"]
    assert file.headers.getRawHeaders("referrer-policy") == ["same-origin"]
    [tag] = file.headers.getRawHeaders("etag", [])
    again = router.ask("GET", f"/dashboard/{name}", headers={"If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")
    assert again.headers.getRawHeaders("content-type") is None
    other = router.ask("GET", f"/dashboard/{name}", headers={"If-None-Match": '"older"'})
    assert other.status == 200


def test_files_name_only_others_of_them() -> None:
    """
    Every module that a script imports, and every file that a style sheet names, is in the package.
    """
    named = set()
    for name, file in page_files().items():
        if name.endswith((".js", ".css")):
            text = file.body.decode()
            named |= set(re.findall(r'from "\./([^"]+)"', text))
            named |= set(re.findall(r'url\("?([^")]+)', text))
            assert not re.search(r"https?://(?!10\.0\.0\.5|www\.w3\.org)", text), name
    assert "store.js" in named
    assert named <= set(page_files())


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/none.js",
        "/dashboard/..%2Fservice.py",
        "/dashboard/%2E%2E",
        "/dashboard/..%5Cservice.py",
        "/dashboard/__init__.py",
        "/dashboard/app.js%00",
        "/dashboard/APP.JS",
    ],
)
def test_what_is_no_file_of_the_page(router: MemoryRouter, path: str) -> None:
    """
    Nothing but the page's own files is served: no file of the package, wherever a path points.
    """
    assert router.ask("GET", path).status in (400, 404)


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/app.js"])
def test_other_methods(router: MemoryRouter, path: str) -> None:
    """
    HEAD is answered with the head alone, and what would change the files is refused.
    """
    head, whole = router.ask("HEAD", path), router.ask("GET", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers.getRawHeaders("etag") == whole.headers.getRawHeaders("etag")
    refused = router.ask("POST", path, data=b"{}")
    assert refused.status == 405
    assert refused.headers.getRawHeaders("allow") == ["GET, HEAD, OPTIONS"]


def test_the_page_as_a_folder(router: MemoryRouter) -> None:
    """
    With a slash behind it the page's own links would lead astray: the browser is sent on.
    """
    sent_on = router.ask("GET", "/dashboard/", allow_redirects=False)
    assert sent_on.status == 308
    assert sent_on.headers.getRawHeaders("location") == ["../dashboard"]
    assert router.ask("GET", "/dashboard/").status == 200


def test_below_a_mount(router: MemoryRouter) -> None:
    """
    The page works at any path of another site: all its links are relative to where it is.
    """
    root, fleets = Resource(), Resource()
    root.putChild(b"fleets", fleets)
    fleets.putChild(b"a", router.service.resource())
    front: Any = StubTreq(root)
    codes: list[int] = []
    for path in ("dashboard", "dashboard/app.js"):
        pending = front.get(f"http://router/fleets/a/{path}")
        front.flush()
        pending.addCallback(lambda response: codes.append(response.code))
    assert codes == [200, 200]
    links = list(_links(router.ask("GET", "/dashboard").body.decode()))
    assert not [link for link in links if link.startswith(("/", "http:", "https:"))]
