"""
A worker's answer as `twisted.web.iweb.IResponse`, from its head on.

It holds what nobody has taken yet, and has its connection paused meanwhile. How the bytes were read
it does not know.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from zope.interface import implementer

from sgl_droute.workers.answer import AnswerHead

_DONE = Failure(ResponseDone("Response body fully received"))


class Source(Protocol):
    """Where a body comes from."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abort(self) -> None: ...


@implementer(IResponse, IPushProducer)
class WorkerResponse:
    """
    An answer; its body must be delivered to somebody, or cut, unless it is `whole`.

    It is the transport of whoever gets the body. Once the body has ended that does nothing, since
    the connection may serve another request.

    Attributes:
        fields: The headers in order, as they came but for those that ``Connection`` names.
        headers: The same as `Headers`.
        length: Bytes of the body: 0 where there is none to come, as for HEAD, whatever
            ``Content-Length`` says; `UNKNOWN_LENGTH` if that is not told.
        whole: The body, if all of it came with the head.
    """

    __slots__ = (
        "_body",
        "_end",
        "_headers",
        "_held",
        "_parts",
        "_paused",
        "_source",
        "code",
        "fields",
        "length",
        "phrase",
        "previousResponse",
        "request",
        "version",
        "whole",
    )

    def __init__(self, request: Any, head: AnswerHead, source: Source, *, bodiless: bool) -> None:
        self.request = request
        self.version = (b"HTTP", 1, head.minor)
        self.code = head.code
        self.phrase = head.phrase
        self.fields = head.fields
        self.length: Any = UNKNOWN_LENGTH if head.length is None else head.length
        if bodiless or head.code in (204, 304):
            self.length = 0
        self.whole: bytes | None = None
        self.previousResponse: IResponse | None = None
        self._headers: Headers | None = None
        self._source: Source | None = source
        self._body: IProtocol | None = None
        self._parts: list[bytes] = []
        self._end: Failure | None = None
        self._paused = False
        self._held = False

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers()
            for name, value in self.fields:
                self._headers.addRawHeader(name, value)
        return self._headers

    def setPreviousResponse(self, previousResponse: IResponse) -> None:
        self.previousResponse = previousResponse

    def deliverBody(self, protocol: IProtocol) -> None:
        """
        Give the body to *protocol*, then say how it ended: `ResponseDone`, `PotentialDataLoss` if
        it ended with its connection, or `ResponseFailed`.
        """
        if self._body is not None:
            raise RuntimeError("the body is delivered already")
        self._body = protocol
        protocol.makeConnection(self)  # type: ignore[arg-type]
        parts, self._parts = self._parts, []
        for part in parts:
            protocol.dataReceived(part)
        if self._end is not None:
            protocol.connectionLost(self._end)
        elif self._held:
            self._held = False
            if self._source is not None and not self._paused:
                self._source.resume()

    # From the connection.

    def came_whole(self, body: bytes) -> None:
        """
        All of the body is here.
        """
        self.whole = body
        if body:
            self._parts.append(body)
        self._source = None
        self._end = _DONE

    def received(self, data: bytes) -> None:
        """
        Take a part of the body.
        """
        if self._body is None:
            self._parts.append(data)
        else:
            self._body.dataReceived(data)

    def ended(self, reason: Failure = _DONE) -> None:
        """
        There is no more of the body.
        """
        self._source = None
        self._end = reason
        if self._body is not None:
            self._body.connectionLost(reason)

    def hold(self) -> None:
        """
        Let nothing more come until somebody takes the body.
        """
        if self._body is None and self._source is not None:
            self._held = True
            self._source.pause()

    def detach(self) -> bytes:
        """
        Have no more to do with the connection; what nobody has taken of the body.
        """
        self._source = None
        parts, self._parts = self._parts, []
        return b"".join(parts)

    # From whoever gets the body.

    def pauseProducing(self) -> None:
        self._paused = True
        if self._source is not None:
            self._source.pause()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._source is not None:
            self._source.resume()

    def stopProducing(self) -> None:
        self.abortConnection()

    def loseConnection(self) -> None:
        """As `abortConnection`: what is still to come is not wanted."""
        self.abortConnection()

    def abortConnection(self) -> None:
        """Cut the connection, unless the body has ended."""
        if self._source is not None:
            self._source.abort()
