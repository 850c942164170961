"""
A router between two counting workers and a faulty way to each, and lines of a table to try on it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from sgl_droute.workers.gate import Gate
from tests.integration.belongings import Belongings
from tests.integration.counting_worker import (
    CHUNKED,
    LARGE,
    SIZES,
    SMALL,
    UNTIL_CLOSE,
    CountingWorker,
    counting_worker,
)
from tests.integration.faultproxy import FaultProxy, faulty
from tests.integration.faults import Fault, Moment
from tests.integration.outcomes import Outcome, outcome
from tests.integration.sockets import (
    Connection,
    Router,
    connect,
    eventually,
    reactor,
    running_router,
)
from tests.integration.stalls import watched_stalls

# The router's limits here (seconds): short, but not so short that a busy machine meets them.
CONNECTING, TIMEOUT, IDLE = 0.8, 1.2, 0.9
# How much later than that a busy machine may be.
SLACK = 4.0

MEASURED = (SMALL, LARGE, CHUNKED)
ANY = (*MEASURED, UNTIL_CLOSE)
UPLOADED = 6_000_000
# More cells at once would themselves keep the reactor busy for as long as the limits.
_AT_ONCE = 8
# Requests until each worker must have had one.
_CHANCES = 50
# How often a cell is run if the machine stands still each time.
_TRIES = 10


@frozen
class Cell:
    """
    One line of a table.

    Attributes:
        sees: Status of a whole answer, or "cut": a connection that is reset before its answer is
            whole. "502 or cut" where it depends on whether the head came alone.
        done: How often workers do the request (count).
        after: Seconds until the client knows; not less, and not much more.
        answers: The targets for which this holds.
    """

    moment: Moment
    fault: Fault
    sees: str
    done: int
    after: float = 0.0
    answers: Sequence[bytes] = (SMALL,)


@define(eq=False)
class Bench:
    """
    A router, two counting workers, and a faulty way to each.
    """

    router: Router
    workers: list[CountingWorker]
    proxies: list[FaultProxy]
    _numbers: Any = field(factory=itertools.count)

    @property
    def next(self) -> FaultProxy:
        """The way to the worker whose turn it is, once each has had one."""
        return min(self.proxies, key=lambda proxy: int(proxy.ids[-1].split(b"-")[1]))

    async def begin(self, target: bytes, body: int = 4) -> tuple[bytes, Connection]:
        """
        A request under way: its id, and its client.
        """
        id = b"cell-%d" % next(self._numbers)
        client = await connect(self.router.port)
        client.write(request(target, id, body))
        return id, client

    async def ask(self, target: bytes = SMALL, body: int = 4) -> tuple[bytes, Outcome, float]:
        """
        A request's id, what its client saw of the answer, and after how many seconds.
        """
        started = reactor.seconds()
        id, client = await self.begin(target, body)
        await client.until(lambda: client.closed is not None or whole(client.received), 10)
        taken = reactor.seconds() - started
        seen = outcome(client.received)
        if not seen.whole:
            assert client.reset, f"{seen} closed in order"
        client.transport.abortConnection()
        await client.until_closed()
        return id, seen, taken

    async def warm(self) -> None:
        """
        Leave an idle connection to each worker. A machine that is too busy to make one in time
        gets another chance.
        """
        for _ in range(_CHANCES):
            _, seen, _ = await self.ask()
            assert str(seen) == "200", f"warming up: {seen}"
            if all(proxy.ids for proxy in self.proxies):
                return
            await deferLater(reactor, 0.1)
        raise AssertionError("one of the workers gets nothing")

    async def part(self) -> None:
        """
        Leave no idle connection.
        """
        for proxy in self.proxies:
            for link in proxy.links:
                link.tell("loseConnection")
        await eventually(lambda: not any(proxy.links for proxy in self.proxies))

    def done(self, id: bytes) -> int:
        """
        How often that request was done.
        """
        return sum(worker.executed[id] for worker in self.workers)

    def sent(self, id: bytes) -> int:
        """
        How often that request was sent to a worker.
        """
        return sum(proxy.ids.count(id) for proxy in self.proxies)

    async def at_rest(self) -> None:
        """
        Return once no request is in flight and every broken connection is closed.
        """
        links = [proxy.links for proxy in self.proxies]
        await self.router.at_rest()
        await eventually(lambda: not any(link.broken for each in links for link in each))
        running = self.router.service.turns.scheduler.floor.running
        assert all(each.abandoned for each in running.values()), f"still open: {running}"


def whole(received: bytes) -> bool:
    """
    Whether an answer is whole; it is not read before it may be.
    """
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    may_be = body.endswith(b"0\r\n\r\n") if length is None else len(body) >= int(length[1])
    return may_be and outcome(received).whole


def request(target: bytes, id: bytes, body: int) -> bytes:
    head = b"POST %s HTTP/1.1\r\nHost: r\r\nX-Request-Id: %s\r\n" % (target, id)
    return head + b"Content-Length: %d\r\n\r\n" % body + b"y" * body


@asynccontextmanager
async def bench(**options: float) -> AsyncIterator[Bench]:
    limits = {"connect_timeout": CONNECTING, "timeout": TIMEOUT, "idle_timeout": IDLE, **options}
    async with (
        counting_worker() as one,
        counting_worker() as other,
        faulty(one.port_number) as to_one,
        faulty(other.port_number) as to_other,
        running_router(
            to_one.url,
            to_other.url,
            routing_algorithm="round-robin",
            health_check_interval=1.0,  # the first check may meet a limit that is as short as here
            health_check_failure_threshold=1000,
            **limits,
        ) as router,
    ):
        pool = router.service.pool
        await eventually(lambda: all(each.proven and each.capabilities.names for each in pool))
        yield Bench(router, [one, other], [to_one, to_other])


async def side_by_side(cells: Sequence[Cell], run: Callable[[Cell, bytes], Awaitable[str]]) -> None:
    """
    Run each cell for each of its answers, some at a time; fail with those that went otherwise than
    they say, or if anything is left behind.

    A cell during which the machine stood still is run again if it failed: limits as short as here
    were met by requests that they were not for.
    """
    tried = [(cell, target) for cell in cells for target in cell.answers]
    gate = Gate(_AT_ONCE)

    async def safely(cell: Cell, target: bytes) -> str:
        try:
            return await run(cell, target)
        except Exception as problem:
            return f"{type(problem).__name__}: {problem}"

    async def soundly(cell: Cell, target: bytes) -> str:
        async with gate.turn():
            for _ in range(_TRIES):
                began = reactor.seconds()
                result = await safely(cell, target)
                if result == _promise(cell) or stalls.last < began:
                    break
        return result

    with watched_stalls() as stalls:
        before = Belongings()
        running = [Deferred.fromCoroutine(soundly(*each)) for each in tried]
        results: list[str] = await gatherResults(running)
        wrong = [
            f"{_name(*each)}: {result}; promised: {_promise(each[0])}"
            for each, result in zip(tried, results, strict=True)
            if result != _promise(each[0])
        ]
        assert not wrong, "\n".join(wrong)
        await before.until_the_same()


def _name(cell: Cell, target: bytes) -> str:
    return f"{cell.moment}: {cell.fault.name} ({target.decode()})"


def _promise(cell: Cell) -> str:
    return f"{cell.sees}, done {cell.done}, in time"


def went(cell: Cell, seen: Outcome, done: int, taken: float) -> str:
    sees = str(seen.status) if seen.whole else "cut"
    if sees in cell.sees.split(" or "):
        sees = cell.sees
    in_time = cell.after - 0.02 <= taken < cell.after + SLACK
    return f"{sees}, done {done}, " + ("in time" if in_time else f"after {taken:.2f} s")


def check_body(cell: Cell, target: bytes, seen: Outcome) -> None:
    """
    What came of a worker's body are its first bytes, and all of them if it is whole.
    """
    if seen.status != 200:
        return
    if seen.whole or cell.fault is not Fault.GARBAGE:
        assert not seen.body.strip(b"x"), "other bytes than the worker's"
    unmarked = target == UNTIL_CLOSE and cell.fault in (Fault.CLOSE, Fault.HALF_CLOSE)
    if seen.whole and not unmarked:
        assert len(seen.body) == SIZES[target], f"{len(seen.body)} bytes, taken as whole"


async def check_next(bench: Bench) -> None:
    """
    Once the fault is over the next requests work, at each worker.
    """
    for proxy in bench.proxies:
        await proxy.heal()
    await bench.at_rest()
    for _ in bench.proxies:
        id, seen, _ = await bench.ask()
        assert (str(seen), bench.done(id)) == ("200", 1), f"next: {seen}, done {bench.done(id)}"
    await bench.at_rest()
    twice = [id for worker in bench.workers for id, count in worker.executed.items() if count > 1]
    assert not twice, f"done twice: {twice}"
