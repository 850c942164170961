"""
Open tunnels, on a clock and over connections in memory.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from sgl_droute.workers.tunnel import Tunnel
from tests.integration.sockets import Connection
from tests.integration.wire import joined

IDLE = 8.0


class Joined:
    """
    A tunnel between two peers in memory.
    """

    def __init__(self) -> None:
        self.clock: Any = Clock()
        self.tunnel = Tunnel("http://w:1", self.clock, IDLE)
        self.client, self.worker = Connection(), Connection()
        joined(self.clock, self.worker, self.tunnel.worker)
        joined(self.clock, self.client, self.tunnel.client)
        self.tunnel.begin()

    @property
    def sides(self) -> tuple[tuple[Connection, Connection], ...]:
        return (self.client, self.worker), (self.worker, self.client)

    def settle(self) -> None:
        for _ in range(200):
            self.clock.advance(0)

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)
            self.settle()


STEPS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["write", "pause", "resume", "settle"]),
        st.integers(1, 100_000),
    ),
    max_size=40,
)


@given(STEPS, st.integers(0, 1), st.sampled_from(["close", "abort", "cut"]))
def test_what_goes_in_comes_out(
    steps: list[tuple[int, str, int]], closer: int, ending: str
) -> None:
    """
    Each side gets what the other wrote, in order; what was written before an orderly closing
    arrives as a whole. In the end both connections are gone, and no call is left waiting.
    """
    pair = Joined()
    written: dict[Connection, bytes] = {pair.client: b"", pair.worker: b""}
    for side, step, size in steps:
        here, there = pair.sides[side]
        if step == "write":
            data = bytes([len(written[there]) % 256]) * size
            written[there] += data
            here.write(data)
        elif step == "settle":
            pair.settle()
        else:
            getattr(here.transport, f"{step}Producing")()
    here, there = pair.sides[closer]
    if ending == "cut":
        pair.tunnel.cut()
    else:
        getattr(here.transport, f"{'lose' if ending == 'close' else ending}Connection")()
    for each in (pair.client, pair.worker):
        each.transport.resumeProducing()
    pair.settle()
    for each in (pair.client, pair.worker):
        assert written[each].startswith(each.received)
        assert each.closed is not None
    if ending == "close":
        assert there.received == written[there]
    assert pair.tunnel.left.called
    assert pair.tunnel.closed.called
    assert pair.clock.getDelayedCalls() == []


@given(st.integers(0, 1), st.integers(1, 400_000))
def test_little_is_kept(side: int, size: int) -> None:
    """
    A side is not read from while the other one takes nothing.
    """
    pair = Joined()
    here, there = pair.sides[side]
    there.transport.pauseProducing()
    for _ in range(20):
        here.write(b"x" * size)
        pair.settle()
    kept = len(there.transport.peer._unsent)
    assert kept <= (1 << 16) + size
    there.transport.resumeProducing()
    pair.settle()
    assert there.received == b"x" * size * 20


def test_a_peer_that_takes_nothing() -> None:
    """
    It is cut after the idle time, though it talks; a peer that is owed nothing is left alone.
    """
    pair = Joined()
    pair.wait(10 * IDLE)
    assert pair.client.closed is None
    pair.client.transport.pauseProducing()
    pair.worker.write(b"x" * 200_000)
    pair.settle()
    for _ in range(int(IDLE) - 1):
        pair.client.write(b"still here")
        pair.wait(1)
    assert pair.client.closed is None
    pair.wait(1 + IDLE / 2)
    for each in (pair.client, pair.worker):
        assert each.closed is not None
        assert each.closed.check(ConnectionLost)
    assert pair.clock.getDelayedCalls() == []


def test_a_slow_peer() -> None:
    """
    A peer that takes some bytes now and then is not cut.
    """
    pair = Joined()
    for _ in range(10):
        pair.client.transport.pauseProducing()
        pair.worker.write(b"x" * 200_000)
        pair.wait(IDLE - 1)
        pair.client.transport.resumeProducing()
        pair.settle()
    assert pair.client.received == b"x" * 2_000_000
    assert pair.worker.closed is None


class HalfCloseable(StringTransport):
    """
    A transport whose writing side can be closed alone.
    """

    write_closed = False
    aborted = False

    def loseWriteConnection(self) -> None:
        self.write_closed = True

    def abortConnection(self) -> None:
        self.aborted = True


def test_a_peer_that_does_not_close() -> None:
    """
    When one side has said all, the other may go on talking; if it neither does nor closes for the
    idle time, the tunnel is cut.
    """
    clock = Clock()
    tunnel = Tunnel("http://w:1", clock, IDLE)
    client, worker = HalfCloseable(), HalfCloseable()
    tunnel.client.makeConnection(client)
    tunnel.worker.makeConnection(worker)
    tunnel.begin()
    tunnel.worker.readConnectionLost()
    assert client.write_closed
    assert not worker.write_closed
    for _ in range(3):
        tunnel.client.dataReceived(b"more")
        clock.advance(IDLE - 1)
    assert worker.value() == b"moremoremore"
    assert not client.aborted
    clock.pump([IDLE / 4] * 6)
    assert client.aborted
    assert worker.aborted


def test_both_sides_have_said_all() -> None:
    """
    Then both connections are closed.
    """
    tunnel = Tunnel("http://w:1", Clock(), IDLE)
    client, worker = HalfCloseable(), HalfCloseable()
    tunnel.client.makeConnection(client)
    tunnel.worker.makeConnection(worker)
    tunnel.begin()
    tunnel.worker.readConnectionLost()
    tunnel.client.readConnectionLost()
    assert client.disconnecting
    assert worker.disconnecting


def test_the_worker_is_free_before_the_client_has_all() -> None:
    """
    `left` fires with the worker's end, `closed` when the client has taken the rest too.
    """
    pair = Joined()
    pair.client.transport.pauseProducing()
    pair.worker.write(b"x" * 10)
    pair.worker.transport.loseConnection()
    pair.settle()
    assert pair.tunnel.left.called
    assert not pair.tunnel.closed.called
    pair.client.transport.resumeProducing()
    pair.settle()
    assert pair.client.received == b"x" * 10
    assert pair.tunnel.closed.called


def test_the_kind_of_end_is_passed_on() -> None:
    """
    A closed connection closes the other one, a broken one breaks it.
    """
    for reason, expected in [
        (ConnectionDone(), ConnectionDone),
        (ConnectionLost(), ConnectionLost),
    ]:
        pair = Joined()
        pair.tunnel.client.connectionLost(Failure(reason))
        pair.settle()
        assert pair.worker.closed is not None
        assert pair.worker.closed.check(expected)
