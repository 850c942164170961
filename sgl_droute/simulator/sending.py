"""
Writes one reply to one request: with back-pressure, in constant memory, and with its fault.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.web.http import HTTPChannel
from twisted.web.server import Request
from zope.interface import implementer

from sgl_droute.simulator.faults import NO_FAULT, Rule
from sgl_droute.simulator.replies import Reply

DRIPS_PER_SECOND = 10
ABORT_DELAY = 0.1  # what is written must reach the client first; an abort drops unsent bytes


def sleep(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """
    Fires after *seconds*.
    """
    woken: Deferred[None] = Deferred()
    clock.callLater(seconds, woken.callback, None)
    return woken


def write_head(request: Request, reply: Reply) -> None:
    """
    Set status and headers of *request*'s answer.
    """
    headers = request.responseHeaders
    request.setResponseCode(reply.status)
    headers.setRawHeaders("server", ["uvicorn"])
    if reply.content_type is None:
        request.defaultContentType = None  # Twisted's way to send none
    else:
        headers.setRawHeaders("content-type", [reply.content_type])
    if reply.size is not None:
        headers.setRawHeaders("content-length", [str(reply.size)])
    for name, value in reply.headers.items():
        headers.setRawHeaders(name, [value])


def abort(channel: HTTPChannel) -> None:
    """
    Close *channel* at once, so that its peer sees a failure.
    """
    transport = channel.transport
    assert transport is not None
    transport.abortConnection()  # type: ignore[attr-defined]  # ITCPTransport has it, fakes too


def cut(request: Request) -> None:
    """
    Close the connection of *request* at once, if it has one still.
    """
    if request.channel is not None:
        abort(request.channel)


async def send(request: Request, reply: Reply, clock: IReactorTime, rule: Rule = NO_FAULT) -> None:
    """
    Write *reply* and finish *request*; returns early when its client hangs up.
    """
    write_head(request, reply)
    if isinstance(reply.body, bytes) and rule.cut_after is None and rule.drip is None:
        request.write(reply.body)
        request.finish()
        return
    body = [reply.body] if isinstance(reply.body, bytes) else reply.body
    if rule.cut_after is not None:
        body = _first(body, rule.cut_after)
    outflow = Outflow(request, iter(body), clock, rule.drip)
    if not await outflow.run():
        return
    if rule.cut_after is None:
        request.finish()
        return
    await sleep(clock, ABORT_DELAY)
    cut(request)


def _first(body: Iterable[bytes], limit: int) -> Iterator[bytes]:
    for piece in body:
        yield piece[:limit]
        limit -= len(piece)
        if limit <= 0:
            return


@implementer(IPushProducer)
@define(eq=False)
class Outflow:
    """
    Pushes the pieces of a body into a request as fast as its client takes them.

    Attributes:
        rate: Bytes per second at most; None for no limit.
    """

    request: Request
    pieces: Iterator[bytes]
    clock: IReactorTime
    rate: float | None = None
    _left: bytes = b""
    _paused: bool = False
    _writing: bool = False
    _timer: IDelayedCall | None = None
    _done: Deferred[bool] = field(factory=Deferred)

    async def run(self) -> bool:
        """
        Whether everything was written before the client hung up.
        """
        self.request.notifyFinish().addErrback(lambda _: self.stopProducing())
        self.request.registerProducer(self, True)
        self.request.write(b"")
        self._flow()
        return await self._done

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if not self._writing and self._timer is None:
            self._flow()

    def stopProducing(self) -> None:
        self._end(whole=False)

    def _flow(self) -> None:
        self._writing = True
        while not self._paused and not self._done.called and self._timer is None:
            piece = self._piece()
            if piece is None:
                self._end(whole=True)
            else:
                self.request.write(piece)
        self._writing = False

    def _piece(self) -> bytes | None:
        if self.rate is None:
            return next(self.pieces, None)
        while not self._left:
            following = next(self.pieces, None)
            if following is None:
                return None
            self._left = following
        size = max(1, int(self.rate / DRIPS_PER_SECOND))
        piece, self._left = self._left[:size], self._left[size:]
        self._timer = self.clock.callLater(len(piece) / self.rate, self._dripped)
        return piece

    def _dripped(self) -> None:
        self._timer = None
        if not self._paused:
            self._flow()

    def _end(self, *, whole: bool) -> None:
        if self._done.called:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if whole:
            self.request.unregisterProducer()
        close = getattr(self.pieces, "close", None)
        if close is not None and not whole:
            close()
        self._done.callback(whole)
