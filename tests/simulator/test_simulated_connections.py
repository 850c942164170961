"""
Connections of a simulated worker: keep-alive, back-pressure, header lines, and no cancelling.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import pytest_twisted
import treq
from attrs import evolve
from twisted.internet import error, reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.web.client import ResponseFailed

from sgl_droute.simulator.backstage import pattern
from sgl_droute.simulator.sending import Outflow
from sgl_droute.simulator.service import WorkerService
from sgl_droute.simulator.settings import SimulatorSettings
from sgl_droute.simulator.worker import SimulatedWorker

SETTINGS = SimulatorSettings(port=0, model="flux.1-dev", speed=50)
GENERATIONS = "/v1/images/generations"

Test = Callable[..., Coroutine[Any, Any, None]]
on_reactor: Callable[[Test], Test] = pytest_twisted.ensureDeferred


class Connection:
    """
    A connection to a worker in memory, as a server sees it.
    """

    def __init__(self, worker: SimulatedWorker) -> None:
        self.transport = StringTransport()
        self.channel = worker.site().buildProtocol(None)
        self.channel.makeConnection(self.transport)

    def send(self, text: str) -> None:
        self.channel.dataReceived(text.replace("\n", "\r\n").encode())


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def connection(clock: Clock) -> Connection:
    return Connection(SimulatedWorker(clock, evolve(SETTINGS, speed=1)))


def test_idle_connections_close_after_5_seconds(clock: Clock, connection: Connection) -> None:
    """
    An answered connection is closed after 5 idle seconds, counted anew after each answer.
    """
    clock.advance(60.0)
    for _ in range(2):
        connection.send("GET /health HTTP/1.1\nHost: x\n\n")
        clock.advance(4.9)
        assert not connection.transport.disconnecting
    clock.advance(0.2)
    assert connection.transport.disconnecting


def test_busy_connections_stay_open(clock: Clock, connection: Connection) -> None:
    """
    Neither a slow request nor a long generation counts as idle.
    """
    connection.send("GET /health HTTP/1.1\nHost: x\n\n")
    body = json.dumps({"prompt": "x", "size": "64x64", "num_inference_steps": 9999})
    head = f"POST {GENERATIONS} HTTP/1.1\nHost: x\nContent-Type: application/json\n"
    connection.send(f"{head}Content-Length: {len(body)}\n\n{body[:5]}")
    clock.advance(30.0)
    connection.send(body[5:])
    clock.advance(1.0)
    assert connection.transport.value().count(b"HTTP/1.1 200") == 1
    assert not connection.transport.disconnecting
    clock.advance(600.0)
    assert connection.transport.value().count(b"HTTP/1.1 200") == 2


def test_header_lines_are_kept(clock: Clock, connection: Connection) -> None:
    """
    Names keep their case, and lines their order.
    """
    connection.send("GET /health HTTP/1.1\nhost: x\nX-b: 1\nX-A: 2\nX-b: 3\n\n")
    (entry,) = connection_journal(connection)
    assert entry == [("host", "x"), ("X-b", "1"), ("X-A", "2"), ("X-b", "3")]


def connection_journal(connection: Connection) -> list[list[tuple[str, str]]]:
    connection.transport.clear()
    connection.send("GET /simulator/log HTTP/1.1\nhost: x\n\n")
    body = connection.transport.value().partition(b"\r\n\r\n")[2]
    return [[(n, v) for n, v in one["headers"]] for one in json.loads(body)["received"]]


class Sink:
    """
    A request that takes bytes until told to wait.
    """

    def __init__(self) -> None:
        self.written = 0
        self.limit = 0
        self.producer: Any = None
        self.gone: Deferred[None] = Deferred()

    def notifyFinish(self) -> Deferred[None]:
        return self.gone

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.written += len(data)
        if self.written >= self.limit:
            self.producer.pauseProducing()


def test_back_pressure(clock: Clock) -> None:
    """
    A body of any size waits in the worker, not in memory, for a client that does not read.
    """
    sink, made = Sink(), 0

    def pieces() -> Iterator[bytes]:
        nonlocal made
        for piece in pattern(1 << 40, 1 << 16):
            made += len(piece)
            yield piece

    outflow: Any = Outflow(sink, pieces(), clock)  # type: ignore[arg-type]  # all it uses
    running = Deferred.fromCoroutine(outflow.run())
    for limit in (1 << 20, 1 << 21):
        sink.limit = limit
        sink.producer.resumeProducing()
        assert made == sink.written == limit
    sink.gone.errback(ConnectionResetError())
    assert running.result is False


@pytest.fixture
def services() -> Iterator[list[WorkerService]]:
    started: list[WorkerService] = []
    yield started
    for service in started:
        pytest_twisted.blockon(service.stopService())


def start(services: list[WorkerService], settings: SimulatorSettings = SETTINGS) -> str:
    """
    The base URL of a worker that listens on a free port.
    """
    service = WorkerService(reactor, settings)
    service.startService()
    services.append(service)
    return f"http://127.0.0.1:{service.port_number}"


async def wait(seconds: float) -> None:
    await deferLater(reactor, seconds, lambda: None)


async def log_of(url: str) -> Any:
    return await treq.json_content(await treq.get(f"{url}/simulator/log", persistent=False))


@on_reactor
async def test_images_side_by_side(services: list[WorkerService]) -> None:
    """
    Requests over real sockets are answered one after the other, drawn in threads.
    """
    url = start(services)
    asked = [
        treq.post(
            f"{url}{GENERATIONS}", json={"prompt": f"fox {n}", "size": "64x64"}, persistent=False
        )
        for n in range(3)
    ]
    answers = [await treq.json_content(await one) for one in asked]
    assert len({answer["id"] for answer in answers}) == 3
    generations = (await log_of(url))["generations"]
    ends = [one["ended"] for one in generations]
    starts = [one["started"] for one in generations]
    assert all(end <= start for end, start in zip(ends, starts[1:], strict=False))


@on_reactor
async def test_hanging_up_cancels_nothing(services: list[WorkerService]) -> None:
    """
    The work of a client that is gone runs to its end, and only then does the next begin.
    """
    url = start(services)
    body = b'{"prompt":"x"}'
    head = f"POST {GENERATIONS} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", services[0].port_number)) as client:
        client.sendall(head.encode() + body)
        await wait(0.05)
    answer = await treq.post(f"{url}{GENERATIONS}", json={"prompt": "y"}, persistent=False)
    await treq.content(answer)
    log = await log_of(url)
    assert (log["generations_started"], log["generations_finished"]) == (2, 2)
    first, second = log["received"][:2]
    assert (first["cut_off"], second["cut_off"]) == (True, False)
    assert log["generations"][0]["ended"] <= log["generations"][1]["started"]


@on_reactor
async def test_cut_answers_fail(services: list[WorkerService]) -> None:
    """
    A cut answer reaches its client up to the cut, and as a failure.
    """
    url = start(services)
    rule = {"path": "/simulator/bytes", "cut_after": 1000}
    await treq.content(
        await treq.post(f"{url}/simulator/faults", json={"rules": [rule]}, persistent=False)
    )
    response = await treq.get(f"{url}/simulator/bytes?size=9999", unbuffered=True, persistent=False)
    received: list[bytes] = []
    with pytest.raises(ResponseFailed):
        await treq.collect(response, received.append)
    assert b"".join(received) == b"".join(pattern(1000, 64))


async def refused(url: str) -> bool:
    try:
        response = await treq.get(f"{url}/health", persistent=False)
    except error.ConnectionRefusedError:
        return True
    await treq.content(response)
    return False


@on_reactor
async def test_loading_refuses_connections(services: list[WorkerService]) -> None:
    """
    While loading, the port is held and connections to it are refused.
    """
    url = start(services, evolve(SETTINGS, load_time=0.2))
    assert await refused(url)
    await wait(0.3)
    assert not await refused(url)


@on_reactor
async def test_refusing_for_a_time(services: list[WorkerService]) -> None:
    """
    A worker told to refuse closes its port and its idle connections, and comes back.
    """
    url = start(services)
    with socket.create_connection(("127.0.0.1", services[0].port_number)) as idle:
        await wait(0.05)
        await treq.content(
            await treq.post(f"{url}/simulator/faults", json={"refuse_for": 0.3}, persistent=False)
        )
        await wait(0.05)
        assert await refused(url)
        assert await deferToThread(idle.recv, 1) == b""
    await wait(0.4)
    assert not await refused(url)
