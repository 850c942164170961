"""
How bytes from clients become requests: limits, timeouts, a JSON answer to whatever is malformed.

What a request means is not known here; its target and headers go on as they came.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import Any

from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, parse_qs
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from sgl_droute.api.replies import abort, empty_reply, error_reply, refusal, reply
from sgl_droute.api.target import admitted, origin_form
from sgl_droute.errors import (
    BadRequest,
    BodyTooLarge,
    HeadersTooLarge,
    NoStorage,
    RequestTimeout,
    RouterError,
    TargetTooLong,
)
from sgl_droute.workers.headers import connection_tokens

log = Logger()

# A body up to this size stays in memory, a larger one goes to a temporary file.
SPOOL_IN_MEMORY = 1 << 16
DEFAULT_MAX_BODY_SIZE = 512 << 20
# Seconds that a client's connection may wait for its next request.
KEEP_ALIVE = 75.0
# Seconds that a refused client may go on sending in all, and be silent without closing.
_LINGER = 30.0
_LINGER_SILENCE = 2.0
_LENGTH_DIGITS = 18
# Bytes that a client may send behind a request before that is answered.
_BEHIND_AN_ANSWER = 1 << 14
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class RouterRequest(Request):
    """
    A request whose body is kept in a file, unparsed, and refused beyond the site's limit.

    A site of another program takes it as its ``requestFactory``; a ``max_body_size`` (bytes)
    attribute of that site is honoured.
    """

    channel: Any
    content: Any
    _limit = DEFAULT_MAX_BODY_SIZE
    _size = 0
    _refused: RouterError | None = None

    def gotLength(self, length: int | None) -> None:
        self._limit = getattr(self.channel.site, "max_body_size", DEFAULT_MAX_BODY_SIZE)
        self.content = SpooledTemporaryFile(max_size=SPOOL_IN_MEMORY)  # noqa: SIM115
        if length is not None and length > self._limit:
            self._refuse_size()

    def parseCookies(self) -> None:
        """Cookies are the worker's business."""

    def handleContentChunk(self, data: bytes) -> None:
        if self._refused:
            return
        self._size += len(data)
        if self._size > self._limit:
            self._refuse_size()
        else:
            self._keep(lambda: self.content.write(data))

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        self.method, self.uri, self.clientproto = command, path, version
        if not self._refused:
            self._keep(lambda: self.content.seek(0))
        if not self._refused:
            try:
                self.uri = origin_form(command, path)
            except RouterError as error:
                self._refuse(error)
        if self._refused:
            self._tell_refused(self._refused)
            return
        self.path, _, query = self.uri.partition(b"?")
        self.args = parse_qs(query, True)
        if self.uri == b"*":
            self._answer(empty_reply(self))
        else:
            self.process()

    def processingFailed(self, reason: Failure) -> None:
        log.failure("request {path} broke", reason, path=self.path)
        if self.startedWriting:
            abort(self)
            return
        self._answer(reply(self, {"error": "Internal error"}, 500))

    def _answer(self, body: bytes) -> None:
        self.write(body)
        self.finish()

    def _keep(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as problem:
            log.failure("a request body could not be kept")
            self._refuse(NoStorage(f"The request body could not be kept: {problem.strerror}"))

    def _refuse_size(self) -> None:
        self._refuse(BodyTooLarge(f"The request body is larger than {self._limit} bytes"))

    def _refuse(self, error: RouterError) -> None:
        self._refused = error
        with suppress(OSError):  # a full disk cannot take what is still to be flushed
            self.content.close()
        if isinstance(self.channel, RouterChannel):
            self.channel.refuse(error)

    def _tell_refused(self, error: RouterError) -> None:
        # Channels of other programs take no answer before the request's end.
        if not isinstance(self.channel, RouterChannel):
            self._answer(error_reply(self, error))


class RouterChannel(HTTPChannel):
    """
    One client connection.

    Stricter than its base, and never silent: what it refuses is answered with JSON and a status.
    Lines end in CRLF and hold no control characters (the base lets both through in places);
    folded headers, a length beside chunks and codings other than chunked are refused (RFC 9112
    2.2, 5.2, 6.1, 6.3). What a header block says is judged before its body is read.
    """

    # With LF as the delimiter a line shows whether it ended in CRLF.
    delimiter = b"\n"
    abortTimeout: float  # type: ignore[assignment]
    transport: Any
    _networkProducer: Any
    _phase = "idle"

    def __init__(self, keep_alive: float, read_timeout: float, abort_timeout: float) -> None:
        super().__init__()
        self._keep_alive = keep_alive
        self._read_timeout = read_timeout
        self.abortTimeout = abort_timeout

    # A connection is idle, or headers arrive, or a body does, or an answer is due; or it is closing
    # and what still comes is dropped.

    def dataReceived(self, data: bytes) -> None:
        if self._phase == "closing":
            self.resetTimeout()
            return
        try:
            super().dataReceived(data)
        except Exception:
            log.failure("a request could not be read")
            self.refuse(BadRequest("The request could not be read"))
        self._begin_headers(self._buffer)

    def rawDataReceived(self, data: bytes) -> None:
        if self._phase == "closing":
            return
        super().rawDataReceived(data)
        if self._handlingRequest and sum(map(len, self._dataBuffer)) > _BEHIND_AN_ANSWER:
            # The base goes on reading while the client does not take the answer before.
            self._networkProducer.pauseProducing()

    def allHeadersReceived(self) -> None:
        self._phase = "body"
        self.setTimeout(self._read_timeout)
        hosts = self.requests[-1].requestHeaders.getRawHeaders(b"host", [])
        try:
            admitted(self._command, self._path, self._version, hosts)
        except RouterError as error:
            self.refuse(error)
        else:
            super().allHeadersReceived()

    def allContentReceived(self) -> None:
        if self._phase != "closing":
            self._phase = "answer"
            super().allContentReceived()

    def _finishRequestBody(self, data: bytes) -> None:
        trailers = getattr(self._transferDecoder, "_trailerHeaders", ())
        if all(_TRAILER.fullmatch(trailer) for trailer in trailers):
            super()._finishRequestBody(data)
        else:
            self.refuse(BadRequest("Malformed trailer"))

    def requestDone(self, request: Request) -> None:
        self._phase = "idle"
        self._savedTimeOut = self._keep_alive
        super().requestDone(request)

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        # The base reads one header only, and that up to a comma.
        if version == b"HTTP/1.1" and b"close" not in connection_tokens(request.requestHeaders):
            return True
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def resetTimeout(self) -> None:
        # One byte now and then must not keep a header alive.
        if self._phase != "headers":
            super().resetTimeout()

    def timeoutConnection(self) -> None:
        if self._phase in ("headers", "body"):
            late = f"The request's {self._phase} did not arrive within {self._read_timeout:g} s"
            self.refuse(RequestTimeout(late))
        else:
            self.loseConnection()

    def _begin_headers(self, data: bytes) -> None:
        # Some clients send an empty line behind a body: no request begins with that.
        begun = data.lstrip(b"\r\n")
        if self._phase != "idle" or not begun:
            return
        self._phase = "headers"
        self.setTimeout(self._read_timeout)
        if not begun[:1].isascii() or _CONTROL.match(begun):
            self.refuse(BadRequest("This is not HTTP (TLS is not served on this port)"))

    # Lines of the header.

    def lineReceived(self, line: bytes) -> None:
        self._begin_headers(line)
        if self._phase == "closing":
            return
        bare = line[:-1]
        if not line.endswith(b"\r"):
            self.refuse(BadRequest("A line must end with CR LF"))
        elif _CONTROL.search(bare):
            self.refuse(BadRequest("A line must not hold control characters"))
        elif line[:1] in (b" ", b"\t"):
            self.refuse(BadRequest("A line must not begin with white space"))
        elif self._receivedHeaderSize + len(line) > self.totalHeadersSize:
            self.lineLengthExceeded(line)
        else:
            super().lineReceived(bare)

    def lineLengthExceeded(self, line: bytes) -> None:
        size = f"{self.totalHeadersSize} bytes"
        if self._receivedHeaderSize:
            limits = f"{size} or {self.maxHeaders} lines"
            self.refuse(HeadersTooLarge(f"The request's headers are more than {limits}"))
        else:
            self.refuse(TargetTooLong(f"The request line is more than {size}"))

    def headerReceived(self, line: bytes) -> bool:
        if self._receivedHeaderCount >= self.maxHeaders:
            self.lineLengthExceeded(line)
            return False
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        if name == b"transfer-encoding" and not self._takes_coding(value):
            self.refuse(BadRequest("Transfer-Encoding must be chunked, on HTTP/1.1"))
            return False
        if name == b"content-length" and value.isdigit() and len(value) > _LENGTH_DIGITS:
            self.refuse(BodyTooLarge("Content-Length is beyond any limit"))
            return False
        return bool(super().headerReceived(line))

    def _takes_coding(self, value: bytes) -> bool:
        return value.lower() == b"chunked" and self._version == b"HTTP/1.1"

    # Endings.

    def refuse(self, error: RouterError) -> None:
        """
        Answer *error* and close, reading on for a while what the client still sends: closing at
        once would reset the connection, and the reset can overtake the answer (RFC 9112 9.6).
        """
        if self._phase == "closing":
            return
        self._phase = "closing"
        peer = self.transport.getPeer()
        name = f"{peer.host}:{peer.port}" if hasattr(peer, "port") else "local client"
        log.info("{client} refused: {error}", client=name, error=error)
        self.transport.write(refusal(error, self.requests[-1] if self.requests else None))
        self._networkProducer.unregisterProducer()
        self._networkProducer.resumeProducing()
        if ITCPTransport.providedBy(self.transport) and not self.isSecure():
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()  # TLS reads on by itself until the client closes too
        self.setTimeout(_LINGER_SILENCE)
        self._abortingCall = self.callLater(_LINGER, self.loseConnection)

    def loseConnection(self) -> None:
        """
        Close when what is written has left, or after the abort timeout at the latest: a client
        that takes nothing more must not hold its connection.
        """
        self._phase = "closing"
        self.setTimeout(None)
        super().loseConnection()
        if self._abortingCall is not None and self._abortingCall.active():
            self._abortingCall.cancel()
        self._abortingCall = self.callLater(self.abortTimeout, self.forceAbortClient)

    def _send100Continue(self) -> None:
        if self._phase != "closing":
            super()._send100Continue()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.refuse(BadRequest("Malformed request"))


class RouterSite(Site):
    """
    Serves *resource* with the router's limits.

    Args:
        reactor: Provides the time.
        resource: What answers.
        max_body_size: Largest request body (bytes).
        read_timeout: Seconds for headers to arrive, and of silence inside a body.
        idle_timeout: Seconds a closing connection waits for a client that takes nothing.
    """

    requestFactory = RouterRequest

    def __init__(
        self,
        reactor: IReactorTime,
        resource: IResource,
        *,
        max_body_size: int,
        read_timeout: float,
        idle_timeout: float,
    ) -> None:
        super().__init__(resource, reactor=reactor, timeout=KEEP_ALIVE)
        self.noisy = False
        self.max_body_size = max_body_size
        self.read_timeout = read_timeout
        self.idle_timeout = idle_timeout

    def protocol(self) -> RouterChannel:  # type: ignore[override]
        return RouterChannel(KEEP_ALIVE, self.read_timeout, self.idle_timeout)

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 only: `RouterChannel` speaks nothing else."""
        return [b"http/1.1"]

    def log(self, request: object) -> None:
        """No access log in the combined format."""
