"""
No bytes of a client make the worker see another request than the router counted.

Each test of bytes runs on `WiredRouter`, so that thousands of them take seconds.
"""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import pytest_twisted
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.answers import assert_well_told
from tests.integration.corpus import CASES, GET, HIDDEN, MAX_BODY, POST, Case
from tests.integration.smuggling import SMUGGLED
from tests.integration.sockets import connect, eventually, running_router, scripted_worker
from tests.integration.strict_worker import Received, parse
from tests.integration.wire import Client, WiredRouter

ALL = (*CASES, *SMUGGLED)
SHORT = [case for case in ALL if len(case.data) <= 600]
# A handshake that fits becomes a tunnel, which is tested as such.
SEEDS = [case.data for case in SHORT if b"websocket" not in case.data]


@pytest.mark.parametrize("case", SHORT, ids=lambda case: str(case.name))
def test_byte_by_byte(case: Case) -> None:
    """
    The same comes of a connection whose bytes arrive one by one.
    """
    router = WiredRouter(max_body_size=MAX_BODY)
    sent(router, case, [case.data[at : at + 1] for at in range(len(case.data))])


@pytest.mark.parametrize("case", SMUGGLED, ids=lambda case: str(case.name))
def test_cut_at_every_seam(case: Case) -> None:
    """
    The same comes of a connection that falls silent at the end, or the beginning, of any word.
    """
    router = WiredRouter(max_body_size=MAX_BODY)
    for cut in seams(case.data[:600]):
        sent(router, case, [case.data[:cut], case.data[cut:]])


def sent(router: WiredRouter, case: Case, pieces: list[bytes]) -> None:
    """
    Send *pieces* on a connection of its own; the outcome is the case's.
    """
    before = len(router.worker.requests)
    client = router.connect()
    for piece in pieces:
        client.send(piece)
    client.transport.loseConnection()
    router.settle()
    assert tuple(client.statuses) == case.statuses, case.reason
    assert [str(request) for request in router.worker.requests[before:]] == list(case.worker)
    assert_counted(router, client, before)


def seams(data: bytes) -> list[int]:
    """
    Where *data* can be cut beside a byte that ends a word.
    """
    ends = [at for at, byte in enumerate(data) if byte in b"\r\n:; \0"]
    return sorted({cut for at in ends for cut in (at, at + 1)} - {0})


def assert_counted(router: WiredRouter, client: Client, before: int = 0) -> None:
    """
    The worker saw sound requests only, one for each answer of its own that the client has.
    """
    assert router.worker.violations == []
    assert router.worker.unread == b""
    from_worker = sum(answer.from_worker for answer in client.answers)
    assert from_worker == len(router.worker.requests) - before


WORDS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b"\x0b", b"\x85", b"\xa0", b":", b";", b",", b'"'),
    *(b"0", b"1", b"a", b"+", b"-", b"0x", b"_", b"%0d%0a", b"HTTP/1.0", b"HTTP/1.1", b"//evil"),
    *(b"\r\n\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"chunked", b"identity", b"Host: evil\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b"Connection: close\r\n", b"Connection: content-length\r\n", b"Expect: 100-continue\r\n"),
    HIDDEN,
]


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """
    One or two cases, one behind the other, with bytes or whole lines put in, left out or doubled.
    """
    data = b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(1, 5))):
        change = draw(st.sampled_from([insert, leave_out, replace, double_line, move_line]))
        data = change(draw, data)
    return data


def insert(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, len(data)))
    new = draw(st.one_of(st.sampled_from(WORDS), st.binary(min_size=1, max_size=3)))
    return data[:at] + new + data[at:]


def leave_out(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, len(data)))
    return data[:at] + data[at + draw(st.integers(1, 4)) :]


def replace(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.integers(0, len(data)))
    return data[:at] + draw(st.binary(min_size=1, max_size=1)) + data[at + 1 :]


def double_line(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\n")
    at = draw(st.integers(0, len(lines) - 1))
    return b"\n".join([*lines[: at + 1], *lines[at:]])


def move_line(draw: st.DrawFn, data: bytes) -> bytes:
    lines = data.split(b"\n")
    line = lines.pop(draw(st.integers(0, len(lines) - 1)))
    lines.insert(draw(st.integers(0, len(lines))), line)
    return b"\n".join(lines)


@settings(max_examples=2000)
@given(data=changed(), cut=st.floats(0, 1))
def test_changed_cases(data: bytes, cut: float) -> None:
    """
    Whatever is changed in a case, and wherever its bytes are cut: the worker sees sound requests
    only, as many as the client has answers to; refusals are well told, and the last word.
    """
    router = WiredRouter(max_body_size=MAX_BODY)
    client = router.connect()
    for start, end in pairwise((0, int(cut * len(data)), len(data))):
        client.send(data[start:end])
    client.transport.loseConnection()
    router.settle()
    assert_counted(router, client)
    for answer in client.answers:
        if answer.status >= 400:
            assert_well_told(answer)
    assert not any(answer.closes for answer in client.answers[:-1])
    router.wait(2)
    router.stop()


NAMED = b"content-length, content-type, transfer-encoding, host, x-forwarded-for, x-request-id"


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
    ids=["length", "chunks"],
)
def test_connection_names_headers_that_the_router_makes(body: bytes) -> None:
    """
    A client that has ``Connection`` name the headers of its framing, or those that say who it is,
    loses its own ones only: those that the router makes get to the worker, each once.
    """
    router = WiredRouter()
    spoofed = b"X-Forwarded-For: 6.6.6.6\r\nX-Request-Id: mine\r\n"
    client = router.connect(POST + spoofed + b"Connection: " + NAMED + b"\r\n" + body)
    assert client.statuses == [200]
    [request] = router.worker.requests
    assert request.body == b"hello"
    assert request.values(b"content-length") == [b"5"]
    assert request.values(b"host") == [b"127.0.0.1:1"]
    assert request.values(b"x-forwarded-for") == [b"127.0.0.1"]
    assert len(request.values(b"x-request-id")) == 1
    assert request.values(b"connection") in ([], [b"keep-alive"])


HANDSHAKE = (
    GET
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
REFUSED = b"HTTP/1.1 403 Forbidden\r\nServer: strict\r\nContent-Length: 2\r\n\r\nno"


@pytest_twisted.ensureDeferred
async def test_a_request_behind_a_refused_handshake() -> None:
    """
    A request behind a WebSocket handshake does not reach the worker on the handshake's heels: when
    the worker has refused, it is a request like any other, or the connection is closed.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(HANDSHAKE + HIDDEN)
        at_worker = await worker.connection(1)
        assert at_worker.received.count(b"HTTP/1.1") == 1
        at_worker.write(REFUSED)
        await client.until_received(b"\r\n\r\nno")

        def later() -> bytes:
            return b"".join(each.received for each in worker.connections)[requests_before:]

        requests_before = len(worker.connections[0].received) + len(at_worker.received)
        await eventually(lambda: client.closed is not None or later().endswith(b"\r\n\r\n"))
        if client.closed is None:
            parsed = parse(later())
            assert parsed is not None
            assert isinstance(parsed[0], Received)
            assert (str(parsed[0]), parsed[1]) == ("GET /hidden", b"")
            worker.connections[-1].write(REFUSED)
            await client.until(lambda: client.received.count(b"403 Forbidden") == 2)
            client.transport.loseConnection()
        await client.until_closed()
        await router.at_rest()
        heads = sum(len(re.findall(rb"HTTP/1\.1\r\n", c.received)) for c in worker.connections[1:])
        assert heads == client.received.count(b"403 Forbidden")
