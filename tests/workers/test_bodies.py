"""
Spooled bodies: any number of readers, bit for bit.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IConsumer
from twisted.internet.task import Clock, Cooperator
from zope.interface import implementer

from sgl_droute.workers.bodies import Spool


@implementer(IConsumer)
class Sink:
    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...


def cooperator(clock: Clock) -> Cooperator:
    return Cooperator(scheduler=lambda step: clock.callLater(0, step))


@given(st.sampled_from([0, 1, 65_536, 65_537, 200_000]), st.integers(1, 4))
def test_readers_side_by_side(size: int, readers: int) -> None:
    """
    Each reader gets the whole body, however the others' reading is interleaved with it.
    """
    body = bytes(index % 251 for index in range(size))
    clock = Clock()
    spool = Spool.of(BytesIO(body))
    sinks = [Sink() for _ in range(readers)]
    for sink in sinks:
        producer = spool.producer(cooperator(clock))
        if producer is None:
            assert size == 0
        else:
            assert producer.length == size
            producer.startProducing(sink)
    clock.pump([0] * 20)
    assert [sink.data for sink in sinks] == [body] * readers
    assert spool.read() == body


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_stopped_reader_leaves_the_file_open(size: int) -> None:
    """
    Giving up one reading does not spoil the next.
    """
    clock = Clock()
    spool = Spool.of(BytesIO(b"x" * size))
    first = spool.producer(cooperator(clock))
    assert first is not None
    first.startProducing(Sink())
    first.pauseProducing()
    first.resumeProducing()
    first.stopProducing()
    again, sink = spool.producer(cooperator(clock)), Sink()
    assert again is not None
    again.startProducing(sink)
    clock.pump([0] * 20)
    assert sink.data == b"x" * size
