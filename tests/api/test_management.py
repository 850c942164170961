"""
Registering workers and fleet-wide calls.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.logger import LogEvent

from sgl_droute.fleet.worker import Probe
from sgl_droute.simulator.faults import parse_orders
from tests.memory import MemoryRouter


@pytest.mark.parametrize(
    "request_parts",
    [
        {"path": "?url=http://b:1"},
        {"path": "?worker_url=http://b:1/"},
        {"path": "?url=http%3A%2F%2FB%3A1"},
        {"path": "", "json": {"url": "http://b:1"}},
        {"path": "", "json": {"worker_url": "http://b:1"}},
    ],
)
def test_add_worker(request_parts: dict[str, Any]) -> None:
    """
    A worker is named in the query or in JSON; the answer lists all, in order of registration.
    """
    router = MemoryRouter("a", "b", registered=("a",))
    path = request_parts.pop("path")
    added = router.ask("POST", f"/add_worker{path}", **request_parts)
    assert added.status == 200
    both = ["http://a:1", "http://b:1"]
    assert added.json == {"status": "success", "worker_urls": both}
    assert router.ask("GET", "/list_workers").json == {"urls": both}


def test_adding_twice_makes_one() -> None:
    """
    A known worker gives the same answer and no second entry.
    """
    router = MemoryRouter("a")
    for _ in range(2):
        answer = router.ask("POST", "/add_worker?url=http://a:1")
        assert answer.json == {"status": "success", "worker_urls": ["http://a:1"]}


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "Name the worker"),
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "url is missing"),
        (b'{"url": 5}', "url must be a string"),
        (b'{"url": "http://b:1", "weight": 2}', "Unknown fields: weight"),
        (b'{"url": "http://169.254.169.254"}', "blocked"),
        (b'{"url": "b:1"}', "must begin with http"),
        (b"[" * 60_000, "not JSON"),
        (b'"' + b"a" * 70_000 + b'"', "larger than"),
    ],
)
@pytest.mark.parametrize("path", ["/add_worker", "/remove_worker"])
def test_bad_input(path: str, body: bytes, sentence: str) -> None:
    """
    What names no worker is refused with a sentence, and changes nothing.
    """
    router = MemoryRouter("a")
    answer = router.ask("POST", path, data=body)
    assert answer.status in (400, 413)
    assert sentence in answer.json["error"]
    assert router.ask("GET", "/list_workers").json == {"urls": ["http://a:1"]}


def test_remove_worker() -> None:
    """
    A removed worker is gone at once; one that is not there is 404.
    """
    router = MemoryRouter("a", "b")
    removed = router.ask("POST", "/remove_worker?url=http://a:1/")
    assert removed.json == {"status": "success", "worker_urls": ["http://b:1"]}
    again = router.ask("POST", "/remove_worker", json={"worker_url": "http://a:1"})
    assert again.status == 404
    assert again.error == {"error": "Worker http://a:1 is not registered", "reason": "not_found"}


def test_removed_while_answering() -> None:
    """
    The answer that a removed worker is giving ends in peace.
    """
    router = MemoryRouter("a")
    client = router.begin("POST", "/generate", json={"prompt": "x"})
    router.ask("POST", "/remove_worker?url=http://a:1")
    router.until(lambda: client.reply is not None)
    assert client.reply is not None
    assert client.reply.status == 200


def test_a_restarted_worker_registers_again() -> None:
    """
    A quarantined worker that registers again is checked at once and returns when it answers.
    """
    router = MemoryRouter("a")
    router.service.startService()
    router.settle()
    router.stop_worker("a")
    router.wait(30)
    assert router.service.pool["http://a:1"].dead
    router.start_worker("a")
    router.wait(60)
    assert router.service.pool["http://a:1"].dead
    router.ask("POST", "/add_worker?url=http://a:1")
    assert not router.service.pool["http://a:1"].dead
    router.service.stopService()


def test_registering_again_does_not_wait_for_a_hanging_check() -> None:
    """
    A check of the process that was there before does not keep its successor waiting.
    """
    router = MemoryRouter("a")
    router.service.startService()
    router.settle()
    hang = parse_orders({"rules": [{"path": "/health", "hang": True}]})
    router.workers["a"].backstage.obey(hang)
    router.wait(45)
    assert router.service.pool["http://a:1"].dead
    router.ask("POST", "/add_worker?url=http://a:1")
    router.start_worker("a")
    router.ask("POST", "/add_worker?url=http://a:1")
    assert not router.service.pool["http://a:1"].dead
    router.service.stopService()


def test_registering_again_is_no_failed_check() -> None:
    """
    A trainer that repeats its registration while an engine loads does not hasten its quarantine.
    """
    router = MemoryRouter(registered=())
    router.service.startService()
    for _ in range(10):
        router.ask("POST", "/add_worker?url=http://loading:1")
    [worker] = router.service.pool
    assert (worker.failures, worker.dead) == (1, False)
    router.service.stopService()


def test_a_restarted_worker_that_still_loads() -> None:
    """
    One that registers again before it can answer joins by itself once it does.
    """
    router = MemoryRouter("a")
    router.service.startService()
    router.settle()
    router.stop_worker("a")
    router.wait(30)
    router.ask("POST", "/add_worker?url=http://a:1")
    router.wait(100)
    assert router.service.pool["http://a:1"].dead
    router.start_worker("a")
    router.wait(10)
    assert not router.service.pool["http://a:1"].dead
    router.service.stopService()


def test_update_weights_everywhere() -> None:
    """
    The body goes as it came to every worker that is not quarantined; answers come back in order.
    """
    router = MemoryRouter("a", "b", "gone", "dead")
    router.stop_worker("gone")
    pool = router.service.pool
    pool.record_probe(pool["http://dead:1"], Probe(healthy=False), threshold=1)
    body = b'{"model_path":  "Qwen/Qwen-Image", "flush_cache": true}'
    client = router.begin(
        "POST",
        "/update_weights_from_disk",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    router.until(lambda: client.reply is not None)
    assert client.reply is not None
    assert client.reply.status == 200
    a, b, gone = client.reply.json["results"]
    assert a["worker_url"] == "http://a:1"
    assert a["status_code"] == 200
    assert a["body"]["success"] is True
    assert b == {**a, "worker_url": "http://b:1"}
    assert gone == {
        "worker_url": "http://gone:1",
        "status_code": 502,
        "body": {"error": "Worker request failed: http://gone:1: connection refused"},
    }


def test_update_weights_answers_that_are_no_json() -> None:
    """
    A body that is not JSON comes back as its text.
    """
    router = MemoryRouter("a")
    client = router.begin("POST", "/update_weights_from_disk", data=b"no json")
    router.until(lambda: client.reply is not None)
    assert client.reply is not None
    assert client.reply.json["results"] == [
        {
            "worker_url": "http://a:1",
            "status_code": 500,
            "body": {"raw": "Internal Server Error"},
        }
    ]


@pytest.mark.parametrize("workers", [(), ("dead",)])
def test_update_weights_nowhere(workers: tuple[str, ...]) -> None:
    """
    Without anybody to send to it is 503, in an empty pool too.
    """
    router = MemoryRouter(*workers)
    for worker in router.service.pool:
        router.service.pool.record_probe(worker, Probe(healthy=False), threshold=1)
    answer = router.ask("POST", "/update_weights_from_disk", json={})
    assert answer.status == 503
    assert answer.error == {
        "error": "No healthy workers available in the pool",
        "reason": "no_worker",
    }


def test_an_update_outlives_its_caller(logged: list[LogEvent]) -> None:
    """
    Once begun, an update reaches every worker although its caller hangs up; its result is logged.
    """
    router = MemoryRouter("a", "b")
    busy = [router.begin("POST", "/generate", json={"prompt": "x"}) for _ in range(2)]
    caller = router.begin("POST", "/update_weights_from_disk", json={"model_path": "new"})
    caller.hang_up()
    router.settle()
    router.until(lambda: all(client.reply is not None for client in busy))
    router.until(lambda: any("statuses" in event for event in logged))
    statuses = next(event["statuses"] for event in logged if "statuses" in event)
    assert set(statuses) == {"http://a:1", "http://b:1"}
    for worker in router.workers.values():
        targets = [each.target for each in worker.engine.journal.received]
        assert targets.count("/update_weights_from_disk") == 1


def test_an_update_when_the_router_stops(logged: list[LogEvent]) -> None:
    """
    A stopping router ends its updates: the caller is told, and the log says who had answered.
    """
    router = MemoryRouter("a", "busy")
    router.service.startService()
    router.workers["busy"].backstage.obey(parse_orders({"rules": [{"hang": True}]}))
    caller = router.begin("POST", "/update_weights_from_disk", json={"model_path": "new"})
    router.wait(60)
    router.service.stopService()
    router.settle()
    assert caller.reply is not None
    assert caller.reply.status == 503
    assert caller.reply.error == {"error": "The router is stopping", "reason": "stopping"}
    [told] = [event for event in logged if "statuses" in event]
    assert told["statuses"] == {"http://a:1": 200}
    assert told["asked"] == 2


def test_results_are_json() -> None:
    """
    The results can be read by any JSON parser.
    """
    router = MemoryRouter("a")
    client = router.begin("POST", "/update_weights_from_disk", json={"model_path": "p"})
    router.until(lambda: client.reply is not None)
    assert client.reply is not None
    assert json.loads(client.reply.body)["results"][0]["worker_url"] == "http://a:1"
