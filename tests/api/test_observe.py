"""
What the router tells of itself, and the bounds of its route table.
"""

from __future__ import annotations

import pytest

from sgl_droute.api.routes import RouterAPI
from sgl_droute.fleet.worker import Probe
from tests.memory import MemoryRouter

BAD = Probe(healthy=False, reason="/health answered 503")


def test_health() -> None:
    """
    200 while a worker can be used, else 503; the counts say how many.
    """
    router = MemoryRouter("a", "b")
    healthy = router.ask("GET", "/health")
    assert healthy.status == 200
    assert healthy.json == {"status": "healthy", "healthy_workers": 2, "total_workers": 2}
    for worker in router.service.pool:
        router.service.pool.record_probe(worker, BAD, threshold=1)
    dead = router.ask("GET", "/health")
    assert dead.status == 503
    assert dead.json == {"status": "unhealthy", "healthy_workers": 0, "total_workers": 2}
    assert router.ask("GET", "/health_generate").json == dead.json


def test_health_of_an_empty_pool() -> None:
    """
    A router without workers is alive and unhealthy.
    """
    router = MemoryRouter()
    assert router.ask("GET", "/health").status == 503
    assert router.ask("GET", "/liveness").status == 200


def test_health_workers() -> None:
    """
    Every worker is told with its load and health.
    """
    router = MemoryRouter("a", "b")
    router.service.pool.record_probe(router.service.pool["http://b:1"], BAD, threshold=3)
    router.begin("POST", "/generate", json={"prompt": "x"})
    assert router.ask("GET", "/health_workers").json == {
        "workers": [
            {
                "url": "http://a:1",
                "active_requests": 1,
                "is_dead": False,
                "consecutive_failures": 0,
            },
            {
                "url": "http://b:1",
                "active_requests": 0,
                "is_dead": False,
                "consecutive_failures": 1,
            },
        ]
    }


def own_paths() -> dict[str, set[str]]:
    rules = RouterAPI.routes.url_map.iter_rules()
    return {rule.rule: set(rule.methods) for rule in rules if rule.methods}


def test_the_route_table_is_complete() -> None:
    """
    The early API is there, path by path.
    """
    post, get = {"POST"}, {"GET", "HEAD"}
    assert own_paths() == {
        "/generate": post,
        "/generate_video": post,
        "/update_weights_from_disk": post,
        "/add_worker": post,
        "/remove_worker": post,
        "/list_workers": get,
        "/liveness": get,
        "/health": get,
        "/health_generate": get,
        "/health_workers": get,
    }


@pytest.mark.parametrize("path", sorted(own_paths()))
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_405(path: str, method: str) -> None:
    """
    A path of the router is never forwarded: another method is 405 and says which are allowed.
    """
    router = MemoryRouter("a")
    allowed = own_paths()[path]
    if method in allowed and method != "HEAD":
        return
    answer = router.ask(method, path)
    if method in allowed:
        assert answer.status == 200
        assert answer.body == b""
    else:
        assert answer.status == 405
        assert set(answer.headers.getRawHeaders("allow", [""])[0].split(", ")) == allowed
        assert method == "HEAD" or "error" in answer.json
    assert router.workers["a"].engine.journal.requests == 0
