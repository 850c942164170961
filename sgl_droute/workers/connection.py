"""
One connection to a worker: a request out, its answer in, and again.

Which worker, and what is asked, is not its business, nor what becomes of it between two requests.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import MSG_DONTWAIT, MSG_PEEK, socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from sgl_droute.errors import Disconnected, WorkerFailed
from sgl_droute.workers.answer import AnswerHead, AnswerReader, BadAnswer
from sgl_droute.workers.outlet import Outlet
from sgl_droute.workers.request import WorkerRequest
from sgl_droute.workers.response import WorkerResponse
from sgl_droute.workers.tls import reason_of
from sgl_droute.workers.upload import Upload

_PEEK = int(MSG_PEEK | MSG_DONTWAIT)

# Bytes read at once: little until so much of a body has flowed, since a client that takes nothing
# holds what was read last, then enough for the reading itself to cost little.
_READ = 1 << 15
_FLOWS = 1 << 18
_LARGE_READ = 1 << 18


class WorkerConnection(Protocol):
    """
    A connection that serves one request after the other.

    Args:
        base: Base URL of the worker.
        freed: Called when the next request may be sent.
        lost: Called when no other may be.
    """

    transport: Any

    # Whether an answer may be a 101 that leaves HTTP.
    _may_switch = False

    def __init__(
        self,
        base: bytes,
        freed: Callable[[WorkerConnection], None],
        lost: Callable[[WorkerConnection], None],
    ) -> None:
        self.base = base
        self._freed = freed
        self._lost = lost
        self._outlet: Outlet
        self._socket: socket | None = None
        self._request: WorkerRequest | None = None
        self._upload: Upload | None = None
        self._reader: AnswerReader | None = None
        self._answered: Deferred[IResponse] | None = None
        self._response: WorkerResponse | None = None
        self._paused = False
        self._closing = False
        self._flowed = 0
        self._ended: Deferred[None] = Deferred()

    # From the pool.

    def send(self, request: WorkerRequest) -> Deferred[IResponse]:
        """
        The answer to *request*, as soon as its head is here; cancelling it cuts the connection.

        Raises:
            Disconnected: The connection broke.
            WorkerFailed: What came is no answer, or the request could not be sent whole.
        """
        self._request = request
        self._reader = AnswerReader(request.method == b"HEAD", self._may_switch)
        answered: Deferred[IResponse] = Deferred(self._cancelled)
        self._answered = answered
        self._outlet.write(request.written)
        request.written = b""  # a worker may take an hour to answer
        if request.rest is not None:
            self._upload = Upload(self._outlet, request.rest, self._fail)
            self._upload.start()
        return answered

    def is_silent(self) -> bool:
        """
        Whether nothing has come that nobody has read, such as the worker's farewell.
        """
        if self._socket is None:
            return True
        try:
            self._socket.recv(1, _PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """
        Close the connection, on which nothing is under way.
        """
        if ISSLTransport.providedBy(self.transport):
            self.abort()  # it would wait for the worker's farewell
            return
        self._closing = True
        self._outlet.release()
        self.transport.loseConnection()

    def end(self) -> Deferred[None]:
        """
        As `close`, at once; the result comes when it is closed.
        """
        self.abort()
        return self._ended

    # From the response.

    def pause(self) -> None:
        """
        Read no more.
        """
        self._paused = True
        if not self._closing:
            self.transport.pauseProducing()

    def resume(self) -> None:
        """
        Read on.
        """
        self._paused = False
        if not self._closing:
            self.transport.resumeProducing()

    def abort(self) -> None:
        """
        Cut the connection.
        """
        self._closing = True
        self.transport.abortConnection()

    # From the transport.

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self._outlet = Outlet(self.transport)
        tcp = self._tcp()
        tcp.bufferSize = _READ
        handle = tcp.getHandle() if hasattr(tcp, "getHandle") else None
        self._socket = handle if isinstance(handle, socket) else None

    def dataReceived(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            self._spoke_unasked()
            return
        try:
            body = reader.feed(data)
        except BadAnswer as problem:
            self._fail(f"the answer is not HTTP: {problem}")
            return
        if self._response is not None:
            if body:
                self._flow(len(body))
                self._response.received(body)
            if reader.ended and self._reader is reader:
                self._end_answer(reader, self._response)
        elif reader.head is not None:
            self._begin_answer(reader, reader.head, body)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._socket = None
        self._closing = True
        reader, answered, response = self._reader, self._answered, self._response
        self._clear()
        self._lost(self)
        self._ended.callback(None)
        if response is not None:
            whole = reader is not None and reader.until_close and reason.check(ConnectionDone)
            end = PotentialDataLoss() if whole else ResponseFailed([reason])
            response.ended(Failure(end))
        elif answered is not None:
            answered.errback(Disconnected(self._worker, reason_of(reason.value)))

    # The answer.

    def _begin_answer(self, reader: AnswerReader, head: AnswerHead, body: bytes) -> None:
        if self._upload is not None:
            self._upload.stop()  # what is left of the request is not wanted
        response = WorkerResponse(self._request, head, self, bodiless=reader.bodiless)
        answered, self._answered = self._answered, None
        assert answered is not None
        if reader.ended:
            response.came_whole(body)
            self._free(reader, head)
            answered.callback(response)
            return
        self._response = response
        if body:
            response.received(body)
        answered.callback(response)
        response.hold()

    def _end_answer(self, reader: AnswerReader, response: WorkerResponse) -> None:
        assert reader.head is not None
        self._free(reader, reader.head)
        response.ended()

    def _free(self, reader: AnswerReader, head: AnswerHead) -> None:
        """
        Let go of the exchange that has ended, ready for the next one if it may be.
        """
        sent = (self._upload is None or self._upload.ended) and not self._outlet.full
        self._clear()
        if self._closing:
            return  # by whoever took the last of the body
        if self._flowed > _FLOWS:
            self._tcp().bufferSize = _READ
        self._flowed = 0
        if self._paused:
            self.resume()
        if not sent:
            self.abort()
        elif head.persistent and not reader.surplus:
            self._freed(self)
        else:
            self.close()

    def _flow(self, size: int) -> None:
        if self._flowed <= _FLOWS < self._flowed + size:
            self._tcp().bufferSize = _LARGE_READ
        self._flowed += size

    # Endings.

    def _cancelled(self, _: Deferred[IResponse]) -> None:
        self._clear()
        self.abort()

    def _fail(self, reason: str) -> None:
        answered, response = self._answered, self._response
        self._clear()
        self.abort()
        if response is not None:
            response.ended(Failure(ResponseFailed([Failure(BadAnswer(reason))])))
        elif answered is not None:
            answered.errback(WorkerFailed(self._worker, reason))

    def _spoke_unasked(self) -> None:
        if not self._closing:
            self._lost(self)
            self.close()

    def _clear(self) -> None:
        if self._upload is not None:
            self._upload.stop()
        self._request = self._upload = self._reader = self._answered = self._response = None

    @property
    def _worker(self) -> str:
        return self.base.decode("ascii")

    def _tcp(self) -> Any:
        """
        The TCP transport, also below TLS.
        """
        return getattr(self.transport, "transport", self.transport)
