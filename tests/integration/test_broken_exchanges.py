"""
What becomes of an exchange when one of its sides breaks off, falls silent or talks nonsense.
"""

from __future__ import annotations

import socket

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.integration.sockets import (
    GET,
    connect,
    exchange,
    reactor,
    running_router,
    scripted_worker,
)

CUTS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    "large": b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "inside a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf",
}


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("answer", CUTS.values(), ids=CUTS.keys())
@pytest_twisted.ensureDeferred
async def test_a_cut_answer_is_seen_as_cut(answer: bytes, version: bytes) -> None:
    """
    When a worker dies inside its answer the client's connection is reset, never closed in order.
    """
    async with exchange(GET.replace(b"HTTP/1.1", b"HTTP/" + version)) as (
        router,
        _,
        client,
        at_worker,
    ):
        at_worker.write(answer)
        await client.until_received(b"\r\n\r\n")
        at_worker.transport.loseConnection()
        received = await client.until_closed()
        assert client.reset
        assert b"\r\n0\r\n" not in received
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_an_answer_whose_connection_breaks() -> None:
    """
    A worker's answer without a length is cut when its connection breaks instead of closing.
    """
    async with exchange() as (router, _, client, at_worker):
        at_worker.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsome of it")
        await client.until_received(b"some of it")
        at_worker.transport.abortConnection()
        await client.until_closed()
        assert client.reset
        await router.at_rest()


BROKEN = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN.keys())
@pytest_twisted.ensureDeferred
async def test_no_answer_is_502_and_sent_once(answer: bytes) -> None:
    """
    A worker that dies before its answer is 502; no other worker gets the request.
    """
    async with (
        scripted_worker() as worker,
        scripted_worker() as other,
        running_router(worker.url, other.url) as router,
    ):
        await worker.connection()
        await other.connection()
        client = await connect(router.port)
        client.write(GET)
        at_worker = await worker.connection(1)
        at_worker.write(answer)
        at_worker.transport.loseConnection()
        received = await client.until_received(b"}\n")
        assert received.startswith(b"HTTP/1.1 502 ")
        assert b'{"error":"Worker request failed: ' + worker.url.encode() in received
        assert len(other.connections) == 1
        await router.at_rest()


@pytest.mark.parametrize("status", [b"99 Low", b"600 High", b"-5 Less", b"200 O\rK"])
@pytest_twisted.ensureDeferred
async def test_a_status_that_is_none(status: bytes) -> None:
    """
    A worker's answer with an impossible status or phrase is a 502.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        odd = b"HTTP/1.1 " + status + b"\r\nContent-Length: 9\r\n\r\nodd"
        (await worker.connection(1)).write(odd)
        assert b"HTTP/1.1 502 " in await client.until_received(b"}\n")
        await router.at_rest()


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("closing", [False, True])
@pytest_twisted.ensureDeferred
async def test_an_answer_before_the_upload_is_read(
    connection: bytes, pieces: int, closing: bool
) -> None:
    """
    A worker that refuses a body before it has read it is heard; the rest is not sent.
    """
    size = 20_000_000
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(b"POST /x HTTP/1.1\r\nHost: r\r\nContent-Length: %d\r\n\r\n" % size)
        client.write(b"x" * size)
        at_worker = await worker.connection(1)
        at_worker.transport.pauseProducing()
        head = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: %s\r\n\r\n" % connection
        if pieces == 2:
            at_worker.write(head)
            await deferLater(reactor, 0.05)
            at_worker.write(b"no")
        else:
            at_worker.write(head + b"no")
        if closing:
            at_worker.transport.loseConnection()
        assert (await client.until_received(b"\r\n\r\nno")).startswith(b"HTTP/1.1 413 Too Large")
        await router.at_rest()
        if not closing:
            at_worker.transport.resumeProducing()
        await at_worker.until_closed()
        assert len(at_worker.received) < size


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1", CUTS["large"], CUTS["chunked"]],
    ids=["before the answer", "in a small answer", "in a large answer", "in a chunked answer"],
)
@pytest_twisted.ensureDeferred
async def test_a_client_that_hangs_up(answer: bytes) -> None:
    """
    The worker's connection closes with the client's, and the count returns to 0.
    """
    async with exchange() as (router, _, client, at_worker):
        assert router.in_flight == 1
        if answer:
            at_worker.write(answer)
            await client.until_received(b"\r\n\r\n")
        client.transport.abortConnection()
        await at_worker.until_closed()
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_a_worker_that_falls_silent_is_cut() -> None:
    """
    Silence inside an answer beyond the idle time-out cuts the answer.
    """
    async with exchange(idle_timeout=0.3) as (router, _, client, at_worker):
        at_worker.write(CUTS["length"])
        await client.until_closed()
        assert client.reset
        await at_worker.until_closed()
        await router.at_rest()


def _slow_reader(port: int) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", port))
    reader.setblocking(False)
    reader.send(GET)
    return reader


@pytest_twisted.ensureDeferred
async def test_a_client_that_takes_nothing_is_cut() -> None:
    """
    A client that takes no byte of its answer for the idle time-out loses its connection.
    """
    async with scripted_worker() as worker, running_router(worker.url, idle_timeout=0.5) as router:
        await worker.connection()
        reader = _slow_reader(router.port)
        at_worker = await worker.connection(1)
        size = 30_000_000
        at_worker.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        await at_worker.until_closed(15)
        await router.at_rest()
        reader.close()


@pytest_twisted.ensureDeferred
async def test_a_slow_client_is_not_cut() -> None:
    """
    A client that takes its answer slowly but steadily keeps its connection.
    """
    async with scripted_worker() as worker, running_router(worker.url, idle_timeout=2.0) as router:
        await worker.connection()
        reader = _slow_reader(router.port)
        at_worker = await worker.connection(1)
        size = 30_000_000
        at_worker.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        taken = 0
        for _ in range(30):
            await deferLater(reactor, 0.1)
            try:
                taken += len(reader.recv(1 << 16))
            except BlockingIOError:
                continue
        assert taken > 0
        assert at_worker.closed is None
        assert router.in_flight == 1
        reader.close()
        await at_worker.until_closed()


@pytest_twisted.ensureDeferred
async def test_sending_behind_an_answer_that_is_not_taken() -> None:
    """
    What a client sends behind a request waits in its own buffers, not in the router's memory.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        sender = _slow_reader(router.port)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
        at_worker = await worker.connection(1)
        at_worker.write(b"HTTP/1.1 200 OK\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 20_000_000)
        await deferLater(reactor, 0.1)
        sent = idle = 0
        while idle < 10 and sent < 60_000_000:
            try:
                sent += sender.send(b"x" * 1_000_000)
                idle = 0
            except BlockingIOError:
                idle += 1
            await deferLater(reactor, 0.01)
        assert sent < 30_000_000
        sender.close()
        await at_worker.until_closed()
        await router.at_rest()
