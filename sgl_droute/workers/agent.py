"""
The agent under treq: a request exactly as given, over pooled connections to workers.

It keeps apart the two failures that matter: no connection came about (another worker may be tried),
or the request may have been seen (it may not). What is asked, and for whom, it does not know.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError as ConnectingTimedOut
from twisted.web._newclient import Request, RequestNotSent
from twisted.web.client import HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from sgl_droute.errors import ConnectTimeout, NotConnected
from sgl_droute.workers.addresses import WorkerEndpoint
from sgl_droute.workers.headers import connection_tokens

# Workers close a connection after 5 s without a request (uvicorn's keep-alive): ours goes first, so
# that no request is written to a connection that is being closed.
KEEP_ALIVE = 4.0
IDLE_CONNECTIONS_PER_WORKER = 64

# The state of Twisted's client connection whose whole answer came before the request was sent.
_ANSWERED_EARLY = "TRANSMITTING_AFTER_RECEIVING_RESPONSE"


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
        connect_timeout: Seconds to open a connection.
    """

    reactor: Any
    connect_timeout: float
    _pool: HTTPConnectionPool = field(init=False)
    _endpoints: dict[bytes, WorkerEndpoint] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._pool = HTTPConnectionPool(self.reactor, persistent=True)
        self._pool.retryAutomatically = False
        self._pool.cachedConnectionTimeout = KEEP_ALIVE  # type: ignore[assignment]
        self._pool.maxPersistentPerHost = IDLE_CONNECTIONS_PER_WORKER

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
        connection = await self._connection(base)
        try:
            answering = connection.request(request)
            parser = connection._parser
            response: IResponse = await answering
        except RequestNotSent as problem:
            worker = base.decode("ascii")
            raise NotConnected(worker, "the idle connection was closed") from problem
        if connection.state == _ANSWERED_EARLY:
            # What is left of the request's body is not wanted any more, and its file will close.
            connection.transport.abortConnection()
        # The parser keeps Connection to itself, so nobody else can drop what it names.
        hidden = Headers() if parser is None else parser.connHeaders
        for name in connection_tokens(hidden):
            response.headers.removeHeader(name)
        return response

    async def _connection(self, base: bytes) -> Any:
        worker = base.decode("ascii")
        endpoint = self._endpoints.get(base)
        if endpoint is None:
            endpoint = WorkerEndpoint(self.reactor, worker, self.connect_timeout)
            self._endpoints[base] = endpoint
        try:
            return await self._pool.getConnection(base, endpoint)
        except CancelledError:
            raise
        except ConnectingTimedOut as problem:
            reason = f"no connection within {self.connect_timeout:g} s"
            raise ConnectTimeout(worker, reason) from problem
        except Exception as problem:
            raise NotConnected(worker, str(problem)) from problem

    def close(self) -> Deferred[None]:
        """
        Close all idle connections; the result comes when they are closed.
        """
        closing: Deferred[None] = self._pool.closeCachedConnections()
        return closing
