"""
What a client sees when the way to a worker breaks: every fault at every moment of an exchange.

The tables are the promise; the tests run all lines of one moment side by side.
"""

from __future__ import annotations

import sys

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.integration.counting_worker import CHUNKED, LARGE, SMALL, UNTIL_CLOSE
from tests.integration.faultbench import (
    ANY,
    CONNECTING,
    IDLE,
    MEASURED,
    TIMEOUT,
    UPLOADED,
    Cell,
    bench,
    check_body,
    check_next,
    side_by_side,
    went,
)
from tests.integration.faults import (
    ANSWER,
    BODY,
    CONNECT,
    DRIP_BYTES,
    DRIP_PAUSE,
    HEAD,
    HEAD_END,
    LATENCY,
    REQUEST,
    UPLOAD,
    Fault,
    Moment,
)
from tests.integration.sockets import GET, OK, exchange, reactor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts files in /proc")

DRIPPED = DRIP_BYTES * DRIP_PAUSE

# A connection that cannot be opened is tried at the other worker too; here both have the fault.
# As soon as one is open the request is written, and never again.
TABLE = (
    Cell(CONNECT, Fault.REFUSED, "502", done=0),
    Cell(CONNECT, Fault.UNREACHABLE, "504", done=0, after=2 * CONNECTING),
    Cell(CONNECT, Fault.RESET, "502", done=0),
    Cell(CONNECT, Fault.CLOSE, "502", done=0),
    Cell(CONNECT, Fault.HALF_CLOSE, "502", done=0),
    Cell(CONNECT, Fault.BLACK_HOLE, "504", done=0, after=TIMEOUT),
    Cell(CONNECT, Fault.STALL, "504", done=0, after=TIMEOUT),
    Cell(CONNECT, Fault.GARBAGE, "502", done=0),
    Cell(CONNECT, Fault.LATENCY, "200", done=1, after=LATENCY),
    Cell(CONNECT, Fault.DRIP, "504", done=0, after=TIMEOUT),
    Cell(REQUEST, Fault.RESET, "502", done=0),
    Cell(REQUEST, Fault.CLOSE, "502", done=0),
    Cell(REQUEST, Fault.HALF_CLOSE, "502", done=0),
    Cell(REQUEST, Fault.BLACK_HOLE, "504", done=0, after=TIMEOUT),
    Cell(REQUEST, Fault.STALL, "504", done=0, after=TIMEOUT),
    Cell(REQUEST, Fault.GARBAGE, "502", done=0),
    Cell(REQUEST, Fault.LATENCY, "200", done=1, after=LATENCY),
    Cell(REQUEST, Fault.DRIP, "504", done=0, after=TIMEOUT),
    Cell(UPLOAD, Fault.RESET, "502", done=0),
    Cell(UPLOAD, Fault.CLOSE, "502", done=0),
    Cell(UPLOAD, Fault.HALF_CLOSE, "502", done=0),
    Cell(UPLOAD, Fault.BLACK_HOLE, "504", done=0, after=TIMEOUT),
    Cell(UPLOAD, Fault.STALL, "504", done=0, after=TIMEOUT),
    Cell(UPLOAD, Fault.GARBAGE, "502", done=0),
    Cell(UPLOAD, Fault.LATENCY, "200", done=1, after=LATENCY),
    Cell(UPLOAD, Fault.DRIP, "504", done=0, after=TIMEOUT),
    Cell(ANSWER, Fault.RESET, "502", done=1),
    Cell(ANSWER, Fault.CLOSE, "502", done=1),
    Cell(ANSWER, Fault.HALF_CLOSE, "502", done=1),
    Cell(ANSWER, Fault.BLACK_HOLE, "504", done=1, after=TIMEOUT),
    Cell(ANSWER, Fault.STALL, "504", done=1, after=TIMEOUT),
    Cell(ANSWER, Fault.GARBAGE, "502", done=1),
    Cell(ANSWER, Fault.LATENCY, "200", done=1, after=LATENCY, answers=ANY),
    Cell(ANSWER, Fault.DRIP, "504", done=1, after=TIMEOUT),
    Cell(HEAD, Fault.RESET, "502", done=1, answers=ANY),
    Cell(HEAD, Fault.CLOSE, "502", done=1, answers=ANY),
    Cell(HEAD, Fault.HALF_CLOSE, "502", done=1, answers=ANY),
    Cell(HEAD, Fault.BLACK_HOLE, "504", done=1, after=TIMEOUT),
    Cell(HEAD, Fault.STALL, "504", done=1, after=TIMEOUT),
    Cell(HEAD, Fault.GARBAGE, "502", done=1),
    Cell(HEAD, Fault.LATENCY, "200", done=1, after=LATENCY, answers=ANY),
    Cell(HEAD, Fault.DRIP, "504", done=1, after=TIMEOUT),
    Cell(HEAD_END, Fault.RESET, "cut", done=1, answers=ANY),
    Cell(HEAD_END, Fault.CLOSE, "cut", done=1, answers=MEASURED),
    # A body that ends with its connection has ended, for all that anybody can tell.
    Cell(HEAD_END, Fault.CLOSE, "200", done=1, answers=(UNTIL_CLOSE,)),
    Cell(HEAD_END, Fault.HALF_CLOSE, "cut", done=1, answers=MEASURED),
    Cell(HEAD_END, Fault.HALF_CLOSE, "200", done=1, answers=(UNTIL_CLOSE,)),
    Cell(HEAD_END, Fault.BLACK_HOLE, "cut", done=1, after=IDLE, answers=ANY),
    Cell(HEAD_END, Fault.STALL, "cut", done=1, after=IDLE, answers=ANY),
    Cell(HEAD_END, Fault.GARBAGE, "502 or cut", done=1, answers=(CHUNKED,)),
    Cell(HEAD_END, Fault.LATENCY, "200", done=1, after=LATENCY, answers=ANY),
    # Slow is not silent: no limit holds for an answer that moves.
    Cell(HEAD_END, Fault.DRIP, "200", done=1, after=DRIPPED, answers=ANY),
    Cell(BODY, Fault.RESET, "cut", done=1, answers=ANY),
    Cell(BODY, Fault.CLOSE, "cut", done=1, answers=MEASURED),
    Cell(BODY, Fault.CLOSE, "200", done=1, answers=(UNTIL_CLOSE,)),
    Cell(BODY, Fault.HALF_CLOSE, "cut", done=1, answers=MEASURED),
    Cell(BODY, Fault.HALF_CLOSE, "200", done=1, answers=(UNTIL_CLOSE,)),
    Cell(BODY, Fault.BLACK_HOLE, "cut", done=1, after=IDLE, answers=ANY),
    Cell(BODY, Fault.STALL, "cut", done=1, after=IDLE, answers=ANY),
    Cell(BODY, Fault.GARBAGE, "502 or cut", done=1, answers=(CHUNKED,)),
    # Junk of the right length is a body like any other; here it is too short, then silence.
    Cell(BODY, Fault.GARBAGE, "cut", done=1, after=IDLE, answers=(SMALL, LARGE, UNTIL_CLOSE)),
    Cell(BODY, Fault.LATENCY, "200", done=1, after=LATENCY, answers=ANY),
    Cell(BODY, Fault.DRIP, "200", done=1, after=DRIPPED, answers=ANY),
)

# What befalls a connection while it is idle, and the request that comes next.
AT_REST = Moment("at rest")
RESTING = (
    Cell(AT_REST, Fault.RESET, "200", done=1),
    Cell(AT_REST, Fault.CLOSE, "200", done=1),
    Cell(AT_REST, Fault.HALF_CLOSE, "200", done=1),
    Cell(AT_REST, Fault.GARBAGE, "200", done=1),
    Cell(AT_REST, Fault.BLACK_HOLE, "504", done=0, after=TIMEOUT),
    Cell(AT_REST, Fault.STALL, "504", done=0, after=TIMEOUT),
    Cell(AT_REST, Fault.LATENCY, "200", done=1),
    Cell(AT_REST, Fault.DRIP, "504", done=0, after=TIMEOUT),
)

# The fault is at one worker, the other is well: only what nobody can have seen goes there.
WITH_ANOTHER = (
    Cell(CONNECT, Fault.REFUSED, "200", done=1),
    Cell(CONNECT, Fault.UNREACHABLE, "200", done=1, after=CONNECTING),
    Cell(CONNECT, Fault.RESET, "502", done=0),
    Cell(CONNECT, Fault.CLOSE, "502", done=0),
    Cell(CONNECT, Fault.BLACK_HOLE, "504", done=0, after=TIMEOUT),
    Cell(REQUEST, Fault.RESET, "502", done=0),
    Cell(ANSWER, Fault.RESET, "502", done=1),
)


def of(moment: Moment) -> list[Cell]:
    return [cell for cell in TABLE if cell.moment is moment]


async def broken_exchange(cell: Cell, target: bytes, *, kept: bool, everywhere: bool = True) -> str:
    """
    How one exchange went, told as `_promise` does.
    """
    async with bench() as it:
        if kept or not everywhere:
            await it.warm()
        if not (kept or everywhere):
            await it.part()
        for proxy in it.proxies if everywhere else [it.next]:
            await proxy.arm(cell.fault, cell.moment)
        id, seen, taken = await it.ask(target, UPLOADED if cell.moment is UPLOAD else 4)
        check_body(cell, target, seen)
        assert any(proxy.struck for proxy in it.proxies), "no fault happened"
        assert it.sent(id) <= 1, f"sent {it.sent(id)} times"
        done = it.done(id)
        await check_next(it)
        return went(cell, seen, done, taken)


@pytest.mark.parametrize("kept", [False, True], ids=["new connection", "kept connection"])
@pytest.mark.parametrize("moment", [REQUEST, UPLOAD, ANSWER, HEAD, HEAD_END, BODY], ids=str)
@pytest_twisted.ensureDeferred
async def test_a_broken_exchange(moment: Moment, kept: bool) -> None:
    """
    Whatever breaks an exchange, the client sees what the table says and when it says, no request is
    sent twice, the next ones work, and nothing is left behind.
    """
    await side_by_side(of(moment), lambda cell, target: broken_exchange(cell, target, kept=kept))


@pytest_twisted.ensureDeferred
async def test_a_connection_that_does_not_come_about() -> None:
    """
    As above, for what goes wrong before the first byte.
    """
    await side_by_side(of(CONNECT), lambda cell, target: broken_exchange(cell, target, kept=False))


@pytest_twisted.ensureDeferred
async def test_another_worker_that_is_well() -> None:
    """
    Another worker gets a request only if the first one cannot have seen a byte of it.
    """
    await side_by_side(
        WITH_ANOTHER,
        lambda cell, target: broken_exchange(cell, target, kept=False, everywhere=False),
    )


async def broken_rest(cell: Cell, target: bytes) -> str:
    async with bench() as it:
        await it.warm()
        it.next.strike(cell.fault)
        await deferLater(reactor, 0.05)  # as long as a fault takes that is there to be seen
        id, seen, taken = await it.ask(target)
        check_body(cell, target, seen)
        done = it.done(id)
        await check_next(it)
        return went(cell, seen, done, taken)


@pytest_twisted.ensureDeferred
async def test_a_connection_that_breaks_at_rest() -> None:
    """
    An idle connection that was visibly broken costs no request; one that looks well and is not may.
    """
    await side_by_side(RESTING, broken_rest)


FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"


@pytest.mark.parametrize("behind", [FORGED, FORGED[:10]], ids=["whole", "begun"])
@pytest_twisted.ensureDeferred
async def test_a_second_answer_behind_the_first(behind: bytes) -> None:
    """
    What nobody asked for, in one piece with an answer that somebody did, is given to nobody, and
    its connection carries no other request.
    """
    async with exchange() as (router, worker, client, at_worker):
        at_worker.write(OK + behind)
        await client.until_received(b"ok")
        client.write(GET)
        (await worker.connection(2)).write(OK)
        await client.until(lambda: client.received.count(b"HTTP/1.1 200 OK") == 2)
        assert b"forged" not in client.received
        await at_worker.until_closed()
        await router.at_rest()
