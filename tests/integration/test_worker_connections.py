"""
The agent over real sockets: farewells that nobody has read, large bodies, TLS.
"""

from __future__ import annotations

import socket
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory
from twisted.web.client import FileBodyProducer, readBody

from sgl_droute.workers.agent import WorkerAgent
from tests.integration.sockets import OK, Connection, eventually, reactor, scripted_worker


@pytest_twisted.ensureDeferred
async def test_a_farewell_that_nobody_has_read() -> None:
    """
    A connection whose end has arrived, but has not been processed, costs no request.
    """
    async with scripted_worker() as worker:
        agent = WorkerAgent(reactor, 5.0)
        url = worker.url.encode() + b"/x"
        asking = agent.request(b"GET", url)
        first = await worker.connection(0)
        first.write(OK)
        await asking
        handle: socket.socket = first.transport.getHandle()
        handle.shutdown(socket.SHUT_WR)
        again = agent.request(b"GET", url)  # before the reactor looks at any socket
        (await worker.connection(1)).write(OK)
        response: Any = await again
        assert response.whole == b"ok"
        assert first.received.count(b"GET") == 1
        await agent.close()


@pytest_twisted.ensureDeferred
async def test_large_bodies() -> None:
    """
    Bodies of some megabytes cross real sockets whole, both ways, and the connection is kept.
    """
    size = 4 << 20
    async with scripted_worker() as worker:
        agent = WorkerAgent(reactor, 5.0)
        url = worker.url.encode() + b"/x"
        for number in range(2):
            upload = bytes([number]) * size
            body = FileBodyProducer(BytesIO(upload), readSize=1 << 18)
            asking = agent.request(b"POST", url, None, body)
            at_worker = await worker.connection(0)
            await at_worker.until(lambda: at_worker.received.count(upload) == 1)  # noqa: B023
            download = bytes([number + 100]) * size
            at_worker.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + download)
            assert await readBody(await asking) == download
        assert len(worker.connections) == 1
        await agent.close()


@pytest_twisted.ensureDeferred
async def test_over_tls(identity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Over TLS a connection serves one request after the other, a large answer included; one that the
    worker has closed serves none, and one that is not to be kept is closed.
    """
    monkeypatch.setenv("SSL_CERT_FILE", str(identity))
    connections: list[Connection] = []

    class AtWorker(Connection):
        def connectionMade(self) -> None:
            connections.append(self)

    factory = Factory.forProtocol(AtWorker)
    factory.noisy = False
    endpoint = serverFromString(reactor, f"ssl:0:privateKey={identity}:interface=127.0.0.1")
    port = await endpoint.listen(factory)
    agent = WorkerAgent(reactor, 5.0)
    url = b"https://127.0.0.1:%d/x" % port.getHost().port
    size = 3_000_000
    for number in range(3):
        asking = agent.request(b"GET", url)
        await eventually(lambda: len(connections) > number // 2)  # noqa: B023
        at_worker = connections[-1]
        await at_worker.until(lambda: at_worker.received.count(b"GET") == 1 + number % 2)  # noqa: B023
        at_worker.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        assert len(await readBody(await asking)) == size
        if number == 1:
            at_worker.transport.loseConnection()
            await at_worker.until_closed()
    assert len(connections) == 2
    asking = agent.request(b"GET", url)
    await at_worker.until(lambda: at_worker.received.count(b"GET") == 2)
    at_worker.write(OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"))
    assert await readBody(await asking) == b"ok"
    await at_worker.until_closed()
    await agent.close()
    await port.stopListening()
