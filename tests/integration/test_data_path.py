"""
What crosses the router between a client and a worker, over real sockets.
"""

from __future__ import annotations

import socket

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from tests.integration.sockets import (
    connect,
    eventually,
    reactor,
    running_router,
    scripted_worker,
)

GET = b"GET /v1/models HTTP/1.1\r\nHost: router\r\nX-Request-Id: 1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest_twisted.ensureDeferred
async def test_the_request_crosses_unchanged() -> None:
    """
    Method, raw target, repeated headers and body reach the worker byte for byte.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await (await worker.connection()).until_received(b"/health")
        client = await connect(router.port)
        client.write(
            b"pATCH //a%2Fb/../c;p=1?x=%20|{}&& HTTP/1.1\r\n"
            b"Host: router\r\nX-Request-Id: 7\r\nX-A: 1\r\nX-A: 2\r\nAccept-Encoding: br\r\n"
            b"Cookie: a=b\r\nUser-Agent: t\xc3\xa9st\r\nContent-Length: 4\r\n\r\n\x00\xff\r\n"
        )
        at_worker = await worker.connection(1, b"\x00\xff\r\n")
        head, _, body = at_worker.received.partition(b"\r\n\r\n")
        line, *headers = head.split(b"\r\n")
        assert line == b"pATCH //a%2Fb/../c;p=1?x=%20|{}&& HTTP/1.1"
        assert body == b"\x00\xff\r\n"
        host = worker.url.encode().partition(b"//")[2]
        assert sorted(headers) == sorted(
            [
                b"Host: " + host,
                b"X-Request-Id: 7",
                b"X-A: 1",
                b"X-A: 2",
                b"Accept-Encoding: br",
                b"Cookie: a=b",
                b"User-Agent: t\xc3\xa9st",
                b"Content-Length: 4",
                b"X-Forwarded-For: 127.0.0.1",
                b"X-Forwarded-Proto: http",
                b"X-Forwarded-Host: router",
            ]
        )
        at_worker.write(OK)
        assert (await client.until_received(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest_twisted.ensureDeferred
async def test_an_empty_query_and_an_absolute_target() -> None:
    """
    An empty ``?`` stays; of an absolute target only path and query go on.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(b"GET http://evil:1/x? HTTP/1.1\r\nHost: evil:1\r\n\r\n")
        at_worker = await worker.connection(1)
        assert at_worker.received.startswith(b"GET /x? HTTP/1.1\r\n")
        assert b"\r\nHost: 127.0.0.1:" in at_worker.received
        at_worker.write(OK)
        await client.until_received(b"ok")


@pytest_twisted.ensureDeferred
async def test_the_answer_crosses_unchanged() -> None:
    """
    Status, phrase, the worker's own Server, Date and encoding, repeated headers and bytes arrive
    once and as sent; hop-by-hop headers stop here.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        (await worker.connection(1)).write(
            b"HTTP/1.1 299 Quite Fine\r\nServer: uvicorn\r\nDate: then\r\nSet-Cookie: a=1\r\n"
            b"Set-Cookie: b=2\r\nContent-Encoding: gzip\r\nConnection: x-hop\r\nX-Hop: 1\r\n"
            b'Keep-Alive: 5\r\nETag: "x"\r\nContent-Length: 8\r\n\r\nnot gzip'
        )
        head, _, body = (await client.until_received(b"not gzip")).partition(b"\r\n\r\n")
        line, *headers = head.split(b"\r\n")
        assert line == b"HTTP/1.1 299 Quite Fine"
        assert body == b"not gzip"
        assert sorted(headers) == sorted(
            [
                b"Server: uvicorn",
                b"Date: then",
                b"Set-Cookie: a=1",
                b"Set-Cookie: b=2",
                b"Content-Encoding: gzip",
                b'ETag: "x"',
                b"Content-Length: 8",
                b"X-Request-Id: 1",
            ]
        )


@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked", b"Content-Length: 100000"])
@pytest_twisted.ensureDeferred
async def test_the_first_byte_passes_on_at_once(framing: bytes) -> None:
    """
    The head, and every part of the body, arrives before the worker has sent the next.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        at_worker = await worker.connection(1)
        at_worker.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        await client.until_received(b"\r\n\r\n")
        chunked = b"chunked" in framing
        for part in (b"first", b"second"):
            at_worker.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
            await client.until_received(part)


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
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET.replace(b"HTTP/1.1", b"HTTP/" + version))
        at_worker = await worker.connection(1)
        at_worker.write(answer)
        await client.until_received(b"\r\n\r\n")
        at_worker.transport.loseConnection()
        received = await client.until_closed()
        assert client.reset
        assert b"\r\n0\r\n" not in received
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
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        at_worker = await worker.connection(1)
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
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        at_worker = await worker.connection(1)
        at_worker.write(OK)
        await client.until_received(b"ok")
        client.write(GET.replace(b"GET", b"POST"))
        await at_worker.until_received(b"POST")
        at_worker.transport.abortConnection()
        assert b"HTTP/1.1 502 " in await client.until_received(b"}\n")
        assert len(worker.connections) == 2


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
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        at_worker = await worker.connection(1)
        assert router.in_flight == 1
        if answer:
            at_worker.write(answer)
            await client.until_received(b"\r\n\r\n")
        client.transport.abortConnection()
        await at_worker.until_closed()
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_a_thousand_requests_in_flight() -> None:
    """
    A thousand slow requests at once are all answered, and every health check passes meanwhile.
    """
    async with (
        scripted_worker() as worker,
        running_router(
            worker.url, health_check_interval=0.2, health_check_timeout=5.0, max_connections=1000
        ) as router,
    ):
        probes = await worker.connection()
        asked = 0

        def answer_probes() -> None:
            nonlocal asked
            while probes.received.count(b"GET /health ") > asked:
                asked += 1
                probes.write(OK)

        answer_probes()
        clients = [await connect(router.port) for _ in range(1000)]
        for client in clients:
            client.write(GET)
        await eventually(lambda: len(worker.connections) >= 1001, 30)
        assert router.in_flight == 1000
        for _ in range(5):
            seen = asked
            await probes.until(lambda: probes.received.count(b"GET /health ") > seen)  # noqa: B023
            answer_probes()
        [state] = router.service.pool
        assert state.failures == 0
        for connection in worker.connections:
            if connection is not probes:
                connection.write(OK)
        for client in clients:
            await client.until_received(b"ok", 30)
        await router.at_rest()
        for client in clients:
            client.transport.abortConnection()
            await client.until_closed()


@pytest_twisted.ensureDeferred
async def test_a_large_upload_arrives_whole() -> None:
    """
    A body far beyond the memory spool reaches the worker bit for bit, and its file is gone after.
    """
    body = bytes(range(256)) * 20_000
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(b"POST /x HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 100_000):
            part = body[start : start + 100_000]
            client.write(b"%x\r\n%s\r\n" % (len(part), part))
        client.write(b"0\r\n\r\n")
        at_worker = await worker.connection(1)
        await at_worker.until(lambda: len(at_worker.received) > len(body))
        await at_worker.until_received(body[-1000:])
        head, _, arrived = at_worker.received.partition(b"\r\n\r\n")
        await at_worker.until(lambda: at_worker.received.endswith(body[-50_000:]))
        _, _, arrived = at_worker.received.partition(b"\r\n\r\n")
        assert arrived == body
        assert b"Content-Length: %d" % len(body) in head
        at_worker.write(OK)
        await client.until_received(b"ok")


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


@pytest_twisted.ensureDeferred
async def test_a_worker_that_falls_silent_is_cut() -> None:
    """
    Silence inside an answer beyond the idle time-out cuts the answer.
    """
    async with scripted_worker() as worker, running_router(worker.url, idle_timeout=0.3) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        at_worker = await worker.connection(1)
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
    async with scripted_worker() as worker, running_router(worker.url, idle_timeout=0.5) as router:
        await worker.connection()
        reader = _slow_reader(router.port)
        at_worker = await worker.connection(1)
        size = 30_000_000
        at_worker.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
        taken = 0
        for _ in range(25):
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
async def test_localhost_that_listens_on_ipv4_only() -> None:
    """
    The next address of a name is tried at once when one refuses.
    """
    async with scripted_worker() as worker:
        url = worker.url.replace("127.0.0.1", "localhost")
        async with running_router(url) as router:
            await worker.connection()
            started = reactor.seconds()
            client = await connect(router.port)
            client.write(GET)
            (await worker.connection(1)).write(OK)
            await client.until_received(b"ok")
            assert reactor.seconds() - started < 5.0


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
async def test_an_interim_answer_is_skipped() -> None:
    """
    A worker's 1xx answers are not the answer.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        (await worker.connection(1)).write(b"HTTP/1.1 102 Processing\r\n\r\n" + OK)
        assert (await client.until_received(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest_twisted.ensureDeferred
async def test_an_answer_that_ends_with_its_connection() -> None:
    """
    A worker's answer without a length ends when it closes, and is whole for the client.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        at_worker = await worker.connection(1)
        at_worker.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\neverything")
        await client.until_received(b"everything")
        at_worker.transport.loseConnection()
        assert (await client.until_received(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
        await router.at_rest()


@pytest_twisted.ensureDeferred
async def test_an_answer_whose_connection_breaks() -> None:
    """
    A worker's answer without a length is cut when its connection breaks instead of closing.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        at_worker = await worker.connection(1)
        at_worker.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nsome of it")
        await client.until_received(b"some of it")
        at_worker.transport.abortConnection()
        await client.until_closed()
        assert client.reset
        await router.at_rest()


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest_twisted.ensureDeferred
async def test_answers_without_a_body(status: bytes) -> None:
    """
    204 and 304 pass on without a body, and the connection serves on.
    """
    async with scripted_worker() as worker, running_router(worker.url) as router:
        await worker.connection()
        client = await connect(router.port)
        client.write(GET)
        at_worker = await worker.connection(1)
        at_worker.write(b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n")
        received = await client.until_received(b"\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 " + status)
        client.write(GET)
        await at_worker.until(lambda: at_worker.received.count(b"GET") == 2)
        at_worker.write(OK)
        await client.until_received(b"ok")


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
        async with scripted_worker() as worker, running_router(stuck, worker.url) as router:
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
