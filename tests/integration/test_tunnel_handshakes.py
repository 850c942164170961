"""
WebSocket handshakes through the router, byte by byte: accepted, refused, broken, given up.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import deferLater
from twisted.web.server import Site
from zope.interface import implementer

from sgl_droute import RouterRequest, RouterService, RouterSettings
from tests.integration.answers import assert_well_told, parse_answers
from tests.integration.commands import free_port
from tests.integration.sockets import (
    OK,
    Connection,
    Exchange,
    connect,
    eventually,
    exchange,
    reactor,
    running_router,
    scripted_worker,
)
from tests.integration.test_tls import _connect as connect_tls

HANDSHAKE = (
    b"GET /socket?a=1 HTTP/1.1\r\nHost: router\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n"
    b"X-Request-Id: 1\r\n\r\n"
)
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: accept\r\n\r\n"
)


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[Exchange]:
    """
    An open tunnel, silent so far.
    """
    async with exchange(HANDSHAKE, **options) as made:
        made.at_worker.write(ACCEPTED)
        await made.client.until_received(b"\r\n\r\n")
        yield made


@pytest_twisted.ensureDeferred
async def test_the_handshake_on_its_way() -> None:
    """
    The worker gets a handshake of its own connection and the client the worker's acceptance, with
    what belongs to one hop made anew; then bytes pass as they are.
    """
    async with opened() as (router, worker, client, at_worker):
        head, _, rest = at_worker.received.partition(b"\r\n\r\n")
        line, *headers = head.split(b"\r\n")
        assert line == b"GET /socket?a=1 HTTP/1.1"
        assert sorted(headers) == [
            b"Connection: Upgrade",
            b"Host: " + worker.url.partition("://")[2].encode(),
            b"Sec-WebSocket-Key: a2V5",
            b"Sec-WebSocket-Version: 13",
            b"Upgrade: websocket",
            b"X-Forwarded-For: 127.0.0.1",
            b"X-Forwarded-Host: router",
            b"X-Forwarded-Proto: http",
            b"X-Request-Id: 1",
        ]
        assert rest == b""
        line, *headers = client.received.removesuffix(b"\r\n\r\n").split(b"\r\n")
        stamps = (b"X-Router-Job: ", b"X-Router-Worker: ", b"Server-Timing: queue;dur=")
        headers = [header for header in headers if not header.startswith(stamps)]
        assert line == b"HTTP/1.1 101 Switching Protocols"
        assert sorted(headers) == [
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: accept",
            b"Upgrade: websocket",
            b"X-Request-Id: 1",
        ]
        assert router.in_flight == 1
        client.write(b"GET / HTTP/1.1\r\n\r\n\0\xff")
        await at_worker.until_received(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n\0\xff")
        at_worker.write(b"HTTP/1.1 200 OK\r\n\r\n\0\xff")
        await client.until_received(b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n\0\xff")
        client.transport.loseConnection()
        await at_worker.until_closed()
        await router.at_rest()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("size", [1, 1000, 100_000])
async def test_bytes_right_behind_the_heads(size: int) -> None:
    """
    What comes in the same packet as the handshake reaches the worker once it has accepted, and
    what comes with its acceptance reaches the client.
    """
    early, late = b"e" * size, b"l" * size
    async with exchange(HANDSHAKE + early) as (_, _, client, at_worker):
        assert at_worker.received.endswith(b"\r\n\r\n")
        at_worker.write(ACCEPTED + late)
        await client.until(lambda: client.received.endswith(b"\r\n\r\n" + late))
        await at_worker.until(lambda: at_worker.received.endswith(b"\r\n\r\n" + early))
        client.write(b"end")
        await at_worker.until_received(early + b"end")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"])
async def test_acceptance_in_pieces(interim: bytes) -> None:
    """
    It is one whichever way it is cut, and behind interim answers.
    """
    async with exchange(HANDSHAKE) as (_, _, client, at_worker):
        for byte in interim + ACCEPTED:
            at_worker.write(bytes([byte]))
            await deferLater(reactor, 0)
        at_worker.write(b"hello")
        received = await client.until_received(b"hello")
        assert received.startswith(b"HTTP/1.1 101 ")


REFUSALS = {
    "length": (
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
        b"no",
    ),
    "empty": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", b""),
    "more than it says": (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno!", b"no"),
    "no body": (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", b""),
    "large": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000,
        b"x" * 3_000_000,
    ),
}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", REFUSALS)
async def test_any_other_answer(kind: str) -> None:
    """
    An answer that is no 101 is the client's answer, whatever the status; its connection ends then,
    as those who asked for a WebSocket expect.
    """
    answer, body = REFUSALS[kind]
    async with exchange(HANDSHAKE) as (router, _, client, at_worker):
        at_worker.write(answer)
        received = await client.until_closed()
        assert received[:12] == answer[:12]
        assert received.endswith(b"\r\n\r\n" + body)
        assert b"\r\nConnection: close\r\n" in received
        assert b"\r\nX-Request-Id: 1\r\n" in received
        await at_worker.until_closed()
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_chunked_and_endless_refusals() -> None:
    """
    So is one in chunks, and one that ends with its connection.
    """
    for head, body in [
        (b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nno\r\n0\r\nX-Trailer: x\r\n\r\n"),
        (b"Content-Type: text/plain\r\n\r\n", b"no"),
    ]:
        async with exchange(HANDSHAKE) as (router, _, client, at_worker):
            at_worker.write(b"HTTP/1.1 500 Internal Server Error\r\n" + head)
            await client.until_received(b"HTTP/1.1 500 ")
            at_worker.write(body)
            at_worker.transport.loseConnection()
            received = await client.until_closed()
            assert b"no" in received.partition(b"\r\n\r\n")[2]
            assert b"trailer" not in received.lower()
            assert not client.reset
            await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_a_refusal_that_is_cut() -> None:
    """
    A torn body is not passed off as a whole one.
    """
    async with exchange(HANDSHAKE) as (router, _, client, at_worker):
        at_worker.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nhalf")
        await client.until_received(b"half")
        at_worker.transport.loseConnection()
        await client.until_closed()
        assert client.reset
        await router.at_rest()


NO_ANSWERS = {
    "garbage": (b"SSH-2.0-OpenSSH\r\n", b"the answer is not HTTP"),
    "another protocol": (
        b"HTTP/1.1 101 Ok\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"it leaves HTTP",
    ),
    "no protocol": (b"HTTP/1.1 101 Ok\r\n\r\n", b"the answer is not HTTP"),
    "odd status": (b"HTTP/1.1 700 Ok\r\nContent-Length: 0\r\n\r\n", b"status 700"),
    "endless head": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, b"more than 65536 bytes"),
    "endless interim": (b"HTTP/1.1 100 Continue\r\n\r\n" * 5000, b"more than 65536 bytes"),
    "NUL": (b"HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", b"the answer is not HTTP"),
}


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", NO_ANSWERS)
async def test_what_is_no_answer(kind: str) -> None:
    """
    It is a 502 that says what is wrong, and the worker's connection is cut.
    """
    sent, why = NO_ANSWERS[kind]
    async with exchange(HANDSHAKE) as (router, _, client, at_worker):
        at_worker.write(sent)
        await client.until_closed()
        (answer,), _ = parse_answers(client.received)
        assert answer.status == 502
        assert answer.closes
        assert why in answer.body
        assert_well_told(answer)
        await at_worker.until_closed()
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_a_worker_that_dies_during_the_handshake() -> None:
    """
    It may have seen it: 502, and nobody else is tried.
    """
    async with (
        scripted_worker() as one,
        scripted_worker() as other,
        running_router(one.url, other.url) as router,
    ):
        await one.connection()
        await other.connection()
        client = await connect(router.port)
        client.write(HANDSHAKE)
        await eventually(lambda: len(one.connections) + len(other.connections) == 3)
        asked = one if len(one.connections) == 2 else other
        (await asked.connection(1)).transport.abortConnection()
        assert (await client.until_closed()).startswith(b"HTTP/1.1 502 ")
        await router.at_rest()
        every = one.connections + other.connections
        assert sum(b"/socket" in each.received for each in every) == 1


@pytest_twisted.ensureDeferred
async def test_no_answer_in_time() -> None:
    """
    A worker that does not answer is a 504, and its connection is cut.
    """
    async with exchange(HANDSHAKE, timeout=1.0) as (router, _, client, at_worker):
        assert (await client.until_closed()).startswith(b"HTTP/1.1 504 ")
        await at_worker.until_closed()
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_a_worker_that_refuses_connections() -> None:
    """
    Nobody has seen the handshake: the next worker gets it. When nobody is left it is a 502.
    """
    gone = f"http://127.0.0.1:{free_port()}"
    async with scripted_worker() as worker, running_router(gone, worker.url) as router:
        await worker.connection()
        for number in (1, 2):  # one of the two is begun with
            client = await connect(router.port)
            client.write(HANDSHAKE)
            (await worker.connection(number)).write(ACCEPTED)
            assert (await client.until_received(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            client.transport.loseConnection()
            await client.until_closed()
        await router.at_rest()
        router.service.pool.remove(worker.url)
        client = await connect(router.port)
        client.write(HANDSHAKE)
        assert (await client.until_closed()).startswith(b"HTTP/1.1 502 ")


@pytest_twisted.ensureDeferred
async def test_a_tls_handshake_that_never_ends() -> None:
    """
    It counts as connecting: the next worker is tried after that time.
    """
    with socket.create_server(("127.0.0.1", 0)) as hole:
        silent = f"https://127.0.0.1:{hole.getsockname()[1]}"
        async with (
            scripted_worker() as worker,
            running_router(silent, worker.url, connect_timeout=2.0) as router,
        ):
            await worker.connection()
            client = await connect(router.port)
            client.write(HANDSHAKE)
            (await worker.connection(1)).write(ACCEPTED)
            await client.until_received(b"HTTP/1.1 101 ")


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_during_the_handshake() -> None:
    """
    The worker's connection is cut, and nothing is in flight.
    """
    async with exchange(HANDSHAKE) as (router, _, client, at_worker):
        assert router.in_flight == 1
        client.transport.loseConnection()
        await at_worker.until_closed()
        await router.at_rest()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "headers",
    [
        b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n",
    ],
)
async def test_no_handshake(headers: bytes) -> None:
    """
    Other upgrades, and half a wish, are ordinary requests without an upgrade.
    """
    request = b"GET /socket HTTP/1.1\r\nHost: r\r\n" + headers + b"\r\n"
    async with exchange(request) as (_, _, client, at_worker):
        assert b"upgrade" not in at_worker.received.lower()
        at_worker.write(OK)
        await client.until_received(b"ok")


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize(
    "body", [b"Content-Length: 2\r\n\r\nhi", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
)
async def test_a_handshake_with_a_body(body: bytes) -> None:
    """
    It is refused: the bytes would be taken for the tunnel's.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        client = await connect(router.port)
        client.write(HANDSHAKE.removesuffix(b"\r\n") + body)
        assert (await client.until_received(b"}\n")).startswith(b"HTTP/1.1 400 ")


@pytest_twisted.ensureDeferred
async def test_on_another_programs_site() -> None:
    """
    Where the connection is not the router's to give away, a handshake is a 501.
    """
    service = RouterService(reactor, RouterSettings(worker_urls=["http://127.0.0.1:9"]))
    site = Site(service.resource(), requestFactory=RouterRequest)
    site.noisy = False
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(site)
    client = await connect(port.getHost().port)
    client.write(HANDSHAKE)
    assert (await client.until_received(b"}\n")).startswith(b"HTTP/1.1 501 ")
    client.transport.loseConnection()
    await client.until_closed()
    await port.stopListening()


# Open tunnels.


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("closer", ["client", "worker"])
@pytest.mark.parametrize("size", [1, 3_000_000])
async def test_closing_behind_bytes(closer: str, size: int) -> None:
    """
    Who writes and closes has all of it delivered, and then the other side is closed too.
    """
    async with opened() as (router, _, client, at_worker):
        here, there = (client, at_worker) if closer == "client" else (at_worker, client)
        here.write(b"x" * size)
        here.transport.loseConnection()
        received = await there.until_closed()
        assert received.partition(b"\r\n\r\n")[2] == b"x" * size
        assert there.closed is not None
        assert there.closed.check(ConnectionDone)
        await router.at_rest()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("broken", ["client", "worker"])
async def test_a_reset_is_passed_on(broken: str) -> None:
    """
    A connection that breaks breaks the other one.
    """
    async with opened() as (router, _, client, at_worker):
        here, there = (client, at_worker) if broken == "client" else (at_worker, client)
        here.transport.abortConnection()
        await there.until_closed()
        assert there.reset
        await router.at_rest()


@implementer(IHalfCloseableProtocol)
class HalfClosing(Connection):
    """
    A connection that can go on writing when the other end has said all.
    """

    ended = False

    def readConnectionLost(self) -> None:
        self.ended = True
        self._look()

    def writeConnectionLost(self) -> None:
        pass


@pytest_twisted.ensureDeferred
async def test_a_worker_that_has_said_all() -> None:
    """
    A worker that closes its side only still hears what the client has to say.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port, HalfClosing)
        assert isinstance(client, HalfClosing)
        client.write(HANDSHAKE)
        at_worker = await worker.connection(1)
        at_worker.write(ACCEPTED + b"last words")
        at_worker.transport.loseWriteConnection()
        await client.until(lambda: client.ended)
        assert client.received.endswith(b"\r\n\r\nlast words")
        client.write(b"an answer")
        await at_worker.until_received(b"an answer")
        client.transport.loseConnection()
        await at_worker.until_closed()
        await router.at_rest()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("slow", ["client", "worker"])
async def test_a_slow_reader_slows_the_writer(slow: str) -> None:
    """
    Of what one side writes and the other does not read, the router keeps little: the writer is
    paused, and goes on when the reader does.
    """
    size = 200_000_000
    async with opened() as (router, _, client, at_worker):
        reader, writer = (client, at_worker) if slow == "client" else (at_worker, client)
        reader.transport.pauseProducing()
        pouring = Pouring(writer.transport, size)
        await pouring.stalled()
        (tunnel,) = router.service.tunnels
        (end,) = [each for each in (tunnel.client, tunnel.worker) if each._full]
        assert pouring.poured < size / 2
        assert len(end.transport.dataBuffer) + end.transport._tempDataLen < 1_000_000
        drained = 0

        def drain(data: bytes) -> None:
            nonlocal drained
            drained += len(data)
            reader._look()

        reader.dataReceived = drain  # type: ignore[method-assign]
        reader.transport.resumeProducing()
        await reader.until(lambda: drained == size, timeout=30)


class Pouring:
    """
    Writes a number of bytes to a transport, as fast as it takes them.
    """

    def __init__(self, transport: Any, size: int) -> None:
        self.poured = 0
        self._transport = transport
        self._size = size
        transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        part = min(1 << 18, self._size - self.poured)
        self.poured += part
        self._transport.write(b"x" * part)
        if self.poured == self._size:
            self._transport.unregisterProducer()

    def stopProducing(self) -> None:
        pass

    async def stalled(self) -> None:
        """
        Return once nothing was taken for a while.
        """
        before = -1
        while before != self.poured:
            before = self.poured
            await deferLater(reactor, 0.3)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("slow", ["client", "worker"])
async def test_who_takes_nothing_is_cut(slow: str) -> None:
    """
    A peer that takes no byte for the idle time while some wait for it loses the tunnel, even if it
    goes on talking; the other side learns that by a reset.
    """
    async with opened(idle_timeout=0.4) as (router, _, client, at_worker):
        reader, writer = (client, at_worker) if slow == "client" else (at_worker, client)
        reader.transport.pauseProducing()
        Pouring(writer.transport, 100_000_000)
        while writer.closed is None:
            reader.write(b"still here")
            await deferLater(reactor, 0.05)
        assert writer.reset
        reader.transport.resumeProducing()
        await reader.until_closed()
        await router.at_rest()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("closes", [False, True])
async def test_a_client_over_tls_that_takes_nothing(identity: Path, closes: bool) -> None:
    """
    It is cut too, after its worker has closed as well as before.
    """
    port = free_port()
    listen = f"ssl:{port}:privateKey={identity}:interface=127.0.0.1"
    async with (
        scripted_worker() as worker,
        running_router(worker.url, listen=[listen], idle_timeout=0.4) as router,
    ):
        await worker.connection()
        client = await connect_tls(port, identity)
        client.write(HANDSHAKE)
        at_worker = await worker.connection(1)
        at_worker.write(ACCEPTED)
        await client.until_received(b"\r\n\r\n")
        client.transport.pauseProducing()
        if closes:
            at_worker.write(b"x" * 100)
            at_worker.transport.loseConnection()
        else:
            Pouring(at_worker.transport, 100_000_000)
        await at_worker.until_closed()
        await router.at_rest()
        await eventually(lambda: len(router.service.tunnels) == 0)
        client.transport.resumeProducing()
        await client.until_closed()


@pytest_twisted.ensureDeferred
async def test_silence_is_no_reason() -> None:
    """
    A tunnel in which nobody has anything to say stays open, whatever the time limits.
    """
    limits = {"idle_timeout": 1.0, "timeout": 1.0, "read_timeout": 1.0}
    async with opened(**limits) as (_, _, client, at_worker):
        await deferLater(reactor, 1.5)
        client.write(b"hello")
        await at_worker.until_received(b"hello")
        at_worker.write(b"hello")
        await client.until_received(b"hello")


@pytest_twisted.ensureDeferred
async def test_a_worker_that_is_removed() -> None:
    """
    Its tunnels stay until they are closed.
    """
    async with opened() as (router, worker, client, at_worker):
        router.service.pool.remove(worker.url)
        client.write(b"hello")
        await at_worker.until_received(b"hello")


@pytest_twisted.ensureDeferred
async def test_a_router_that_stops() -> None:
    """
    Open tunnels are reset when the router stops.
    """
    async with scripted_worker() as worker:
        async with running_router(worker.url) as router:
            await worker.connection()
            client = await connect(router.port)
            client.write(HANDSHAKE)
            at_worker = await worker.connection(1)
            at_worker.write(ACCEPTED)
            await client.until_received(b"\r\n\r\n")
        await client.until_closed()
        await at_worker.until_closed()
        assert client.reset
        assert at_worker.reset
