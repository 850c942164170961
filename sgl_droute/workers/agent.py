"""
The agent under treq: a request exactly as given, over pooled connections to workers.

It keeps apart the two failures that matter: no connection came about (another worker may be tried),
or the request may have been seen (it may not). What is asked, and for whom, it does not know.
"""

from __future__ import annotations

import errno
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.error import TimeoutError as ConnectingTimedOut
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol, Request, RequestNotSent
from twisted.web.client import HTTPConnectionPool
from twisted.web.http import _IdentityTransferDecoder
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from sgl_droute.errors import ConnectTimeout, NoSockets, NotConnected
from sgl_droute.workers.addresses import WorkerEndpoint, connecting_timed_out
from sgl_droute.workers.headers import connection_tokens

# Workers close a connection after 5 s without a request (uvicorn's keep-alive): ours goes first, so
# that no request is written to a connection that is being closed.
KEEP_ALIVE = 4.0
IDLE_CONNECTIONS_PER_WORKER = 64

# Failures to connect that are this machine's own, and say nothing of the worker.
_OUR_OWN = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}


def split_target(uri: bytes) -> tuple[bytes, bytes]:
    """
    The base URL and the raw request target of an absolute *uri*, cut at the first ``/`` behind the
    authority; nothing is parsed, decoded or put right.
    """
    cut = uri.index(b"/", uri.index(b"://") + 3)
    return uri[:cut], uri[cut:]


@implementer(IAgent)
@define(eq=False)
class WorkerAgent:
    """
    Sends requests to workers, keeping idle connections for the next ones.

    Unlike `twisted.web.client.Agent` it writes the target as it is (an empty ``?``, odd escapes)
    and never sends a request a second time.

    Args:
        reactor: Provides TCP, time and a name resolver.
        connect_timeout: Seconds to open a connection, the TLS handshake included.
    """

    reactor: Any
    connect_timeout: float
    _pool: HTTPConnectionPool = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pool = HTTPConnectionPool(self.reactor, persistent=True)
        self._pool.retryAutomatically = False
        self._pool.cachedConnectionTimeout = KEEP_ALIVE  # type: ignore[assignment]
        self._pool.maxPersistentPerHost = IDLE_CONNECTIONS_PER_WORKER
        self._pool._factory = _ConnectionFactory  # type: ignore[assignment]

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        base, target = split_target(uri)
        ready = Headers() if headers is None else headers.copy()
        ready.setRawHeaders(b"Host", [base.partition(b"://")[2]])
        sent = Request(method, target, ready, bodyProducer, persistent=True)
        return Deferred.fromCoroutine(self._request(base, sent))

    async def _request(self, base: bytes, request: Request) -> IResponse:
        worker = base.decode("ascii")
        try:
            connection = await self._connection(base)
        except (CancelledError, NotConnected, NoSockets):
            raise
        except ConnectingTimedOut as problem:
            reason = f"no connection within {self.connect_timeout:g} s"
            raise ConnectTimeout(worker, reason) from problem
        except Exception as problem:
            if isinstance(problem, ConnectError) and problem.osError in _OUR_OWN:
                raise NoSockets(f"The router cannot open connections: {problem}") from problem
            raise NotConnected(worker, str(problem).rstrip(".")) from problem
        try:
            return await connection.request(request)
        except RequestNotSent as problem:
            raise NotConnected(worker, "the idle connection was closed") from problem

    async def _connection(self, base: bytes) -> WorkerConnection:
        started = self.reactor.seconds()
        endpoint = WorkerEndpoint(self.reactor, base.decode("ascii"), self.connect_timeout)
        connection: Any = await self._pool.getConnection(base, endpoint)
        if base.startswith(b"https:"):
            left = max(0.001, started + self.connect_timeout - self.reactor.seconds())
            await connection.secured(self.reactor, left)
        assert isinstance(connection, WorkerConnection)
        return connection

    def close(self) -> Deferred[None]:
        """
        Close all idle connections; the result comes when they are closed.
        """
        closing: Deferred[None] = self._pool.closeCachedConnections()
        return closing


@implementer(IHandshakeListener)
class WorkerConnection(HTTP11ClientProtocol):
    """
    Twisted's client connection, with what it lacks for a proxy.
    """

    _shaken = False
    _secured: Deferred[None] | None = None

    def request(self, request: Request) -> Deferred[IResponse]:
        """
        As the base, but an answer that comes before the request is sent whole is heard (the base
        waits for a worker that has stopped reading), and headers that ``Connection`` names are gone
        (the base keeps ``Connection`` to itself, so nobody else could drop them).
        """
        answering = super().request(request)
        parser = self._parser
        if self._state == "TRANSMITTING" and self._responseDeferred is not None:
            self._responseDeferred.addCallback(self._answered_early, request)

        def end_to_end(response: IResponse) -> IResponse:
            hidden = Headers() if parser is None else parser.connHeaders
            for name in connection_tokens(hidden):
                response.headers.removeHeader(name)
            return response

        return answering.addCallback(end_to_end)

    def _answered_early(self, response: IResponse, request: Request) -> IResponse:
        if self._state.startswith("TRANSMITTING"):
            # What is left of the body is not wanted; the connection ends with this answer.
            request.persistent = False
            request.stopWriting()
            transport: Any = self.transport
            transport.unregisterProducer()
        if self._state == "TRANSMITTING":
            assert self._responseDeferred is not None
            assert self._finishedRequest is not None
            self._state = "WAITING"
            self._responseDeferred.chainDeferred(self._finishedRequest)
        return response

    def secured(self, clock: Any, timeout: float) -> Deferred[None]:
        """
        Fires when the TLS handshake is done; fails as connecting does when it is not in *timeout*
        seconds, since the worker has seen nothing by then.
        """
        done: Deferred[None] = Deferred(lambda _: self._abort())
        if self._shaken:
            done.callback(None)
            return done
        self._secured = done
        return done.addTimeout(timeout, clock, onTimeoutCancel=connecting_timed_out)

    def handshakeCompleted(self) -> None:
        self._shaken = True
        if self._secured is not None and not self._secured.called:
            self._secured.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        decoder = getattr(self._parser, "bodyDecoder", None)
        if isinstance(decoder, _IdentityTransferDecoder) and not reason.check(ConnectionDone):
            # A body without a length ends with its connection, but not with a broken one.
            decoder.contentLength = 1 if decoder.contentLength is None else decoder.contentLength
        if self._secured is not None and not self._secured.called:
            self._secured.errback(reason)
        super().connectionLost(reason)

    def _abort(self) -> None:
        transport: Any = self.transport
        transport.abortConnection()


class _ConnectionFactory(Factory):
    noisy = False

    def __init__(self, quiescentCallback: Any, metadata: object) -> None:
        self._quiescent = quiescentCallback

    def buildProtocol(self, addr: object) -> WorkerConnection:
        return WorkerConnection(self._quiescent)
