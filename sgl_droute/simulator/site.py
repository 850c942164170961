"""
Connections of a simulated worker: uvicorn's keep-alive, and requests that keep their header lines.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from sgl_droute.simulator.sending import abort

KEEP_ALIVE = 5.0


class WorkerRequest(Request):
    """
    A request that keeps its header lines as they came, and leaves its body unread.
    """

    def __init__(self, channel: HTTPChannel, queued: bool = False) -> None:
        super().__init__(channel, queued)
        self.header_lines: list[bytes] = []

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        kind = self.requestHeaders.getRawHeaders(b"content-type")
        self.requestHeaders.removeHeader(b"content-type")  # or Twisted parses forms, all in memory
        self._kind = kind
        super().requestReceived(command, path, version)

    def process(self) -> None:
        if self._kind is not None:
            self.requestHeaders.setRawHeaders(b"content-type", self._kind)
        super().process()


class WorkerChannel(HTTPChannel):
    """
    A connection that closes 5 s after an answer, and never in the middle of a request.
    """

    def connectionMade(self) -> None:
        super().connectionMade()
        self.setTimeout(None)
        self.factory.channels.add(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.channels.discard(self)
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        self.setTimeout(None)
        super().dataReceived(data)

    def headerReceived(self, line: bytes) -> bool:
        self.requests[-1].header_lines.append(line)
        return bool(super().headerReceived(line))

    def requestDone(self, request: Request) -> None:
        super().requestDone(request)
        if self.persistent and not self.requests:
            self.setTimeout(KEEP_ALIVE)


class WorkerSite(Site):
    """
    The connections of one worker.

    Attributes:
        refusing: Whether new connections are closed at once.
    """

    protocol = WorkerChannel  # type: ignore[assignment]  # any HTTPChannel serves
    noisy = False

    def __init__(self, resource: IResource, clock: IReactorTime, *, verbose: bool = False) -> None:
        super().__init__(resource, WorkerRequest, reactor=clock)
        self.verbose = verbose
        self.displayTracebacks = False
        self.refusing = False
        self.channels: set[WorkerChannel] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if self.refusing:
            return None
        channel: Any = super().buildProtocol(addr)
        channel.callLater = self.reactor.callLater
        return channel

    def log(self, request: http.Request) -> None:
        if self.verbose:
            super().log(request)

    def drop_idle(self) -> None:
        """
        Close the connections that wait for a request.
        """
        for channel in [one for one in self.channels if not one.requests]:
            channel.loseConnection()

    def drop_all(self) -> None:
        """
        Close every connection, answered or not.
        """
        for channel in list(self.channels):
            abort(channel)
