"""
TLS on both sides of the router.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.endpoints import TCP4ClientEndpoint, serverFromString, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates
from twisted.internet.task import deferLater

from tests.integration.commands import free_port
from tests.integration.sockets import (
    Connection,
    connect,
    reactor,
    running_router,
    scripted_worker,
)


async def _connect(port: int, identity: Path) -> Connection:
    """
    A TLS client that trusts the certificate in *identity*.
    """
    trusted = trustRootFromCertificates([Certificate.loadPEM(identity.read_bytes())])
    options = optionsForClientTLS("127.0.0.1", trustRoot=trusted)
    endpoint = wrapClientTLS(options, TCP4ClientEndpoint(reactor, "127.0.0.1", port))
    factory = Factory.forProtocol(Connection)
    factory.noisy = False
    connection: Any = await endpoint.connect(factory)
    assert isinstance(connection, Connection)
    return connection


@pytest_twisted.ensureDeferred
async def test_clients_over_tls(identity: Path) -> None:
    """
    ``--listen ssl:...`` serves HTTP/1.1 over TLS; the worker learns the scheme, and malformed
    requests and cut answers are told over TLS too.
    """
    port = free_port()
    listen = f"ssl:{port}:privateKey={identity}:interface=127.0.0.1"
    async with scripted_worker() as worker, running_router(worker.url, listen=[listen]) as router:
        await worker.connection()
        client = await _connect(port, identity)
        client.write(b"GET /x HTTP/1.1\r\nHost: r\r\n\r\n")
        at_worker = await worker.connection(1)
        assert b"\r\nX-Forwarded-Proto: https\r\n" in at_worker.received
        size = 3_000_000
        at_worker.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        await client.until(lambda: client.received.endswith(b"\r\n\r\n" + b"x" * size))

        client.write(b"GET /x HTTP/1.1\r\nHost: r\r\n\r\n")
        await at_worker.until(lambda: at_worker.received.count(b"GET") == 2)
        at_worker.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await client.until_received(b"half")
        at_worker.transport.loseConnection()
        await client.until_closed()
        assert client.closed is not None
        assert not client.closed.check(ConnectionDone)
        await router.at_rest()

        malformed = await _connect(port, identity)
        malformed.write(b"GET /x HTTP/1.1\r\nHost : r\r\n\r\n")
        assert (await malformed.until_closed()).startswith(b"HTTP/1.1 400 ")


@pytest_twisted.ensureDeferred
async def test_a_worker_whose_certificate_is_not_trusted(identity: Path) -> None:
    """
    A worker's certificate is verified: an unknown one is a 502 that says so, and nothing is sent.
    """
    received: list[bytes] = []

    class Worker(Protocol):
        def dataReceived(self, data: bytes) -> None:
            received.append(data)

    factory = Factory.forProtocol(Worker)
    factory.noisy = False
    endpoint = serverFromString(reactor, f"ssl:0:privateKey={identity}:interface=127.0.0.1")
    port = await endpoint.listen(factory)
    try:
        async with running_router(f"https://127.0.0.1:{port.getHost().port}") as router:
            client = await connect(router.port)
            client.write(b"GET /x HTTP/1.1\r\nHost: r\r\n\r\n")
            answer = await client.until_received(b"}\n")
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert b"its certificate is signed by nobody who is trusted (--worker-ca)" in answer
            assert b'"reason":"worker_untrusted"' in answer
            assert received == []
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_a_worker_over_tls(
    identity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A client that stops reading and leaves closes the worker's connection over TLS too.
    """
    monkeypatch.setenv("SSL_CERT_FILE", str(identity))
    at_worker = Connection()
    factory = Factory.forProtocol(lambda: at_worker)
    factory.noisy = False
    endpoint = serverFromString(reactor, f"ssl:0:privateKey={identity}:interface=127.0.0.1")
    port = await endpoint.listen(factory)
    try:
        async with running_router() as router:
            router.service.pool.add(f"https://127.0.0.1:{port.getHost().port}")
            client = await connect(router.port)
            client.transport.pauseProducing()
            client.write(b"GET /x HTTP/1.1\r\nHost: r\r\n\r\n")
            await at_worker.until_received(b"\r\n\r\n")
            size = 30_000_000
            at_worker.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            at_worker.write(b"x" * size)
            await deferLater(reactor, 0.2)
            client.transport.abortConnection()
            await at_worker.until_closed()
            await router.at_rest()
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_handshake_that_never_ends() -> None:
    """
    The TLS handshake counts as connecting: after that time the next worker is tried.
    """
    with socket.create_server(("127.0.0.1", 0)) as hole:
        silent = f"https://127.0.0.1:{hole.getsockname()[1]}"
        async with (
            scripted_worker() as worker,
            running_router(silent, worker.url, connect_timeout=2.0) as router,
        ):
            await worker.connection()
            client = await connect(router.port)
            client.write(b"GET /x HTTP/1.1\r\nHost: r\r\n\r\n")
            (await worker.connection(1)).write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await client.until_received(b"ok")
            await router.at_rest()
