"""
Connections to workers: kept for a while, given to the next request, never leaked.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure

from sgl_droute.errors import BadRequest, ConnectTimeout, Disconnected, NotConnected
from sgl_droute.workers.agent import WorkerAgent
from sgl_droute.workers.deadlines import Deadlines
from sgl_droute.workers.idle import IDLE_CONNECTIONS_PER_WORKER, KEEP_ALIVE
from tests.integration.sockets import OK

URL = b"http://10.0.0.1:1/x"


class Fleet:
    """
    An agent on a clock, and the connections that it has opened.
    """

    def __init__(self, deadlines: bool = False) -> None:
        self.clock: Any = MemoryReactorClock()
        self.deadlines = Deadlines(self.clock) if deadlines else None
        self.agent = WorkerAgent(self.clock, 5.0, self.deadlines)
        self.protocols: list[Any] = []
        self.transports: list[StringTransport] = []
        self.answers: list[Any] = []
        self.failures: list[Failure] = []

    def ask(self, url: bytes = URL) -> Any:
        """
        Begin a request.
        """
        asking = self.agent.request(b"GET", url)
        return asking.addCallbacks(self.answers.append, self.failures.append)

    @property
    def attempts(self) -> int:
        """How many connections were asked for."""
        return len(self.clock.tcpClients)

    def accept(self) -> int:
        """
        Let the last attempt succeed; the number of the connection.
        """
        factory = self.clock.tcpClients[-1][2]
        protocol = factory.buildProtocol(IPv4Address("TCP", "10.0.0.1", 1))
        transport = StringTransport()
        self.protocols.append(protocol)
        self.transports.append(transport)
        protocol.makeConnection(transport)
        return len(self.protocols) - 1

    def answer(self, number: int, data: bytes = OK) -> None:
        """
        Let the worker answer on a connection.
        """
        self.protocols[number].dataReceived(data)

    def exchange(self, url: bytes = URL) -> int:
        """
        A request answered on a connection of its own; that one's number.
        """
        self.ask(url)
        number = self.accept()
        self.answer(number)
        return number

    def lose(self, number: int) -> None:
        """
        Let a connection end.
        """
        self.protocols[number].connectionLost(Failure(ConnectionDone()))

    def requests(self, number: int) -> int:
        """
        How many requests a connection has carried.
        """
        return bytes(self.transports[number].value()).count(b"GET ")


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_a_connection_is_kept(fleet: Fleet) -> None:
    """
    Requests one after the other share a connection; side by side they have their own.
    """
    first = fleet.exchange()
    fleet.ask()
    assert fleet.attempts == 1
    assert fleet.requests(first) == 2
    fleet.ask()
    assert fleet.attempts == 2


def test_the_last_one_goes_first(fleet: Fleet) -> None:
    """
    Of several connections the one used last serves the next request, so that the others can end.
    """
    for _ in range(3):
        fleet.ask()
        fleet.accept()
    for number in (2, 0, 1):
        fleet.answer(number)
    fleet.ask()
    assert [fleet.requests(number) for number in range(3)] == [1, 2, 1]


def test_workers_do_not_share(fleet: Fleet) -> None:
    """
    A connection serves the worker that it leads to, and no other.
    """
    fleet.exchange()
    fleet.ask(b"http://10.0.0.1:2/x")
    assert fleet.attempts == 2


@pytest.mark.parametrize("shared", [False, True])
def test_idle_connections_end(shared: bool) -> None:
    """
    A connection that waits too long is closed, within a second.
    """
    fleet = Fleet(shared)
    fleet.exchange()
    fleet.clock.pump([0.5] * 7)
    assert not fleet.transports[0].disconnecting
    fleet.clock.pump([0.5] * 4)
    assert fleet.transports[0].disconnecting
    fleet.lose(0)
    fleet.clock.pump([0.5] * 4)
    assert fleet.clock.getDelayedCalls() == []


def test_one_that_is_too_old_is_not_used(fleet: Fleet) -> None:
    """
    The age of a connection is looked at, however late its deadline comes.
    """
    fleet.exchange()
    fleet.clock.rightNow += KEEP_ALIVE
    fleet.ask()
    assert fleet.attempts == 2
    assert fleet.transports[0].disconnecting


def test_one_in_use_is_never_too_old(fleet: Fleet) -> None:
    """
    An answer may take its time.
    """
    fleet.exchange()
    fleet.ask()
    fleet.clock.pump([1.0] * 100)
    assert not fleet.transports[0].disconnecting
    fleet.answer(0)
    assert len(fleet.answers) == 2


def test_one_that_ended_is_not_used(fleet: Fleet) -> None:
    """
    A connection that the worker has closed is forgotten.
    """
    fleet.exchange()
    fleet.lose(0)
    fleet.ask()
    assert fleet.attempts == 2


def test_one_that_speaks_unasked_is_not_used(fleet: Fleet) -> None:
    """
    Nor is one on which bytes came that belong to no answer.
    """
    fleet.exchange()
    fleet.answer(0)
    assert fleet.transports[0].disconnecting
    fleet.ask()
    assert fleet.attempts == 2


def test_enough_is_kept(fleet: Fleet) -> None:
    """
    No more connections wait than `IDLE_CONNECTIONS_PER_WORKER`.
    """
    count = IDLE_CONNECTIONS_PER_WORKER + 1
    for _ in range(count):
        fleet.ask()
        fleet.accept()
    for number in range(count):
        fleet.answer(number)
    assert [each.disconnecting for each in fleet.transports] == [False] * (count - 1) + [True]


def test_a_request_from_an_answer(fleet: Fleet) -> None:
    """
    A connection is kept when its answer is told, for the request that follows from it.
    """
    asking = fleet.agent.request(b"GET", URL)
    asking.addCallback(lambda _: fleet.ask())
    fleet.accept()
    fleet.answer(0)
    assert fleet.attempts == 1
    assert fleet.requests(0) == 2


def test_a_request_that_cannot_be_sent(fleet: Fleet) -> None:
    """
    It fails, and nobody is connected to.
    """
    fleet.ask(b"http://10.0.0.1:1/x y")
    [failure] = fleet.failures
    assert failure.check(BadRequest)
    assert fleet.attempts == 0


def test_closing(fleet: Fleet) -> None:
    """
    Closing ends idle connections, and says when; those in use end with their answers.
    """
    fleet.ask()
    fleet.accept()
    fleet.exchange()
    done: list[object] = []
    fleet.agent.close().addCallback(done.append)
    assert [each.disconnecting for each in fleet.transports] == [False, True]
    assert done == []
    fleet.lose(1)
    assert len(done) == 1
    fleet.answer(0)
    assert len(fleet.answers) == 2
    assert fleet.transports[0].disconnecting
    fleet.lose(0)
    assert fleet.clock.getDelayedCalls() == []


def test_giving_up_while_connecting(fleet: Fleet) -> None:
    """
    A request that is given up while it waits for a connection ends the attempt.
    """
    fleet.ask().cancel()
    [failure] = fleet.failures
    assert failure.check(CancelledError)
    assert fleet.clock.connectors[-1].stoppedConnecting


def test_giving_up_a_request_under_way(fleet: Fleet) -> None:
    """
    A request that is given up takes its connection with it.
    """
    asking = fleet.ask()
    fleet.accept()
    asking.cancel()
    [failure] = fleet.failures
    assert failure.check(CancelledError)
    assert fleet.transports[0].disconnected
    fleet.lose(0)
    fleet.ask()
    assert fleet.attempts == 2


@given(st.lists(st.tuples(st.sampled_from(["ask", "answer", "lose", "wait"]), st.integers(0, 9))))
def test_each_request_is_sent_once(steps: list[tuple[str, int]]) -> None:
    """
    However asking, answering, losing and waiting meet: each request goes out on one connection and
    ends once, no connection carries two at a time, and none is left when all is closed.
    """
    fleet = Fleet()
    asked, busy, gone = 0, set[int](), set[int]()
    for what, number in steps:
        if what == "ask":
            asked += 1
            before = [fleet.requests(each) for each in range(len(fleet.protocols))]
            attempts = fleet.attempts
            fleet.ask()
            if fleet.attempts > attempts:
                before.append(0)
                fleet.accept()
            after = [fleet.requests(each) for each in range(len(fleet.protocols))]
            [used] = [each for each in range(len(after)) if after[each] > before[each]]
            assert used not in busy | gone
            busy.add(used)
        elif what == "answer" and number in busy:
            busy.remove(number)
            fleet.answer(number)
        elif what == "lose" and number < len(fleet.protocols) and number not in gone:
            fleet.lose(number)
            gone.add(number)
            busy.discard(number)
        elif what == "wait":
            fleet.clock.advance(number / 2)
            for each, transport in enumerate(fleet.transports):
                if transport.disconnecting and each not in gone:
                    gone.add(each)
                    fleet.lose(each)
    assert len(fleet.answers) + len(fleet.failures) + len(busy) == asked
    assert {failure.type for failure in fleet.failures} <= {Disconnected}
    closing = fleet.agent.close()
    for each, transport in enumerate(fleet.transports):
        if transport.disconnecting and each not in gone:
            fleet.lose(each)
    assert closing.called
    assert fleet.clock.getDelayedCalls() == []


def test_the_time_for_a_handshake(fleet: Fleet) -> None:
    """
    The TLS handshake counts as connecting: when that takes too long the worker has seen nothing,
    and the connection is cut.
    """
    fleet.ask(b"https://10.0.0.1:1/x")
    fleet.clock.advance(3.0)
    fleet.accept()
    tcp = fleet.transports[0]
    fleet.clock.advance(1.9)
    assert fleet.failures == []
    fleet.clock.advance(0.2)
    [failure] = fleet.failures
    assert failure.type is ConnectTimeout
    assert tcp.disconnecting


def test_a_handshake_that_breaks(fleet: Fleet) -> None:
    """
    A connection that ends during the TLS handshake never came about.
    """
    fleet.ask(b"https://10.0.0.1:1/x")
    number = fleet.accept()
    assert fleet.failures == []
    fleet.lose(number)
    [failure] = fleet.failures
    assert failure.type is NotConnected
    assert fleet.clock.getDelayedCalls() == []
