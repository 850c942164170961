"""
What becomes of an exchange when its client leaves, or takes nothing: the worker's side is closed,
and nothing is left behind.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.integration.belongings import Belongings
from tests.integration.counting_worker import HUGE, SMALL
from tests.integration.faultbench import (
    ANY,
    IDLE,
    UPLOADED,
    Cell,
    bench,
    check_next,
    request,
    side_by_side,
    went,
)
from tests.integration.faults import (
    ANSWER,
    BODY,
    CONNECT,
    HEAD,
    HEAD_END,
    REQUEST,
    UPLOAD,
    Fault,
)
from tests.integration.outcomes import outcome
from tests.integration.sockets import Connection, connect, eventually, reactor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts files in /proc")

# Limits (seconds) that end nothing here.
LONG = {"connect_timeout": 30.0, "timeout": 30.0, "idle_timeout": 30.0}
# What a client does, and where its exchange stands then; held there, it would end by a limit only.
LEAVING: dict[str, Callable[[Connection], object]] = {
    "resets": lambda client: client.transport.abortConnection(),
    "closes": lambda client: client.transport.loseConnection(),
    "closes one direction": lambda client: client.transport.loseWriteConnection(),
}
LEFT = (
    # moment, answers, how often workers do the request
    (REQUEST, (SMALL,), 0),
    (UPLOAD, (SMALL,), 0),
    (ANSWER, (SMALL,), 1),
    (HEAD, (SMALL,), 1),
    (HEAD_END, ANY, 1),
    (BODY, ANY, 1),
)


async def left_exchange(leave: Callable[[Connection], object], cell: Cell, target: bytes) -> str:
    async with bench(timeout=30.0, idle_timeout=30.0) as it:
        for proxy in it.proxies:
            await proxy.arm(cell.fault, cell.moment)
        id, client = await it.begin(target, UPLOADED if cell.moment is UPLOAD else 4)
        await eventually(lambda: any(proxy.struck for proxy in it.proxies))
        started = reactor.seconds()
        leave(client)
        await it.at_rest()
        taken = reactor.seconds() - started
        await client.until_closed()
        seen = outcome(client.received)
        done = it.done(id)
        await check_next(it)
        return went(cell, seen, done, taken)


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves(leave: Callable[[Connection], object]) -> None:
    """
    Whenever a client leaves, its worker's connection closes at once, the count returns to 0, the
    next requests work, and nothing is left behind.
    """
    cells = [
        Cell(moment, Fault.BLACK_HOLE, "cut", done=done, answers=answers)
        for moment, answers, done in LEFT
    ]
    await side_by_side(cells, lambda cell, target: left_exchange(leave, cell, target))


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_inside_its_request(
    leave: Callable[[Connection], object],
) -> None:
    """
    A request that never came whole reaches no worker, and its body is not kept.
    """
    whole_request = request(SMALL, b"never", 200_000)
    before = Belongings()
    async with bench(**LONG) as it:
        for sent in (10, 60, len(whole_request) - 1):
            client = await connect(it.router.port)
            client.write(whole_request[:sent])
            await deferLater(reactor, 0.02)
            leave(client)
            await client.until_closed()
        await check_next(it)
        assert it.sent(b"never") == 0
    await before.until_the_same()


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_while_nobody_can_be_connected_to() -> None:
    """
    A request whose client has left before a connection was there is sent to nobody.
    """
    before = Belongings()
    async with bench(**LONG) as it:
        for proxy in it.proxies:
            await proxy.arm(Fault.UNREACHABLE, CONNECT)
        id, client = await it.begin(SMALL)
        await eventually(lambda: it.router.in_flight == 1)
        client.transport.abortConnection()
        await it.at_rest()
        await check_next(it)
        assert it.sent(id) == 0
    await before.until_the_same()


@pytest_twisted.ensureDeferred
async def test_a_client_that_stops_reading() -> None:
    """
    A client that takes no byte of its answer for the idle time-out is cut, and its worker's
    connection with it.
    """
    before = Belongings()
    async with bench(**{**LONG, "idle_timeout": IDLE}) as it:
        started = reactor.seconds()
        id, client = await it.begin(HUGE)
        await client.until_received(b"\r\n\r\n")
        client.transport.pauseProducing()
        await eventually(lambda: it.router.in_flight == 0)
        assert reactor.seconds() - started >= IDLE
        client.transport.resumeProducing()
        seen = outcome(await client.until_closed())
        assert str(seen) == "200, cut"
        assert it.done(id) == 1
        await check_next(it)
    await before.until_the_same()
