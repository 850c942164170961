"""
The loop of health checks when something in it breaks.
"""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from sgl_droute.errors import NoSockets, NotConnected
from sgl_droute.fleet.pool import Pool
from sgl_droute.fleet.worker import Probe, Worker
from sgl_droute.workers.client import Answer, Call, WorkerClient
from sgl_droute.workers.health import HealthMonitor
from tests.memory import MemoryNetwork


class Scripted(WorkerClient):
    """A client whose answers the test gives."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(MemoryNetwork(), clock, timeout=5.0)
        object.__setattr__(self, "asked", [])

    asked: list[tuple[str, Deferred[Answer]]]

    async def fetch(self, call: Call, *, limit: int, whole: bool = True) -> Answer:
        answer: Deferred[Answer] = Deferred()
        self.asked.append((call.worker, answer))
        return await answer


class Breaking(Pool):
    """A pool that cannot record what it is told of one worker."""

    def record_probe(
        self, worker: Worker, probe: Probe, *, threshold: int, readmit: int = 0
    ) -> Worker | None:
        if worker.url == "http://bad:1":
            raise ZeroDivisionError
        return super().record_probe(worker, probe, threshold=threshold, readmit=readmit)


def monitored(pool: Pool) -> tuple[Clock, Scripted, HealthMonitor]:
    clock = Clock()
    client = Scripted(clock)
    monitor = HealthMonitor(pool, client, clock, interval=10.0, threshold=3)
    return clock, client, monitor


@pytest.mark.logs_failures
def test_a_check_that_breaks_does_not_stop_the_loop(logged: list[LogEvent]) -> None:
    """
    An unforeseen error is logged, and the next round asks everybody again.
    """
    pool = Breaking()
    pool.add("http://bad:1")
    pool.add("http://good:1")
    clock, client, monitor = monitored(pool)
    monitor.startService()
    for _ in range(3):
        assert [worker for worker, _ in client.asked] == ["http://bad:1", "http://good:1"]
        for _, answer in client.asked:
            answer.callback(Answer(200, b""))
        client.asked.clear()
        clock.advance(10.0)
    assert pool["http://good:1"].proven
    broken = [event for event in logged if "log_failure" in event]
    assert len(broken) == 3
    monitor.stopService()


def test_a_fault_of_the_router_is_no_evidence() -> None:
    """
    A check that the router itself could not make counts neither for nor against the worker.
    """
    pool = Pool()
    worker = pool.add("http://w:1")
    _, client, monitor = monitored(pool)
    for _ in range(5):
        monitor.check(worker)
        client.asked.pop()[1].errback(NoSockets("The router cannot open connections"))
    assert pool["http://w:1"] == worker


def test_one_check_at_a_time() -> None:
    """
    A worker under check is not asked once more; its successor at the same URL is.
    """
    pool = Pool()
    worker = pool.add("http://w:1")
    _, client, monitor = monitored(pool)
    monitor.check(worker)
    monitor.check(worker)
    assert len(client.asked) == 1
    pool.remove("http://w:1")
    monitor.check(pool.add("http://w:1"))
    assert len(client.asked) == 2
    client.asked[0][1].errback(NotConnected("http://w:1", "connection refused"))
    assert pool["http://w:1"].failures == 0
    client.asked[1][1].callback(Answer(200, b""))
    assert pool["http://w:1"].proven


def test_stopping_waits_for_the_round() -> None:
    """
    Stopping cancels the checks under way and is done when they have ended.
    """
    pool = Pool()
    pool.add("http://w:1")
    _, client, monitor = monitored(pool)
    monitor.startService()
    assert len(client.asked) == 1
    done: list[object] = []
    monitor.stopService().addCallback(done.append)
    assert len(done) == 1
    assert pool["http://w:1"].failures == 0
