"""
A connection to a worker, opened within a time, and what it means when none came about.

What is said on it is not known here, nor how names become addresses.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar, cast

from attrs import field, frozen
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.error import ConnectionRefusedError as NobodyListens
from twisted.internet.error import TimeoutError as ConnectingTimedOut
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sgl_droute.errors import (
    ConnectRefused,
    ConnectTimeout,
    NoSockets,
    NotConnected,
    RouterError,
)
from sgl_droute.fleet.networks import Networks
from sgl_droute.workers.addresses import WorkerEndpoint, connecting_timed_out, host_and_port
from sgl_droute.workers.tls import WorkerTLS

# Failures to connect that are this machine's own, and say nothing of the worker.
_OUR_OWN = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}

_P = TypeVar("_P", bound=Protocol)


@frozen(eq=False)
class Terms:
    """
    On which terms workers are connected to.

    Attributes:
        networks: Where they may be.
        tls: Whose certificates count.
    """

    networks: Networks = field(factory=Networks)
    tls: WorkerTLS = field(factory=WorkerTLS)


async def connected(
    reactor: Any, worker: str, timeout: float, make: Callable[[], _P], terms: Terms
) -> _P:
    """
    What *make* makes, connected to *worker* and ready to write. To cancel this ends the attempt.

    Args:
        reactor: Provides TCP, time and a name resolver.
        worker: Base URL of the worker.
        timeout: Seconds for all of it: name, connection and TLS handshake.

    Raises:
        ConnectTimeout: It took longer.
        ConnectRefused: Nobody listens there.
        UntrustedWorker: Who listens there is not proven to be the worker.
        NotConnected: It did not come about for another reason.
        NoSockets: This machine is out of files or ports.
    """
    try:
        return await _connected(reactor, worker, timeout, make, terms)
    except (CancelledError, RouterError):
        raise
    except ConnectingTimedOut as problem:
        raise ConnectTimeout(worker, f"no connection within {timeout:g} s") from problem
    except Exception as problem:
        if isinstance(problem, ConnectError) and problem.osError in _OUR_OWN:
            raise NoSockets(f"The router cannot open connections: {problem}") from problem
        refused = isinstance(problem, NobodyListens)
        failure = ConnectRefused if refused else NotConnected
        raise failure(worker, str(problem).rstrip(".")) from problem


async def _connected(
    reactor: Any, worker: str, timeout: float, make: Callable[[], _P], terms: Terms
) -> _P:
    if not worker.startswith("https:"):
        endpoint = WorkerEndpoint(reactor, worker, timeout, terms.networks)
        return cast(_P, await endpoint.connect(_quiet(make)))
    deadline = reactor.seconds() + timeout
    tls = terms.tls.connection_to(host_and_port(worker)[0])
    endpoint = WorkerEndpoint(reactor, worker, timeout, terms.networks, tls)
    securing = cast(_Securing, await endpoint.connect(_quiet(_Securing)))
    left = max(0.001, deadline - reactor.seconds())
    secured = securing.secured
    try:
        await secured.addTimeout(left, reactor, onTimeoutCancel=connecting_timed_out)
    except SSL.Error as problem:
        raise tls.failed(worker, problem) from problem
    protocol = make()
    securing.hand_over(protocol)
    return protocol


@implementer(IHandshakeListener)
class _Securing(Protocol):
    """
    Has a connection while its TLS handshake lasts.

    A protocol that was told of the handshake itself could not be told of half-closed connections:
    Twisted's endpoints pass on the one or the other.

    Attributes:
        secured: Fires when the handshake is done.
    """

    transport: Any

    def __init__(self) -> None:
        self.secured: Deferred[None] = Deferred(lambda _: self.transport.abortConnection())

    def hand_over(self, successor: Protocol) -> None:
        """
        Let *successor* have the connection.
        """
        self.transport.wrappedProtocol = successor
        successor.makeConnection(self.transport)

    def handshakeCompleted(self) -> None:
        self.secured.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.secured.called:
            self.secured.errback(reason)


def _quiet(make: Callable[[], Protocol]) -> Factory[Protocol]:
    factory = Factory.forProtocol(make)
    factory.noisy = False
    return factory
