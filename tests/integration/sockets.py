"""
Real sockets for tests: a router, workers that follow a script byte by byte, and plain clients.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from sgl_droute.service import RouterService
from sgl_droute.settings import RouterSettings

reactor: Any = _reactor

GET = b"GET /server_info HTTP/1.1\r\nHost: router\r\nX-Request-Id: 1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
# What a test waits for takes milliseconds, but not on every machine (seconds).
PATIENCE = 20.0


class Connection(Protocol):
    """
    One end of a TCP connection that keeps every byte and can be waited for.
    """

    def __init__(self) -> None:
        self.received = b""
        self.closed: Failure | None = None
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed = reason
        self._look()

    @property
    def reset(self) -> bool:
        """Whether the other end cut the connection instead of closing it."""
        return self.closed is not None and self.closed.check(ConnectionLost) is not None

    async def until(self, happened: Callable[[], bool], timeout: float = PATIENCE) -> None:
        """
        Return once *happened*; fail after *timeout* seconds.
        """
        if happened():
            return
        done: Deferred[None] = Deferred()
        self._waiting.append((happened, done))
        done.addTimeout(timeout, reactor)
        await done

    async def until_closed(self, timeout: float = PATIENCE) -> bytes:
        """
        All bytes received until the other end closed.
        """
        await self.until(lambda: self.closed is not None, timeout)
        return self.received

    async def until_received(self, text: bytes, timeout: float = PATIENCE) -> bytes:
        """
        All bytes received once *text* is among them.
        """
        await self.until(lambda: text in self.received, timeout)
        return self.received

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def _look(self) -> None:
        for each in list(self._waiting):
            happened, done = each
            if happened():
                self._waiting.remove(each)
                if not done.called:
                    done.callback(None)


@define(eq=False)
class ScriptedWorker:
    """
    A worker that only accepts connections: the test writes what it answers.

    Health checks are answered by the script too, so tests that need peace use a long interval.
    """

    connections: list[Connection] = field(factory=list)
    port: Any = None
    _waiting: list[tuple[int, Deferred[Connection]]] = field(factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port.getHost().port}"

    async def connection(self, number: int = 0, request: bytes = b"\r\n\r\n") -> Connection:
        """
        The connection of that number (from 0) once *request* has arrived on it.
        """
        if len(self.connections) <= number:
            coming: Deferred[Connection] = Deferred()
            self._waiting.append((number, coming))
            coming.addTimeout(PATIENCE, reactor)
            await coming
        connection = self.connections[number]
        await connection.until_received(request)
        return connection

    def made(self, connection: Connection) -> None:
        self.connections.append(connection)
        for each in list(self._waiting):
            number, coming = each
            if number == len(self.connections) - 1:
                self._waiting.remove(each)
                coming.callback(connection)


class _WorkerConnection(Connection):
    def __init__(self, worker: ScriptedWorker) -> None:
        super().__init__()
        self._worker = worker

    def connectionMade(self) -> None:
        self._worker.made(self)


@asynccontextmanager
async def scripted_worker() -> AsyncIterator[ScriptedWorker]:
    """
    A scripted worker on a free port of 127.0.0.1; its connections end with it.
    """
    worker = ScriptedWorker()
    factory = Factory.forProtocol(lambda: _WorkerConnection(worker))
    factory.noisy = False
    endpoint = TCP4ServerEndpoint(reactor, 0, backlog=2048, interface="127.0.0.1")
    worker.port = await endpoint.listen(factory)
    try:
        yield worker
    finally:
        await worker.port.stopListening()
        for connection in worker.connections:
            connection.transport.abortConnection()
            await connection.until_closed()


@define(eq=False)
class Router:
    """
    A running router.
    """

    service: RouterService
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def in_flight(self) -> int:
        return sum(worker.in_flight for worker in self.service.pool)

    async def at_rest(self) -> None:
        """
        Return once no request is in flight; fail after `PATIENCE`.
        """
        await eventually(lambda: self.in_flight == 0)


@asynccontextmanager
async def running_router(*workers: str, **options: Any) -> AsyncIterator[Router]:
    """
    A router on a free port of 127.0.0.1 in front of *workers* (base URLs).
    """
    options.setdefault("health_check_interval", 3600.0)
    options.setdefault("drain_timeout", 0.0)
    service = RouterService(reactor, RouterSettings(worker_urls=workers, **options))
    service.startService()
    endpoint = TCP4ServerEndpoint(reactor, 0, backlog=2048, interface="127.0.0.1")
    port = await endpoint.listen(service.site())
    try:
        yield Router(service, port.getHost().port)
    finally:
        await port.stopListening()
        await service.stopService()


async def connect(port: int, protocol: Callable[[], Connection] = Connection) -> Connection:
    """
    A plain client connection to a port of 127.0.0.1.
    """
    factory = Factory.forProtocol(protocol)
    factory.noisy = False
    connection: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
    assert isinstance(connection, Connection)
    return connection


class Exchange(NamedTuple):
    """
    A request under way: the worker has it and has not answered.
    """

    router: Router
    worker: ScriptedWorker
    client: Connection
    at_worker: Connection


@asynccontextmanager
async def exchange(request: bytes = GET, **options: Any) -> AsyncIterator[Exchange]:
    """
    *request* sent by a client through a router with these options to its only worker.
    """
    async with scripted_worker() as worker, running_router(worker.url, **options) as router:
        await worker.connection()  # the health check
        client = await connect(router.port)
        client.write(request)
        yield Exchange(router, worker, client, await worker.connection(1))


async def eventually(happened: Callable[[], bool], timeout: float = PATIENCE) -> None:
    """
    Return once *happened*, looking every 10 ms; fail after *timeout* seconds.
    """
    for _ in range(int(timeout * 100)):
        if happened():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it never happened")
