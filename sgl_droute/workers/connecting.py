"""
A connection to a worker, opened within a time, and what it means when none came about.

What is said on it is not known here, nor how names become addresses.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.error import ConnectionRefusedError as NobodyListens
from twisted.internet.error import TimeoutError as ConnectingTimedOut
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from sgl_droute.errors import ConnectRefused, ConnectTimeout, NoSockets, NotConnected
from sgl_droute.workers.addresses import WorkerEndpoint, connecting_timed_out

# Failures to connect that are this machine's own, and say nothing of the worker.
_OUR_OWN = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}

_P = TypeVar("_P", bound=Protocol)


async def connected(reactor: Any, worker: str, timeout: float, make: Callable[[], _P]) -> _P:
    """
    What *make* makes, connected to *worker* and ready to write. To cancel this ends the attempt.

    Args:
        reactor: Provides TCP, time and a name resolver.
        worker: Base URL of the worker.
        timeout: Seconds for all of it: name, connection and TLS handshake.

    Raises:
        ConnectTimeout: It took longer.
        ConnectRefused: Nobody listens there.
        NotConnected: It did not come about for another reason.
        NoSockets: This machine is out of files or ports.
    """
    try:
        return await _connected(reactor, worker, timeout, make)
    except CancelledError:
        raise
    except ConnectingTimedOut as problem:
        raise ConnectTimeout(worker, f"no connection within {timeout:g} s") from problem
    except Exception as problem:
        if isinstance(problem, ConnectError) and problem.osError in _OUR_OWN:
            raise NoSockets(f"The router cannot open connections: {problem}") from problem
        refused = isinstance(problem, NobodyListens)
        failure = ConnectRefused if refused else NotConnected
        raise failure(worker, str(problem).rstrip(".")) from problem


async def _connected(reactor: Any, worker: str, timeout: float, make: Callable[[], _P]) -> _P:
    deadline = reactor.seconds() + timeout
    endpoint = WorkerEndpoint(reactor, worker, timeout)
    if not worker.startswith("https:"):
        return cast(_P, await endpoint.connect(_quiet(make)))
    securing = cast(_Securing, await endpoint.connect(_quiet(_Securing)))
    left = max(0.001, deadline - reactor.seconds())
    secured = securing.secured
    await secured.addTimeout(left, reactor, onTimeoutCancel=connecting_timed_out)
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
