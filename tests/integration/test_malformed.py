"""
Odd and malformed requests over real sockets: what the client is told, and what a worker sees.
"""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
import twisted.test
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.threads import deferToThread
from twisted.web.server import Site

from sgl_droute.api.http.site import RouterRequest
from tests.integration.answers import Answer, assert_signed, assert_well_told, parse_answers
from tests.integration.corpus import (
    CASES,
    CHUNKS,
    GET,
    MAX_BODY,
    PIPELINES,
    POST,
    WELL_FORMED,
    Case,
)
from tests.integration.smuggling import SMUGGLED
from tests.integration.sockets import (
    Connection,
    Router,
    connect,
    reactor,
    running_router,
)
from tests.integration.strict_worker import StrictWorker
from tests.integration.wire import WiredRouter

LIVENESS = b"GET /liveness HTTP/1.1\r\nHost: h\r\n\r\n"


@frozen(eq=False)
class Scene:
    """
    A router between clients and a worker that counts.
    """

    router: Router
    worker: StrictWorker

    async def client(self) -> Connection:
        return await connect(self.router.port)

    @property
    def seen(self) -> list[str]:
        """The requests that the worker got; whatever else came fails."""
        assert self.worker.violations == []
        assert self.worker.unread == b""
        return [str(request) for request in self.worker.requests]


@asynccontextmanager
async def scene(**options: object) -> AsyncIterator[Scene]:
    """
    A running `Scene`; when it ends nothing is in flight.
    """
    worker = StrictWorker()
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    port = await endpoint.listen(worker)
    url = f"http://127.0.0.1:{port.getHost().port}"
    try:
        async with running_router(url, max_body_size=MAX_BODY, **options) as router:
            yield Scene(router, worker)
            await router.at_rest()
    finally:
        await port.stopListening()


async def answers(client: Connection, count: int) -> list[Answer]:
    """
    The first *count* answers; fewer if the router closes before.
    """
    await client.until(
        lambda: client.closed is not None or len(parse_answers(client.received)[0]) >= count
    )
    return parse_answers(client.received)[0]


async def is_over(client: Connection, count: int) -> None:
    """
    Nothing comes behind *count* answers: the connection is closed, or in step for the next request.
    """
    got = await answers(client, count)
    if got and not got[-1].closes:
        client.write(LIVENESS)
        assert (await answers(client, count + 1))[-1].json == {"status": "ok"}
        client.transport.loseConnection()
    await client.until_closed()
    assert parse_answers(client.received)[1] == b""


@pytest.mark.parametrize("case", [*CASES, *SMUGGLED], ids=lambda case: str(case.name))
@pytest_twisted.ensureDeferred
async def test_corpus(case: Case) -> None:
    """
    Every odd request has its stated answer, in JSON where it is the router's own, and the worker
    sees exactly what it is meant to.
    """
    async with scene() as the:
        client = await the.client()
        client.write(case.data)
        got = await answers(client, len(case.statuses))
        assert tuple(answer.status for answer in got) == case.statuses, case.reason
        for answer in got:
            if answer.status >= 400:
                assert_well_told(answer)
            elif answer.status >= 200 and not answer.from_worker:
                assert_signed(answer)
        await is_over(client, len(case.statuses))
        assert the.seen == list(case.worker), case.reason
        assert sum(answer.from_worker for answer in got) == len(case.worker)


@given(case=st.sampled_from((*CASES, *SMUGGLED)), data=st.data())
def test_pieces(case: Case, data: st.DataObject) -> None:
    """
    The same comes of a connection's bytes in whatever pieces they arrive.
    """
    router = WiredRouter(max_body_size=MAX_BODY)
    client = router.connect()
    for piece in data.draw(pieces(case.data)):
        client.send(piece)
    assert tuple(client.statuses) == case.statuses
    assert [str(request) for request in router.worker.requests] == list(case.worker)


@st.composite
def pieces(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """
    *data* cut anywhere, near its ends and line ends more often.
    """
    places = [at for at, byte in enumerate(data[:2000]) if byte in b"\r\n:; "]
    anywhere = st.integers(0, len(data))
    cuts = draw(st.lists(st.one_of(st.sampled_from(places or [0]), anywhere), max_size=12))
    cuts = sorted({cut + draw(st.integers(0, 1)) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(cuts)]


SEEDS = [case.data for case in (*WELL_FORMED, *CHUNKS, *PIPELINES) if len(case.data) < 4000]
SNIPPETS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"\x16", b"\x80", b"\xff"),
    *(b"\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"ffffffffffffffff", b"-1", b"+", b"0x"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Host: evil\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.0"),
    *(b"Upgrade: h2c\r\n", b"http://evil/", b"@evil/", b"%00", b"%0d%0a", b"GET * HTTP/1.1\r\n"),
    GET + b"\r\n",
    POST + b"Content-Length: 5\r\n\r\nhello",
]


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """
    Sound and odd requests, one behind the other, with a few changes.
    """
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        new = draw(
            st.one_of(
                st.sampled_from(SNIPPETS), st.binary(max_size=4), st.just(data[start:end] * 2)
            )
        )
        data[start:end] = new
    return bytes(data)


@given(data=mutations(), random=st.randoms(use_true_random=False))
def test_mutations(data: bytes, random: random.Random) -> None:
    """
    Whatever comes: nothing breaks, the client reads sound answers only, and every request that the
    worker sees is a sound one whose answer the client has.
    """
    router = WiredRouter(max_body_size=MAX_BODY)
    client = router.connect()
    cuts = sorted({0, len(data), *(random.randint(0, len(data)) for _ in range(3))})
    for start, end in pairwise(cuts):
        client.send(data[start:end])
    router.wait(1000, step=10)
    assert client.closed is not None
    assert parse_answers(client.received)[1] == b""
    for answer in client.answers:
        if answer.status >= 400:
            assert_well_told(answer)
    assert not any(answer.closes for answer in client.answers[:-1])
    assert router.worker.violations == []
    assert all(connection.pending == b"" for connection in router.worker.connections)
    from_worker = sum(answer.from_worker for answer in client.answers)
    assert from_worker == len(router.worker.requests)
    router.stop()


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (POST + b"Content-Length: 10\r\n\r\n0123456789", 200, b"0123456789"),
        (POST + b"Content-Length: 11\r\n\r\n01234567890", 413, None),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n", 413, None),
        (b"GET @evil/x HTTP/1.1\r\nHost: h\r\n\r\n", 400, None),
        (b"GET /a HTTP/1.1\r\n\r\n", 400, None),
        (b"CONNECT evil:1 HTTP/1.1\r\nHost: h\r\n\r\n", 405, None),
        (b"GET http://evil/x HTTP/1.1\r\nHost: h\r\n\r\n", 200, b""),
    ],
)
def test_on_a_site_of_another_program(data: bytes, status: int, body: bytes | None) -> None:
    """
    With our request class a foreign site has the same answers, once the whole request is there,
    and its own limit.
    """
    router = WiredRouter()
    site = Site(router.service.resource(), reactor=router.clock)
    site.requestFactory = RouterRequest
    site.max_body_size = 10  # type: ignore[attr-defined]
    client = router.connect(data, site)
    assert client.statuses == [status]
    assert [request.body for request in router.worker.requests] == ([] if body is None else [body])
    if status >= 400:
        assert_well_told(client.answers[0])
    assert (b"allow" in client.answers[0].headers) == (status == 405)
    client.send(b"GET /liveness HTTP/1.1\r\nHost: h\r\n\r\n")
    assert client.statuses == [status, 200]


LARGE = random.Random(1).randbytes(150_000)


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 150_000])
@pytest.mark.parametrize("chunk", [None, 1000, 70_000])
@pytest_twisted.ensureDeferred
async def test_bodies_cross_unchanged(size: int, chunk: int | None) -> None:
    """
    A body arrives bit by bit as it was sent, also one too large to be kept in memory, and with a
    length, however it came.
    """
    body = LARGE[:size]
    async with scene() as the:
        client = await the.client()
        client.write(with_length(body) if chunk is None else in_chunks(body, chunk))
        assert [answer.status for answer in await answers(client, 1)] == [200]
        assert the.seen == ["POST /a"]
        [request] = the.worker.requests
        assert hashlib.sha256(request.body).digest() == hashlib.sha256(body).digest()
        assert request.values(b"content-length") == [b"%d" % size]
        await is_over(client, 1)


def with_length(body: bytes) -> bytes:
    return POST + b"Content-Length: %d\r\n\r\n" % len(body) + body


def in_chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def test_methods_in_lower_case() -> None:
    """
    They are methods of their own: no route of the router has them.
    """
    router = WiredRouter()
    client = router.connect(b"get /list_workers HTTP/1.1\r\nHost: h\r\n\r\n")
    client.send(b"get /a HTTP/1.1\r\nHost: h\r\n\r\n")
    assert client.statuses == [405, 200]
    assert [str(request) for request in router.worker.requests] == ["get /a"]


@pytest_twisted.ensureDeferred
async def test_continue() -> None:
    """
    A client that waits for its 100 gets it once its headers are here, and then its answer.
    """
    async with scene() as the:
        client = await the.client()
        client.write(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert [answer.status for answer in await answers(client, 1)] == [100]
        assert the.seen == []
        client.write(b"hello")
        assert [answer.status for answer in await answers(client, 2)] == [100, 200]
        assert the.worker.requests[0].body == b"hello"
        assert the.worker.requests[0].values(b"expect") == []
        await is_over(client, 2)


@pytest_twisted.ensureDeferred
async def test_the_id_of_a_refused_request() -> None:
    """
    A refused request is answered with its own id as far as it came.
    """
    async with scene() as the:
        client = await the.client()
        client.write(POST + b"X-Request-Id: mine\r\nContent-Length: 999999\r\n\r\n")
        [answer] = await answers(client, 1)
        assert answer.headers[b"x-request-id"] == b"mine"
        await is_over(client, 1)


@pytest_twisted.ensureDeferred
async def test_half_closed() -> None:
    """
    A client that closes its side without waiting for the answer has left: nothing is answered.
    """
    async with scene() as the:
        client = await the.client()
        client.write(GET + b"X: unfinished")
        client.transport.loseWriteConnection()
        assert await client.until_closed() == b""
        assert the.seen == []


@pytest_twisted.ensureDeferred
async def test_sends_and_closes() -> None:
    """
    A client that closes right behind its request leaves nothing in flight.
    """
    async with scene() as the:
        for data in (GET + b"\r\n", with_length(LARGE), with_length(LARGE)[:-1], b"", b"G"):
            client = await the.client()
            client.write(data)
            client.transport.loseConnection()
            await client.until_closed()
        await the.router.at_rest()
        assert the.worker.violations == []


HUGE = 50_000_000
OVER = {
    "length": POST + b"Content-Length: %d\r\n\r\n" % HUGE,
    "chunks": POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % HUGE,
    "target": b"POST @evil/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % HUGE,
    "coding": POST + b"Transfer-Encoding: gzip\r\n\r\n",
}


def send_all_then_read(connection: socket.socket, head: bytes) -> bytes:
    """
    What a plain blocking client does.
    """
    with connection:
        connection.settimeout(60)
        connection.sendall(head)
        block = memoryview(bytes(1_000_000))
        for _ in range(HUGE // len(block)):
            connection.sendall(block)
        received = b""
        while data := connection.recv(65536):
            received += data
        return received


def over_tcp(address: Any) -> socket.socket:
    return socket.create_connection((address.host, address.port))


def over_tls(address: Any) -> socket.socket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(over_tcp(address), suppress_ragged_eofs=False)


def over_unix(address: Any) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address.name)
    return connection


IDENTITY = Path(twisted.test.__file__).with_name("server.pem")
ROADS: dict[str, tuple[str, Callable[[Any], socket.socket]]] = {
    "tcp": ("tcp:0:interface=127.0.0.1", over_tcp),
    "tls": (f"ssl:0:interface=127.0.0.1:privateKey={IDENTITY}", over_tls),
    "unix": ("unix:{folder}/socket", over_unix),
}


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("name", OVER)
@pytest_twisted.ensureDeferred
async def test_a_client_that_sends_50_mb_and_then_reads(
    name: str, road: str, tmp_path: Path
) -> None:
    """
    A refused client gets its answer also when it first sends everything that it has.
    """
    listen, connected = ROADS[road]
    async with scene() as the:
        endpoint = serverFromString(reactor, listen.format(folder=tmp_path))
        port = await endpoint.listen(the.router.service.site())
        address = port.getHost()
        received = await deferToThread(lambda: send_all_then_read(connected(address), OVER[name]))
        await port.stopListening()
        [answer] = parse_answers(received)[0]
        assert answer.status == (413 if name in ("length", "chunks") else 400)
        assert_well_told(answer)
        assert the.seen == []
