"""
One connection to a worker, over a transport in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from sgl_droute.errors import BadRequest, Disconnected, WorkerFailed
from sgl_droute.workers.connection import WorkerConnection
from sgl_droute.workers.request import WorkerRequest

BASE = b"http://w:1"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HALF = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"


@implementer(IBodyProducer)
class Body:
    """
    A body that the test produces.

    Args:
        length: What it says of itself; None if it does not know.
    """

    def __init__(self, length: int | None) -> None:
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self.done: Deferred[None] = Deferred()
        self.consumer: Any = None
        self.asked: list[str] = []

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return self.done

    def pauseProducing(self) -> None:
        self.asked.append("pause")

    def resumeProducing(self) -> None:
        self.asked.append("resume")

    def stopProducing(self) -> None:
        self.asked.append("stop")


@implementer(IBodyProducer)
class Held:
    """A body that is in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.length: Any = len(data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        raise AssertionError("it is written with the head")

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class Reader(Protocol):
    """Takes a body, and keeps how it ended."""

    transport: Any

    def __init__(self, part_came: Callable[[Reader], None] | None = None) -> None:
        self.received = b""
        self.ended: Any = None
        self._part_came = part_came

    def dataReceived(self, data: bytes) -> None:
        assert self.ended is None
        self.received += data
        if self._part_came is not None:
            self._part_came(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert self.ended is None
        self.ended = reason

    @property
    def end(self) -> type[BaseException]:
        """The kind of the end."""
        assert self.ended is not None
        return type(self.ended.value)


class Wire:
    """A connection, and what became of it."""

    def __init__(self) -> None:
        self.freed = 0
        self.lost = 0
        self.transport: Any = StringTransport()
        self.connection = WorkerConnection(BASE, self._freed, self._lost)
        self.connection.makeConnection(self.transport)
        self.answers: list[Any] = []
        self.failures: list[Failure] = []

    def _freed(self, connection: WorkerConnection) -> None:
        self.freed += 1

    def _lost(self, connection: WorkerConnection) -> None:
        self.lost += 1

    def ask(
        self, method: bytes = b"GET", body: IBodyProducer | None = None, **headers: bytes
    ) -> Deferred[Any]:
        """
        Send a request; its answer goes into ``answers`` or ``failures``.
        """
        fields = Headers({name.encode(): [value] for name, value in headers.items()})
        request = WorkerRequest(method, BASE, b"/x", fields, body)
        asking: Deferred[Any] = self.connection.send(request)
        return asking.addCallbacks(self.answers.append, self.failures.append)

    def answer(self, *pieces: bytes) -> None:
        """
        Let bytes of the worker arrive.
        """
        for piece in pieces:
            self.connection.dataReceived(piece)

    def lose(self, reason: Exception) -> None:
        """
        Let the connection end.
        """
        self.connection.connectionLost(Failure(reason))

    def deliver(self, part_came: Callable[[Reader], None] | None = None) -> Reader:
        """
        Take the body of the last answer.
        """
        reader = Reader(part_came)
        self.answers[-1].deliverBody(reader)
        return reader

    @property
    def sent(self) -> bytes:
        return bytes(self.transport.value())

    @property
    def closed(self) -> bool:
        """Closed in order or cut."""
        return bool(self.transport.disconnecting)

    @property
    def cut(self) -> bool:
        return bool(self.transport.disconnected)

    @property
    def reading(self) -> bool:
        return bool(self.transport.producerState == "producing")


@pytest.fixture
def wire() -> Wire:
    return Wire()


# Requests.


def test_the_bytes_of_a_request(wire: Wire) -> None:
    """
    ``Host`` is the worker's, the rest as given.
    """
    wire.ask(b"pATCH", Host=b"other", Accept=b"*/*")
    assert wire.sent == b"pATCH /x HTTP/1.1\r\nHost: w:1\r\nAccept: */*\r\n\r\n"


@pytest.mark.parametrize("method", [b"POST", b"PUT"])
def test_no_body_where_one_is_usual(wire: Wire, method: bytes) -> None:
    """
    A POST or PUT without a body says so.
    """
    wire.ask(method)
    assert wire.sent.endswith(b"\r\nContent-Length: 0\r\n\r\n")


def test_a_body_in_memory(wire: Wire) -> None:
    """
    A body that is in memory is written with its head; lengths given beside it are not believed.
    """
    wire.ask(b"POST", Held(b"hi"), **{"Content-Length": b"9", "Transfer-Encoding": b"chunked"})
    assert wire.sent == b"POST /x HTTP/1.1\r\nHost: w:1\r\nContent-Length: 2\r\n\r\nhi"
    wire.answer(OK)
    assert wire.freed == 1


def test_a_body_of_known_length(wire: Wire) -> None:
    """
    The connection is free once body and answer are complete.
    """
    body = Body(4)
    wire.ask(b"POST", body)
    assert wire.sent.endswith(b"\r\nContent-Length: 4\r\n\r\n")
    body.consumer.write(b"ab")
    body.consumer.write(b"cd")
    body.done.callback(None)
    assert wire.sent.endswith(b"\r\n\r\nabcd")
    wire.answer(OK)
    assert wire.freed == 1
    assert body.asked == []


def test_a_body_of_unknown_length(wire: Wire) -> None:
    """
    It goes in chunks; an empty write is none.
    """
    body = Body(None)
    wire.ask(b"POST", body)
    body.consumer.write(b"0123456789abcdef")
    body.consumer.write(b"")
    body.done.callback(None)
    head, _, rest = wire.sent.partition(b"\r\n\r\n")
    assert head.endswith(b"\r\nTransfer-Encoding: chunked")
    assert rest == b"10\r\n0123456789abcdef\r\n0\r\n\r\n"


def test_a_worker_that_does_not_read(wire: Wire) -> None:
    """
    A body pauses while the transport is full, also one that begins then.
    """
    wire.transport.producer.pauseProducing()
    body = Body(4)
    wire.ask(b"POST", body)
    assert body.asked == ["pause"]
    wire.transport.producer.resumeProducing()
    body.consumer.write(b"abcd")
    wire.transport.producer.pauseProducing()
    assert body.asked == ["pause", "resume", "pause"]
    body.done.callback(None)
    wire.transport.producer.resumeProducing()
    assert body.asked == ["pause", "resume", "pause"]


@pytest.mark.parametrize("written", [b"abc", b"abcde"])
def test_a_body_of_another_length(wire: Wire, written: bytes) -> None:
    """
    A body that is shorter or longer than it said fails the request and cuts the connection.
    """
    body = Body(4)
    wire.ask(b"POST", body)
    body.consumer.write(written)
    body.done.callback(None)
    [failure] = wire.failures
    assert failure.check(WorkerFailed)
    assert "than it said" in failure.getErrorMessage()
    assert wire.cut
    assert b"abcde" not in wire.sent


def test_a_body_that_breaks_off(wire: Wire) -> None:
    """
    So does one that cannot be produced.
    """
    body = Body(4)
    wire.ask(b"POST", body)
    body.done.errback(OSError("disk"))
    [failure] = wire.failures
    assert "disk" in failure.getErrorMessage()
    assert wire.cut
    assert body.asked == []


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        (b"GET", b"/x", {b"A": [b"b\0"]}),
        (b"GET", b"/x\r\nA: b", {}),
        (b"GET", b"/x y", {}),
        (b"GET", b"", {}),
        (b"GET /", b"/x", {}),
        (b"GET\n", b"/x", {}),
    ],
)
def test_what_is_no_request(
    method: bytes, target: bytes, headers: dict[bytes, list[bytes]]
) -> None:
    """
    What would not be read as one request is refused before anything is sent.
    """
    with pytest.raises(BadRequest):
        WorkerRequest(method, BASE, target, Headers(headers))


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_headers_never_become_others(value: bytes, target: bytes) -> None:
    """
    Whatever a value or a target holds, the request has one line for it or is refused.
    """
    try:
        request = WorkerRequest(b"GET", BASE, b"/" + target, Headers({b"A": [value]}))
    except BadRequest:
        return
    lines = request.written.split(b"\r\n")
    assert len(lines) == 5
    assert lines[0] == b"GET /%b HTTP/1.1" % target
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)


# Answers.


def test_an_answer_that_comes_whole(wire: Wire) -> None:
    """
    It shows its body at once, the connection is free by then, and the body can be delivered still.
    """
    wire.ask().addCallback(lambda _: order.append(wire.freed))
    order: list[int] = []
    wire.answer(OK)
    assert order == [1]
    [response] = wire.answers
    assert (response.version, response.code, response.phrase) == ((b"HTTP", 1, 1), 200, b"OK")
    assert response.whole == b"ok"
    assert response.length == 2
    assert response.headers.getRawHeaders(b"content-length") == [b"2"]
    assert response.request.absoluteURI == b"http://w:1/x"
    reader = wire.deliver()
    assert (reader.received, reader.end) == (b"ok", ResponseDone)
    reader.transport.abortConnection()
    reader.transport.pauseProducing()
    assert not wire.closed
    assert wire.reading


def test_an_answer_in_pieces(wire: Wire) -> None:
    """
    The head is told when it is complete; the body follows as it comes.
    """
    wire.ask()
    wire.answer(b"HTTP/1.1 200 OK\r\nContent-", b"Length: 9\r\n\r\nab")
    [response] = wire.answers
    assert response.whole is None
    assert response.length == 9
    reader = wire.deliver()
    assert reader.received == b"ab"
    wire.answer(b"cdef", b"ghi")
    assert (reader.received, reader.end) == (b"abcdefghi", ResponseDone)
    assert wire.freed == 1


def test_a_body_that_nobody_takes(wire: Wire) -> None:
    """
    Nothing more is read until somebody takes the body; what has come is not lost.
    """
    wire.ask()
    wire.answer(HALF)
    assert not wire.reading
    wire.answer(b"more")  # TLS gives what it has
    reader = wire.deliver()
    assert wire.reading
    assert reader.received == b"halfmore"
    wire.answer(b"!!")
    assert reader.end is ResponseDone


def test_a_body_that_is_taken_at_once(wire: Wire) -> None:
    """
    Taking the body as soon as there is an answer pauses nothing.
    """
    asked: list[str] = []
    wire.transport.pauseProducing = lambda: asked.append("pause")
    wire.ask().addCallback(lambda _: wire.deliver())
    wire.answer(HALF)
    assert asked == []


def test_a_reader_that_pauses(wire: Wire) -> None:
    """
    Whoever takes the body pauses and resumes the connection; free, it reads again.
    """
    wire.ask()
    wire.answer(HALF)
    reader = wire.deliver(lambda reader: reader.transport.pauseProducing())
    assert not wire.reading
    reader.transport.resumeProducing()
    assert wire.reading
    wire.answer(b"cdefgh")
    assert reader.end is ResponseDone
    assert wire.freed == 1
    assert wire.reading


def test_a_body_is_delivered_once(wire: Wire) -> None:
    """
    It has one reader.
    """
    wire.ask()
    wire.answer(OK)
    wire.deliver()
    with pytest.raises(RuntimeError):
        wire.deliver()


@pytest.mark.parametrize("code", [b"200", b"204", b"304"])
def test_answers_without_a_body(wire: Wire, code: bytes) -> None:
    """
    What says nothing of a body has none where there cannot be one.
    """
    wire.ask(b"HEAD" if code == b"200" else b"GET")
    wire.answer(b"HTTP/1.1 %b X\r\nContent-Length: 7\r\n\r\n" % code)
    [response] = wire.answers
    assert (response.whole, response.length) == (b"", 0)
    assert wire.freed == 1


def test_large_bodies_are_read_in_large_pieces(wire: Wire) -> None:
    """
    The transport reads more at once when a body flows, and as before it afterwards.
    """
    transport = wire.transport
    usual = transport.bufferSize
    wire.ask()
    wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    wire.deliver()
    wire.answer(b"x" * 200_000)
    assert transport.bufferSize == usual
    wire.answer(b"x" * 200_000)
    assert transport.bufferSize > 4 * usual
    wire.answer(b"x" * 600_000)
    assert transport.bufferSize == usual
    wire.ask()
    wire.answer(HALF)
    assert transport.bufferSize == usual


@given(st.lists(st.sampled_from([b"", b"/1.0", b"0"]), min_size=1, max_size=4), st.integers(1, 9))
def test_one_request_after_the_other(bodies: list[bytes], size: int) -> None:
    """
    Each request gets its own answer, in whatever pieces that comes.
    """
    wire = Wire()
    for number, body in enumerate(bodies):
        wire.ask()
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        wire.answer(*(answer[at : at + size] for at in range(0, len(answer), size)))
        assert wire.freed == number + 1
        reader = wire.deliver()
        assert (reader.received, reader.end) == (body, ResponseDone)


# Ends.


def test_a_body_until_the_connection_closes(wire: Wire) -> None:
    """
    It ends with the connection's end, if that is in order.
    """
    wire.ask()
    wire.answer(b"HTTP/1.1 200 OK\r\n\r\nsome")
    assert wire.answers[0].length is UNKNOWN_LENGTH
    reader = wire.deliver()
    wire.lose(ConnectionDone())
    assert (reader.received, reader.end) == (b"some", PotentialDataLoss)
    assert wire.freed == 0


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (HALF, ConnectionDone()),
        (CHUNKED, ConnectionDone()),
        (b"HTTP/1.1 200 OK\r\n\r\nhalf", ConnectionLost()),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_a_cut_answer(wire: Wire, answer: bytes, reason: Exception, late: bool) -> None:
    """
    An answer that is cut is told as failed, also to who takes it afterwards.
    """
    wire.ask()
    wire.answer(answer)
    if late:
        wire.lose(reason)
        reader = wire.deliver()
    else:
        reader = wire.deliver()
        wire.lose(reason)
    assert reader.received == b"half"
    assert reader.end is ResponseFailed
    assert wire.lost == 1


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-"])
def test_no_answer(wire: Wire, begun: bytes) -> None:
    """
    A connection that ends before the head of an answer fails the request, and stops its body.
    """
    body = Body(4)
    wire.ask(b"POST", body)
    if begun:
        wire.answer(begun)
    wire.lose(ConnectionLost())
    [failure] = wire.failures
    assert failure.type is Disconnected
    assert body.asked == ["stop"]
    assert wire.lost == 1


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 101 S\r\n\r\n"])
def test_what_is_no_answer(wire: Wire, answer: bytes) -> None:
    """
    What is no HTTP fails the request at once and cuts the connection.
    """
    wire.ask()
    wire.answer(answer)
    [failure] = wire.failures
    assert failure.type is WorkerFailed
    assert "not HTTP" in failure.getErrorMessage()
    assert wire.cut
    wire.lose(ConnectionLost())
    assert len(wire.failures) == 1


def test_chunks_that_are_none(wire: Wire) -> None:
    """
    A body that turns out to be no HTTP ends as failed.
    """
    wire.ask()
    wire.answer(CHUNKED)
    reader = wire.deliver()
    wire.answer(b"nonsense\r\n")
    assert (reader.received, reader.end) == (b"half", ResponseFailed)
    assert wire.cut
    wire.lose(ConnectionLost())


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
        OK.replace(b"1.1", b"1.0"),
        OK + b"surplus",
        b"HTTP/1.1 204 N\r\n\r\nsurplus",
    ],
)
def test_a_connection_without_another_use(wire: Wire, answer: bytes) -> None:
    """
    The answer stands; the connection is closed.
    """
    wire.ask()
    wire.answer(answer)
    assert len(wire.answers) == 1
    assert wire.freed == 0
    assert wire.closed
    assert not wire.cut


def test_bytes_that_nobody_asked_for(wire: Wire) -> None:
    """
    A worker that speaks on an idle connection loses it.
    """
    wire.ask()
    wire.answer(OK)
    wire.answer(OK)
    assert wire.lost == 1
    assert wire.closed
    assert len(wire.answers) == 1


@pytest.mark.parametrize("answer", [(OK,), (OK[:-2], OK[-2:])], ids=["whole", "in pieces"])
def test_an_answer_before_the_request_is_sent(wire: Wire, answer: tuple[bytes, ...]) -> None:
    """
    What is left of the request is not sent, the answer stands, the connection is cut at its end.
    """
    body = Body(1000)
    wire.ask(b"POST", body)
    body.consumer.write(b"begun")
    wire.answer(answer[0])
    assert body.asked == ["stop"]
    body.consumer.write(b"more")
    body.done.callback(None)
    assert wire.sent.endswith(b"begun")
    wire.answer(*answer[1:])
    reader = wire.deliver()
    assert (reader.received, reader.end) == (b"ok", ResponseDone)
    assert wire.freed == 0
    assert wire.cut


def test_an_interim_answer_does_not_end_a_request(wire: Wire) -> None:
    """
    A body is sent on after a 100.
    """
    body = Body(4)
    wire.ask(b"POST", body)
    wire.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    body.consumer.write(b"abcd")
    body.done.callback(None)
    wire.answer(OK)
    assert wire.freed == 1


def test_giving_up_before_an_answer(wire: Wire) -> None:
    """
    Cancelling cuts the connection and stops the request's body.
    """
    body = Body(4)
    asking = wire.ask(b"POST", body)
    asking.cancel()
    [failure] = wire.failures
    assert failure.check(CancelledError)
    assert body.asked == ["stop"]
    assert wire.cut
    wire.lose(ConnectionLost())
    assert wire.freed == 0


def test_giving_up_inside_an_answer(wire: Wire) -> None:
    """
    Whoever takes the body may cut it; it is told when that has happened.
    """
    wire.ask()
    wire.answer(HALF)
    reader = wire.deliver(lambda reader: reader.transport.abortConnection())
    assert wire.cut
    wire.lose(ConnectionLost())
    assert reader.end is ResponseFailed
    assert wire.freed == 0


def test_cutting_as_the_last_byte_comes(wire: Wire) -> None:
    """
    A connection that is cut at the end of an answer is not used again.
    """
    wire.ask()
    wire.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    wire.deliver(lambda reader: reader.transport.abortConnection())
    wire.answer(b"ok")
    assert wire.freed == 0
    assert wire.cut


def test_the_next_request_from_the_end_of_a_body(wire: Wire) -> None:
    """
    A connection is free when the end of an answer is told, for a request made there.
    """
    wire.ask()
    wire.answer(HALF)

    class Next(Reader):
        def connectionLost(self, reason: Failure = connectionDone) -> None:
            super().connectionLost(reason)
            assert wire.freed == 1
            wire.ask()

    wire.answers[0].deliverBody(Next())
    wire.answer(b"......")
    wire.answer(OK)
    assert [response.whole for response in wire.answers] == [None, b"ok"]
