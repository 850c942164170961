"""
Writing straight to a socket, with the transport's buffer behind it.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgl_droute.workers.outlet import Outlet


class Source:
    """A producer that tells what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def pauseProducing(self) -> None:
        self.asked.append("pause")

    def resumeProducing(self) -> None:
        self.asked.append("resume")


class Transport:
    """
    As Twisted's: buffers what is written until it is told to `drain`.

    Args:
        handle: What ``getHandle`` gives.
    """

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.buffer = b""
        self.producer: Any = None
        self.streaming: bool | None = None

    def getHandle(self) -> Any:
        return self.handle

    def write(self, data: bytes) -> None:
        self.buffer += data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None
        self.producer, self.streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def drain(self) -> None:
        """
        Send what the socket takes; a pull producer is asked for more once all is sent.
        """
        if self.buffer:
            try:
                sent = self.handle.send(self.buffer)
            except BlockingIOError:
                return
            self.buffer = self.buffer[sent:]
            if not self.buffer and self.producer is not None:
                self.producer.resumeProducing()


class Link:
    """An outlet onto a small socket, and its other end."""

    def __init__(self) -> None:
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.far.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.near = near
        self.transport = Transport(near)
        self.outlet = Outlet(self.transport)
        self.source = Source()
        self.outlet.source = self.source

    def read(self, size: int = 1 << 20) -> bytes:
        """
        What has arrived.
        """
        try:
            return self.far.recv(size)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link()
    yield link
    link.close()


def test_bytes_leave_at_once(link: Link) -> None:
    """
    What the socket takes has left when ``write`` returns; the transport sees nothing of it.
    """
    link.outlet.write(b"hello")
    assert link.read() == b"hello"
    assert link.transport.buffer == b""
    assert link.transport.producer is None
    assert not link.outlet.full
    assert link.source.asked == []


def test_what_a_socket_does_not_take(link: Link) -> None:
    """
    The rest waits in the transport and the source pauses until that is empty.
    """
    data = bytes(range(256)) * 4096
    link.outlet.write(data)
    assert link.outlet.full
    assert link.source.asked == ["pause"]
    link.outlet.write(b"behind")
    received = b""
    while len(received) < len(data) + 6:
        received += link.read()
        link.transport.drain()
    assert received == data + b"behind"
    assert not link.outlet.full
    assert link.source.asked == ["pause", "resume"]
    assert link.transport.producer is None


@given(
    st.lists(
        st.one_of(
            st.integers(0, 60_000).map(lambda size: ("write", size)),
            st.integers(1, 60_000).map(lambda size: ("read", size)),
            st.just(("drain", 0)),
        ),
        max_size=40,
    )
)
def test_bytes_arrive_in_order(steps: list[tuple[str, int]]) -> None:
    """
    However writing, draining and reading meet, every byte arrives once and in its order, and the
    source is asked to pause and to resume by turns.
    """
    link = Link()
    try:
        written = received = b""
        for what, size in steps:
            if what == "write":
                part = b"%d," % len(written) * (size // 4)
                written += part
                link.outlet.write(part)
            elif what == "read":
                received += link.read(size)
            else:
                link.transport.drain()
            assert link.outlet.full == bool(link.transport.buffer)
        for _ in range(1000):
            link.transport.drain()
            received += link.read()
        assert received == written
        assert link.source.asked[::2] == ["pause"] * (len(link.source.asked) // 2)
        assert link.source.asked[1::2] == ["resume"] * (len(link.source.asked) // 2)
    finally:
        link.close()


def test_a_source_that_goes_on_writing_when_it_resumes(link: Link) -> None:
    """
    A source may fill the outlet again as soon as it is asked to resume.
    """
    part = b"x" * 200_000
    rest = [part, part]

    class More(Source):
        def resumeProducing(self) -> None:
            super().resumeProducing()
            if rest:
                link.outlet.write(rest.pop())

    link.outlet.source = source = More()
    link.outlet.write(part)
    size = 0
    while size < 3 * len(part):
        size += len(link.read())
        link.transport.drain()
    assert source.asked == ["pause", "resume"] * 3


def test_a_dead_socket(link: Link) -> None:
    """
    Bytes for a connection that is gone are the transport's, which finds out.
    """
    link.far.close()
    link.outlet.write(b"hello")
    assert link.transport.buffer == b"hello"
    assert link.source.asked == ["pause"]


def test_without_a_socket() -> None:
    """
    Over TLS, whose handle is no socket, the transport writes and tells when to pause.
    """
    transport = Transport(object())
    outlet = Outlet(transport)
    assert (transport.producer, transport.streaming) == (outlet, True)
    outlet.source = source = Source()
    outlet.write(b"hello")
    assert transport.buffer == b"hello"
    transport.producer.pauseProducing()
    assert outlet.full
    transport.producer.resumeProducing()
    assert not outlet.full
    assert source.asked == ["pause", "resume"]
    outlet.release()
    assert transport.producer is None


def test_release_while_bytes_wait(link: Link) -> None:
    """
    A released outlet leaves the transport without a producer, so that it may close, and keeps the
    order of what is still written.
    """
    data = b"x" * 300_000
    link.outlet.write(data)
    link.outlet.release()
    assert link.transport.producer is None
    link.outlet.write(b"behind")
    received = b""
    while len(received) < len(data) + 6:
        received += link.read()
        link.transport.drain()
    assert received == data + b"behind"
    assert link.source.asked == ["pause"]
