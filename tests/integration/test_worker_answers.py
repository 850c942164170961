"""
Strange answers of a worker: nobody ever gets bytes of an answer that is not his own.

As data: what the worker answers, what its client gets, and whether the connection to the worker
serves the next request. Nearly all of it in memory, so that "never" needs no waiting.
"""

# ruff: noqa: E501 (one answer, one line)

from __future__ import annotations

import re

import pytest
import pytest_twisted
from attrs import define, frozen

from tests.integration.answers import parse_answers
from tests.integration.sockets import GET, connect, running_router, scripted_worker
from tests.integration.strict_worker import Received, StrictConnection, StrictWorker
from tests.integration.wire import Client, WiredRouter

OK = b"HTTP/1.1 200 OK\r\n"
STOLEN = OK + b"Content-Length: 6\r\n\r\nstolen"
CHUNKED = b"Transfer-Encoding: chunked"
IN_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


@define(eq=False)
class OddWorker(StrictWorker):
    """
    Answers requests for ``/odd`` with *odd* as it is, and all others as it should.
    """

    odd: bytes = b""

    def answer(self, request: Received) -> bytes:
        return self.odd if request.target == "/odd" else super().answer(request)

    @property
    def odd_connections(self) -> list[StrictConnection]:
        """The connections that odd answers went over."""
        return [each for each in self.connections if b" /odd " in each.raw]


@frozen
class Odd:
    """
    One odd answer.

    Attributes:
        status: What the client is told; 0: it is cut, or told a 502 if nothing was passed on yet.
        kept: Whether the connection to the worker serves the next request.
        method: Of the request.
        bodies: What the client may get behind the head of a 200.
    """

    name: str
    data: bytes
    status: int
    reason: str
    kept: bool = False
    method: bytes = b"GET"
    bodies: tuple[bytes, ...] = (b"hello", IN_CHUNKS)


def _with(header: bytes, body: bytes = b"hello") -> bytes:
    return OK + header + b"\r\n\r\n" + body


def _beside(header: bytes) -> bytes:
    """A sound answer but for *header*."""
    return _with(header + b"\r\nContent-Length: 5")


def _chunks(body: bytes) -> bytes:
    return _with(CHUNKED, body)


ODD = (
    # Bytes behind an answer.
    Odd("a length and more", _with(b"Content-Length: 5", b"helloXX"), 200, "what follows is nobody's"),
    Odd("an empty line behind", _with(b"Content-Length: 5", b"hello\r\n"), 200, "what follows is nobody's"),
    Odd("two answers", _with(b"Content-Length: 5") + STOLEN, 200, "the second is nobody's"),
    Odd("chunks and more", _chunks(IN_CHUNKS + b"XX"), 200, "what follows is nobody's"),
    Odd("chunks and an answer", _chunks(IN_CHUNKS) + STOLEN, 200, "the second is nobody's"),
    Odd("chunks and a 101", _chunks(IN_CHUNKS) + b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nstolen", 200, "what follows is nobody's"),
    Odd("chunks and half an answer", _chunks(IN_CHUNKS) + STOLEN[:30], 200, "what follows is nobody's"),
    Odd("length zero and an answer", _with(b"Content-Length: 0", b"") + STOLEN, 200, "the second is nobody's", bodies=(b"",)),
    Odd("204 with a body", b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello", 204, "RFC 9112 6.3 rule 1"),
    Odd("204 with chunks", b"HTTP/1.1 204 No\r\n" + CHUNKED + b"\r\n\r\n" + IN_CHUNKS, 204, "RFC 9112 6.3 rule 1"),
    Odd("204 and an answer", b"HTTP/1.1 204 No\r\n\r\n" + STOLEN, 204, "RFC 9112 6.3 rule 1"),
    Odd("304 with a body", b"HTTP/1.1 304 Same\r\nContent-Length: 5\r\n\r\nhello", 304, "RFC 9112 6.3 rule 1"),
    Odd("304 and an answer", b"HTTP/1.1 304 Same\r\n\r\n" + STOLEN, 304, "RFC 9112 6.3 rule 1"),
    Odd("head with a body", _with(b"Content-Length: 5"), 200, "RFC 9112 6.3 rule 1", method=b"HEAD", bodies=(b"",)),
    Odd("head with chunks", _chunks(IN_CHUNKS), 200, "RFC 9112 6.3 rule 1", method=b"HEAD", bodies=(b"",)),
    Odd("head without a length, with a body", OK + b"\r\nhello", 200, "RFC 9112 6.3 rule 1", method=b"HEAD", bodies=(b"",)),
    # Before an answer.
    Odd("100", b"HTTP/1.1 100 Continue\r\n\r\n" + _with(b"Content-Length: 5"), 200, "RFC 9110 15.2: not asked for", kept=True),
    Odd("103", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + _with(b"Content-Length: 5"), 200, "RFC 8297: may be dropped", kept=True),
    Odd("199", b"HTTP/1.1 199 Odd\r\n\r\n" + _with(b"Content-Length: 5"), 200, "RFC 9110 15.2: may be dropped", kept=True),
    Odd("100 with a length", b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n" + _with(b"Content-Length: 5"), 200, "RFC 9112 6.3 rule 1: no body", kept=True),
    Odd("many 100", b"HTTP/1.1 100 Continue\r\n\r\n" * 20 + _with(b"Content-Length: 5"), 200, "RFC 9110 15.2", kept=True),
    Odd("101", b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello", 502, "RFC 9110 15.2.2: not asked for"),
    # Two lengths, or none that can be read.
    Odd("length and chunks", _with(b"Content-Length: 3\r\n" + CHUNKED, IN_CHUNKS), 502, "RFC 9112 6.3 rule 3: an attempt at response splitting"),
    Odd("chunks and length", _with(CHUNKED + b"\r\nContent-Length: 15", IN_CHUNKS), 502, "RFC 9112 6.3 rule 3"),
    Odd("two lengths that differ", _with(b"Content-Length: 5\r\nContent-Length: 6", b"hello!"), 502, "RFC 9112 6.3 rule 5"),
    Odd("two lengths that agree", _with(b"Content-Length: 5\r\nContent-Length: 5"), 502, "RFC 9110 8.6: may be refused"),
    Odd("length list", _with(b"Content-Length: 5, 5"), 502, "RFC 9110 8.6: may be refused"),
    *(Odd(f"length {value!r}", _with(b"Content-Length: " + value.encode()), 502, "RFC 9110 8.6") for value in ("-5", "+5", "0x5", "5_0", "5 5", "5;", "x", "")),
    Odd("length 2^64 + 5", _with(b"Content-Length: 18446744073709551621"), 0, "RFC 9110 8.6: no overflow"),
    Odd("length behind a space", _with(b"Content-Length : 5"), 502, "RFC 9112 5.1"),
    Odd("coding behind a space", _with(b"Transfer-Encoding : chunked", IN_CHUNKS), 502, "RFC 9112 5.1"),
    Odd("gzip", _with(b"Transfer-Encoding: gzip"), 502, "RFC 9112 6.1: not asked for"),
    Odd("gzip, chunked", _with(b"Transfer-Encoding: gzip, chunked", IN_CHUNKS), 502, "RFC 9112 6.1: not asked for"),
    Odd("xchunked", _with(b"Transfer-Encoding: xchunked", IN_CHUNKS), 502, "RFC 9112 6.1"),
    Odd("identity and a length", _with(b"Transfer-Encoding: identity\r\nContent-Length: 5"), 502, "RFC 9112 6.3 rule 3"),
    Odd("chunked, chunked", _with(b"Transfer-Encoding: chunked, chunked", IN_CHUNKS), 502, "RFC 9112 6.1"),
    Odd("chunked twice", _with(CHUNKED + b"\r\n" + CHUNKED, IN_CHUNKS), 502, "RFC 9112 6.1"),
    # Chunks.
    Odd("extension", _chunks(b"5;a=b\r\nhello\r\n0\r\n\r\n"), 200, "RFC 9112 7.1.1: ignored", kept=True),
    Odd("trailer", _chunks(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"), 200, "RFC 9110 6.5.1: dropped", kept=True),
    *(Odd(f"chunk size {size!r}", _chunks(size.encode() + b"\r\nhello\r\n0\r\n\r\n"), 0, "RFC 9112 7.1") for size in ("-5", "+5", "0x5", "5 ", "g", "", "3", "10000000000000005")),
    Odd("bare LF behind a size", _chunks(b"5\nhello\r\n0\r\n\r\n"), 0, "RFC 9112 7.1"),
    Odd("bare LF behind a chunk", _chunks(b"5\r\nhello\n0\r\n\r\n"), 0, "RFC 9112 7.1"),
    Odd("trailer that is no header", _chunks(b"5\r\nhello\r\n0\r\nGET / HTTP/1.1\r\n\r\n"), 0, "RFC 9112 7.1.2"),
    # Heads.
    Odd("no phrase", b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", 200, "RFC 9112 4: may be absent", kept=True),
    Odd("no phrase, no space", b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", 200, "seen in the wild", kept=True),
    Odd("upgrade named", _beside(b"Connection: upgrade\r\nUpgrade: h2c"), 200, "RFC 9110 7.8: only offered", kept=True),
    Odd("upgrade named, in chunks", _with(b"Connection: upgrade\r\nUpgrade: h2c\r\n" + CHUNKED, IN_CHUNKS), 200, "RFC 9110 7.8: only offered", kept=True),
    Odd("http/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "RFC 9112 9.3: not persistent"),
    Odd("http/1.0 with chunks", b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"\r\n\r\n" + IN_CHUNKS, 200, "RFC 9112 6.1: read, then closed"),
    Odd("close", _beside(b"Connection: close") + STOLEN, 200, "RFC 9112 9.6"),
    Odd("close in a list", _beside(b"Connection: x, Close") + STOLEN, 200, "RFC 9112 9.6"),
    Odd("http/2", b"HTTP/2 200 OK\r\nContent-Length: 5\r\n\r\nhello", 502, "RFC 9112 2.3"),
    Odd("icy", b"ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello", 502, "RFC 9112 4"),
    Odd("no head", b"hello\r\n\r\n", 502, "RFC 9112 4"),
    Odd("bare LF everywhere", b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 502, "RFC 9112 2.2: may be refused"),
    Odd("bare LF behind a header", _beside(b"X: y\nY: z"), 502, "RFC 9112 2.2: may be refused"),
    Odd("folded", _beside(b"X: a\r\n b"), 502, "RFC 9112 5.2"),
    Odd("coding folded into another", _beside(b"X: a\r\n Transfer-Encoding: chunked"), 502, "RFC 9112 5.2"),
    Odd("bare CR in a value", _beside(b"X: a\rSet-Cookie: b"), 502, "RFC 9112 2.2"),
    Odd("nul in a value", _beside(b"X: a\0b"), 502, "RFC 9110 5.5"),
    Odd("control character in a value", _beside(b"X: a\x01b"), 502, "RFC 9110 5.5"),
    Odd("no colon", _beside(b"X"), 502, "RFC 9112 5"),
    Odd("space in a name", _beside(b"X Y: a"), 502, "RFC 9110 5.1"),
    Odd("empty name", _beside(b": a"), 502, "RFC 9110 5.1"),
    Odd("nul in a name", _beside(b"X\0: a"), 502, "RFC 9110 5.1"),
)  # fmt: skip


def asks(router: WiredRouter, method: bytes = b"GET", client: Client | None = None) -> Client:
    """
    A client that has asked for the odd answer.
    """
    client = client or router.connect()
    client.send(method + b" /odd HTTP/1.1\r\nHost: h\r\n\r\n")
    return client


def head_and_body(client: Client) -> tuple[int, bytes, bytes]:
    """
    Status, head and body of the one answer that a client has; 0 if it has none.
    """
    head, _, body = client.received.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1\.1 (\d+) ", head)
    return (int(found[1]) if found else 0), head, body


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: str(odd.name))
def test_odd_answers(odd: Odd) -> None:
    """
    Every odd answer has its stated outcome: passed on whole, a 502, or cut; and the next requests,
    on the same connection or on another, get their own answers.
    """
    router = WiredRouter(OddWorker(odd=odd.data), timeout=5.0, idle_timeout=5.0)
    client = asks(router, odd.method)
    if not odd.status:
        router.wait(6)
    status, head, body = head_and_body(client)
    if odd.status:
        assert status == odd.status, odd.reason
    else:
        assert status == 502 or client.reset, odd.reason
    if odd.status == 200:
        assert body in odd.bodies
    assert status not in (204, 304) or body == b""
    assert not re.search(rb"[\0-\x08\x0b\x0c\x0e-\x1f]|\r(?!\n)|(?<!\r)\n|\r\n[ \t]", head)
    assert_next_requests_are_served(router, client)
    assert_kept(router, kept=odd.kept)
    ended(router)


def assert_next_requests_are_served(router: WiredRouter, client: Client) -> None:
    """
    The next requests, the client's own first if it is still connected, have answers of their own.
    """
    before = len(client.received)
    for each in (client, router.connect(), router.connect()):
        if each.closed is None:
            each.send(b"GET /own HTTP/1.1\r\nHost: h\r\n\r\n")
            received = each.received[before if each is client else 0 :]
            [answer], rest = parse_answers(received)
            assert answer.from_worker
            assert answer.json == {"number": len(router.worker.requests)}
            assert rest == b""
            each.transport.loseConnection()
            router.settle()
    assert b"stolen" not in client.received


def assert_kept(router: WiredRouter, *, kept: bool) -> None:
    """
    Whether the connection of the odd answer served one of the next requests; if not, it is closed.
    """
    assert isinstance(router.worker, OddWorker)
    [connection] = router.worker.odd_connections
    assert (b" /own " in connection.raw) == kept
    assert bool(connection.transport.gone) != kept


def ended(router: WiredRouter) -> None:
    """
    Nothing is left of anything, a moment later.
    """
    router.wait(2)
    router.stop()


LATE = {
    "byte": b"X",
    "empty line": b"\r\n",
    "answer": STOLEN,
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "408": b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE.keys())
def test_bytes_on_an_idle_connection(late: bytes) -> None:
    """
    An idle connection on which bytes arrive that nobody asked for is closed, and nobody gets them.
    """
    router = WiredRouter(OddWorker(odd=_with(b"Content-Length: 5")))
    client = asks(router)
    assert client.received.endswith(b"hello")
    assert isinstance(router.worker, OddWorker)
    [connection] = router.worker.odd_connections
    connection.transport.write(late)
    router.settle()
    assert_next_requests_are_served(router, client)
    assert_kept(router, kept=False)
    ended(router)


@pytest_twisted.ensureDeferred
async def test_bytes_that_nobody_has_read_yet() -> None:
    """
    Bytes that have come on an idle connection, but were not read when the next request came, are
    not its answer either: it goes over another connection.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        at_worker = await worker.connection(1)
        at_worker.write(_with(b"Content-Length: 5"))
        await client.until_received(b"hello")
        at_worker.transport.socket.send(STOLEN)
        client.transport.socket.send(GET)
        (await worker.connection(2)).write(_with(b"Content-Length: 3", b"own"))
        assert b"stolen" not in await client.until_received(b"\r\n\r\nown")
        assert at_worker.received.count(b"GET") == 1
        await at_worker.until_closed()
        await router.at_rest()


def test_a_second_answer_is_not_for_a_pipelined_request() -> None:
    """
    A client that has sent two requests at once does not get both answers from the first.
    """
    router = WiredRouter(OddWorker(odd=_with(b"Content-Length: 5") + STOLEN))
    odd, own = (b"GET " + path + b" HTTP/1.1\r\nHost: h\r\n\r\n" for path in (b"/odd", b"/own"))
    client = router.connect(odd + own)
    assert [answer.body for answer in client.answers] == [b"hello", b'{"number":1}']
    assert_kept(router, kept=False)


ENDLESS = {
    "100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "103": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "headers": (OK, b"X: y\r\n"),
    "one header": (OK + b"X: ", b"y"),
    "phrase": (b"HTTP/1.1 200 ", b"OK "),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS.keys())
def test_heads_without_end(begin: bytes, more: bytes) -> None:
    """
    A head that does not end is given up before it is a megabyte, and a row of interim answers when
    time is over: the client is told, and the connection is closed.
    """
    router = WiredRouter(OddWorker(odd=begin), timeout=5.0)
    client = asks(router)
    assert isinstance(router.worker, OddWorker)
    [connection] = router.worker.odd_connections
    part = more * (20_000 // len(more))
    for _ in range(50 if begin else 6):
        connection.transport.write(part)
        router.wait(0.001 if begin else 1.0)
    assert connection.transport.gone
    assert head_and_body(client)[0] in (502, 504)
    assert_next_requests_are_served(router, client)
    ended(router)
