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
    counts = {
        "dead_workers": 0,
        "sleeping_workers": 0,
        "stale_workers": 0,
        "total_workers": 2,
        "weights_epoch": 0,
    }
    assert healthy.json == {"status": "healthy", "healthy_workers": 2, **counts}
    for worker in router.service.pool:
        router.service.pool.record_probe(worker, BAD, threshold=1)
    dead = router.ask("GET", "/health")
    assert dead.status == 503
    counts["dead_workers"] = 2
    assert dead.json == {"status": "unhealthy", "healthy_workers": 0, **counts}
    assert router.ask("GET", "/health_generate").json == dead.json


def test_health_of_a_fleet_that_nobody_may_use() -> None:
    """
    A router whose workers are well and all taken out can serve nobody, and says so.
    """
    router = MemoryRouter("a")
    router.ask("PUT", "/workers/http%3A%2F%2Fa%3A1", json={"disabled": True})
    answer = router.ask("GET", "/health")
    assert answer.status == 503
    assert (answer.json["status"], answer.json["healthy_workers"]) == ("unhealthy", 1)


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
                "weights_epoch": 0,
                "is_stale": False,
            },
            {
                "url": "http://b:1",
                "active_requests": 0,
                "is_dead": False,
                "consecutive_failures": 1,
                "weights_epoch": 0,
                "is_stale": False,
            },
        ]
    }


def own_paths() -> dict[str, set[str]]:
    paths: dict[str, set[str]] = {}
    forwarding = set()
    for rule in RouterAPI.routes.url_map.iter_rules():
        paths.setdefault(rule.rule, set()).update(rule.methods or ())
        if rule.methods is None and not rule.endpoint.startswith("405 "):
            forwarding.add(rule.rule)
    return {path: methods for path, methods in paths.items() if path not in forwarding}


def below(path: str) -> str:
    """
    A path that matches the rule *path*.
    """
    return path.replace("<id>", "1").replace("<path:", "").replace(">", "")


def test_the_route_table_is_complete() -> None:
    """
    The API is there, path by path.
    """
    post, get, delete = {"POST"}, {"GET", "HEAD"}, {"DELETE"}
    assert {path: methods - {"OPTIONS"} for path, methods in own_paths().items()} == {
        "/v1/images/generations": post,
        "/v1/images/edits": post,
        "/v1/images/<id>/content": get,
        "/v1/videos": get | post,
        "/v1/videos/<id>": get | delete,
        "/v1/videos/<id>/content": get,
        "/v1/meshes": get | post,
        "/v1/meshes/<id>": get | delete,
        "/v1/meshes/<id>/content": get,
        "/rollout/generate": post,
        "/v1/diffusion/generate": post,
        "/vertex_generate": post,
        "/v1/models": get,
        "/openapi.json": get,
        "/v1/models/<path:name>": get,
        "/v1/list_loras": get,
        "/v1/set_lora": post,
        "/v1/merge_lora_weights": post,
        "/v1/unmerge_lora_weights": post,
        "/release_memory_occupation": post,
        "/resume_memory_occupation": post,
        "/get_weights_checksum": post,
        "/update_weights_from_tensor": post,
        "/update_weights_from_tensor_checker": post,
        "/queue": get,
        "/queue/<id>": {"DELETE"},
        "/weights": get,
        "/weights/verify": post,
        "/weights/resolve": post,
        "/rollouts/<path:id>": get | {"DELETE"},
        "/workers": get | post,
        "/workers/<path:worker_id>": get | delete | {"PUT"},
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
        "/metrics": get,
        "/engine_metrics": get,
        "/events": get,
        "/config": get,
        "/reload": post,
        "/dashboard": get,
        "/dashboard/": get,
        "/dashboard/<path:name>": get,
        "/dashboard/stream": get,
    }


@pytest.mark.parametrize("path", sorted(own_paths()))
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
def test_other_methods_are_405(path: str, method: str) -> None:
    """
    A path of the router is never forwarded: another method is 405 and says which are allowed.
    """
    allowed = own_paths()[path]
    if method in allowed:
        return
    router = MemoryRouter("a")
    answer = router.ask(method, below(path))
    assert answer.status == 405
    assert set(answer.headers.getRawHeaders("allow", [""])[0].split(", ")) == allowed
    assert method == "HEAD" or answer.error["reason"] == "method_not_allowed"
    assert router.workers["a"].engine.journal.requests == 0


@pytest.mark.parametrize("path", ["/health", "/list_workers", "/workers", "/v1/models"])
def test_head(path: str) -> None:
    """
    HEAD answers as GET does, without the body.
    """
    router = MemoryRouter("a")
    answer = router.ask("HEAD", path)
    assert answer.status == 200
    assert answer.body == b""
