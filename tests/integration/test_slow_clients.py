"""
Clients that send too slowly, take nothing, or leave: on a clock, byte by byte.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from twisted.logger import LogEvent

from tests.integration.answers import assert_well_told
from tests.integration.strict_worker import Received, StrictWorker
from tests.integration.wire import Client, WiredRouter, open_files

GET = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: h\r\n"
MAX_BODY = 1_000_000
READ, IDLE, KEEP_ALIVE = 60.0, 300.0, 75.0
LINGER = 30

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts files in /proc")


class SilentWorker(StrictWorker):
    """Takes requests and answers none."""

    def answer(self, request: Received) -> bytes:
        super().answer(request)
        return b""


class LargeWorker(StrictWorker):
    """Gives the largest answer that is written in one go."""

    def answer(self, request: Received) -> bytes:
        super().answer(request)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + b"x" * 65536


@pytest.fixture
def router() -> Iterator[WiredRouter]:
    """A router; when the test ends, nothing of its clients is left in it."""
    yield from _router()


@pytest.fixture
def busy_router() -> Iterator[WiredRouter]:
    """A router whose worker never answers."""
    yield from _router(SilentWorker())


@pytest.fixture
def large_router() -> Iterator[WiredRouter]:
    """A router whose worker gives large answers."""
    yield from _router(LargeWorker())


def _router(worker: StrictWorker | None = None) -> Iterator[WiredRouter]:
    before = open_files()
    router = WiredRouter(
        worker, read_timeout=READ, idle_timeout=IDLE, timeout=1e6, max_body_size=MAX_BODY
    )
    yield router
    assert router.worker.violations == []
    router.wait(KEEP_ALIVE + READ + IDLE, step=5)
    router.stop()
    assert open_files() == before


def assert_timed_out(client: Client, part: str) -> None:
    """
    The client was told so, once, and the connection is closed.
    """
    [answer] = client.answers
    assert answer.status == 408
    assert_well_told(answer)
    assert answer.error == {
        "error": f"The request's {part} did not arrive within 60 s",
        "reason": "client_too_slow",
    }
    assert answer.closes
    assert client.closed is not None


def drip(router: WiredRouter, client: Client, data: bytes, every: float) -> None:
    """
    Send a byte now and then.
    """
    for position in range(len(data)):
        client.send(data[position : position + 1])
        router.wait(every)


def test_slow_headers(router: WiredRouter) -> None:
    """
    Headers have their time in total, from their first byte: a byte now and then does not extend it.
    """
    client = router.connect()
    router.wait(30)
    drip(router, client, POST[:6], every=9.9)
    assert not client.received
    router.wait(0.7)
    assert_timed_out(client, "headers")


@pytest.mark.parametrize("begun", [b"G", b"GET /a HTTP/1.1\r\nHost: h\r\n", POST + b"X: y"])
def test_headers_that_stop(router: WiredRouter, begun: bytes) -> None:
    """
    Wherever headers stop, the client is told after the read time, not before.
    """
    client = router.connect(begun)
    router.wait(READ - 0.1)
    assert not client.received
    router.wait(0.2)
    assert_timed_out(client, "headers")
    assert router.worker.requests == []


def test_slow_headers_behind_an_answer(router: WiredRouter) -> None:
    """
    The next headers on a connection have the same time, from their own first byte.
    """
    client = router.connect(GET)
    router.wait(50)
    client.send(GET[:9])
    router.wait(50)
    client.send(GET[9:])
    router.wait(50)
    assert client.statuses == [200, 200]
    client.send(GET[:9])
    router.wait(READ + 0.1)
    assert client.statuses == [200, 200, 408]


def test_slow_headers_in_one_piece_with_a_request(router: WiredRouter) -> None:
    """
    The time of headers begins with the answer before them if they had begun to arrive by then.
    """
    client = router.connect(b"GET /liveness HTTP/1.1\r\nHost: h\r\n\r\n" + GET + GET[:9])
    assert client.statuses == [200, 200]
    router.wait(READ - 0.1)
    assert client.statuses == [200, 200]
    router.wait(0.2)
    assert client.statuses == [200, 200, 408]


@pytest.mark.parametrize(
    "begun",
    [
        POST + b"Content-Length: 9\r\n\r\n",
        POST + b"Content-Length: 9\r\n\r\nx",
        POST + b"Transfer-Encoding: chunked\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        POST + b"Content-Length: 200000\r\n\r\n" + b"x" * 100_000,
    ],
    ids=["none", "length", "no chunk", "chunk", "last chunk", "file"],
)
def test_bodies_that_stop(router: WiredRouter, begun: bytes) -> None:
    """
    A body may not be silent for longer than the read time; the worker sees nothing of it.
    """
    client = router.connect(begun)
    router.wait(READ - 0.1)
    assert not client.received
    router.wait(0.2)
    assert_timed_out(client, "body")
    assert router.worker.requests == []


def test_slow_bodies(router: WiredRouter) -> None:
    """
    A slow body arrives, however long it takes, if it is never silent for the read time.
    """
    client = router.connect(POST + b"Content-Length: 90000\r\n\r\n")
    for _ in range(10):
        client.send(b"x" * 9000)
        router.wait(READ - 1)
    assert client.statuses == [200]
    assert len(router.worker.requests[0].body) == 90000


def test_bodies_that_drip(router: WiredRouter) -> None:
    """
    A byte now and then is no body: whoever is below the slowest rate for the read time is told.
    """
    client = router.connect(POST + b"Content-Length: 9000\r\n\r\n")
    drip(router, client, b"x" * 59, every=1.0)
    assert not client.received
    router.wait(2)
    [answer] = client.answers
    assert answer.status == 408
    assert answer.error == {
        "error": "The request's body came with less than 100 bytes per second",
        "reason": "client_too_slow",
    }
    assert answer.closes
    assert router.worker.requests == []


def test_answers_that_take_long(busy_router: WiredRouter) -> None:
    """
    Neither the read time nor the keep-alive time cuts a client that waits for its answer.
    """
    client = busy_router.connect(POST + b"Content-Length: 2\r\n\r\nhi")
    busy_router.wait(10_000, step=50)
    assert client.closed is None
    assert not client.received
    busy_router.worker.connections[-1].transport.write(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    )
    busy_router.settle()
    assert client.statuses == [200]


def test_a_connection_never_used(router: WiredRouter) -> None:
    """
    A connection that brings no request is closed without a word.
    """
    client = router.connect()
    router.wait(KEEP_ALIVE - 0.1)
    assert client.closed is None
    router.wait(0.2)
    assert client.closed is not None
    assert not client.received


@pytest.mark.parametrize("more", [b"", b"\r\n"], ids=["nothing", "empty line"])
def test_a_connection_used_no_more(router: WiredRouter, more: bytes) -> None:
    """
    An idle connection is closed without a word, the time counted from its last answer; the empty
    line that some clients send behind a body begins no request.
    """
    client = router.connect()
    router.wait(70)
    client.send(POST + b"Content-Length: 2\r\n\r\nhi" + more)
    assert client.statuses == [200]
    router.wait(KEEP_ALIVE - 0.1)
    assert client.closed is None
    router.wait(0.2)
    assert client.closed is not None
    assert client.statuses == [200]


def test_an_answer_that_is_not_taken(router: WiredRouter) -> None:
    """
    A client that takes no byte of a finished answer is dropped after the idle time.
    """
    client = router.connect()
    client.transport.pauseProducing()
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert len(router.worker.requests) == 1
    router.wait(IDLE - 0.1)
    assert client.closed is None
    router.wait(0.2)
    assert client.reset


def test_an_answer_that_is_taken_late(router: WiredRouter) -> None:
    """
    Before that, it still arrives whole.
    """
    client = router.connect()
    client.transport.pauseProducing()
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    router.wait(IDLE - 1)
    client.transport.resumeProducing()
    router.settle()
    assert client.statuses == [200]
    assert client.closed is not None
    assert not client.reset


def test_an_answer_that_is_not_taken_on_a_kept_connection(router: WiredRouter) -> None:
    """
    A kept connection is first idle, then closing, then dropped.
    """
    client = router.connect()
    client.transport.pauseProducing()
    client.send(GET)
    router.wait(KEEP_ALIVE + IDLE - 1)
    assert client.closed is None
    router.wait(2)
    assert client.reset


def test_a_refusal_that_is_not_taken(router: WiredRouter) -> None:
    """
    A refused client that takes no byte is dropped as well.
    """
    client = router.connect()
    client.transport.pauseProducing()
    client.send(b"nonsense\r\n\r\n")
    router.wait(IDLE)
    assert client.closed is None
    router.wait(3)
    assert client.reset


def test_an_answer_before_a_refusal(router: WiredRouter) -> None:
    """
    A client that takes its answers late gets those before the refusal too.
    """
    client = router.connect()
    client.transport.pauseProducing()
    client.send(GET + b"nonsense\r\n\r\n")
    router.wait(100)
    client.transport.resumeProducing()
    router.settle()
    assert client.statuses == [200, 400]


def test_a_refused_client_that_goes_on_sending(router: WiredRouter) -> None:
    """
    What a refused client still sends is read and dropped for a while only; its answer waits longer.
    """
    client = router.connect()
    client.transport.pauseProducing()
    client.send(POST + b"Content-Length: 99999999999\r\n\r\n")
    for _ in range(LINGER):
        assert not client.transport.peer.disconnecting
        router.wait(1)
        client.send(b"x" * 100_000)
    assert client.transport.peer.disconnecting
    router.wait(IDLE - 1)
    client.transport.resumeProducing()
    router.settle()
    assert client.statuses == [413]


def test_a_refused_client_that_sends_and_takes_nothing(router: WiredRouter) -> None:
    """
    After that while it has the idle time, no more.
    """
    client = router.connect()
    client.transport.pauseProducing()
    client.send(POST + b"Content-Length: 99999999999\r\n\r\n")
    for _ in range(LINGER):
        router.wait(1)
        client.send(b"x")
    router.wait(IDLE - 0.5)
    assert client.closed is None
    router.wait(1)
    assert client.reset


def test_a_refusal_behind_a_large_answer(large_router: WiredRouter) -> None:
    """
    What a client sends that has yet to take an answer is read when it has taken that, and refused
    then.
    """
    client = large_router.connect()
    client.transport.pauseProducing()
    client.send(GET + b"nonsense" * 10_000)
    assert client.transport.peer.paused
    client.transport.resumeProducing()
    large_router.settle()
    assert client.statuses == [200, 414]
    assert client.closed is not None


def test_requests_of_a_client_that_takes_nothing(large_router: WiredRouter) -> None:
    """
    Its next requests reach no worker before it has taken the answers that it has.
    """
    client = large_router.connect()
    client.transport.pauseProducing()
    client.send(GET * 20)
    assert len(large_router.worker.requests) <= 2
    client.transport.resumeProducing()
    large_router.settle()
    assert client.statuses == [200] * 20
    assert len(large_router.worker.requests) == 20


def test_many_requests_at_once(router: WiredRouter) -> None:
    """
    Others have their turn between the requests that one client sends in one go.
    """
    turns: list[int] = []
    client = router.connect()

    def look() -> None:
        turns.append(len(client.statuses))
        if turns[-1] < 100:
            router.clock.callLater(0, look)

    router.clock.callLater(0, look)
    client.send(b"GET /liveness HTTP/1.1\r\nHost: h\r\n\r\n" * 100)
    assert turns[-1] == 100
    assert max(after - before for before, after in pairwise([0, *turns])) <= 16


def test_chunks_that_are_too_small(router: WiredRouter) -> None:
    """
    A body whose chunks cost far more than they bring is refused, a short one is not.
    """
    client = router.connect(POST + b"Transfer-Encoding: chunked\r\n\r\n")
    client.send(b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n")
    assert client.statuses == [200]
    client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50_000)
    assert client.statuses == [200, 400]
    assert client.answers[1].error == {
        "error": "Malformed request: the chunks are too small",
        "reason": "bad_request",
    }


def test_a_request_id_of_another_request(router: WiredRouter) -> None:
    """
    A refusal says the id of its own request, never that of the one before.
    """
    client = router.connect(GET.replace(b"Host", b"X-Request-Id: one\r\nHost"))
    client.send(b"GET /b HTTP/1.1\r\nX-Request-Id: two\r\n")
    router.wait(READ + 1)
    ids = [answer.headers[b"x-request-id"] for answer in client.answers]
    assert ids[0] == b"one"
    assert ids[1] not in (b"one", b"")


def test_what_reaches_no_route_is_in_the_log(router: WiredRouter, logged: list[LogEvent]) -> None:
    """
    Requests that are refused, come too late or end within their body have their line as well.
    """
    body = b"Content-Length: 9\r\n\r\nx"
    for data in (b"no HTTP\r\n\r\n", GET, POST + body, POST):
        router.connect(data)
    router.connect(POST + b"X-Request-Id: gone\r\n" + body).transport.abortConnection()
    router.wait(READ + 1)
    lines = [event for event in logged if event["log_namespace"] == "sgl_droute.request"]
    told = sorted((line["code"], line["status"] or 0, line["path"] or "") for line in lines)
    assert told == [
        ("bad_request", 400, ""),
        ("client_gone_sending", 0, "/a"),
        ("client_too_slow", 408, ""),
        ("client_too_slow", 408, "/a"),
        ("done", 200, "/a"),
    ]
    assert [line["bytes_in"] for line in lines if line["id"] == "gone"] == [1]


def test_what_the_router_says_itself_counts(router: WiredRouter, logged: list[LogEvent]) -> None:
    """
    The line of a request that reaches no route has the size of the answer that it got all the same.
    """
    [answer] = router.connect(b"no HTTP\r\n\r\n").answers
    [line] = [event for event in logged if event["log_namespace"] == "sgl_droute.request"]
    assert (answer.status, line["bytes_out"]) == (400, len(answer.body))


def test_more_than_was_asked_for_behind_a_last_answer(large_router: WiredRouter) -> None:
    """
    A client that goes on sending behind its last request gets that one's answer whole: what it
    sends is read and dropped, as closing would reset the connection.
    """
    client = large_router.connect()
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + b"x" * 100_000)
    assert client.statuses == [200]
    assert client.closed is not None
    assert not client.reset


def test_a_refused_body_is_not_kept(router: WiredRouter) -> None:
    """
    The file of a body is closed as soon as the body is refused.
    """
    before = open_files()
    client = router.connect(POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffff\r\n")
    client.transport.pauseProducing()
    client.send(b"x" * 100_000)
    assert open_files() == before + 1
    for _ in range(10):
        client.send(b"x" * 100_000)
    assert open_files() == before
    assert client.closed is None
    client.transport.resumeProducing()
    router.settle()
    assert client.statuses == [413]


@pytest.mark.parametrize("size", [10, 100_000], ids=["memory", "file"])
@pytest.mark.parametrize(
    "begun",
    [
        POST + b"Content-Length: 999999\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n",
    ],
    ids=["length", "chunks"],
)
def test_clients_that_leave_inside_a_body(router: WiredRouter, begun: bytes, size: int) -> None:
    """
    Nothing of a request is left, or gets to the worker, when its client leaves inside the body.
    """
    before = open_files()
    client = router.connect(begun)
    client.send(b"x" * size)
    client.transport.abortConnection()
    router.settle()
    assert open_files() == before
    assert router.worker.requests == []


@pytest.mark.parametrize("leave", ["loseConnection", "loseWriteConnection", "abortConnection"])
def test_clients_that_leave_before_the_answer(busy_router: WiredRouter, leave: str) -> None:
    """
    A client that closes, also one that only says that it will send no more, gives its request up:
    the connection to the worker is closed.
    """
    client = busy_router.connect(POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000)
    assert len(busy_router.worker.requests) == 1
    getattr(client.transport, leave)()
    busy_router.settle()
    assert client.closed is not None
    assert not client.received
    assert busy_router.worker.connections[-1].transport.gone


@pytest.mark.logs_failures
@pytest.mark.parametrize("size", [200_000, 152_000], ids=["while it comes", "at its end"])
def test_a_body_that_cannot_be_kept(router: WiredRouter, size: int) -> None:
    """
    A body that finds no room is refused with 507, and its file is closed.
    """
    before = open_files()
    with largest_file(150_000):
        client = router.connect(POST + b"Content-Length: %d\r\n\r\n" % size)
        for start in range(0, size, 10_000):
            client.send(b"x" * min(10_000, size - start))
    assert client.statuses == [507]
    assert_well_told(client.answers[0])
    assert open_files() == before
    assert router.worker.requests == []


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """
    No file grows beyond *size* (bytes).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
