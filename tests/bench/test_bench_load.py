"""
When requests are sent, on a clock that the test moves.
"""

from __future__ import annotations

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater

from bench.harness.load import Load
from bench.harness.summary import Outcome, Record
from bench.harness.workload import Plan, Prompt, Shape, workload


@define
class SlowServer:
    """
    Answers each request after *seconds*; knows how many were under way at once.
    """

    clock: Clock
    seconds: float
    sent: list[int] = field(factory=list)
    under_way: int = 0
    most: int = 0

    async def send(self, prompt: Prompt) -> Outcome:
        self.sent.append(prompt.index)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await deferLater(self.clock, self.seconds)
        self.under_way -= 1
        return Outcome(status=200)


def prompts(count: int, rate: float | None = None) -> tuple[Prompt, ...]:
    return workload(Plan(count=count, mix=(Shape(),), request_rate=rate))


def run(clock: Clock, records: Deferred[list[Record]], seconds: float) -> list[Record]:
    clock.pump([0.01] * round(seconds / 0.01))
    done: list[list[Record]] = []
    records.addCallback(done.append)
    return done[0]


def test_closed_loop_keeps_its_concurrency() -> None:
    """
    Three lanes take seven requests in order, three at a time, and a request waits for no latency.
    """
    clock = Clock()
    server = SlowServer(clock, 1.0)
    load = Load(clock, server.send)
    records = run(clock, Deferred.fromCoroutine(load.closed_loop(prompts(7), 3)), 3.1)
    assert server.sent == list(range(7))
    assert server.most == 3
    assert all(record.latency == pytest.approx(1.0, abs=0.02) for record in records)


def test_open_loop_sends_on_arrival() -> None:
    """
    Without a limit each request goes out at its time, however slow the answers are.
    """
    clock = Clock()
    server = SlowServer(clock, 50.0)
    arriving = prompts(5, rate=1.0)
    load = Load(clock, server.send)
    records = run(clock, Deferred.fromCoroutine(load.open_loop(arriving, 5)), 100.0)
    sent = {record.prompt.index: record.sent for record in records}
    for prompt in arriving:
        assert sent[prompt.index] == pytest.approx(prompt.arrival, abs=0.02)


def test_waiting_for_a_slot_counts() -> None:
    """
    A request that arrives while all slots are taken has its wait in its latency.
    """
    clock = Clock()
    server = SlowServer(clock, 10.0)
    load = Load(clock, server.send)
    loop = Deferred.fromCoroutine(load.open_loop(prompts(2, rate=100.0), 1))
    records = run(clock, loop, 21.0)
    assert server.most == 1
    assert records[1].sent > records[1].arrived + 9.0
    assert records[1].latency == pytest.approx(20.0, abs=0.2)


def test_cancelling_stops_sending() -> None:
    """
    An interrupted load sends nothing more and says that it was interrupted.
    """
    clock = Clock()
    server = SlowServer(clock, 1.0)
    loop = Deferred.fromCoroutine(Load(clock, server.send).closed_loop(prompts(9), 2))
    ended: list[object] = []
    loop.addErrback(lambda failure: ended.append(failure.trap(CancelledError)))
    clock.advance(0.5)
    loop.cancel()
    clock.pump([1.0] * 10)
    assert server.sent == [0, 1]
    assert ended == [CancelledError]
