"""
One direction of a faulty connection.

It knows where the head of a message ends, and nothing else of HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field

from tests.integration.faults import Moment, Side
from tests.integration.sockets import reactor


@define(eq=False)
class Way:
    """
    One direction of a connection; what cannot go on yet waits here.

    Attributes:
        write: Sends it on; None until there is a connection.
        size: Bytes of the message under way that have come (count).
    """

    side: Side
    write: Callable[[bytes], object] | None = None
    size: int = 0
    _head: bytes = b""
    _body_at: int | None = None
    _waiting: bytearray = field(factory=bytearray)
    _timer: Any = None
    _then: Callable[[], None] | None = None

    def begin(self) -> None:
        """
        Count the next message.
        """
        self.size, self._head, self._body_at = 0, b"", None

    def before(self, moment: Moment | None, data: bytes) -> int | None:
        """
        How many bytes of *data*, which comes next, lie before *moment*; None if it is not in them.
        """
        first = self.size
        self.size += len(data)
        if self._body_at is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            self._body_at = None if end < 0 else end + 4
        if moment is None or moment.side is not self.side:
            return None
        start = self._body_at if moment.in_body else 0
        if start is None or not first <= start + moment.offset <= self.size:
            return None
        return start + moment.offset - first

    def pass_on(self, data: bytes) -> None:
        self._waiting += data
        if self._timer is None:
            self.flush()

    def end(self, then: Callable[[], None]) -> None:
        """
        Call *then* when nothing waits any more.
        """
        self._then = then
        if self._timer is None:
            self.flush()

    def flush(self) -> None:
        """
        Let nothing wait any more, if there is a connection.
        """
        self.stop()
        if self.write is not None and self._waiting:
            self.write(bytes(self._waiting))
            self._waiting.clear()
        if self._then is not None:
            self._then()

    def slow(self, pause: float, singly: int = 0) -> None:
        """
        Let what comes wait *pause* seconds, then so many bytes one by one with a pause behind each.
        """
        self.stop()
        self._timer = reactor.callLater(pause, self._step, pause, singly)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _step(self, pause: float, singly: int) -> None:
        self._timer = None
        if not singly:
            self.flush()
            return
        if self.write is not None and self._waiting:
            self.write(bytes(self._waiting[:1]))
            del self._waiting[:1]
            singly -= 1
        self.slow(pause, singly)
