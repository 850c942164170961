"""
A worker's answer on its way to the client: status, headers and bytes unchanged, as they come.

It reads as fast as the client takes and never holds more than the transports' buffers. Which worker
answers, and why, is not its business.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import NO_BODY_CODES, PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse
from twisted.web.server import Request
from zope.interface import implementer

from sgl_droute.errors import RequestTimeout, RouterError, WorkerTimeout
from sgl_droute.workers.client import cut_answer, hang_up
from sgl_droute.workers.deadlines import Deadline, Deadlines
from sgl_droute.workers.lesson import Lesson
from sgl_droute.workers.unsent import unsent_bytes

# Bodies up to this size fit into the client transport's buffer: they need no back-pressure.
_SMALL = 1 << 16


async def relay(
    response: IResponse,
    request: Request,
    headers: Headers,
    *,
    worker: str,
    deadlines: Deadlines,
    idle_timeout: float,
    lesson: Lesson | None = None,
) -> None:
    """
    Send *response* to the client of *request*; returns when its last byte is written.

    Cancelling it, as a client that hangs up does, closes the connection to the worker and leaves
    the request alone.

    Args:
        response: Its body is unread.
        headers: The headers to answer with.
        worker: Base URL of the worker, for messages.
        deadlines: Where limits of time are kept.
        idle_timeout: Seconds that the worker may be silent while the client reads, and the client
            may take no byte.
        lesson: Shown every part of the body.

    Raises:
        WorkerFailed: The worker's answer was cut, or the worker fell silent.
        RequestTimeout: The client took no byte for too long.
    """
    _start(response, request, headers)
    whole = getattr(response, "whole", None)
    if whole is not None:
        _teach(lesson, whole)
        request.write(whole)
    else:
        await _stream(response, request, _Body(request, worker, deadlines, idle_timeout, lesson))
    request.finish()


def _teach(lesson: Lesson | None, whole: bytes) -> None:
    if lesson is not None:
        lesson.feed(whole)
        lesson.end()


async def _stream(response: IResponse, request: Request, body: _Body) -> None:
    small = response.length is not UNKNOWN_LENGTH and response.length <= _SMALL
    if not small:
        request.registerProducer(body, True)
    response.deliverBody(body)
    if not body.done.called:
        # The head is worth having as soon as it is here, however long the body takes.
        request.write(b"")
        body.watch()
    try:
        await body.done
    finally:
        if not small and request.channel is not None:
            request.unregisterProducer()


def _start(response: IResponse, request: Request, headers: Headers) -> None:
    request.setResponseCode(response.code, response.phrase)
    request.defaultContentType = None
    request.responseHeaders = headers
    bodiless = request.method == b"HEAD" or response.code in NO_BODY_CODES
    if response.length is not UNKNOWN_LENGTH and not bodiless:
        request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % response.length])


@implementer(IPushProducer)
class _Body(Protocol):
    """
    The body between the worker's transport and the request; `done` fires at its end.
    """

    def __init__(
        self,
        request: Request,
        worker: str,
        deadlines: Deadlines,
        idle_timeout: float,
        lesson: Lesson | None,
    ) -> None:
        self.done: Deferred[None] = Deferred(self._cancelled)
        self.transport: Any = None
        self._request = request
        self._worker = worker
        self._deadlines = deadlines
        self._clock = deadlines.clock
        self._idle_timeout = idle_timeout
        self._lesson = lesson
        self._size = 0
        self._paused = False
        self._moved = self._clock.seconds()
        self._unsent: int | None = None
        self._check: Deadline | None = None

    # From the worker.

    def connectionMade(self) -> None:
        if self._paused:  # the client was behind before the body began
            self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        self._size += len(data)
        self._moved = self._clock.seconds()
        if self._lesson is not None:
            # Before the client has it: what it asks next may depend on it.
            self._lesson.feed(data)
        self._request.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        self._unwatch()
        if reason.check(ResponseDone, PotentialDataLoss):
            if self._lesson is not None:
                self._lesson.end()
            self.done.callback(None)
        else:
            self.done.errback(cut_answer(self._worker, self._size, reason))

    # From the client's transport.

    def pauseProducing(self) -> None:
        self._paused = True
        self._moved = self._clock.seconds()
        self._unsent = unsent_bytes(self._request.transport)
        if self.transport is not None:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        self._moved = self._clock.seconds()
        if self.transport is not None:
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        self._hang_up()

    # Silence.

    def watch(self) -> None:
        """
        End with an error when nothing moves for too long.
        """
        self._check = self._deadlines.set(self._idle_timeout, self._still_moving)

    def _still_moving(self) -> None:
        self._check = None
        if self._paused:
            unsent = unsent_bytes(self._request.transport)
            if unsent != self._unsent:
                self._unsent = unsent
                self._moved = self._clock.seconds()
        left = self._moved + self._idle_timeout - self._clock.seconds()
        if left > 0:
            self._check = self._deadlines.set(left, self._still_moving)
            return
        self._hang_up()
        self.done.errback(self._silence())

    def _silence(self) -> RouterError:
        if self._paused:
            return RequestTimeout(f"Client took no byte for {self._idle_timeout:g} s")
        reason = f"silent for {self._idle_timeout:g} s after {self._size} bytes"
        return WorkerTimeout(self._worker, reason)

    def _unwatch(self) -> None:
        if self._check is not None:
            self._check.cancel()
            self._check = None

    def _cancelled(self, _: Deferred[None]) -> None:
        self._unwatch()
        self._hang_up()

    def _hang_up(self) -> None:
        hang_up(self.transport)
