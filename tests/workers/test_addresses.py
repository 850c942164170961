"""
Connecting to a worker: names are looked up, blocked addresses refused, the next address tried.
"""

from __future__ import annotations

import errno
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectBindError, DNSLookupError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as ConnectingTimedOut
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from sgl_droute.errors import ConnectRefused, ConnectTimeout, NoSockets, NotConnected
from sgl_droute.workers.addresses import WorkerEndpoint
from sgl_droute.workers.agent import WorkerAgent, split_target


@define(eq=False)
class Names:
    """A name resolver with a table; the names that are not in it never get an answer."""

    table: dict[str, list[str]] = field(factory=dict)

    def resolveHostName(self, receiver: Any, host: str, port: int = 0, **_: Any) -> None:
        receiver.resolutionBegan(None)
        if host not in self.table:
            return
        for text in self.table[host]:
            kind = IPv6Address if ":" in text else IPv4Address
            receiver.addressResolved(kind("TCP", text, port))
        receiver.resolutionComplete()


class Reactor(MemoryReactorClock):
    nameResolver: Any

    def __init__(self, **names: list[str]) -> None:
        super().__init__()
        self.nameResolver = Names(names)

    @property
    def tried(self) -> list[tuple[str, int]]:
        return [(host, port) for host, port, *_ in self.tcpClients]

    def refuse(self) -> None:
        self.fail_to_connect(Refused())

    def fail_to_connect(self, problem: Exception) -> None:
        factory: Any = self.tcpClients[-1][2]
        factory.clientConnectionFailed(None, Failure(problem))


def begin(reactor: Reactor, url: str) -> Any:
    results: list[Any] = []
    endpoint = WorkerEndpoint(reactor, url, timeout=6.0)
    endpoint.connect(Factory.forProtocol(Protocol)).addBoth(results.append)
    return results


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://10.0.0.1:30000", ("10.0.0.1", 30000)),
        ("http://10.0.0.1", ("10.0.0.1", 80)),
        ("http://[::1]:30000", ("::1", 30000)),
    ],
)
def test_addresses_are_not_looked_up(url: str, address: tuple[str, int]) -> None:
    """
    A URL with an address is connected to without asking anybody.
    """
    reactor = Reactor()
    begin(reactor, url)
    assert reactor.tried == [address]


def test_the_next_address_is_tried_at_once() -> None:
    """
    A name's addresses are tried in their order, without a pause after a refusal.
    """
    reactor = Reactor(worker=["::1", "127.0.0.1"])
    results = begin(reactor, "http://worker:30000")
    assert reactor.tried == [("::1", 30000)]
    reactor.refuse()
    assert reactor.tried == [("::1", 30000), ("127.0.0.1", 30000)]
    reactor.refuse()
    [failure] = results
    assert failure.check(Refused)


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "fe80::1", "::ffff:169.254.169.254"]
)
def test_a_name_of_a_blocked_address(address: str) -> None:
    """
    A name that resolves to a blocked address is not connected to, whatever else it resolves to.
    """
    reactor = Reactor(worker=["10.0.0.1", address])
    [failure] = begin(reactor, "http://worker:30000")
    assert "blocked" in failure.getErrorMessage()
    assert reactor.tried == []


def test_a_name_without_an_address() -> None:
    """
    A name that resolves to nothing is told as such.
    """
    [failure] = begin(Reactor(worker=[]), "http://worker:30000")
    assert failure.check(DNSLookupError)


def test_a_name_that_is_never_resolved() -> None:
    """
    Looking up a name is bounded by the time for connecting.
    """
    reactor = Reactor()
    results = begin(reactor, "http://worker:30000")
    reactor.advance(6.0)
    [failure] = results
    assert failure.check(ConnectingTimedOut)


def test_giving_up_while_connecting() -> None:
    """
    Cancelling ends the attempt: the next address is not tried, and it does not look like a failure
    of the worker.
    """
    reactor = Reactor(worker=["10.0.0.1", "10.0.0.2"])
    agent = WorkerAgent(reactor, 5.0)
    failures: list[Any] = []
    asking = agent.request(b"GET", b"http://worker:1/x").addErrback(failures.append)
    asking.cancel()
    assert reactor.tried == [("10.0.0.1", 1)]
    [failure] = failures
    assert failure.check(CancelledError)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL])
def test_out_of_files(number: int) -> None:
    """
    A connection that this machine cannot open is no failure of the worker.
    """
    reactor = Reactor()
    agent = WorkerAgent(reactor, 5.0)
    failures: list[Any] = []
    agent.request(b"GET", b"http://10.0.0.1:1/x").addErrback(failures.append)
    reactor.fail_to_connect(ConnectBindError(number, "Too many open files"))
    [failure] = failures
    assert failure.check(NoSockets)
    assert failure.value.status == 503


def test_failures_to_connect_may_be_tried_elsewhere() -> None:
    """
    Whatever keeps a connection from coming about is a `NotConnected`; its time-out is a 504, and a
    port where nobody listens is told apart.
    """
    reactor = Reactor(blocked=["169.254.169.254"])
    agent = WorkerAgent(reactor, 5.0)
    failures: list[Any] = []
    agent.request(b"GET", b"http://10.0.0.1:1/x").addErrback(failures.append)
    reactor.refuse()
    agent.request(b"GET", b"http://blocked:1/x").addErrback(failures.append)
    agent.request(b"GET", b"http://10.0.0.2:1/x").addErrback(failures.append)
    reactor.fail_to_connect(ConnectingTimedOut())
    agent.request(b"GET", b"http://unresolved:1/x").addErrback(failures.append)
    reactor.advance(5.0)
    assert [type(failure.value) for failure in failures] == [
        ConnectRefused,
        NotConnected,
        ConnectTimeout,
        ConnectTimeout,
    ]
    assert [failure.value.status for failure in failures] == [502, 502, 504, 504]
    assert "blocked" in str(failures[1].value)


@pytest.mark.parametrize(
    "target", [b"/", b"/?", b"//evil/x", b"/@evil:1/x", b"/a?b://c/d", b"/%2F..;x"]
)
def test_the_target_never_reaches_the_authority(target: bytes) -> None:
    """
    An absolute URI is cut where the worker's base URL ends, whatever the target holds.
    """
    assert split_target(b"http://w:1" + target) == (b"http://w:1", target)
