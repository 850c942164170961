"""
Bodies of waiting requests: bounded in memory, whole again when their turn comes.
"""

from __future__ import annotations

import os
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import Any

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import LogEvent

from sgl_droute.errors import NoStorage
from sgl_droute.workers.bodies import Spool
from sgl_droute.workers.parking import LARGEST_PARKED, Parking


@define(eq=False)
class Client:
    """
    As much of a request as is parked.
    """

    content: Any

    @classmethod
    def of(cls, body: bytes) -> Client:
        content = BytesIO()
        content.write(body)
        content.seek(0)
        return cls(content)

    @property
    def body(self) -> bytes:
        return Spool.of(self.content).read()


def spooled(body: bytes) -> Client:
    content = SpooledTemporaryFile(max_size=1 << 16)  # noqa: SIM115
    content.write(body)
    return Client(content)


def descriptors() -> set[int]:
    return {int(name) for name in os.listdir("/dev/fd") if os.path.exists(f"/dev/fd/{name}")}


@contextmanager
def limited(kind: int, most: int) -> Iterator[None]:
    """Nothing more of that kind than *most*."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_below_the_limit() -> None:
    """
    As long as there is room in memory, nothing happens to a body.
    """
    bodies = Parking(limit=100)
    client = Client.of(b"x" * 100)
    content = client.content
    with bodies.parked(client):
        assert client.content is content
        assert bodies.held == 100
    assert bodies.held == 0
    assert client.body == b"x" * 100


@pytest.mark.parametrize("make", [Client.of, spooled])
def test_beyond_the_limit(make: Callable[[bytes], Client]) -> None:
    """
    A body that finds no room is out of memory while it waits, and back afterwards.
    """
    bodies = Parking(limit=100)
    client = make(b"abc" * 20_000)
    content = client.content
    with bodies.parked(Client.of(b"x" * 100)):
        with bodies.parked(client):
            assert content.closed
            assert client.body == b""
            assert bodies.held == 100
        assert client.body == b"abc" * 20_000
    assert bodies.held == 0


def test_files_of_their_own() -> None:
    """
    What is on disk already, has no body, or was closed is left alone.
    """
    bodies = Parking(limit=0)
    large = spooled(b"x" * 100_000)
    with TemporaryFile() as file:
        file.write(b"y" * 10)
        closed = BytesIO(b"z")
        closed.close()
        for client in (large, Client(file), Client(None), Client(closed), Client.of(b"")):
            content = client.content
            with bodies.parked(client):
                assert client.content is content
                assert bodies.held == 0
            assert client.content is content
    assert large.body == b"x" * 100_000
    large.content.close()


def test_too_large_to_park() -> None:
    """
    A body in memory that is larger than any place on disk stays where it is.
    """
    bodies = Parking(limit=0)
    client = Client.of(b"x" * (LARGEST_PARKED + 1))
    with bodies.parked(client):
        assert bodies.held == LARGEST_PARKED + 1
        assert len(client.body) == LARGEST_PARKED + 1


def test_a_client_that_leaves() -> None:
    """
    The body of a client that hangs up is not read again, and leaves nothing behind.
    """
    bodies = Parking(limit=0)
    client = Client.of(b"x" * 100)
    before = descriptors()
    with bodies.parked(client):
        client.content.close()  # as Twisted does
    assert client.content.closed
    with pytest.raises(ValueError, match="gone"), bodies.parked(Client.of(b"x")):
        raise ValueError("gone")
    assert descriptors() == before


def test_one_descriptor() -> None:
    """
    However many wait, they need one open file, and none when the last has gone.
    """
    bodies = Parking(limit=0)
    before = descriptors()
    for count in (10, 100):
        clients = [Client.of(b"%d" % number * 100) for number in range(count)]
        with ExitStack() as waits:
            for client in clients:
                waits.enter_context(bodies.parked(client))
            assert len(descriptors() - before) == 1
        assert descriptors() == before
        for number, client in enumerate(clients):
            assert client.body == b"%d" % number * 100


def test_flat_memory() -> None:
    """
    A thousand waiting bodies of 64 KiB take little more memory than the limit allows, and none
    once all have left.
    """
    bodies = Parking(limit=1 << 20)
    before = descriptors()
    tracemalloc.start()
    try:
        with ExitStack() as waits:
            for _ in range(1000):
                client = Client.of(os.urandom(1 << 16))
                waits.enter_context(bodies.parked(client))
                waits.callback(client.content.close)
            assert tracemalloc.get_traced_memory()[0] < 4 << 20
    finally:
        tracemalloc.stop()
    assert bodies.held == 0
    assert descriptors() == before


@given(
    st.lists(st.binary(max_size=60).map(lambda body: body * 20) | st.integers(0, 30), max_size=40),
    st.integers(0, 3000),
)
def test_every_body_comes_back(steps: list[bytes | int], limit: int) -> None:
    """
    In whatever order requests come and go, memory stays below the limit, every body is back whole
    and no file stays open.
    """
    bodies = Parking(limit)
    before = descriptors()
    waiting: list[tuple[Client, bytes, Any]] = []
    for step in [*steps, *[0] * len(steps)]:
        if isinstance(step, bytes):
            client = Client.of(step)
            waiting.append((client, step, bodies.parked(client)))
            waiting[-1][2].__enter__()
        elif waiting:
            client, body, wait = waiting.pop(step % len(waiting))
            wait.__exit__(None, None, None)
            assert client.body == body
        assert bodies.held <= limit
    assert bodies.held == 0
    assert descriptors() == before


@pytest.mark.parametrize("room", [0, 1000])
def test_a_full_disk(room: int, logged: list[LogEvent]) -> None:
    """
    Bodies that the disk does not take stay in memory, which is told once.
    """
    bodies = Parking(limit=0)
    first, second = Client.of(b"x" * 5000), Client.of(b"y" * 5000)
    before = descriptors()
    with limited(resource.RLIMIT_FSIZE, room), bodies.parked(first), bodies.parked(second):
        assert bodies.held == 10_000
        assert first.body == b"x" * 5000
        assert descriptors() == before
    told = [event for event in logged if "stay in memory" in (event["log_format"] or "")]
    assert len(told) == 1
    with bodies.parked(first):
        assert bodies.held == 0
    assert first.body == b"x" * 5000


def test_no_descriptor_left() -> None:
    """
    Without a file to be had, bodies stay in memory.
    """
    bodies = Parking(limit=0)
    client = Client.of(b"x" * 100)
    with limited(resource.RLIMIT_NOFILE, min(descriptors())), bodies.parked(client):
        assert client.body == b"x" * 100
        assert bodies.held == 100


@pytest.mark.parametrize("left", [0, 50])
def test_a_body_that_is_lost(left: int) -> None:
    """
    A request whose body cannot be read back is told so, and the next one is not touched.
    """
    bodies = Parking(limit=0)
    before = descriptors()
    lost, other = Client.of(b"x" * 100), Client.of(b"y" * 100)
    wait = bodies.parked(lost)
    wait.__enter__()
    [file] = descriptors() - before
    os.ftruncate(file, left)
    with bodies.parked(other):
        pass
    assert other.body == b"y" * 100
    os.ftruncate(file, left)
    with pytest.raises(NoStorage, match="could not be kept"):
        wait.__exit__(None, None, None)
    assert descriptors() == before
