"""
What can go wrong between a router and a worker, and when.
"""

from __future__ import annotations

from enum import Enum, auto

from attrs import frozen

# Seconds that a late part waits; seconds between the bytes of a drip, and how many they are.
LATENCY = 0.15
DRIP_PAUSE = 0.03
DRIP_BYTES = 40


class Fault(Enum):
    """
    What goes wrong.
    """

    RESET = "RST to both sides"
    CLOSE = "FIN to both sides"
    HALF_CLOSE = "FIN to the router; what it still sends is swallowed"
    BLACK_HOLE = "open, and everything swallowed"
    STALL = "open, and nothing read any more"
    GARBAGE = "junk in place of what follows, then a black hole"
    LATENCY = "what follows comes late"
    DRIP = "what follows comes byte by byte"
    REFUSED = "the port is closed"
    UNREACHABLE = "nobody answers a SYN"


class Side(Enum):
    """
    Who wrote it: the router its request, the worker its answer.
    """

    REQUEST = auto()
    ANSWER = auto()


@frozen
class Moment:
    """
    A place in an exchange.

    Attributes:
        offset: Bytes of that side which pass before it.
        in_body: Whether they are counted from the first byte of the body.
    """

    name: str
    side: Side = Side.REQUEST
    offset: int = 0
    in_body: bool = False

    def __str__(self) -> str:
        return self.name


CONNECT = Moment("at connect")
REQUEST = Moment("before the request")
UPLOAD = Moment("inside the request body", Side.REQUEST, 1000, in_body=True)
ANSWER = Moment("before the answer", Side.ANSWER)
HEAD = Moment("inside the head", Side.ANSWER, 12)
HEAD_END = Moment("behind the head", Side.ANSWER, 0, in_body=True)
BODY = Moment("inside the body", Side.ANSWER, 1000, in_body=True)
