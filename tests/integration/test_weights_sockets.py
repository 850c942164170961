"""
Updates of weights over real sockets: answers that are cut, workers that end or hang in them, and
callers that hang up.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults

from sgl_droute.simulator.journal import Call
from tests.integration.faultproxy import FaultProxy, faulty
from tests.integration.faults import CONNECT, Fault
from tests.integration.fleet import IMAGE, Fleet, Station, standing
from tests.integration.sockets import connect, eventually, running_router
from tests.memory import Reply

MODEL = "z-image-turbo"
WORK = "/v1/images/generations"
UPDATE = "/update_weights_from_disk"
CHECKSUM = "/get_weights_checksum"
CHECKPOINT = {"model_path": "checkpoints/1"}
# An update takes a worker a fifth of a second.
SPEED = 20.0
CLIENTS = 4


def updates(station: Station) -> list[Call]:
    """
    The updates that its GPU took.
    """
    calls = station.worker.journal.calls
    return [each for each in calls if each.path == UPDATE and each.started is not None]


@define(eq=False)
class Wired:
    """
    A fleet under traffic; the way to its last worker can be broken.

    Attributes:
        answers: To the clients, in order.
        cut: How many of them may have been lost with a worker (count).
        lives: What the journals of earlier lives of the last worker tell of generations.
    """

    fleet: Fleet
    proxy: FaultProxy
    answers: list[Reply] = field(factory=list)
    cut: int = 0
    lives: list[Any] = field(factory=list)

    @property
    def last(self) -> Station:
        return self.fleet.stations[-1]

    def update(self, query: str = "") -> Deferred[Reply]:
        """
        The answer to an update that has begun at the last worker, when it fires.
        """
        return Deferred.fromCoroutine(self.fleet.ask("POST", UPDATE + query, json=CHECKPOINT))

    async def stop(self) -> None:
        """
        End the last worker as a kill does: its connections are reset, and later ones refused.
        """
        await self.proxy.arm(Fault.REFUSED, CONNECT)
        self.proxy.strike(Fault.RESET)
        self.lives += self.last.worker.journal.generations
        await self.last.stop()

    async def start(self) -> None:
        """
        Start it again; it knows nothing of before.
        """
        self.last.start()
        await self.proxy.heal()

    async def caught_up(self) -> None:
        """
        Return once the last worker has made something with new weights.
        """
        await eventually(lambda: any(_new(each) for each in self.last.worker.journal.generations))

    def shown(self) -> list[str]:
        return [worker.state for worker in self.fleet.router.service.pool]

    def prove(self) -> None:
        """
        Every answer is a good one, but for those that were cut, and tells the epoch of the weights
        that it was made with.
        """
        journals = [each.worker.journal.generations for each in self.fleet.stations]
        made = {
            id: each for journal in (*journals, self.lives) for each in journal for id in each.ids
        }
        weights = defaultdict(set)
        well = [answer for answer in self.answers if answer.status == 200]
        lost = [(answer.status, answer.body) for answer in self.answers if answer.status != 200]
        assert {status for status, _ in lost} <= {502}, lost
        assert len(lost) <= self.cut, lost
        for answer in well:
            [epoch] = answer.headers.getRawHeaders("x-weights-epoch", [])
            generation = made[answer.json["id"]]
            assert epoch == str(int(_new(generation)))
            weights[epoch].add(generation.weights)
        assert [len(weights[epoch]) for epoch in "01"] == [1, 1]


def _new(generation: Any) -> bool:
    return set(generation.sources.values()) == {CHECKPOINT["model_path"]}


@asynccontextmanager
async def wired(count: int = 2, **options: Any) -> AsyncIterator[Wired]:
    async with AsyncExitStack() as stack:
        stations = await stack.enter_async_context(standing(*[MODEL] * count, speed=SPEED))
        proxy = await stack.enter_async_context(faulty(stations[-1].port))
        urls = [*(station.url for station in stations[:-1]), proxy.url]
        settings = {
            "health_check_interval": 0.1,
            "health_check_failure_threshold": 1_000_000,
            **options,
        }
        router = await stack.enter_async_context(running_router(*urls, **settings))
        fleet = Fleet(stations, router)
        await fleet.ready()
        wired = Wired(fleet, proxy)
        async with _traffic(wired):
            await eventually(lambda: all(each.worker.journal.generations for each in stations))
            yield wired
        wired.prove()


@asynccontextmanager
async def _traffic(wired: Wired) -> AsyncIterator[None]:
    ending = False

    async def client() -> None:
        while not ending:
            wired.answers.append(await wired.fleet.ask("POST", WORK, json=IMAGE))

    running = [Deferred.fromCoroutine(client()) for _ in range(CLIENTS)]
    try:
        yield
    finally:
        ending = True
        await gatherResults(running)


def check_outcome(wired: Wired, answer: Reply) -> None:
    """
    All but the last worker took the update; that one is stale.
    """
    assert answer.status == 207
    *well, lost = [each["status_code"] for each in answer.json["results"]]
    assert (set(well), lost) == ({200}, 502)
    assert (answer.json["epoch"], answer.json["consistent"]) == (1, False)
    assert answer.json["stale"] == [wired.proxy.url]


@pytest.mark.parametrize("mode", ["broadcast", "fenced", "rolling"])
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_cut(mode: str) -> None:
    """
    A worker whose answer is cut off has taken the update or has not: it gets no work before its
    checksums have shown what it has. The others work on, and no client sees any of it.
    """
    async with wired() as fleet:
        asking = fleet.update(f"?strict=true&mode={mode}")
        await eventually(lambda: bool(updates(fleet.last)))
        fleet.proxy.strike(Fault.RESET)
        check_outcome(fleet, await asking)
        await fleet.caught_up()
        journal = fleet.last.worker.journal
        first = updates(fleet.last)[0]
        assert first.started is not None
        work = min(each.started for each in journal.generations if each.started > first.started)
        asked = [each for each in journal.calls if each.path == CHECKSUM and each.ended is not None]
        assert any(first.started < each.arrived < work for each in asked)


@pytest.mark.parametrize("at_once", [False, True], ids=["away for a while", "back at once"])
@pytest_twisted.ensureDeferred
async def test_a_worker_that_ends_in_its_update(at_once: bool) -> None:
    """
    A worker that is killed in the middle of its update is stale; its next process takes the update
    before it works.
    """
    async with wired() as fleet:
        asking = fleet.update("?strict=true")
        await eventually(lambda: bool(updates(fleet.last)))
        await fleet.stop()
        if at_once:
            await fleet.start()
        check_outcome(fleet, await asking)
        if not at_once:
            done = len(fleet.answers)
            await eventually(lambda: len(fleet.answers) > done + CLIENTS)
            assert fleet.shown() == ["ready", "stale"]
            await fleet.start()
        await fleet.caught_up()
        assert all(_new(each) for each in fleet.last.worker.journal.generations)
        assert len(updates(fleet.last)) == 1


@pytest.mark.parametrize("work", [False, True], ids=["not done", "done"])
@pytest_twisted.ensureDeferred
async def test_a_worker_that_hangs(work: bool) -> None:
    """
    A worker that does not answer its update within ``--timeout`` is stale from then on, and takes
    it once more before it works; until the timeout it gets nothing, and the others work.
    """
    async with wired(timeout=4.0) as fleet:
        fleet.last.order(rules=[{"path": UPDATE, "times": 1, "hang": True, "work": work}])
        asking = fleet.update("?strict=true")
        await eventually(lambda: fleet.shown() == ["ready", "updating"])
        done = len(fleet.answers)
        await eventually(lambda: len(fleet.answers) > done + CLIENTS)
        assert not asking.called
        check_outcome(fleet, await asking)
        await fleet.caught_up()
        assert len(updates(fleet.last)) == 1


@pytest.mark.parametrize("mode", ["broadcast", "fenced", "rolling"])
@pytest_twisted.ensureDeferred
async def test_a_caller_that_hangs_up(mode: str) -> None:
    """
    An update whose caller has gone runs to its end: every worker takes it, once.
    """
    async with wired(3) as fleet:
        body = json.dumps(CHECKPOINT).encode()
        caller = await connect(fleet.fleet.router.port)
        head = (
            f"POST {UPDATE}?mode={mode} HTTP/1.1\r\nHost: r\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        caller.write(head.encode() + body)
        stations = fleet.fleet.stations
        await eventually(lambda: any(updates(station) for station in stations))
        caller.transport.abortConnection()
        await fleet.caught_up()
        await eventually(lambda: fleet.shown() == ["ready"] * 3)
        assert [len(updates(station)) for station in stations] == [1, 1, 1]
        [update] = (await fleet.fleet.ask("GET", "/weights")).json["history"]
        assert list(update["results"].values()) == ["took"] * 3
        assert update["note"] is None
        done = len(fleet.answers)
        await eventually(lambda: len(fleet.answers) > done + CLIENTS)


@pytest.mark.parametrize("mode", ["broadcast", "fenced"])
@pytest_twisted.ensureDeferred
async def test_requests_in_an_update(mode: str) -> None:
    """
    Requests that come while all workers are updated wait in line and are served after it, each by a
    worker that has the new weights.
    """
    async with wired() as fleet:
        for station in fleet.fleet.stations:
            station.order(rules=[{"path": UPDATE, "times": 1, "busy": 0.3}])
        asking = fleet.update(f"?strict=true&mode={mode}")
        await eventually(lambda: fleet.shown() == ["updating", "updating"])
        while len((await fleet.fleet.ask("GET", "/queue")).json["waiting"]) < CLIENTS:
            assert not asking.called
        done = len(fleet.answers)
        assert (await asking).status == 200
        await eventually(lambda: len(fleet.answers) >= done + CLIENTS)
        assert {
            answer.headers.getRawHeaders("x-weights-epoch", [""])[0]
            for answer in fleet.answers[done:]
        } == {"1"}


@pytest_twisted.ensureDeferred
async def test_a_restart_that_no_health_check_saw() -> None:
    """
    A worker that was restarted between two health checks shows by a connection that it refused: it
    takes the update anew before it works. What it refused is done elsewhere.
    """
    async with wired(health_check_interval=2.0, routing_algorithm="round-robin") as fleet:
        assert (await fleet.update("?strict=true")).status == 200
        await fleet.caught_up()
        pool = fleet.fleet.router.service.pool
        checks = fleet.last.probes
        await eventually(lambda: fleet.last.probes > checks)
        fleet.cut = CLIENTS
        await fleet.stop()
        await eventually(lambda: not pool[fleet.proxy.url].eligible, 1.5)
        await fleet.start()
        await fleet.caught_up()
        assert all(_new(each) for each in fleet.last.worker.journal.generations)
        assert len(updates(fleet.last)) == 1
