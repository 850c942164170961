"""
A WebSocket handshake with a worker, over a connection of its own.

It is the one request that does not go through treq, to which a 101 is no answer. What is said in
the tunnel that it opens is the business of `sgl_droute.workers.tunnel`.
"""

from __future__ import annotations

import errno
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectError
from twisted.internet.error import TimeoutError as ConnectingTimedOut
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from sgl_droute.errors import ConnectTimeout, NoSockets, NotConnected, WorkerTimeout
from sgl_droute.workers.addresses import WorkerEndpoint, connecting_timed_out
from sgl_droute.workers.client import Call
from sgl_droute.workers.handshake_connection import (
    HandshakeAnswer,
    HandshakeConnection,
    SecureConnection,
)

# Failures to connect that are this machine's own, and say nothing of the worker.
_OUR_OWN = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


@frozen(eq=False)
class Handshakes:
    """
    Sends WebSocket handshakes.

    Args:
        reactor: Provides TCP, time and a name resolver.
        connect_timeout: Seconds to open a connection, the TLS handshake included.
        timeout: Seconds that a worker may take to answer.
    """

    reactor: Any
    connect_timeout: float
    timeout: float

    async def send(self, call: Call) -> HandshakeAnswer:
        """
        The worker's answer to *call* with ``Upgrade: websocket``; the caller attaches the end of a
        tunnel to its connection, or has its body delivered.

        Raises:
            NotConnected: The worker has seen nothing of the handshake.
            WorkerTimeout: No answer in time.
            WorkerFailed: The connection broke, or what came was no answer to a handshake.
        """
        connection = await self._connected(call.worker)
        answered = connection.ask(_handshake(call))

        def too_late(_: object, seconds: float) -> Failure:
            return Failure(WorkerTimeout(call.worker, f"no response within {seconds:g} s"))

        return await answered.addTimeout(self.timeout, self.reactor, onTimeoutCancel=too_late)

    async def _connected(self, worker: str) -> HandshakeConnection:
        try:
            return await self._connect(worker)
        except CancelledError:
            raise
        except ConnectingTimedOut as problem:
            reason = f"no connection within {self.connect_timeout:g} s"
            raise ConnectTimeout(worker, reason) from problem
        except Exception as problem:
            if isinstance(problem, ConnectError) and problem.osError in _OUR_OWN:
                raise NoSockets(f"The router cannot open connections: {problem}") from problem
            raise NotConnected(worker, str(problem).rstrip(".")) from problem

    async def _connect(self, worker: str) -> HandshakeConnection:
        deadline = self.reactor.seconds() + self.connect_timeout
        kind = SecureConnection if worker.startswith("https:") else HandshakeConnection
        factory = Factory.forProtocol(lambda: kind(worker))
        factory.noisy = False
        endpoint = WorkerEndpoint(self.reactor, worker, self.connect_timeout)
        connection: Any = await endpoint.connect(factory)
        assert isinstance(connection, HandshakeConnection)
        if isinstance(connection, SecureConnection):
            left = max(0.001, deadline - self.reactor.seconds())
            secured = connection.secured()
            await secured.addTimeout(left, self.reactor, onTimeoutCancel=connecting_timed_out)
        return connection


def head(line: bytes, headers: Headers) -> bytes:
    """
    The bytes of a head that begins with *line*.
    """
    lines = [line]
    for name, values in headers.getAllRawHeaders():
        # As RFC 6455 spells it: not every client knows that case is no matter.
        name = name.replace(b"Sec-Websocket-", b"Sec-WebSocket-")
        lines += [name + b": " + value for value in values]
    return b"\r\n".join([*lines, b"", b""])


def _handshake(call: Call) -> bytes:
    host = call.worker.partition("://")[2].encode("ascii")
    headers = call.headers.copy()
    headers.setRawHeaders(b"Host", [host])
    headers.setRawHeaders(b"Connection", [b"Upgrade"])
    headers.setRawHeaders(b"Upgrade", [b"websocket"])
    return head(call.method + b" " + call.target + b" HTTP/1.1", headers)
