"""
Calls to workers, through treq.

Each road to the workers (traffic, probes, control) has a client of its own with connections of its
own, so that a full road never makes a healthy worker look dead. What is asked, and what an answer
means, is not known here; every failure leaves as a `RouterError` or as `CancelledError`.
"""

from __future__ import annotations

from collections.abc import Callable
from http.cookiejar import CookieJar
from typing import Any, cast

from attrs import Factory, define, field, frozen
from hyperlink import EncodedURL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import ParseError
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers, InvalidHeaderName
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from sgl_droute.errors import AnswerCut, Disconnected, RouterError, WorkerFailed, WorkerTimeout
from sgl_droute.workers.deadlines import Deadlines
from sgl_droute.workers.tls import reason_of


class _SomeURL(EncodedURL):
    """
    What treq is given instead of a worker's URL: it would encode the host name as IDNA demands, at
    every call, which refuses names that workers have, and what it makes of the URL is not used.
    """

    def to_uri(self) -> EncodedURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return "http://worker"


class _NoCookies(CookieJar):
    """What a worker tells one client to keep is nobody else's: the router keeps nothing."""

    def add_cookie_header(self, request: object) -> None:
        pass

    def extract_cookies(self, response: object, request: object) -> None:
        pass


_SOME_URL = _SomeURL.from_text("http://worker")
_NO_COOKIES: Any = _NoCookies()

# What Twisted's parser raises at answers that are none.
_NOT_HTTP = (ParseError, ValueError, LookupError, InvalidHeaderName)


@frozen(eq=False)
class Call:
    """
    One request to one worker, exactly as it is to be sent.

    Attributes:
        method: HTTP method.
        worker: Base URL of the worker.
        target: Raw request target; begins with ``/``.
        headers: All headers but ``Host`` and those of the connection.
        body: Producer of the body, made for this call; None without one.
    """

    method: bytes
    worker: str
    target: bytes
    headers: Headers = field(factory=Headers)
    body: IBodyProducer | None = None


@frozen
class Answer:
    """
    A whole answer in memory.
    """

    status: int
    body: bytes


@define(eq=False)
class WorkerClient:
    """
    Sends calls to workers.

    Args:
        agent: What sends the bytes: `sgl_droute.workers.agent.WorkerAgent`, or a stand-in.
        clock: Provides the time.
        timeout: Seconds a worker may take to its first answer byte.
        deadlines: Where limits of time are kept; its own if not given.
        failed: Told of every failure of `fetch`.
    """

    agent: IAgent
    clock: Any
    timeout: float
    deadlines: Deadlines = Factory(lambda self: Deadlines(self.clock), takes_self=True)
    failed: Callable[[WorkerFailed], object] = lambda failed: None

    async def send(self, call: Call) -> IResponse:
        """
        The head of the worker's answer, as it came; the caller must read or drop its body.

        Raises:
            NotConnected: The worker has seen nothing of the call.
            WorkerTimeout: No answer in time.
            WorkerFailed: The connection broke, or the answer was no HTTP.
        """
        passage = _Passage(self.agent, call)
        sending = HTTPClient(passage, _NO_COOKIES).request(
            call.method.decode("ascii"),
            _SOME_URL,
            data=call.body,
            cookies=_NO_COOKIES,
            unbuffered=True,
            allow_redirects=False,
            reactor=self.clock,
        )
        limit = self.deadlines.set(self.timeout, sending.cancel)
        try:
            await sending
        except Exception as problem:
            if limit.met:
                reason = f"no response within {self.timeout:g} s"
                raise WorkerTimeout(call.worker, reason) from problem
            if isinstance(problem, RouterError):
                raise
            raise _translated(call.worker, problem) from problem
        finally:
            limit.cancel()
        response = passage.response
        assert response is not None
        if not _sound(response):
            _drop_body(response, call.worker)
            raise WorkerFailed(call.worker, f"answered with status {response.code!r}")
        return response

    async def fetch(self, call: Call, *, limit: int, whole: bool = True) -> Answer:
        """
        The answer, of at most *limit* bytes; ``timeout`` holds for all of it.

        Args:
            whole: Whether a larger answer is an error; its beginning is enough otherwise.

        Raises:
            WorkerFailed: As `send`, or the answer was cut or larger than *limit*.
        """
        try:
            return await self._fetch(call, limit, whole)
        except WorkerFailed as failed:
            self.failed(failed)
            raise

    async def _fetch(self, call: Call, limit: int, whole: bool) -> Answer:
        deadline = self.clock.seconds() + self.timeout
        response = await self.send(call)
        collector = _Collector(call.worker, limit, whole=whole)
        response.deliverBody(collector)
        left = max(0.0, deadline - self.clock.seconds())
        collector.done.addTimeout(left, self.clock, onTimeoutCancel=self._timed_out(call))
        return Answer(response.code, await collector.done)

    def _timed_out(self, call: Call) -> Any:
        def fail(_: object, seconds: float) -> Failure:
            reason = f"no response within {self.timeout:g} s"
            return Failure(WorkerTimeout(call.worker, reason))

        return fail


@define(eq=False)
class _Veil:
    """
    All that treq sees of a response: no headers. It would decode the body and keep cookies.
    """

    headers: Headers = field(factory=Headers)


@implementer(IAgent)
@define(eq=False)
class _Passage:
    """
    The agent of one call: sends the call itself, not what treq made of it (it rewrites targets,
    adds ``Accept-Encoding`` and upper-cases methods), and keeps the response as it came.
    """

    agent: IAgent
    call: Call
    response: IResponse | None = None

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        call = self.call
        url = call.worker.encode("ascii") + call.target
        answering = self.agent.request(call.method, url, call.headers, bodyProducer)
        return answering.addCallback(self._keep)

    def _keep(self, response: IResponse) -> IResponse:
        self.response = response
        return cast(IResponse, _Veil())


class _Collector(Protocol):
    """Puts a body together; `done` fires with it."""

    def __init__(self, worker: str, limit: int, *, whole: bool = True) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._drop())
        self._worker = worker
        self._limit = limit
        self._whole = whole
        self._size = 0
        self._parts: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        if self.done.called:
            return
        self._size += len(data)
        self._parts.append(data)
        if self._size > self._limit:
            beginning = b"".join(self._parts)[: self._limit]
            self._drop()
            if self._whole:
                reason = f"answer is larger than {self._limit} bytes"
                self.done.errback(WorkerFailed(self._worker, reason))
            else:
                self.done.callback(beginning)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(cut_answer(self._worker, self._size, reason))

    def _drop(self) -> None:
        self._parts.clear()
        hang_up(self.transport)


def cut_answer(worker: str, size: int, reason: Failure) -> AnswerCut:
    """
    The error for an answer of which only *size* body bytes came.
    """
    why = reason_of(_cause(reason.value))
    return AnswerCut(worker, f"answer cut after {size} bytes: {why}")


def hang_up(transport: Any) -> None:
    """
    Cut the connection that a response body comes from, *transport* being the body's own.

    At once: closing in order waits over TLS for the worker's farewell, which is never read while
    the body is paused.
    """
    connection = getattr(transport, "_producer", transport)
    if connection is not None:
        connection.abortConnection()


def _drop_body(response: IResponse, worker: str) -> None:
    unwanted = _Collector(worker, 0)
    unwanted.done.addErrback(lambda _: None)
    response.deliverBody(unwanted)


def _sound(response: IResponse) -> bool:
    return 200 <= response.code <= 599 and not set(response.phrase) & set(b"\r\n\0")


def _translated(worker: str, problem: Exception) -> Exception:
    cause = _cause(problem)
    if isinstance(cause, CancelledError):
        # The client hung up: its handler is being cancelled, and Klein expects to see that.
        return cause
    if isinstance(cause, _NOT_HTTP):
        return WorkerFailed(worker, "the answer is not HTTP")
    return Disconnected(worker, reason_of(cause) or type(cause).__name__)


def _cause(problem: BaseException | None) -> BaseException | None:
    """
    The innermost reason: Twisted wraps what happened to a connection in lists of failures.
    """
    reasons = getattr(problem, "reasons", None)
    while reasons:
        problem = reasons[0].value
        reasons = getattr(problem, "reasons", None)
    return problem
