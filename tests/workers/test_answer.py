"""
Answers as they are read from a worker's bytes.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.workers.answer import (
    MAX_HEAD,
    MAX_HEADERS,
    AnswerHead,
    AnswerReader,
    BadAnswer,
)

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n"


@frozen
class Read:
    """What a reader made of some bytes."""

    head: AnswerHead
    body: bytes
    ended: bool
    surplus: bool
    until_close: bool


def read(*pieces: bytes, bodiless: bool = False, may_switch: bool = False) -> Read:
    """
    The answer in *pieces*; what comes behind its end is not given to the reader.
    """
    reader = AnswerReader(bodiless, may_switch)
    body = b""
    for piece in pieces:
        if not reader.ended:
            body += reader.feed(piece)
    assert reader.head is not None
    return Read(reader.head, body, reader.ended, reader.surplus, reader.until_close)


def feed_for_ever(reader: AnswerReader, data: bytes) -> None:
    """
    Give *reader* the same again and again, until it has enough.
    """
    for _ in range(MAX_HEAD):
        reader.feed(data)


def test_a_usual_answer() -> None:
    """
    Names stay as they came, values lose the white space around them.
    """
    answer = read(OK + b"content-length: 2\r\nX-a: \t b c \t\r\nX-A:\r\n\r\nok")
    assert (answer.head.minor, answer.head.code, answer.head.phrase) == (1, 200, b"OK")
    assert answer.head.fields == [(b"content-length", b"2"), (b"X-a", b"b c"), (b"X-A", b"")]
    assert (answer.body, answer.ended, answer.surplus) == (b"ok", True, False)
    assert answer.head.length == 2
    assert answer.head.persistent


def test_a_large_body_is_not_copied() -> None:
    """
    The bytes of a body with a length are handed on as the very objects that came.
    """
    reader = AnswerReader()
    assert reader.feed(OK + b"Content-Length: 300000\r\n\r\n") == b""
    for _ in range(3):
        part = b"x" * 100_000
        assert reader.feed(part) is part
    assert reader.ended


def test_chunks() -> None:
    """
    Chunks are undone; their extensions and trailers are dropped.
    """
    answer = read(CHUNKED + b"2;a=b\r\nok\r\nA\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert answer.body == b"ok0123456789"
    assert answer.ended
    assert not answer.surplus
    assert answer.head.chunked
    assert answer.head.length is None
    assert answer.head.fields == [(b"Transfer-Encoding", b"chunked")]


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_a_body_until_the_connection_closes(version: bytes) -> None:
    """
    Without length and chunks the body has no end of its own, nor has the connection another use.
    """
    answer = read(b"HTTP/%b 200 OK\r\nConnection: close\r\n\r\nsome" % version, b" more")
    assert answer.body == b"some more"
    assert answer.until_close
    assert not answer.ended
    assert not answer.head.persistent


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Content-Length: 0\r\n\r\n",
    ],
)
def test_answers_without_a_body(answer: bytes) -> None:
    """
    204, 304 and empty bodies end with their head; bytes behind it are surplus.
    """
    assert read(answer).ended
    assert not read(answer).surplus
    surplus = read(answer + b"more")
    assert surplus.surplus
    assert surplus.body == b""


@pytest.mark.parametrize("framing", [b"Content-Length: 7", b"Transfer-Encoding: chunked", b"A: b"])
def test_answers_to_head(framing: bytes) -> None:
    """
    An answer to HEAD ends with its head, whatever that says of a body.
    """
    answer = read(OK + framing + b"\r\n\r\n", bodiless=True)
    assert answer.ended
    assert not answer.surplus
    assert answer.head.persistent


def test_the_length_of_a_204() -> None:
    """
    A 204 has no ``Content-Length`` (RFC 9110 8.6); a 304 may keep it.
    """
    assert read(b"HTTP/1.1 204 N\r\nContent-Length: 0\r\nA: b\r\n\r\n").head.fields == [
        (b"A", b"b")
    ]
    assert read(b"HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n").head.fields == [
        (b"Content-Length", b"9")
    ]


def test_interim_answers() -> None:
    """
    100, 102 and 103 are passed over, headers and all.
    """
    answer = read(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nContent-Length: 9\r\n\r\n"
        b"HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok"
    )
    assert answer.head.fields == [(b"Content-Length", b"2")]
    assert answer.body == b"ok"


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Hints\r\nUpgrade: x\r\n\r\n"])
@pytest.mark.parametrize("framing", [b"", b"content-length: 3\r\n"])
def test_an_answer_that_switches(interim: bytes, framing: bytes) -> None:
    """
    A 101 to ``websocket`` is an answer where one is asked for; all that comes behind it passes,
    whatever it says of a body (it has none: RFC 9110 8.6).
    """
    head = SWITCHED.replace(
        b"\r\nUpgrade", b"\r\nSec-WebSocket-Accept: x\r\n" + framing + b"Upgrade"
    )
    answer = read(interim + head + b"\x81\0", b"HTTP/1.1 ", b"\0" * MAX_HEAD, may_switch=True)
    assert (answer.head.code, answer.head.phrase) == (101, b"Switching")
    assert [name for name, _ in answer.head.fields] == [b"Connection", b"Sec-WebSocket-Accept"]
    assert answer.body == b"\x81\0HTTP/1.1 " + b"\0" * MAX_HEAD
    assert not answer.ended
    assert answer.until_close


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"Upgrade: websocket\r\n",
        b"Connection: upgrade\r\n",
        b"Connection: upgrade\r\nUpgrade: h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket, h2c\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n",
    ],
)
def test_switching_to_something_else(headers: bytes) -> None:
    """
    No other 101 is one.
    """
    with pytest.raises(BadAnswer):
        read(b"HTTP/1.1 101 Switching\r\n" + headers + b"\r\n", may_switch=True)


@pytest.mark.parametrize(
    ("head", "persistent"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: a, Close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\n", False),
    ],
)
def test_whether_the_connection_is_kept(head: bytes, persistent: bool) -> None:
    """
    HTTP/1.1 keeps its connection unless told otherwise, HTTP/1.0 if told so.
    """
    assert read(head + b"Content-Length: 0\r\n\r\n").head.persistent is persistent


def test_chunks_from_an_older_worker() -> None:
    """
    HTTP/1.0 has no chunks: they are undone, and the connection has no other use.
    """
    answer = read(
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nok\r\n0\r\n\r\n"
    )
    assert answer.body == b"ok"
    assert not answer.head.persistent


def test_headers_of_one_hop() -> None:
    """
    Headers that ``Connection`` names are dropped.
    """
    answer = read(OK + b"X-Hop: 1\r\nConnection: keep-alive, x-hop\r\nContent-Length: 0\r\n\r\n")
    assert [name for name, _ in answer.head.fields] == [b"Connection", b"Content-Length"]


BAD = {
    "another protocol": b"SSH-2.0-OpenSSH\r\n\r\n",
    "another protocol's answer": b"RTSP/1.0 200 OK\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "an empty line first": b"\r\n\r\n" + OK + b"\r\n",
    "a status of two digits": b"HTTP/1.1 99 Low\r\n\r\n",
    "a status below 100": b"HTTP/1.1 099 Low\r\n\r\n",
    "a status above 599": b"HTTP/1.1 600 High\r\n\r\n",
    "a negative status": b"HTTP/1.1 -5 Less\r\n\r\n",
    "a CR in the phrase": b"HTTP/1.1 200 O\rK\r\n\r\n",
    "a NUL in the phrase": b"HTTP/1.1 200 O\0K\r\n\r\n",
    "a WebSocket that nobody asked for": SWITCHED,
    "another protocol behind": b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "101 without upgrade": b"HTTP/1.1 101 S\r\n\r\n",
    "a folded header": OK + b"A: b\r\n c\r\n\r\n",
    "a bare LF behind a header": OK + b"A: b\nC: d\r\n\r\n",
    "a bare LF behind the status": b"HTTP/1.1 200 OK\nA: b\r\n\r\n",
    "bare LFs": b"HTTP/1.1 200 OK\n\n",
    "a bare CR": OK + b"A: b\rc\r\n\r\n",
    "a NUL in a value": OK + b"A: b\0c\r\n\r\n",
    "a control character in a value": OK + b"A: b\x01\r\n\r\n",
    "a space before a colon": OK + b"A : b\r\n\r\n",
    "a space before a name": OK + b" A: b\r\n\r\n",
    "no name": OK + b": b\r\n\r\n",
    "no colon": OK + b"A\r\n\r\n",
    "a name that is no token": OK + b"A\xe9: b\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "a negative length": OK + b"Content-Length: -2\r\n\r\nok",
    "a signed length": OK + b"Content-Length: +2\r\n\r\nok",
    "no length in the header": OK + b"Content-Length:\r\n\r\n",
    "an endless length": OK + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "a length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
    "chunks and a length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
    "another coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "another coding behind": OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    "chunked twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "no coding": OK + b"Transfer-Encoding: identity\r\n\r\n",
    "a negative chunk": CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
    "a prefixed chunk": CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n",
    "an endless chunk": CHUNKED + b"f" * 17 + b"\r\nok",
    "a chunk that is longer": CHUNKED + b"2\r\nokay\r\n0\r\n\r\n",
    "chunks with bare LFs": CHUNKED + b"2\nok\n0\n\n",
    "a trailer with a NUL": CHUNKED + b"0\r\nA: \0\r\n\r\n",
    "a length in a trailer": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\n",
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD.keys())
def test_what_is_no_answer(answer: bytes) -> None:
    """
    What two readers could read differently is refused, in one piece or byte by byte.
    """
    with pytest.raises(BadAnswer):
        read(answer)
    with pytest.raises(BadAnswer):
        read(*(answer[at : at + 1] for at in range(len(answer))))


def test_a_head_that_never_ends() -> None:
    """
    A head is bounded before it is complete, and so are interim answers in their number.
    """
    reader = AnswerReader()
    reader.feed(OK)
    with pytest.raises(BadAnswer, match=str(MAX_HEAD)):
        feed_for_ever(reader, b"A: b\r\n")
    with pytest.raises(BadAnswer, match=str(MAX_HEAD)):
        feed_for_ever(AnswerReader(), b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("size", [MAX_HEAD, MAX_HEAD + 1])
def test_the_largest_head(size: int) -> None:
    """
    A head of `MAX_HEAD` bytes is read, and none that is larger.
    """
    start, end = OK + b"A: ", b"\r\nContent-Length: 0\r\n\r\n"
    answer = start + b"x" * (size - len(start) - len(end)) + end
    if size <= MAX_HEAD:
        assert read(answer).ended
    else:
        with pytest.raises(BadAnswer, match=str(MAX_HEAD)):
            read(answer)


@pytest.mark.parametrize("count", [MAX_HEADERS, MAX_HEADERS + 1])
def test_the_most_headers(count: int) -> None:
    """
    An answer has `MAX_HEADERS` headers at most.
    """
    answer = OK + b"A: b\r\n" * count + b"\r\n"
    if count <= MAX_HEADERS:
        assert len(read(answer).head.fields) == count
    else:
        with pytest.raises(BadAnswer, match=str(MAX_HEADERS)):
            read(answer)


@pytest.mark.parametrize("nothing", [b"A: b\r\n", b"x" * 100])
def test_trailers_and_extensions_that_never_end(nothing: bytes) -> None:
    """
    What a chunked answer says beside its body is bounded.
    """
    reader = AnswerReader()
    reader.feed(CHUNKED + (b"0\r\n" if b":" in nothing else b"2;"))
    with pytest.raises(BadAnswer, match="between chunks"):
        feed_for_ever(reader, nothing)


ANSWERS = [
    OK + b"Content-Length: 11\r\n\r\nhello world",
    OK + b"Connection: close\r\n\r\nhello world",
    CHUNKED + b"5\r\nhello\r\n6;a\r\n world\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 C\r\n\r\n" + OK + b"Content-Length: 11\r\n\r\nhello world",
    b"HTTP/1.1 204 N\r\nA: b\r\n\r\n",
]


@given(st.sampled_from([*ANSWERS, SWITCHED + b"hello world"]), st.lists(st.integers(1, 120)))
def test_how_bytes_arrive_does_not_matter(answer: bytes, cuts: list[int]) -> None:
    """
    An answer is the same in whatever pieces it comes.
    """
    edges = [0, *sorted(cut for cut in set(cuts) if cut < len(answer)), len(answer)]
    pieces = [answer[start:end] for start, end in pairwise(edges)]
    whole, pieced = read(answer, may_switch=True), read(*pieces, may_switch=True)
    assert pieced.body == whole.body == (b"" if b"204" in answer else b"hello world")
    assert (pieced.ended, pieced.surplus) == (whole.ended, False)
    assert pieced.head.fields == whole.head.fields


ENDING = [
    ANSWERS[0],
    ANSWERS[2],
    ANSWERS[2].replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
    ANSWERS[4],
]


@given(st.sampled_from(ENDING), st.binary(min_size=1))
def test_bytes_behind_an_answer(answer: bytes, behind: bytes) -> None:
    """
    Bytes behind an answer are told and change nothing of it.
    """
    found = read(answer + behind)
    assert found.body == read(answer).body
    assert found.ended
    assert found.surplus or not behind.strip(b"\r\n")


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", OK, CHUNKED, b"HTTP/1.", SWITCHED, SWITCHED[:-2]]),
    st.booleans(),
)
def test_any_bytes_at_all(data: bytes, before: bytes, may_switch: bool) -> None:
    """
    Whatever a worker sends is an answer, the beginning of one, or refused.
    """
    reader = AnswerReader(may_switch=may_switch)
    try:
        for piece in (before, data):
            if not reader.ended:
                reader.feed(piece)
    except BadAnswer:
        return
    assert (
        reader.head is None
        or 200 <= reader.head.code <= 599
        or (may_switch and reader.head.code == 101)
    )
