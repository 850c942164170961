"""
Answers to a handshake, however they are cut into pieces.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.workers.handshake_answer import AnswerReader, NotAnAnswer

ACCEPTED = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\n\x81\x00"
CHUNKED = b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n!"
ANSWERS = {
    ACCEPTED: (101, b"Switching", True, b"", b"\x81\x00"),
    b"HTTP/1.1 103 Hints\r\nUpgrade: x\r\n\r\n" + ACCEPTED: (
        101,
        b"Switching",
        True,
        b"",
        b"\x81\x00",
    ),
    b"HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nabc!": (403, b"No", True, b"abc", b""),
    CHUNKED: (403, b"No", True, b"abc", b""),
    b"HTTP/1.0 200 OK\r\n\r\nabc": (200, b"OK", False, b"abc", b""),
    b"HTTP/1.1 204 \r\nServer: x\r\n\r\n": (204, b"", True, b"", b""),
}


@given(st.sampled_from(list(ANSWERS)), st.data())
def test_cuts_do_not_matter(answer: bytes, data: st.DataObject) -> None:
    """
    Status, phrase, end, body, and what is behind a 101 are the same however the bytes come.
    """
    reader = AnswerReader()
    body, behind, left = b"", b"", answer
    while left:
        size = data.draw(st.integers(1, len(left)))
        part, left = left[:size], left[size:]
        behind += part if reader.opens else reader.feed(part)
        body += b"".join(reader.taken())
    assert reader.begun
    assert (reader.code, reader.phrase, reader.ended, body, behind) == ANSWERS[answer]
    assert not reader.headers.hasHeader("x")


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes(noise: bytes, cut: int) -> None:
    """
    No bytes make the reader fail in another way than by saying that they are no answer.
    """
    for answer in (noise, ACCEPTED[:cut] + noise, CHUNKED[:cut] + noise):
        reader = AnswerReader()
        try:
            reader.feed(answer)
        except NotAnAnswer:
            continue
        assert not reader.begun or reader.code == 101 or 200 <= reader.code <= 599
