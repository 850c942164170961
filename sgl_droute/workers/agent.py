"""
The agent under treq: a request exactly as given, over pooled connections to workers.

It keeps apart the two failures that matter: no connection came about (another worker may be tried),
or the request may have been seen (it may not). What is asked, and for whom, it does not know.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from sgl_droute.errors import BadRequest
from sgl_droute.workers.connecting import Terms, connected
from sgl_droute.workers.connection import WorkerConnection
from sgl_droute.workers.deadlines import Deadlines
from sgl_droute.workers.idle import IdleConnections
from sgl_droute.workers.request import WorkerRequest


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

    Unlike `twisted.web.client.Agent` it writes the target as it is (an empty ``?``, odd escapes),
    shows all headers of an answer, and never sends a request a second time.

    Args:
        reactor: Provides TCP, time and a name resolver.
        connect_timeout: Seconds to open a connection, the TLS handshake included.
        deadlines: Closes idle connections; its own if None.
        terms: On which terms it connects.
    """

    reactor: Any
    connect_timeout: float
    deadlines: Deadlines | None = None
    terms: Terms = field(factory=Terms)
    _own: Deadlines | None = field(default=None, init=False)
    _idle: IdleConnections = field(init=False)

    def __attrs_post_init__(self) -> None:
        deadlines = self.deadlines
        if deadlines is None:
            deadlines = self._own = Deadlines(self.reactor)
        self._idle = IdleConnections(self.reactor, deadlines)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        The answer, a `sgl_droute.workers.response.WorkerResponse`, as soon as its head is here.

        Raises:
            NotConnected: The worker has seen nothing of the request.
            NoSockets: Nor has it; this machine is out of files or ports.
            Disconnected: The connection broke.
            WorkerFailed: The answer was none, or the body could not be sent whole.
            BadRequest: This cannot be sent.
        """
        base, target = split_target(uri)
        try:
            request = WorkerRequest(method, base, target, headers or Headers(), bodyProducer)
        except BadRequest as problem:
            return fail(problem)
        connection = self._idle.take(base)
        if connection is not None:
            return connection.send(request)
        return Deferred.fromCoroutine(self._connect_and_send(base, request))

    def close(self) -> Deferred[Any]:
        """
        Close all idle connections, and the others when they are; the result comes when the idle
        ones are closed.
        """
        closing = self._idle.close()
        if self._own is not None:
            self._own.stop()
        return closing

    async def _connect_and_send(self, base: bytes, request: WorkerRequest) -> IResponse:
        connection = await connected(
            self.reactor,
            base.decode("ascii"),
            self.connect_timeout,
            lambda: WorkerConnection(base, self._idle.keep, self._idle.drop),
            self.terms,
        )
        return await connection.send(request)
