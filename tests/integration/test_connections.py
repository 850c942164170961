"""
Connections to workers: opened, kept, lost, and never the reason for a second sending.
"""

from __future__ import annotations

import socket

import pytest_twisted
from twisted.internet.task import deferLater

from tests.integration.sockets import (
    GET,
    OK,
    connect,
    eventually,
    exchange,
    reactor,
    running_router,
    scripted_worker,
)


@pytest_twisted.ensureDeferred
async def test_connections_are_kept_for_the_next_request() -> None:
    """
    One connection serves one request after the other.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        for number in range(5):
            client.write(GET)
            at_worker = await worker.connection(1)
            await at_worker.until(lambda: at_worker.received.count(b"GET") == number + 1)  # noqa: B023
            at_worker.write(OK)
            await client.until(lambda: client.received.count(b"ok") == number + 1)  # noqa: B023
        assert len(worker.connections) == 2


@pytest_twisted.ensureDeferred
async def test_a_closed_idle_connection_costs_nothing() -> None:
    """
    A worker that closes an idle connection gets the next request on a new one.
    """
    async with exchange() as (_, worker, client, at_worker):
        at_worker.write(OK)
        await client.until_received(b"ok")
        at_worker.transport.loseConnection()
        await at_worker.until_closed()
        await deferLater(reactor, 0.05)
        client.write(GET)
        (await worker.connection(2)).write(OK)
        await client.until(lambda: client.received.count(b"HTTP/1.1 200 OK") == 2)


@pytest_twisted.ensureDeferred
async def test_a_request_on_a_dying_connection_is_not_repeated() -> None:
    """
    A connection that breaks once the next request is on it makes a 502: it may have been seen.
    """
    async with exchange() as (_, worker, client, at_worker):
        at_worker.write(OK)
        await client.until_received(b"ok")
        client.write(GET.replace(b"GET", b"POST"))
        await at_worker.until_received(b"POST")
        at_worker.transport.abortConnection()
        assert b"HTTP/1.1 502 " in await client.until_received(b"}\n")
        assert len(worker.connections) == 2


@pytest_twisted.ensureDeferred
async def test_localhost_that_listens_on_ipv4_only() -> None:
    """
    The next address of a name is tried at once when one refuses.
    """
    async with scripted_worker() as worker:
        url = worker.url.replace("127.0.0.1", "localhost")
        # Longer than this test waits for anything.
        async with running_router(url, connect_timeout=60.0) as router:
            await worker.connection()
            client = await connect(router.port)
            client.write(GET)
            (await worker.connection(1)).write(OK)
            await client.until_received(b"ok")


@pytest_twisted.ensureDeferred
async def test_a_worker_that_is_not_there() -> None:
    """
    A refused connection passes the request to the next worker, or is told as 502.
    """
    async with scripted_worker() as worker:
        gone = "http://127.0.0.1:1"
        async with running_router(gone, worker.url) as router:
            await worker.connection()
            client = await connect(router.port)
            client.write(GET)
            (await worker.connection(1)).write(OK)
            await client.until_received(b"ok")
            router.service.pool.remove(worker.url)
            client.write(GET)
            received = await client.until_received(b"}\n")
            assert b"HTTP/1.1 502 " in received
            assert b"Worker request failed: http://127.0.0.1:1: " in received


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_while_its_worker_is_connected_to() -> None:
    """
    A request whose client left before a connection was there is sent to nobody.
    """
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        filling = [socket.socket() for _ in range(4)]
        for each in filling:
            each.setblocking(False)
            each.connect_ex(hole.getsockname())
        stuck = f"http://127.0.0.1:{hole.getsockname()[1]}"
        async with (
            scripted_worker() as worker,
            running_router(stuck, worker.url, connect_timeout=60.0) as router,
        ):
            await worker.connection()
            client = await connect(router.port)
            client.write(b"POST /x HTTP/1.1\r\nHost: r\r\nContent-Length: 2\r\n\r\nhi")
            await eventually(lambda: router.in_flight == 1)
            await deferLater(reactor, 0.05)
            client.transport.abortConnection()
            await router.at_rest()
            await deferLater(reactor, 0.05)
            assert len(worker.connections) == 1
        for each in filling:
            each.close()
