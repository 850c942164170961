"""
The loop of health checks, driven by a clock.
"""

from __future__ import annotations

from twisted.logger import LogEvent, formatEvent

from sgl_droute.simulator.faults import parse_orders
from sgl_droute.simulator.settings import SimulatorSettings
from tests.memory import MemoryRouter


def started(*workers: str, simulator: SimulatorSettings | None = None) -> MemoryRouter:
    router = MemoryRouter(*workers, simulator=simulator)
    router.service.startService()
    router.settle()
    return router


def probes(router: MemoryRouter, name: str) -> int:
    journal = router.workers[name].engine.journal
    return sum(each.target == "/health" for each in journal.received)


def test_first_probe_at_once() -> None:
    """
    All workers are probed when the router starts, and a new one when it registers.
    """
    router = started("a", "b")
    assert [probes(router, name) for name in "ab"] == [1, 1]
    router.start_worker("c")
    router.ask("POST", "/add_worker?url=http://c:1")
    assert probes(router, "c") == 1
    router.wait(10)
    assert [probes(router, name) for name in "abc"] == [2, 2, 2]
    router.service.stopService()


def test_a_gone_worker_is_quarantined_for_good(logged: list[LogEvent]) -> None:
    """
    After three failed checks a worker gets nothing more, checks included, and the log says why.
    """
    router = started("a", "b")
    router.stop_worker("a")
    router.wait(20)
    assert not router.service.pool["http://a:1"].dead
    router.wait(10)
    assert router.service.pool["http://a:1"].dead
    assert any("http://a:1 quarantined after 3" in (formatEvent(event) or "") for event in logged)
    router.start_worker("a")
    router.wait(100)
    assert router.service.pool["http://a:1"].dead
    assert probes(router, "a") == 0
    assert router.ask("GET", "/health").json["healthy_workers"] == 1
    router.service.stopService()


def test_a_warming_worker_joins_by_itself() -> None:
    """
    One that answers 503 for longer than the threshold is dead, and joins when it answers 200.
    """
    router = started("a", simulator=SimulatorSettings(warmup_time=300))
    router.wait(200)
    assert router.service.pool["http://a:1"].dead
    router.wait(120)
    assert not router.service.pool["http://a:1"].dead
    router.service.stopService()


def test_a_hanging_worker_is_found() -> None:
    """
    A probe that gets no answer fails after its timeout, and the loop goes on.
    """
    router = started("a", "b")
    hang = {"rules": [{"path": "/health", "hang": True}]}
    router.workers["a"].backstage.obey(parse_orders(hang))
    router.wait(45)
    assert router.service.pool["http://a:1"].dead
    assert router.service.pool["http://a:1"].last_error == "no response within 5 s"
    assert probes(router, "b") == 5
    router.service.stopService()


def test_a_busy_worker_is_not_quarantined() -> None:
    """
    A worker that answers traffic, and its health checks too late, is alive.
    """
    router = started("a")
    hang = {"rules": [{"path": "/health", "hang": True}]}
    router.workers["a"].backstage.obey(parse_orders(hang))
    for _ in range(10):
        assert router.ask("GET", "/server_info").status == 200
        router.wait(10)
    assert not router.service.pool["http://a:1"].dead
    router.service.stopService()


def test_a_dead_backend_is_quarantined_however_it_answers() -> None:
    """
    A worker whose health check says 503 is quarantined although it answers other requests.
    """
    router = started("a")
    router.workers["a"].backstage.obey(parse_orders({"dead": True}))
    for _ in range(4):
        router.ask("GET", "/server_info")
        router.wait(10)
    worker = router.service.pool["http://a:1"]
    assert worker.dead
    assert "/health answered 503" in worker.last_error
    router.service.stopService()


def test_stopping() -> None:
    """
    Stopping cancels what is under way and leaves no call behind.
    """
    router = started("a")
    router.wait(25)
    stopped = router.service.stopService()
    results: list[object] = []
    stopped.addBoth(results.append)
    router.settle()
    assert len(results) == 1
    asked = probes(router, "a")
    router.wait(100)
    assert probes(router, "a") == asked
