"""
Keys through the whole router: which route needs which, what workers see, and what limits do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sgl_droute.api.entry.access import Access
from sgl_droute.api.routes import RouterAPI
from tests.api.line import IMAGE, IMAGES, lined
from tests.api.test_keyfiles import entry
from tests.memory import MemoryRouter, Reply

USER, OPERATOR = "sk-user", "sk-operator"
PAGE = {"/dashboard", "/dashboard/", "/dashboard/<path:name>"}
OPEN = {"/health", "/health_generate", "/liveness", *PAGE}
GENERATIONS = (
    "/generate",
    "/generate_video",
    "/v1/images/",
    "/v1/videos",
    "/v1/meshes",
    "/rollout/generate",
    "/v1/diffusion/generate",
    "/vertex_generate",
    "/v1/actions/",
    "/v1/realtime_video/generate",
    "/v1/models",
    "/openapi.json",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "api").write_text(entry("web", USER))
    (tmp_path / "admin").write_text(entry("ops", OPERATOR))
    return tmp_path


def locked(folder: Path, **options: Any) -> MemoryRouter:
    """A router with the keys in *folder*, at work."""
    api, admin = str(folder / "api"), str(folder / "admin")
    return lined("a", "b", api_keys=api, admin_keys=admin, **options)


def ask(router: MemoryRouter, method: str, path: str, key: str = "", **kwargs: Any) -> Reply:
    headers = {**kwargs.pop("headers", {}), **({"X-Api-Key": key} if key else {})}
    return router.ask(method, path, headers=headers, **kwargs)


def routes() -> list[tuple[str, str]]:
    """Method and path of each route, with something in the place of what varies."""
    found = []
    for rule in RouterAPI.routes.url_map.iter_rules():
        if rule.methods:
            path = rule.rule
            for variable in ("<any:path>", "<path:name>", "<path:worker_id>", "<path:id>"):
                path = path.replace(variable, "x")
            path = path.replace("<id>", "x")
            found += [(method, path) for method in rule.methods]
    return sorted(set(found))


def test_every_route_has_its_access() -> None:
    """
    Without a key only health and the page's files are to be had; keys for generations open what
    makes and reads generations; all else is for operators, what the router does not know included.
    """
    access = RouterAPI.access
    for rule in RouterAPI.routes.url_map.iter_rules():
        expected = Access.ADMIN
        if rule.methods == {"OPTIONS"} or rule.rule in OPEN:
            expected = Access.OPEN
        elif rule.rule.startswith(GENERATIONS):
            expected = Access.INFERENCE
        assert access[rule.endpoint] is expected, rule


def test_no_route_is_open_by_mistake(folder: Path) -> None:
    """
    Whoever brings no key gets 401 on each route that needs one, whatever the method, also on paths
    that nobody knows; a key for generations gets 403 where one for the fleet is needed.
    """
    router = locked(folder)
    open_paths = {path.replace("<path:name>", "x") for path in OPEN}
    paths = {path for _, path in routes()} - open_paths | {"/nowhere", "/v1", "//health"}
    for path in sorted(paths):
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "BREW"):
            reply = ask(router, method, path)
            assert reply.status == 401, (method, path)
            assert reply.json["reason"] == "unauthorized"
            if not path.startswith(GENERATIONS):
                reply = ask(router, method, path, USER)
                assert (reply.status, reply.json["reason"]) == (403, "forbidden"), (method, path)
    assert all(not worker.journal.received for worker in router.workers.values())
    for path in ("/health", "/health_generate", "/liveness"):
        assert ask(router, "GET", path).status == 200


@pytest.mark.parametrize("up", ["../..", "%2e%2e/%2E%2e", "..%2F..", "x/../../..", "..%5c.."])
def test_no_path_goes_up(up: str, folder: Path) -> None:
    """
    A key for generations gets no path to a worker that a proxy on the way could take for one of an
    operator's.
    """
    router = locked(folder)
    path = f"/v1/actions/{up}/update_weights_from_disk"
    reply = ask(router, "POST", path, USER, json={"model_path": "x"})
    assert (reply.status, reply.json["reason"]) == (400, "bad_request")
    assert reply.json["error"] == "A path below /v1/actions/ must not go up"


@pytest.mark.parametrize("path", ["/events", "/dashboard/stream"])
def test_a_key_that_is_gone_hears_nothing_more(path: str, folder: Path) -> None:
    """
    A stream that was opened with a key for the fleet ends when that is taken out of its file.
    """
    router = locked(folder)
    stream = router.begin("GET", path, headers={"X-Api-Key": OPERATOR})
    router.wait(60.0)
    assert stream.reply is None
    (folder / "admin").write_text(entry("other", "sk-another"))
    router.wait(20.0)
    assert stream.reply is not None
    assert stream.reply.status == 200


def test_workers_see_no_keys(folder: Path) -> None:
    """
    A generation with a key gets through, as the client of that name, and its key does not.
    """
    router = locked(folder)
    headers = {"Authorization": f"Bearer {USER}", "X-Api-Key": USER}
    client = router.begin("POST", IMAGES, json=IMAGE, headers=headers)
    shown = ask(router, "GET", "/queue", OPERATOR).json["running"]
    assert [job["client"] for job in shown] == ["key:web"]
    router.until(lambda: client.reply is not None)
    assert client.reply is not None
    assert client.reply.status == 200
    received = [each for worker in router.workers.values() for each in worker.journal.received]
    sent = [each for each in received if each.target == IMAGES]
    assert len(sent) == 1
    assert USER not in repr(sent[0].headers)
    assert {"authorization", "x-api-key"}.isdisjoint(name.lower() for name, _ in sent[0].headers)


def test_requests_under_way(folder: Path) -> None:
    """
    A key with ``in_flight=1`` has its second request refused until the first one has ended, or its
    client has hung up; another key is not touched by that.
    """
    (folder / "api").write_text(entry("web", USER).strip() + " in_flight=1\n" + entry("b", "sk-b"))
    router = locked(folder)
    key, other = {"X-Api-Key": USER}, {"X-Api-Key": "sk-b"}
    first = router.begin("POST", IMAGES, json=IMAGE, headers=key)
    second = router.ask("POST", IMAGES, json=IMAGE, headers=key)
    assert (second.status, second.json["reason"]) == (429, "too_many_in_flight")
    assert second.headers.getRawHeaders("Retry-After") == ["1"]
    third = router.begin("POST", IMAGES, json=IMAGE, headers=other)
    assert third.reply is None
    first.hang_up()
    router.settle()
    again = router.begin("POST", IMAGES, json=IMAGE, headers=key)
    router.until(lambda: again.reply is not None)
    assert again.reply is not None
    assert again.reply.status == 200


def test_shares_of_the_line(folder: Path) -> None:
    """
    With fair turns a key with ``share=3`` has three jobs served for one of another key.
    """
    (folder / "api").write_text(entry("big", USER).strip() + " share=3\n" + entry("small", "sk-s"))
    router = lined("a", api_keys=str(folder / "api"), fair=True)
    begin = [("sk-s", 4), (USER, 6)]
    router.begin("POST", IMAGES, json=IMAGE, headers={"X-Api-Key": "sk-s"})
    for key, count in begin:
        for number in range(count):
            body = {**IMAGE, "prompt": f"{key} {number}"}
            router.begin("POST", IMAGES, json=body, headers={"X-Api-Key": key})
    router.wait(120)
    made = [each.prompt.partition(" ")[0] for each in router.workers["a"].journal.generations]
    first = made[1:9]
    assert first.count(USER) == 6
    assert first.count("sk-s") == 2


def test_pages_of_other_sites_may_not_manage() -> None:
    """
    What a browser says comes from another site is refused on routes for the fleet, without keys
    too, and let in elsewhere.
    """
    router = lined("a")
    headers = {"Sec-Fetch-Site": "cross-site"}
    refused = router.ask("POST", "/add_worker?url=http://b:1", headers=headers)
    assert (refused.status, refused.json["reason"]) == (403, "forbidden")
    assert len(router.service.pool) == 1
    assert router.ask("GET", "/health", headers=headers).status == 200
    made = router.begin("POST", IMAGES, json=IMAGE, headers=headers)
    router.until(lambda: made.reply is not None)
    assert made.reply is not None
    assert made.reply.status == 200


def test_new_keys_hold_without_a_restart(folder: Path) -> None:
    """
    A key that is taken out of its file opens nothing a second later, and a new one does.
    """
    router = locked(folder)
    assert ask(router, "GET", "/v1/models", USER).status == 200
    (folder / "api").write_text(entry("web", "sk-new"))
    router.wait(2)
    assert ask(router, "GET", "/v1/models", USER).status == 401
    assert ask(router, "GET", "/v1/models", "sk-new").status == 200
