"""
Whether the machine stood still: then limits of about a second say nothing about who kept to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from attrs import define
from twisted.internet.task import LoopingCall

from tests.integration.sockets import reactor

# Seconds: how often the reactor is asked for, and how late it may be.
_EVERY, _LATE = 0.02, 0.15


@define(eq=False)
class Stalls:
    """
    Attributes:
        last: When the reactor was late the last time (its seconds).
    """

    last: float = -1.0


@contextmanager
def watched_stalls() -> Iterator[Stalls]:
    """
    The stalls of the reactor, known until the end of the block.
    """
    stalls = Stalls()
    before = reactor.seconds()

    def look() -> None:
        nonlocal before
        now = reactor.seconds()
        if now - before > _EVERY + _LATE:
            stalls.last = now
        before = now

    looking = LoopingCall(look)
    looking.start(_EVERY)
    try:
        yield stalls
    finally:
        looking.stop()
