"""
One request from its arrival to the last byte of its answer, faults included.

The work of a request is never cancelled: a client that hangs up only makes its answer unwanted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import IO

from attrs import Factory, define, evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from sgl_droute.simulator.discovery import Discovery
from sgl_droute.simulator.engine import Engine
from sgl_droute.simulator.faults import NO_FAULT, Rule
from sgl_droute.simulator.journal import Received
from sgl_droute.simulator.replies import (
    PLAIN,
    GenerationFailed,
    Reply,
    WorkerError,
    internal_error,
    json_reply,
)
from sgl_droute.simulator.sending import cut, send, sleep

Work = Callable[[], Awaitable[Reply]]

OPEN_IN_WARMUP = frozenset(
    {"/metrics", "/liveness", "/health", "/health_generate", "/model_info", "/server_info"}
)
OWN_PATHS = "/simulator"
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-credentials": "true",
    "vary": "Origin",
}
BLOCK = 1 << 20

log = Logger()


def headers_of(request: Request) -> list[tuple[str, str]]:
    """
    The header lines of *request*, as they came if its connection has kept them.
    """
    lines: list[bytes] | None = getattr(request, "header_lines", None)
    if lines is None:
        return [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, values in request.requestHeaders.getAllRawHeaders()
            for value in values
        ]
    pairs = (line.decode("latin-1").partition(":") for line in lines)
    return [(name, value.strip()) for name, _, value in pairs]


def path_of(request: Request) -> str:
    """
    The decoded path of *request*.
    """
    segments: list[bytes] = [*(request.prepath or ()), *(request.postpath or ())]
    return "/" + b"/".join(segments).decode("utf-8", "replace")


def measured(content: IO[bytes]) -> tuple[int, str]:
    """
    Length and SHA-256 of *content*, which is left at its start.
    """
    size, digest = 0, sha256()
    content.seek(0)
    while block := content.read(BLOCK):
        size += len(block)
        digest.update(block)
    content.seek(0)
    return size, digest.hexdigest()


@define(eq=False)
class Exchanges:
    """
    Makes an exchange of every request, once its work is known.

    Attributes:
        on_exit: Called when the worker has ended.
        gone: Whether it has.
    """

    engine: Engine
    discovery: Discovery
    on_exit: Callable[[], object]
    gone: bool = False
    _open: set[Request] = Factory(set)
    _waiting: list[Deferred[None]] = Factory(list)

    def __call__(self, work: Callable[..., Awaitable[Reply]], *args: object) -> Exchange:
        return Exchange(self, lambda: work(*args))

    def warm(self) -> Deferred[None]:
        """
        Fires when the worker has warmed up.
        """
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        return waiter

    def warmed_up(self) -> None:
        """
        Let the held requests go, in order of arrival.
        """
        self.discovery.warming = False
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def entered(self, request: Request) -> None:
        self.discovery.open_requests += 1
        self._open.add(request)

    def left(self, request: Request) -> None:
        self.discovery.open_requests -= 1
        self._open.discard(request)

    def exit(self) -> None:
        """
        End the worker as a kill does: every open request is cut off, and so is every later one.
        """
        self.gone = True
        for request in list(self._open):
            cut(request)
        self.engine.die()
        self.on_exit()

    def receive(self, request: Request) -> Received:
        """
        A journal entry for *request*; unnumbered and unkept for the simulator's own paths.
        """
        assert request.content is not None
        size, digest = measured(request.content)
        entry = Received(
            number=0,
            method=request.method.decode("latin-1"),
            target=request.uri.decode("latin-1"),
            headers=headers_of(request),
            body_size=size,
            body_sha256=digest,
            started=self.engine.now(),
        )
        if is_backstage(path_of(request)):
            return entry
        return self.engine.journal.request(entry)


def is_backstage(path: str) -> bool:
    """
    Whether *path* is one of the simulator's own that faults and the journal pass by.
    """
    return path in (f"{OWN_PATHS}/faults", f"{OWN_PATHS}/log")


class Exchange(Resource):
    """
    Answers one request with the reply of its work.
    """

    isLeaf = True

    def __init__(self, exchanges: Exchanges, work: Work) -> None:
        super().__init__()
        self._exchanges = exchanges
        self._engine = exchanges.engine
        self._work = work

    def render(self, request: Request) -> int:
        entry = self._exchanges.receive(request)
        request.notifyFinish().addBoth(self._over, request, entry)
        self._exchanges.entered(request)
        if self._exchanges.gone:
            cut(request)
        else:
            Deferred.fromCoroutine(self._run(request, entry)).addErrback(self._broke)
        return NOT_DONE_YET

    def _over(self, result: object, request: Request, entry: Received) -> None:
        self._exchanges.left(request)
        entry.ended = self._engine.now()
        entry.cut_off = isinstance(result, Failure)

    def _broke(self, failure: Failure) -> None:
        log.failure("Answering a request broke", failure=failure)

    async def _run(self, request: Request, entry: Received) -> None:
        path, clock = path_of(request), self._engine.clock
        backstage = is_backstage(path)
        rule = NO_FAULT if backstage else self._engine.faults.take(entry.method, path)
        if rule.delay:
            await sleep(clock, rule.delay)
        if self._exchanges.discovery.warming and not backstage and path not in OPEN_IN_WARMUP:
            await self._exchanges.warm()
        if entry.ended is not None:
            return
        if rule.busy:
            self._engine.gpu.occupy(rule.busy)
        if rule.dead and not rule.work:
            self._engine.die()
        reply = None if rule.instead else await self._reply(request, backstage)
        if rule.dead:
            self._engine.die()
        if rule.exit:
            self._exchanges.exit()
        elif rule.drop:
            cut(request)
        elif not rule.hang:
            await self._answer(request, entry, reply, rule)

    async def _answer(
        self, request: Request, entry: Received, reply: Reply | None, rule: Rule
    ) -> None:
        if rule.status is not None:
            reply = forced(rule.status, rule.body)
        assert reply is not None
        if rule.first_byte:
            await sleep(self._engine.clock, rule.first_byte)
        if entry.ended is None and not self._exchanges.gone:
            entry.status = reply.status
            await send(request, allowing(request, reply), self._engine.clock, rule)

    async def _reply(self, request: Request, backstage: bool) -> Reply:
        if request.requestHeaders.hasHeader("access-control-request-method"):
            return preflight(request)
        dead = self._engine.gpu.dead
        if request.method == b"POST" and dead is not None and not backstage:
            return json_reply({"error": dead}, 503)
        if path_of(request).startswith("//"):
            return json_reply({"detail": "Not Found"}, 404)
        if request.method == b"HEAD":
            return json_reply({"detail": "Method Not Allowed"}, 405, {"allow": "GET"})
        try:
            return await self._work()
        except WorkerError as error:
            return error.reply
        except GenerationFailed as error:
            log.warn("Generation failed: {error}", error=str(error))
            return internal_error().reply
        except Exception:
            log.failure("A simulated route broke")
            return internal_error().reply


def allowing(request: Request, reply: Reply) -> Reply:
    """
    *reply* with a worker's wide-open CORS headers, if *request* comes from a page.
    """
    if not request.requestHeaders.hasHeader("origin"):
        return reply
    return evolve(reply, headers={**reply.headers, **CORS})


def preflight(request: Request) -> Reply:
    """
    The answer to a browser that asks whether it may send a request.
    """
    headers = {
        "access-control-allow-methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        "access-control-max-age": "600",
    }
    asked = request.requestHeaders.getRawHeaders("access-control-request-headers")
    if asked:
        headers["access-control-allow-headers"] = asked[0]
    return Reply(200, PLAIN, b"OK", headers)


def forced(status: int, body: object) -> Reply:
    """
    The answer that a fault prescribes.
    """
    if body is None:
        return json_reply({"detail": f"simulated fault {status}"}, status)
    if isinstance(body, str):
        return Reply(status, PLAIN, body.encode())
    return json_reply(body, status)
