"""
What crosses the router between a client and a worker, over real sockets, and is not changed.
"""

from __future__ import annotations

from collections import Counter

import pytest
import pytest_twisted

from tests.integration.sockets import (
    GET,
    OK,
    Connection,
    connect,
    eventually,
    exchange,
    running_router,
    scripted_worker,
)

# What the router asks a worker on its own account.
OWN_PATHS = (b"/health ", b"/model_info ", b"/v1/models ")


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
    async with exchange(b"GET http://evil:1/x? HTTP/1.1\r\nHost: evil:1\r\n\r\n") as (
        _,
        _,
        client,
        at_worker,
    ):
        assert at_worker.received.startswith(b"GET /x? HTTP/1.1\r\n")
        assert b"\r\nHost: 127.0.0.1:" in at_worker.received
        at_worker.write(OK)
        await client.until_received(b"ok")


@pytest_twisted.ensureDeferred
async def test_the_answer_crosses_unchanged() -> None:
    """
    Status, phrase, the worker's own Server, Date and encoding, repeated headers and bytes arrive
    once and as sent; hop-by-hop headers stop here. The router adds only what it tells of itself.
    """
    async with exchange() as (_, _, client, at_worker):
        at_worker.write(
            b"HTTP/1.1 299 Quite Fine\r\nServer: uvicorn\r\nDate: then\r\nSet-Cookie: a=1\r\n"
            b"Set-Cookie: b=2\r\nContent-Encoding: gzip\r\nConnection: x-hop\r\nX-Hop: 1\r\n"
            b'Keep-Alive: 5\r\nETag: "x"\r\nContent-Length: 8\r\n\r\nnot gzip'
        )
        head, _, body = (await client.until_received(b"not gzip")).partition(b"\r\n\r\n")
        line, *headers = head.split(b"\r\n")
        stamps = (b"X-Router-Job: ", b"X-Router-Worker: ", b"Server-Timing: queue;dur=")
        headers = [header for header in headers if not header.startswith(stamps)]
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
    async with exchange() as (_, _, client, at_worker):
        at_worker.write(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        await client.until_received(b"\r\n\r\n")
        chunked = b"chunked" in framing
        for part in (b"first", b"second"):
            at_worker.write(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
            await client.until_received(part)


@pytest_twisted.ensureDeferred
async def test_an_interim_answer_is_skipped() -> None:
    """
    A worker's 1xx answers are not the answer.
    """
    async with exchange() as (_, _, client, at_worker):
        at_worker.write(b"HTTP/1.1 102 Processing\r\n\r\n" + OK)
        assert (await client.until_received(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest_twisted.ensureDeferred
async def test_answers_without_a_body(status: bytes) -> None:
    """
    204 and 304 pass on without a body, and the connection serves on.
    """
    async with exchange() as (_, _, client, at_worker):
        at_worker.write(b"HTTP/1.1 " + status + b"\r\nETag: x\r\n\r\n")
        received = await client.until_received(b"\r\n\r\n")
        assert received.startswith(b"HTTP/1.1 " + status)
        client.write(GET)
        await at_worker.until(lambda: at_worker.received.count(b"GET") == 2)
        at_worker.write(OK)
        await client.until_received(b"ok")


@pytest_twisted.ensureDeferred
async def test_an_answer_that_ends_with_its_connection() -> None:
    """
    A worker's answer without a length ends when it closes, and is whole for the client.
    """
    async with exchange() as (router, _, client, at_worker):
        at_worker.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\neverything")
        await client.until_received(b"everything")
        at_worker.transport.loseConnection()
        assert (await client.until_received(b"0\r\n\r\n")).endswith(b"0\r\n\r\n")
        await router.at_rest()


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
        await worker.connection()
        answered: Counter[Connection] = Counter()

        def checks() -> int:
            return sum(each.received.count(b"GET /health ") for each in worker.connections)

        def answer_probes() -> None:
            for each in worker.connections:
                # On the same road the router asks what a worker serves.
                asked = sum(each.received.count(b"GET " + path) for path in OWN_PATHS)
                each.write(OK * (asked - answered[each]))
                answered[each] = asked

        answer_probes()
        clients = [await connect(router.port) for _ in range(1000)]
        for client in clients:
            client.write(GET)
        await eventually(lambda: len(worker.connections) >= 1001, 30)
        assert router.in_flight == 1000
        for _ in range(5):
            answer_probes()  # one that has come meanwhile, without which no other comes
            seen = checks()
            await eventually(lambda: checks() > seen)  # noqa: B023
            answer_probes()
        [state] = router.service.pool
        assert state.failures == 0
        for connection in worker.connections:
            if not answered[connection]:
                connection.write(OK)
        for client in clients:
            await client.until_received(b"ok", 30)
        await router.at_rest()
        for client in clients:
            client.transport.abortConnection()
            await client.until_closed()
