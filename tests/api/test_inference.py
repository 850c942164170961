"""
Requests on their way to one worker and back.
"""

from __future__ import annotations

import pytest

from sgl_droute.fleet.worker import Probe
from sgl_droute.simulator.settings import SimulatorSettings
from tests.memory import MemoryRouter

IMAGE = {"prompt": "a red fox", "size": "64x64"}


def received(router: MemoryRouter, name: str) -> list[tuple[str, str]]:
    return [(each.method, each.target) for each in router.workers[name].engine.journal.received]


def sent_headers(router: MemoryRouter, name: str) -> dict[str, str]:
    entry = router.workers[name].engine.journal.received[-1]
    return {key.lower(): value for key, value in entry.headers}


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/generate", "/v1/images/generations"),
        ("/generate?a=1&b=%2F", "/v1/images/generations?a=1&b=%2F"),
        ("/generate_video?x=y", "/v1/videos?x=y"),
    ],
)
def test_short_names(path: str, target: str) -> None:
    """
    ``/generate`` and ``/generate_video`` are the workers' routes, the query kept.
    """
    router = MemoryRouter("a", simulator=SimulatorSettings(model="cosmos3"))
    client = router.begin("POST", path, json=IMAGE)
    router.until(lambda: client.reply is not None)
    assert client.reply is not None
    assert client.reply.status == 200, client.reply.body
    assert received(router, "a") == [("POST", target)]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "QUERY"])
def test_everything_else_goes_to_a_worker(method: str) -> None:
    """
    Any method and path that is not the router's own reaches a worker as it is.
    """
    router = MemoryRouter("a")
    answer = router.ask(method, "/v1/unknown/a%2Fb//c?q=%20", data=b"body")
    assert received(router, "a") == [(method, "/v1/unknown/a%2Fb//c?q=%20")]
    assert router.workers["a"].engine.journal.received[-1].body_size == 4
    assert answer.status in (404, 405)


def test_root_goes_to_a_worker() -> None:
    """
    The root is the workers' too.
    """
    router = MemoryRouter("a")
    assert router.ask("GET", "/").status == 404
    assert received(router, "a") == [("GET", "/")]


def test_loads_are_equal() -> None:
    """
    Concurrent requests spread over the fleet, and every count returns to 0.
    """
    router = MemoryRouter("a", "b", "c")
    clients = [router.begin("POST", "/generate", json=IMAGE) for _ in range(12)]
    assert set(router.loads.values()) == {4}
    router.until(lambda: all(client.reply is not None for client in clients))
    assert set(router.loads.values()) == {0}
    assert [len(received(router, name)) for name in "abc"] == [4, 4, 4]


def test_the_next_worker_is_tried() -> None:
    """
    A worker that cannot be connected to costs nothing but the attempt.
    """
    router = MemoryRouter("a", "b")
    router.stop_worker("a")
    for _ in range(4):
        assert router.ask("GET", "/server_info").status == 200
    assert len(received(router, "b")) == 4


def test_nobody_can_be_reached() -> None:
    """
    When no worker can be connected to, the last reason is told as 502.
    """
    router = MemoryRouter("a", "b")
    router.stop_worker("a")
    router.stop_worker("b")
    answer = router.ask("GET", "/server_info")
    assert answer.status == 502
    assert answer.json["error"].startswith("Worker request failed: http://")
    assert "connection refused" in answer.json["error"]
    assert len(router.network.unreached) == 2
    assert set(router.loads.values()) == {0}


@pytest.mark.parametrize("path", ["/generate", "/rollout/generate", "/anything"])
def test_nobody_is_there(path: str) -> None:
    """
    An empty pool and a pool of quarantined workers answer 503, each with its sentence.
    """
    nowhere = {"reason": "no_worker", "queue_position": None, "retry_after": None}
    router = MemoryRouter()
    empty = router.ask("POST", path)
    assert empty.status == 503
    assert empty.error == {"error": "No workers registered in the pool", **nowhere}
    worker = router.service.pool.add("http://dead:1")
    router.service.pool.record_probe(worker, Probe(healthy=False), threshold=1)
    dead = router.ask("POST", path)
    assert dead.status == 503
    assert dead.error == {"error": "No healthy workers available in the pool", **nowhere}


def test_timeout_is_504_and_not_repeated() -> None:
    """
    A worker that does not answer in time is 504; the request may be at work and is sent once.
    """
    router = MemoryRouter("a", "b", timeout=5)
    client = router.begin("POST", "/generate", json={"prompt": "twelve seconds of work"})
    router.wait(5)
    assert client.reply is not None
    assert client.reply.status == 504
    assert client.reply.json["error"].endswith("no response within 5 s")
    assert len(received(router, "a")) + len(received(router, "b")) == 1
    assert set(router.loads.values()) == {0}


def test_waiting_for_a_connection() -> None:
    """
    Above ``max_connections`` requests wait first come, first served, outside their timeout.
    """
    router = MemoryRouter("a", "b", max_connections=2, timeout=60)
    clients = [router.begin("POST", "/generate", json=IMAGE) for _ in range(8)]
    assert sum(router.loads.values()) == 2
    order: list[int] = []

    def done() -> bool:
        for number, client in enumerate(clients):
            if client.reply is not None and number not in order:
                order.append(number)
        return len(order) == len(clients)

    router.until(done)
    assert order == sorted(order)
    assert {client.reply.status for client in clients if client.reply} == {200}


def test_leaving_the_line() -> None:
    """
    A waiting request leaves the line with its client and never reaches a worker.
    """
    router = MemoryRouter("a", max_connections=1)
    first, second, third = (
        router.begin("POST", f"/generate?n={number}", json=IMAGE) for number in range(3)
    )
    second.hang_up()
    router.settle()
    router.until(lambda: third.reply is not None)
    assert first.reply is not None
    assert [target for _, target in received(router, "a")] == [
        "/v1/images/generations?n=0",
        "/v1/images/generations?n=2",
    ]


def test_a_long_line_when_the_last_worker_leaves() -> None:
    """
    When nobody is left, all who wait are told so, and a new worker finds a working router.
    """
    router = MemoryRouter("a", max_connections=1)
    clients = [router.begin("POST", "/generate", json=IMAGE) for _ in range(300)]
    router.service.pool.remove("http://a:1")
    router.until(lambda: all(client.reply is not None for client in clients))
    statuses = [client.reply.status for client in clients if client.reply]
    assert statuses == [200] + [503] * 299
    router.ask("POST", "/add_worker?url=http://a:1")
    assert router.ask("GET", "/server_info").status == 200


@pytest.mark.parametrize("name", ["[::1]", "worker_1", "ab--cd", "10.0.0.1"])
def test_names_that_workers_have(name: str) -> None:
    """
    Addresses of both kinds, and names that are none for IDNA, are workers like any other.
    """
    router = MemoryRouter(name)
    assert router.ask("GET", "/server_info").status == 200
    assert sent_headers(router, name)["host"] == f"{name}:1"


def test_client_gone_before_the_answer() -> None:
    """
    A client that hangs up frees its slot at once.
    """
    router = MemoryRouter("a", max_connections=1)
    client = router.begin("POST", "/generate", json=IMAGE)
    assert router.loads == {"http://a:1": 1}
    client.hang_up()
    router.settle()
    assert router.loads == {"http://a:1": 0}
    assert router.ask("GET", "/server_info").status == 200


def test_headers_for_the_worker() -> None:
    """
    The worker's Host, the forwarding headers and a request id are set; hop-by-hop ones stop here.
    """
    router = MemoryRouter("a")
    answer = router.ask(
        "GET",
        "/server_info",
        headers={
            "Connection": "x-secret, close",
            "X-Secret": "1",
            "Keep-Alive": "5",
            "TE": "trailers",
            "Upgrade": "h2c",
            "Proxy-Authorization": "Basic eA==",
            "X-Forwarded-For": "10.0.0.9",
            "X-Request-Id": "mine",
            "Authorization": "Bearer key",
        },
    )
    headers = sent_headers(router, "a")
    assert headers["host"] == "a:1"
    assert headers["x-forwarded-for"] == "10.0.0.9, 127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == "router"
    assert headers["x-request-id"] == "mine"
    assert headers["authorization"] == "Bearer key"
    dropped = {"x-secret", "keep-alive", "te", "upgrade", "proxy-authorization"}
    assert not dropped & set(headers)
    assert answer.headers.getRawHeaders("x-request-id") == ["mine"]


def test_forwarding_headers_of_a_proxy_in_front_are_kept() -> None:
    """
    What a proxy in front said of scheme and host is not overwritten.
    """
    router = MemoryRouter("a")
    given = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "images.example"}
    router.ask("GET", "/server_info", headers=given)
    headers = sent_headers(router, "a")
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-host"] == "images.example"


def test_a_request_id_is_made() -> None:
    """
    A request without an id gets one; worker and client see the same.
    """
    router = MemoryRouter("a")
    answer = router.ask("GET", "/server_info")
    made = answer.headers.getRawHeaders("x-request-id")
    assert made is not None
    assert len(made[0]) == 32
    assert sent_headers(router, "a")["x-request-id"] == made[0]


def test_redirects_point_to_the_router() -> None:
    """
    A Location that names the worker is put right, to the address that the client used.
    """
    router = MemoryRouter("a")
    answer = router.ask("GET", "/server_info/", allow_redirects=False)
    assert answer.status == 307
    assert answer.headers.getRawHeaders("location") == ["http://router/server_info"]
    behind_tls = router.ask(
        "GET",
        "/server_info/",
        allow_redirects=False,
        headers={"X-Forwarded-Proto": "https", "X-Forwarded-Host": "images.example"},
    )
    assert behind_tls.headers.getRawHeaders("location") == ["https://images.example/server_info"]


def test_answers_are_the_workers_own() -> None:
    """
    Status, headers and body of a refusal come from the worker as they are.
    """
    router = MemoryRouter("a")
    answer = router.ask("POST", "/generate", data=b"{")
    assert answer.status == 422
    assert answer.headers.getRawHeaders("server") == ["uvicorn"]
    assert answer.json["detail"][0]["type"] == "json_invalid"


def test_head_goes_through() -> None:
    """
    HEAD reaches the worker as HEAD.
    """
    router = MemoryRouter("a")
    answer = router.ask("HEAD", "/server_info")
    assert answer.status == 405
    assert answer.headers.getRawHeaders("allow") == ["GET"]
    assert answer.body == b""
    assert received(router, "a") == [("HEAD", "/server_info")]


def test_a_worker_that_is_gone_is_tried_once() -> None:
    """
    A worker that could not be reached is passed over by the next requests, until it answers again.
    """
    router = MemoryRouter("b", registered=("a", "b"), health_check_interval=1e6)
    router.wait(1)
    before = len(router.network.unreached)
    for _ in range(3):
        assert router.ask("GET", "/liveness2").status == 404
    tried = [uri for uri in router.network.unreached[before:] if b"liveness2" in uri]
    assert len(tried) <= 1
